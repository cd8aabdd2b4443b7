//! Creating and changing single objects.

use crate::{Author, Registry, RegistryError};
use reddwarf_objects::{Object, ObjectKey};
use serde_json::Value;

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
}

/// A write that was carried out.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now, resourceVersion filled in.
    pub object: Object,
    /// Whether anything differs from before; an identical write makes no version.
    pub changed: bool,
    /// Removing the last finalizer removed the object; `object` is its last state.
    pub deleted: bool,
    /// Fields that have no effect in this version, for `Warning` headers and terminals.
    pub warnings: Vec<String>,
}

impl Registry {
    /// Creates an object: its namespace must exist, `generateName` is honoured, status is dropped for API clients.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyExists`], [`RegistryError::Invalid`], [`RegistryError::NotFound`] for the namespace,
    /// [`RegistryError::Forbidden`] while that is being deleted.
    pub async fn create(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let _ = (author, object, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Replaces everything but status. With a resourceVersion in the object only if that is still the current one;
    /// without, whatever is there.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`], [`RegistryError::NotFound`], [`RegistryError::Invalid`],
    /// [`RegistryError::FileOwned`].
    pub async fn update(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let _ = (author, object, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Replaces status only (also on objects that a file owns).
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn update_status(
        &self,
        author: &Author,
        object: Object,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let _ = (author, object, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Applies a JSON merge patch (RFC 7396) to everything but status, repeated on conflict unless the patch itself
    /// names a resourceVersion.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn merge_patch(
        &self,
        author: &Author,
        key: &ObjectKey,
        patch: &Value,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let _ = (author, key, patch, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Applies a JSON merge patch to status only.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn merge_patch_status(
        &self,
        author: &Author,
        key: &ObjectKey,
        patch: &Value,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let _ = (author, key, patch, options);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// Reads the object, lets `change` edit everything but status, and writes it; repeated on conflict. `change` may
    /// run several times.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify<F>(&self, author: &Author, key: &ObjectKey, change: F) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        let _ = (author, key, change);
        Err(RegistryError::BadRequest("skeleton".into()))
    }

    /// The same for status only. `change` gets the whole object; only its status is kept.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify_status<F>(&self, author: &Author, key: &ObjectKey, change: F) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        let _ = (author, key, change);
        Err(RegistryError::BadRequest("skeleton".into()))
    }
}
