//! Following every object at once, unparsed: for readers that keep a small projection of each.

use crate::counters::Counting;
use crate::key::{OBJECT_PREFIX, object_key};
use crate::{Registry, RegistryError, WatchError};
use bytes::Bytes;
use reddwarf_objects::ObjectKey;
use reddwarf_store::{Key, ListOptions, Revision, Watch};

/// Entries read from the store at a time.
const PAGE: usize = 500;

/// An object after a change.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Which object.
    pub key: ObjectKey,
    /// The commit.
    pub revision: Revision,
    /// Its JSON without resourceVersion; `None`: it is gone.
    pub json: Option<Bytes>,
    /// Its JSON before the change, when there was one and the change is no part of the snapshot.
    pub previous: Option<Bytes>,
}

/// All changes of all objects, each exactly once, in order of revision.
#[derive(Debug)]
pub struct FollowAll {
    watch: Watch,
}

impl FollowAll {
    /// Waits for the next change. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; a watch never skips silently.
    pub async fn next(&mut self) -> Result<Followed, WatchError> {
        loop {
            let change = self.watch.next().await?;
            if let Some(key) = object_key(&change.key) {
                return Ok(Followed { key, revision: change.revision, json: change.value, previous: change.previous });
            }
        }
    }

    /// The next change if there is one already.
    ///
    /// # Errors
    /// As [`FollowAll::next`].
    pub fn try_next(&mut self) -> Result<Option<Followed>, WatchError> {
        while let Some(change) = self.watch.try_next()? {
            if let Some(key) = object_key(&change.key) {
                return Ok(Some(Followed {
                    key,
                    revision: change.revision,
                    json: change.value,
                    previous: change.previous,
                }));
            }
        }
        Ok(None)
    }
}

impl Registry {
    /// Shows every object of one snapshot to `each`, page by page, and gives a watch that goes on from it without gap.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn follow_all(&self, each: &mut dyn FnMut(Followed)) -> Result<FollowAll, RegistryError> {
        let mut at = None;
        let mut after: Option<Key> = None;
        loop {
            let options = ListOptions { at, limit: Some(PAGE), after, ..ListOptions::default() };
            let page = self.page(OBJECT_PREFIX, &options)?;
            at = Some(page.revision);
            after = page.entries.last().map(|entry| entry.key.clone());
            for entry in page.entries {
                if let Some(key) = object_key(&entry.key) {
                    each(Followed { key, revision: entry.modified, json: Some(entry.value), previous: None });
                }
            }
            if !page.more || after.is_none() {
                Counting::add(&self.inner.counting.watches);
                let watch = self.inner.store.watch(OBJECT_PREFIX, page.revision);
                return Ok(FollowAll { watch: watch.map_err(|e| RegistryError::BadRequest(e.to_string()))? });
            }
        }
    }
}
