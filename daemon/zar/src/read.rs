//! Opening an archive and verifying it.

use crate::manifest::{MANIFEST_BYTES, Manifest};
use crate::sign::{PublicKey, SIGNATURE_BYTES};
use crate::{Result, ZarError, digest_text, invalid, io};
use sha2::{Digest, Sha256};
use std::io::{Read, Seek, SeekFrom};

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
    let damaged = |e: std::io::Error| match e.raw_os_error() {
        Some(_) => io("read archive")(e),
        None => ZarError::Invalid(format!("it is no archive, or a damaged one: {}", damage(&e))),
    };
    let entries = archive.entries_with_seek().map_err(damaged)?.raw(true);
    let (mut manifest, mut text, mut signature, mut places) = (None::<Manifest>, Vec::new(), None, Vec::new());
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return invalid(format!("its entry {name:?} is no plain file"));
        }
        let size = entry.size();
        match (&manifest, name.as_str()) {
            (None, "zar.json") => {
                if size > MANIFEST_BYTES {
                    return invalid(format!("zar.json has more than {MANIFEST_BYTES} bytes"));
                }
                entry.read_to_end(&mut text).map_err(damaged)?;
                if text.len() as u64 != size {
                    return invalid("it ends within zar.json");
                }
                manifest = Some(Manifest::parse(&text)?);
            }
            (None, _) => return invalid("it does not begin with zar.json"),
            (Some(_), "zar.sig") if signature.is_none() && places.is_empty() => {
                if size != SIGNATURE_BYTES as u64 {
                    return invalid(format!("zar.sig has {size} bytes, not {SIGNATURE_BYTES}"));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(damaged)?;
                signature = Some(bytes);
            }
            (Some(manifest), name) => {
                let Some(part) = manifest.parts.get(places.len()) else {
                    return invalid(format!("it holds {name:?}, which zar.json does not name"));
                };
                if name != format!("parts/{}", places.len()) {
                    return invalid(format!("it holds {name:?} where parts/{} should be", places.len()));
                }
                if size != part.size {
                    return invalid(format!("{name} has {size} bytes, zar.json says {}", part.size));
                }
                places.push(Place { offset: entry.raw_file_position(), size });
            }
        }
    }
    let Some(manifest) = manifest else { return invalid("it is empty") };
    if places.len() != manifest.parts.len() {
        return invalid(format!("it ends before parts/{}", places.len()));
    }
    Ok(Opened { manifest, text, signature, places })
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
        let actual = digest_text(hash);
        if actual != part.digest {
            return invalid(format!("parts/{index} is damaged: zar.json says {}, it is {actual}", part.digest));
        }
    }
    Ok(opened)
}
