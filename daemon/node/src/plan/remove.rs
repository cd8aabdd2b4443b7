//! Going: containers stopped gracefully, sandbox stopped and destroyed, and only then, once nothing is seen any more,
//! the promises taken back.

use super::pod::Planner;
use super::step::{Effect, Notice, Op};
use reddwarf_host::spec::{ContainerRole, Signal};
use reddwarf_host::{BootTime, ContainerObserved, ContainerState, SandboxObserved, SandboxState};
use std::time::Duration;

/// The grace of what no object describes any more (Kubernetes' default).
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(30);
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

    /// Stops every container: main and ephemeral ones first, then the sidecars that serve them. `true` when none is left.
    pub(super) fn stop_all(
        &mut self,
        sandbox: &SandboxObserved,
        grace: Duration,
        effect: Effect,
        reason: &str,
        field: Option<&str>,
    ) -> bool {
        for roles in [&[ContainerRole::Main, ContainerRole::Ephemeral][..], &[ContainerRole::Init]] {
            let mut gone = true;
            for instance in sandbox.containers.values().flatten().filter(|c| roles.contains(&c.spec.role)) {
                gone &= self.stop(sandbox, instance, grace, effect, reason, field);
            }
            if !gone {
                return false;
            }
        }
        true
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
            ContainerState::Running { .. } => match self.next_signal(instance, grace) {
                Some(signal) => signal,
                None => return false,
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

    /// What to send to a running instance now; `None`: its grace is not over.
    fn next_signal(&mut self, instance: &ContainerObserved, grace: Duration) -> Option<Signal> {
        let Some(stop) = instance.stop else {
            return Some(if grace.is_zero() { Signal::Sigkill } else { instance.spec.stop_signal });
        };
        // A request from the future was made before the host was started anew.
        let end = if stop.at > self.now { BootTime::default() } else { stop.at.plus(grace) };
        let end = if stop.killed { end.plus(KILL_AGAIN) } else { end };
        if self.now < end {
            self.wait(end);
            return None;
        }
        Some(Signal::Sigkill)
    }
}
