//! Rules of metadata.

use super::{
    at::{At, Errors},
    rules,
};
use crate::{field::FieldError, kind::Kind, names, object::Object};

const ANNOTATIONS_MAX: usize = 256 << 10;

/// The metadata of a new object.
pub(super) fn check(kind: &Kind, object: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    check_name(kind, object, at, errors);
    check_namespace(kind, object, at, errors);
    at.not_negative(errors, "generation");
    check_content(at, errors);
    check_finalizers(at, errors);
}

/// What is checked at every write.
pub(super) fn check_content(at: &At<'_, '_>, errors: &mut Errors) {
    rules::labels(at, "labels", errors);
    check_annotations(at, errors);
    check_owners(&at.child("ownerReferences"), errors);
}

fn check_name(kind: &Kind, object: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let rule = name_rule(kind);
    if let Some(prefix) = object.generate_name() {
        at.child("generateName").invalid_all(errors, prefix, rule(&completed(prefix)));
    }
    let at = at.child("name");
    match object.name() {
        "" if object.generate_name().is_none() => at.required(errors, "name or generateName is required"),
        "" => {}
        name => {
            at.invalid_all(errors, name, rule(name));
            if kind.kind == "CronJob" && name.len() > 52 {
                at.invalid_value(errors, name, "must be no more than 52 characters");
            }
        }
    }
}

/// A prefix as its generated suffix will complete it: it may end in a dash.
fn completed(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept = rest.char_indices().next_back().map_or(0, |(last, _)| last);
            format!("{}a", &rest[..kept])
        }
        _ => prefix.to_owned(),
    }
}

fn name_rule(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (kind.group, kind.kind) {
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::canonical_ip,
        ("certificates.k8s.io", "ClusterTrustBundle") => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

fn check_namespace(kind: &Kind, object: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let at = at.child("namespace");
    match object.namespace() {
        Some(_) if !kind.namespaced => at.forbidden(errors, "not allowed on this type"),
        Some(namespace) => at.invalid_all(errors, namespace, names::dns1123_label(namespace)),
        // Who stores the object fills in the namespace; until then its absence is no error.
        None => {}
    }
}

/// The annotations of something with metadata.
pub(super) fn check_annotations(at: &At<'_, '_>, errors: &mut Errors) {
    let at = at.child("annotations");
    let mut size = 0;
    for (key, value) in at.entries() {
        let lower;
        let plain = if key.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = key.to_ascii_lowercase();
            &lower
        } else {
            key
        };
        at.invalid_all(errors, key, names::qualified_name(plain));
        size += key.len() + value.str().len();
    }
    if size > ANNOTATIONS_MAX {
        at.too_long(errors, ANNOTATIONS_MAX);
    }
}

fn check_owners(at: &At<'_, '_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in at.items() {
        let version = owner.text("apiVersion");
        if version.is_empty() || version.matches('/').count() > 1 || version.ends_with('/') {
            owner.child("apiVersion").invalid_value(errors, version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                owner.child(field).invalid_value(errors, "", "must not be empty");
            }
        }
        if version == "v1" && owner.text("kind") == "Event" {
            owner.invalid(errors, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                Some(first) => at.invalid(
                    errors,
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn check_finalizers(metadata: &At<'_, '_>, errors: &mut Errors) {
    let at = metadata.child("finalizers");
    let mut both = [false, false];
    for finalizer in at.items() {
        at.invalid_all(errors, finalizer.str(), names::qualified_name(finalizer.str()));
        both[0] |= finalizer.str() == "orphan";
        both[1] |= finalizer.str() == "foregroundDeletion";
    }
    if both == [true, true] {
        at.invalid(errors, "finalizer orphan and foregroundDeletion cannot be both set");
    }
    for finalizer in at.items() {
        check_standard_finalizer(&finalizer, errors);
    }
}

/// A finalizer without a domain is one of the reference's own.
pub(super) fn check_standard_finalizer(at: &At<'_, '_>, errors: &mut Errors) {
    let name = at.str();
    if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
        at.invalid(errors, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// What may not change in metadata, and what it must be at every update.
pub(super) fn check_update(old: &Object, new: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    if old.deletion_timestamp().is_some() {
        let before = old.finalizers();
        let mut added: Vec<_> = new.finalizers().into_iter().filter(|name| !before.contains(name)).collect();
        added.sort_unstable();
        if !added.is_empty() {
            let quoted: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            );
            at.child("finalizers").forbidden(errors, message);
        }
    }
    // A field that the new object leaves out is filled in by whoever writes it.
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        let (before, after) = (old.get(&pointer), new.get(&pointer));
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            errors.push(FieldError::invalid(&at.path().child(field), after.clone(), super::update::IMMUTABLE));
        }
    }
    check_content(at, errors);
    at.child("finalizers").items().for_each(|finalizer| check_standard_finalizer(&finalizer, errors));
}
