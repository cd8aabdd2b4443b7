//! How a fake machine is built.

use super::Profile;
use crate::names::Brand;
use crate::observe::HostInfo;
use crate::service::Listener;
use crate::spec::{ContainerSpec, SandboxSpec};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a fake machine is built.
#[derive(Clone, Debug)]
pub struct FakeOptions {
    /// What a power cut leaves.
    pub profile: Profile,
    /// What the machine says of itself, its brands included.
    pub info: HostInfo,
    /// How long each step of a change takes; a sandbox has several steps each way.
    pub step_time: Duration,
    /// Most sandboxes; further ones are `Exhausted`.
    pub max_sandboxes: usize,
    /// Most containers running on the machine; further ones are `Exhausted`.
    pub max_containers: usize,
    /// User names that exist in every image.
    pub users: Vec<String>,
    /// Profiles of system calls that its directory holds; others can't be loaded.
    pub seccomp_profiles: Vec<String>,
    /// Routes that the host has besides ours; a pod network that overlaps one is `Conflict`.
    pub routes: Vec<IpNet>,
    /// Ports on which the machine's own programs listen.
    pub listeners: BTreeSet<Listener>,
    /// Whether containers' output is written to their log files.
    pub write_logs: bool,
    /// Entries of [`FakeHost::mutations`](super::FakeHost::mutations) kept; the oldest go first.
    pub journal: usize,
}

impl Default for FakeOptions {
    fn default() -> Self {
        let brands = ["oci", "sparse"].into_iter().filter_map(|b| Brand::new(b).ok()).collect();
        Self {
            profile: Profile::Linux,
            info: HostInfo {
                kind: "sim".into(),
                brands,
                cpu_millis: 8000,
                memory_bytes: 16 << 30,
                storage_bytes: 100 << 30,
                addresses: vec![[192, 0, 2, 10].into()],
                kernel_version: "0.0-fake".into(),
                os_image: "Fake host".into(),
                architecture: "amd64".into(),
                machine_id: "00000000000000000000000000fa4e00".into(),
                boot_id: String::new(),
                runtime_version: concat!("fake://", env!("CARGO_PKG_VERSION")).into(),
            },
            step_time: Duration::ZERO,
            max_sandboxes: 8192,
            max_containers: 100_000,
            users: vec!["root".into(), "nobody".into()],
            seccomp_profiles: Vec::new(),
            routes: Vec::new(),
            listeners: BTreeSet::new(),
            write_logs: false,
            journal: 100_000,
        }
    }
}

/// Which containers a [`Script`](super::Script) is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    /// The container of this name in the pod `namespace/name`.
    Pod(String, String),
    /// Every container of this name.
    Container(String),
    /// Every container whose argv begins with this program.
    Program(String),
    /// Every container of this image, as the user wrote it.
    Image(String),
}

impl For {
    /// Everything that a container is called by, the most particular first.
    pub(super) fn all(sandbox: &SandboxSpec, spec: &ContainerSpec) -> [Self; 4] {
        let program = spec.argv.first().cloned().unwrap_or_default();
        [
            Self::Pod(format!("{}/{}", sandbox.pod.namespace, sandbox.pod.name), spec.name.to_string()),
            Self::Container(spec.name.to_string()),
            Self::Image(spec.image_name.clone()),
            Self::Program(program),
        ]
    }
}
