//! What probes and hooks have found out, by instance. Lost with the daemon, and found out again.

use crate::key::PodKey;
use reddwarf_host::{ContainerName, ContainerObserved, SandboxId};
use std::collections::{BTreeMap, BTreeSet};

/// One instance of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId {
    /// Where.
    pub sandbox: SandboxId,
    /// Which.
    pub container: ContainerName,
    /// Which attempt.
    pub attempt: u32,
}

impl InstanceId {
    /// The id of an observed instance.
    pub fn of(sandbox: &SandboxId, instance: &ContainerObserved) -> Self {
        let (container, attempt) = (instance.spec.name.clone(), instance.spec.attempt);
        Self { sandbox: sandbox.clone(), container, attempt }
    }
}

/// What was found out of one instance; `None`: nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its startup probe passed, or failed for good.
    pub started: Option<bool>,
    /// Its liveness probe's verdict.
    pub live: Option<bool>,
    /// Its readiness probe's verdict.
    pub ready: Option<bool>,
    /// Its postStart hook is over: well, or not.
    pub post_start: Option<bool>,
    /// Its preStop hook is over, however it ended.
    pub pre_stopped: bool,
}

/// What was found out of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    pods: BTreeMap<PodKey, BTreeMap<InstanceId, Found>>,
}

impl Checks {
    /// What is known of an instance.
    pub fn of(&self, pod: &PodKey, instance: &InstanceId) -> Found {
        self.pods.get(pod).and_then(|of| of.get(instance)).copied().unwrap_or_default()
    }

    /// Notes something; whether it was news.
    pub fn note(&mut self, pod: &PodKey, instance: &InstanceId, change: impl FnOnce(&mut Found)) -> bool {
        let found = self.pods.entry(pod.clone()).or_default().entry(instance.clone()).or_default();
        let before = *found;
        change(found);
        *found != before
    }

    /// Forgets all instances of a pod but these.
    pub fn retain(&mut self, pod: &PodKey, there: &BTreeSet<InstanceId>) {
        if let Some(of) = self.pods.get_mut(pod) {
            of.retain(|id, _| there.contains(id));
            if of.is_empty() {
                self.pods.remove(pod);
            }
        }
    }

    /// Forgets all pods but these.
    pub fn retain_pods(&mut self, keep: impl Fn(&PodKey) -> bool) {
        self.pods.retain(|key, _| keep(key));
    }
}
