//! What follows for one instance from what was found out of it. What was not found out yet is as the pod's status says,
//! so that a restart of the daemon makes no pod unready and restarts none.

use super::checks::Found;
use crate::desired::PodIntent;
use crate::status;
use reddwarf_host::spec::Hook;
use reddwarf_host::{ContainerObserved, ContainerState, SandboxId, SandboxObserved};
use reddwarf_objects::pod::{Container, ContainerStatus, PodStatus};
use std::time::Duration;

/// How an instance stands. The default is one that does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its postStart hook.
    pub start: Start,
    /// It runs, its postStart hook is done and its startup probe passed.
    pub started: bool,
    /// It is started and its readiness probe says so.
    pub ready: bool,
    /// Why it must be stopped.
    pub fault: Option<Fault>,
}

/// Where a postStart hook stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Done, or there is none.
    #[default]
    Done,
    /// Done, which the host does not know yet.
    Passed,
    /// At work, or about to be.
    Waiting,
}

/// A failure of its own that an instance is stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its startup probe failed; with this grace.
    Startup(Duration),
    /// Its liveness probe failed; with this grace.
    Liveness(Duration),
    /// Its postStart hook failed.
    PostStart(Duration),
}

impl Fault {
    /// The time that it is given to stop.
    pub fn grace(self) -> Duration {
        match self {
            Self::Startup(grace) | Self::Liveness(grace) | Self::PostStart(grace) => grace,
        }
    }

    /// Why, in the reference's words, which scripts search for.
    pub fn message(self, container: &str, again: bool) -> String {
        let end = if again { ", will be restarted" } else { "" };
        match self {
            Self::Startup(_) => format!("Container {container} failed startup probe{end}"),
            Self::Liveness(_) => format!("Container {container} failed liveness probe{end}"),
            Self::PostStart(_) => "FailedPostStartHook".to_owned(),
        }
    }
}

/// How an instance of a pod's container stands.
pub fn standing(
    intent: &PodIntent,
    container: &Container,
    sandbox: &SandboxId,
    instance: &ContainerObserved,
    found: Found,
) -> Standing {
    if !matches!(instance.state, ContainerState::Running { .. }) {
        return Standing::default();
    }
    let start = match (instance.spec.lifecycle.post_start.is_some() && !instance.post_started, found.post_start) {
        (false, _) => Start::Done,
        (true, Some(true)) => Start::Passed,
        (true, None | Some(false)) => Start::Waiting,
    };
    let said = said(&intent.status, sandbox, instance);
    let begun = start != Start::Waiting;
    let passed = |verdict: Option<bool>, probe: bool, said: Option<bool>| {
        !probe || verdict.unwrap_or_else(|| said.unwrap_or(false))
    };
    let started =
        begun && passed(found.started, container.startup_probe.is_some(), said.and_then(|status| status.started));
    let ready = started && passed(found.ready, container.readiness_probe.is_some(), said.map(|status| status.ready));
    let grace =
        |probe: Option<i64>| probe.map_or_else(|| intent.grace(), |s| Duration::from_secs(s.max(1).unsigned_abs()));
    let probe_grace = |probe: &Option<reddwarf_objects::pod::Probe>| {
        grace(probe.as_ref().and_then(|p| p.termination_grace_period_seconds))
    };
    let fault = match found {
        Found { post_start: Some(false), .. } if start == Start::Waiting => Some(Fault::PostStart(intent.grace())),
        Found { started: Some(false), .. } if container.startup_probe.is_some() => {
            Some(Fault::Startup(probe_grace(&container.startup_probe)))
        }
        Found { live: Some(false), .. } if container.liveness_probe.is_some() => {
            Some(Fault::Liveness(probe_grace(&container.liveness_probe)))
        }
        _ => None,
    };
    Standing { start, started, ready, fault }
}

/// What the pod's status says of this very instance while it ran.
fn said<'s>(status: &'s PodStatus, sandbox: &SandboxId, instance: &ContainerObserved) -> Option<&'s ContainerStatus> {
    let id = status::id_of(sandbox, instance);
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.find(|c| c.state.running.is_some() && c.container_id == id)
}

/// The hook that comes before an instance's stop signal: as its pod asks now, or, where no such pod is known, as it was
/// started.
pub fn pre_stop(intent: Option<&PodIntent>, sandbox: &SandboxObserved, instance: &ContainerObserved) -> Option<Hook> {
    let intent = intent.filter(|i| i.uid == sandbox.spec.pod.uid);
    let name = instance.spec.name.as_str();
    let container = intent.and_then(|i| i.container(name));
    match container {
        Some(container) => super::lifecycle(container).pre_stop,
        None => instance.spec.lifecycle.pre_stop.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_worded_as_the_reference_words_it() {
        let grace = Duration::from_secs(1);
        assert_eq!(
            Fault::Liveness(grace).message("web", true),
            "Container web failed liveness probe, will be restarted"
        );
        assert_eq!(Fault::Startup(grace).message("web", false), "Container web failed startup probe");
    }
}
