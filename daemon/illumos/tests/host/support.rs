//! A played system and a host on it for each test.

use crate::common;
use reddwarf_command::Tools;
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{ContainerName, ContainerObserved, Network, SandboxId, SandboxObserved, Sandboxes, SystemClock};
use reddwarf_hostsim::lab::Lab;
use reddwarf_hostsim::system::System;
use reddwarf_illumos::{IllumosHost, IllumosOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct World {
    pub(crate) host: IllumosHost,
    pub(crate) options: IllumosOptions,
    pub(crate) lab: Lab,
    pub(crate) dir: tempfile::TempDir,
    count: AtomicU32,
}

/// Runs a test with a played OmniOS. Skips, loudly, where that can't be had.
pub(crate) fn played<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    played_on(System::Omnios, test);
}

/// The same with another played system.
pub(crate) fn played_on<F: Future<Output = ()>>(system: System, test: impl FnOnce(Arc<World>) -> F) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: zones are namespaces here, which needs root");
        return;
    }
    let dir = tempfile::Builder::new().prefix("rdi").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lab = match Lab::of(dir.path(), system) {
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
        common::sandbox(n, common::address(n))
    }

    pub(crate) fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        common::container(self.dir.path(), sandbox, name, argv)
    }

    pub(crate) fn shell(&self, sandbox: &SandboxSpec, name: &str, script: &str) -> ContainerSpec {
        self.container(sandbox, name, common::shell(script))
    }

    /// The network and a running sandbox.
    pub(crate) async fn running(&self) -> SandboxSpec {
        let _ = self.host.network_ensure(&self.network()).await.unwrap();
        let sandbox = self.sandbox();
        let _ = self.host.sandbox_ensure(&sandbox).await.unwrap();
        sandbox
    }

    pub(crate) async fn observe(&self, id: &SandboxId) -> Option<SandboxObserved> {
        common::observe(&self.host, id).await
    }

    /// Kills a container's supervisor, as its record names it.
    pub(crate) fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec) {
        let file = format!("run/sandboxes/{id}/containers/{}/{}/state.json", spec.name, spec.attempt);
        let record = std::fs::read(self.lab.dir().join(file)).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let pid = nix::unistd::Pid::from_raw(record["supervisor"].as_i64().unwrap() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// Waits for a container's end, woken by the host's events.
    pub(crate) async fn until_exit(&self, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
        common::until_exit(&self.host, id, name).await
    }
}

/// What of busybox tests call.
const PROGRAMS: &[&str] = &[
    "cat", "chroot", "cp", "env", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mount", "mv",
    "readlink", "rm", "setsid", "sh", "sleep", "touch", "tr", "umount",
];

/// A Linux root with what every one has, below `dir`.
pub(crate) fn linux_root(dir: &Path) -> PathBuf {
    let root = dir.join("linux");
    if root.exists() {
        return root;
    }
    for part in ["bin", "etc"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in PROGRAMS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/inside", root.join("lib-run")).unwrap();
    std::fs::write(root.join("etc/alpine-release"), "3.22.0\n").unwrap();
    root
}
