//! `Container` as the node reads it.

use super::{AppArmorProfile, Lifecycle, Probe, SeccompProfile};
use crate::quantity::Quantity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Amounts by resource name (`cpu`, `memory`).
pub type ResourceList = BTreeMap<String, Quantity>;

/// One process with its own files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Unique in the pod; a DNS label.
    pub name: String,
    /// The image; may be empty where the brand needs none.
    pub image: String,
    /// When the image is fetched.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Directory to start in; the image's when empty.
    pub working_dir: String,
    /// Ports it listens on.
    pub ports: Vec<ContainerPort>,
    /// Variables, in order; later ones may use earlier ones as `$(NAME)`.
    pub env: Vec<EnvVar>,
    /// Variables from whole ConfigMaps and Secrets; `env` wins.
    pub env_from: Vec<EnvFrom>,
    /// Requests and limits.
    pub resources: Resources,
    /// What a change of a resource costs.
    pub resize_policy: Vec<ResizePolicy>,
    /// Volumes in its file system.
    pub volume_mounts: Vec<VolumeMount>,
    /// Rights of its processes.
    pub security_context: SecurityContext,
    /// Keep a standard input open?
    pub stdin: bool,
    /// Close it after the first client left?
    pub stdin_once: bool,
    /// Give it a terminal?
    pub tty: bool,
    /// Its own restart policy; the pod's when absent. `Always` makes an init container a sidecar.
    pub restart_policy: Option<ContainerRestartPolicy>,
    /// What some exit codes come to; the first rule that matches wins over the restart policy.
    pub restart_policy_rules: Vec<RestartRule>,
    /// The file whose text becomes the termination message.
    pub termination_message_path: String,
    /// Where the termination message comes from.
    pub termination_message_policy: TerminationMessagePolicy,
    /// Until it answers well, the container is not started; when it fails, the container is restarted.
    pub startup_probe: Option<Probe>,
    /// When it fails, the container is restarted.
    pub liveness_probe: Option<Probe>,
    /// While it fails, the container is not ready.
    pub readiness_probe: Option<Probe>,
    /// What is done when it starts and before it stops.
    pub lifecycle: Lifecycle,
}

impl Container {
    /// Is this (init container) a sidecar: started in order, then kept running?
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(ContainerRestartPolicy::Always)
    }
}

/// A container that was added to a running pod, to look inside (`kubectl debug`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EphemeralContainer {
    /// What it is like any other container.
    #[serde(flatten)]
    pub container: Container,
    /// The container whose processes it sees; none when empty.
    pub target_container_name: String,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePullPolicy {
    /// Before every start.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Never: it must be here.
    Never,
}

/// A container's own restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerRestartPolicy {
    /// Started again whenever it ends.
    Always,
    /// Started again unless it ended with exit code 0.
    OnFailure,
    /// Not started again.
    Never,
}

/// What becomes of a container that ended with certain exit codes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRule {
    /// `Restart`.
    pub action: String,
    /// Which exit codes.
    pub exit_codes: ExitCodes,
}

impl RestartRule {
    /// Does the rule speak of this exit code?
    pub fn matches(&self, code: i32) -> bool {
        let named = self.exit_codes.values.contains(&code);
        match self.exit_codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    }
}

/// Some exit codes, or all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// `In` or `NotIn`.
    pub operator: String,
    /// The codes.
    pub values: Vec<i32>,
}

/// Where a termination message comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationMessagePolicy {
    /// From the file.
    #[default]
    File,
    /// From the file, or the last lines of the log when it is empty and the container failed.
    FallbackToLogsOnError,
}

/// A port that a container listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name to refer to it by.
    pub name: Option<String>,
    /// The port, 1-65535.
    pub container_port: u16,
    /// The host's port that leads to it; 0 is none.
    pub host_port: u16,
    /// The host's address that leads to it; empty is any.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

/// One variable: a text, or a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, in which `$(OTHER)` is replaced.
    pub value: Option<String>,
    /// Where its value comes from.
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvSource {
    /// A key of a ConfigMap.
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret.
    pub secret_key_ref: Option<KeyRef>,
    /// A field of the pod.
    pub field_ref: Option<FieldRef>,
    /// A container's request or limit.
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// A key of a file in a volume of the pod, read when the container starts.
    pub file_key_ref: Option<FileKeyRef>,
}

/// A line `KEY=value` of a file in a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileKeyRef {
    /// The volume; an emptyDir.
    pub volume_name: String,
    /// The file, relative to the volume.
    pub path: String,
    /// The key.
    pub key: String,
    /// May file or key be absent?
    pub optional: bool,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    /// The object's name.
    pub name: String,
    /// The key.
    pub key: String,
    /// May it be absent?
    pub optional: bool,
}

/// A field of the pod, for example `metadata.name` or `status.podIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldRef {
    /// The field.
    pub field_path: String,
}

/// A container's request or limit, for example `limits.memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFieldRef {
    /// The container; this one when empty.
    pub container_name: String,
    /// For example `limits.cpu`.
    pub resource: String,
    /// What the value is divided by, rounding up; `1` when zero or absent.
    pub divisor: Option<Quantity>,
}

/// All keys of a ConfigMap or Secret as variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvFrom {
    /// Put before every name.
    pub prefix: String,
    /// The ConfigMap.
    pub config_map_ref: Option<EnvFromRef>,
    /// The Secret.
    pub secret_ref: Option<EnvFromRef>,
}

/// A ConfigMap or Secret for [`EnvFrom`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvFromRef {
    /// The object's name.
    pub name: String,
    /// May it be absent?
    pub optional: bool,
}

/// What a container asks for and what it may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Upper bounds.
    pub limits: ResourceList,
    /// What is set aside.
    pub requests: ResourceList,
}

impl Container {
    /// Whether the container must be started again for a new amount of this resource.
    pub fn restarts_for(&self, resource: &str) -> bool {
        self.resize_policy.iter().any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
    }
}

/// What a change of one resource costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResizePolicy {
    /// `cpu` or `memory`.
    pub resource_name: String,
    /// `NotRequired` or `RestartContainer`.
    pub restart_policy: String,
}

/// A volume in a container's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Where, absolute.
    pub mount_path: String,
    /// Which part of the volume; all when empty.
    pub sub_path: String,
    /// Like `subPath`, with `$(VARIABLE)` replaced.
    pub sub_path_expr: String,
    /// May it not be written?
    pub read_only: bool,
    /// Are mounts below it read-only as well: `Disabled`, `IfPossible` or `Enabled`.
    pub recursive_read_only: Option<String>,
    /// `None`, `HostToContainer` or `Bidirectional`.
    pub mount_propagation: Option<String>,
}

/// Rights of a container's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// User id; the pod's, then the image's when absent.
    pub run_as_user: Option<i64>,
    /// Group id; the pod's, then the image's when absent.
    pub run_as_group: Option<i64>,
    /// Refuse to run as user 0?
    pub run_as_non_root: Option<bool>,
    /// All rights of the host's root?
    pub privileged: Option<bool>,
    /// Is the root file system read-only?
    pub read_only_root_filesystem: Option<bool>,
    /// May a process gain more rights than its parent (no_new_privs unset)?
    pub allow_privilege_escalation: Option<bool>,
    /// Rights added to and taken from the default set.
    pub capabilities: Capabilities,
    /// `Default` or `Unmasked`.
    pub proc_mount: Option<String>,
    /// System call filter; the pod's when absent.
    pub seccomp_profile: Option<SeccompProfile>,
    /// AppArmor profile; the pod's when absent.
    pub app_armor_profile: Option<AppArmorProfile>,
}

/// Capabilities without the `CAP_` prefix; `ALL` stands for every one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Taken away first.
    pub drop: Vec<String>,
}
