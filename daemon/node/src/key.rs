//! Which pod: namespace and name.

use reddwarf_host::spec::PodIdentity;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A pod's namespace and name. The node does one thing at a time per key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
}

impl PodKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&PodIdentity> for PodKey {
    fn from(pod: &PodIdentity) -> Self {
        Self::new(&pod.namespace, &pod.name)
    }
}
