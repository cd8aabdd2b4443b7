//! What the node must know besides objects and the host.

use crate::images::ImageCollection;
use crate::pressure::Thresholds;
use ipnet::IpNet;
use reddwarf_host::spec::{NetworkSpec, ResolvConf, Subnet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The node's settings, all checked already.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// The Node object's name, and every pod's `spec.nodeName`.
    pub node_name: String,
    /// The pod network: bridge or etherstub, addresses, gateway.
    pub network: NetworkSpec,
    /// Container logs: `<log_dir>/<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    /// Rotate a container's log past this many bytes.
    pub log_max_bytes: u64,
    /// Log files kept for one container instance, the current one included.
    pub log_max_files: u32,
    /// DNS domain of pods and services, e.g. `cluster.local`.
    pub cluster_domain: String,
    /// Name server for `dnsPolicy: ClusterFirst`; without one such pods get the host's.
    pub cluster_dns: Option<IpAddr>,
    /// The host's own resolv.conf, for `dnsPolicy: Default`.
    pub host_dns: ResolvConf,
    /// Most sandboxes at one time.
    pub max_pods: u32,
    /// CPU kept from pods, in thousandths.
    pub system_reserved_cpu_millis: u64,
    /// Memory kept from pods, in bytes.
    pub system_reserved_memory_bytes: u64,
    /// hostPath volumes must lie at or below one of these.
    pub host_path_allow: Vec<PathBuf>,
    /// The host's storage for PersistentVolumes, if it has one.
    pub storage: Option<NodeStorage>,
    /// Kernel settings beyond the safe ones that pods may ask for: names, or prefixes with a `*` behind.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Processes and threads per container when nothing else is said.
    pub default_pids_limit: u64,
    /// Less than this of something is too little: pods are evicted for it.
    pub eviction: Thresholds,
    /// How long a shortage must be over before the node says so.
    pub eviction_transition: Duration,
    /// A full pass at least this often; changes are acted on at once without it.
    pub resync: Duration,
    /// When a mass deletion of unwanted sandboxes needs a person's word.
    pub prune_guard: PruneGuard,
    /// Host calls at one time, each for another pod.
    pub concurrency: usize,
    /// A host call is given up after this long; what it did is then observed.
    pub call_timeout: Duration,
    /// An observation is given up after this long; all that it would have shown is then unknown.
    pub observe_timeout: Duration,
    /// When images are removed to make room.
    pub images: ImageCollection,
    /// How often the node says that it is alive.
    pub heartbeat: Duration,
}

impl NodeSettings {
    /// Settings with the defaults of reddwarfd for a pod network, for everything but names and places.
    ///
    /// The gateway is the network's first host address. A network of the other family is added to `network` afterwards.
    pub fn new(
        node_name: impl Into<String>,
        link: impl Into<String>,
        cidr: IpNet,
        log_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            network: NetworkSpec {
                link: link.into(),
                cidr,
                gateway: Subnet::of(cidr).gateway,
                second: None,
                masquerade: true,
            },
            log_dir: log_dir.into(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            cluster_domain: "cluster.local".into(),
            cluster_dns: None,
            host_dns: ResolvConf::default(),
            max_pods: 110,
            system_reserved_cpu_millis: 0,
            system_reserved_memory_bytes: 0,
            host_path_allow: Vec::new(),
            storage: None,
            allowed_unsafe_sysctls: Vec::new(),
            default_pids_limit: 4096,
            eviction: Thresholds::default(),
            eviction_transition: Duration::from_secs(300),
            resync: Duration::from_secs(60),
            prune_guard: PruneGuard::default(),
            concurrency: 16,
            call_timeout: Duration::from_secs(120),
            observe_timeout: Duration::from_secs(20),
            images: ImageCollection::default(),
            heartbeat: Duration::from_secs(10),
        }
    }
}

/// The host's storage for PersistentVolumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStorage {
    /// Where volumes are: one of handle `h` has its files at `h/data` below it.
    pub volume_root: PathBuf,
    /// Which engine it is, where, and why, for people.
    pub about: String,
}

/// Whether the host's storage can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageHealth {
    /// It can.
    pub ready: bool,
    /// Why, in one word: `StorageAbsent`.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// Refuses to remove many sandboxes at once that no object wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneGuard {
    /// Refuse when more than this share of our sandboxes would go…
    pub percent: u8,
    /// … and more than this many.
    pub count: usize,
}

impl Default for PruneGuard {
    fn default() -> Self {
        Self { percent: 50, count: 3 }
    }
}

impl PruneGuard {
    /// Whether removing `going` of `all` sandboxes needs a person's word.
    pub fn refuses(self, going: usize, all: usize) -> bool {
        going > self.count && going.saturating_mul(100) > all.saturating_mul(usize::from(self.percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_lets_few_and_small_shares_pass() {
        let guard = PruneGuard { percent: 50, count: 3 };
        assert!(!guard.refuses(3, 3));
        assert!(!guard.refuses(4, 8));
        assert!(guard.refuses(5, 8));
        assert!(!guard.refuses(0, 0));
    }
}
