//! Deleting: preconditions, grace for pods, finalizers, ownership.

use crate::{Author, ListQuery, Registry, RegistryError};
use reddwarf_objects::{Object, ObjectKey};

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds a pod gets between TERM and KILL; its own `terminationGracePeriodSeconds` when absent; 0 removes the
    /// object at once and leaves the zone to be collected.
    pub grace_period_seconds: Option<i64>,
    /// Only if these hold.
    pub preconditions: Preconditions,
    /// Do everything but store.
    pub dry_run: bool,
}

/// What must hold for a delete to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resourceVersion.
    pub resource_version: Option<String>,
}

/// What a delete did.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Object),
    /// It is marked (`deletionTimestamp`) and goes once its pod has stopped or its finalizers are removed.
    Marked(Object),
}

impl Deleted {
    /// The object, marked or in its last state.
    pub fn object(&self) -> &Object {
        match self {
            Self::Gone(object) | Self::Marked(object) => object,
        }
    }
}

impl Registry {
    /// Deletes an object, or starts to: a pod on a node is marked and goes through [`Registry::finish_delete`], an object with
    /// finalizers when they are removed, a namespace when its contents are gone.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Precondition`], [`RegistryError::FileOwned`].
    pub async fn delete(
        &self,
        author: &Author,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        let _ = (author, key, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Deletes all objects that a query matches; those owned by files are refused as a whole, before anything is deleted.
    ///
    /// # Errors
    /// As [`Registry::delete`].
    pub async fn delete_collection(
        &self,
        author: &Author,
        query: &ListQuery,
        options: &DeleteOptions,
    ) -> Result<Vec<Deleted>, RegistryError> {
        let _ = (author, query, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// The node's last word: nothing of this pod is left on the host. Removes the marked object with this uid (with
    /// finalizers: once they are gone). `false` when there was nothing to do: other uid, not marked, or gone already.
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn finish_delete(&self, key: &ObjectKey, uid: &str) -> Result<bool, RegistryError> {
        let _ = (key, uid);
        Ok(false)
    }
}
