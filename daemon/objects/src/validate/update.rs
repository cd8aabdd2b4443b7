//! What may not change once it is written.

use super::rules::{Errors, flag, list};
use crate::{
    field::{FieldError, FieldPath},
    kind::Kind,
    object::Object,
};
use serde_json::Value;

const IMMUTABLE: &str = "field is immutable";

/// The rules that an update through the API breaks: `new`'s own rules and the fields that may not change.
/// Objects declared by files are replaced freely: for them use [`crate::validate()`].
pub fn validate_update(kind: &Kind, old: &Object, new: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_metadata(old, new, &mut errors);
    errors.extend(super::validate(kind, new));
    check_kind(kind, old, new, &mut errors);
    errors
}

fn check_metadata(old: &Object, new: &Object, errors: &mut Errors) {
    // A field that the new object leaves out is filled in by whoever writes it.
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        same(old, new, &format!("/metadata/{field}"), true, errors);
    }
    if old.deletion_timestamp().is_some() {
        let before = old.finalizers();
        let added: Vec<_> = new.finalizers().into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted(&added)
            );
            errors.push(FieldError::forbidden(&FieldPath::of("metadata.finalizers"), message));
        }
    }
}

fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
}

/// An error when the field at `pointer` differs; when `may_lack`, not when the new object leaves it out.
fn same(old: &Object, new: &Object, pointer: &str, may_lack: bool, errors: &mut Errors) {
    let (before, after) = (old.get(pointer), new.get(pointer));
    if before != after && !(may_lack && (after.is_none() || before.is_none())) {
        let found = after.cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(&FieldPath::from_pointer(pointer), found, IMMUTABLE));
    }
}

fn check_kind(kind: &Kind, old: &Object, new: &Object, errors: &mut Errors) {
    let mut fixed = |pointers: &[&str]| pointers.iter().for_each(|pointer| same(old, new, pointer, false, errors));
    match (kind.group, kind.kind) {
        ("", "Pod") => check_pod(old, new, errors),
        ("", "ConfigMap") => check_frozen(old, new, &["data", "binaryData"], errors),
        ("", "Secret") => {
            fixed(&["/type"]);
            check_frozen(old, new, &["data"], errors);
        }
        ("", "Service") => check_service(old, new, errors),
        ("", "PersistentVolumeClaim") => check_claim(old, new, errors),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => fixed(&["/spec/selector"]),
        ("apps", "StatefulSet") => check_stateful_set(old, new, errors),
        ("apps", "ControllerRevision") => fixed(&["/data"]),
        ("batch", "Job") => check_job(old, new, errors),
        ("discovery.k8s.io", "EndpointSlice") => fixed(&["/addressType"]),
        ("node.k8s.io", "RuntimeClass") => fixed(&["/handler"]),
        ("networking.k8s.io", "IngressClass") => fixed(&["/spec/controller"]),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
            if old.get("/roleRef") != new.get("/roleRef") =>
        {
            let found = new.get("/roleRef").cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(&FieldPath::of("roleRef"), found, "cannot change roleRef"));
        }
        ("scheduling.k8s.io", "PriorityClass") => forbid(old, new, "value", "may not be changed in an update.", errors),
        ("storage.k8s.io", "StorageClass") => {
            forbid(old, new, "parameters", "updates to parameters are forbidden.", errors);
            forbid(old, new, "provisioner", "updates to provisioner are forbidden.", errors);
            forbid(old, new, "reclaimPolicy", "updates to reclaimPolicy are forbidden.", errors);
            same(old, new, "/volumeBindingMode", false, errors);
        }
        _ => {}
    }
}

fn forbid(old: &Object, new: &Object, field: &str, message: &str, errors: &mut Errors) {
    if old.map().get(field) != new.map().get(field) {
        errors.push(FieldError::forbidden(&FieldPath::of(field), message));
    }
}

fn check_frozen(old: &Object, new: &Object, fields: &[&str], errors: &mut Errors) {
    if !flag(&old.value(), "immutable") {
        return;
    }
    let message = "field is immutable when `immutable` is set";
    if !flag(&new.value(), "immutable") {
        errors.push(FieldError::forbidden(&FieldPath::of("immutable"), message));
    }
    fields.iter().for_each(|field| forbid(old, new, field, message, errors));
}

/// Of a pod's spec only images, a shorter activeDeadlineSeconds, more tolerations and a negative grace may change.
fn check_pod(old: &Object, new: &Object, errors: &mut Errors) {
    let (Some(before), Some(after)) = (old.spec(), new.spec()) else { return };
    for field in ["containers", "initContainers"] {
        if list(before, field).len() != list(after, field).len() {
            let message = "pod updates may not add or remove containers";
            return errors.push(FieldError::forbidden(&FieldPath::of("spec").child(field), message));
        }
    }
    let (old_deadline, new_deadline) =
        (seconds(before, "activeDeadlineSeconds"), seconds(after, "activeDeadlineSeconds"));
    if let Some(was) = old_deadline
        && new_deadline.is_none_or(|is| is > was)
    {
        let at = FieldPath::of("spec.activeDeadlineSeconds");
        let message = if new_deadline.is_some() {
            "must be less than or equal to previous value"
        } else {
            "must not update from a positive integer to nil value"
        };
        errors.push(FieldError::invalid(&at, new_deadline, message));
    }
    let kept = list(before, "tolerations").iter().all(|toleration| list(after, "tolerations").contains(toleration));
    if !kept {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&FieldPath::of("spec.tolerations"), message));
    }
    let changed = first_changes(&without_mutable(before, before), &without_mutable(after, before));
    if !changed.is_empty() {
        let message = format!(
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: {}",
            changed.join(", ")
        );
        errors.push(FieldError::forbidden(&FieldPath::of("spec"), message));
    }
}

fn seconds(spec: &Value, field: &str) -> Option<i64> {
    spec.get(field).and_then(Value::as_i64)
}

/// `spec` without what may change, so that what is left must be equal.
fn without_mutable(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else { return spec };
    map.remove("activeDeadlineSeconds");
    map.remove("tolerations");
    if seconds(old, "terminationGracePeriodSeconds").is_some_and(|grace| grace < 0) {
        map.remove("terminationGracePeriodSeconds");
    }
    // Filled in once by whoever places the pod.
    if old.get("nodeName").and_then(Value::as_str).is_none_or(str::is_empty) {
        map.remove("nodeName");
    }
    for field in ["containers", "initContainers"] {
        for container in map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().and_then(|container| container.remove("image"));
        }
    }
    spec
}

/// The names of the top-level fields that differ.
fn first_changes(old: &Value, new: &Value) -> Vec<String> {
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<String> =
        keys(old).into_iter().chain(keys(new)).filter(|key| old.get(key) != new.get(key)).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| format!("spec.{name}")).collect()
}

fn check_service(old: &Object, new: &Object, errors: &mut Errors) {
    let address = |object: &Object| object.get_str("/spec/clusterIP").unwrap_or_default().to_owned();
    let (before, after) = (address(old), address(new));
    let external = |object: &Object| object.get_str("/spec/type") == Some("ExternalName");
    if !before.is_empty() && before != after && !after.is_empty() && !external(old) && !external(new) {
        let at = FieldPath::of("spec.clusterIPs").index(0);
        errors.push(FieldError::invalid(&at, vec![after], "may not change once set"));
    }
}

fn check_stateful_set(old: &Object, new: &Object, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Object| {
        let mut map = object.spec().and_then(Value::as_object).cloned().unwrap_or_default();
        MUTABLE.iter().for_each(|field| {
            map.remove(*field);
        });
        map
    };
    if fixed(old) != fixed(new) {
        let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&FieldPath::of("spec"), message));
    }
}

fn check_job(old: &Object, new: &Object, errors: &mut Errors) {
    for pointer in ["/spec/selector", "/spec/completionMode", "/spec/podFailurePolicy", "/spec/backoffLimitPerIndex"] {
        same(old, new, pointer, false, errors);
    }
    let suspended = old.get("/spec/suspend") == Some(&Value::Bool(true));
    if !suspended {
        same(old, new, "/spec/template", false, errors);
    }
    if old.get_str("/spec/completionMode") != Some("Indexed") {
        same(old, new, "/spec/completions", false, errors);
    }
}

fn check_claim(old: &Object, new: &Object, errors: &mut Errors) {
    let fixed = |object: &Object| {
        let mut map = object.spec().and_then(Value::as_object).cloned().unwrap_or_default();
        map.remove("resources");
        map.remove("volumeAttributesClassName");
        // Filled in once by whoever binds the claim.
        if old.get_str("/spec/volumeName").is_none_or(str::is_empty) {
            map.remove("volumeName");
        }
        map
    };
    if fixed(old) != fixed(new) {
        let message =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden(&FieldPath::of("spec"), message));
    }
}
