//! One container's status.

use super::{StatusInput, whole};
use crate::plan::Notice;
use crate::probe::Start;
use crate::translate::ContainerRef;
use chrono::DateTime;
use reddwarf_host::spec::{ContainerImage, ContainerRole, ContainerSpec, UserSpec};
use reddwarf_host::{ContainerObserved, ContainerState, ImageReference, SandboxId};
use reddwarf_objects::pod::{
    Container, ContainerState as State, ContainerStatus, ContainerUser, LinuxUser, PodStatus, ResourceList, Resources,
    ResourcesStatus, Terminated, VolumeMount, VolumeMountStatus,
};
use std::collections::BTreeSet;

/// The scheme of container ids in statuses.
const RUNTIME: &str = "reddwarf";
/// Bytes of all termination messages of a pod.
const POD_MESSAGES: usize = 12 * 1024;
/// The exit code of a program that could not be executed, as containerd gives it; the host's message says why.
const NEVER_RAN: i32 = 128;

/// The reason of a container of which nobody knows how it ended, or whether.
const LOST: &str = "ContainerStatusUnknown";

/// One container's status.
pub(super) fn container(input: StatusInput<'_>, which: &ContainerRef<'_>) -> ContainerStatus {
    let instances = input.sandbox.and_then(|s| s.containers.get(&which.name)).map_or(&[][..], Vec::as_slice);
    let latest = instances.last();
    let before = instances.iter().rev().nth(1);
    let waiting = input.outlook.waiting.get(&which.name);
    let history = input.intent.history.get(which.name.as_str());
    let remembered = input
        .previous
        .init_container_statuses
        .iter()
        .chain(&input.previous.container_statuses)
        .chain(&input.previous.ephemeral_container_statuses)
        .find(|c| c.name == which.name.as_str());
    let not_made = not_made(input, which.role);
    let standing = input.outlook.standing.get(&which.name).copied().unwrap_or_default();
    let ended = |instance: &ContainerObserved| terminated(input, instance).map(State::terminated);
    let last_state = before.and_then(ended).unwrap_or_default();
    let (state, last_state) = match latest {
        None if input.outlook.failed.is_some() && history.is_some() => (lost(remembered), State::default()),
        // Its sandbox is gone, and it is not started again.
        None if which.role == ContainerRole::Ephemeral && history.is_some() => (lost(remembered), State::default()),
        None => {
            // Not made (again) in this sandbox: what it was before its sandbox went is all there is to say.
            let last =
                remembered.map(|r| if r.state.terminated.is_some() { r.state.clone() } else { r.last_state.clone() });
            (waiting_state(waiting, not_made), last.unwrap_or_default())
        }
        Some(latest) => match (&latest.state, waiting) {
            (ContainerState::Running { .. }, _) if standing.start == Start::Waiting => {
                (waiting_state(None, not_made), last_state)
            }
            (ContainerState::Running { started_at, .. }, _) => (State::running(whole(*started_at)), last_state),
            (ContainerState::Creating, _) => (waiting_state(waiting, not_made), last_state),
            (ContainerState::Lost(_), _) => (waiting_state(waiting, LOST), last_state),
            (ContainerState::Exited { .. }, Some(_)) => {
                (waiting_state(waiting, not_made), ended(latest).unwrap_or_default())
            }
            (ContainerState::Exited { .. }, None) => (ended(latest).unwrap_or_default(), last_state),
        },
    };
    let running = state.running.is_some();
    let (allocated_resources, resources) = resources(input, which, latest, remembered);
    let completed = which.role == ContainerRole::Init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    ContainerStatus {
        name: which.name.to_string(),
        ready: match which.role {
            ContainerRole::Init if !which.is_sidecar() => completed,
            ContainerRole::Init | ContainerRole::Main => running && standing.ready,
            ContainerRole::Ephemeral => false,
        },
        started: (which.role != ContainerRole::Ephemeral).then_some(running && standing.started),
        restart_count: latest.map_or_else(|| history.map_or(0, |h| h.restarts), |l| l.spec.attempt),
        image: which.container.image.clone(),
        image_id: latest.map(|l| image_id(input, &l.spec)).unwrap_or_default(),
        container_id: latest.map(|l| container_id(input, l)).unwrap_or_default(),
        state,
        last_state,
        allocated_resources,
        resources,
        volume_mounts: mounts(which.container),
        user: latest.and_then(user),
    }
}

/// What is set aside for a container, and what holds for it: what it asks for, except while a resize waits (neither
/// has changed yet) or is being carried out (the limits have not).
fn resources(
    input: StatusInput<'_>,
    which: &ContainerRef<'_>,
    latest: Option<&ContainerObserved>,
    remembered: Option<&ContainerStatus>,
) -> (ResourceList, Option<ResourcesStatus>) {
    if latest.is_none() || which.role == ContainerRole::Ephemeral {
        return (ResourceList::new(), None);
    }
    let Resources { limits, requests } = which.container.resources.clone();
    let (asked, holds) = (requests.clone(), Some(ResourcesStatus { limits, requests }));
    let before = remembered.filter(|r| r.resources.is_some());
    match (&input.outlook.resize, before) {
        (Some(resize), Some(before)) if resize.is_pending() => {
            (before.allocated_resources.clone(), before.resources.clone())
        }
        (Some(_), Some(before)) => (asked, before.resources.clone()),
        _ => (asked, holds),
    }
}

/// The reason of a container that was not made yet, and for no reason of its own.
fn not_made(input: StatusInput<'_>, role: ContainerRole) -> &'static str {
    match role {
        ContainerRole::Ephemeral => "ContainerCreating",
        ContainerRole::Init => "PodInitializing",
        ContainerRole::Main if input.intent.pod.spec.init_containers.is_empty() => "ContainerCreating",
        ContainerRole::Main => "PodInitializing",
    }
}

fn waiting_state(waiting: Option<&Notice>, not_made: &str) -> State {
    match waiting {
        Some(notice) if notice.reason == "ContainerCreating" => State::waiting(not_made, notice.message.clone()),
        // For whom it waits is told by the plan; the reference says no more.
        Some(notice) if notice.reason == "PodInitializing" => State::waiting(&notice.reason, ""),
        Some(notice) => State::waiting(&notice.reason, notice.message.clone()),
        None => State::waiting(not_made, ""),
    }
}

fn mounts(container: &Container) -> Vec<VolumeMountStatus> {
    let status = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: mount.read_only.then(|| "Disabled".to_owned()),
    };
    container.volume_mounts.iter().map(status).collect()
}

/// By number; one that the image names is looked up inside and not known out here.
fn user(instance: &ContainerObserved) -> Option<ContainerUser> {
    let UserSpec::Ids { uid, gid, groups } = &instance.spec.user else { return None };
    let groups: BTreeSet<u32> = groups.iter().copied().chain([*gid]).collect();
    let supplemental_groups = groups.into_iter().map(i64::from).collect();
    Some(ContainerUser { linux: Some(LinuxUser { uid: (*uid).into(), gid: (*gid).into(), supplemental_groups }) })
}

/// All termination messages of a pod share 12 KiB, the same part for each container (the kubelet's limit).
pub(super) fn share_message_room(status: &mut PodStatus) {
    let lists =
        [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    let count = lists.iter().map(|l| l.len()).sum::<usize>().max(1);
    let room = POD_MESSAGES / count;
    for container in lists.into_iter().flatten() {
        for state in [&mut container.state, &mut container.last_state] {
            if let Some(ended) = &mut state.terminated {
                let end = (0..=room.min(ended.message.len())).rev().find(|at| ended.message.is_char_boundary(*at));
                ended.message.truncate(end.unwrap_or(0));
            }
        }
    }
}

/// A container of which nothing is left on the host.
fn lost(remembered: Option<&ContainerStatus>) -> State {
    if let Some(ended) = remembered.and_then(|r| r.state.terminated.clone()) {
        return State::terminated(ended);
    }
    let started_at = remembered.and_then(|r| r.state.running.as_ref()).and_then(|r| r.started_at);
    State::terminated(Terminated {
        exit_code: 137,
        reason: LOST.into(),
        message: "The container could not be located when the pod was terminated".into(),
        started_at,
        ..Terminated::default()
    })
}

fn terminated(input: StatusInput<'_>, instance: &ContainerObserved) -> Option<Terminated> {
    let ContainerState::Exited { code, signal, started, started_at, finished_at, message, .. } = &instance.state else {
        return None;
    };
    let reason = match (instance.oom_killed, started, code) {
        _ if instance.lost => LOST,
        (true, _, _) => "OOMKilled",
        (false, None, _) => "StartError",
        (false, Some(_), 0) => "Completed",
        (false, Some(_), _) => "Error",
    };
    let never_ran = started.is_none() && !instance.oom_killed;
    Some(Terminated {
        exit_code: if never_ran { NEVER_RAN } else { *code },
        signal: *signal,
        reason: reason.into(),
        message: message.clone(),
        // The reference says "never" so.
        started_at: started_at.map(whole).or_else(|| never_ran.then_some(DateTime::UNIX_EPOCH)),
        finished_at: Some(whole(*finished_at)),
        container_id: container_id(input, instance),
    })
}

/// What its registry calls the image (`registry/repository@sha256:…`), else its own id.
fn image_id(input: StatusInput<'_>, spec: &ContainerSpec) -> String {
    let ContainerImage::Image { id } = &spec.image else { return String::new() };
    let info = input.images.and_then(|images| images.get(id));
    let full = ImageReference::parse(&spec.image_name).map(|r| r.to_string()).unwrap_or_default();
    let called = info.and_then(|i| i.pulled.get(&full).or_else(|| i.pulled.values().next()));
    called.cloned().unwrap_or_else(|| id.to_string())
}

fn container_id(input: StatusInput<'_>, instance: &ContainerObserved) -> String {
    input.sandbox.map(|s| id_of(&s.spec.id, instance)).unwrap_or_default()
}

/// An instance as statuses call it.
pub(crate) fn id_of(sandbox: &SandboxId, instance: &ContainerObserved) -> String {
    format!("{RUNTIME}://{sandbox}/{}/{}", instance.spec.name, instance.spec.attempt)
}
