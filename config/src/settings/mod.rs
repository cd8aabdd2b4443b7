//! `reddwarfd`'s settings: flags over environment over `reddwarfd.toml` over defaults.
//!
//! [`SETTINGS`](table::SETTINGS) is the one table: keys, flags, variables, help and documentation come from it.

mod cli;
mod given;
mod resolve;
pub mod table;
mod values;

pub use cli::Cli;
pub use table::{Form, SETTINGS, Setting, markdown};

use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::limits::Limits;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The settings file that is read when `--config` and `REDDWARF_CONFIG` name none.
pub const DEFAULT_FILE: &str = "/etc/reddwarf/reddwarfd.toml";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The word for it in flags and files.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

mod eviction;
pub use eviction::{EvictionAmount, EvictionSignal, EvictionThreshold};

words! {
    /// Which host is driven.
    HostKind {
        /// Containers, cgroups, netlink, nftables.
        Linux = "linux",
        /// Zones, ZFS, Crossbow, ipnat.
        Illumos = "illumos",
        /// The simulated host.
        Sim = "sim",
    }
}

words! {
    /// What runs containers on Linux.
    ContainerRuntime {
        /// The built-in one.
        Libcontainer = "libcontainer",
        /// The `crun` command.
        Crun = "crun",
        /// The `runc` command.
        Runc = "runc",
    }
}

words! {
    /// How volumes are kept.
    StorageEngineName {
        /// As it fits the place.
        Auto = "auto",
        /// Datasets of a ZFS pool.
        Zfs = "zfs",
        /// Subvolumes of btrfs.
        Btrfs = "btrfs",
        /// Plain directories.
        Directory = "directory",
    }
}

words! {
    /// How pods' root file systems are made on Linux.
    StorageRoots {
        /// Clones where the engine clones at once, else overlays.
        Auto = "auto",
        /// Overlays.
        Overlay = "overlay",
    }
}

words! {
    /// What balances connections to services among pods on illumos.
    ZoneBalancer {
        /// Redirections of ipnat(8).
        Ipnat = "ipnat",
        /// ILB, the integrated load balancer, for what it can do; ipnat for the rest.
        Ilb = "ilb",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people and journals.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// The name server that pods are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterDns {
    /// Ours, when it listens where pods look for it; else the host's own.
    Auto,
    /// The host's own.
    Off,
    /// This one.
    At(SocketAddr),
}

impl std::fmt::Display for ClusterDns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Where the name server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsListen {
    /// The pod bridge's own address, port 53. Linux only: elsewhere there is no such bridge.
    Bridge,
    /// This one.
    At(SocketAddr),
}

impl std::fmt::Display for DnsListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// The port that resolvers ask.
const DNS_PORT: u16 = 53;

impl Settings {
    /// The pod bridge's own addresses, one of each family: the first host address of each of the pods' networks. The
    /// lowest address of an IPv6 network means any of its routers (RFC 4291, 2.6.1); it is the bridge's only where
    /// [`Settings::keep_gateways`] found it so.
    pub fn bridge_addresses(&self) -> Vec<IpAddr> {
        let address = |net: &IpNet| {
            let anycast = matches!(net, IpNet::V6(v6) if v6.prefix_len() < 127);
            let kept = self.gateways.contains(&net.network());
            net.hosts().nth(usize::from(anycast && !kept)).unwrap_or_else(|| net.network())
        };
        self.pod_cidr.iter().map(address).collect()
    }

    /// Leaves a pod network that is there as it is: earlier versions gave the bridge the lowest address of an IPv6
    /// network, and pods that run have it as their router. `there` are the gateways that the host has.
    pub fn keep_gateways(&mut self, there: Vec<IpAddr>) {
        self.gateways = there;
    }

    /// The main one of them.
    pub fn bridge_address(&self) -> IpAddr {
        self.bridge_addresses().first().copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
    }

    /// Where the name server listens.
    pub fn dns_addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for listen in &self.dns_listen {
            match listen {
                DnsListen::Bridge if self.host == HostKind::Linux => {
                    all.extend(self.bridge_addresses().into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)));
                }
                DnsListen::Bridge => {}
                DnsListen::At(address) => all.push(*address),
            }
        }
        all.dedup();
        all
    }

    /// The name server for pods with `dnsPolicy: ClusterFirst`; the host's own when `None`.
    pub fn pods_name_server(&self) -> Option<IpAddr> {
        match self.cluster_dns {
            ClusterDns::Off => None,
            ClusterDns::At(address) => Some(address.ip()),
            ClusterDns::Auto => {
                let bridge = self.bridge_address();
                let there = |a: &SocketAddr| {
                    let any = a.ip().is_unspecified() && a.is_ipv4() == bridge.is_ipv4();
                    a.port() == DNS_PORT && (a.ip() == bridge || any)
                };
                (self.host == HostKind::Linux && self.dns_addresses().iter().any(there)).then_some(bridge)
            }
        }
    }
}

/// Every setting, resolved and checked. [`table::SETTINGS`] says what each means.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file that was read, if one was.
    pub config_file: Option<PathBuf>,
    /// Where each was given that was.
    places: BTreeMap<&'static str, given::Place>,
    /// [`Settings::keep_gateways`].
    gateways: Vec<IpAddr>,
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
    /// The certificate that the API shows; its own authority's when `None`.
    pub tls_cert: Option<PathBuf>,
    /// The key of `tls_cert`; in the same file when `None`.
    pub tls_key: Option<PathBuf>,
    /// Authorities whose client certificates are believed besides its own's.
    pub client_ca: Option<PathBuf>,
    /// Where the admin's kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// The audit log; off when `None`.
    pub audit_log: Option<PathBuf>,
    /// Bytes of one audit log.
    pub audit_log_bytes: u64,
    /// Old audit logs that are kept.
    pub audit_log_files: u32,
    /// Pods' addresses: one range, or one of each family, the main one first.
    pub pod_cidr: Vec<IpNet>,
    /// Services' addresses: one range, or one of each family.
    pub service_cidr: Vec<IpNet>,
    /// Ports on the host's addresses that lead to services.
    pub node_port_range: std::ops::RangeInclusive<u16>,
    /// Addresses for services of type LoadBalancer; none when empty.
    pub load_balancer_cidr: Vec<IpNet>,
    /// The bridge that pods are linked to.
    pub bridge: String,
    /// illumos: the link that pods' links are put on; `None`: an etherstub of our own.
    pub zone_nic: Option<String>,
    /// illumos: the VLAN of pods' links; 0: none.
    pub zone_vlan: u16,
    /// illumos: what balances connections to services.
    pub zone_balancer: ZoneBalancer,
    /// Which host is driven.
    pub host: HostKind,
    /// The Node object's name.
    pub node_name: String,
    /// The name server for pods with `dnsPolicy: ClusterFirst`; see [`Settings::pods_name_server`].
    pub cluster_dns: ClusterDns,
    /// Where the name server listens; nowhere when empty.
    pub dns_listen: Vec<DnsListen>,
    /// The resolv.conf(5) of the host.
    pub resolv_conf: PathBuf,
    /// The DNS domain of services and pods.
    pub cluster_domain: String,
    /// Pods at most.
    pub max_pods: u32,
    /// CPU kept from pods, in thousandths of a core.
    pub system_reserved_cpu_millis: u64,
    /// Memory kept from pods, in bytes.
    pub system_reserved_memory_bytes: u64,
    /// When the host is short of something, as given; [`Settings::eviction`] knows the rest.
    pub eviction_hard: Vec<EvictionThreshold>,
    /// Seconds that a shortage must be over.
    pub eviction_transition_seconds: u64,
    /// Bytes of a container's log before it is rotated.
    pub log_max_bytes: u64,
    /// Files kept of a container's log.
    pub log_max_files: u32,
    /// Where volumes are kept: an absolute path or a ZFS dataset; `None`: below the state directory.
    pub storage_pool: Option<String>,
    /// How they are kept.
    pub storage_engine: StorageEngineName,
    /// How pods' root file systems are made on Linux.
    pub storage_roots: StorageRoots,
    /// A place of its own for images.
    pub storage_images: Option<String>,
    /// A place of its own for pods' root file systems.
    pub storage_pods: Option<String>,
    /// A place of its own for volumes.
    pub storage_volumes: Option<String>,
    /// Host directories that pods may mount, themselves and below.
    pub host_path_allow: Vec<PathBuf>,
    /// Kernel settings beyond the safe ones that pods may ask for.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Profiles of system calls that pods may name.
    pub seccomp_dir: PathBuf,
    /// What runs containers on Linux.
    pub container_runtime: ContainerRuntime,
    /// Registries and where else their images are looked for first: (`docker.io`, `https://mirror.example:5000`).
    pub registry_mirrors: Vec<(String, String)>,
    /// Registries that may be spoken with in plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Authorities that registries' certificates are believed from besides the system's.
    pub registry_ca: Vec<PathBuf>,
    /// The host's credentials for registries, as docker's config.json.
    pub registry_auth: Option<PathBuf>,
    /// Seconds after which a registry that sends nothing is given up.
    pub registry_timeout_seconds: u64,
    /// Files of public keys, one of which must have signed a `.zar` that is imported.
    pub zar_keys: Vec<PathBuf>,
    /// Percent of the disk from which on unused images are removed.
    pub image_gc_high_percent: u8,
    /// Percent of the disk down to which they are removed.
    pub image_gc_low_percent: u8,
    /// Seconds for which an image that was used is left alone.
    pub image_gc_min_age_seconds: u64,
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

/// What this host is like, as far as defaults depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The host name.
    pub host_name: String,
    /// The host that is driven by default.
    pub host: HostKind,
}

impl HostFacts {
    /// Those of the machine that this runs on.
    pub fn of_this_machine() -> Self {
        let host_name = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let host = match std::env::consts::OS {
            "linux" => HostKind::Linux,
            "illumos" | "solaris" => HostKind::Illumos,
            _ => HostKind::Sim,
        };
        Self { host_name, host }
    }
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
    /// Whether it was given, and is not a default.
    pub fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// A finding about a file that the setting `key` names, at the place where it was given.
    pub fn file_finding(&self, key: &'static str, fatal: bool, what: String, why: &str, help: &str) -> Diagnostic {
        let place = self.places.get(key).unwrap_or(&given::Place::Flag);
        let severity = if fatal { Severity::Error } else { Severity::Warning };
        place.finding(severity, codes::SETTING_FILE, key, what, why, help)
    }

    /// What differs in `new`, and when each change takes hold.
    pub fn changes(&self, new: &Self) -> Vec<SettingChange> {
        let change = |s: &Setting| {
            let (old, new) = ((s.show)(self), (s.show)(new));
            (old != new).then_some(SettingChange { key: s.key, old, new, reload: s.reload })
        };
        SETTINGS.iter().filter_map(change).collect()
    }

    /// These settings with those values of `new` that may change while the daemon runs.
    #[must_use]
    pub fn with_live_of(&self, new: &Self) -> Self {
        Self {
            manifests: new.manifests.clone(),
            max_pods: new.max_pods,
            system_reserved_cpu_millis: new.system_reserved_cpu_millis,
            system_reserved_memory_bytes: new.system_reserved_memory_bytes,
            host_path_allow: new.host_path_allow.clone(),
            allowed_unsafe_sysctls: new.allowed_unsafe_sysctls.clone(),
            resync_seconds: new.resync_seconds,
            debounce_milliseconds: new.debounce_milliseconds,
            prune_guard_percent: new.prune_guard_percent,
            allow_untrusted_manifests: new.allow_untrusted_manifests,
            limits: new.limits,
            log_level: new.log_level.clone(),
            ..self.clone()
        }
    }
}
