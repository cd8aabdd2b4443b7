//! Generations of the manifest directory: what files there were, what they declared, what was wrong with them.

use crate::Key;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// SHA-256 of a file's contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digests `content`.
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(content).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        let bad = || format!("{s:?} is not 64 hexadecimal digits");
        if s.len() != 64 || !s.is_ascii() {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

/// A generation to be recorded. The store gives it the next number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGeneration {
    /// The files, each name once.
    pub files: Vec<NewFile>,
    /// What they declare.
    pub declared: Vec<DeclaredKey>,
    /// What was wrong, as the reader of the directory wrote it.
    pub diagnostics: serde_json::Value,
    /// For people: why there is this generation.
    pub note: String,
    /// The generation this one goes back to.
    pub rolled_back_from: Option<u64>,
}

/// A file of a generation to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name relative to the directory.
    pub name: String,
    /// What is in it.
    pub content: FileContent,
}

/// Contents sent along, or already stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// The bytes.
    Bytes(Bytes),
    /// The store has them (`Store::has_content`); with their digest.
    Stored(Digest),
}

/// A key and the file that declares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredKey {
    /// The key.
    pub key: Key,
    /// The name of the file.
    pub file: String,
}

/// A recorded generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Its number, from 1.
    pub number: u64,
    /// When it was recorded, by the wall clock.
    pub time: DateTime<Utc>,
    /// The files, by name.
    pub files: Vec<GenerationFile>,
    /// What they declared.
    pub declared: Vec<DeclaredKey>,
    /// What was wrong, as the reader of the directory wrote it.
    pub diagnostics: serde_json::Value,
    /// For people: why there is this generation.
    pub note: String,
    /// The generation this one went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_from: Option<u64>,
}

/// A file of a generation; its contents: `Store::content(digest)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationFile {
    /// Its name relative to the directory.
    pub name: String,
    /// The digest of its contents.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// How two generations differ, by file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationDiff {
    /// The one before.
    pub from: u64,
    /// The one after.
    pub to: u64,
    /// Only files that differ.
    pub files: Vec<FileDiff>,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff {
    /// Its name.
    pub name: String,
    /// How it differs, with both contents.
    pub change: FileChange,
}

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// Only in the later generation.
    Added {
        /// Its contents.
        after: Bytes,
    },
    /// Only in the earlier generation.
    Removed {
        /// Its contents.
        before: Bytes,
    },
    /// In both, with different contents.
    Changed {
        /// The earlier contents.
        before: Bytes,
        /// The later contents.
        after: Bytes,
    },
}
