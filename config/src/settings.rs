//! `reddwarfd`'s settings: flags over environment over `reddwarfd.toml` over defaults.

use crate::diagnostic::Diagnostic;
use crate::limits::Limits;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which host is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// Containers, cgroups, netlink, nftables.
    Linux,
    /// Zones, ZFS, Crossbow, ipnat.
    Illumos,
    /// The simulated host.
    Sim,
}

/// What runs containers on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRuntime {
    /// The built-in one.
    Libcontainer,
    /// The `crun` command.
    Crun,
    /// The `runc` command.
    Runc,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journals.
    Text,
    /// One JSON object a line.
    Json,
}

/// Every setting, resolved and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file that was read, if one was.
    pub config_file: Option<PathBuf>,
    /// Manifest layers, lowest first.
    pub manifests: Vec<PathBuf>,
    /// What must survive a reboot.
    pub state_dir: PathBuf,
    /// What must not.
    pub run_dir: PathBuf,
    /// Container logs, in the kubelet's layout.
    pub log_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The group that may use the control socket.
    pub socket_group: String,
    /// Where the Kubernetes API listens over TCP; off when `None`.
    pub listen: Option<SocketAddr>,
    /// Pods' addresses.
    pub pod_cidr: IpNet,
    /// Services' addresses.
    pub service_cidr: IpNet,
    /// The bridge that pods are linked to.
    pub bridge: String,
    /// Which host is driven.
    pub host: HostKind,
    /// The Node object's name.
    pub node_name: String,
    /// The name server for pods with `dnsPolicy: ClusterFirst`; the host's own when `None`.
    pub cluster_dns: Option<SocketAddr>,
    /// The DNS domain of services and pods.
    pub cluster_domain: String,
    /// Pods at most.
    pub max_pods: u32,
    /// CPU kept from pods, in thousandths of a core.
    pub system_reserved_cpu_millis: u64,
    /// Memory kept from pods, in bytes.
    pub system_reserved_memory_bytes: u64,
    /// Host directories that pods may mount, themselves and below.
    pub host_path_allow: Vec<PathBuf>,
    /// What runs containers on Linux.
    pub container_runtime: ContainerRuntime,
    /// Seconds between full passes.
    pub resync_seconds: u64,
    /// Milliseconds of quiet awaited after a file change.
    pub debounce_milliseconds: u64,
    /// A scan that would delete more than this share of the file-declared objects waits for `--allow-prune`.
    pub prune_guard_percent: u8,
    /// Accept manifests of any owner and writable by anybody.
    pub allow_untrusted_manifests: bool,
    /// Bounds on manifests.
    pub limits: Limits,
    /// A `tracing` filter: a level, or `target=level` pairs.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Flags as given, not yet checked; flatten it into a clap parser.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Cli {
    /// Settings file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Settings that can't be used: every finding, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("\n"))]
pub struct SettingsError(pub Vec<Diagnostic>);

/// Whether a change takes hold at a reload or only at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At SIGHUP.
    Live,
    /// At the next start.
    Restart,
}

/// A setting whose value differs between two [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The key in `reddwarfd.toml`.
    pub key: &'static str,
    /// The value before, as shown to users.
    pub old: String,
    /// The value after.
    pub new: String,
    /// When it takes hold.
    pub reload: Reload,
}

impl Settings {
    /// Reads the settings file and the process' environment and resolves everything; also gives warnings.
    ///
    /// # Errors
    /// [`SettingsError`] with every finding.
    pub fn load(cli: &Cli) -> Result<(Self, Vec<Diagnostic>), SettingsError> {
        let _ = cli;
        Err(SettingsError(Vec::new()))
    }

    /// What differs in `new`, and when each change takes hold.
    pub fn changes(&self, new: &Self) -> Vec<SettingChange> {
        let _ = new;
        Vec::new()
    }
}
