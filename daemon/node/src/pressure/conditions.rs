//! The node's conditions over time: a shortage shows at once, its end only after a while, so that a host at the edge does not
//! take pods in and throw them out by turns. Pure.

use super::threshold::{NodeCondition, Shortage};
use reddwarf_host::BootTime;
use reddwarf_objects::pod::{Pod, QosClass};
use std::collections::BTreeMap;
use std::time::Duration;

/// The conditions that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(BTreeMap<NodeCondition, Met>);

/// How a condition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Met {
    /// When it was last met.
    at: BootTime,
    /// By what.
    shortage: Shortage,
    /// That is over: it holds for its transition only.
    over: bool,
}

impl Conditions {
    /// Takes up what there is too little of at `now`, and forgets what has been well for `transition`.
    pub fn update(&mut self, shortages: &[Shortage], transition: Duration, now: BootTime) {
        self.0.values_mut().for_each(|met| met.over = true);
        for shortage in shortages {
            self.0.insert(shortage.resource.condition(), Met { at: now, shortage: *shortage, over: false });
        }
        // Strictly: without a transition a condition ends with its shortage.
        self.0.retain(|_, met| !met.over || now.since(met.at) < transition);
    }

    /// Does it hold?
    pub fn holds(&self, condition: NodeCondition) -> bool {
        self.0.contains_key(&condition)
    }

    /// Those that hold.
    pub fn all(&self) -> impl Iterator<Item = NodeCondition> + '_ {
        self.0.keys().copied()
    }

    /// The conditions that hold in sentences for the operator: what there is too little of, or was, and what follows.
    pub fn notices(&self) -> impl Iterator<Item = (NodeCondition, String)> + '_ {
        self.0.iter().map(|(condition, Met { shortage, over, .. })| {
            let (threshold, available) = shortage.amounts();
            let (resource, signal) = (shortage.resource.name(), shortage.resource.signal());
            let message = if *over {
                format!(
                    "the shortage of {resource} is over (`eviction_hard`, {signal}): new pods wait until it has been over for \
                     `eviction_transition_seconds`"
                )
            } else {
                format!(
                    "only {available} of {resource} were left, less than {threshold} (`eviction_hard`, {signal}): pods may \
                     be evicted, and new ones wait"
                )
            };
            (*condition, message)
        })
    }

    /// Why a pod that has not begun must not begin now, in the kubelet's words; `None`: it may.
    ///
    /// Under memory pressure alone only pods that ask for nothing are refused, unless they tolerate its taint.
    pub fn refuse(&self, pod: &Pod) -> Option<String> {
        if self.0.is_empty() || is_critical(pod) {
            return None;
        }
        let memory_only = self.0.keys().all(|c| *c == NodeCondition::Memory);
        if memory_only && (pod.qos_class() != QosClass::BestEffort || tolerates(pod, NodeCondition::Memory)) {
            return None;
        }
        let names: Vec<&str> = self.all().map(NodeCondition::name).collect();
        Some(format!("The node had condition: [{}]. ", names.join(" ")))
    }
}

/// The priority from which on a pod is one of the system's.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Must the pod stay, come what may?
pub(super) fn is_critical(pod: &Pod) -> bool {
    pod.spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL)
}

fn tolerates(pod: &Pod, condition: NodeCondition) -> bool {
    pod.spec.tolerations.iter().any(|t| {
        let key = t.key.is_empty() || t.key == condition.taint();
        let effect = t.effect.is_empty() || t.effect == "NoSchedule";
        // The taint has no value.
        let value = t.operator == "Exists" || (!t.key.is_empty() && t.value.is_empty());
        key && effect && value
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Resource;
    use reddwarf_objects::Object;
    use serde_json::{Value, json};

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn short(resource: Resource) -> Shortage {
        Shortage { resource, threshold: 2, available: 1 }
    }

    fn pod(spec: Value) -> Pod {
        let mut value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Pod::from_object(&Object::from_value(value).unwrap()).unwrap()
    }

    #[test]
    fn pressure_shows_at_once_and_goes_after_a_while() {
        let transition = Duration::from_secs(300);
        let mut conditions = Conditions::default();
        let mut step = |shortages: &[Shortage], now| {
            conditions.update(shortages, transition, at(now));
            conditions.all().collect::<Vec<_>>()
        };
        assert_eq!(step(&[], 0), []);
        assert_eq!(step(&[short(Resource::Memory)], 10), [NodeCondition::Memory]);
        assert_eq!(step(&[short(Resource::Inodes)], 200), [NodeCondition::Memory, NodeCondition::Disk]);
        assert_eq!(step(&[], 309), [NodeCondition::Memory, NodeCondition::Disk]);
        assert_eq!(step(&[], 310), [NodeCondition::Disk]);
        assert_eq!(step(&[], 500), []);
        conditions.update(&[short(Resource::Inodes)], transition, at(600));
        let said: Vec<_> = conditions.notices().collect();
        let message = "only 1 of inodes were left, less than 2 (`eviction_hard`, nodefs.inodesFree): pods may be evicted, \
                       and new ones wait";
        assert_eq!(said, [(NodeCondition::Disk, message.to_owned())]);
        conditions.update(&[], transition, at(610));
        let (_, over) = conditions.notices().next().unwrap();
        assert!(over.starts_with("the shortage of inodes is over") && over.contains("new pods wait until"), "{over}");
        let mut at_once = Conditions::default();
        at_once.update(&[short(Resource::Pids)], Duration::ZERO, at(1));
        assert!(at_once.holds(NodeCondition::Pid));
        at_once.update(&[], Duration::ZERO, at(2));
        assert!(!at_once.holds(NodeCondition::Pid));
    }

    #[test]
    fn who_is_let_in_under_pressure() {
        let asks = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerant = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]});
        let taint = "node.kubernetes.io/memory-pressure";
        let mut memory = Conditions::default();
        assert_eq!(memory.refuse(&pod(json!({}))), None);
        memory.update(&[short(Resource::Memory)], Duration::ZERO, at(1));
        let message = "The node had condition: [MemoryPressure]. ";
        assert_eq!(memory.refuse(&pod(json!({}))).as_deref(), Some(message));
        assert_eq!(memory.refuse(&pod(tolerant("another"))).as_deref(), Some(message));
        for fine in [
            asks.clone(),
            tolerant(taint),
            json!({"tolerations": [{"operator": "Exists"}]}),
            json!({"priority": 2_000_001_000}),
        ] {
            assert_eq!(memory.refuse(&pod(fine.clone())), None, "{fine}");
        }
        let mut both = memory.clone();
        both.update(&[short(Resource::Memory), short(Resource::Storage)], Duration::ZERO, at(1));
        for spec in [asks, tolerant(taint), json!({})] {
            assert_eq!(
                both.refuse(&pod(spec)).as_deref(),
                Some("The node had condition: [MemoryPressure DiskPressure]. ")
            );
        }
        assert_eq!(both.refuse(&pod(json!({"priority": 2_000_000_000}))), None);
    }
}
