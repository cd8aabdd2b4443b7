//! What an image's files say of it: its digest and its config. Nothing is unpacked: the fake host runs no programs.

use crate::names::ImageId;
use crate::observe::ImageConfig;
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{DirEntry, File};
use std::io::{self, Read};
use std::path::Path;

/// Manifests and configs are far smaller; layers are larger or no JSON.
const DOCUMENT_MAX: u64 = 1 << 20;
/// Documents kept of one archive.
const DOCUMENTS_MAX: usize = 1000;

/// Reads a root file system directory, an OCI layout directory, or an OCI or docker archive (tar, tar.gz): digest,
/// bytes on disk, config (empty for a root file system, which has none).
///
/// # Errors
/// `InvalidData` when it is none of these; else what the file system says.
pub(super) fn read(path: &Path) -> io::Result<(ImageId, u64, ImageConfig)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let config = if path.metadata()?.is_dir() {
        hash_tree(path, path, &mut hash, &mut size)?;
        if path.join("oci-layout").is_file() {
            layout_config(&|name| std::fs::read(path.join(name)).ok())?
        } else {
            ImageConfig::default()
        }
    } else {
        // What the system did not say comes from the archive's own content: cut off, garbled.
        let garbled = |e: io::Error| if e.raw_os_error().is_some() { e } else { invalid(e.to_string()) };
        let documents = archive_documents(path).map_err(garbled)?;
        hash_file(path, &mut hash, &mut size)?;
        let find = |name: &str| documents.get(name).cloned();
        if documents.contains_key("index.json") { layout_config(&find)? } else { docker_config(&find)? }
    };
    Ok((ImageId::of_digest(hash.finalize().into()), size, config))
}

/// Digest and bytes of a file, or of a tree.
///
/// # Errors
/// What the file system says.
pub(super) fn add(path: &Path, hash: &mut Sha256, size: &mut u64) -> io::Result<()> {
    if path.metadata()?.is_dir() { hash_tree(path, path, hash, size) } else { hash_file(path, hash, size) }
}

fn hash_file(path: &Path, hash: &mut Sha256, size: &mut u64) -> io::Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 64 * 1024]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        *size += n as u64;
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

/// Relative names and contents in order of name. Symbolic links by their target.
fn hash_tree(root: &Path, at: &Path, hash: &mut Sha256, size: &mut u64) -> io::Result<()> {
    let mut entries: Vec<_> = at.read_dir()?.collect::<io::Result<_>>()?;
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.strip_prefix(root).unwrap_or(&path);
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        if kind.is_dir() {
            hash_tree(root, &path, hash, size)?;
        } else if kind.is_symlink() {
            hash.update(path.read_link()?.as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            hash_file(&path, hash, size)?;
        }
    }
    Ok(())
}

/// The small files of an archive, by name.
fn archive_documents(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut start = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut start)?;
    let file = File::open(path)?;
    let reader: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(GzDecoder::new(file))
    } else if start.get(257..262) == Some(b"ustar".as_slice()) {
        Box::new(file)
    } else {
        return Err(invalid("neither a directory nor a tar or tar.gz archive"));
    };
    let mut documents = BTreeMap::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        if entry.size() <= DOCUMENT_MAX && documents.len() < DOCUMENTS_MAX {
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            documents.insert(name, bytes);
        }
    }
    Ok(documents)
}

/// The config of an OCI image layout's first manifest (OCI image spec, image-layout.md).
fn layout_config(find: &dyn Fn(&str) -> Option<Vec<u8>>) -> io::Result<ImageConfig> {
    let blob = |value: &Value, at: &str| -> io::Result<Value> {
        let digest = value.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let id = ImageId::new(digest).map_err(|e| invalid(e.to_string()))?;
        document(find, &format!("blobs/sha256/{}", id.as_str().trim_start_matches("sha256:")))
    };
    let mut manifest = blob(&document(find, "index.json")?, "/manifests/0/digest")?;
    if manifest.get("manifests").is_some() {
        manifest = blob(&manifest, "/manifests/0/digest")?;
    }
    Ok(config_of(&blob(&manifest, "/config/digest")?))
}

/// The config of a docker archive's first image (`docker save`).
fn docker_config(find: &dyn Fn(&str) -> Option<Vec<u8>>) -> io::Result<ImageConfig> {
    let manifest = document(find, "manifest.json")?;
    let name = manifest.pointer("/0/Config").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid("manifest.json names no config"))?;
    Ok(config_of(&document(find, name)?))
}

fn document(find: &dyn Fn(&str) -> Option<Vec<u8>>, name: &str) -> io::Result<Value> {
    let bytes = find(name).ok_or_else(|| invalid(format!("not an image: {name} is missing")))?;
    serde_json::from_slice(&bytes).map_err(|e| invalid(format!("{name}: {e}")))
}

fn config_of(image: &Value) -> ImageConfig {
    let strings = |key: &str| {
        let list = image.pointer(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|s| s.as_str().map(str::to_owned)).collect()
    };
    let string = |key: &str| image.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    ImageConfig {
        entrypoint: strings("/config/Entrypoint"),
        cmd: strings("/config/Cmd"),
        env: strings("/config/Env"),
        working_dir: string("/config/WorkingDir"),
        user: string("/config/User"),
        stop_signal: Some(string("/config/StopSignal")).filter(|s| !s.is_empty()),
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str =
        r#"{"config":{"Entrypoint":["/app"],"Cmd":["serve"],"Env":["A=b"],"WorkingDir":"/srv","User":"web"}}"#;

    fn archive(files: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        for (name, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        file
    }

    #[test]
    fn a_docker_archive_says_how_it_wants_to_be_run() {
        let file = archive(&[("manifest.json", r#"[{"Config":"abc.json","Layers":[]}]"#), ("abc.json", CONFIG)]);
        let config = read(file.path()).unwrap().2;
        assert_eq!((config.entrypoint, config.cmd), (vec!["/app".to_owned()], vec!["serve".to_owned()]));
        assert_eq!((config.working_dir, config.user, config.stop_signal), ("/srv".into(), "web".into(), None));
    }

    #[test]
    fn an_oci_archive_is_followed_through_its_index() {
        let blob = |c: char| format!("blobs/sha256/{}", String::from(c).repeat(64));
        let point = |key: &str, c: char| format!(r#"{{"{key}":{{"digest":"sha256:{}"}}}}"#, String::from(c).repeat(64));
        let index = format!(r#"{{"manifests":[{{"digest":"sha256:{}"}}]}}"#, "a".repeat(64));
        let file = archive(&[("./index.json", &index), (&blob('a'), &point("config", 'b')), (&blob('b'), CONFIG)]);
        assert_eq!(read(file.path()).unwrap().2.entrypoint, ["/app"]);
    }

    #[test]
    fn an_archive_that_is_no_image_is_refused() {
        let error = read(archive(&[("hello.txt", "hi")]).path()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("manifest.json")), (io::ErrorKind::InvalidData, true));
        let garbled = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut garbled.reopen().unwrap(), b"\x1f\x8bnot really gzip").unwrap();
        assert_eq!(read(garbled.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
