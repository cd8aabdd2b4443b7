//! Deleting: preconditions, grace for pods, finalizers, ownership.

use crate::counters::Counting;
use crate::key::{kind_of, store_key};
use crate::namespace::closing;
use crate::ownership::check_delete;
use crate::stored::{decode, encode};
use crate::write::{ATTEMPTS, transaction};
use crate::{Author, ListQuery, Registry, RegistryError, priority};
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::{Kind, Object, ObjectKey};
use reddwarf_store::CommitError;
use serde_json::Value;
use tokio::task::{JoinError, JoinSet};

/// Objects of a collection that are deleted at a time.
const AT_ONCE: usize = 64;
/// Seconds of grace for a pod that does not say (`terminationGracePeriodSeconds`).
const DEFAULT_GRACE: i64 = 30;

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds a pod gets between TERM and KILL; its own `terminationGracePeriodSeconds` when absent; 0 removes the
    /// object at once and leaves the zone to be collected.
    pub grace_period_seconds: Option<i64>,
    /// Only if these hold.
    pub preconditions: Preconditions,
    /// What becomes of the objects that it owns; by the finalizers it has and its kind when absent.
    pub propagation: Option<Propagation>,
    /// Do everything but store.
    pub dry_run: bool,
}

/// What becomes of the objects that a deleted one owns. Carried out by the garbage collector, which finds the choice in the
/// object's finalizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it: finalizer `foregroundDeletion`.
    Foreground,
    /// They stay: finalizer `orphan`.
    Orphan,
}

/// The finalizer of [`Propagation::Orphan`].
const ORPHAN: &str = "orphan";
/// The finalizer of [`Propagation::Foreground`].
const FOREGROUND: &str = "foregroundDeletion";

impl Propagation {
    /// What a client gets that does not say: jobs and replication controllers leave their pods, for clients of old.
    fn of_client(kind: &Kind, old: &Object) -> Option<Self> {
        let chosen = old.finalizers().iter().any(|f| [ORPHAN, FOREGROUND].contains(f));
        let leaves = (kind.group == "batch" && kind.kind == "Job") || kind.is_core("ReplicationController");
        (leaves && !chosen).then_some(Self::Orphan)
    }

    /// The finalizers of an object that is deleted so.
    fn finalizers(choice: Option<Self>, old: &Object) -> Vec<String> {
        let mut finalizers: Vec<String> = old.finalizers().into_iter().map(str::to_owned).collect();
        if choice.is_some() {
            finalizers.retain(|f| ![ORPHAN, FOREGROUND].contains(&f.as_str()));
        }
        match choice {
            Some(Self::Orphan) => finalizers.push(ORPHAN.to_owned()),
            Some(Self::Foreground) => finalizers.push(FOREGROUND.to_owned()),
            Some(Self::Background) | None => {}
        }
        finalizers
    }
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
    /// The same, taken out.
    pub fn into_object(self) -> Object {
        match self {
            Self::Gone(object) | Self::Marked(object) => object,
        }
    }

    /// The object, marked or in its last state.
    pub fn object(&self) -> &Object {
        match self {
            Self::Gone(object) | Self::Marked(object) => object,
        }
    }
}

/// What deleting an object comes to.
#[derive(Clone, Debug)]
pub(crate) enum Removal {
    /// It goes at once.
    Now,
    /// It is marked, or marked anew with a shorter grace.
    Mark(Box<Object>),
    /// It is marked already.
    Nothing,
}

/// Decides how an object goes: a pod on a node with grace waits for the node unless it has ended, finalizers wait for their
/// owners, anything else goes at once. Pure.
pub(crate) fn removal(
    kind: &Kind,
    old: &Object,
    grace: Option<i64>,
    propagation: Option<Propagation>,
    now: DateTime<Utc>,
) -> Removal {
    let over = matches!(old.get_str("/status/phase"), Some("Succeeded" | "Failed"));
    let on_node = kind.is_core("Pod") && old.get_str("/spec/nodeName").is_some_and(|node| !node.is_empty()) && !over;
    let own = || old.get("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_GRACE);
    // A spec's grace of 0 still means "stop it, then forget it": only a request may ask to forget at once.
    let grace = if on_node { grace.unwrap_or_else(|| own().max(1)).max(0) } else { 0 };
    let finalizers = Propagation::finalizers(propagation, old);
    if grace == 0 && finalizers.is_empty() {
        return Removal::Now;
    }
    let mut new = match old.deletion_timestamp() {
        None => marked(old, now, Some(grace)),
        Some(_) if grace < old.deletion_grace_period_seconds().unwrap_or(0) => {
            let mut new = old.clone();
            new.set_deletion(now + TimeDelta::seconds(grace), Some(grace));
            new
        }
        Some(_) if finalizers == old.finalizers() => return Removal::Nothing,
        Some(_) => old.clone(),
    };
    if finalizers.is_empty() {
        new.remove("/metadata/finalizers");
    } else {
        new.set("/metadata/finalizers", finalizers);
    }
    Removal::Mark(Box::new(new))
}

/// The object marked for deletion. As in Kubernetes the timestamp is when the grace ends, and the mark counts as a
/// change of the spec.
pub(crate) fn marked(old: &Object, now: DateTime<Utc>, grace: Option<i64>) -> Object {
    let mut new = old.clone();
    new.set_deletion(now + TimeDelta::seconds(grace.unwrap_or(0)), grace);
    if let Some(generation) = old.generation().filter(|g| *g > 0) {
        new.set_generation(generation.saturating_add(1));
    }
    new
}

/// Does a marked object go with this write? Namespaces wait until they are empty, see `namespace.rs`.
pub(crate) fn goes_now(kind: &Kind, object: &Object) -> bool {
    object.deletion_timestamp().is_some()
        && object.finalizers().is_empty()
        && object.deletion_grace_period_seconds().unwrap_or(0) == 0
        && !kind.is_core("Namespace")
}

pub(crate) fn check_preconditions(kind: &Kind, old: &Object, wanted: &Preconditions) -> Result<(), RegistryError> {
    let refuse = |message: String| {
        Err(RegistryError::Precondition {
            kind: kind.kind.to_owned(),
            group: kind.group.to_owned(),
            name: old.name().to_owned(),
            message,
        })
    };
    let uid = old.uid().unwrap_or_default();
    if let Some(wanted) = wanted.uid.as_deref().filter(|wanted| *wanted != uid) {
        return refuse(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ));
    }
    let version = old.resource_version().unwrap_or_default().to_string();
    if let Some(wanted) = wanted.resource_version.as_deref().filter(|wanted| *wanted != version) {
        return refuse(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
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
        let deleted = self.delete_one(author, key, options).await?;
        let namespace = key.group.is_empty() && key.resource == "namespaces";
        if !namespace || options.dry_run {
            return Ok(deleted);
        }
        self.empty_namespace(&key.name).await?;
        match self.find(key)? {
            Some(object) => Ok(Deleted::Marked(object)),
            None => Ok(Deleted::Gone(deleted.object().clone())),
        }
    }

    /// The same without going into a namespace.
    pub(crate) async fn delete_one(
        &self,
        author: &Author,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        let kind = kind_of(key)?;
        let at = store_key(key)?;
        priority::check_delete(author, kind, key)?;
        for _ in 0..ATTEMPTS {
            let entry = self.entry(&at)?.ok_or_else(|| RegistryError::NotFound(key.clone()))?;
            let old = decode(&entry)?;
            check_preconditions(kind, &old, &options.preconditions)?;
            check_delete(author, kind, &old).map_err(|e| self.with_line(e))?;
            let removal = if kind.is_core("Namespace") {
                self.check_namespace_delete(author, key)?;
                if old.deletion_timestamp().is_some() {
                    Removal::Nothing
                } else {
                    Removal::Mark(Box::new(closing(&old, self.now())))
                }
            } else {
                let client = || Propagation::of_client(kind, &old).filter(|_| author.is_api());
                let propagation = options.propagation.or_else(client);
                removal(kind, &old, options.grace_period_seconds, propagation, self.now())
            };
            let (transaction, mut result) = match removal {
                Removal::Nothing => return Ok(Deleted::Marked(old)),
                Removal::Now => (self.removal(author, key, entry.modified)?, Deleted::Gone(old)),
                Removal::Mark(new) => {
                    let write = transaction(author, &format!("delete {key}"));
                    (write.replace(at.clone(), entry.modified, encode(&new)), Deleted::Marked(*new))
                }
            };
            if options.dry_run {
                return Ok(result);
            }
            match self.commit(transaction).await {
                Ok(done) => {
                    match &mut result {
                        Deleted::Marked(object) => object.set_resource_version(Some(done.revision.get())),
                        Deleted::Gone(_) => self.settle_namespace(key).await,
                    }
                    return Ok(result);
                }
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }

    /// Deletes all objects that a query matches, but for the system's PriorityClasses; when a file owns one of them, all are refused
    /// before any is deleted.
    ///
    /// # Errors
    /// As [`Registry::delete`].
    pub async fn delete_collection(
        &self,
        author: &Author,
        query: &ListQuery,
        options: &DeleteOptions,
    ) -> Result<Vec<Deleted>, RegistryError> {
        let list = self.list(query)?;
        for object in &list.items {
            check_delete(author, query.kind, object).map_err(|e| self.with_line(e))?;
        }
        let keys = list.items.iter().map(|object| object.key(query.kind));
        let keys = keys.filter(|key| priority::check_delete(author, query.kind, key).is_ok()).collect();
        self.delete_each(author, keys, options).await
    }

    /// Deletes objects, many at a time so that one disk write serves many. What is gone already is no error; the first error ends
    /// it. Namespaces among them are only marked.
    pub(crate) async fn delete_each(
        &self,
        author: &Author,
        mut keys: Vec<ObjectKey>,
        options: &DeleteOptions,
    ) -> Result<Vec<Deleted>, RegistryError> {
        let mut deleted = Vec::with_capacity(keys.len());
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(AT_ONCE));
            let mut running = JoinSet::new();
            for (index, key) in std::mem::replace(&mut keys, rest).into_iter().enumerate() {
                let (registry, author, options) = (self.clone(), author.clone(), options.clone());
                running.spawn(async move { (index, registry.delete_one(&author, &key, &options).await) });
            }
            let mut done = Vec::with_capacity(AT_ONCE);
            while let Some(one) = running.join_next().await {
                match one.map_err(JoinError::try_into_panic) {
                    Ok(one) => done.push(one),
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    // Cancelled with the runtime: nobody waits for the answer any more.
                    Err(Err(_)) => {}
                }
            }
            done.sort_by_key(|(index, _)| *index);
            for (_, one) in done {
                match one {
                    Ok(one) => deleted.push(one),
                    Err(RegistryError::NotFound(_)) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(deleted)
    }

    /// The node's last word: nothing of this pod is left on the host. Removes the marked object with this uid (with
    /// finalizers: once they are gone). `false` when there was nothing to do: other uid, not marked, or gone already.
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn finish_delete(&self, key: &ObjectKey, uid: &str) -> Result<bool, RegistryError> {
        let author = Author::System("node");
        let at = store_key(key)?;
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.entry(&at)? else { return Ok(false) };
            let old = decode(&entry)?;
            if old.uid() != Some(uid) || old.deletion_timestamp().is_none() {
                return Ok(false);
            }
            let gone = old.finalizers().is_empty();
            let transaction = if gone {
                self.removal(&author, key, entry.modified)?
            } else if old.deletion_grace_period_seconds() == Some(0) {
                return Ok(false);
            } else {
                let mut new = old.clone();
                new.set("/metadata/deletionGracePeriodSeconds", 0);
                transaction(&author, &format!("stopped {key}")).replace(at.clone(), entry.modified, encode(&new))
            };
            match self.commit(transaction).await {
                Ok(_) => {
                    if gone {
                        self.settle_namespace(key).await;
                    }
                    return Ok(true);
                }
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }
}
