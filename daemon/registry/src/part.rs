//! The parts of an object that are written apart from each other: the object itself and its subresources. Pure.

use crate::RegistryError;
use crate::admit::SERVER_METADATA;
use crate::ownership::invalid;
use crate::scale;
use reddwarf_objects::{FieldError, FieldPath, Kind, Object};
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
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] when `new` changes what this part does not hold.
    pub(crate) fn take(self, kind: &Kind, old: &Object, mut new: Object) -> Result<Object, RegistryError> {
        match self {
            Self::Main => keep_others(kind, old, &mut new),
            Self::Status => {
                let status = new.map_mut().remove("status").filter(|status| !status.is_null());
                let metadata = new.map_mut().remove("metadata");
                let mut result = old.clone();
                put(result.map_mut(), "status", status);
                put(result.map_mut(), "metadata", metadata);
                copy(old, &mut result, "/metadata/ownerReferences");
                new = result;
            }
            Self::Approval => {
                let mut result = old.clone();
                copy(&new, &mut result, "/status/conditions");
                new = result;
            }
            Self::Scale => {
                let replicas = new.get(scale::REPLICAS).cloned();
                let mut result = old.clone();
                if let Some(replicas) = replicas {
                    result.set(scale::REPLICAS, replicas);
                }
                new = result;
            }
            Self::Finalize => {
                let mut result = old.clone();
                copy(&new, &mut result, "/spec/finalizers");
                new = result;
            }
            Self::EphemeralContainers => {
                let mut result = old.clone();
                copy(&new, &mut result, "/spec/ephemeralContainers");
                check_ephemeral(kind, old, &result)?;
                new = result;
            }
            Self::Resize => new = resized(kind, old, &new)?,
        }
        for field in SERVER_METADATA.iter().filter(|field| **field != "managedFields") {
            copy(old, &mut new, &format!("/metadata/{field}"));
        }
        Ok(new)
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

fn named<'a>(list: &'a [Value], name: &Value) -> Option<&'a Value> {
    list.iter().find(|item| item.get("name") == Some(name))
}

/// Ephemeral containers are only added.
fn check_ephemeral(kind: &Kind, old: &Object, new: &Object) -> Result<(), RegistryError> {
    let (before, after) = (list(old, "/spec/ephemeralContainers"), list(new, "/spec/ephemeralContainers"));
    let path = FieldPath::of("spec.ephemeralContainers");
    let mut errors = Vec::new();
    for container in before {
        let name = container.get("name").unwrap_or(&Value::Null);
        let text = name.as_str().unwrap_or_default();
        match named(after, name) {
            None => {
                let message = format!("existing ephemeral containers {text:?} may not be removed\n");
                errors.push(FieldError::forbidden(&path, message));
            }
            // Clients leave out what defaults filled in.
            Some(is) if !holds(container, is) => {
                let message = format!("existing ephemeral containers {text:?} may not be changed\n");
                errors.push(FieldError::forbidden(&path, message));
            }
            Some(_) => {}
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(kind, new, errors)) }
}

/// Does `whole` have everything that `part` says?
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(field, value)| {
            whole
                .get(field)
                .map_or(value.is_null() || value.as_object().is_some_and(Map::is_empty), |w| holds(w, value))
        }),
        (whole, part) => whole == part,
    }
}

const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];

/// `old` with the resources of `new`'s containers.
fn resized(kind: &Kind, old: &Object, new: &Object) -> Result<Object, RegistryError> {
    let mut result = old.clone();
    let mut foreign = false;
    for field in ["containers", "initContainers"] {
        let pointer = format!("/spec/{field}");
        let given = list(new, &pointer);
        let mut containers = list(old, &pointer).to_vec();
        foreign |= given.len() != containers.len();
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let name = container.get("name").cloned().unwrap_or_default();
            let Some(Value::Object(wanted)) = named(given, &name) else {
                foreign = true;
                continue;
            };
            for resizable in RESIZABLE {
                put(container, resizable, wanted.get(resizable).cloned());
            }
            foreign |= !wanted.iter().all(|(field, value)| container.get(field).is_none_or(|is| holds(is, value)));
        }
        if !containers.is_empty() {
            result.set(&pointer, containers);
        }
    }
    if foreign {
        let message = "only cpu and memory resources are mutable";
        return Err(invalid(kind, new, vec![FieldError::forbidden(&FieldPath::of("spec"), message)]));
    }
    Ok(result)
}
