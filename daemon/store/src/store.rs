//! The handle everybody else holds.

use crate::{
    CommitError, CommitRecord, Committed, Digest, Entry, GenerationDiff, GenerationRecord, Key, ListOptions,
    ObjectCommit, Opened, Page, Revision, StoreError, StoreOptions, Transaction, Watch, WatchError,
};
use bytes::Bytes;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// An open store. Cheap to clone; the last clone's drop closes the file.
#[derive(Clone, Debug)]
pub struct Store {}

/// What the store has done since it was opened, and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads of one key or one page.
    pub reads: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// Durable redb commits; `commits / batches` is how many shared one fdatasync.
    pub batches: u64,
    /// Transactions refused because of an expectation.
    pub conflicts: u64,
    /// Transactions failed because of the disk.
    pub failures: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of earlier values in history.
    pub history_bytes: u64,
    /// Commits in history.
    pub history_commits: u64,
}

#[allow(unused_variables)]
impl Store {
    /// Opens or creates the file at `path`.
    ///
    /// # Errors
    /// Locked, newer format, or the directory can't be used; never because of the file's contents.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Opened, StoreError> {
        Err(StoreError::Closed)
    }
    /// The value of a key.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Err(StoreError::Closed)
    }
    /// The value a key had after commit `at`.
    ///
    /// # Errors
    /// Also `Compacted` and `Future`.
    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Entry>, StoreError> {
        Err(StoreError::Closed)
    }
    /// Entries whose keys start with `prefix`, in key order.
    ///
    /// # Errors
    /// Also `Compacted` and `Future` when a revision is asked for.
    pub fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        Err(StoreError::Closed)
    }
    /// How many keys start with `prefix`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        Err(StoreError::Closed)
    }
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        Revision::ZERO
    }
    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> Revision {
        Revision::ZERO
    }
    /// Carries out a transaction; durable on return.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        Err(CommitError::Closed)
    }
    /// The same for threads that are not asynchronous; never call it from a runtime's thread.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit_blocking(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        Err(CommitError::Closed)
    }
    /// Follows changes under `prefix` that came after `after`.
    ///
    /// # Errors
    /// `Compacted`, `Future`.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        Err(WatchError::Closed)
    }
    /// The commits of one object, newest first, as far as history is retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn history(&self, key: &Key, limit: usize) -> Result<Vec<ObjectCommit>, StoreError> {
        Err(StoreError::Closed)
    }
    /// Commits in a range of revisions, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn commits(&self, range: RangeInclusive<Revision>, limit: usize) -> Result<Vec<CommitRecord>, StoreError> {
        Err(StoreError::Closed)
    }
    /// Forgets history up to and including `before`.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    /// Gives unused space of the file back to the filesystem.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn shrink(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    /// Writes a consistent copy to `path`, which must not exist.
    ///
    /// # Errors
    /// `Exists`, or the disk fails.
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    /// Replaces the contents of this open store by those of a backup.
    ///
    /// # Errors
    /// When the backup is not usable (nothing is changed) or the disk fails.
    pub async fn restore_from(&self, backup: impl Into<PathBuf>) -> Result<PathBuf, StoreError> {
        Err(StoreError::Closed)
    }
    /// The same for a store that no process has open.
    ///
    /// # Errors
    /// Also `Locked`.
    pub fn restore(backup: &Path, path: &Path, options: &StoreOptions) -> Result<Option<PathBuf>, StoreError> {
        Err(StoreError::Closed)
    }
    /// All retained generations, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generations(&self) -> Result<Vec<GenerationRecord>, StoreError> {
        Err(StoreError::Closed)
    }
    /// One generation.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generation(&self, number: u64) -> Result<Option<GenerationRecord>, StoreError> {
        Err(StoreError::Closed)
    }
    /// The newest generation.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn latest_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        Err(StoreError::Closed)
    }
    /// How two generations' files differ; absent when one of them is not retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generation_diff(&self, from: u64, to: u64) -> Result<Option<GenerationDiff>, StoreError> {
        Err(StoreError::Closed)
    }
    /// A file's contents.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn content(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Closed)
    }
    /// Whether the contents are stored.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn has_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    /// What the store has done and how large it is.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    /// Finishes what is queued and closes the file; other clones see `Closed` from then on.
    pub async fn close(&self) {}
}
