//! Following changes.

use crate::read::{self, Replay};
use crate::recent::{RecentCommit, Seen};
use crate::shared::Shared;
use crate::waiters::{Group, Rest};
use crate::{Key, Op, Revision, WatchError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

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
    /// Where it waits among the watchers of the same place.
    group: Arc<Group>,
    seat: usize,
    prefix: Box<str>,
    /// Up to where changes were taken in.
    position: Revision,
    /// Up to where they were given out whole.
    complete: Revision,
    pending: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn start(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<Self, WatchError> {
        if shared.is_closed() {
            return Err(WatchError::Closed);
        }
        let (floor, current) = (shared.compacted(), shared.revision());
        if after < floor {
            return Err(WatchError::Compacted { after, floor });
        }
        if after > current {
            // Readers know of a commit a moment before watchers are told of it.
            let readable = shared.read(read::bounds).map_or(current, |(revision, _)| revision);
            if after > readable {
                return Err(WatchError::Future { asked: after, current: readable });
            }
        }
        let (group, seat) = shared.waiters.join(prefix);
        let (shared, pending) = (shared.clone(), VecDeque::new());
        Ok(Self { shared, group, seat, prefix: prefix.into(), position: after, complete: after, pending })
    }

    /// Waits for the next change. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next change, or the promise to wake when there may be one.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Change, WatchError>> {
        loop {
            if let Some(change) = self.pop() {
                return Poll::Ready(Ok(change));
            }
            let newest = self.shared.revision();
            match self.group.rest(self.seat, self.position, newest, context.waker()) {
                Rest::Wait(position) => {
                    self.position = position;
                    // Looked at after the waker is known, so that a closing in between wakes us.
                    return if self.shared.is_closed() { Poll::Ready(Err(WatchError::Closed)) } else { Poll::Pending };
                }
                Rest::Look(position) => {
                    self.position = position;
                    self.look()?;
                }
            }
        }
    }

    /// The next change if there is one already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Change>, WatchError> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(change) => change.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Up to where everything under the prefix has been given out (for bookmarks), also when other prefixes change.
    pub fn revision(&self) -> Revision {
        if !self.pending.is_empty() {
            return self.complete;
        }
        let newest = self.shared.revision();
        self.group.seen(self.seat, self.position, newest)
    }

    fn pop(&mut self) -> Option<Change> {
        let change = self.pending.pop_front()?;
        if change.last {
            self.complete = change.revision;
        }
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        Some(change)
    }

    /// Takes in what comes next, if only that there was nothing.
    fn look(&mut self) -> Result<(), WatchError> {
        let seen = self.shared.recent().after(self.position, &self.prefix);
        match seen {
            Seen::Commit(commit) => self.accept(&commit),
            Seen::Nothing(revision) => self.position = revision,
            Seen::Behind => self.replay()?,
        }
        Ok(())
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

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.waiters.leave(&self.prefix, &self.group, self.seat);
    }
}
