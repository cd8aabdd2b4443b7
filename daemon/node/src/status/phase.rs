//! A pod's phase, by the kubelet's rules (Kubernetes: "Pod phase").

use super::StatusInput;
use reddwarf_objects::pod::{ContainerStatus, Phase, PodStatus};

/// The phase that goes with these container statuses.
///
/// | all once-init containers done, main containers | phase |
/// |---|---|
/// | no, or one was never started | Pending |
/// | one failed and is not tried again | Failed |
/// | some run, wait to be started again, or a sidecar still runs | Running |
/// | all ended for good, well | Succeeded |
/// | all ended for good, one badly | Failed |
///
/// A pod that fails as a whole is Failed once nothing of it runs; a deleted one ends like one that is not restarted.
pub(super) fn phase(input: StatusInput<'_>, status: &PodStatus) -> Phase {
    let (init, main) = (&status.init_container_statuses, &status.container_statuses);
    let runs = init.iter().chain(main).any(|c| c.state.running.is_some());
    let all_ended = !main.is_empty() && main.iter().all(|c| c.state.terminated.is_some());
    // What the host no longer (or, after the database was lost, not yet) shows has not failed by that.
    let is_over = input.outlook.failed.is_some()
        || (input.outlook.ended && (all_ended || failed_init(input, status)))
        || (input.intent.deleting.is_some() && all_ended);
    if is_over && !runs {
        return ended(input, status);
    }
    let never_ran = |c: &ContainerStatus| c.state.waiting.is_some() && c.last_state.terminated.is_none();
    if init.iter().any(|c| holds_up(input, status, c)) || main.iter().any(never_ran) || main.is_empty() {
        return Phase::Pending;
    }
    // Also while a new version takes the place of one that has ended.
    Phase::Running
}

/// Whether an init container keeps the pod Pending: one that runs, failed or was never run; a sidecar only until the main
/// containers have begun.
fn holds_up(input: StatusInput<'_>, status: &PodStatus, init: &ContainerStatus) -> bool {
    let last = init.state.terminated.as_ref().or(init.last_state.terminated.as_ref());
    if is_sidecar(input, &init.name) {
        let pending = if init.state.running.is_some() { init.started != Some(true) } else { last.is_none() };
        return pending && !has_begun(status);
    }
    // One that was added to a pod that runs is not run.
    let begun = |c: &ContainerStatus| c.state.running.is_some() || c.state.terminated.is_some();
    let never_ran = || !status.container_statuses.iter().any(begun);
    init.state.running.is_some() || last.map_or_else(never_ran, |ended| ended.exit_code != 0)
}

/// The phase of a pod of which nothing runs and nothing is to be started.
fn ended(input: StatusInput<'_>, status: &PodStatus) -> Phase {
    let well = |c: &ContainerStatus| c.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    if input.outlook.failed.is_none() && !failed_init(input, status) && status.container_statuses.iter().all(well) {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

/// Whether an init container failed. One that was added after the main containers had begun is not run at all.
fn failed_init(input: StatusInput<'_>, status: &PodStatus) -> bool {
    let failed = |c: &ContainerStatus| c.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0);
    status.init_container_statuses.iter().any(|c| !is_sidecar(input, &c.name) && failed(c))
}

pub(super) fn is_terminal(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed)
}

pub(super) fn is_sidecar(input: StatusInput<'_>, name: &str) -> bool {
    input.intent.pod.spec.init_containers.iter().any(|c| c.name == name && c.is_sidecar())
}

/// Some main container was started.
pub(super) fn has_begun(status: &PodStatus) -> bool {
    let started = |c: &ContainerStatus| {
        c.state.running.is_some() || c.state.terminated.is_some() || c.last_state.terminated.is_some()
    };
    status.container_statuses.iter().any(started)
}

/// Init containers that the main ones still wait for.
pub(super) fn incomplete<'s>(
    input: StatusInput<'s>,
    status: &'s PodStatus,
) -> impl Iterator<Item = &'s ContainerStatus> {
    let done = move |c: &ContainerStatus| if is_sidecar(input, &c.name) { c.started == Some(true) } else { c.ready };
    status.init_container_statuses.iter().filter(move |c| !done(c))
}
