//! The administrator, the kernel and the power company: what happens behind the node's back (F28 to F31).

use super::state::{Foreign, Sandbox, ZoneState};
use super::{FakeHost, Shared};
use crate::names::{ContainerName, SandboxId};
use crate::observe::{Leftover, SandboxObserved};
use crate::spec::Signal;
use crate::traits::HostEvent;
use std::time::Duration;
use tokio::sync::watch;

impl FakeHost {
    /// The machine loses its power and boots at once. Calls under way never return; processes, and whatever the
    /// [`Profile`](super::Profile) calls volatile, are gone; the time since boot begins anew.
    ///
    /// The daemon died as well: a test drops its node and starts another one on a clone of this handle.
    pub fn power_cut(&self) {
        self.settle();
        let ids: Vec<SandboxId> = self.world().sandboxes().keys().cloned().collect();
        self.world().power_cut(self.shared.options.profile);
        if let Some(clock) = &self.shared.fake_clock {
            clock.reboot();
            *super::lock(&self.shared.armed) = None;
        }
        for id in &ids {
            self.shared.save(id);
        }
        self.shared.save_machine();
        self.shared.boots.send_modify(|boots| *boots += 1);
    }

    /// Counts power cuts, those of the fault plan included: a test waits here to know when to restart its node.
    pub fn boots(&self) -> watch::Receiver<u64> {
        self.shared.boots.subscribe()
    }

    /// One sandbox as it is, without counting as an observation.
    pub fn sandbox(&self, id: &SandboxId) -> Option<SandboxObserved> {
        self.settle();
        self.world().sandboxes().get(id).map(Sandbox::observed)
    }

    /// All sandboxes as they are, without counting as an observation.
    pub fn sandboxes(&self) -> Vec<SandboxObserved> {
        self.settle();
        self.world().sandboxes().values().map(Sandbox::observed).collect()
    }

    /// Someone kills a container's first process (kill -9): no stop request is recorded. Its newest attempt is meant.
    pub fn kill_container(&self, id: &SandboxId, name: &ContainerName) {
        let now = self.now();
        self.with_newest(id, name, |i| _ = i.signal(now, Signal::Sigkill));
    }

    /// The kernel kills a container's newest attempt for want of memory.
    pub fn out_of_memory(&self, id: &SandboxId, name: &ContainerName) {
        let now = self.now();
        self.with_newest(id, name, |instance| instance.out_of_memory(now));
    }

    /// The supervisor of a container's newest attempt is gone and left no word, if it was running.
    pub fn lose_container(&self, id: &SandboxId, name: &ContainerName) {
        self.with_newest(id, name, super::state::Instance::lose);
        self.event(HostEvent::Container(id.clone(), name.clone()));
    }

    fn with_newest(&self, id: &SandboxId, name: &ContainerName, what: impl FnOnce(&mut super::state::Instance)) {
        self.settle();
        {
            let mut world = self.world();
            let instances = world.sandboxes_mut().get_mut(id).and_then(|s| s.instances.get_mut(name));
            if let Some(mut newest) = instances.and_then(|all| all.last_entry()) {
                what(newest.get_mut());
            }
        }
        self.settle();
        self.shared.save(id);
    }

    /// Someone halts a sandbox (`zoneadm halt`): its processes are killed.
    pub fn halt_sandbox(&self, id: &SandboxId) {
        self.set_zone_state(id, ZoneState::Installed);
    }

    /// Puts a sandbox into any state (F27). Processes live on only in states that can hold some.
    pub fn set_zone_state(&self, id: &SandboxId, state: ZoneState) {
        let now = self.now();
        {
            let mut world = self.world();
            let Some(sandbox) = world.sandboxes_mut().get_mut(id) else { return };
            if !matches!(state, ZoneState::Running | ZoneState::ShuttingDown | ZoneState::Unrecognised(_)) {
                for instance in sandbox.instances.values_mut().flat_map(|all| all.values_mut()) {
                    if instance.is_live() {
                        instance.signal(now, Signal::Sigkill);
                    }
                }
                sandbox.started = None;
            }
            sandbox.zone = state;
        }
        self.settle();
        self.sandbox_event(id);
    }

    /// Someone deletes a sandbox with all that is in it.
    pub fn delete_sandbox(&self, id: &SandboxId) {
        self.world().sandboxes_mut().remove(id);
        self.sandbox_event(id);
    }

    /// Someone changes the pod network; `drift` says what is missing or wrong now.
    pub fn disturb_network(&self, drift: &str) {
        if let Some(network) = &mut self.world().machine.network {
            network.drift.push(drift.into());
        }
        self.shared.save_machine();
        self.event(HostEvent::Network);
    }

    /// Someone deletes the pod network.
    pub fn delete_network(&self) {
        self.world().machine.network = None;
        self.shared.save_machine();
        self.event(HostEvent::Network);
    }

    /// Something of ours without an owner is found.
    pub fn add_leftover(&self, kind: &str, name: &str) {
        self.world().machine.leftovers.insert(Leftover { kind: kind.into(), name: name.into() });
        self.shared.save_machine();
    }

    /// Something that is not ours is there (F28): calls for that name are `Foreign`.
    pub fn add_foreign(&self, foreign: Foreign) {
        self.world().foreign.insert(foreign);
    }

    /// The foreign thing goes away.
    pub fn remove_foreign(&self, foreign: &Foreign) {
        self.world().foreign.remove(foreign);
    }

    /// `subject` is in use for so long (F29): a sandbox by its name, a container's record by `sandbox/container`, the
    /// network by its link, a leftover by its name. Changes to it are `Busy` meanwhile.
    pub fn keep_busy(&self, subject: &str, duration: Duration) {
        let until = self.now().boot.plus(duration);
        self.world().busy.insert(subject.into(), until);
    }

    /// Notices get lost: everyone who listens is told to look at everything.
    pub fn lose_events(&self) {
        self.event(HostEvent::Everything);
    }
}

impl std::fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { options, boots, .. } = &*self.shared;
        f.debug_struct("FakeHost").field("options", options).field("boots", &*boots.borrow()).finish_non_exhaustive()
    }
}
