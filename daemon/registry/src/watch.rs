//! Following objects: ADDED, MODIFIED and DELETED as a selector sees them.

use crate::counters::Counting;
use crate::select::Selection;
use crate::{ListQuery, ObjectList, RawObject, Registry, RegistryError};
use bytes::Bytes;
use reddwarf_objects::{Kind, Object};
use reddwarf_store::{Change, Revision, Watch, WatchError as StoreWatchError};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

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

/// One event, its object not parsed.
#[derive(Clone, Debug)]
pub struct RawEvent {
    /// As [`WatchEvent::kind`].
    pub kind: WatchEventType,
    /// As [`WatchEvent::object`]; its revision is the commit's.
    pub object: RawObject,
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
pub struct ObjectWatch(RawWatch);

impl ObjectWatch {
    /// Waits for the next event. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        let RawEvent { kind, object } = self.0.next().await?;
        let revision = object.revision();
        let object = object.object().map_err(|e| WatchError::Failed(e.to_string()))?;
        Ok(WatchEvent { kind, object, revision })
    }

    /// Up to where everything has been delivered (for bookmarks).
    pub fn revision(&self) -> Revision {
        self.0.revision()
    }
}

/// The same stream without parsing, unless selectors must look into the objects.
#[derive(Debug)]
pub struct RawWatch {
    /// The version in which objects are delivered.
    kind: &'static Kind,
    selection: Selection,
    watch: Watch,
}

impl RawWatch {
    /// Waits for the next event. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<RawEvent, WatchError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next event, or the promise to wake when there may be one.
    ///
    /// # Errors
    /// As [`RawWatch::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<RawEvent, WatchError>> {
        loop {
            let change = ready!(self.watch.poll_next(context)).map_err(WatchError::from)?;
            if let Some(RawEvent { kind, object }) = see(&self.selection, change)? {
                let object = object.in_version(self.kind).map_err(|e| WatchError::Failed(e.to_string()))?;
                return Poll::Ready(Ok(RawEvent { kind, object }));
            }
        }
    }

    /// Up to where everything has been delivered (for bookmarks).
    pub fn revision(&self) -> Revision {
        self.watch.revision()
    }
}

/// A change of the store as the selectors see it; `None` when it does not concern them.
fn see(selection: &Selection, change: Change) -> Result<Option<RawEvent>, WatchError> {
    let Change { revision, key, value, previous, .. } = change;
    let wanted = |text: Option<&Bytes>| match text {
        Some(text) => selection.wants(key.as_str(), text).map_err(|e| WatchError::Failed(e.to_string())),
        None => Ok(false),
    };
    let (was, is) = (wanted(previous.as_ref())?, wanted(value.as_ref())?);
    let (kind, bytes) = match (was, is) {
        (false, false) => return Ok(None),
        (false, true) => (WatchEventType::Added, value),
        (true, true) => (WatchEventType::Modified, value),
        // The last state that the watcher knew, with the revision of the change that took it away.
        (true, false) => (WatchEventType::Deleted, previous),
    };
    Ok(bytes.map(|bytes| RawEvent { kind, object: RawObject { key, bytes, revision } }))
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
        self.watch_raw(query, after).map(ObjectWatch)
    }

    /// The same without parsing.
    ///
    /// # Errors
    /// As [`Registry::watch`].
    pub fn watch_raw(&self, query: &ListQuery, after: Revision) -> Result<RawWatch, WatchError> {
        Counting::add(&self.inner.counting.watches);
        let watch = self.inner.store.watch(&query.prefix(), after)?;
        Ok(RawWatch { kind: query.kind, selection: Selection::of(query), watch })
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
