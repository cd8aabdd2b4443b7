//! What may change in a pod.

use super::check_metadata_and_spec;
use crate::{
    object::Object,
    quantity::Quantity,
    validate::{
        at::{At, Errors},
        difference::difference,
        meta,
    },
};
use serde_json::{Map, Value};

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub(in crate::validate) fn check(old: &Object, new: &Object, pod: &At<'_, '_>, errors: &mut Errors) {
    meta::check_update(old, new, &pod.child("metadata"), errors);
    check_metadata_and_spec(pod, errors);
    check_annotations(old, &pod.child("metadata").child("annotations"), errors);
    let nothing = Value::Null;
    let before = old.spec().unwrap_or(&nothing);
    let spec = pod.child("spec");
    let old_spec = At::top("spec", before);
    for field in ["containers", "initContainers"] {
        if !check_images(&old_spec.child(field), &spec.child(field), errors) {
            return;
        }
    }
    if !check_deadline(&old_spec, &spec, errors) {
        return;
    }
    check_tolerations(&old_spec.child("tolerations"), &spec.child("tolerations"), errors);
    check_gates(&old_spec.child("schedulingGates"), &spec.child("schedulingGates"), errors);
    if before == spec.value {
        return;
    }
    let mut munged = spec.value.clone();
    if let Some(map) = munged.as_object_mut() {
        restore_mutable(before, map);
        if old_spec.filled("schedulingGates") {
            restore_while_gated(&old_spec, &spec, map, errors);
        }
    }
    if munged != *before {
        spec.forbidden(errors, format!("{MUTABLE}\n{}", difference("core.PodSpec", before, &munged)));
    }
}

fn check_images(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) -> bool {
    if old.list().len() != new.list().len() {
        new.forbidden(errors, "pod updates may not add or remove containers");
        return false;
    }
    for container in new.items() {
        let image = container.text("image");
        if image.trim() != image {
            container.child("image").invalid(errors, "must not have leading or trailing whitespace");
        }
    }
    true
}

fn check_deadline(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) -> bool {
    const FIELD: &str = "activeDeadlineSeconds";
    let at = new.child(FIELD);
    match (old.number(FIELD), new.number(FIELD)) {
        (_, Some(after)) if !(0..=2_147_483_647).contains(&after) => {
            at.number_in(errors, after, 0..=2_147_483_647);
            return false;
        }
        (Some(before), Some(after)) if before < after => {
            at.invalid(errors, "must be less than or equal to previous value");
            return false;
        }
        (Some(_), None) => at.invalid_value(errors, "null", "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn check_tolerations(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) {
    let same = |one: &Value, other: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|field| one.get(*field) == other.get(*field))
    };
    if old.list().iter().any(|before| !new.list().iter().any(|after| same(before, after))) {
        new.forbidden(errors, "existing toleration can not be modified except its tolerationSeconds");
        return;
    }
    super::scheduling::check_tolerations(new, errors);
}

fn check_gates(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) {
    for gate in new.items() {
        let name = gate.text("name");
        if !old.items().any(|before| before.text("name") == name) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            gate.child("name").forbidden(errors, message);
        }
    }
}

/// Annotations that say how the pod was made.
fn check_annotations(old: &Object, new: &At<'_, '_>, errors: &mut Errors) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    for (key, value) in old.annotations() {
        if new.value.get(key).and_then(Value::as_str) == Some(value) {
            continue;
        }
        let what = match key {
            MIRROR => "mirror pod annotation",
            _ if key.starts_with(APP_ARMOR) => "AppArmor annotations",
            _ => continue,
        };
        let path = new.path().map_key(key);
        errors.push(crate::field::FieldError::forbidden(&path, format!("may not remove or update {what}")));
    }
    for (key, value) in new.entries().filter(|(key, _)| old.annotation(key).is_none()) {
        match key {
            MIRROR => value.forbidden(errors, "may not add mirror pod annotation"),
            _ if key.starts_with(APP_ARMOR) => value.forbidden(errors, "may not add AppArmor annotations"),
            _ => {}
        }
    }
}

/// Puts back what may change, so that what is left must be equal.
fn restore_mutable(old: &Value, new: &mut Map<String, Value>) {
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(old, new, field);
    }
    for field in ["containers", "initContainers"] {
        let before = old.get(field).and_then(Value::as_array).into_iter().flatten();
        let after = new.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for (before, after) in before.zip(after) {
            if let Some(after) = after.as_object_mut() {
                restore(before, after, "image");
            }
        }
    }
    let grace = |value: Option<&Value>| value.and_then(Value::as_i64);
    const GRACE: &str = "terminationGracePeriodSeconds";
    if grace(old.get(GRACE)).is_some_and(|seconds| seconds < 0) && grace(new.get(GRACE)) == Some(1) {
        restore(old, new, GRACE);
    }
    // Filled in once by whoever places the pod.
    if old.get("nodeName").and_then(Value::as_str).is_none_or(str::is_empty) {
        restore(old, new, "nodeName");
    }
}

fn restore(old: &Value, new: &mut Map<String, Value>, field: &str) {
    match old.get(field) {
        Some(value) => drop(new.insert(field.to_owned(), value.clone())),
        None => drop(new.remove(field)),
    }
}

/// A pod that waits may be told more about where to run.
fn restore_while_gated(old: &At<'_, '_>, new: &At<'_, '_>, munged: &mut Map<String, Value>, errors: &mut Errors) {
    let selector = new.child("nodeSelector");
    let kept = old.child("nodeSelector").entries().all(|(key, value)| selector.value.get(key) == Some(value.value));
    if !kept {
        selector.invalid(errors, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    restore(old.value, munged, "nodeSelector");
    let (before, after) = (old.child("affinity"), new.child("affinity"));
    check_affinity(&before.child("nodeAffinity"), &after.child("nodeAffinity"), errors);
    match (munged.get_mut("affinity").and_then(Value::as_object_mut), before.value.is_null()) {
        (None, _) => restore(old.value, munged, "affinity"),
        (Some(map), true) if map.keys().all(|key| key == "nodeAffinity") => restore(old.value, munged, "affinity"),
        (Some(map), _) => restore(before.value, map, "nodeAffinity"),
    }
}

fn check_affinity(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let (old, new) = (old.child(REQUIRED), new.child(REQUIRED));
    let (before, after) = (old.child("nodeSelectorTerms"), new.child("nodeSelectorTerms"));
    if before.list().is_empty() {
        return;
    }
    if before.list().len() != after.list().len() {
        after.invalid(errors, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (before, after) in before.items().zip(after.items()) {
        let added_only = |field: &str| {
            let list = |at: &At<'_, '_>| at.value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
            list(&after).starts_with(&list(&before))
        };
        if !added_only("matchExpressions") || !added_only("matchFields") {
            after.invalid(errors, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// An update of the ephemeral containers: they can only be added.
pub(in crate::validate) fn check_ephemeral(old: &Object, new: &Object, pod: &At<'_, '_>, errors: &mut Errors) {
    meta::check_update(old, new, &pod.child("metadata"), errors);
    check_metadata_and_spec(pod, errors);
    let spec = pod.child("spec");
    let at = spec.child("ephemeralContainers");
    for before in old.get("/spec/ephemeralContainers").and_then(Value::as_array).into_iter().flatten() {
        let name = before.get("name").and_then(Value::as_str).unwrap_or_default();
        match at.items().find(|after| after.text("name") == name) {
            None => at.forbidden(errors, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(after) if after.value != before => {
                let changes = difference("core.EphemeralContainer", before, after.value);
                let message = format!("existing ephemeral containers {name:?} may not be changed\n{changes}");
                at.forbidden(errors, message);
            }
            Some(_) => {}
        }
    }
}

/// An update of the containers' resources only.
pub(in crate::validate) fn check_resize(old: &Object, new: &Object, pod: &At<'_, '_>, errors: &mut Errors) {
    meta::check_update(old, new, &pod.child("metadata"), errors);
    check_metadata_and_spec(pod, errors);
    let nothing = Value::Null;
    let before = At::top("spec", old.spec().unwrap_or(&nothing));
    let spec = pod.child("spec");
    let class = |object: &Object| crate::pod::Pod::qos_class_of(object).ok();
    if class(old) != class(new) {
        let shown = new.get("/status/qosClass").cloned().unwrap_or_default();
        spec.invalid_value(errors, shown, "Pod QOS Class may not change as a result of resizing");
    }
    let mut munged = spec.value.clone();
    for field in ["containers", "initContainers"] {
        let (old_list, new_list) = (before.child(field), spec.child(field));
        for (old_container, new_container) in old_list.items().zip(new_list.items()) {
            if field == "containers" || old_container.text("restartPolicy") == "Always" {
                check_container_resize(&old_container, &new_container, errors);
            }
        }
        for (index, container) in munged.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            if let (Some(old), Some(map)) = (old_list.list().get(index), container.as_object_mut()) {
                restore(old, map, "resources");
            }
        }
    }
    if munged != *before.value {
        spec.forbidden(errors, "only cpu and memory resources are mutable");
    }
}

fn check_container_resize(old: &At<'_, '_>, new: &At<'_, '_>, errors: &mut Errors) {
    let (old, new) = (old.child("resources"), new.child("resources"));
    for (field, message) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let (before, after) = (old.child(field), new.child(field));
        if before.entries().any(|(name, _)| !after.has(name)) {
            after.forbidden(errors, message);
        }
        let amount = |at: &At<'_, '_>, name: &str| at.value.get(name).and_then(|v| Quantity::from_value(v).ok());
        let other = |(name, value): &(&str, At<'_, '_>)| {
            !matches!(*name, "cpu" | "memory") && amount(&before, name) != Quantity::from_value(value.value).ok()
        };
        if after.entries().any(|entry| other(&entry)) {
            At::top("spec", new.value).forbidden(errors, "only cpu and memory resources are mutable");
        }
    }
}
