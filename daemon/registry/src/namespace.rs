//! Namespaces: objects need one that is there and open; deleting one deletes what is in it, then itself.

use crate::delete::{DeleteOptions, marked};
use crate::key::{kind_prefix, object_key, store_key};
use crate::ownership::source_of;
use crate::stored::decode;
use crate::write::known;
use crate::{Author, Registry, RegistryError, WriteOptions};
use chrono::{DateTime, Utc};
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_store::{CommitError, Expect, Key, ListOptions, Revision, Transaction};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Namespaces that are always there.
pub(crate) const BUILT_IN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// Those of them that nobody may delete, as in the reference.
pub(crate) const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];
/// The finalizer that stands for emptying a namespace, which we do.
pub(crate) const FINALIZER: &str = "kubernetes";

const US: Author = Author::System("registry");

/// Where an object would live.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// Not in a namespace.
    Cluster,
    /// In this one, which takes new objects.
    Open { key: Key, revision: Revision },
    /// In this one, which is being deleted.
    Closing { name: String },
    /// In one that is not there.
    Missing { name: String },
}

impl Home {
    /// Refuses homes that take no new objects.
    pub(crate) fn open(self, key: &ObjectKey) -> Result<Self, RegistryError> {
        match self {
            Self::Cluster | Self::Open { .. } => Ok(self),
            Self::Missing { name } => Err(RegistryError::NotFound(namespace_key(&name))),
            Self::Closing { name } => Err(RegistryError::Terminating { key: Box::new(key.clone()), namespace: name }),
        }
    }

    /// Makes the transaction fail if the namespace changes in between, so that nothing is born into one that goes.
    pub(crate) fn hold(&self, transaction: Transaction) -> Transaction {
        match self {
            Self::Open { key, revision } => transaction.expect(key.clone(), Expect::AtRevision(*revision)),
            _ => transaction,
        }
    }
}

/// Key of a namespace.
pub(crate) fn namespace_key(name: &str) -> ObjectKey {
    ObjectKey { group: String::new(), resource: "namespaces".to_owned(), namespace: None, name: name.to_owned() }
}

impl Registry {
    /// Makes the namespaces that are always there if they are missing and goes on with namespace deletions that
    /// a crash interrupted.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub async fn bootstrap(&self) -> Result<(), RegistryError> {
        for name in BUILT_IN {
            self.make_missing(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
        }
        for name in self.terminating()? {
            self.empty_namespace(&name).await?;
        }
        Ok(())
    }

    /// Makes an object that is always there, if it is missing.
    pub(crate) async fn make_missing(&self, object: Value) -> Result<(), RegistryError> {
        let object = Object::from_value(object).map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        if self.find(&object.key(known(&object)?))?.is_some() {
            return Ok(());
        }
        match self.create(&US, object, WriteOptions::default()).await {
            Ok(_) | Err(RegistryError::AlreadyExists(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The namespace as a home for objects.
    pub(crate) fn namespace_home(&self, name: &str) -> Result<Home, RegistryError> {
        let key = store_key(&namespace_key(name))?;
        let Some(entry) = self.entry(&key)? else { return Ok(Home::Missing { name: name.to_owned() }) };
        // Every write asks this: a text that does not hold the word need not be parsed.
        if holds(&entry.value, b"deletionTimestamp") && decode(&entry)?.deletion_timestamp().is_some() {
            return Ok(Home::Closing { name: name.to_owned() });
        }
        Ok(Home::Open { key, revision: entry.modified })
    }

    fn terminating(&self) -> Result<Vec<String>, RegistryError> {
        let Some(kind) = kinds().by_group_resource("", "namespaces") else { return Ok(Vec::new()) };
        let page = self.page(&kind_prefix(kind, None), &ListOptions::default())?;
        let objects = page.entries.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        Ok(objects.iter().filter(|o| o.deletion_timestamp().is_some()).map(|o| o.name().to_owned()).collect())
    }

    /// Everything in a namespace.
    pub(crate) fn contents(&self, namespace: &str) -> Result<Vec<(ObjectKey, Object)>, RegistryError> {
        let mut found = Vec::new();
        for prefix in prefixes(namespace) {
            for entry in self.page(&prefix, &ListOptions::default())?.entries {
                if let Some(key) = object_key(&entry.key) {
                    found.push((key, decode(&entry)?));
                }
            }
        }
        Ok(found)
    }

    /// Is anything in a namespace?
    fn is_occupied(&self, namespace: &str) -> Result<bool, RegistryError> {
        for prefix in prefixes(namespace) {
            if !self.page(&prefix, &ListOptions { limit: Some(1), ..ListOptions::default() })?.entries.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Objects in a namespace that files declare: as long as there are any, an API client may not delete it.
    pub(crate) fn declared_in(&self, namespace: &str) -> Result<Vec<(ObjectKey, String)>, RegistryError> {
        let contents = self.contents(namespace)?;
        Ok(contents.into_iter().filter_map(|(key, o)| source_of(&o).map(|s| (key, s.to_owned()))).collect())
    }

    /// Deletes what is in a namespace that is being deleted, and the namespace once nothing is left.
    pub(crate) async fn empty_namespace(&self, namespace: &str) -> Result<(), RegistryError> {
        let contents = self.contents(namespace)?.into_iter();
        let left = contents.filter(|(_, object)| object.deletion_timestamp().is_none()).map(|(key, _)| key).collect();
        self.delete_each(&US, left, &DeleteOptions::default()).await?;
        self.close_namespace(namespace).await
    }

    /// Removes a namespace that is being deleted if nothing is in it and no finalizer holds it.
    async fn close_namespace(&self, namespace: &str) -> Result<(), RegistryError> {
        let key = namespace_key(namespace);
        let Some(entry) = self.entry(&store_key(&key)?)? else { return Ok(()) };
        let object = decode(&entry)?;
        let closing = object.deletion_timestamp().is_some() && object.finalizers().is_empty() && !held(&object);
        if !closing || self.is_occupied(namespace)? {
            return Ok(());
        }
        match self.commit(self.removal(&US, &key, entry.modified)?).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(e) => Err(RegistryError::Commit(e)),
        }
    }

    /// Called after an object went, or a namespace changed: if that leaves a namespace that is being deleted empty, it
    /// goes too. A failure is logged only: the write itself is done, and [`Registry::bootstrap`] takes the namespace up
    /// again.
    pub(crate) async fn settle_namespace(&self, key: &ObjectKey) {
        let namespace = match &key.namespace {
            Some(namespace) => namespace,
            None if key.resource == "namespaces" && key.group.is_empty() => &key.name,
            None => return,
        };
        let closing = match self.namespace_home(namespace) {
            Ok(Home::Closing { .. }) => self.close_namespace(namespace).await,
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(error) = closing {
            tracing::warn!(%namespace, %error, "a namespace that is being deleted could not be finished");
        }
    }

    /// May this author delete this namespace?
    pub(crate) fn check_namespace_delete(&self, author: &Author, key: &ObjectKey) -> Result<(), RegistryError> {
        let refuse = |message: String| Err(RegistryError::Forbidden { key: key.clone(), message });
        if IMMORTAL.contains(&key.name.as_str()) {
            return refuse("this namespace may not be deleted".to_owned());
        }
        if !author.is_api() {
            return Ok(());
        }
        match self.declared_in(&key.name)?.first() {
            None => Ok(()),
            Some((object, source)) => {
                refuse(format!("{object} in it is declared by {source}; remove what files declare in it first"))
            }
        }
    }
}

/// Is `word` somewhere in a text?
fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Prefixes of the keys of everything in a namespace.
fn prefixes(namespace: &str) -> BTreeSet<String> {
    kinds()
        .iter()
        .filter(|kind| kind.namespaced && !kind.is_virtual)
        .map(|kind| kind_prefix(kind, Some(namespace)))
        .collect()
}

/// Does anybody but us have something to do in a namespace before it goes?
fn held(namespace: &Object) -> bool {
    let finalizers = namespace.get("/spec/finalizers").and_then(Value::as_array);
    finalizers.into_iter().flatten().any(|finalizer| finalizer.as_str() != Some(FINALIZER))
}

/// A namespace marked as being deleted; its contents follow with [`Registry::empty_namespace`].
pub(crate) fn closing(old: &Object, now: DateTime<Utc>) -> Object {
    let mut new = marked(old, now, None);
    new.set("/status/phase", "Terminating");
    new
}
