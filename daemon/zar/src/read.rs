//! Opening an archive and verifying it.

use crate::manifest::{MANIFEST_BYTES, Manifest, Part};
use crate::sign::{PublicKey, SIGNATURE_BYTES};
use crate::{Result, ZarError, digest_text, invalid, io};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The entry that all else follows from.
pub const MANIFEST: &str = "zar.json";
/// The entry that says who vouches for it.
pub const SIGNATURE: &str = "zar.sig";

/// Where a part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte, from the archive's beginning.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// An archive whose order, names and sizes are right; its parts' digests are yet to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The manifest's own bytes, which are signed.
    pub text: Vec<u8>,
    /// Its signature, if it has one.
    pub signature: Option<Vec<u8>>,
    /// Its parts' places, in the manifest's order.
    pub places: Vec<Place>,
}

/// What a decoder says of damage, without the bytes that it quotes: they may be of any file that somebody called an archive,
/// /etc/shadow for one.
#[must_use]
pub fn damage(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split([':', '\n']).next().unwrap_or_default().trim_end().to_owned()
}

/// Opens an archive. Every entry must be where the specification wants it, and none may be more.
///
/// # Errors
/// `Invalid`, `Io`.
pub fn open(input: impl Read + Seek) -> Result<Opened> {
    let mut archive = tar::Archive::new(input);
    let mut places = Vec::new();
    let entries = archive.entries_with_seek().map_err(|e| damaged(&e))?;
    let (manifest, text, signature) = walk(entries, |_, entry| {
        places.push(Place { offset: entry.raw_file_position(), size: entry.size() });
        Ok(())
    })?;
    Ok(Opened { manifest, text, signature, places })
}

/// Takes an archive apart as it comes, from a pipe too: `zar.json`, `zar.sig` and `parts/N` as files below `directory`, which is
/// empty. The same rules hold as for [`open`], and every part's digest is checked; signatures are the caller's matter.
///
/// # Errors
/// `Invalid`, `Io`: what was written until then stays.
pub fn extract(input: impl Read, directory: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    let entries = archive.entries().map_err(|e| damaged(&e))?;
    let parts = directory.join("parts");
    fs::create_dir(&parts).map_err(io("make parts"))?;
    let mut written = Vec::new();
    let (manifest, text, signature) = walk(entries, |name, entry| {
        let mut file = File::create_new(directory.join(name)).map_err(io(format!("write {name}")))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = entry.read(&mut buffer).map_err(|e| damaged(&e))?;
            if n == 0 {
                break;
            }
            let bytes = buffer.get(..n).unwrap_or_default();
            hash.update(bytes);
            file.write_all(bytes).map_err(io(format!("write {name}")))?;
        }
        written.push(digest_text(hash));
        Ok(())
    })?;
    for (index, (part, actual)) in manifest.parts.iter().zip(&written).enumerate() {
        is_whole(index, part, actual)?;
    }
    let save = |name: &str, bytes: &[u8]| {
        let file = File::create_new(directory.join(name));
        file.and_then(|mut file| file.write_all(bytes)).map_err(io(format!("write {name}")))
    };
    save(MANIFEST, &text)?;
    signature.map_or(Ok(()), |signature| save(SIGNATURE, &signature))
}

fn damaged(error: &std::io::Error) -> ZarError {
    match error.raw_os_error() {
        Some(number) => io("read archive")(std::io::Error::from_raw_os_error(number)),
        None => ZarError::Invalid(format!("it is no archive, or a damaged one: {}", damage(error))),
    }
}

fn is_whole(index: usize, part: &Part, actual: &str) -> Result<()> {
    if actual == part.digest {
        return Ok(());
    }
    invalid(format!("parts/{index} is damaged: zar.json says {}, it is {actual}", part.digest))
}

/// Walks over the entries, which must be those that the specification wants; `part` is given each part with its name.
fn walk<'a, R: Read + 'a>(
    entries: tar::Entries<'a, R>,
    mut part: impl FnMut(&str, &mut tar::Entry<'a, R>) -> Result<()>,
) -> Result<(Manifest, Vec<u8>, Option<Vec<u8>>)> {
    let (mut manifest, mut text, mut signature, mut parts) = (None::<Manifest>, Vec::new(), None, 0);
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|e| damaged(&e))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return invalid(format!("its entry {name:?} is no plain file"));
        }
        let size = entry.size();
        match (&manifest, name.as_str()) {
            (None, MANIFEST) => {
                if size > MANIFEST_BYTES {
                    return invalid(format!("zar.json has more than {MANIFEST_BYTES} bytes"));
                }
                entry.read_to_end(&mut text).map_err(|e| damaged(&e))?;
                if text.len() as u64 != size {
                    return invalid("it ends within zar.json");
                }
                manifest = Some(Manifest::parse(&text)?);
            }
            (None, _) => return invalid("it does not begin with zar.json"),
            (Some(_), SIGNATURE) if signature.is_none() && parts == 0 => {
                if size != SIGNATURE_BYTES as u64 {
                    return invalid(format!("zar.sig has {size} bytes, not {SIGNATURE_BYTES}"));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
                signature = Some(bytes);
            }
            (Some(manifest), name) => {
                let Some(wanted) = manifest.parts.get(parts) else {
                    return invalid(format!("it holds {name:?}, which zar.json does not name"));
                };
                if name != format!("parts/{parts}") {
                    return invalid(format!("it holds {name:?} where parts/{parts} should be"));
                }
                if size != wanted.size {
                    return invalid(format!("{name} has {size} bytes, zar.json says {}", wanted.size));
                }
                part(name, &mut entry)?;
                parts += 1;
            }
        }
    }
    let Some(manifest) = manifest else { return invalid("it is empty") };
    if parts != manifest.parts.len() {
        return invalid(format!("it ends before parts/{parts}"));
    }
    Ok((manifest, text, signature))
}

impl Opened {
    /// Whether one of these keys signed it. Without keys nothing is asked.
    ///
    /// # Errors
    /// `Untrusted`.
    pub fn check_signature(&self, keys: &[PublicKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let Some(signature) = &self.signature else {
            return Err(ZarError::Untrusted("it is not signed, and only signed archives are taken".into()));
        };
        if keys.iter().any(|key| key.verifies(&self.text, signature)) {
            return Ok(());
        }
        Err(ZarError::Untrusted("its signature is of none of the keys that are trusted".into()))
    }
}

/// Verifies all of an archive: form, signature, every part's digest.
///
/// # Errors
/// `Invalid`, `Untrusted`, `Io`.
pub fn verify(mut input: impl Read + Seek, keys: &[PublicKey]) -> Result<Opened> {
    let opened = open(&mut input)?;
    opened.check_signature(keys)?;
    let mut buffer = vec![0; 1 << 16];
    for (index, (part, place)) in opened.manifest.parts.iter().zip(&opened.places).enumerate() {
        let what = || format!("read parts/{index}");
        input.seek(SeekFrom::Start(place.offset)).map_err(io(what()))?;
        let mut content = (&mut input).take(place.size);
        let mut hash = Sha256::new();
        loop {
            let n = content.read(&mut buffer).map_err(io(what()))?;
            if n == 0 {
                break;
            }
            hash.update(buffer.get(..n).unwrap_or_default());
        }
        is_whole(index, part, &digest_text(hash))?;
    }
    Ok(opened)
}
