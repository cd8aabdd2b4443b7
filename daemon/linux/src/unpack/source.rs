//! Finding an image in what a user points at, by content: an OCI layout (directory or tar), a docker archive, a root
//! file system (directory or tar). Everything here is plain JSON and offsets; no layer is unpacked.

use super::entry::{EntryKind, Place, read_entries};
use super::error::{Kind, Result, UnpackError};
use super::path::EntryPath;
use super::stream::{BlobReader, Compression, digest_of, sniff};
use reddwarf_host::UnpackLimits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The most that one of an image's JSON documents may take (registries allow 4 MiB).
const DOCUMENT_LIMIT: u64 = 4 << 20;
/// The most layers (docker's limit is 127).
const LAYER_LIMIT: usize = 127;

/// Where a blob is to be read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobPlace {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerSource {
    pub(crate) place: BlobPlace,
    /// Digest of the blob, where the format says it (OCI).
    pub(crate) digest: Option<String>,
    /// Digest of the decompressed tar, from the image's config.
    pub(crate) diff_id: String,
}

/// An image that was found: its config's own bytes, and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageSource {
    /// The config document as it is; its digest is the image's id.
    pub(crate) config: String,
    pub(crate) layers: Vec<LayerSource>,
}

/// Looks at `source` and finds the image for `architecture` (as OCI names it). A compressed archive is decompressed
/// into `scratch` first.
///
/// # Errors
/// `NotFound`, `Invalid` saying what is missing or wrong, `Exhausted`.
pub(crate) fn find(
    source: &Path,
    scratch: &Path,
    architecture: &str,
    limits: &UnpackLimits,
    zar_keys: &[String],
) -> Result<ImageSource> {
    let meta = std::fs::metadata(source).map_err(|e| UnpackError::io("open", source.display(), &e))?;
    if meta.is_dir() {
        if source.join("index.json").is_file() {
            return oci_image(&Directory { root: source.to_owned() }, architecture);
        }
        return super::pack::directory(source, scratch, architecture, limits);
    }
    if !meta.is_file() {
        return Err(UnpackError::invalid(format!("{} is neither a file nor a directory", source.display())));
    }
    let archive = Archive::open(source, scratch, limits)?;
    if archive.contains("zar.json") {
        return zar_image(&archive, architecture, zar_keys);
    }
    if archive.contains("index.json") {
        return oci_image(&archive, architecture);
    }
    if archive.contains("manifest.json") {
        return docker_image(&archive, architecture);
    }
    if archive.is_root_file_system() {
        return super::pack::tarball(&archive.file, architecture, limits);
    }
    Err(UnpackError::invalid(format!(
        "{} is no image: it holds neither index.json (OCI) nor manifest.json (docker save) nor zar.json, nor any of /bin, /usr, /etc as a \
         root file system does",
        source.display()
    )))
}

/// Named files: a directory or an archive.
trait Files {
    fn place(&self, name: &str) -> Result<BlobPlace>;

    fn document(&self, name: &str) -> Result<String> {
        let place = self.place(name)?;
        if place.length > DOCUMENT_LIMIT {
            return Err(UnpackError::invalid(format!("{name} has more than {} MiB", DOCUMENT_LIMIT >> 20)));
        }
        let mut text = String::new();
        open_place(&place)?.read_to_string(&mut text).map_err(|e| UnpackError::io("read", name, &e))?;
        Ok(text)
    }
}

/// Opens a blob.
///
/// # Errors
/// `NotFound`, `Other`.
pub(crate) fn open_place(place: &BlobPlace) -> Result<std::io::Take<File>> {
    let failed = |e| UnpackError::io("open", place.file.display(), &e);
    let mut file = File::open(&place.file).map_err(failed)?;
    file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
    Ok(file.take(place.length))
}

struct Directory {
    root: PathBuf,
}

impl Files for Directory {
    fn place(&self, name: &str) -> Result<BlobPlace> {
        let path = self.root.join(EntryPath::parse(name.as_bytes())?.to_path());
        let meta = std::fs::symlink_metadata(&path).map_err(|e| UnpackError::io("open", path.display(), &e))?;
        if !meta.is_file() {
            return Err(UnpackError::invalid(format!("{} is no regular file", path.display())));
        }
        Ok(BlobPlace { file: path, offset: 0, length: meta.len() })
    }
}

/// An uncompressed archive and where its entries lie.
struct Archive {
    file: PathBuf,
    entries: BTreeMap<PathBuf, Found>,
}

enum Found {
    File(Place),
    /// Old `docker save` links equal layers to one another.
    Link(PathBuf),
}

impl Archive {
    fn open(source: &Path, scratch: &Path, limits: &UnpackLimits) -> Result<Self> {
        let failed = |e| UnpackError::io("read", source.display(), &e);
        let mut input = File::open(source).map_err(failed)?;
        let mut start = [0; 8];
        let n = input.read(&mut start).map_err(failed)?;
        input.rewind().map_err(failed)?;
        let file = match sniff(start.get(..n).unwrap_or_default())? {
            Compression::None => source.to_owned(),
            Compression::Gzip | Compression::Zstd => {
                let target = scratch.join("archive.tar");
                decompress(input, &target, limits)?;
                target
            }
        };
        let entries = index(File::open(&file).map_err(failed)?, limits)?;
        Ok(Self { file, entries })
    }

    fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(Path::new(name))
    }

    /// A tar of a root file system, as `tar -C ROOT -c .` makes it.
    fn is_root_file_system(&self) -> bool {
        let mut tops = self.entries.keys().filter_map(|path| path.components().next());
        tops.any(|top| ["bin", "sbin", "usr", "etc", "lib"].iter().any(|name| top.as_os_str() == *name))
    }
}

fn decompress(input: File, target: &Path, limits: &UnpackLimits) -> Result<()> {
    let mut reader = BlobReader::new(input, *limits)?;
    let mut output = File::create_new(target).map_err(|e| UnpackError::io("make", target.display(), &e))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| UnpackError::io("read", "archive", &e))?;
        if n == 0 {
            return Ok(());
        }
        output
            .write_all(buffer.get(..n).unwrap_or_default())
            .map_err(|e| UnpackError::io("write", target.display(), &e))?;
    }
}

fn index(file: File, limits: &UnpackLimits) -> Result<BTreeMap<PathBuf, Found>> {
    let mut entries = BTreeMap::new();
    read_entries(std::io::BufReader::new(file), |entry, place, content| {
        let path = EntryPath::parse(&entry.path)?.to_path();
        limits.check_entries(entries.len() as u64 + 1).map_err(|e| UnpackError::invalid(e.to_string()))?;
        match entry.kind {
            EntryKind::File(_) => {
                entries.insert(path, Found::File(place));
            }
            EntryKind::Symlink(target) | EntryKind::Hardlink(target) => {
                use std::os::unix::ffi::OsStrExt;
                entries.insert(path, Found::Link(PathBuf::from(std::ffi::OsStr::from_bytes(&target))));
            }
            _ => {}
        }
        std::io::copy(content, &mut std::io::sink()).map_err(|e| UnpackError::io("read", "archive", &e))?;
        Ok(())
    })?;
    Ok(entries)
}

impl Files for Archive {
    fn place(&self, name: &str) -> Result<BlobPlace> {
        let missing = || UnpackError::invalid(format!("the archive lacks {name:?}, which it names itself"));
        let mut path = EntryPath::parse(name.as_bytes())?.to_path();
        for _ in 0..2 {
            match self.entries.get(&path).ok_or_else(missing)? {
                Found::File(Place { offset, length }) => {
                    return Ok(BlobPlace { file: self.file.clone(), offset: *offset, length: *length });
                }
                Found::Link(target) => path = beside(&path, target),
            }
        }
        Err(missing())
    }
}

/// A link's target within the archive: `a/layer.tar` and `../b/layer.tar` make `b/layer.tar`.
fn beside(path: &Path, target: &Path) -> PathBuf {
    use std::path::Component;
    let mut joined = path.parent().map(Path::to_owned).unwrap_or_default();
    for part in target.components() {
        match part {
            Component::Normal(name) => joined.push(name),
            Component::ParentDir => {
                joined.pop();
            }
            _ => {}
        }
    }
    joined
}

/// OCI image spec, descriptor.md.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// OCI image spec, image-index.md.
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// OCI image spec, manifest.md.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// The part of the config that ties layers to it (OCI image spec, config.md).
#[derive(Debug, Deserialize)]
struct ConfigHead {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| UnpackError::invalid(format!("{what} can't be read: {e}")))
}

fn oci_image(files: &impl Files, architecture: &str) -> Result<ImageSource> {
    let index = files.document("index.json")?;
    let manifest = oci_manifest(files, &parse(&index, "index.json")?, architecture, 0)?;
    let manifest: Manifest = parse(&verified_document(files, &manifest)?, "the image's manifest")?;
    let config = verified_document(files, &manifest.config)?;
    let head = check_config(&config, manifest.layers.len(), architecture)?;
    let layers = manifest.layers.iter().zip(head.rootfs.diff_ids).map(|(layer, diff_id)| {
        Ok(LayerSource { place: files.place(&blob_name(&layer.digest)?)?, digest: Some(layer.digest.clone()), diff_id })
    });
    Ok(ImageSource { layers: layers.collect::<Result<_>>()?, config })
}

/// The one manifest for our platform, through nested indexes.
fn oci_manifest(files: &impl Files, index: &Index, architecture: &str, depth: u32) -> Result<Descriptor> {
    let ours = |d: &&Descriptor| match &d.platform {
        // `unknown`: attestations that buildkit adds.
        Some(p) => p.os == "linux" && p.architecture == architecture,
        None => true,
    };
    let mut found: Vec<&Descriptor> = index.manifests.iter().filter(ours).collect();
    found.dedup_by(|a, b| a.digest == b.digest);
    let descriptor = match found.as_slice() {
        [one] => *one,
        [] => {
            let there: Vec<String> = index
                .manifests
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .collect();
            let message = format!("it holds no image for linux/{architecture}, only: {}", there.join(", "));
            return Err(UnpackError::invalid(message));
        }
        many => {
            let message = format!(
                "it holds {} images for linux/{architecture}: store one image per file (`skopeo copy`)",
                many.len()
            );
            return Err(UnpackError::invalid(message));
        }
    };
    if !descriptor.media_type.contains("image.index") && !descriptor.media_type.contains("manifest.list") {
        return Ok(descriptor.clone());
    }
    if depth >= 4 {
        return Err(UnpackError::invalid("its indexes are nested too deep"));
    }
    let nested = verified_document(files, descriptor)?;
    oci_manifest(files, &parse(&nested, "a nested index")?, architecture, depth + 1)
}

fn blob_name(digest: &str) -> Result<String> {
    let hex = digest.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| UnpackError::invalid(format!("the digest {digest:?} is no sha256")))?;
    Ok(format!("blobs/sha256/{hex}"))
}

fn verified_document(files: &impl Files, descriptor: &Descriptor) -> Result<String> {
    let text = files.document(&blob_name(&descriptor.digest)?)?;
    let actual = digest_of(text.as_bytes());
    if actual != descriptor.digest {
        let message =
            format!("digest mismatch: {} has the content of {actual}; the image is damaged", descriptor.digest);
        return Err(UnpackError::invalid(message));
    }
    Ok(text)
}

fn check_config(config: &str, layers: usize, architecture: &str) -> Result<ConfigHead> {
    let head: ConfigHead = parse(config, "the image's config")?;
    if layers != head.rootfs.diff_ids.len() {
        let message = format!("its manifest has {layers} layers, its config {}", head.rootfs.diff_ids.len());
        return Err(UnpackError::invalid(message));
    }
    if layers == 0 || layers > LAYER_LIMIT {
        return Err(UnpackError::invalid(format!("it has {layers} layers; 1 to {LAYER_LIMIT} can be run")));
    }
    for diff_id in &head.rootfs.diff_ids {
        blob_name(diff_id)?;
    }
    let other = |ours: &str, theirs: &str| !theirs.is_empty() && theirs != ours;
    if other("linux", &head.os) || other(architecture, &head.architecture) {
        let message = format!("it is for {}/{}, this host is linux/{architecture}", head.os, head.architecture);
        return Err(UnpackError::invalid(message));
    }
    Ok(head)
}

/// docs/zar.md. The parts' digests are checked while they are unpacked.
fn zar_image(archive: &Archive, architecture: &str, keys: &[String]) -> Result<ImageSource> {
    let refuse = |e: reddwarf_zar::ZarError| UnpackError::invalid(format!("{}: {e}", archive.file.display()));
    let keys = keys.iter().map(|k| reddwarf_zar::PublicKey::parse(k)).collect::<std::result::Result<Vec<_>, _>>();
    let file = File::open(&archive.file).map_err(|e| UnpackError::io("open", archive.file.display(), &e))?;
    let opened = reddwarf_zar::open(std::io::BufReader::new(file)).map_err(refuse)?;
    opened.check_signature(&keys.map_err(refuse)?).map_err(refuse)?;
    if opened.manifest.parts.iter().any(|p| p.kind == reddwarf_zar::PartKind::Zfs) {
        return Err(UnpackError::new(Kind::Unsupported, "it holds zfs streams, which a host of zones takes"));
    }
    let config = opened.manifest.image_config();
    check_config(&config, opened.manifest.parts.len(), architecture)?;
    let layers = opened.manifest.parts.iter().zip(&opened.places).map(|(part, place)| LayerSource {
        place: BlobPlace { file: archive.file.clone(), offset: place.offset, length: place.size },
        digest: Some(part.digest.clone()),
        diff_id: part.digest.clone(),
    });
    Ok(ImageSource { layers: layers.collect(), config })
}

/// `docker save` (moby, image/spec/v1.2.md).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn docker_image(archive: &Archive, architecture: &str) -> Result<ImageSource> {
    let text = archive.document("manifest.json")?;
    let mut images: Vec<DockerImage> = parse(&text, "manifest.json")?;
    let image = match (images.pop(), images.len()) {
        (Some(image), 0) => image,
        (None, _) => return Err(UnpackError::invalid("it holds no image")),
        (Some(last), more) => {
            let tags = images.iter().chain([&last]).filter_map(|i| i.repo_tags.as_ref()?.first().cloned());
            let message = format!(
                "it holds {} images ({}): save one image per file",
                more + 1,
                tags.collect::<Vec<_>>().join(", ")
            );
            return Err(UnpackError::invalid(message));
        }
    };
    let config = archive.document(&image.config)?;
    let head = check_config(&config, image.layers.len(), architecture)?;
    let layers = image
        .layers
        .iter()
        .zip(head.rootfs.diff_ids)
        .map(|(name, diff_id)| Ok(LayerSource { place: archive.place(name)?, digest: None, diff_id }));
    Ok(ImageSource { layers: layers.collect::<Result<_>>()?, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_archives_stay_in_archives() {
        assert_eq!(beside(Path::new("a/layer.tar"), Path::new("../b/layer.tar")), Path::new("b/layer.tar"));
        assert_eq!(beside(Path::new("a/layer.tar"), Path::new("../../../etc/passwd")), Path::new("etc/passwd"));
        assert_eq!(beside(Path::new("a"), Path::new("/etc/passwd")), Path::new("etc/passwd"));
    }

    #[test]
    fn only_sha256_names_a_blob() {
        assert!(blob_name(&format!("sha256:{}", "a".repeat(64))).is_ok());
        for bad in ["sha512:aa", "sha256:../../etc/passwd", "", "sha256:"] {
            assert!(blob_name(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_index_is_read_or_refused(text in ".{0,200}") {
            let _ = parse::<Index>(&text, "x");
            let _ = check_config(&text, 1, "amd64");
        }
    }
}
