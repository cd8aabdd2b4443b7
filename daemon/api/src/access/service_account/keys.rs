//! Signing keys: P-256, one file each, named after when they were made; the newest signs, the others verify until
//! nothing that they signed can be valid any more. Tokens that do not expire are signed by a key of their own, which stays.

use crate::access::certificates::pem;
use crate::access::files::{FileError, Kept, private_directory, read_private, replace};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};

/// A key signs for so long, in seconds.
const SIGNING_LIFE: i64 = 365 * 24 * 3600;
/// What comes before a P-256 point in a SubjectPublicKeyInfo (RFC 5480).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// One key.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    /// Digest of the public key, as kube-apiserver names its keys.
    pub(crate) id: String,
    created: i64,
}

impl Key {
    fn read(pkcs8: &[u8], created: i64) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).ok()?;
        let spki = [&SPKI_HEAD, pair.public_key().as_ref()].concat();
        let id = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki));
        Some(Self { pair, id, created })
    }

    /// Signs as ES256 wants it (RFC 7518, 3.4): r and s, 32 bytes each.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, &'static str> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| "there is no randomness")?;
        Ok(signature.as_ref().to_vec())
    }

    /// The uncompressed point.
    pub(crate) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// As a JSON web key (RFC 7518, 6.2).
    fn web_key(&self) -> Value {
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(self.public().get(range).unwrap_or_default());
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": part(1..33), "y": part(33..65)})
    }
}

/// All keys, newest first; there is always one.
pub(crate) struct Keys {
    directory: PathBuf,
    newest: Key,
    older: Vec<Key>,
    /// Signs tokens that do not expire; made with the first of them.
    lasting: Option<Key>,
}

/// The file of [`Keys::lasting`].
const LASTING: &str = "secrets.key";

impl Keys {
    /// Reads them, or makes the first. One that others may have read is not believed, nor used.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(directory: &Path, now: DateTime<Utc>) -> Result<Self, FileError> {
        if let Some(above) = directory.parent() {
            private_directory(above)?;
        }
        private_directory(directory)?;
        let failed = |source| FileError { op: "read the directory", path: directory.to_owned(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let created = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".key")?.parse::<i64>().ok());
            let Some(created) = created else { continue };
            found.extend(load(&path, created)?);
        }
        let lasting = load(&directory.join(LASTING), 0)?;
        found.sort_by_key(|key| std::cmp::Reverse(key.created));
        let mut keys = match found.is_empty() {
            true => Self { newest: make(directory, now)?, older: Vec::new(), lasting, directory: directory.to_owned() },
            false => {
                let newest = found.remove(0);
                Self { newest, older: found, lasting, directory: directory.to_owned() }
            }
        };
        keys.rotate(now, false)?;
        Ok(keys)
    }

    /// The one that signs.
    pub(crate) fn signing(&self) -> &Key {
        &self.newest
    }

    /// The one that signs tokens that do not expire.
    ///
    /// # Errors
    /// [`FileError`] when it can't be made.
    pub(crate) fn lasting(&mut self) -> Result<&Key, FileError> {
        let key = match self.lasting.take() {
            Some(key) => key,
            None => create(&self.directory.join(LASTING), 0)?,
        };
        Ok(self.lasting.insert(key))
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.newest).chain(&self.older).chain(&self.lasting)
    }

    /// The public key of this name.
    pub(crate) fn verifying(&self, id: &str) -> Option<&[u8]> {
        self.all().find(|key| key.id == id).map(Key::public)
    }

    /// For verifiers (RFC 7517).
    pub(crate) fn set(&self) -> Value {
        json!({"keys": self.all().map(Key::web_key).collect::<Vec<_>>()})
    }

    /// Makes a new one that signs, `always` or when the present one is old; drops those of no use any more.
    ///
    /// # Errors
    /// [`FileError`]: nothing has changed then.
    pub(crate) fn rotate(&mut self, now: DateTime<Utc>, always: bool) -> Result<bool, FileError> {
        let due = always || now.timestamp() - self.newest.created > SIGNING_LIFE;
        if due {
            let new = make(&self.directory, now)?;
            self.older.insert(0, std::mem::replace(&mut self.newest, new));
            tracing::info!(key = self.newest.id, "a new key signs ServiceAccounts' tokens");
        }
        // A key's last token was signed when the next key was made.
        let mut next = self.newest.created;
        let directory = self.directory.clone();
        self.older.retain(|key| {
            let needed = now.timestamp() - next <= super::LONGEST;
            next = key.created;
            if !needed {
                drop(std::fs::remove_file(path_of(&directory, key.created)));
            }
            needed
        });
        Ok(due)
    }
}

fn path_of(directory: &Path, created: i64) -> PathBuf {
    directory.join(format!("{created}.key"))
}

fn make(directory: &Path, now: DateTime<Utc>) -> Result<Key, FileError> {
    // Two within a second still are two files.
    let created = (now.timestamp()..).find(|at| !path_of(directory, *at).exists()).unwrap_or(now.timestamp());
    create(&path_of(directory, created), created)
}

/// The key in a file; none when there is none that can be believed.
fn load(path: &Path, created: i64) -> Result<Option<Key>, FileError> {
    match read_private(path)? {
        Kept::Safe(text) => {
            let key = PrivatePkcs8KeyDer::from_pem_slice(&text).ok();
            let key = key.and_then(|key| Key::read(key.secret_pkcs8_der(), created));
            if key.is_none() {
                tracing::warn!(file = %path.display(), "a key of ServiceAccounts' tokens can't be read");
            }
            Ok(key)
        }
        Kept::Unsafe(why) => {
            tracing::warn!(file = %path.display(), why, "a key of ServiceAccounts' tokens is not believed: tokens that it signed are void");
            Ok(None)
        }
        Kept::Absent => Ok(None),
    }
}

fn create(path: &Path, created: i64) -> Result<Key, FileError> {
    let failed =
        || FileError { op: "make the key", path: path.to_owned(), source: io::Error::other("there is no randomness") };
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(|_| failed())?;
    let key = Key::read(pkcs8.as_ref(), created).ok_or_else(failed)?;
    replace(path, 0o600, pem::private_key(pkcs8.as_ref()).as_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * 86400, 0).unwrap()
    }

    #[test]
    fn e08_keys_rotate_and_old_ones_verify_as_long_as_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pki/service-account");
        let first = Keys::open(&path, at(0)).unwrap().signing().id.clone();
        let file = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut keys = Keys::open(&path, at(100)).unwrap();
        assert_eq!(keys.signing().id, first);
        assert!(keys.rotate(at(100), true).unwrap() && !keys.rotate(at(101), false).unwrap());
        let second = keys.signing().id.clone();
        assert!(first != second && keys.verifying(&first).is_some() && keys.verifying("x").is_none());
        assert_eq!(keys.set()["keys"].as_array().unwrap().len(), 2);
        // The first signed until day 100; its last token ended a year later.
        let later = Keys::open(&path, at(464)).unwrap();
        assert!(later.verifying(&first).is_some());
        let later = Keys::open(&path, at(466)).unwrap();
        assert!(later.verifying(&first).is_none() && later.verifying(&second).is_some());
        assert_ne!(later.signing().id, second, "a year old, it signs no more");
        for file in std::fs::read_dir(&path).unwrap() {
            std::fs::set_permissions(file.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        assert!(Keys::open(&path, at(466)).unwrap().verifying(&second).is_none(), "others may have read it");
    }
}
