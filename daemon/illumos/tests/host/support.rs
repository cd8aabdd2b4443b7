//! A played system and a host on it for each test.

use reddwarf_command::Tools;
use reddwarf_host::spec::{
    ContainerImage, ContainerRole, ContainerSpec, LogSpec, NetworkSpec, PodIdentity, ProcessView, ResolvConf,
    Resources, SandboxNetwork, SandboxSpec, Security, Signal, TerminationMessage, UserSpec,
};
use reddwarf_host::{
    Brand, ContainerName, ContainerObserved, ContainerState, Host, Network, Observation, PodUid, SandboxId,
    SandboxObserved, Sandboxes, SystemClock,
};
use reddwarf_hostsim::lab::Lab;
use reddwarf_illumos::{IllumosHost, IllumosOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct World {
    pub(crate) host: IllumosHost,
    pub(crate) options: IllumosOptions,
    pub(crate) lab: Lab,
    pub(crate) dir: tempfile::TempDir,
    count: AtomicU32,
}

/// Runs a test with a played OmniOS. Skips, loudly, where that can't be had.
pub(crate) fn played<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: zones are namespaces here, which needs root");
        return;
    }
    let dir = tempfile::Builder::new().prefix("rdi").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lab = match Lab::new(dir.path()) {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = options(&lab);
        let host = IllumosHost::new(options.clone(), Arc::new(SystemClock)).unwrap();
        let world = Arc::new(World { host, options, lab, dir, count: AtomicU32::new(2) });
        test(world.clone()).await;
    });
}

fn options(lab: &Lab) -> IllumosOptions {
    let state = lab.dir().join("root/state");
    let helpers = env!("CARGO_BIN_EXE_reddwarf-illumos-shim");
    let options = IllumosOptions::new(lab.dir().join("run"), state, helpers);
    options.with_tools(Tools::only_in(&lab.tools()).unwrap(), &lab.tools())
}

impl World {
    /// What a restarted daemon would have.
    pub(crate) fn second_daemon(&self) -> IllumosHost {
        IllumosHost::new(self.options.clone(), Arc::new(SystemClock)).unwrap()
    }

    pub(crate) fn network(&self) -> NetworkSpec {
        NetworkSpec {
            link: "rwtest0".into(),
            cidr: "10.213.0.0/24".parse().unwrap(),
            gateway: "10.213.0.1".parse().unwrap(),
            second: None,
            masquerade: true,
        }
    }

    pub(crate) fn sandbox(&self) -> SandboxSpec {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        SandboxSpec {
            id: SandboxId::new(format!("test-pod-{n}")).unwrap(),
            pod: PodIdentity {
                namespace: "test".into(),
                name: format!("pod-{n}"),
                uid: PodUid::new(format!("uid-{n}")).unwrap(),
            },
            brand: Brand::new("sparse").unwrap(),
            hostname: format!("pod-{n}"),
            network: SandboxNetwork::Pod {
                address: format!("10.213.0.{n}/24").parse().unwrap(),
                gateway: "10.213.0.1".parse().unwrap(),
                second: None,
            },
            dns: ResolvConf { nameservers: vec!["10.213.0.1".parse().unwrap()], ..ResolvConf::default() },
            hosts: Vec::new(),
            resources: Resources::default(),
            share_processes: false,
            host_ipc: false,
            sysctls: BTreeMap::new(),
            fs_group: None,
            own_users: false,
            volumes: BTreeMap::new(),
        }
    }

    pub(crate) fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        ContainerSpec {
            name: ContainerName::new(name).unwrap(),
            attempt: 0,
            backoff: Duration::ZERO,
            role: ContainerRole::Main,
            image: ContainerImage::Brand,
            image_name: "sparse".into(),
            argv,
            env: Vec::new(),
            service_env: Vec::new(),
            env_files: Vec::new(),
            working_dir: "/".into(),
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
            log: LogSpec {
                path: self.dir.path().join("logs").join(sandbox.id.as_str()).join(format!("{name}.log")),
                max_bytes: 1 << 20,
                max_files: 3,
            },
            termination_message: TerminationMessage::default(),
            restart_token: String::new(),
            lifecycle: Default::default(),
        }
    }

    pub(crate) fn shell(&self, sandbox: &SandboxSpec, name: &str, script: &str) -> ContainerSpec {
        self.container(sandbox, name, vec!["/bin/sh".into(), "-c".into(), script.into()])
    }

    /// The network and a running sandbox.
    pub(crate) async fn running(&self) -> SandboxSpec {
        let _ = self.host.network_ensure(&self.network()).await.unwrap();
        let sandbox = self.sandbox();
        let _ = self.host.sandbox_ensure(&sandbox).await.unwrap();
        sandbox
    }

    pub(crate) async fn observe(&self, id: &SandboxId) -> Option<SandboxObserved> {
        let all = self.host.observe().await;
        match all.sandboxes.known().unwrap().get(id) {
            Some(Observation::Known(observed)) => Some(observed.clone()),
            Some(Observation::Unknown(why)) => panic!("{id}: {why}"),
            None => None,
        }
    }

    /// Waits for a container's end, woken by the host's events.
    pub(crate) async fn until_exit(&self, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
        let mut events = self.host.events();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let observed = self.observe(id).await.unwrap();
            let newest = observed.containers[name].last().unwrap().clone();
            if matches!(newest.state, ContainerState::Exited { .. }) {
                return newest;
            }
            assert!(Instant::now() < deadline, "still {:?}", newest.state);
            let _ = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
        }
    }
}
