//! In-place resizes: whether the node has room for what a running pod asks for now, and how far it has got.

use super::pod::Planner;
use super::step::{Op, Resize};
use crate::compare::{Cost, Difference};
use crate::desired::PodIntent;
use crate::translate::{self, ContainerRef};
use reddwarf_host::spec::{Resources, SandboxSpec};
use reddwarf_host::{ContainerState, SandboxObserved};

/// What a running pod's change of resources costs: nothing, unless its container says otherwise.
pub(super) fn cost(which: &ContainerRef<'_>, now: &Resources, wanted: &Resources) -> Cost {
    let container = which.container;
    let cpu = (now.cpu_request_millis, now.cpu_limit_millis) != (wanted.cpu_request_millis, wanted.cpu_limit_millis);
    let memory = now.memory_limit_bytes != wanted.memory_limit_bytes;
    if (cpu && container.restarts_for("cpu")) || (memory && container.restarts_for("memory")) {
        Cost::Restart
    } else {
        Cost::InPlace
    }
}

/// Gives differences of resources their cost.
pub(super) fn price(which: &ContainerRef<'_>, now: &Resources, wanted: &Resources, found: &mut [Difference]) {
    for difference in found.iter_mut().filter(|d| d.field == "resources") {
        difference.cost = cost(which, now, wanted);
    }
}

impl Planner<'_> {
    /// Why a running pod can't have more for now, in the kubelet's words; `None`: it can, or asks for nothing new.
    pub(super) fn held_resize(
        &self,
        intent: &PodIntent,
        sandbox: &SandboxObserved,
        wanted: Option<&SandboxSpec>,
    ) -> Option<Resize> {
        let all = sandbox.containers.values().flatten();
        let runs = all.into_iter().any(|c| matches!(c.state, ContainerState::Running { .. }));
        let new_limits = wanted.is_some_and(|w| w.resources != sandbox.spec.resources);
        if !runs || !(new_limits || asks_anew(intent)) {
            return None;
        }
        let host = &self.view.desired.host;
        let of = |intent: &PodIntent| {
            let spec = &intent.pod.spec;
            [translate::request(spec, translate::memory), translate::request(spec, translate::cpu)]
        };
        let asked = of(intent);
        let room = [host.memory_bytes, host.cpu_millis];
        let names = ["memory", "cpu"];
        for ((name, asked), room) in names.into_iter().zip(asked).zip(room) {
            if asked > room {
                let message = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {room}");
                return Some(Resize::Infeasible(message));
            }
        }
        let others = self.view.desired.pods.values().filter(|i| i.key != intent.key && !i.finished);
        let used = others
            .map(|i| of(i))
            .fold([0_u64; 2], |[m, c], [more_m, more_c]| [m.saturating_add(more_m), c.saturating_add(more_c)]);
        for (((name, asked), used), room) in names.into_iter().zip(asked).zip(used).zip(room) {
            // What lowers its request is never in the way.
            if asked.saturating_add(used) > room && asked > allocated(intent, name) {
                let message = format!(
                    "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {room}"
                );
                return Some(Resize::Deferred(message));
            }
        }
        None
    }

    /// Notes that a change of limits is under way, and what went wrong with it the last time.
    pub(super) fn resizing(&mut self, op: Option<&Op>) {
        let failure = op.and_then(|op| self.view.memory.failure(Some(self.key), op)).map(|f| f.message.clone());
        self.plan.outlook.resize = Some(Resize::InProgress(failure));
    }
}

/// Whether a container's requests are not those that its status says were given to it.
fn asks_anew(intent: &PodIntent) -> bool {
    intent.pod.spec.containers.iter().any(|container| {
        let status = intent.status.container_statuses.iter().find(|s| s.name == container.name);
        status.is_some_and(|s| s.resources.is_some() && s.allocated_resources != container.resources.requests)
    })
}

/// What the pod's containers were given, as its status has it.
fn allocated(intent: &PodIntent, name: &str) -> u64 {
    let containers = intent.status.container_statuses.iter().chain(&intent.status.init_container_statuses);
    let amounts = containers.filter_map(|c| c.allocated_resources.get(name));
    let units = amounts.map(|q| if name == "cpu" { q.millis() } else { q.units() });
    units.map(|v| u64::try_from(v).unwrap_or(0)).fold(0, u64::saturating_add)
}
