//! Indexes, manifests and configs (OCI image specification; docker's image manifest version 2, schema 2).

use crate::error::{PullError, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What a registry may answer with when it is asked for a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Registries refuse larger documents.
pub(crate) const DOCUMENT: usize = 4 << 20;
/// docker's limit.
const LAYERS: usize = 127;

/// What images must be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// Variants that run here, the best first.
    pub variants: Vec<String>,
}

impl Platform {
    /// The variants of an architecture that any of its machines runs.
    pub fn new(os: &str, architecture: &str) -> Self {
        let variants: &[&str] = match architecture {
            "arm64" => &["v8"],
            "arm" => &["v7", "v6", "v5"],
            "amd64" => &["v1"],
            _ => &[],
        };
        let variants = variants.iter().map(|v| (*v).to_owned()).collect();
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variants }
    }

    /// How well something fits; less is better.
    fn rank(&self, theirs: &Described) -> Option<usize> {
        if theirs.os != self.os || theirs.architecture != self.architecture {
            return None;
        }
        match theirs.variant.as_deref().unwrap_or_default() {
            // Of arm, none at all says less than v7.
            "" => Some(if self.architecture == "arm" { self.variants.len() } else { 0 }),
            variant => self.variants.iter().position(|v| v == variant),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Described {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// OCI image specification, descriptor.md.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Described>,
}

/// What a name means in a registry.
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// One image's parts.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Reads what came for a manifest.
pub(crate) fn read(bytes: &[u8], content_type: &str) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Any {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        #[serde(default)]
        layers: Vec<Descriptor>,
    }
    let any: Any = serde_json::from_slice(bytes)
        .map_err(|e| PullError::invalid(format!("what the registry calls the image's manifest is none: {e}")))?;
    let media = if any.media_type.is_empty() { content_type } else { &any.media_type };
    if any.schema_version == 1 || media.contains("manifest.v1") && media.contains("docker") {
        return Err(PullError::invalid("its manifest is of docker's schema 1, which registries gave up: push it anew"));
    }
    match (any.manifests, any.config) {
        (Some(manifests), None) => Ok(Document::Index(manifests)),
        (None, Some(config)) => check(Manifest { config, layers: any.layers }).map(Document::Manifest),
        _ => Err(PullError::invalid(format!("its manifest ({media}) is neither an index nor an image"))),
    }
}

fn check(manifest: Manifest) -> Result<Manifest> {
    let config = &manifest.config.media_type;
    if !matches!(config.as_str(), "" | "application/vnd.oci.image.config.v1+json")
        && config != "application/vnd.docker.container.image.v1+json"
    {
        return Err(PullError::invalid(format!("it is no container image but an artifact ({config})")));
    }
    if manifest.layers.is_empty() || manifest.layers.len() > LAYERS {
        let message = format!("it has {} layers; 1 to {LAYERS} can be run", manifest.layers.len());
        return Err(PullError::invalid(message));
    }
    for layer in &manifest.layers {
        let media = layer.media_type.as_str();
        let known = ["tar", "tar+gzip", "tar+zstd", "tar.gzip", "tar.zstd"].iter().any(|end| media.ends_with(end));
        if !known || media.contains("foreign") || media.contains("nondistributable") || media.contains("encrypted") {
            return Err(PullError::invalid(format!(
                "layer {} is of a kind that is not known here: {media}",
                layer.digest
            )));
        }
    }
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        blob_hex(&descriptor.digest)?;
    }
    Ok(manifest)
}

/// The index's entry for a platform.
pub(crate) fn choose(manifests: Vec<Descriptor>, platform: &Platform) -> Result<Descriptor> {
    let there: Vec<String> = manifests
        .iter()
        .filter_map(|d| d.platform.as_ref())
        // Attestations of buildkit.
        .filter(|p| p.os != "unknown")
        .map(|p| {
            [Some(&p.os), Some(&p.architecture), p.variant.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect();
    let ranked = manifests.into_iter().filter_map(|d| {
        // An index of one image need not say for what it is.
        let rank = d.platform.as_ref().map_or(Some(usize::MAX), |p| platform.rank(p))?;
        Some((rank, d))
    });
    let best = ranked.min_by_key(|(rank, _)| *rank);
    let Some((_, descriptor)) = best else {
        let message = format!(
            "no match for platform {}/{} in the image's index, only: {}",
            platform.os,
            platform.architecture,
            there.join(", ")
        );
        return Err(PullError::invalid(message));
    };
    blob_hex(&descriptor.digest)?;
    Ok(descriptor)
}

/// What an image's config says of its layers, and whether it is for us.
pub(crate) fn diff_ids(config: &[u8], layers: usize, platform: &Platform) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    let config: Config = serde_json::from_slice(config)
        .map_err(|e| PullError::invalid(format!("the image's config can't be read: {e}")))?;
    let other = |ours: &str, theirs: &str| !theirs.is_empty() && theirs != ours;
    if other(&platform.os, &config.os) || other(&platform.architecture, &config.architecture) {
        let message = format!(
            "it is for {}/{}, this host is {}/{}",
            config.os, config.architecture, platform.os, platform.architecture
        );
        return Err(PullError::invalid(message));
    }
    if config.rootfs.diff_ids.len() != layers {
        let message = format!("its manifest has {layers} layers, its config {}", config.rootfs.diff_ids.len());
        return Err(PullError::invalid(message));
    }
    for id in &config.rootfs.diff_ids {
        blob_hex(id)?;
    }
    Ok(config.rootfs.diff_ids)
}

/// The digits of a sha256 digest, which are a blob's file name.
pub(crate) fn blob_hex(digest: &str) -> Result<&str> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(lower))
        .ok_or_else(|| PullError::invalid(format!("the digest {digest:?} is no sha256")))
}

/// `sha256:…` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex_of(Sha256::new_with_prefix(bytes))
}

pub(crate) fn hex_of(hash: Sha256) -> String {
    format!("sha256:{}", reddwarf_host::hex(&hash.finalize()))
}

/// Holds a document to the digest by which it was asked for.
pub(crate) fn verify(bytes: &[u8], digest: &str, what: &str) -> Result<()> {
    let actual = digest_of(bytes);
    if actual == digest {
        return Ok(());
    }
    Err(PullError::invalid(format!("digest mismatch: {what} {digest} has the content of {actual}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(digest: char, os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        let platform =
            Described { os: os.into(), architecture: architecture.into(), variant: variant.map(str::to_owned) };
        let digest = format!("sha256:{}", String::from(digest).repeat(64));
        Descriptor { media_type: String::new(), digest, size: 1, platform: Some(platform) }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let pick =
            |platform: &Platform, all: Vec<Descriptor>| choose(all, platform).map(|d| d.digest.as_bytes()[7] as char);
        let arm = Platform::new("linux", "arm");
        let all = vec![entry('a', "linux", "arm", Some("v5")), entry('b', "linux", "arm", Some("v7"))];
        assert_eq!(pick(&arm, all).unwrap(), 'b');
        let amd = Platform::new("linux", "amd64");
        let all = vec![
            entry('a', "unknown", "unknown", None),
            entry('b', "linux", "amd64", Some("v3")),
            entry('c', "linux", "amd64", None),
        ];
        assert_eq!(pick(&amd, all).unwrap(), 'c');
        let error = choose(vec![entry('a', "linux", "arm64", Some("v8"))], &amd).unwrap_err();
        assert_eq!(error.message, "no match for platform linux/amd64 in the image's index, only: linux/arm64/v8");
    }

    #[test]
    fn what_is_no_image_is_told() {
        let hex = "a".repeat(64);
        let config =
            format!(r#"{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:{hex}","size":1}}"#);
        let error = |text: &str| read(text.as_bytes(), "").err().unwrap().message;
        assert!(error(&format!(r#"{{"config":{config},"layers":[]}}"#)).contains("artifact"));
        assert!(error(r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
        assert!(error("{}").contains("neither an index nor an image"));
        let good = config.replace("cncf.helm.config", "oci.image.config");
        let layer = format!(r#"{{"mediaType":"application/x+encrypted","digest":"sha256:{hex}","size":1}}"#);
        assert!(error(&format!(r#"{{"config":{good},"layers":[{layer}]}}"#)).contains("not known here"));
    }

    proptest! {
        #[test]
        fn any_document_is_read_or_refused(text in ".{0,300}") {
            let platform = Platform::new("linux", "amd64");
            let _ = read(text.as_bytes(), "");
            let _ = diff_ids(text.as_bytes(), 1, &platform);
            let json = format!(r#"{{"manifests":[{{"digest":{text:?},"size":1}}]}}"#);
            if let Ok(Document::Index(all)) = read(json.as_bytes(), "") {
                let _ = choose(all, &platform);
            }
        }
    }
}
