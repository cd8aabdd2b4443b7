//! `PodSpec` as the node reads it.

use super::{Container, EphemeralContainer, ResourceList, Resources, Volume};
use serde::{Deserialize, Serialize};

/// What a pod asks for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Run side by side; at least one.
    pub containers: Vec<Container>,
    /// Run one after another before the containers; those with restartPolicy Always keep running (sidecars).
    pub init_containers: Vec<Container>,
    /// Added while the pod runs; never started again.
    pub ephemeral_containers: Vec<EphemeralContainer>,
    /// What containers may mount.
    pub volumes: Vec<Volume>,
    /// What happens when a container ends.
    pub restart_policy: RestartPolicy,
    /// Seconds between TERM and KILL.
    pub termination_grace_period_seconds: i64,
    /// Seconds after which a running pod is ended as failed.
    pub active_deadline_seconds: Option<i64>,
    /// Secrets with credentials for registries.
    pub image_pull_secrets: Vec<ImagePullSecret>,
    /// The node it is for; empty while it is not placed.
    pub node_name: String,
    /// The hostname; the pod's name when empty.
    pub hostname: String,
    /// With hostname and namespace it makes the pod's DNS name.
    pub subdomain: String,
    /// Set the hostname to the full DNS name?
    #[serde(rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: bool,
    /// Use the host's network instead of an own one.
    pub host_network: bool,
    /// See the host's processes.
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    /// Users of its own instead of the host's, when false.
    pub host_users: Option<bool>,
    /// The hostname inside, whatever hostname and subdomain say.
    pub hostname_override: Option<String>,
    /// What running it costs beside its containers (from its runtime class).
    pub overhead: ResourceList,
    /// Requests and limits of all containers together.
    pub resources: Resources,
    /// Share the host's System V IPC.
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    /// Containers see one another's processes.
    pub share_process_namespace: bool,
    /// Extra lines of /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Where names are resolved.
    pub dns_policy: DnsPolicy,
    /// Additions to (or, with policy None, all of) the resolver's settings.
    pub dns_config: DnsConfig,
    /// Make variables for the namespace's services?
    pub enable_service_links: bool,
    /// Settings for all containers.
    pub security_context: PodSecurityContext,
    /// Which runtime class.
    pub runtime_class_name: Option<String>,
    /// The service account whose name the pod bears.
    pub service_account_name: String,
    /// Conditions that others set and without which the pod is not ready.
    pub readiness_gates: Vec<ReadinessGate>,
    /// Does it get a token of its account? The account says when absent.
    pub automount_service_account_token: Option<bool>,
    /// How important it is; the more, the later it is evicted.
    pub priority: Option<i32>,
    /// The node's taints that it bears with.
    pub tolerations: Vec<Toleration>,
}

/// A taint, or many, that a pod bears with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// The taint's key; all when empty.
    pub key: String,
    /// `Exists` or `Equal` (also when empty).
    pub operator: String,
    /// The taint's value, for `Equal`.
    pub value: String,
    /// The taint's effect; all when empty.
    pub effect: String,
}

impl Default for PodSpec {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            init_containers: Vec::new(),
            ephemeral_containers: Vec::new(),
            volumes: Vec::new(),
            restart_policy: RestartPolicy::Always,
            termination_grace_period_seconds: 30,
            active_deadline_seconds: None,
            image_pull_secrets: Vec::new(),
            node_name: String::new(),
            hostname: String::new(),
            subdomain: String::new(),
            set_hostname_as_fqdn: false,
            host_network: false,
            host_pid: false,
            host_ipc: false,
            host_users: None,
            hostname_override: None,
            overhead: ResourceList::new(),
            resources: Resources::default(),
            share_process_namespace: false,
            host_aliases: Vec::new(),
            dns_policy: DnsPolicy::ClusterFirst,
            dns_config: DnsConfig::default(),
            enable_service_links: true,
            priority: None,
            tolerations: Vec::new(),
            security_context: PodSecurityContext::default(),
            runtime_class_name: None,
            service_account_name: String::new(),
            readiness_gates: Vec::new(),
            automount_service_account_token: None,
        }
    }
}

/// A condition that someone else sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// Its type.
    pub condition_type: String,
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it ended with exit code 0.
    OnFailure,
    /// It is not started again.
    Never,
}

/// Where a pod's names are resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// Here; what is not ours is asked upstream. Pods on the host's network use the host's resolver.
    #[default]
    ClusterFirst,
    /// Here, on the host's network as well.
    ClusterFirstWithHostNet,
    /// As the host does.
    Default,
    /// Only as dnsConfig says.
    None,
}

/// Resolver settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsConfig {
    /// Servers' addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// resolv.conf options.
    pub options: Vec<DnsOption>,
}

/// One resolv.conf option: `name` or `name:value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    /// For example `ndots`.
    pub name: String,
    /// For example `2`.
    pub value: Option<String>,
}

/// A line of /etc/hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    /// The address.
    pub ip: String,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// Settings for all of a pod's containers; a container's own win.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurityContext {
    /// User id of the first process.
    pub run_as_user: Option<i64>,
    /// Group id of the first process.
    pub run_as_group: Option<i64>,
    /// Refuse to run as user 0?
    pub run_as_non_root: Option<bool>,
    /// Group that owns the volumes and that every process is in.
    pub fs_group: Option<i64>,
    /// `Always` or `OnRootMismatch`.
    pub fs_group_change_policy: Option<String>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// `Merge` adds the groups that the image's /etc/group gives the user, `Strict` does not.
    pub supplemental_groups_policy: Option<String>,
    /// AppArmor profile.
    pub app_armor_profile: Option<AppArmorProfile>,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: Vec<Sysctl>,
    /// System call filter.
    pub seccomp_profile: Option<SeccompProfile>,
}

/// A kernel setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    /// For example `net.core.somaxconn`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppArmorProfile {
    /// `RuntimeDefault`, `Unconfined` or `Localhost`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeccompProfile {
    /// `RuntimeDefault`, `Unconfined` or `Localhost`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file of a `Localhost` profile, below the seccomp directory.
    pub localhost_profile: Option<String>,
}

/// A Secret of the pod's namespace with credentials for registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImagePullSecret {
    /// Its name.
    pub name: String,
}
