//! A pod's conditions; each keeps its lastTransitionTime for as long as its status stays the same.

use super::others::shut_gates;
use super::phase::{has_begun, incomplete, is_sidecar};
use super::{StatusInput, UP_TO_DATE};
use crate::plan::Resize;
use reddwarf_host::SandboxState;
use reddwarf_objects::pod::{Condition, ConditionStatus, ContainerStatus, Phase, PodStatus};

pub(super) fn conditions(status: &mut PodStatus, input: StatusInput<'_>) {
    let up = input.sandbox.is_some_and(|s| s.state == SandboxState::Running);
    let new = [
        Condition::new("PodReadyToStartContainers", up, input.now),
        initialized(status, input),
        ready("Ready", status, input),
        ready("ContainersReady", status, input),
        Condition::new("PodScheduled", true, input.now),
    ];
    const RESIZES: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];
    let resize = resize(input);
    status
        .conditions
        .retain(|c| !RESIZES.contains(&c.kind.as_str()) || resize.as_ref().is_some_and(|r| r.kind == c.kind));
    for condition in new.into_iter().chain(disrupted(input)).chain(resize) {
        status.set_condition(Condition { observed_generation: status.observed_generation, ..condition });
    }
    up_to_date(status, input);
}

fn initialized(status: &PodStatus, input: StatusInput<'_>) -> Condition {
    let condition = |holds| Condition::new("Initialized", holds, input.now);
    if status.phase == Phase::Succeeded {
        return condition(true).because("PodCompleted", "");
    }
    let names = names(incomplete(input, status));
    if has_begun(status) || names.is_empty() {
        return condition(true);
    }
    condition(false).because("ContainersNotInitialized", format!("containers with incomplete status: [{names}]"))
}

/// `Ready` or `ContainersReady`: of main containers and sidecars.
fn ready(kind: &str, status: &PodStatus, input: StatusInput<'_>) -> Condition {
    let condition = |holds| Condition::new(kind, holds, input.now);
    match status.phase {
        Phase::Succeeded => return condition(false).because("PodCompleted", ""),
        Phase::Failed => return condition(false).because("PodFailed", ""),
        Phase::Pending | Phase::Running | Phase::Unknown => {}
    }
    let sidecars = status.init_container_statuses.iter().filter(|c| is_sidecar(input, &c.name));
    let unready = names(sidecars.chain(&status.container_statuses).filter(|c| !c.ready));
    if unready.is_empty() {
        return match shut_gates(input).filter(|_| kind == "Ready") {
            Some(shut) => condition(false).because("ReadinessGatesNotReady", shut),
            None => condition(true),
        };
    }
    condition(false).because("ContainersNotReady", format!("containers with unready status: [{unready}]"))
}

/// New resources of a running pod wait, or are being given to it.
fn resize(input: StatusInput<'_>) -> Option<Condition> {
    let condition = |kind| Condition::new(kind, true, input.now);
    Some(match input.outlook.resize.as_ref()? {
        Resize::Infeasible(message) => condition("PodResizePending").because("Infeasible", message),
        Resize::Deferred(message) => condition("PodResizePending").because("Deferred", message),
        Resize::InProgress(None) => condition("PodResizeInProgress"),
        Resize::InProgress(Some(error)) => condition("PodResizeInProgress").because("Error", error),
    })
}

/// The pod was made to go for the host's sake.
fn disrupted(input: StatusInput<'_>) -> Option<Condition> {
    let verdict = input.outlook.failed.as_ref().filter(|v| v.reason == "Evicted")?;
    Some(Condition::new("DisruptionTarget", true, input.now).because("TerminationByKubelet", &verdict.message))
}

fn names<'s>(containers: impl Iterator<Item = &'s ContainerStatus>) -> String {
    containers.map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Says why the pod is not as asked, for as long as it is not.
pub(super) fn up_to_date(status: &mut PodStatus, input: StatusInput<'_>) {
    let Some(first) = input.outlook.notices.first() else {
        status.conditions.retain(|c| c.kind != UP_TO_DATE);
        return;
    };
    let field = first.field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default();
    let unknown = first.reason == "HostUnknown";
    let mut condition =
        Condition::new(UP_TO_DATE, false, input.now).because(&first.reason, format!("{field}{}", first.message));
    if unknown {
        condition.status = ConditionStatus::Unknown;
    }
    status.set_condition(Condition { observed_generation: status.observed_generation, ..condition });
}
