//! Versions of a Deployment: their numbers, in annotations that `kubectl rollout history` and `undo` read.

use super::{Deployment, Set};
use crate::workload::template::{HASH_LABEL, equal, hash};
use reddwarf_objects::{Object, SOURCE_ANNOTATION};
use serde_json::{Map, Value, json};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that its ReplicaSets do not get.
const OWN: [&str; 7] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
    SOURCE_ANNOTATION,
];

/// Characters of the list of earlier numbers, as in the reference.
const HISTORY_LENGTH: usize = 2000;

/// Takes the ReplicaSet of the present template out of `sets` (oldest first).
pub(super) fn take_new(deployment: &Deployment, sets: &mut Vec<Set>) -> Option<Set> {
    sets.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
    let at = sets.iter().position(|set| equal(set.template(), deployment.template()))?;
    Some(sets.remove(at))
}

/// The number of the present version: one above all others.
pub(super) fn next_revision(old: &[Set]) -> i64 {
    old.iter().filter_map(|set| set.annotated(REVISION)).max().unwrap_or(0) + 1
}

/// Annotations that the new ReplicaSet lacks, as a patch of its metadata; `None`: none.
pub(super) fn missing_annotations(deployment: &Deployment, set: &Set, revision: i64) -> Option<Value> {
    let mut wanted = copied(&deployment.object);
    let present = set.annotated(REVISION);
    if present.is_none_or(|p| p < revision) {
        wanted.insert(REVISION.to_owned(), json!(revision.to_string()));
        if let Some(present) = present {
            let mut history: Vec<String> =
                set.object.annotation(HISTORY).map(|h| vec![h.to_owned()]).unwrap_or_default();
            history.push(present.to_string());
            let mut text = history.join(",");
            while text.len() > HISTORY_LENGTH {
                text = text.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            }
            wanted.insert(HISTORY.to_owned(), json!(text));
        }
    }
    wanted.retain(|key, value| set.object.annotation(key) != value.as_str());
    (!wanted.is_empty()).then(|| json!({"metadata": {"annotations": wanted}}))
}

fn copied(deployment: &Object) -> Map<String, Value> {
    let all = deployment.annotations().filter(|(key, _)| !OWN.contains(key));
    all.map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

/// The ReplicaSet for the present template, of this size.
pub(super) fn new_set(deployment: &Deployment, revision: i64, replicas: i64) -> Option<Object> {
    let collisions = deployment.object.get("/status/collisionCount").and_then(Value::as_i64).unwrap_or(0);
    let hash = hash(deployment.template(), collisions);
    let mut template = deployment.template().clone();
    label(&mut template, "/metadata", &hash);
    let mut selector = deployment.object.get("/spec/selector").cloned().unwrap_or_else(|| json!({}));
    if let Some(selector) = selector.as_object_mut() {
        let labels = selector.entry("matchLabels").or_insert_with(|| json!({}));
        labels[HASH_LABEL] = json!(hash);
    }
    let mut annotations = copied(&deployment.object);
    annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    annotations.insert(DESIRED.to_owned(), json!(deployment.replicas.to_string()));
    annotations.insert(MAX.to_owned(), json!((deployment.replicas + deployment.max_surge).to_string()));
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if let Some(seconds) = deployment.object.get("/spec/minReadySeconds").filter(|s| s.as_i64() != Some(0)) {
        spec["minReadySeconds"] = seconds.clone();
    }
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or_default();
    Object::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", deployment.name()),
            "namespace": &*deployment.claimant.id.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [deployment.claimant.reference()],
        },
        "spec": spec,
    }))
    .ok()
}

fn label(template: &mut Value, at: &str, hash: &str) {
    if template.pointer(at).is_none_or(|m| !m.is_object()) {
        template["metadata"] = json!({});
    }
    if let Some(metadata) = template.pointer_mut(at).and_then(Value::as_object_mut) {
        metadata.entry("labels").or_insert_with(|| json!({}))[HASH_LABEL] = json!(hash);
    }
}
