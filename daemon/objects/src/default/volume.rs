//! Defaults of volumes and of the sources of persistent volumes.

use super::{each, existing, pod::pull_policy, put, text};
use serde_json::{Map, Value, json};

/// A volume of a pod.
pub(super) fn fill(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        put(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            put(source, "defaultMode", 420);
            each(source, "items").for_each(fill_downward_item);
            each(source, "sources").for_each(fill_projection);
        }
    }
    if let Some(image) = existing(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        put(image, "pullPolicy", policy);
    }
    if let Some(spec) = existing(volume, "ephemeral")
        .and_then(|e| existing(e, "volumeClaimTemplate"))
        .and_then(|template| existing(template, "spec"))
    {
        fill_claim_spec(spec);
    }
    fill_persistent_source(volume);
}

/// The spec of a claim, wherever it is.
pub(super) fn fill_claim_spec(spec: &mut Map<String, Value>) {
    put(spec, "volumeMode", "Filesystem");
}

/// The sources that pods and persistent volumes have in common.
pub(super) fn fill_persistent_source(source: &mut Map<String, Value>) {
    for (name, field, value) in [
        ("hostPath", "type", ""),
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "kind", "Shared"),
        ("azureDisk", "fsType", "ext4"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ] {
        existing(source, name).into_iter().for_each(|source| put(source, field, value));
    }
    existing(source, "azureDisk").into_iter().for_each(|disk| put(disk, "readOnly", false));
}

fn fill_projection(part: &mut Map<String, Value>) {
    existing(part, "serviceAccountToken").into_iter().for_each(|token| put(token, "expirationSeconds", 3600));
    if let Some(downward) = existing(part, "downwardAPI") {
        each(downward, "items").for_each(fill_downward_item);
    }
}

fn fill_downward_item(item: &mut Map<String, Value>) {
    if let Some(field) = existing(item, "fieldRef") {
        put(field, "apiVersion", "v1");
    }
}
