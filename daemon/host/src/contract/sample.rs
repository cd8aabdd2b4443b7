//! Specs to begin from: a test says what differs and takes the rest.

use crate::names::{Brand, ContainerName, SandboxId};
use crate::spec::{
    ContainerImage, ContainerRole, ContainerSpec, LogSpec, NetworkSpec, PodIdentity, ProcessView, ResolvConf,
    Resources, SandboxNetwork, SandboxSpec, Security, Signal, TerminationMessage, UserSpec,
};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// A sandbox for that pod: its host name is the pod's, and it has neither volumes nor limits.
pub fn sandbox(id: SandboxId, pod: PodIdentity, brand: Brand, network: SandboxNetwork) -> SandboxSpec {
    SandboxSpec {
        id,
        hostname: pod.name.clone(),
        pod,
        brand,
        network,
        dns: ResolvConf::default(),
        hosts: Vec::new(),
        resources: Resources::default(),
        share_processes: false,
        host_ipc: false,
        sysctls: BTreeMap::new(),
        fs_group: None,
        own_users: false,
        best_effort: false,
        machine: BTreeMap::new(),
        datasets: BTreeSet::new(),
        volumes: BTreeMap::new(),
    }
}

/// A container's first attempt, run by root in `/`, without limits and mounts; SIGTERM stops it.
pub fn container(
    name: ContainerName,
    image: ContainerImage,
    image_name: &str,
    argv: Vec<String>,
    log: PathBuf,
) -> ContainerSpec {
    ContainerSpec {
        name,
        attempt: 0,
        backoff: Duration::ZERO,
        role: ContainerRole::Main,
        image,
        image_name: image_name.to_owned(),
        argv,
        env: Vec::new(),
        service_env: Vec::new(),
        references: None,
        env_files: Vec::new(),
        working_dir: "/".to_owned(),
        user: UserSpec::Ids { uid: 0, gid: 0, groups: Vec::new() },
        mounts: Vec::new(),
        resources: Resources::default(),
        security: Security::default(),
        oom_score_adj: None,
        tty: false,
        stdin: false,
        stdin_once: false,
        processes: ProcessView::Own,
        stop_signal: Signal::Sigterm,
        log: LogSpec { path: log, max_bytes: 1 << 20, max_files: 3 },
        termination_message: TerminationMessage::default(),
        restart_token: String::new(),
        lifecycle: Default::default(),
    }
}

/// A pod network of one family.
pub fn network(link: &str, cidr: Ipv4Net, gateway: Ipv4Addr, masquerade: bool) -> NetworkSpec {
    NetworkSpec { link: link.to_owned(), cidr: cidr.into(), gateway: gateway.into(), second: None, masquerade }
}
