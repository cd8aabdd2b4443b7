//! What people are told of a pod's life: Kubernetes Events, worded as the kubelet words them. No secrets.

use crate::control_plane::EventText;
use crate::perform::StepError;
use crate::plan::{Op, Step};
use reddwarf_host::spec::{ContainerRole, Signal};
use reddwarf_host::{ContainerName, SandboxObserved};

/// What a step that was carried out is worth saying.
pub(crate) fn done(step: &Step, sandbox: Option<&SandboxObserved>) -> Vec<EventText> {
    match &step.op {
        Op::ContainerStart { spec, .. } => {
            let at = field_path(spec.role, &spec.name);
            let mut events = Vec::new();
            if spec.attempt == 0 && !spec.image_name.is_empty() {
                let message = format!("Container image \"{}\" already present on machine", spec.image_name);
                events.push(normal("Pulled", message, &at));
            }
            events.push(normal("Created", format!("Created container: {}", spec.name), &at));
            events.push(normal("Started", format!("Started container {}", spec.name), &at));
            events
        }
        Op::ContainerSignal { container, signal, .. } => {
            let role = sandbox.and_then(|s| s.containers.get(container)).and_then(|c| c.last()).map(|c| c.spec.role);
            let how = if *signal == Signal::Sigkill { "Killing" } else { "Stopping" };
            let message = format!("{how} container {container}: {}", step.reason);
            vec![normal("Killing", message, &field_path(role.unwrap_or(ContainerRole::Main), container))]
        }
        Op::VolumeUpdate { volume, .. } => {
            vec![normal("VolumeUpdated", format!("Updated the files of volume {volume}"), "")]
        }
        Op::NetworkEnsure(_)
        | Op::NetworkRemove
        | Op::LeftoverRemove(_)
        | Op::Reserve { .. }
        | Op::Release { .. }
        | Op::SandboxEnsure(_)
        | Op::SandboxStop(_)
        | Op::SandboxDestroy(_)
        | Op::ContainerUpdate { .. }
        | Op::ContainerRemove { .. }
        | Op::FinishDelete { .. } => Vec::new(),
    }
}

/// What a step that failed is worth saying.
pub(crate) fn failed(step: &Step, error: &StepError) -> EventText {
    let (reason, at) = match &step.op {
        Op::SandboxEnsure(_) | Op::Reserve { .. } => ("FailedCreatePodSandBox", String::new()),
        Op::ContainerStart { spec, .. } => ("Failed", field_path(spec.role, &spec.name)),
        Op::SandboxStop(_) | Op::SandboxDestroy(_) | Op::ContainerSignal { .. } => ("FailedKillPod", String::new()),
        Op::VolumeUpdate { .. } => ("FailedMount", String::new()),
        _ => ("FailedSync", String::new()),
    };
    EventText { warning: true, reason: reason.into(), message: format!("Error: {}", error.text()), field_path: at }
}

/// A container waits.
pub(crate) fn waiting(reason: &str, message: &str, role: ContainerRole, container: &ContainerName) -> EventText {
    let reason = match reason {
        "CrashLoopBackOff" => "BackOff",
        _ => "Failed",
    };
    EventText { warning: true, reason: reason.into(), message: message.into(), field_path: field_path(role, container) }
}

fn field_path(role: ContainerRole, name: &ContainerName) -> String {
    match role {
        ContainerRole::Init => format!("spec.initContainers{{{name}}}"),
        ContainerRole::Main => format!("spec.containers{{{name}}}"),
        ContainerRole::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

fn normal(reason: &str, message: String, at: &str) -> EventText {
    EventText { warning: false, reason: reason.into(), message, field_path: at.into() }
}
