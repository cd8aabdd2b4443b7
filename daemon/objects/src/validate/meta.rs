//! Rules of metadata.

use super::rules::{Errors, entries, invalid_all, items, labels, list, not_negative, text};
use crate::{
    field::{FieldError, FieldPath},
    kind::Kind,
    names,
    object::Object,
};
use serde_json::Value;

const ANNOTATIONS_MAX: usize = 256 << 10;

pub(super) fn check(kind: &Kind, object: &Object, errors: &mut Errors) {
    let path = FieldPath::of("metadata");
    let metadata = object.map().get("metadata").unwrap_or(&Value::Null);
    check_name(kind, object, &path, errors);
    check_namespace(kind, object, &path, errors);
    not_negative(metadata, &path, "generation", errors);
    labels(metadata, &path, "labels", errors);
    check_annotations(metadata, &path, errors);
    check_owners(metadata, &path, errors);
    for finalizer in list(metadata, "finalizers").iter().filter_map(Value::as_str) {
        let at = path.child("finalizers");
        invalid_all(&at, finalizer, names::qualified_name(finalizer), errors);
        if !finalizer.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer) {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&at, finalizer, message));
        }
    }
}

fn check_name(kind: &Kind, object: &Object, path: &FieldPath, errors: &mut Errors) {
    let rule = name_rule(kind);
    if let Some(prefix) = object.generate_name() {
        // The suffix completes the name: a prefix may end in a dash.
        let sample = format!("{}a", prefix.trim_end_matches('-'));
        invalid_all(&path.child("generateName"), prefix, rule(&sample), errors);
    }
    let at = path.child("name");
    match object.name() {
        "" if object.generate_name().is_none() => {
            errors.push(FieldError::required(&at, "name or generateName is required"))
        }
        "" => {}
        name => {
            invalid_all(&at, name, rule(name), errors);
            if kind.kind == "CronJob" && name.len() > 52 {
                errors.push(FieldError::invalid(&at, name, "must be no more than 52 characters"));
            }
        }
    }
}

fn name_rule(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (kind.group, kind.kind) {
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

fn check_namespace(kind: &Kind, object: &Object, path: &FieldPath, errors: &mut Errors) {
    let at = path.child("namespace");
    match object.namespace() {
        Some(_) if !kind.namespaced => errors.push(FieldError::forbidden(&at, "not allowed on this type")),
        Some(namespace) => invalid_all(&at, namespace, names::dns1123_label(namespace), errors),
        // Who stores the object fills in the namespace; until then its absence is no error.
        None => {}
    }
}

pub(super) fn check_annotations(metadata: &Value, path: &FieldPath, errors: &mut Errors) {
    let at = path.child("annotations");
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        invalid_all(&at, key, names::qualified_name(&key.to_lowercase()), errors);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(&at, ANNOTATIONS_MAX));
    }
}

fn check_owners(metadata: &Value, path: &FieldPath, errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for (at, owner) in items(metadata, path, "ownerReferences") {
        for (field, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, field).is_empty() {
                errors.push(FieldError::invalid(&at.child(field), "", message));
            }
        }
        if super::rules::flag(owner, "controller") {
            if let Some(first) = controller {
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text(owner, "name")
                );
                errors.push(FieldError::invalid(&path.child("ownerReferences"), owner.clone(), message));
            }
            controller = Some(text(owner, "name"));
        }
    }
}
