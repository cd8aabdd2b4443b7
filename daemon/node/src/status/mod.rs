//! A pod's status, as the kubelet writes it, from what the host says and what the planner waits for. Pure.
//!
//! | file | says |
//! |---|---|
//! | `container.rs` | one container: state, last state, ready, started |
//! | `phase.rs` | the pod in one word |
//! | `others.rs` | conditions that others set, and readiness gates |
//! | `conditions.rs` | PodReadyToStartContainers, Initialized, Ready, ContainersReady, PodScheduled, DisruptionTarget |

mod conditions;
mod container;
mod others;
mod phase;

use crate::desired::{HostFacts, PodIntent};
use crate::plan::{Notice, Outlook};
use crate::translate;
use chrono::{DateTime, Utc};
use conditions::{conditions, up_to_date};
pub(crate) use container::id_of;
use container::{container, share_message_room};
pub(crate) use others::gates;
pub use others::keep_others;
use others::take_over;
use phase::{is_terminal, phase};
use reddwarf_host::spec::{ContainerRole, SandboxNetwork};
use reddwarf_host::{ImageId, ImageInfo, SandboxObserved};
use reddwarf_objects::pod::{Ip, Phase, PodStatus};
use std::collections::BTreeMap;

/// The condition that says why a pod is not as it was asked to be. Absent when it is.
pub const UP_TO_DATE: &str = "reddwarf.io/UpToDate";

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
    /// Images on the host, where they are known.
    pub images: Option<&'a BTreeMap<ImageId, ImageInfo>>,
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
    let over = intent.finished || (intent.deleting.is_some() && previous.start_time.is_some());
    if unknown || (over && sandbox.is_none()) {
        // Nothing new is known: what was said stays, with the reason. Nor was a new generation looked at: an end that
        // belongs to the one before must not be taken for its own.
        let mut status = previous.clone();
        take_over(&mut status, input);
        up_to_date(&mut status, input);
        return status;
    }
    if let Some(rejected) = &outlook.rejected {
        return refused(input, rejected);
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
    // As the kubelet: init containers in their order, the others by name.
    status.container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    share_message_room(&mut status);
    status.phase = phase(input, &status);
    if intent.finished {
        // A verdict stands.
        status.phase = previous.phase;
        status.reason.clone_from(&previous.reason);
        status.message.clone_from(&previous.message);
    } else if let Some(failed) = outlook.failed.as_ref().filter(|_| is_terminal(status.phase)) {
        status.reason.clone_from(&failed.reason);
        status.message.clone_from(&failed.message);
    }
    addresses(&mut status, input);
    take_over(&mut status, input);
    conditions(&mut status, input);
    status
}

/// A pod that this node does not take.
fn refused(input: StatusInput<'_>, why: &Notice) -> PodStatus {
    PodStatus {
        observed_generation: input.intent.pod.metadata.generation,
        phase: Phase::Failed,
        reason: why.reason.clone(),
        message: format!("Pod was rejected: {}", why.message),
        qos_class: Some(input.intent.pod.qos_class()),
        start_time: input.previous.start_time.or(Some(input.now)),
        ..PodStatus::default()
    }
}

/// The time without its fraction of a second.
fn whole(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

fn addresses(status: &mut PodStatus, input: StatusInput<'_>) {
    let list = |ips: &[String]| ips.iter().map(|ip| Ip { ip: ip.clone() }).collect();
    status.host_ip = input.host.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let of_host: Vec<String> = Some(status.host_ip.clone()).into_iter().filter(|ip| !ip.is_empty()).collect();
    status.host_ips = list(&of_host);
    status.pod_ips = match input.sandbox.map(|s| &s.spec.network) {
        Some(SandboxNetwork::Host) => list(&of_host),
        Some(network) => list(&network.ips().iter().map(ToString::to_string).collect::<Vec<_>>()),
        None if is_terminal(status.phase) => input.previous.pod_ips.clone(),
        None => Vec::new(),
    };
    status.pod_ip = status.pod_ips.first().map(|ip| ip.ip.clone()).unwrap_or_default();
}
