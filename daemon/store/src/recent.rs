//! The newest changes, in memory, shared by all watchers.

use crate::{Key, Op, Revision};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// A commit as watchers see it.
#[derive(Debug)]
pub(crate) struct RecentCommit {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<RecentChange>,
}

#[derive(Debug)]
pub(crate) struct RecentChange {
    pub(crate) key: Key,
    pub(crate) op: Op,
    pub(crate) value: Option<Bytes>,
    pub(crate) previous: Option<Bytes>,
    pub(crate) created: Revision,
}

impl RecentCommit {
    fn bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        self.changes.iter().map(|c| 128 + c.key.as_str().len() + len(&c.value) + len(&c.previous)).sum::<usize>() + 64
    }
}

/// What the buffer says to a watcher.
pub(crate) enum Seen {
    /// The buffer does not reach back that far.
    Behind,
    /// Nothing under the prefix up to this revision.
    Nothing(Revision),
    /// The next commit with something under the prefix.
    Commit(Arc<RecentCommit>),
}

/// All commits after `base`, bounded by bytes; the newest commit is always kept.
#[derive(Debug)]
pub(crate) struct Recent {
    base: Revision,
    newest: Revision,
    commits: VecDeque<Arc<RecentCommit>>,
    bytes: usize,
    limit: usize,
}

impl Recent {
    /// Empty at `revision`.
    pub(crate) fn new(revision: Revision, limit: usize) -> Self {
        Self { base: revision, newest: revision, commits: VecDeque::new(), bytes: 0, limit }
    }

    /// Forgets everything and starts again at `revision`.
    pub(crate) fn reset(&mut self, revision: Revision) {
        *self = Self::new(revision, self.limit);
    }

    pub(crate) fn push(&mut self, commit: Arc<RecentCommit>) {
        self.newest = commit.revision;
        self.bytes += commit.bytes();
        self.commits.push_back(commit);
        while self.bytes > self.limit && self.commits.len() > 1 {
            if let Some(oldest) = self.commits.pop_front() {
                self.bytes -= oldest.bytes();
                self.base = oldest.revision;
            }
        }
    }

    pub(crate) fn after(&self, position: Revision, prefix: &str) -> Seen {
        if position < self.base {
            return Seen::Behind;
        }
        let start = self.commits.partition_point(|c| c.revision <= position);
        let matches = |c: &&Arc<RecentCommit>| c.changes.iter().any(|c| c.key.as_str().starts_with(prefix));
        match self.commits.range(start..).find(matches) {
            Some(commit) => Seen::Commit(commit.clone()),
            None => Seen::Nothing(self.newest.max(position)),
        }
    }
}
