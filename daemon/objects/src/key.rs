//! The name of an object among all objects.

use std::{fmt, str::FromStr};

/// Which object: its resource, its namespace and its name. Prints as `pods/default/web`; with a group,
/// `deployments.apps/default/web`; cluster-scoped, `nodes/-/box`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The API group; empty for core.
    pub group: String,
    /// The plural resource name, for example `pods`.
    pub resource: String,
    /// The namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl ObjectKey {
    /// A key of a core/v1 resource in a namespace.
    pub fn core(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: String::new(),
            resource: resource.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    /// A key of a pod.
    pub fn pod(namespace: &str, name: &str) -> Self {
        Self::core("pods", namespace, name)
    }

    /// `resource` or `resource.group`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group_resource(), self.namespace.as_deref().unwrap_or("-"), self.name)
    }
}

/// A text is not an object's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object's key: write it as pods/default/web, deployments.apps/default/web or nodes/-/box")]
pub struct KeyError(pub String);

impl FromStr for ObjectKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '/');
        let (Some(resource), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError(text.to_owned()));
        };
        if resource.is_empty() || namespace.is_empty() || name.is_empty() {
            return Err(KeyError(text.to_owned()));
        }
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Ok(Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: (namespace != "-").then(|| namespace.to_owned()),
            name: name.to_owned(),
        })
    }
}
