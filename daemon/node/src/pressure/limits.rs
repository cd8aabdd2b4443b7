//! Pods that have more on disk than they may, in the kubelet's words. Pure.

use reddwarf_host::usage::{DiskUsage, SandboxDisk};
use reddwarf_objects::Quantity;
use reddwarf_objects::pod::Pod;

/// The resource of `limits`.
const STORAGE: &str = "ephemeral-storage";

/// Does the pod have limits that only looking at its files can tell?
pub fn has_disk_limits(pod: &Pod) -> bool {
    volumes(pod).next().is_some() || pod.spec.containers.iter().any(|c| c.resources.limits.contains_key(STORAGE))
}

/// Volumes of disk with a limit.
fn volumes(pod: &Pod) -> impl Iterator<Item = (&str, &Quantity)> {
    pod.spec.volumes.iter().filter_map(|volume| {
        let dir = volume.empty_dir.as_ref().filter(|dir| dir.medium.is_empty())?;
        // A limit of zero is none.
        Some((volume.name.as_str(), dir.size_limit.as_ref().filter(|limit| !limit.is_zero())?))
    })
}

/// Why the pod must go for what it has on disk; `None`: it may stay.
pub fn exceeded(pod: &Pod, disk: &SandboxDisk) -> Option<String> {
    let over = |used: DiskUsage, limit: &Quantity| used.bytes > u64::try_from(limit.units()).unwrap_or_default();
    for (name, limit) in volumes(pod) {
        let used = disk.volumes.iter().find(|(volume, _)| volume.as_str() == name).map(|(_, used)| *used);
        if over(used.unwrap_or_default(), limit) {
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". "));
        }
    }
    let limited = || pod.spec.containers.iter().filter_map(|c| Some((c, c.resources.limits.get(STORAGE)?)));
    if limited().next().is_some() {
        let total: Quantity = limited().map(|(_, limit)| *limit).sum();
        if over(disk.total(), &total) {
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
        }
    }
    limited().find_map(|(container, limit)| {
        let used = disk.containers.iter().find(|(name, _)| name.as_str() == container.name).map(|(_, used)| *used)?;
        over(used.writable.plus(used.logs), limit)
            .then(|| format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", container.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::usage::ContainerDisk;
    use reddwarf_host::{ContainerName, VolumeName};
    use reddwarf_objects::Object;
    use serde_json::{Value, json};

    fn pod(containers: Value, volumes: Value) -> Pod {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": containers, "volumes": volumes}});
        Pod::from_object(&Object::from_value(value).unwrap()).unwrap()
    }

    fn disk(containers: &[(&str, u64, u64)], volumes: &[(&str, u64)]) -> SandboxDisk {
        let used = |bytes| DiskUsage { bytes, inodes: 1 };
        let container = |(name, writable, logs): &(&str, u64, u64)| {
            (ContainerName::new(*name).unwrap(), ContainerDisk { writable: used(*writable), logs: used(*logs) })
        };
        SandboxDisk {
            containers: containers.iter().map(container).collect(),
            volumes: volumes.iter().map(|(name, bytes)| (VolumeName::new(*name).unwrap(), used(*bytes))).collect(),
            complete: true,
        }
    }

    #[test]
    fn volumes_pods_and_containers_have_limits_in_this_order() {
        let limited = |limit: &str| json!({"limits": {"ephemeral-storage": limit}});
        let with = pod(
            json!([{"name": "a", "image": "i", "resources": limited("1Ki")}, {"name": "b", "image": "i", "resources": limited("1Ki")}]),
            json!([{"name": "v", "emptyDir": {"sizeLimit": "100Ki"}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}},
                {"name": "none", "emptyDir": {"sizeLimit": "0"}}, {"name": "free", "emptyDir": {}}]),
        );
        assert!(has_disk_limits(&with));
        for (containers, volumes, wanted) in [
            (&[("a", 500, 500), ("b", 0, 1024)][..], &[("v", 0)][..], None),
            (&[("a", 1000, 25)], &[], Some("Container a exceeded its local ephemeral storage limit \"1Ki\". ")),
            (
                &[("a", 24, 1000), ("b", 1024, 0)],
                &[("free", 1)],
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Ki. "),
            ),
            (
                &[("a", 9999, 0)],
                &[("v", 102_401), ("m", 5), ("none", 5)],
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"100Ki\". "),
            ),
        ] {
            assert_eq!(exceeded(&with, &disk(containers, volumes)).as_deref(), wanted);
        }
        let without = pod(json!([{"name": "a", "image": "i"}]), json!([{"name": "v", "emptyDir": {}}]));
        assert!(!has_disk_limits(&without));
        assert_eq!(exceeded(&without, &disk(&[("a", u64::MAX, 0)], &[("v", u64::MAX)])), None);
    }
}
