//! Who goes first when the host runs short: the reference's order. Pure.

use super::conditions::is_critical;
use super::threshold::{Resource, Shortage, amount};
use crate::key::PodKey;
use reddwarf_host::PodUid;
use reddwarf_host::usage::DiskUsage;
use reddwarf_objects::pod::{Container, Pod};
use std::cmp::{Ordering, Reverse};

/// One pod that runs, with what it uses.
#[derive(Clone, Debug)]
pub struct PodUse<'a> {
    /// Which.
    pub key: &'a PodKey,
    /// Not its namesake.
    pub uid: &'a PodUid,
    /// What it asks for.
    pub pod: &'a Pod,
    /// Its working set in bytes.
    pub memory_bytes: u64,
    /// Its processes and threads.
    pub processes: u64,
    /// All that it has on disk.
    pub disk: DiskUsage,
    /// By container: its working set, and what it has on disk.
    pub containers: Vec<(String, u64, DiskUsage)>,
}

impl PodUse<'_> {
    fn used(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Memory => self.memory_bytes,
            Resource::Storage => self.disk.bytes,
            Resource::Inodes => self.disk.inodes,
            Resource::Pids => self.processes,
        }
    }

    fn requested(&self, resource: Resource) -> u64 {
        self.pod.spec.containers.iter().map(|c| request(c, resource)).fold(0, u64::saturating_add)
    }

    fn excess(&self, resource: Resource) -> u64 {
        self.used(resource).saturating_sub(self.requested(resource))
    }
}

/// What a container asks for of something that can be asked for.
fn request(container: &Container, resource: Resource) -> u64 {
    let name = match resource {
        Resource::Memory | Resource::Storage => resource.name(),
        Resource::Inodes | Resource::Pids => return 0,
    };
    let asked = container.resources.requests.get(name).map_or(0, reddwarf_objects::Quantity::units);
    u64::try_from(asked).unwrap_or_default()
}

/// First who uses more than was asked for, then the less important, then who exceeds by most. Processes can't be asked
/// for: there only importance and number count. Equals go by name, so that the order is always the same.
pub fn order(resource: Resource, a: &PodUse<'_>, b: &PodUse<'_>) -> Ordering {
    let exceeds = |p: &PodUse<'_>| resource != Resource::Pids && p.excess(resource) > 0;
    let priority = |p: &PodUse<'_>| p.pod.spec.priority.unwrap_or_default();
    Reverse(exceeds(a))
        .cmp(&Reverse(exceeds(b)))
        .then_with(|| priority(a).cmp(&priority(b)))
        .then_with(|| b.excess(resource).cmp(&a.excess(resource)))
        .then_with(|| a.key.cmp(b.key))
}

/// The pod that must go, and why, in the kubelet's words. `None`: none can.
pub fn choose<'a, 'p>(shortage: Shortage, pods: &'a [PodUse<'p>]) -> Option<(&'a PodUse<'p>, String)> {
    let candidates = pods.iter().filter(|p| !is_critical(p.pod));
    let first = candidates.min_by(|a, b| order(shortage.resource, a, b))?;
    Some((first, message(shortage, first)))
}

fn message(shortage: Shortage, pod: &PodUse<'_>) -> String {
    let resource = shortage.resource;
    let (threshold, available) = shortage.amounts();
    let mut text = format!(
        "The node was low on resource: {}. Threshold quantity: {threshold}, available: {available}. ",
        resource.name()
    );
    for (name, memory, disk) in &pod.containers {
        let used = match resource {
            Resource::Memory => *memory,
            Resource::Storage => disk.bytes,
            Resource::Inodes | Resource::Pids => continue,
        };
        let asked = pod.pod.spec.containers.iter().find(|c| c.name == *name).map_or(0, |c| request(c, resource));
        if used > asked {
            let (used, asked) = (amount(resource, used), amount(resource, asked));
            text.push_str(&format!(
                "Container {name} was using {used}, request is {asked}, has larger consumption of {}. ",
                resource.name()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reddwarf_objects::Object;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, requests: Value) -> (PodKey, PodUid, Pod) {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "app", "image": "i", "resources": {"requests": requests}}]}});
        let pod = Pod::from_object(&Object::from_value(value).unwrap()).unwrap();
        (PodKey::new("n", name), PodUid::new(name).unwrap(), pod)
    }

    fn uses<'a>((key, uid, pod): &'a (PodKey, PodUid, Pod), used: u64) -> PodUse<'a> {
        let disk = DiskUsage { bytes: used, inodes: used };
        let containers = vec![("app".to_owned(), used, disk)];
        PodUse { key, uid, pod, memory_bytes: used, processes: used, disk, containers }
    }

    fn names(resource: Resource, pods: &[PodUse<'_>]) -> Vec<String> {
        let mut pods: Vec<_> = pods.iter().collect();
        pods.sort_by(|a, b| order(resource, a, b));
        pods.iter().map(|p| p.key.name.clone()).collect()
    }

    #[test]
    fn who_exceeds_its_request_goes_first_then_the_less_important_then_the_greedier() {
        let modest = pod("modest", 0, json!({"memory": "500"}));
        let greedy = pod("greedy", 0, json!({"memory": "100"}));
        let effort = pod("effort", 0, json!({}));
        let lesser = pod("lesser", -5, json!({}));
        let weighty = pod("weighty", 100, json!({}));
        let pods = [uses(&modest, 400), uses(&greedy, 300), uses(&effort, 250), uses(&lesser, 10), uses(&weighty, 900)];
        assert_eq!(names(Resource::Memory, &pods), ["lesser", "effort", "greedy", "weighty", "modest"]);
        assert_eq!(names(Resource::Pids, &pods), ["lesser", "modest", "greedy", "effort", "weighty"]);
        assert_eq!(names(Resource::Inodes, &pods), ["lesser", "modest", "greedy", "effort", "weighty"]);
    }

    #[test]
    fn the_message_is_the_kubelets_and_critical_pods_stay() {
        let (mib, web) = (1 << 20, pod("web", 0, json!({"memory": "10Mi"})));
        let critical = pod("critical", 2_000_000_000, json!({}));
        let shortage = Shortage { resource: Resource::Memory, threshold: 100 * mib, available: 87 * mib };
        let all = [uses(&critical, 900 * mib), uses(&web, 50 * mib)];
        let (first, message) = choose(shortage, &all).unwrap();
        assert_eq!(first.key.name, "web");
        assert_eq!(
            message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 87Mi. \
             Container app was using 50Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert!(choose(shortage, &all[..1]).is_none());
        let shortage = Shortage { resource: Resource::Pids, threshold: 50, available: 3 };
        let (_, message) = choose(shortage, &all).unwrap();
        assert_eq!(message, "The node was low on resource: pids. Threshold quantity: 50, available: 3. ");
        let frugal = [uses(&web, 5 * mib)];
        let shortage = Shortage { resource: Resource::Storage, threshold: 10 << 30, available: 1 << 30 };
        let (_, message) = choose(shortage, &frugal).unwrap();
        assert_eq!(
            message,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 1Gi. \
             Container app was using 5Mi, request is 0, has larger consumption of ephemeral-storage. "
        );
    }

    proptest! {
        /// A total order: sorting never depends on how pods were listed.
        #[test]
        fn the_order_is_total(what in prop::collection::vec((0u64..4, -1i32..2, 0u64..4), 1..8), resource in 0usize..4) {
            let resource = [Resource::Memory, Resource::Storage, Resource::Inodes, Resource::Pids][resource];
            let pods: Vec<_> = what
                .iter()
                .enumerate()
                .map(|(n, (request, priority, _))| {
                    let text = request.to_string();
                    pod(&format!("p{n}"), *priority, json!({"memory": text, "ephemeral-storage": text}))
                })
                .collect();
            let mut one: Vec<_> = pods.iter().zip(&what).map(|(p, (_, _, used))| uses(p, *used)).collect();
            let forward = names(resource, &one);
            one.reverse();
            prop_assert_eq!(forward, names(resource, &one));
        }
    }
}
