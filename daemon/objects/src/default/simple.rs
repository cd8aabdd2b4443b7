//! Defaults that need no thought: a table of fields and values.

use crate::{kind::Kind, object::Object};
use serde_json::Value;

/// Group, kind, JSON pointer, JSON value: put where nothing is, making the maps on the way.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("apps", "Deployment", "/spec/replicas", "1"),
    ("apps", "Deployment", "/spec/revisionHistoryLimit", "10"),
    ("apps", "Deployment", "/spec/progressDeadlineSeconds", "600"),
    ("apps", "ReplicaSet", "/spec/replicas", "1"),
    ("apps", "StatefulSet", "/spec/replicas", "1"),
    ("apps", "StatefulSet", "/spec/revisionHistoryLimit", "10"),
    ("apps", "StatefulSet", "/spec/podManagementPolicy", "\"OrderedReady\""),
    ("apps", "StatefulSet", "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "\"Retain\""),
    ("apps", "StatefulSet", "/spec/persistentVolumeClaimRetentionPolicy/whenScaled", "\"Retain\""),
    ("apps", "DaemonSet", "/spec/revisionHistoryLimit", "10"),
    ("", "ReplicationController", "/spec/replicas", "1"),
    ("batch", "CronJob", "/spec/concurrencyPolicy", "\"Allow\""),
    ("batch", "CronJob", "/spec/suspend", "false"),
    ("batch", "CronJob", "/spec/successfulJobsHistoryLimit", "3"),
    ("batch", "CronJob", "/spec/failedJobsHistoryLimit", "1"),
    ("", "PersistentVolumeClaim", "/spec/volumeMode", "\"Filesystem\""),
    ("", "PersistentVolumeClaim", "/status/phase", "\"Pending\""),
    ("", "PersistentVolume", "/spec/volumeMode", "\"Filesystem\""),
    ("", "PersistentVolume", "/spec/persistentVolumeReclaimPolicy", "\"Retain\""),
    ("", "PersistentVolume", "/status/phase", "\"Pending\""),
    ("", "Secret", "/type", "\"Opaque\""),
    ("storage.k8s.io", "StorageClass", "/reclaimPolicy", "\"Delete\""),
    ("storage.k8s.io", "StorageClass", "/volumeBindingMode", "\"Immediate\""),
    ("storage.k8s.io", "CSIDriver", "/spec/attachRequired", "true"),
    ("storage.k8s.io", "CSIDriver", "/spec/podInfoOnMount", "false"),
    ("storage.k8s.io", "CSIDriver", "/spec/storageCapacity", "false"),
    ("storage.k8s.io", "CSIDriver", "/spec/requiresRepublish", "false"),
    ("storage.k8s.io", "CSIDriver", "/spec/seLinuxMount", "false"),
    ("storage.k8s.io", "CSIDriver", "/spec/fsGroupPolicy", "\"ReadWriteOnceWithFSType\""),
    ("storage.k8s.io", "CSIDriver", "/spec/volumeLifecycleModes", "[\"Persistent\"]"),
    ("scheduling.k8s.io", "PriorityClass", "/preemptionPolicy", "\"PreemptLowerPriority\""),
    ("autoscaling", "HorizontalPodAutoscaler", "/spec/minReplicas", "1"),
];

pub(super) fn fill(kind: &Kind, object: &mut Object) {
    for (_, _, pointer, json) in TABLE.iter().filter(|(group, name, ..)| *group == kind.group && *name == kind.kind) {
        let blocked = parent_is_no_map(object, pointer);
        if object.get(pointer).is_none()
            && !blocked
            && let Ok(value) = serde_json::from_str::<Value>(json)
        {
            object.set(pointer, value);
        }
    }
}

/// Does something that is no map stand where a parent should be? It is reported by the structural check, not replaced.
fn parent_is_no_map(object: &Object, pointer: &str) -> bool {
    let mut end = 0;
    while let Some(next) = pointer[end + 1..].find('/') {
        end += next + 1;
        if object.get(&pointer[..end]).is_some_and(|value| !value.is_object()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_is_json_of_a_known_kind() {
        for (group, name, pointer, json) in super::TABLE {
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{pointer}");
            assert!(crate::kinds().iter().any(|k| k.group == *group && k.kind == *name), "{group} {name}");
        }
    }
}
