//! What can go wrong.

use crate::{Expect, Found, Key, KeyError, Revision};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A failed read, open, backup or restore.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Another process has the file open.
    #[error("{path} is in use by {holder}; stop it, or choose another --state directory")]
    Locked {
        /// The file.
        path: PathBuf,
        /// `process 1234 (reddwarfd)`, or `another process` when it is not known.
        holder: String,
    },
    /// Written by a newer version of the program.
    #[error(
        "{path} has store format {found}, this version knows up to {known}; install the newer version again or restore a backup"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u64,
        /// The newest format this program knows.
        known: u64,
    },
    /// The revision asked for is older than what history retains.
    #[error("revision {asked} is compacted away, history starts after {floor}; list again")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can be read.
        floor: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {asked} is in the future, the newest is {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest there is.
        current: Revision,
    },
    /// The target of a backup exists.
    #[error("{path} exists already; choose another name or remove it")]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// A file that should be a store is none, or is damaged.
    #[error("{path} is not a usable store: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A record can't be decoded.
    #[error("{what} is damaged: {why}; restart the daemon to have the file checked, or restore a backup")]
    Damaged {
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
    /// A file operation failed.
    #[error("can't {op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The database failed.
    #[error("can't {op}: {source}")]
    Database {
        /// What was tried.
        op: &'static str,
        /// Why.
        #[source]
        source: Arc<redb::Error>,
    },
    /// The thread that writes could not be started, or ended by a defect.
    #[error("the store's writer {0}")]
    Writer(String),
}

/// A transaction that did not happen (or, after `Store`, is not known to have happened).
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation did not hold. Nothing was written.
    #[error("{key}: expected {expected:?}, found {found:?}")]
    Conflict {
        /// Of which key.
        key: Key,
        /// What the transaction expected.
        expected: Expect,
        /// What was there.
        found: Found,
    },
    /// The transaction makes no sense (a key twice, a value too large). Nothing was written.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// A generation refers to file contents the store does not have. Nothing was written.
    #[error("the store has no file contents {digest}; send them")]
    MissingContent {
        /// The SHA-256 digest, in hexadecimal.
        digest: String,
    },
    /// The disk failed (full, I/O error). Transient: the store reopens its file and goes on once the disk is well.
    /// Whether the write landed is only known by reading.
    #[error("the write could not be made durable: {0}")]
    Disk(#[source] StoreError),
    /// The store was closed. Whether a queued write landed is only known by reading.
    #[error("the store is closed")]
    Closed,
}

impl CommitError {
    /// Whether the same transaction may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Disk(_))
    }
}

/// Why a watch ends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The watcher is behind what history retains: list again and watch from there. Nothing was skipped silently.
    #[error("changes after {after} are compacted away, history starts after {floor}; list again")]
    Compacted {
        /// Up to where the watcher had got.
        after: Revision,
        /// The oldest revision a watch can start after.
        floor: Revision,
    },
    /// The revision to start after does not exist yet.
    #[error("revision {asked} is in the future, the newest is {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest there is.
        current: Revision,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// History could not be read. The watch can be asked again: its position is unchanged.
    #[error("history can't be read: {0}")]
    Store(#[source] StoreError),
}

impl From<KeyError> for CommitError {
    fn from(e: KeyError) -> Self {
        Self::Invalid(e.to_string())
    }
}

impl StoreError {
    /// Wraps an I/O error with what was tried on what.
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |e| Self::Io { op, path, source: Arc::new(e) }
    }

    /// Wraps any of redb's errors with what was tried.
    pub(crate) fn db<E: Into<redb::Error>>(op: &'static str) -> impl FnOnce(E) -> Self {
        move |e| match e.into() {
            redb::Error::DatabaseClosed => Self::Closed,
            source => Self::Database { op, source: Arc::new(source) },
        }
    }

    /// Whether waiting may help: the disk, not the data, is at fault.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Database { source, .. } => matches!(source.as_ref(), redb::Error::Io(_) | redb::Error::PreviousIo),
            _ => false,
        }
    }
}
