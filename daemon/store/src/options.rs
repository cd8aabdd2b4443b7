//! How a store is opened.

use crate::Store;
use chrono::{DateTime, Utc};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the times in history come from.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Makes the storage under redb from the opened file; tests put failing disks here.
pub type BackendFactory = Arc<dyn Fn(&Path, File) -> io::Result<Box<dyn redb::StorageBackend>> + Send + Sync>;

/// Limits and sources of a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Wall-clock time, stored in commits and generations.
    pub clock: Clock,
    /// Bytes of redb's page cache. An empty store takes 1.6 MB of
    /// memory, one that was written to hard about 10 MB (cache, recent changes, allocator). Default 4 MiB.
    pub cache_bytes: usize,
    /// Transactions that may wait for the writer before `commit` itself waits. Default 1024.
    pub queue: usize,
    /// Commits kept in history at most. Default 10,000.
    pub history_commits: u64,
    /// Age of commits kept in history at most. Default 7 days.
    pub history_age: Duration,
    /// Bytes of earlier values kept in history at most. Default 32 MiB.
    pub history_bytes: u64,
    /// Generations kept. Default 50.
    pub generations: u64,
    /// Bytes of one value at most. Default 8 MiB.
    pub max_value: usize,
    /// Bytes of recent changes kept in memory for watchers. Default 1 MiB.
    pub recent_bytes: usize,
    /// Files up to this size get every checksum verified when they are opened. Default 128 MiB (some 200 ms).
    pub verify_bytes: u64,
    /// What redb reads and writes through; the file itself when absent.
    pub backend: Option<BackendFactory>,
}

impl StoreOptions {
    /// The defaults with this clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            cache_bytes: 4 << 20,
            queue: 1024,
            history_commits: 10_000,
            history_age: Duration::from_secs(7 * 24 * 3600),
            history_bytes: 32 << 20,
            generations: 50,
            max_value: 8 << 20,
            recent_bytes: 1 << 20,
            verify_bytes: 128 << 20,
            backend: None,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("cache_bytes", &self.cache_bytes)
            .field("queue", &self.queue)
            .field("history_commits", &self.history_commits)
            .field("history_age", &self.history_age)
            .field("history_bytes", &self.history_bytes)
            .field("generations", &self.generations)
            .finish_non_exhaustive()
    }
}

/// An open store and what had to be done to open it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Set when the file was unusable and a new one was started: say it loudly, adopt what runs.
    pub recovery: Option<Recovery>,
}

/// What became of an unusable file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Where it was moved to.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store was unusable ({}) and was moved to {}; a new one was started",
            self.why,
            self.moved_to.display()
        )
    }
}
