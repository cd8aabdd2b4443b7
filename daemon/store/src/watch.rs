//! Following changes.

use crate::read::{self, Replay};
use crate::recent::{RecentCommit, Seen};
use crate::shared::{Progress, Shared};
use crate::{Key, Op, Revision, WatchError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch::Receiver;

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
///
/// It keeps a position, not a queue: changes come from a buffer of recent ones that all watchers share, or, for a
/// watcher that is further behind, from history. So a slow watcher costs nothing and loses nothing; one that is
/// behind the retained history is told [`WatchError::Compacted`].
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    progress: Receiver<Progress>,
    prefix: Box<str>,
    /// Up to where changes were taken in.
    position: Revision,
    /// Up to where they were given out whole.
    complete: Revision,
    pending: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn start(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<Self, WatchError> {
        let progress = shared.progress();
        if progress.borrow().closed {
            return Err(WatchError::Closed);
        }
        let (floor, current) = (shared.compacted(), shared.revision());
        if after < floor {
            return Err(WatchError::Compacted { after, floor });
        }
        if after > current {
            return Err(WatchError::Future { asked: after, current });
        }
        let (shared, pending) = (shared.clone(), VecDeque::new());
        Ok(Self { shared, progress, prefix: prefix.into(), position: after, complete: after, pending })
    }

    /// Waits for the next change. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            // Marked as seen before looking, so that a change in between wakes us.
            let closed = self.progress.borrow_and_update().closed;
            if let Some(change) = self.take()? {
                return Ok(change);
            }
            if closed || self.progress.changed().await.is_err() {
                return Err(WatchError::Closed);
            }
        }
    }

    /// The next change if there is one already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Change>, WatchError> {
        match self.take()? {
            Some(change) => Ok(Some(change)),
            None if self.progress.borrow().closed => Err(WatchError::Closed),
            None => Ok(None),
        }
    }

    /// Up to where everything under the prefix has been given out (for bookmarks). Moves on while waiting in
    /// [`Watch::next`], also when other prefixes change.
    pub fn revision(&self) -> Revision {
        if self.pending.is_empty() { self.position } else { self.complete }
    }

    fn take(&mut self) -> Result<Option<Change>, WatchError> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                if change.last {
                    self.complete = change.revision;
                }
                if self.pending.is_empty() {
                    self.pending = VecDeque::new();
                }
                return Ok(Some(change));
            }
            let seen = self.shared.recent().after(self.position, &self.prefix);
            match seen {
                Seen::Commit(commit) => self.accept(&commit),
                Seen::Nothing(revision) => {
                    self.position = revision;
                    return Ok(None);
                }
                Seen::Behind => self.replay()?,
            }
        }
    }

    fn accept(&mut self, commit: &RecentCommit) {
        self.position = commit.revision;
        let matching = commit.changes.iter().filter(|c| c.key.as_str().starts_with(&*self.prefix));
        self.pending = matching
            .map(|c| Change {
                revision: commit.revision,
                key: c.key.clone(),
                op: c.op,
                value: c.value.clone(),
                previous: c.previous.clone(),
                created: c.created,
                last: false,
            })
            .collect();
        if let Some(last) = self.pending.back_mut() {
            last.last = true;
        }
    }

    fn replay(&mut self) -> Result<(), WatchError> {
        let replay = self.shared.read(|txn| read::replay(txn, &self.prefix, self.position)).map_err(|e| match e {
            crate::StoreError::Closed => WatchError::Closed,
            e => WatchError::Store(e),
        })?;
        match replay {
            Replay::Compacted(floor) => Err(WatchError::Compacted { after: self.position, floor }),
            Replay::Changes(changes, reached) => {
                self.pending = changes.into();
                self.position = reached;
                Ok(())
            }
        }
    }
}
