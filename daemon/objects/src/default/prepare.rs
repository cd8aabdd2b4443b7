//! What happens to an object once, when it is made or replaced through the API's main resource: its first status, fields that
//! only the server sets, and fields that an update may leave out because they were filled in before.

use super::service_update::{prepare_service, prepare_service_update};
use super::{child, existing, put};
use crate::{kind::Kind, object::Object, pod::Pod};
use serde_json::{Value, json};

const DAEMON_SET_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Makes a new, defaulted object what the reference stores first. Its uid must be set. An object that has a status keeps it
/// (the daemon's own objects); doing it twice changes nothing more.
pub fn prepare_create(kind: &Kind, object: &mut Object) {
    match (kind.group, kind.kind) {
        ("", "Pod") => prepare_pod(object),
        ("", "Namespace") => {
            put_at(object, "/status/phase", "Active");
            if object.get("/spec/finalizers").is_none() && object.get("/spec").is_some_and(Value::is_object) {
                object.set("/spec/finalizers", json!(["kubernetes"]));
            }
        }
        ("", "Service") => prepare_service(object),
        ("", "PersistentVolumeClaim") => prepare_claim(object),
        ("batch", "Job") => prepare_job(object),
        ("apps", "DaemonSet") if object.annotation(DAEMON_SET_GENERATION).is_none() => {
            object.set_annotation(DAEMON_SET_GENERATION, "1");
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => keep_stored_versions(object),
        _ => {}
    }
}

/// Carries over into a defaulted `new` what an update may leave out. Its metadata that only the server sets is `old`'s already.
pub fn prepare_update(kind: &Kind, old: &Object, new: &mut Object) {
    match (kind.group, kind.kind) {
        ("", "Service") => prepare_service_update(old, new),
        ("", "Namespace") => keep(old, new, "/spec/finalizers"),
        ("", "PersistentVolumeClaim") => prepare_claim(new),
        // What was asked for, and by whom, is what others approve.
        ("certificates.k8s.io", "CertificateSigningRequest") => keep(old, new, "/spec"),
        ("apps", "DaemonSet") => {
            let before = old.annotation(DAEMON_SET_GENERATION).and_then(|text| text.parse::<i64>().ok()).unwrap_or(1);
            let changed = old.get("/spec/template") != new.get("/spec/template");
            new.set_annotation(DAEMON_SET_GENERATION, &(before + i64::from(changed)).to_string());
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => keep_stored_versions(new),
        _ => {}
    }
}

fn put_at(object: &mut Object, pointer: &str, value: impl Into<Value>) {
    if object.get(pointer).is_none() {
        object.set(pointer, value);
    }
}

fn keep(old: &Object, new: &mut Object, pointer: &str) {
    match old.get(pointer).cloned() {
        Some(value) => new.set(pointer, value),
        None => drop(new.remove(pointer)),
    }
}

fn prepare_pod(object: &mut Object) {
    put_at(object, "/status/phase", "Pending");
    if object.get("/status/qosClass").is_none()
        && let Ok(class) = Pod::qos_class_of(object)
        && let Ok(class) = serde_json::to_value(class)
    {
        object.set("/status/qosClass", class);
    }
    let gated = object.get("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    if gated && object.get("/status/conditions").is_none() {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null, "lastTransitionTime": null});
        object.set("/status/conditions", json!([condition]));
    }
}

/// `dataSource` and `dataSourceRef` say the same unless the latter leads to another namespace.
fn prepare_claim(object: &mut Object) {
    let Some(spec) = existing(object.map_mut(), "spec") else { return };
    let (source, reference) = (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned());
    match (source, reference) {
        (Some(source), None) => put(spec, "dataSourceRef", source),
        (None, Some(reference)) if reference.get("namespace").is_none() => put(spec, "dataSource", reference),
        _ => {}
    }
}

/// A job selects its pods by its own uid unless it brings a selector of its own.
fn prepare_job(object: &mut Object) {
    let uid = object.uid().unwrap_or_default().to_owned();
    let name = object.name().to_owned();
    let manual = object.get("/spec/manualSelector") == Some(&Value::Bool(true));
    if uid.is_empty() || manual {
        return;
    }
    let Some(spec) = existing(object.map_mut(), "spec") else { return };
    let labels = existing(spec, "template")
        .and_then(|template| child(template, "metadata"))
        .and_then(|metadata| child(metadata, "labels"));
    let Some(labels) = labels else { return };
    for (key, value) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        put(labels, key, value.clone());
    }
    let labels = labels.clone();
    if let Some(selector) = child(spec, "selector").and_then(|selector| child(selector, "matchLabels")) {
        put(selector, "batch.kubernetes.io/controller-uid", uid);
    }
    existing(object.map_mut(), "metadata").into_iter().for_each(|metadata| put(metadata, "labels", labels.clone()));
}

/// Every version that objects were ever stored in stays known.
fn keep_stored_versions(object: &mut Object) {
    let storing = |version: &&Value| version.get("storage") == Some(&Value::Bool(true));
    let version = object.get("/spec/versions").and_then(Value::as_array).into_iter().flatten().find(storing);
    let Some(name) = version.and_then(|version| version.get("name")).cloned() else { return };
    let Some(status) = child(object.map_mut(), "status") else { return };
    if status.get("storedVersions").is_none_or(Value::is_null) {
        status.insert("storedVersions".to_owned(), json!([]));
    }
    if let Some(versions) = status.get_mut("storedVersions").and_then(Value::as_array_mut)
        && !versions.contains(&name)
    {
        versions.push(name);
    }
}
