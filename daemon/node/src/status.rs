//! A pod's status, as the kubelet writes it, from what the host says and what the planner waits for. Pure.

use crate::desired::{HostFacts, PodIntent};
use crate::plan::{Notice, Outlook};
use crate::translate::{self, ContainerRef};
use chrono::{DateTime, Utc};
use reddwarf_host::spec::{ContainerImage, ContainerRole, SandboxNetwork};
use reddwarf_host::{ContainerObserved, ContainerState, SandboxObserved, SandboxState};
use reddwarf_objects::pod::{
    Condition, ConditionStatus, ContainerState as State, ContainerStatus, Ip, Phase, PodStatus, RestartPolicy,
    Terminated,
};

/// The condition that says why a pod is not as it was asked to be. Absent when it is.
pub const UP_TO_DATE: &str = "reddwarf.io/UpToDate";
/// The scheme of container ids in statuses.
const RUNTIME: &str = "reddwarf";

/// What a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct StatusInput<'a> {
    /// The pod.
    pub intent: &'a PodIntent,
    /// Its sandbox; `None`: there is none.
    pub sandbox: Option<&'a SandboxObserved>,
    /// What the planner says of it.
    pub outlook: &'a Outlook,
    /// The host.
    pub host: &'a HostFacts,
    /// The status as it was last written.
    pub previous: &'a PodStatus,
    /// The time for people.
    pub now: DateTime<Utc>,
}

/// The status of a pod. Times are whole seconds, as objects hold them, so that what was written compares equal.
pub fn status(input: StatusInput<'_>) -> PodStatus {
    let input = StatusInput { now: whole(input.now), ..input };
    let StatusInput { intent, sandbox, outlook, previous, .. } = input;
    let unknown = outlook.notices.iter().any(|n| n.reason == "HostUnknown");
    if unknown || (intent.finished && sandbox.is_none()) {
        // Nothing new is known: what was said stays, with the reason. Nor was a new generation looked at: an end that
        // belongs to the one before must not be taken for its own.
        let mut status = previous.clone();
        up_to_date(&mut status, input);
        return status;
    }
    let all = translate::containers(intent);
    let of = |role| all.iter().filter(move |c| c.role == role);
    let mut status = PodStatus {
        observed_generation: intent.pod.metadata.generation,
        conditions: previous.conditions.clone(),
        init_container_statuses: of(ContainerRole::Init).map(|c| container(input, c)).collect(),
        container_statuses: of(ContainerRole::Main).map(|c| container(input, c)).collect(),
        ephemeral_container_statuses: of(ContainerRole::Ephemeral).map(|c| container(input, c)).collect(),
        qos_class: Some(intent.pod.qos_class()),
        start_time: previous.start_time.or(Some(input.now)),
        ..PodStatus::default()
    };
    status.phase = phase(input, &status);
    if outlook.lost {
        "Lost".clone_into(&mut status.reason);
        "its sandbox vanished (the host was started anew), and restartPolicy Never forbids another run"
            .clone_into(&mut status.message);
    }
    addresses(&mut status, input);
    conditions(&mut status, input);
    status
}

/// The time without its fraction of a second.
fn whole(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

fn addresses(status: &mut PodStatus, input: StatusInput<'_>) {
    let ip = |text: &str| if text.is_empty() { Vec::new() } else { vec![Ip { ip: text.to_owned() }] };
    status.host_ip = input.host.ip.map(|ip| ip.to_string()).unwrap_or_default();
    status.host_ips = ip(&status.host_ip);
    status.pod_ip = match input.sandbox.map(|s| &s.spec.network) {
        Some(SandboxNetwork::Pod { address, .. }) => address.addr().to_string(),
        Some(SandboxNetwork::Host) => status.host_ip.clone(),
        None if is_terminal(status.phase) => input.previous.pod_ip.clone(),
        None => String::new(),
    };
    status.pod_ips = ip(&status.pod_ip);
}

fn is_terminal(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed)
}

/// One container's status.
fn container(input: StatusInput<'_>, which: &ContainerRef<'_>) -> ContainerStatus {
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
    let ended = |instance: &ContainerObserved| terminated(input, instance).map(State::terminated);
    let last_state = before.and_then(ended).unwrap_or_default();
    let (state, last_state) = match latest {
        None if input.outlook.lost => (lost(remembered), State::default()),
        // Its sandbox is gone, and it is not started again.
        None if which.role == ContainerRole::Ephemeral && history.is_some() => (lost(remembered), State::default()),
        None => {
            // Not made (again) in this sandbox: what it was before its sandbox went is all there is to say.
            let last =
                remembered.map(|r| if r.state.terminated.is_some() { r.state.clone() } else { r.last_state.clone() });
            (waiting_state(waiting, "ContainerCreating"), last.unwrap_or_default())
        }
        Some(latest) => match (&latest.state, waiting) {
            (ContainerState::Running { started_at, .. }, _) => (State::running(whole(*started_at)), last_state),
            (ContainerState::Creating, _) => (waiting_state(waiting, "ContainerCreating"), last_state),
            (ContainerState::Lost(_), _) => (waiting_state(waiting, "ContainerStatusUnknown"), last_state),
            (ContainerState::Exited { .. }, Some(_)) => {
                (waiting_state(waiting, "ContainerCreating"), ended(latest).unwrap_or_default())
            }
            (ContainerState::Exited { .. }, None) => (ended(latest).unwrap_or_default(), last_state),
        },
    };
    let running = state.running.is_some();
    let completed = which.role == ContainerRole::Init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    ContainerStatus {
        name: which.name.to_string(),
        ready: match which.role {
            ContainerRole::Init if !which.is_sidecar() => completed,
            ContainerRole::Init | ContainerRole::Main => running,
            ContainerRole::Ephemeral => false,
        },
        started: Some(running),
        restart_count: latest.map_or_else(|| history.map_or(0, |h| h.restarts), |l| l.spec.attempt),
        image: which.container.image.clone(),
        image_id: latest.map(|l| image_id(&l.spec.image)).unwrap_or_default(),
        container_id: latest.map(|l| container_id(input, l)).unwrap_or_default(),
        state,
        last_state,
    }
}

fn waiting_state(waiting: Option<&Notice>, default: &str) -> State {
    match waiting {
        Some(notice) => State::waiting(&notice.reason, notice.message.clone()),
        None => State::waiting(default, ""),
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
        reason: "ContainerStatusUnknown".into(),
        message: "the container could not be found on the host".into(),
        started_at,
        ..Terminated::default()
    })
}

fn terminated(input: StatusInput<'_>, instance: &ContainerObserved) -> Option<Terminated> {
    let ContainerState::Exited { code, signal, started, started_at, finished_at, message, .. } = &instance.state else {
        return None;
    };
    let reason = match (instance.oom_killed, started, code) {
        (true, _, _) => "OOMKilled",
        (false, None, _) => "StartError",
        (false, Some(_), 0) => "Completed",
        (false, Some(_), _) => "Error",
    };
    Some(Terminated {
        exit_code: *code,
        signal: *signal,
        reason: reason.into(),
        message: message.clone(),
        started_at: started_at.map(whole),
        finished_at: Some(whole(*finished_at)),
        container_id: container_id(input, instance),
    })
}

fn image_id(image: &ContainerImage) -> String {
    match image {
        ContainerImage::Brand => String::new(),
        ContainerImage::Image { id } => id.to_string(),
    }
}

fn container_id(input: StatusInput<'_>, instance: &ContainerObserved) -> String {
    let sandbox = input.sandbox.map(|s| s.spec.id.as_str()).unwrap_or_default();
    format!("{RUNTIME}://{sandbox}/{}/{}", instance.spec.name, instance.spec.attempt)
}

/// The phase, by the kubelet's rules (Kubernetes: "Pod phase").
fn phase(input: StatusInput<'_>, status: &PodStatus) -> Phase {
    let policy = input.intent.pod.spec.restart_policy;
    if input.outlook.lost {
        return Phase::Failed;
    }
    let failed_init = status.init_container_statuses.iter().any(|c| {
        policy == RestartPolicy::Never
            && c.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0)
            && !is_sidecar(input, &c.name)
    });
    if failed_init && input.outlook.ended {
        return Phase::Failed;
    }
    let main = &status.container_statuses;
    let never_ran = |c: &ContainerStatus| c.state.waiting.is_some() && c.last_state.terminated.is_none();
    if !initialized(input, status) || main.iter().any(never_ran) || main.is_empty() {
        return Phase::Pending;
    }
    let all_ended = main.iter().all(|c| c.state.terminated.is_some());
    let well = main.iter().all(|c| c.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0));
    if !input.outlook.ended {
        // Also while a new version takes the place of one that has ended.
        return Phase::Running;
    }
    match policy {
        RestartPolicy::OnFailure | RestartPolicy::Never if all_ended && well => Phase::Succeeded,
        RestartPolicy::Never if all_ended => Phase::Failed,
        RestartPolicy::Always | RestartPolicy::OnFailure | RestartPolicy::Never => Phase::Running,
    }
}

fn is_sidecar(input: StatusInput<'_>, name: &str) -> bool {
    input.intent.pod.spec.init_containers.iter().any(|c| c.name == name && c.is_sidecar())
}

/// Init containers are done, or the main ones were started already.
fn initialized(input: StatusInput<'_>, status: &PodStatus) -> bool {
    let begun = status.container_statuses.iter().any(|c| c.state.running.is_some() || c.state.terminated.is_some());
    begun
        || status
            .init_container_statuses
            .iter()
            .all(|c| c.ready || (is_sidecar(input, &c.name) && c.state.terminated.is_some()))
}

fn conditions(status: &mut PodStatus, input: StatusInput<'_>) {
    let now = input.now;
    let up = input.sandbox.is_some_and(|s| s.state == SandboxState::Running);
    let ended = match status.phase {
        Phase::Succeeded => Some("PodCompleted"),
        Phase::Failed => Some("PodFailed"),
        Phase::Pending | Phase::Running | Phase::Unknown => None,
    };
    let names = |list: &[ContainerStatus], bad: &dyn Fn(&&ContainerStatus) -> bool| {
        list.iter().filter(bad).map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let begun = initialized(input, status);
    let initialized = if begun || status.phase == Phase::Succeeded {
        let done = Condition::new("Initialized", true, now);
        if status.phase == Phase::Succeeded { done.because("PodCompleted", "") } else { done }
    } else {
        let names = names(&status.init_container_statuses, &|c| !c.ready);
        Condition::new("Initialized", false, now)
            .because("ContainersNotInitialized", format!("containers with incomplete status: [{names}]"))
    };
    let unready = names(&status.container_statuses, &|c| !c.ready);
    let ready = |kind: &str| match (ended, unready.is_empty()) {
        (Some(reason), _) => Condition::new(kind, false, now).because(reason, ""),
        (None, true) => Condition::new(kind, true, now),
        (None, false) => Condition::new(kind, false, now)
            .because("ContainersNotReady", format!("containers with unready status: [{unready}]")),
    };
    let new = [
        Condition::new("PodReadyToStartContainers", up, now),
        initialized,
        ready("Ready"),
        ready("ContainersReady"),
        Condition::new("PodScheduled", true, now),
    ];
    for condition in new {
        status.set_condition(Condition { observed_generation: status.observed_generation, ..condition });
    }
    up_to_date(status, input);
}

/// Says why the pod is not as asked, for as long as it is not.
fn up_to_date(status: &mut PodStatus, input: StatusInput<'_>) {
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
