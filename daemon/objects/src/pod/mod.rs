//! A pod as the node reads it: only the fields that this version acts on. The rest is reported by [`not_yet_supported`].
//!
//! Field meanings are those of Kubernetes core/v1 `PodSpec`. The types are read from defaulted, validated objects; what is absent
//! has the reference's default here as well.

mod container;
mod disruption;
mod probe;
mod spec;
mod status;
mod support;
mod volume;

pub use container::*;
pub use disruption::set_disruption_target;
pub use probe::*;
pub use spec::*;
pub use status::*;
pub use support::{can_mount, not_yet_supported};
pub use volume::*;

use crate::kind::Kind;
use crate::object::{Object, ObjectError};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A pod: who it is and what it asks for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Pod {
    /// Who it is.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: PodSpec,
}

/// The metadata that the node acts on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Identity: another pod of the same name has another uid.
    pub uid: String,
    /// Counted up with every change of the spec.
    pub generation: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made.
    pub creation_timestamp: Option<DateTime<Utc>>,
    /// When set, the pod is to go.
    pub deletion_timestamp: Option<DateTime<Utc>>,
    /// The grace that the deletion allows, seconds.
    pub deletion_grace_period_seconds: Option<i64>,
}

impl Pod {
    /// Reads a pod. Unknown and unsupported fields are ignored.
    ///
    /// # Errors
    /// [`ObjectError::View`] when a field has the wrong type, which a checked object never has.
    pub fn from_object(object: &Object) -> Result<Self, ObjectError> {
        // Through a Value: serde_json's maps deserialise by reference, so nothing but what is kept is copied.
        let view = |e: serde_json::Error| view_error(object, &e);
        let part = |field: &str| object.map().get(field).unwrap_or(&serde_json::Value::Null);
        let metadata = Metadata::deserialize(part("metadata")).map_err(view)?;
        let spec = PodSpec::deserialize(part("spec")).map_err(view)?;
        Ok(Self { metadata, spec })
    }

    /// The brand of its zone: the annotation `reddwarf.io/zone-brand`, or `oci`.
    pub fn zone_brand(&self) -> &str {
        self.metadata.annotations.get(crate::ZONE_BRAND_ANNOTATION).map_or(crate::BRAND_OCI, String::as_str)
    }

    /// Guaranteed, Burstable or BestEffort, from the containers' cpu and memory (Kubernetes: "Pod Quality of Service Classes").
    pub fn qos_class(&self) -> QosClass {
        let containers = self.spec.init_containers.iter().chain(&self.spec.containers);
        qos_class(&self.spec.resources, containers.map(|c| &c.resources))
    }

    /// The same of a pod that is not read otherwise.
    ///
    /// # Errors
    /// As [`Pod::from_object`].
    pub fn qos_class_of(object: &Object) -> Result<QosClass, ObjectError> {
        let spec = AskingSpec::deserialize(object.map().get("spec").unwrap_or(&serde_json::Value::Null));
        let spec = spec.map_err(|e| view_error(object, &e))?;
        let containers = spec.init_containers.iter().chain(&spec.containers);
        Ok(qos_class(&spec.resources, containers.map(|c| &c.resources)))
    }
}

/// Of a pod's spec what its class follows from.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AskingSpec {
    resources: Resources,
    init_containers: Vec<AskingContainer>,
    containers: Vec<AskingContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskingContainer {
    resources: Resources,
}

fn view_error(object: &Object, error: &serde_json::Error) -> ObjectError {
    ObjectError::View { kind: object.kind().to_owned(), name: object.name().to_owned(), message: error.to_string() }
}

/// `own` is what the pod asks for as a whole.
fn qos_class<'a>(own: &'a Resources, containers: impl Iterator<Item = &'a Resources>) -> QosClass {
    let all: Vec<&Resources> = if own.limits.is_empty() && own.requests.is_empty() {
        containers.collect()
    } else {
        // It counts alone.
        vec![own]
    };
    let asks = |map: &ResourceList, name: &str| map.get(name).filter(|q| !q.is_zero()).copied();
    let names = ["cpu", "memory"];
    let nothing = |r: &&Resources| names.iter().all(|n| asks(&r.requests, n).is_none() && asks(&r.limits, n).is_none());
    if all.iter().all(nothing) {
        return QosClass::BestEffort;
    }
    let guaranteed = |r: &&Resources| {
        names.iter().all(|n| {
            let limit = asks(&r.limits, n);
            limit.is_some() && (asks(&r.requests, n) == limit || !r.requests.contains_key(*n))
        })
    };
    if all.iter().all(guaranteed) { QosClass::Guaranteed } else { QosClass::Burstable }
}

#[cfg(test)]
mod tests;

/// Where objects of a kind have the metadata and spec of pods, as a JSON pointer: empty for a pod itself, `None` where there
/// are none.
pub fn template_pointer(kind: &Kind) -> Option<&'static str> {
    Some(match (kind.group, kind.kind) {
        ("", "Pod") => "",
        ("", "PodTemplate") => "/template",
        ("", "ReplicationController")
        | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}
