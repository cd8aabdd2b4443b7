//! Built-in admission: what the reference's admission plugins do to new objects, as pure functions of the object and of the
//! objects around it, which the caller reads.
//!
//! | file | what | reference |
//! |---|---|---|
//! | `service_account.rs` | a pod's account, its token, its pull secrets | ServiceAccount |
//! | `priority.rs` `tolerations.rs` `runtime_class.rs` | fields that follow from classes | Priority, DefaultTolerationSeconds, RuntimeClass |
//! | `limit_range.rs` | default limits and requests, and their bounds | LimitRanger |
//! | `quota.rs` `usage.rs` | what a namespace may use | ResourceQuota |
//! | `class.rs` | default storage and ingress classes | DefaultStorageClass, DefaultIngressClass |
//! | `resize.rs` | whether a claim may grow | PersistentVolumeClaimResize |
//! | `pod_security/` | which pods a namespace takes | PodSecurity |
//!
//! Objects that files declare are not admitted: like the reference's static pods they are what their file says.

mod class;
mod limit_range;
pub mod pod_security;
mod priority;
pub mod quota;
mod resize;
mod runtime_class;
mod service_account;
mod tolerations;
mod usage;

pub(crate) use class::BETA_CLASS;
pub use priority::{SYSTEM_CLASSES, SystemClass, check_default};
pub use quota::{Charge, charge};
pub use resize::{check_growth, class_to_grow};

use crate::{kind::Kind, object::Object};
use std::sync::Arc;

/// The objects that decide over a new one. Those that do not concern its kind may be left out.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The account that the pod names, or `default`.
    pub service_account: Option<Arc<Object>>,
    /// All of the namespace.
    pub limit_ranges: Vec<Object>,
    /// All there are.
    pub priority_classes: Arc<[Object]>,
    /// The one that the pod names.
    pub runtime_class: Option<Object>,
    /// All there are.
    pub storage_classes: Vec<Object>,
    /// All there are.
    pub ingress_classes: Vec<Object>,
    /// What becomes of pods in the namespace.
    pub pod_security: pod_security::Policy,
}

/// An object is refused; the text follows `pods "web" is forbidden: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Name of the account that a pod runs as when it names none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The account that a pod runs as.
pub fn service_account_of(pod: &Object) -> &str {
    pod.get_str("/spec/serviceAccountName").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SERVICE_ACCOUNT)
}

/// Changes a new, defaulted object as the plugins do. `entropy` is random: it completes generated names.
///
/// # Errors
/// [`Refusal`] with the reference's text.
pub fn admit(kind: &Kind, object: &mut Object, around: &Surroundings, entropy: u64) -> Result<(), Refusal> {
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            limit_range::fill(object, &around.limit_ranges);
            service_account::admit(object, around.service_account.as_deref(), entropy)?;
            priority::admit(object, &around.priority_classes)?;
            tolerations::fill(object);
            runtime_class::admit(object, around.runtime_class.as_ref())
        }
        ("", "PersistentVolumeClaim") => {
            class::fill_storage(object, &around.storage_classes);
            Ok(())
        }
        ("networking.k8s.io", "Ingress") => class::fill_ingress(object, &around.ingress_classes),
        _ => Ok(()),
    }
}

/// What admission gave an object stays when it is declared again without it, by someone who replaces whole lists.
pub fn keep(kind: &Kind, old: &Object, new: &mut Object) {
    if kind.is_core("Pod") {
        service_account::keep_token(old, new);
    }
}

/// Is a valid object within the bounds of its namespace?
///
/// # Errors
/// [`Refusal`] with every bound that it breaks.
pub fn check(kind: &Kind, object: &Object, around: &Surroundings) -> Result<(), Refusal> {
    match (kind.group, kind.kind) {
        ("", "Pod") => limit_range::check_pod(object, &around.limit_ranges),
        ("", "PersistentVolumeClaim") => limit_range::check_claim(object, &around.limit_ranges),
        ("scheduling.k8s.io", "PriorityClass") => check_default(object, &around.priority_classes),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
