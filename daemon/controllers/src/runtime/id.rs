//! How an object is called in the view: cheap to copy and to compare.

use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_registry::kind_of;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Kind, namespace (empty when it has none) and name.
#[derive(Clone)]
pub struct Id {
    /// The kind's entry.
    pub kind: &'static Kind,
    /// Empty for cluster-wide kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Id {
    /// Of a kind of the table, for example `Id::new("apps", "Deployment", "default", "web")`; `None` for a kind that is not there.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Option<Self> {
        let kind = kinds().iter().find(|k| k.group == group && k.kind == kind)?;
        Some(Self::of(kind, namespace, name))
    }

    /// Of this kind.
    pub fn of(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: if kind.namespaced { namespace.into() } else { "".into() }, name: name.into() }
    }

    /// Of an object.
    pub fn of_object(object: &Object) -> Option<Self> {
        let kind = object.known_kind()?;
        let kind = kinds().by_group_resource(kind.group, kind.plural)?;
        Some(Self::of(kind, object.namespace().unwrap_or_default(), object.name()))
    }

    /// The same object as the registry calls it; `None` for kinds that are not in the table.
    pub fn from_key(key: &ObjectKey) -> Option<Self> {
        let kind = kind_of(key).ok()?;
        Some(Self::of(kind, key.namespace.as_deref().unwrap_or_default(), &key.name))
    }

    /// As the registry calls it.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: self.kind.group.to_owned(),
            resource: self.kind.plural.to_owned(),
            namespace: self.kind.namespaced.then(|| self.namespace.to_string()),
            name: self.name.to_string(),
        }
    }

    /// Is it of this kind?
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.kind.kind == kind && self.kind.group == group
    }

    /// Kinds by plural and group; most often the two are one entry of the table.
    fn kind_order(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self.kind, other.kind) {
            return Ordering::Equal;
        }
        (self.kind.plural, self.kind.group).cmp(&(other.kind.plural, other.kind.group))
    }

    /// Is it a pod?
    pub fn is_pod(&self) -> bool {
        self.is("", "Pod")
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.namespace == other.namespace && self.kind_order(other).is_eq()
    }
}

impl Eq for Id {}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind_order(other)
            .then_with(|| match Arc::ptr_eq(&self.namespace, &other.namespace) {
                true => Ordering::Equal,
                false => self.namespace.cmp(&other.namespace),
            })
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind.plural, self.kind.group, &self.namespace, &self.name).hash(state);
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.kind.group_resource())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
