//! The parts of an object that are written apart from each other: the object itself and its subresources. Pure.

use crate::RegistryError;
use crate::admit::SERVER_METADATA;
use crate::scale;
use reddwarf_objects::{Kind, Object};
use serde_json::{Map, Value};

/// Which part of an object a write concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// Everything but what a subresource below holds.
    #[default]
    Main,
    /// `status`, and metadata that clients may write.
    Status,
    /// The conditions of a certificate request; the rest is as in `status`.
    Approval,
    /// `spec.replicas`, seen as an autoscaling/v1 Scale.
    Scale,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// `resources` of a pod's containers.
    Resize,
}

impl Part {
    /// The part that a subresource's path segment names, for kinds that have it.
    pub fn of_subresource(kind: &Kind, name: &str) -> Option<Self> {
        let part = match name {
            "status" => Self::Status,
            "approval" => Self::Approval,
            "scale" => Self::Scale,
            "finalize" if kind.is_core("Namespace") => Self::Finalize,
            "ephemeralcontainers" => Self::EphemeralContainers,
            "resize" => Self::Resize,
            _ => return None,
        };
        kind.has_subresource(name).then_some(part)
    }

    /// As managedFields and URLs name it; none for the object itself.
    pub fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Status => Some("status"),
            Self::Approval => Some("approval"),
            Self::Scale => Some("scale"),
            Self::Finalize => Some("finalize"),
            Self::EphemeralContainers => Some("ephemeralcontainers"),
            Self::Resize => Some("resize"),
        }
    }

    /// The object as this part's clients see and patch it.
    pub fn view(self, kind: &Kind, object: &Object) -> Result<Value, RegistryError> {
        match self {
            Self::Scale => scale::of(kind, object),
            _ => Ok(object.value()),
        }
    }

    /// What is stored when a client writes `new` (an object of the kind) to this part of `old`: the rest is `old`'s.
    /// managedFields stay as the client sent them.
    pub(crate) fn take(self, kind: &Kind, old: &Object, mut new: Object) -> Object {
        let owners = new.get("/metadata/managedFields").cloned();
        match self {
            Self::Main => keep_others(kind, old, &mut new),
            Self::Status => {
                let status = new.map_mut().remove("status").filter(|status| !status.is_null());
                let metadata = new.map_mut().remove("metadata");
                let mut result = old.clone();
                put(result.map_mut(), "status", status);
                put(result.map_mut(), "metadata", metadata);
                copy(old, &mut result, "/metadata/ownerReferences");
                // Given once and for all when a pod is made; clients that leave it out mean no harm.
                if kind.is_core("Pod") && result.get_str("/status/qosClass").is_none_or(str::is_empty) {
                    copy(old, &mut result, "/status/qosClass");
                }
                new = result;
            }
            Self::Approval => new = with(old, &new, "/status/conditions"),
            Self::Scale => new = with(old, &new, scale::REPLICAS),
            Self::Finalize => new = with(old, &new, "/spec/finalizers"),
            Self::EphemeralContainers => new = with(old, &new, "/spec/ephemeralContainers"),
            Self::Resize => new = resized(old, &new),
        }
        for field in SERVER_METADATA.iter().filter(|field| **field != "managedFields") {
            copy(old, &mut new, &format!("/metadata/{field}"));
        }
        match owners {
            Some(owners) => new.set("/metadata/managedFields", owners),
            None => drop(new.remove("/metadata/managedFields")),
        }
        new
    }
}

/// A write of the main part leaves what subresources hold as it was.
fn keep_others(kind: &Kind, old: &Object, new: &mut Object) {
    if kind.has_status() {
        put(new.map_mut(), "status", old.status().cloned());
    }
    match (kind.group, kind.kind) {
        ("", "Namespace") => copy(old, new, "/spec/finalizers"),
        ("", "Pod") => copy(old, new, "/spec/ephemeralContainers"),
        _ => {}
    }
}

/// `old` with one field of `new`.
fn with(old: &Object, new: &Object, pointer: &str) -> Object {
    let mut result = old.clone();
    copy(new, &mut result, pointer);
    result
}

/// Gives `to` the value that `from` has at a pointer, or none.
fn copy(from: &Object, to: &mut Object, pointer: &str) {
    match from.get(pointer).cloned() {
        Some(value) => to.set(pointer, value),
        None => drop(to.remove(pointer)),
    }
}

fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(map.insert(field.to_owned(), value)),
        None => drop(map.remove(field)),
    }
}

fn list<'a>(object: &'a Object, pointer: &str) -> &'a [Value] {
    object.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];

/// `old` with the resources of `new`'s containers of the same names; what else `new` says is not heard, as in the reference.
fn resized(old: &Object, new: &Object) -> Object {
    let mut result = old.clone();
    for pointer in ["/spec/containers", "/spec/initContainers"] {
        let given = list(new, pointer);
        let mut containers = list(old, pointer).to_vec();
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let name = container.get("name");
            if let Some(wanted) = given.iter().find(|wanted| wanted.get("name") == name) {
                RESIZABLE.iter().for_each(|field| put(container, field, wanted.get(*field).cloned()));
            }
        }
        if !containers.is_empty() {
            result.set(pointer, containers);
        }
    }
    result
}
