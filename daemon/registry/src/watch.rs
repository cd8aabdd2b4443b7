//! Following objects: ADDED, MODIFIED and DELETED as a selector sees them.

use crate::counters::Counting;
use crate::stored::decode_bytes;
use crate::{ListQuery, ObjectList, Registry, RegistryError};
use bytes::Bytes;
use reddwarf_objects::Object;
use reddwarf_store::{Change, Revision, Watch, WatchError as StoreWatchError};

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
    /// Waits for the next event. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        loop {
            let change = self.watch.next().await.map_err(WatchError::from)?;
            if let Some(event) = see(&self.query, &change)? {
                return Ok(event);
            }
        }
    }

    /// Up to where everything has been delivered (for bookmarks).
    pub fn revision(&self) -> Revision {
        self.watch.revision()
    }
}

/// A change of the store as the query's selectors see it; `None` when it does not concern them.
fn see(query: &ListQuery, change: &Change) -> Result<Option<WatchEvent>, WatchError> {
    let read = |bytes: &Bytes| {
        decode_bytes(change.key.as_str(), bytes, change.revision).map_err(|e| WatchError::Failed(e.to_string()))
    };
    let wanted = |object: &Object| query.matches(object);
    let before = change.previous.as_ref().map(read).transpose()?;
    let after = change.value.as_ref().map(read).transpose()?;
    let was = before.as_ref().is_some_and(wanted);
    let is = after.as_ref().is_some_and(wanted);
    let (kind, object) = match (was, is) {
        (false, false) => return Ok(None),
        (false, true) => (WatchEventType::Added, after),
        (true, true) => (WatchEventType::Modified, after),
        // The last state that the watcher knew, with the revision of the change that took it away.
        (true, false) => (WatchEventType::Deleted, before),
    };
    Ok(object.map(|object| WatchEvent { kind, object, revision: change.revision }))
}

impl From<StoreWatchError> for WatchError {
    fn from(e: StoreWatchError) -> Self {
        match e {
            StoreWatchError::Compacted { after, floor } => Self::Expired { asked: after, oldest: floor },
            StoreWatchError::Future { asked, current } => Self::TooLarge { asked, current },
            StoreWatchError::Closed => Self::Closed,
            StoreWatchError::Store(e) => Self::Failed(e.to_string()),
        }
    }
}

impl Registry {
    /// Follows changes after a revision. `limit`, `after` and `at` of the query are ignored.
    ///
    /// # Errors
    /// [`WatchError::Expired`], [`WatchError::TooLarge`].
    pub fn watch(&self, query: &ListQuery, after: Revision) -> Result<ObjectWatch, WatchError> {
        Counting::add(&self.inner.counting.watches);
        let watch = self.inner.store.watch(&query.prefix(), after)?;
        Ok(ObjectWatch { query: query.clone(), watch })
    }

    /// The objects there are and a watch that goes on from them without gap.
    ///
    /// # Errors
    /// As [`Registry::list`].
    pub fn list_and_watch(&self, query: &ListQuery) -> Result<(ObjectList, ObjectWatch), RegistryError> {
        let all = ListQuery { limit: None, after: None, at: None, ..query.clone() };
        let list = self.list(&all)?;
        let watch = self.watch(&all, list.revision).map_err(|e| match e {
            WatchError::Expired { asked, oldest } => RegistryError::Expired { asked, oldest },
            WatchError::TooLarge { asked, current } => RegistryError::TooLarge { asked, current },
            other => RegistryError::BadRequest(other.to_string()),
        })?;
        Ok((list, watch))
    }
}
