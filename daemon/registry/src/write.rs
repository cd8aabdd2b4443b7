//! Creating and changing single objects: read, admit, compare-and-swap, and again when somebody was faster.

use crate::admit;
use crate::counters::Counting;
use crate::delete::goes_now;
use crate::key::{applied_key, kind_of, store_key};
use crate::namespace::Home;
use crate::ownership::{invalid, source_of};
use crate::stored::{decode, encode};
use crate::{Author, Registry, RegistryError};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object, ObjectKey, names, patch, pod};
use reddwarf_store::{CommitError, Committed, Revision, Transaction};
use serde_json::Value;
use uuid::Uuid;

/// How often an unconditional write is repeated when others keep changing the object. Each failure means that another
/// writer succeeded, so this only bounds a fight.
pub(crate) const ATTEMPTS: u32 = 1000;
/// How often a generated name may be taken already (as in the reference).
const NAME_ATTEMPTS: u32 = 8;

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

/// Which half of the object a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Main,
    Status,
}

impl Registry {
    /// Creates an object: its namespace must exist, `generateName` is honoured, status is dropped unless the daemon itself
    /// writes.
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
        let kind = known(&object)?;
        let generated = object.name().is_empty();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let uid = Uuid::new_v4();
            let named = name(kind, object.clone(), uid.as_u64_pair().0)?;
            let new = admit::create(author, kind, named, None, &uid.to_string(), self.now())?;
            let key = new.key(kind);
            let at = store_key(&key)?;
            let home = self.home(&key)?;
            let home = home.open(&key)?;
            if options.dry_run {
                return match self.entry(&at)? {
                    Some(_) if generated && attempts < NAME_ATTEMPTS => continue,
                    Some(_) => Err(RegistryError::AlreadyExists(key)),
                    None => Ok(written(kind, new, None)),
                };
            }
            let transaction = transaction(author, &format!("create {key}")).create(at.clone(), encode(&new));
            match self.commit(home.hold(transaction)).await {
                Ok(done) => return Ok(written(kind, new, Some(done))),
                Err(CommitError::Conflict { key: taken, .. }) if taken == at => {
                    if !generated || attempts >= NAME_ATTEMPTS {
                        return Err(RegistryError::AlreadyExists(key));
                    }
                }
                // The namespace changed in between: look again whether it still takes objects.
                Err(CommitError::Conflict { .. }) if attempts < ATTEMPTS => {}
                Err(e) => return Err(RegistryError::Commit(e)),
            }
            Counting::add(&self.inner.counting.retries);
        }
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
        self.replace(author, object, Half::Main, options).await
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
        self.replace(author, object, Half::Status, options).await
    }

    async fn replace(
        &self,
        author: &Author,
        object: Object,
        half: Half,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let kind = known(&object)?;
        let key = object.key(kind);
        let expected = expected_revision(object.get("/metadata/resourceVersion"))?;
        let edit = |live: &mut Object| {
            *live = object.clone();
            Ok(())
        };
        self.rewrite(author, &key, half, expected, options, edit).await
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
        self.patch(author, key, Half::Main, patch, options).await
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
        self.patch(author, key, Half::Status, patch, options).await
    }

    async fn patch(
        &self,
        author: &Author,
        key: &ObjectKey,
        half: Half,
        patch: &Value,
        options: WriteOptions,
    ) -> Result<Written, RegistryError> {
        let expected = expected_revision(patch.pointer("/metadata/resourceVersion"))?;
        let edit = |live: &mut Object| {
            let mut value = live.value();
            patch::merge_patch(&mut value, patch);
            *live = Object::from_value(value).map_err(|e| RegistryError::BadRequest(e.to_string()))?;
            Ok(())
        };
        self.rewrite(author, key, half, expected, options, edit).await
    }

    /// Reads the object, lets `change` edit everything but status, and writes it; repeated on conflict. `change` may
    /// run several times.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify<F>(&self, author: &Author, key: &ObjectKey, mut change: F) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        let edit = |live: &mut Object| {
            change(live);
            Ok(())
        };
        self.rewrite(author, key, Half::Main, None, WriteOptions::default(), edit).await
    }

    /// The same for status only. `change` gets the whole object; only its status is kept.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn modify_status<F>(
        &self,
        author: &Author,
        key: &ObjectKey,
        mut change: F,
    ) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) + Send,
    {
        let edit = |live: &mut Object| {
            change(live);
            Ok(())
        };
        self.rewrite(author, key, Half::Status, None, WriteOptions::default(), edit).await
    }

    /// Read, edit, admit, compare-and-swap. With `expected` a conflict is the caller's, without it the edit is repeated
    /// on what is there now.
    async fn rewrite<F>(
        &self,
        author: &Author,
        key: &ObjectKey,
        half: Half,
        expected: Option<Revision>,
        options: WriteOptions,
        mut edit: F,
    ) -> Result<Written, RegistryError>
    where
        F: FnMut(&mut Object) -> Result<(), RegistryError> + Send,
    {
        let kind = kind_of(key)?;
        let at = store_key(key)?;
        for _ in 0..ATTEMPTS {
            let entry = self.entry(&at)?.ok_or_else(|| RegistryError::NotFound(key.clone()))?;
            if expected.is_some_and(|revision| revision != entry.modified) {
                return Err(RegistryError::Conflict(key.clone()));
            }
            let old = decode(&entry)?;
            let mut new = old.clone();
            edit(&mut new)?;
            let new = match half {
                Half::Status => admit::update_status(kind, &old, &new)?,
                Half::Main => admit::update(author, kind, &old, new, None, self.applied(author, &old, key)?.as_ref())?,
            };
            if new == old {
                Counting::add(&self.inner.counting.unchanged);
                return Ok(Written { object: old, changed: false, deleted: false, warnings: Vec::new() });
            }
            let deleted = goes_now(kind, &new);
            if options.dry_run {
                return Ok(Written { deleted, ..written(kind, new, None) });
            }
            let transaction = if deleted {
                self.removal(author, key, entry.modified)?
            } else {
                transaction(author, &format!("update {key}")).replace(at.clone(), entry.modified, encode(&new))
            };
            match self.commit(transaction).await {
                Ok(done) => {
                    if deleted || new.deletion_timestamp().is_some() {
                        self.settle_namespace(key).await;
                    }
                    return Ok(Written { deleted, ..written(kind, new, Some(done)) });
                }
                Err(CommitError::Conflict { .. }) if expected.is_some() => {
                    return Err(RegistryError::Conflict(key.clone()));
                }
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }

    /// The form in which a file last declared an object; only read where it decides something.
    fn applied(&self, author: &Author, old: &Object, key: &ObjectKey) -> Result<Option<Object>, RegistryError> {
        if !author.is_api() || source_of(old).is_none() {
            return Ok(None);
        }
        Ok(self.applied_record(&applied_key(key)?)?.map(|record| record.object))
    }

    /// A transaction that removes an object last changed at `revision`, and what we remember of its declaration.
    pub(crate) fn removal(
        &self,
        author: &Author,
        key: &ObjectKey,
        revision: Revision,
    ) -> Result<Transaction, RegistryError> {
        let at = store_key(key)?;
        Ok(transaction(author, &format!("delete {key}"))
            .expect(at.clone(), reddwarf_store::Expect::AtRevision(revision))
            .delete(at)
            .delete(applied_key(key)?))
    }

    /// Sends a transaction, counted.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        Counting::add(&self.inner.counting.commits);
        self.inner.store.commit(transaction).await
    }

    /// The namespace an object would live in, as it is now.
    pub(crate) fn home(&self, key: &ObjectKey) -> Result<Home, RegistryError> {
        match &key.namespace {
            None => Ok(Home::Cluster),
            Some(namespace) => self.namespace_home(namespace),
        }
    }
}

/// An empty transaction for the history.
pub(crate) fn transaction(author: &Author, message: &str) -> Transaction {
    Transaction::new(author.to_string(), message)
}

/// The kind of an object that somebody sent.
pub(crate) fn known(object: &Object) -> Result<&'static Kind, RegistryError> {
    object.known_kind().ok_or_else(|| {
        let text = format!("no matches for kind \"{}\" in version \"{}\"", object.kind(), object.api_version());
        RegistryError::BadRequest(text)
    })
}

/// Gives a nameless object its generated name; without `generateName` either, that is an error.
fn name(kind: &Kind, mut object: Object, entropy: u64) -> Result<Object, RegistryError> {
    if !object.name().is_empty() {
        return Ok(object);
    }
    match object.generate_name().map(str::to_owned) {
        Some(prefix) => object.set_name(&names::generate_name(&prefix, entropy)),
        None => {
            let error = FieldError::required(&FieldPath::of("metadata.name"), "name or generateName is required");
            return Err(invalid(kind, &object, vec![error]));
        }
    }
    Ok(object)
}

/// The revision that a client expects, from the resourceVersion that it sent.
fn expected_revision(version: Option<&Value>) -> Result<Option<Revision>, RegistryError> {
    match version.and_then(Value::as_str).unwrap_or_default() {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            RegistryError::BadRequest(format!(
                "invalid resource version: metadata.resourceVersion: Invalid value: {text:?}"
            ))
        }),
    }
}

/// The answer to a write that was carried out (`done`) or rehearsed.
fn written(kind: &Kind, mut object: Object, done: Option<Committed>) -> Written {
    object.set_resource_version(done.map(|d| d.revision.get()));
    let warnings = warnings(kind, &object);
    Written { object, changed: true, deleted: false, warnings }
}

/// Fields that are accepted and have no effect in this version: never in silence.
pub(crate) fn warnings(kind: &Kind, object: &Object) -> Vec<String> {
    if !kind.is_core("Pod") {
        return Vec::new();
    }
    pod::not_yet_supported(object).into_iter().map(|(path, text)| format!("{path}: {text}")).collect()
}
