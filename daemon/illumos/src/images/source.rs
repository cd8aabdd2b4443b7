//! What is imported, found out before anything is made of it.

use super::unpack::{What, unpack};
use super::{layer, zar};
use crate::host::Shared;
use reddwarf_host::{HostError, HostErrorKind, ImageConfig, ImageId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Descriptors and configurations are small.
const JSON_MOST: u64 = 8 << 20;

/// Why something can't be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("there is no such path")]
    Missing,
    #[error("{0}")]
    NoImage(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Problem {
    pub(super) fn into_host(self, op: &'static str, name: &str) -> HostError {
        let kind = match &self {
            Self::Missing => HostErrorKind::NotFound,
            Self::NoImage(_) => HostErrorKind::InvalidSpec,
            Self::Io(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                HostErrorKind::Exhausted
            }
            Self::Io(e) if e.kind() == io::ErrorKind::InvalidData => HostErrorKind::InvalidSpec,
            Self::Io(_) => HostErrorKind::Other,
        };
        HostError::new(kind, op, name, self.to_string())
    }
}

pub(super) fn no_image(what: impl Into<String>) -> Problem {
    Problem::NoImage(what.into())
}

/// An image that was found.
pub(super) struct Found {
    pub(super) id: ImageId,
    pub(super) config: ImageConfig,
    content: Content,
}

enum Content {
    Directory(PathBuf),
    /// Blobs of layers, lowest first, with what their digests must be (of the blob itself, or of what is in it).
    Layers(Vec<(PathBuf, Option<String>)>),
    /// Streams of `zfs send`: the first full, the others increments. With what their digests must be.
    Streams(Vec<(PathBuf, String)>),
}

impl Found {
    /// Streams of `zfs send` that it consists of; `None`: it is made of files, by [`Self::put`].
    pub(super) fn streams(&self) -> Option<&[(PathBuf, String)]> {
        match &self.content {
            Content::Streams(streams) => Some(streams),
            Content::Directory(_) | Content::Layers(_) => None,
        }
    }

    /// Makes the root file system below `root`, an empty directory.
    pub(super) async fn put(&self, shared: &Shared, root: &Path) -> Result<(), Problem> {
        match &self.content {
            Content::Directory(from) => {
                let (from, root) = (from.clone(), root.to_owned());
                aside(move || Ok(layer::copy_tree(&from, &root)?)).await
            }
            Content::Layers(layers) => {
                for (blob, digest) in layers {
                    if let Some(wanted) = digest.clone() {
                        let blob = blob.clone();
                        aside(move || check_digest(&blob, &wanted)).await?;
                    }
                    unpack(shared, What::Layer, blob, root).await?;
                }
                Ok(())
            }
            Content::Streams(_) => Err(no_image("zfs streams make a dataset, not files")),
        }
    }
}

/// Long reads, on a thread for such.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Finds out what lies at `source`; archives are unpacked into `scratch`.
pub(super) async fn find(shared: &Shared, source: &Path, scratch: &Path) -> Result<Found, Problem> {
    let found = match fs::metadata(source) {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Problem::Missing);
        }
        Err(e) => return Err(e.into()),
    };
    let (source, scratch) = (source.to_owned(), scratch.to_owned());
    if found.is_dir() {
        return aside(move || match source.join("oci-layout").is_file() {
            true => layout(&source),
            false => directory(&source),
        })
        .await;
    }
    if !found.is_file() {
        return Err(no_image("neither a directory nor a file"));
    }
    unpack(shared, What::Archive, &source, &scratch).await.map_err(|problem| match problem {
        Problem::NoImage(why) => no_image(format!("no root file system, OCI layout or archive: {why}")),
        other => other,
    })?;
    let keys = shared.options.zar_keys.clone();
    aside(move || {
        if scratch.join(reddwarf_zar::read::MANIFEST).is_file() {
            return zar::found(&scratch, &keys);
        }
        if scratch.join("oci-layout").is_file() {
            return layout(&scratch);
        }
        if scratch.join("manifest.json").is_file() {
            return docker(&scratch);
        }
        if is_root(&scratch) {
            return root_archive(&source);
        }
        Err(no_image("an archive, but neither of an OCI layout nor of docker, and no root file system: it has no bin, etc or usr"))
    })
    .await
}

/// Whether a directory may be a root file system's top.
pub(super) fn is_root(dir: &Path) -> bool {
    ["bin", "etc", "usr"].iter().any(|name| dir.join(name).symlink_metadata().is_ok())
}

/// An archive of a root file system. The same file is the same image.
fn root_archive(source: &Path) -> Result<Found, Problem> {
    let id = ImageId::of_digest(digest(source)?);
    Ok(Found { id, config: ImageConfig::default(), content: Content::Layers(vec![(source.to_owned(), None)]) })
}

fn directory(source: &Path) -> Result<Found, Problem> {
    let digest = layer::tree_digest(source)?;
    let id = ImageId::of_digest(digest);
    Ok(Found { id, config: ImageConfig::default(), content: Content::Directory(source.to_owned()) })
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<(T, Vec<u8>), Problem> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| no_image(format!("{}: {e}", path.display())))?;
    file.take(JSON_MOST).read_to_end(&mut bytes)?;
    let value = serde_json::from_slice(&bytes).map_err(|e| no_image(format!("{}: {e}", path.display())))?;
    Ok((value, bytes))
}

pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A file of an image. Links of an archive may lead anywhere, and to what never ends; only a regular file below the image's
/// directory is one of its own.
fn inside(dir: &Path, name: &str) -> Result<PathBuf, Problem> {
    let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if !plain {
        return Err(no_image(format!("{name:?} leads outside")));
    }
    let real = dir.join(name).canonicalize().map_err(|e| no_image(format!("{name}: {e}")))?;
    if !real.starts_with(dir.canonicalize()?) {
        return Err(no_image(format!("{name:?} leads outside")));
    }
    if !fs::symlink_metadata(&real)?.is_file() {
        return Err(no_image(format!("{name:?} is no regular file")));
    }
    Ok(real)
}

fn blob(layout: &Path, digest: &str) -> Result<PathBuf, Problem> {
    match digest.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            inside(layout, &format!("blobs/sha256/{hex}"))
        }
        _ => Err(no_image(format!("the digest {digest:?} is not one of sha256"))),
    }
}

fn digest(path: &Path) -> Result<[u8; 32], Problem> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(|e| no_image(format!("{}: {e}", path.display())))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
    Ok(hash.finalize().into())
}

pub(super) fn check_digest(path: &Path, wanted: &str) -> Result<(), Problem> {
    let found = reddwarf_host::hex(&digest(path)?);
    if wanted.strip_prefix("sha256:") == Some(&found) {
        return Ok(());
    }
    Err(no_image(format!("{} has the digest sha256:{found}, not {wanted}", path.display())))
}

fn layout(dir: &Path) -> Result<Found, Problem> {
    let (mut index, _) = json::<Index>(&inside(dir, "index.json")?)?;
    // An index may lead to another; never further.
    for _ in 0..2 {
        let fits = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.architecture == architecture());
        let Some(chosen) = index.manifests.iter().find(fits).cloned() else {
            return Err(no_image(format!("nothing in it is for {}", architecture())));
        };
        let path = blob(dir, &chosen.digest)?;
        check_digest(&path, &chosen.digest)?;
        if let Ok((manifest, _)) = json::<Manifest>(&path) {
            let config = blob(dir, &manifest.config.digest)?;
            check_digest(&config, &manifest.config.digest)?;
            let layers = manifest.layers.iter().map(|l| Ok((blob(dir, &l.digest)?, Some(l.digest.clone()))));
            return of_config(&config, layers.collect::<Result<_, Problem>>()?);
        }
        index = json::<Index>(&path)?.0;
    }
    Err(no_image("its index leads to no manifest"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    layers: Vec<String>,
}

fn docker(dir: &Path) -> Result<Found, Problem> {
    let (manifests, _) = json::<Vec<DockerManifest>>(&inside(dir, "manifest.json")?)?;
    let Some(manifest) = manifests.into_iter().next() else { return Err(no_image("manifest.json names no image")) };
    let layers = manifest.layers.iter().map(|l| Ok((inside(dir, l)?, None))).collect::<Result<_, Problem>>()?;
    of_config(&inside(dir, &manifest.config)?, layers)
}

fn of_config(path: &Path, layers: Vec<(PathBuf, Option<String>)>) -> Result<Found, Problem> {
    let (_, bytes) = json::<serde_json::Value>(path)?;
    Found::of_layers(&bytes, layers)
}

impl Found {
    /// An image of a tree that nobody changes any more. The same tree and config are the same image.
    pub(super) fn of_tree(tree: PathBuf, config: ImageConfig) -> Result<Self, Problem> {
        let mut hash = Sha256::new_with_prefix(layer::tree_digest(&tree)?);
        hash.update(serde_json::to_vec(&config).map_err(io::Error::from)?);
        Ok(Self { id: ImageId::of_digest(hash.finalize().into()), config, content: Content::Directory(tree) })
    }

    /// An image by its config document, whose digest is its id, and the files of its layers, lowest first.
    pub(super) fn of_layers(config: &[u8], layers: Vec<(PathBuf, Option<String>)>) -> Result<Self, Problem> {
        let parsed = ImageConfig::of_document(config).map_err(|e| no_image(format!("its config: {e}")))?;
        let id = ImageId::of_digest(Sha256::digest(config).into());
        Ok(Self { id, config: parsed, content: Content::Layers(layers) })
    }

    /// An image by its config document, and the streams that its dataset is made of.
    pub(super) fn of_streams(config: &[u8], streams: Vec<(PathBuf, String)>) -> Result<Self, Problem> {
        Ok(Self { content: Content::Streams(streams), ..Self::of_layers(config, Vec::new())? })
    }
}
