//! Following objects: ADDED, MODIFIED and DELETED as a selector sees them.

use crate::{ListQuery, Registry, RegistryError};
use reddwarf_objects::Object;
use reddwarf_store::{Revision, Watch};

/// What happened to an object, as seen through the watch's selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchEventType {
    /// It is there now and was not before (or began to match).
    Added,
    /// It changed.
    Modified,
    /// It is gone (or ceased to match).
    Deleted,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchEventType,
    /// The object after the change; its last state with the deletion's resourceVersion when it is gone.
    pub object: Object,
    /// The commit.
    pub revision: Revision,
}

/// Why a watch ends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The watcher is behind what history retains: list again and watch from there.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// Up to where it had got.
        asked: Revision,
        /// Oldest retained.
        oldest: Revision,
    },
    /// The revision to start after does not exist yet.
    #[error("Timeout: Too large resource version: {asked}, current: {current}")]
    TooLarge {
        /// Asked for.
        asked: Revision,
        /// Newest.
        current: Revision,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The store could not be read, or an object is damaged.
    #[error("{0}")]
    Failed(String),
}

/// A stream of events, each exactly once, in order of revision.
#[derive(Debug)]
pub struct ObjectWatch {
    pub(crate) query: ListQuery,
    pub(crate) watch: Watch,
}

impl ObjectWatch {
    /// Waits for the next event.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        let _ = &self.query;
        let _ = self.watch.next().await;
        Err(WatchError::Closed)
    }

    /// Up to where everything has been delivered (for bookmarks).
    pub fn revision(&self) -> Revision {
        self.watch.revision()
    }
}

impl Registry {
    /// Follows changes after a revision. `limit`, `after` and `at` of the query are ignored.
    ///
    /// # Errors
    /// [`RegistryError::Expired`], [`RegistryError::TooLarge`].
    pub fn watch(&self, query: &ListQuery, after: Revision) -> Result<ObjectWatch, RegistryError> {
        let _ = (query, after);
        Err(RegistryError::BadRequest("not started".into()))
    }
}
