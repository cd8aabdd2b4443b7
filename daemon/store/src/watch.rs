//! Following changes.

use crate::{Key, Op, Revision, WatchError};
use bytes::Bytes;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The commit that made it.
    pub revision: Revision,
    /// The key.
    pub key: Key,
    /// What was done.
    pub op: Op,
    /// The bytes after it; absent for a delete.
    pub value: Option<Bytes>,
    /// The bytes before it; absent for a creation.
    pub previous: Option<Bytes>,
    /// The commit that created the object (for a delete: the one that had created it).
    pub created: Revision,
    /// The last of its commit for this watch: up to `revision` all has been seen.
    pub last: bool,
}

/// A stream of changes under a prefix, each exactly once, in order of revision.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Waits for the next change.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        Err(WatchError::Closed)
    }

    /// Up to where everything under the prefix has been delivered (for bookmarks).
    pub fn revision(&self) -> Revision {
        Revision::ZERO
    }
}
