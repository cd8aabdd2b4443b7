//! What people are told of a pod's life: Kubernetes Events, worded as the kubelet words them. No secrets. Pure.

use crate::control_plane::EventText;
use crate::desired::PodIntent;
use crate::perform::StepError;
use crate::plan::{Effect, Notice, Op, Outlook, Resize, Step};
use crate::translate::{self, ContainerRef};
use reddwarf_host::spec::ContainerRole;
use reddwarf_host::{ContainerName, ContainerObserved, ContainerState, Note, PullProgress, PullStage, SandboxObserved};
use std::time::Duration;

/// What a step that was carried out is worth saying; `sandbox` is as it was before.
/// `pulled`: its image was fetched, or asked for, just before, and that was told.
pub(crate) fn done(step: &Step, sandbox: Option<&SandboxObserved>, pulled: bool) -> Vec<EventText> {
    match &step.op {
        Op::ContainerStart { spec, .. } => {
            let at = field_path(spec.role, &spec.name);
            let mut events = Vec::new();
            if !spec.image_name.is_empty() && !pulled {
                let message = format!(
                    "Container image \"{}\" already present on machine and can be accessed by the pod",
                    spec.image_name
                );
                events.push(normal("Pulled", message, &at));
            }
            // Whether it also started is seen afterwards.
            events.push(normal("Created", "Container created".into(), &at));
            events
        }
        Op::ContainerSignal { container, attempt, .. } => {
            let instance =
                sandbox.and_then(|s| s.containers.get(container)?.iter().find(|c| c.spec.attempt == *attempt));
            killing(step, container, instance).into_iter().collect()
        }
        Op::ContainerNote { container, attempt, note: Note::Stopping { fault, .. }, .. } => {
            let instance =
                sandbox.and_then(|s| s.containers.get(container)?.iter().find(|c| c.spec.attempt == *attempt));
            let told = killing(step, container, instance);
            told.map(|e| if *fault { EventText { message: step.reason.clone(), ..e } } else { e }).into_iter().collect()
        }
        Op::SandboxDestroy(_) if step.effect == Effect::Replace => {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            vec![normal("SandboxChanged", message.into(), "")]
        }
        Op::VolumeUpdate { volume, .. } => {
            vec![normal("VolumeUpdated", format!("Updated the files of volume {volume}"), "")]
        }
        // Told when it begins and ends.
        Op::ImagePull { .. }
        | Op::NetworkEnsure(_)
        | Op::NetworkRemove
        | Op::LeftoverRemove(_)
        | Op::Reserve { .. }
        | Op::Release { .. }
        | Op::SandboxEnsure(_)
        | Op::SandboxStop(_)
        | Op::SandboxDestroy(_)
        | Op::ContainerNote { note: Note::Started, .. }
        | Op::ContainerUpdate { .. }
        | Op::ContainerRemove { .. }
        | Op::FinishDelete { .. } => Vec::new(),
    }
}

/// Said when a container is first asked to stop, not again when it is killed in the end.
fn killing(step: &Step, container: &ContainerName, instance: Option<&ContainerObserved>) -> Option<EventText> {
    let instance = instance.filter(|c| c.stop.is_none() && matches!(c.state, ContainerState::Running { .. }))?;
    let own_field = step.field.as_ref().is_some_and(|f| f.starts_with("spec.") && f.contains("ontainers["));
    let message = if step.effect == Effect::Restart && own_field && step.reason.ends_with(" changed") {
        format!("Container {container} definition changed, will be restarted")
    } else {
        format!("Stopping container {container}")
    };
    Some(normal("Killing", message, &field_path(instance.spec.role, container)))
}

/// What came of the starts among the steps that were just carried out.
pub(crate) fn started(done: &[Op], sandbox: &SandboxObserved) -> Vec<EventText> {
    let starts = done.iter().filter_map(|op| match op {
        Op::ContainerStart { spec, .. } => Some(spec),
        _ => None,
    });
    starts
        .filter_map(|spec| {
            let instances = sandbox.containers.get(&spec.name)?;
            let instance = instances.iter().find(|c| c.spec.attempt == spec.attempt)?;
            let at = field_path(spec.role, &spec.name);
            match &instance.state {
                ContainerState::Exited { started: None, message, .. } => {
                    Some(warning("Failed", format!("Error: {message}"), &at))
                }
                ContainerState::Creating => None,
                ContainerState::Running { .. } | ContainerState::Exited { .. } | ContainerState::Lost(_) => {
                    Some(normal("Started", "Container started".into(), &at))
                }
            }
        })
        .collect()
}

/// What a step that failed is worth saying.
pub(crate) fn failed(step: &Step, error: &StepError) -> EventText {
    let error = error.text();
    let (reason, message, at) = match &step.op {
        Op::SandboxEnsure(_) | Op::Reserve { .. } => {
            ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"), String::new())
        }
        Op::ContainerStart { spec, .. } => ("Failed", format!("Error: {error}"), field_path(spec.role, &spec.name)),
        Op::SandboxStop(_) | Op::SandboxDestroy(_) | Op::ContainerSignal { .. } | Op::ContainerNote { .. } => {
            ("FailedKillPod", format!("error killing pod: {error}"), String::new())
        }
        Op::VolumeUpdate { volume, .. } => {
            ("FailedMount", format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}"), String::new())
        }
        _ => ("FailedSync", format!("Error syncing pod: {error}"), String::new()),
    };
    warning(reason, message, &at)
}

/// What is waited for now and was not before, and a pod's failure as a whole.
pub(crate) fn outlook(intent: &PodIntent, before: &Outlook, now: &Outlook) -> Vec<EventText> {
    let containers = translate::containers(intent);
    let mut events = Vec::new();
    for (name, notice) in &now.waiting {
        let Some(which) = containers.iter().find(|c| c.name == *name) else { continue };
        if before.waiting.get(name) != Some(notice) {
            events.extend(waiting(intent, which, notice));
        }
    }
    for notice in now.notices.iter().filter(|n| !before.notices.contains(n)) {
        events.extend(in_the_way(notice));
    }
    let refused = now.rejected.iter().filter(|r| before.rejected.as_ref() != Some(*r));
    let advice = now.advice.iter().filter(|a| !before.advice.contains(a));
    events.extend(refused.chain(advice).map(|n| warning(&n.reason, n.message.clone(), "")));
    match (&before.resize, &now.resize) {
        (was, Some(Resize::Infeasible(why))) if *was != now.resize => {
            events.push(warning("ResizeInfeasible", format!("Pod resize infeasible: {why}"), ""));
        }
        (was, Some(Resize::Deferred(why))) if *was != now.resize => {
            events.push(warning("ResizeDeferred", format!("Pod resize deferred: {why}"), ""));
        }
        (None, Some(Resize::InProgress(_))) => events.push(normal("ResizeStarted", "Pod resize started".into(), "")),
        (Some(Resize::InProgress(_)), None) => {
            events.push(normal("ResizeCompleted", "Pod resize completed".into(), ""));
        }
        _ => {}
    }
    if let Some(verdict) = now.failed.as_ref().filter(|v| before.failed.as_ref() != Some(v) && v.reason != "Lost") {
        // The kubelet takes a deadline for the normal course of things.
        let is_warning = verdict.reason != "DeadlineExceeded";
        let (reason, message) = (verdict.reason.clone(), verdict.message.clone());
        events.push(EventText { warning: is_warning, reason, message, field_path: String::new() });
    }
    events
}

/// A pull begins.
pub(crate) fn pulling(which: &ContainerRef<'_>) -> EventText {
    let message = format!("Pulling image \"{}\"", which.container.image);
    normal("Pulling", message, &field_path(which.role, &which.name))
}

/// A pull takes its time: how far it is.
pub(crate) fn pull_progress(which: &ContainerRef<'_>, progress: &PullProgress) -> EventText {
    const MIB: u64 = 1 << 20;
    let PullProgress { stage, bytes_done, bytes_total, layers_done, layers_total } = *progress;
    let how_far = match stage {
        PullStage::Waiting => "waiting for other pulls".to_owned(),
        PullStage::Resolving => "waiting for the registry".to_owned(),
        PullStage::Fetching => format!("{} of {} MiB fetched", bytes_done / MIB, bytes_total.div_ceil(MIB)),
        PullStage::Unpacking => format!("{layers_done} of {layers_total} layers unpacked"),
    };
    let message = format!("Still pulling image \"{}\": {how_far}", which.container.image);
    normal("Pulling", message, &field_path(which.role, &which.name))
}

/// A pull succeeded: how long it took, how long with the time that it waited for others.
pub(crate) fn pulled(which: &ContainerRef<'_>, took: Duration, waited: Duration, size_bytes: u64) -> EventText {
    let message = format!(
        "Successfully pulled image \"{}\" in {} ({} including waiting). Image size: {size_bytes} bytes.",
        which.container.image,
        duration(took),
        duration(waited)
    );
    normal("Pulled", message, &field_path(which.role, &which.name))
}

/// A pull failed.
pub(crate) fn pull_failed(which: &ContainerRef<'_>, error: &str) -> EventText {
    let message = format!("Failed to pull image \"{}\": {error}", which.container.image);
    warning("Failed", message, &field_path(which.role, &which.name))
}

/// Secrets that are not there.
pub(crate) fn pull_secrets_missing(names: &[&str]) -> EventText {
    let names = names.join(", ");
    let message =
        format!("Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed.");
    warning("FailedToRetrieveImagePullSecret", message, "")
}

/// As Go prints a duration of whole milliseconds: `533ms`, `1.2s`, `1m5.01s`.
fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A container waits.
fn waiting(intent: &PodIntent, which: &ContainerRef<'_>, notice: &Notice) -> Vec<EventText> {
    let at = field_path(which.role, &which.name);
    let image = &which.container.image;
    let error = |text: &str| warning("Failed", format!("Error: {text}"), &at);
    match notice.reason.as_str() {
        // The kubelet tells of these with the pod as a whole, or when the step failed.
        "ContainerCreating" | "PodInitializing" | "CreateContainerError" | "ContainerStatusUnknown" => Vec::new(),
        "CrashLoopBackOff" => {
            let pod = format!("{}_{}({})", intent.key.name, intent.key.namespace, intent.uid);
            let message = format!("Back-off restarting failed container {} in pod {pod}", which.name);
            vec![warning("BackOff", message, &at)]
        }
        "ImagePullBackOff" => {
            vec![normal("BackOff", format!("Back-off pulling image \"{image}\""), &at), error("ImagePullBackOff")]
        }
        // What failed is told when it fails, whether or not the container waits for it.
        "ErrImagePull" | "RegistryUnavailable" => vec![error(&notice.reason)],
        "ErrImageNeverPull" => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            vec![warning("ErrImageNeverPull", message, &at), error("ErrImageNeverPull")]
        }
        "InvalidImageName" => vec![warning("InspectFailed", notice.message.clone(), &at), error("InvalidImageName")],
        _ => vec![error(&notice.message)],
    }
}

/// What keeps the pod as a whole from being as asked.
fn in_the_way(notice: &Notice) -> Option<EventText> {
    let (reason, message) = match notice.reason.as_str() {
        "FailedMount" | "OutOfpods" | "FailedCreatePodSandBox" => (notice.reason.as_str(), notice.message.clone()),
        "AddressPoolExhausted" | "InvalidNetwork" | "InvalidBrand" | "UnsupportedBrand" | "InvalidFsGroup" => {
            ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {}", notice.message))
        }
        // Of a step that failed, of a container that waits, of the host: told there.
        _ => return None,
    };
    Some(warning(reason, message, ""))
}

pub(crate) fn field_path(role: ContainerRole, name: &ContainerName) -> String {
    match role {
        ContainerRole::Init => format!("spec.initContainers{{{name}}}"),
        ContainerRole::Main => format!("spec.containers{{{name}}}"),
        ContainerRole::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

fn normal(reason: &str, message: String, at: &str) -> EventText {
    EventText { warning: false, reason: reason.into(), message, field_path: at.into() }
}

fn warning(reason: &str, message: String, at: &str) -> EventText {
    EventText { warning: true, reason: reason.into(), message, field_path: at.into() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (millis, text) in [
            (0, "0s"),
            (7, "7ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (12_034, "12.034s"),
            (65_010, "1m5.01s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(super::duration(std::time::Duration::from_millis(millis)), text);
        }
    }
}
