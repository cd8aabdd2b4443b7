//! What a write does to an object before it is stored: defaults, validation, ownership, metadata. Pure: time, uid and
//! the stored object come as arguments.

use crate::ownership::{check_claim, check_update, invalid, source_of};
use crate::{Author, RegistryError};
use chrono::{DateTime, Utc};
use reddwarf_objects::default::{prepare_create, prepare_update};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object, SOURCE_ANNOTATION, default, validate, validate_update};
use serde_json::json;
use std::collections::BTreeSet;

/// Metadata that only we write.
pub(crate) const SERVER_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// A new object, ready to be stored. `object` has its final name. `source` is the declaring file.
pub(crate) fn create(
    author: &Author,
    kind: &Kind,
    mut object: Object,
    source: Option<&str>,
    uid: &str,
    now: DateTime<Utc>,
) -> Result<Object, RegistryError> {
    check_claim(author, kind, None, &object)?;
    for field in SERVER_METADATA {
        object.remove(&format!("/metadata/{field}"));
    }
    place(kind, &mut object);
    set_source(&mut object, source);
    if kind.has_status() && !matches!(author, Author::System(_)) {
        object.set_status(None);
    }
    object.set_uid(uid);
    default(kind, &mut object);
    prepare_create(kind, &mut object);
    let errors = validate(kind, &object);
    if !errors.is_empty() {
        return Err(invalid(kind, &object, errors));
    }
    object.set_creation_timestamp(now);
    if kind.has_generation {
        object.set_generation(1);
    }
    Ok(object)
}

/// A changed object, ready to be stored: everything but status comes from `new`. `source` is `Some(file)` when a file
/// declares it now. `applied` is the form last declared, for ownership.
pub(crate) fn update(
    author: &Author,
    kind: &Kind,
    old: &Object,
    mut new: Object,
    source: Option<&str>,
    applied: Option<&Object>,
) -> Result<Object, RegistryError> {
    check_identity(kind, old, &new)?;
    check_claim(author, kind, Some(old), &new)?;
    place(kind, &mut new);
    for field in SERVER_METADATA {
        let pointer = format!("/metadata/{field}");
        match old.get(&pointer).cloned() {
            Some(value) => new.set(&pointer, value),
            None => drop(new.remove(&pointer)),
        }
    }
    set_source(&mut new, source.or(source_of(old)));
    if kind.has_status() {
        new.set_status(old.status().cloned());
    }
    default(kind, &mut new);
    prepare_update(kind, old, &mut new);
    check_update(author, kind, old, &new, applied)?;
    check_finalizers(kind, old, &new)?;
    let errors =
        if may_change_anything(author, kind) { validate(kind, &new) } else { validate_update(kind, old, &new) };
    if !errors.is_empty() {
        return Err(invalid(kind, &new, errors));
    }
    if kind.has_generation && !differing_fields(old, &new).is_empty() {
        new.set_generation(old.generation().unwrap_or(0).saturating_add(1));
    }
    Ok(new)
}

/// The object with only its status replaced.
pub(crate) fn update_status(kind: &Kind, old: &Object, new: &Object) -> Result<Object, RegistryError> {
    check_identity(kind, old, new)?;
    let mut result = old.clone();
    result.set_status(new.status().cloned());
    default(kind, &mut result);
    Ok(result)
}

/// Files and the daemon itself may change every field of a pod (ADR 2); API clients are held to Kubernetes' rules.
fn may_change_anything(author: &Author, kind: &Kind) -> bool {
    match author {
        Author::File(_) => kind.is_core("Pod"),
        Author::System(_) => true,
        Author::Api { .. } => false,
    }
}

/// A namespaced object without a namespace lives in `default`; a cluster-wide one has none.
fn place(kind: &Kind, object: &mut Object) {
    if !kind.namespaced {
        object.set_namespace(None);
    } else if object.namespace().is_none() {
        object.set_namespace(Some("default"));
    }
}

fn set_source(object: &mut Object, source: Option<&str>) {
    match source {
        Some(source) => object.set_annotation(SOURCE_ANNOTATION, source),
        None => object.remove_annotation(SOURCE_ANNOTATION),
    }
}

fn check_identity(kind: &Kind, old: &Object, new: &Object) -> Result<(), RegistryError> {
    if new.name() != old.name() || new.kind() != old.kind() {
        let text =
            format!("the name of the object ({}) does not match the name on the URL ({})", new.name(), old.name());
        return Err(RegistryError::BadRequest(text));
    }
    match new.uid() {
        Some(uid) if Some(uid) != old.uid() => Err(RegistryError::Precondition {
            kind: kind.plural.to_owned(),
            group: kind.group.to_owned(),
            name: old.name().to_owned(),
            message: format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid().unwrap_or_default()
            ),
        }),
        _ => Ok(()),
    }
}

/// While an object is being deleted finalizers can only be taken away.
fn check_finalizers(kind: &Kind, old: &Object, new: &Object) -> Result<(), RegistryError> {
    if old.deletion_timestamp().is_none() {
        return Ok(());
    }
    let before = old.finalizers();
    let added: Vec<String> =
        new.finalizers().into_iter().filter(|f| !before.contains(f)).map(|f| json!(f).to_string()).collect();
    if added.is_empty() {
        return Ok(());
    }
    let text = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let error = FieldError::forbidden(&FieldPath::of("metadata.finalizers"), text);
    Err(invalid(kind, new, vec![error]))
}

/// Top-level fields that differ and count as the spec: all but metadata and status.
pub(crate) fn differing_fields(old: &Object, new: &Object) -> Vec<String> {
    let given = |object: &Object, field: &str| object.map().get(field).filter(|value| !value.is_null()).cloned();
    let fields: BTreeSet<&String> = old.map().keys().chain(new.map().keys()).collect();
    fields
        .into_iter()
        .filter(|field| !["apiVersion", "kind", "metadata", "status"].contains(&field.as_str()))
        .filter(|field| given(old, field) != given(new, field))
        .cloned()
        .collect()
}
