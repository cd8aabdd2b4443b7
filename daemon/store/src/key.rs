//! Keys and revisions.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 2048;

/// The number of a commit: strictly increasing over the life of a store, restarts and restores included.
///
/// `Revision(0)` is the state before the first commit. Kubernetes' `resourceVersion` is this number in decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first commit.
    pub const ZERO: Revision = Revision(0);

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// The name of a value: `/`-separated segments, ordered bytewise. Cheap to clone.
///
/// Not empty, at most 2048 bytes, no empty segment, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Empty, or with an empty segment (`a//b`, `/a`, `a/`).
    #[error("key {0:?} is empty or has an empty segment")]
    Empty(String),
    /// Longer than [`MAX_KEY`].
    #[error("key of {0} bytes is longer than {MAX_KEY}")]
    TooLong(usize),
    /// A control character, or a `/` inside what should be one segment.
    #[error("key {0:?} has a character that keys can't hold")]
    BadCharacter(String),
}

impl Key {
    /// Checks a whole key, e.g. `k8s/-/-/core/pods/default/web`.
    ///
    /// # Errors
    /// [`KeyError`] when it is not one.
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyError> {
        let text = text.as_ref();
        if text.len() > MAX_KEY {
            return Err(KeyError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(KeyError::BadCharacter(text.to_owned()));
        }
        if text.split('/').any(str::is_empty) {
            return Err(KeyError::Empty(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Joins segments with `/`. A segment that holds a `/` is refused, so that two tenants' keys never collide.
    ///
    /// # Errors
    /// [`KeyError`] when a segment is empty or holds what it must not.
    pub fn from_segments<S: AsRef<str>>(segments: &[S]) -> Result<Self, KeyError> {
        if let Some(bad) = segments.iter().find(|s| s.as_ref().contains('/')) {
            return Err(KeyError::BadCharacter(bad.as_ref().to_owned()));
        }
        let texts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        Self::new(texts.join("/"))
    }

    /// A key that was checked when it was written.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between the slashes.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::new(s)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(s: String) -> Result<Self, KeyError> {
        Self::new(s)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(s: &str) -> Result<Self, KeyError> {
        Self::new(s)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0.as_ref().to_owned()
    }
}
