//! A pod's status, in exactly the shape that kubectl and operators read (core/v1 `PodStatus`).

use super::ResourceList;
use crate::object::timestamp;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};

/// Where a pod stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// The metadata.generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In one word.
    pub phase: Phase,
    /// In detail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Why it is in this phase, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The host's address.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// The host's addresses, one a family.
    #[serde(rename = "hostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<Ip>,
    /// The pod's address.
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub pod_ip: String,
    /// The pod's addresses, one a family.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Ip>,
    /// When the node took it up.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub start_time: Option<DateTime<Utc>>,
    /// One for each init container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// One for each container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// One for each ephemeral container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
    /// Its quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_class: Option<QosClass>,
}

impl PodStatus {
    /// Reads the status of a pod; the default when it has none or it is malformed.
    pub fn from_object(object: &crate::Object) -> Self {
        object.status().and_then(|status| Self::deserialize(status).ok()).unwrap_or_default()
    }

    /// The JSON form.
    pub fn to_value(&self) -> serde_json::Value {
        // Plain structs with text keys: serialising them has no way to fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Sets the condition of this type; its transition time changes only with its status.
    pub fn set_condition(&mut self, condition: Condition) {
        match self.conditions.iter_mut().find(|c| c.kind == condition.kind) {
            Some(old) => {
                let since = if old.status == condition.status {
                    old.last_transition_time
                } else {
                    condition.last_transition_time
                };
                *old = Condition { last_transition_time: since, ..condition };
            }
            None => self.conditions.push(condition),
        }
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}

/// A pod in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; not all containers have been started.
    #[default]
    Pending,
    /// All containers were made and at least one runs or is being started again.
    Running,
    /// All containers ended with exit code 0 and stay ended.
    Succeeded,
    /// All containers ended, at least one of them badly.
    Failed,
    /// The host could not be asked.
    Unknown,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// The address as text.
    pub ip: String,
}

/// One aspect of a pod: `PodScheduled`, `PodReadyToStartContainers`, `Initialized`, `ContainersReady`, `Ready`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// The metadata.generation that this condition is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Always null for the conditions that the node sets; the reference prints it so.
    #[serde(default, serialize_with = "time")]
    pub last_probe_time: Option<DateTime<Utc>>,
    /// When the status last changed.
    #[serde(default, serialize_with = "time")]
    pub last_transition_time: Option<DateTime<Utc>>,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    /// A condition that took this status at `now`.
    pub fn new(kind: &str, status: bool, now: DateTime<Utc>) -> Self {
        Self {
            kind: kind.to_owned(),
            status: if status { ConditionStatus::True } else { ConditionStatus::False },
            observed_generation: None,
            last_probe_time: None,
            last_transition_time: Some(now),
            reason: String::new(),
            message: String::new(),
        }
    }

    /// The same condition with a reason and a message.
    #[must_use]
    pub fn because(mut self, reason: &str, message: impl Into<String>) -> Self {
        reason.clone_into(&mut self.reason);
        self.message = message.into();
        self
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

/// Quality of service: who is killed last when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Every container has limits for cpu and memory, equal to its requests.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// No container asks for anything.
    BestEffort,
}

/// Where a container stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The container's name.
    pub name: String,
    /// Now.
    pub state: ContainerState,
    /// How it was before the last restart.
    pub last_state: ContainerState,
    /// Does it take requests?
    pub ready: bool,
    /// How often it was started again.
    pub restart_count: u32,
    /// The image as asked for.
    pub image: String,
    /// The image that runs, by digest.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// `runtime://id`; empty before the first start.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Has it started (and passed its startup probe)? Absent for ephemeral containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// What the node has set aside for it.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub allocated_resources: ResourceList,
    /// The requests and limits that hold for it now; absent before the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesStatus>,
    /// What is mounted in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMountStatus>,
    /// Who runs its first process; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<ContainerUser>,
}

/// Requests and limits that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesStatus {
    /// Upper bounds.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub limits: ResourceList,
    /// What is set aside.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub requests: ResourceList,
}

/// A mount as it came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMountStatus {
    /// The volume.
    pub name: String,
    /// Where.
    pub mount_path: String,
    /// Not writable?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Of read-only mounts: `Disabled` or `Enabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive_read_only: Option<String>,
}

/// Who runs a container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerUser {
    /// On Linux (and illumos, which counts the same way).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<LinuxUser>,
}

/// User and groups by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxUser {
    /// User id.
    pub uid: i64,
    /// Group id.
    pub gid: i64,
    /// Further groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<i64>,
}

/// One of waiting, running and terminated; none of them is the empty map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Not started yet, or not again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

impl ContainerState {
    /// Waiting for `reason` (`ContainerCreating`, `PodInitializing`, `CrashLoopBackOff`, `ErrImagePull`, ...).
    pub fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self { waiting: Some(Waiting { reason: reason.to_owned(), message: message.into() }), ..Self::default() }
    }

    /// Running since `started_at`.
    pub fn running(started_at: DateTime<Utc>) -> Self {
        Self { running: Some(Running { started_at: Some(started_at) }), ..Self::default() }
    }

    /// Ended.
    pub fn terminated(terminated: Terminated) -> Self {
        Self { terminated: Some(terminated), ..Self::default() }
    }
}

/// Why a container does not run (yet).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// In one CamelCase word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Since when.
    #[serde(serialize_with = "time")]
    pub started_at: Option<DateTime<Utc>>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// The exit code; 128 + signal when it was killed.
    pub exit_code: i32,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerStatusUnknown`, ...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its termination message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was started.
    #[serde(serialize_with = "time")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(serialize_with = "time")]
    pub finished_at: Option<DateTime<Utc>>,
    /// `runtime://id` of the container that ended.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

/// Whole seconds in UTC, as every other time in an object.
fn time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&timestamp(*time)),
        None => serializer.serialize_none(),
    }
}
