//! What is accepted, yet most likely not meant: the reference's warnings about new and changed objects.
//!
//! Texts as in Kubernetes `pkg/api/*/warnings.go` and the strategies of its registry. Of a changed object the reference says less: nothing
//! of a pod, and of what makes pods only what a changed spec brings.

mod network;
mod paths;
mod pod;
#[cfg(test)]
mod tests;

use crate::admission::BETA_CLASS;
use crate::{kind::Kind, names, object::Object, pod::template_pointer, quantity::Quantity};
use serde_json::Value;
use std::fmt::Arguments;

/// Warnings about a new object as it is to be stored.
pub fn warnings(kind: &Kind, object: &Object) -> Vec<String> {
    let mut said = Vec::new();
    of_name(kind, object, &mut said);
    of_template(kind, object, &mut said);
    of_kind(kind, object, &mut said);
    match (kind.group, kind.kind) {
        ("apps", "StatefulSet") => of_stateful_set(object, "", &mut said),
        ("networking.k8s.io", "Ingress") => network::of_ingress(object, &mut said),
        ("", "ServiceAccount") => of_account(object, &mut said),
        _ => {}
    }
    said
}

/// Warnings about an object that is written over `old`: its own fields, not its status.
pub fn warnings_of_update(kind: &Kind, old: &Object, new: &Object) -> Vec<String> {
    let mut said = Vec::new();
    if !kind.is_core("Pod") && old.generation() != new.generation() {
        of_template(kind, new, &mut said);
    }
    of_kind(kind, new, &mut said);
    match (kind.group, kind.kind) {
        ("", "ServiceAccount") if old.annotation(MOUNTABLE_ONLY).is_none() => of_account(new, &mut said),
        // The path is the reference's.
        ("apps", "StatefulSet") => of_stateful_set(new, ".Spec", &mut said),
        ("batch", "CronJob") if new.get_str("/spec/schedule").is_some_and(|schedule| schedule.contains("TZ")) => {
            said.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        _ => {}
    }
    said
}

/// Pods' hostnames are made of these names.
fn of_name(kind: &Kind, object: &Object, said: &mut Vec<String>) {
    let used = match (kind.group, kind.kind) {
        ("", "Pod") => "the Pod's hostname",
        ("", "ReplicationController") | ("apps", "Deployment" | "ReplicaSet") | ("batch", "Job" | "CronJob") => {
            "Pod names and hostnames"
        }
        _ => return,
    };
    let problems = names::dns1123_label(object.name());
    if !problems.is_empty() {
        said.push(format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        ));
    }
}

/// About the pods that an object is or makes.
fn of_template(kind: &Kind, object: &Object, said: &mut Vec<String>) {
    let Some(pointer) = template_pointer(kind) else { return };
    match (kind.group, kind.kind) {
        ("batch", "Job") => of_job(object, "/spec", said),
        ("batch", "CronJob") => of_job(object, "/spec/jobTemplate/spec", said),
        _ => {}
    }
    let part = |field| object.get(&format!("{pointer}/{field}"));
    let at = pointer.trim_start_matches('/').replace('/', ".");
    let at = if at.is_empty() { at } else { at + "." };
    pod::of_pod(part("metadata"), part("spec"), &at, said);
}

/// What is said of new and changed objects alike.
fn of_kind(kind: &Kind, object: &Object, said: &mut Vec<String>) {
    match (kind.group, kind.kind) {
        ("", "Service") => network::of_service(object, said),
        ("", "PersistentVolume") => of_volume(object, said),
        ("", "PersistentVolumeClaim") => {
            of_class_annotation(object, said);
            of_claim(object.get("/spec"), format_args!("spec"), said);
        }
        ("node.k8s.io", "RuntimeClass") => {
            let labels = pod::map(object.get("/scheduling"), "nodeSelector");
            let old = labels.filter_map(|(key, _)| pod::deprecated_node_label(key));
            said.extend(old.map(|message| format!("scheduling.nodeSelector: {message}")));
        }
        ("storage.k8s.io", "StorageClass") => of_topologies(object, said),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            let Some(topology) = object.get("/nodeTopology") else { return };
            pod::of_node_term(topology, "nodeTopology", said);
            let old = pod::map(Some(topology), "matchLabels")
                .filter_map(|(key, _)| Some((key, pod::deprecated_node_label(key)?)));
            said.extend(old.map(|(key, message)| format!("nodeTopology.matchLabels.{key}: {message}")));
        }
        _ => {}
    }
}

/// Where a class has volumes, by labels that have other names now.
fn of_topologies(class: &Object, said: &mut Vec<String>) {
    let terms = class.get("/allowedTopologies").and_then(Value::as_array).into_iter().flatten();
    for (index, term) in terms.enumerate() {
        for (place, expression) in pod::list(term, "matchLabelExpressions") {
            if let Some(message) = pod::deprecated_node_label(pod::text(expression, "key")) {
                said.push(format!("allowedTopologies[{index}].matchLabelExpressions[{place}].key: {message}"));
            }
        }
    }
}

const MOUNTABLE_ONLY: &str = "kubernetes.io/enforce-mountable-secrets";

fn of_account(account: &Object, said: &mut Vec<String>) {
    if account.annotation(MOUNTABLE_ONLY).is_some() {
        said.push(format!(
            "metadata.annotations[{MOUNTABLE_ONLY}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ));
    }
}

fn of_job(object: &Object, pointer: &str, said: &mut Vec<String>) {
    let number = |field: &str| object.get(&format!("{pointer}/{field}")).and_then(Value::as_i64).unwrap_or_default();
    let indexed = object.get_str(&format!("{pointer}/completionMode")) == Some("Indexed");
    if indexed && number("completions") > 100_000 && number("parallelism") > 10_000 {
        said.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might \
             not be able to track completedIndexes when a big number of indexes fail",
            pointer.trim_start_matches('/').replace('/', ".")
        ));
    }
}

fn of_stateful_set(object: &Object, claim: &str, said: &mut Vec<String>) {
    let claims = object.get("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten();
    for (index, template) in claims.enumerate() {
        of_claim(template.get("spec"), format_args!("spec.volumeClaimTemplates[{index}]{claim}"), said);
    }
    if object.get("/spec/revisionHistoryLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
        said.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
}

fn of_class_annotation(object: &Object, said: &mut Vec<String>) {
    if object.annotation(BETA_CLASS).is_some() {
        said.push(format!(
            r#"metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead"#
        ));
    }
}

/// The spec of a claim, or of what claims are made of.
fn of_claim(spec: Option<&Value>, at: Arguments<'_>, said: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        let amount = spec.and_then(|spec| spec.get("resources")?.get(list)?.get("storage"));
        fraction(amount, format_args!("{at}.resources.{list}[storage]"), said);
    }
}

const VOLUME_SOURCES: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn of_volume(volume: &Object, said: &mut Vec<String>) {
    of_class_annotation(volume, said);
    if volume.get_str("/spec/persistentVolumeReclaimPolicy") == Some("Recycle") {
        said.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use \
             dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = volume.get("/spec/nodeAffinity/required/nodeSelectorTerms").and_then(Value::as_array);
    for (index, term) in terms.into_iter().flatten().enumerate() {
        pod::of_node_term(term, &format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}]"), said);
    }
    for (source, shown, message) in VOLUME_SOURCES {
        if volume.get(&format!("/spec/{source}")).is_some() {
            said.push(format!("spec.{shown}: {message}"));
        }
    }
}

/// Bytes come whole. Most do: a path is made of `at` where one does not.
fn fraction(amount: Option<&Value>, at: Arguments<'_>, said: &mut Vec<String>) {
    let quantity = amount.and_then(|amount| Quantity::from_value(amount).ok());
    if let Some(quantity) = quantity.filter(|quantity| !quantity.is_whole()) {
        said.push(format!("{at}: fractional byte value \"{quantity}\" is invalid, must be an integer"));
    }
}
