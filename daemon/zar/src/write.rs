//! Making an archive.

use crate::manifest::Manifest;
use crate::sign::SigningKey;
use crate::{Part, PartKind, Result, digest_text, invalid, io};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Writes an archive of these parts to `target`, which must not be there yet: `manifest.parts` follow from the files.
///
/// # Errors
/// `Io`, `Invalid`.
pub fn create(
    mut manifest: Manifest,
    parts: &[(PartKind, PathBuf)],
    key: Option<&SigningKey>,
    target: &Path,
) -> Result<Manifest> {
    manifest.parts = parts.iter().map(|(kind, path)| describe(*kind, path)).collect::<Result<_>>()?;
    manifest.check()?;
    let text = match serde_json::to_vec_pretty(&manifest) {
        Ok(text) => text,
        Err(error) => return invalid(format!("zar.json can't be written: {error}")),
    };
    let temporary = target.with_extension("zar.new");
    let what = || format!("write {}", temporary.display());
    free(target)?;
    // Left by one that was cut off.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(what())(e)),
        _ => {}
    }
    let file = File::create_new(&temporary).map_err(io(what()))?;
    let result = fill(file, &text, key, &manifest, parts).and_then(|file| file.sync_all().map_err(io(what())));
    let named = || std::fs::rename(&temporary, target).map_err(io(format!("write {}", target.display())));
    match result.and_then(|()| free(target)).and_then(|()| named()) {
        Ok(()) => Ok(manifest),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// An archive that is there already is not replaced.
fn free(target: &Path) -> Result<()> {
    if std::fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    let there = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already: name another file");
    Err(io(format!("write {}", target.display()))(there))
}

fn describe(kind: PartKind, path: &Path) -> Result<Part> {
    let what = || format!("read {}", path.display());
    let mut file = File::open(path).map_err(io(what()))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let n = file.read(&mut buffer).map_err(io(what()))?;
        if n == 0 {
            return Ok(Part { kind, size, digest: digest_text(hash) });
        }
        hash.update(buffer.get(..n).unwrap_or_default());
        size += n as u64;
    }
}

fn fill(
    file: File,
    text: &[u8],
    key: Option<&SigningKey>,
    manifest: &Manifest,
    parts: &[(PartKind, PathBuf)],
) -> Result<File> {
    let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
    append(&mut tar, "zar.json", text.len() as u64, text)?;
    if let Some(key) = key {
        let signature = key.sign(text);
        append(&mut tar, "zar.sig", signature.len() as u64, &signature[..])?;
    }
    for (index, (part, (_, path))) in manifest.parts.iter().zip(parts).enumerate() {
        let content = File::open(path).map_err(io(format!("read {}", path.display())))?;
        append(&mut tar, &format!("parts/{index}"), part.size, content.take(part.size))?;
    }
    let what = || "write archive".to_owned();
    let mut buffered = tar.into_inner().map_err(io(what()))?;
    buffered.flush().map_err(io(what()))?;
    buffered.into_inner().map_err(|e| e.into_error()).map_err(io(what()))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    // Left empty they are no numbers to those who read tars strictly, ourselves included.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, content).map_err(io(format!("write {name}")))
}
