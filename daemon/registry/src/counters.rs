//! Counting store operations (requirement B13: get, list and each write cost a known number of them).

use std::sync::atomic::{AtomicU64, Ordering};

/// Store operations that the registry has asked for since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Single keys read.
    pub gets: u64,
    /// Pages of a list read.
    pub lists: u64,
    /// Transactions sent, those that found a conflict included.
    pub commits: u64,
    /// Transactions repeated because of a conflict.
    pub retries: u64,
    /// Watches opened.
    pub watches: u64,
    /// Writes that changed nothing and so were not sent.
    pub unchanged: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) gets: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) watches: AtomicU64,
    pub(crate) unchanged: AtomicU64,
}

impl Counting {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            gets: self.gets.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            watches: self.watches.load(Ordering::Relaxed),
            unchanged: self.unchanged.load(Ordering::Relaxed),
        }
    }
}
