//! What the node remembers between plans. All of it may be forgotten at any time: a new daemon starts without it.

use super::pull::Tickets;
use super::step::{Notice, Op};
use crate::key::PodKey;
use crate::pressure::Conditions;
use crate::probe::Checks;
use reddwarf_host::{BootTime, Family, Leftover, PodUid, SandboxId};
use std::collections::{BTreeMap, BTreeSet};

/// Failures to wait after, absences not to believe yet, a person's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// A person allowed what the mass-deletion guard refuses.
    pub allow_prune: bool,
    /// Steps that failed, by pod (`None`: the host's own).
    pub failures: BTreeMap<Option<PodKey>, Vec<Failure>>,
    /// Sandboxes whose making timed out: seen absent, they may yet appear until a `destroy` was acknowledged.
    pub unsure: BTreeSet<SandboxId>,
    /// Pods whose sandbox was destroyed to be made anew, as opposed to one that vanished.
    pub replaced: BTreeSet<PodUid>,
    /// Pods with an activeDeadlineSeconds, and when it is over.
    pub deadlines: BTreeMap<PodUid, Deadline>,
    /// Pods whose objects were taken away at once (`--force`): what is left of them has no time to lose.
    pub forced: BTreeSet<PodUid>,
    /// Pods whose deletion was seen while it happened: what is left of them goes, however many they are.
    pub dismissed: BTreeSet<PodUid>,
    /// Pods that must go for the host's sake, with reason and message for their status.
    pub evicted: BTreeMap<PodUid, Notice>,
    /// What probes and hooks have found out.
    pub checks: Checks,
    /// What the host is short of: pods that have not begun may have to wait.
    pub pressure: Conditions,
    /// How pulls of images for containers stand.
    pub pulls: Tickets,
    /// Left-overs, and when each was first seen: what is only passing through is left alone.
    pub leftovers: BTreeMap<Leftover, BootTime>,
}

/// The end of a pod's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// `spec.activeDeadlineSeconds`, by which it was worked out.
    pub seconds: i64,
    /// The moment.
    pub at: BootTime,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub op: Op,
    /// What to do about it.
    pub family: Family,
    /// What went wrong, in words.
    pub message: String,
    /// When it last failed.
    pub at: BootTime,
    /// How often in a row.
    pub count: u32,
    /// Not again before this; `None`: not until the step itself is another one.
    pub retry: Option<BootTime>,
}

impl Memory {
    /// The failure of exactly this step, if it failed the last time.
    pub fn failure(&self, pod: Option<&PodKey>, op: &Op) -> Option<&Failure> {
        // Most passes have no failures at all: no key is cloned for them.
        if self.failures.is_empty() {
            return None;
        }
        self.failures.get(&pod.cloned())?.iter().find(|f| f.op == *op)
    }

    /// Notes that a step failed.
    pub fn failed(&mut self, pod: Option<&PodKey>, failure: Failure) {
        let list = self.failures.entry(pod.cloned()).or_default();
        list.retain(|f| f.op != failure.op);
        // A pod has few steps that can fail at one time; more are stale.
        if list.len() >= 32 {
            list.remove(0);
        }
        list.push(failure);
    }

    /// Forgets that a step failed.
    pub fn succeeded(&mut self, pod: Option<&PodKey>, op: &Op) {
        let key = pod.cloned();
        if let Some(list) = self.failures.get_mut(&key) {
            list.retain(|f| f.op != *op);
            if list.is_empty() {
                self.failures.remove(&key);
            }
        }
    }
}
