//! Going: containers stopped gracefully, sandbox stopped and destroyed, and only then, once nothing is seen any more,
//! the promises taken back.

use super::pod::Planner;
use super::step::{Effect, Notice, Op};
use crate::probe::{self, InstanceId};
use reddwarf_host::spec::{ContainerRole, Signal};
use reddwarf_host::{BootTime, ContainerObserved, ContainerState, Note, SandboxObserved, SandboxState};
use std::time::Duration;

/// The grace of what no object describes any more (Kubernetes' default).
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// The grace of a pod whose object was taken away at once (the kubelet's minimum).
pub(super) const FORCED_GRACE: Duration = Duration::from_secs(1);
/// What is left at least of a pod's grace after a hook, and for a sidecar, which is asked only after all others have
/// ended (the kubelet's minimum).
const LAST_GRACE: Duration = Duration::from_secs(2);
/// A process that outlives SIGKILL is looked at again after this.
const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Planner<'_> {
    /// Stops and destroys a sandbox; `true` when its last step is planned.
    pub(super) fn remove(
        &mut self,
        sandbox: &SandboxObserved,
        grace: Duration,
        effect: Effect,
        reason: &str,
        field: Option<&str>,
    ) -> bool {
        let id = &sandbox.spec.id;
        if let SandboxState::Other(state) = &sandbox.state {
            let message =
                format!("sandbox {id} is in the state {state:?}, which this version does not know: left alone");
            self.notice(Notice::new("UnknownState", message));
            return false;
        }
        if !self.stop_all(sandbox, grace, effect, reason, field) {
            return false;
        }
        let up = match &sandbox.state {
            SandboxState::Running | SandboxState::Stopping => true,
            SandboxState::Partial(_) | SandboxState::Stopped | SandboxState::Other(_) => false,
        };
        if up && !self.push(effect, Op::SandboxStop(id.clone()), reason, field) {
            return false;
        }
        self.push(effect, Op::SandboxDestroy(id.clone()), reason, field)
    }

    /// Stops every container: main, ephemeral and init containers first, then the sidecars that serve them, the last one
    /// first. All of it shares one grace. `true` when none is left, or when the sandbox is going down with all of them.
    pub(super) fn stop_all(
        &mut self,
        sandbox: &SandboxObserved,
        grace: Duration,
        effect: Effect,
        reason: &str,
        field: Option<&str>,
    ) -> bool {
        // Nobody in it can be asked any more; what holds it up ends with its own stop.
        if sandbox.state == SandboxState::Stopping {
            return true;
        }
        let sidecars = self.sidecars(sandbox);
        let mut gone = true;
        for instance in sandbox.containers.values().flatten() {
            if !sidecars.iter().any(|s| s.spec.name == instance.spec.name) {
                gone &= self.stop(sandbox, instance, grace, effect, reason, field);
            }
        }
        let begun = self.begun(sandbox);
        for sidecar in sidecars {
            if !gone {
                // Its turn has not come, but its hook need not wait for that.
                if sidecar.stop.is_none() && self.has_pre_stop(sandbox, sidecar) && !grace.is_zero() {
                    self.begin_stop(sandbox, sidecar, grace, false, effect, reason);
                }
                continue;
            }
            let spent = begun.map_or(Duration::ZERO, |b| sidecar.stop.map_or(self.now, |s| s.at).since(b));
            let left = if grace.is_zero() { grace } else { grace.saturating_sub(spent).max(LAST_GRACE.min(grace)) };
            gone = self.stop(sandbox, sidecar, left, effect, reason, field);
        }
        gone
    }

    /// Instances of sidecars in the order in which they are to stop: from the last to the first of the pod's list; by
    /// their starts where no pod is known.
    fn sidecars<'s>(&self, sandbox: &'s SandboxObserved) -> Vec<&'s ContainerObserved> {
        let pod = self.view.intent(self.key).map(|i| &i.pod.spec.init_containers);
        let position = |c: &ContainerObserved| pod?.iter().position(|p| p.name == c.spec.name.as_str());
        let runs_once = |c: &ContainerObserved| {
            position(c).and_then(|at| pod?.get(at)).is_some_and(|declared| !declared.is_sidecar())
        };
        let init = sandbox.containers.values().flatten().filter(|c| c.spec.role == ContainerRole::Init);
        let mut sidecars: Vec<_> = init.filter(|c| !runs_once(c)).collect();
        sidecars.sort_by_key(|c| std::cmp::Reverse((position(c), started(c))));
        sidecars
    }

    /// When this stop began: the earliest request to an instance that is or was the last of its name.
    fn begun(&self, sandbox: &SandboxObserved) -> Option<BootTime> {
        let latest = sandbox.containers.values().filter_map(|instances| instances.last());
        latest.filter_map(|c| c.stop).map(|s| s.at).filter(|at| *at <= self.now).min()
    }

    /// Asks one instance to stop, kills it when its grace is over. `true` when it has ended.
    pub(super) fn stop(
        &mut self,
        sandbox: &SandboxObserved,
        instance: &ContainerObserved,
        grace: Duration,
        effect: Effect,
        reason: &str,
        field: Option<&str>,
    ) -> bool {
        let signal = match &instance.state {
            ContainerState::Exited { .. } => return true,
            // Nobody knows whether it runs: there is nothing to ask, only to make sure.
            ContainerState::Creating | ContainerState::Lost(_) => Signal::Sigkill,
            ContainerState::Running { .. } => match self.next(sandbox, instance, grace) {
                Next::Signal(signal) => signal,
                Next::Begin => return self.begin_stop(sandbox, instance, grace, false, effect, reason),
                Next::Wait => return false,
            },
        };
        let running = matches!(instance.state, ContainerState::Running { .. });
        let asked = self.push(
            effect,
            Op::ContainerSignal {
                sandbox: sandbox.spec.id.clone(),
                container: instance.spec.name.clone(),
                attempt: instance.spec.attempt,
                signal,
            },
            reason,
            field,
        );
        if signal != Signal::Sigkill {
            self.wait(self.now.plus(grace));
        }
        // Killing what no supervisor answers for may show no effect: then stopping the sandbox must do.
        !running && !asked
    }

    /// Notes that a running instance is to stop, before anything of it is done: a daemon that is started anew goes on
    /// where this one was. Never the end of it.
    pub(super) fn begin_stop(
        &mut self,
        sandbox: &SandboxObserved,
        instance: &ContainerObserved,
        grace: Duration,
        fault: bool,
        effect: Effect,
        reason: &str,
    ) -> bool {
        self.note(sandbox, instance, Note::Stopping { grace, fault }, effect, reason);
        false
    }

    /// Whether a running instance has something to do before its stop signal.
    fn has_pre_stop(&self, sandbox: &SandboxObserved, instance: &ContainerObserved) -> bool {
        let intent = self.view.intent(self.key).map(AsRef::as_ref);
        matches!(instance.state, ContainerState::Running { .. }) && probe::pre_stop(intent, sandbox, instance).is_some()
    }

    /// Notes how far an instance has come.
    pub(super) fn note(
        &mut self,
        sandbox: &SandboxObserved,
        instance: &ContainerObserved,
        note: Note,
        effect: Effect,
        reason: &str,
    ) -> bool {
        let (container, attempt) = (instance.spec.name.clone(), instance.spec.attempt);
        let op = Op::ContainerNote { sandbox: sandbox.spec.id.clone(), container, attempt, note };
        self.push(effect, op, reason, None)
    }

    /// What to do now about a running instance that is to stop: note it where a hook comes first, wait for the hook, ask,
    /// wait, kill. All of it shares one grace; one that its hook has used up is given a last moment after it was asked.
    fn next(&mut self, sandbox: &SandboxObserved, instance: &ContainerObserved, grace: Duration) -> Next {
        let has_hook = || self.has_pre_stop(sandbox, instance);
        let Some(stop) = instance.stop else {
            return match grace.is_zero() {
                true => Next::Signal(Signal::Sigkill),
                false if has_hook() => Next::Begin,
                false => Next::Signal(instance.spec.stop_signal),
            };
        };
        let grace = stop.order.map_or(grace, |order| order.grace.min(grace));
        // A request from the future was made before the host was started anew.
        let end = if stop.at > self.now { BootTime::default() } else { stop.at.plus(grace) };
        let Some(signalled) = stop.signalled().or(stop.killed.then_some(stop.at)) else {
            let id = InstanceId::of(&sandbox.spec.id, instance);
            let ready = !has_hook() || self.view.memory.checks.of(self.key, &id).pre_stopped || self.now >= end;
            if !ready {
                self.wait(end);
                return Next::Wait;
            }
            return Next::Signal(if grace.is_zero() { Signal::Sigkill } else { instance.spec.stop_signal });
        };
        let last = if signalled > self.now { BootTime::default() } else { signalled.plus(LAST_GRACE.min(grace)) };
        let end = if stop.order.is_some() { end.max(last) } else { end };
        let end = if stop.killed { end.plus(KILL_AGAIN) } else { end };
        if self.now < end {
            self.wait(end);
            return Next::Wait;
        }
        Next::Signal(Signal::Sigkill)
    }
}

/// What to do about a running instance that is to stop.
enum Next {
    /// Note that it is to stop.
    Begin,
    /// Send this.
    Signal(Signal),
    /// Nothing yet.
    Wait,
}

fn started(instance: &ContainerObserved) -> Option<BootTime> {
    match &instance.state {
        ContainerState::Running { started, .. } => Some(*started),
        ContainerState::Exited { .. } | ContainerState::Creating | ContainerState::Lost(_) => None,
    }
}
