//! The files that say what there is: written by daemon and shim, read by every later daemon.

pub(crate) use crate::files::{read_record, write_record};
use crate::options::LinuxOptions;
use crate::process::ProcessId;
use crate::rootfs::RootfsRequest;
use crate::users::UserRange;
use reddwarf_host::spec::{ContainerSpec, EnvFile, Propagation, SandboxSpec};
use reddwarf_host::{BootTime, HostResult};
use reddwarf_supervise::instance::{self, Running};
use reddwarf_supervise::record;
pub(crate) use reddwarf_supervise::record::{ContainerExit, FailureKind, MARK_VERSION, Moment};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `sandbox.json`: our mark, and the spec as last applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxMark {
    /// Format of the file, for later versions.
    pub(crate) version: u32,
    /// The instance that owns it.
    pub(crate) instance: String,
    /// Shared with every observation of the sandbox.
    pub(crate) spec: Arc<SandboxSpec>,
    /// The users and groups that are its own, if it has such.
    #[serde(default)]
    pub(crate) users: Option<UserRange>,
}

/// `state.json` of a sandbox. Absent: made in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SandboxPhase {
    Running { started: BootTime },
    Stopping,
    Stopped,
}

/// `launch.json`: all that a shim needs in order to make the container. It takes nothing from anywhere else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) options: LinuxOptions,
    /// Unique among containers of this instance; the runtime's container id.
    pub(crate) id: String,
    pub(crate) container: ContainerSpec,
    pub(crate) rootfs: RootfsRequest,
    /// Network, IPC and UTS namespaces to join; an absent network path means the host's own.
    pub(crate) namespaces: NamespacePaths,
    /// Below each hierarchy's root, `/INSTANCE/SANDBOX/CONTAINER.ATTEMPT`.
    pub(crate) cgroup: PathBuf,
    /// Host files for `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
    pub(crate) etc: PathBuf,
    /// The pod's `/dev/shm`.
    pub(crate) shm: PathBuf,
    pub(crate) mounts: Vec<LaunchMount>,
    #[serde(default)]
    pub(crate) env_files: Vec<LaunchEnvFile>,
    /// The file of the container's last words; absent where the pod wants none.
    #[serde(default)]
    pub(crate) last_words: Option<PathBuf>,
    /// First process of the container whose PID namespace is shared.
    #[serde(default)]
    pub(crate) process_peer: Option<ProcessId>,
}

/// Where the sandbox's namespaces are pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NamespacePaths {
    /// The one that owns the others, where the sandbox has users of its own.
    #[serde(default)]
    pub(crate) user: Option<PathBuf>,
    pub(crate) net: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    /// That of all containers of the sandbox, where they share it.
    #[serde(default)]
    pub(crate) pid: Option<PathBuf>,
}

/// One volume mount, its source resolved to a path of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchMount {
    /// Root of the volume.
    pub(crate) source: PathBuf,
    /// The volume is a path of the host: opened without following a final symlink, checked for this kind.
    pub(crate) host_path: Option<reddwarf_host::spec::HostPathKind>,
    /// Path within the volume; empty for all of it.
    pub(crate) sub_path: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// The volume's name, for messages.
    #[serde(default)]
    pub(crate) volume: String,
    /// What is mounted below it is read-only as well.
    #[serde(default)]
    pub(crate) recursive_read_only: bool,
    #[serde(default)]
    pub(crate) propagation: Propagation,
}

/// A variable from a file of a volume, whose root on the host is `source`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchEnvFile {
    pub(crate) source: PathBuf,
    pub(crate) file: EnvFile,
}

/// `state.json` of a container, written by the shim when the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRunning {
    pub(crate) init: ProcessId,
    pub(crate) shim: ProcessId,
    pub(crate) started: Moment,
}

/// Name of a shim's socket in its instance's directory.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";

impl Running for ContainerRunning {
    fn pid(&self) -> u32 {
        self.init.pid
    }
    fn started(&self) -> Moment {
        self.started
    }
    fn outlived(&self) -> bool {
        self.init.is_alive()
    }
    fn lost(&self) -> String {
        let process = if self.init.is_alive() { "still runs" } else { "is gone as well" };
        let (shim, init) = (self.shim.pid, self.init.pid);
        format!("its supervisor (process {shim}) ended without a word; its first process {init} {process}")
    }
}

/// One container instance's directory.
pub(crate) type ContainerDir = instance::ContainerDir<ContainerRunning>;

/// What else lies there on Linux.
pub(crate) trait ShimFiles {
    /// The OCI bundle: `config.json`, and `rootfs` to mount on.
    fn bundle(&self) -> PathBuf;
    /// The process as it is meant to be: what the runtime reads in `config.json` may differ on the way there.
    fn process_file(&self) -> PathBuf;
    /// The system call filter, where there is one.
    fn filter_file(&self) -> PathBuf;
    /// Where the shim listens for those who want to attach.
    fn attach_socket(&self) -> PathBuf;
    /// What the shim or the creator had to say that has no better place.
    fn shim_log(&self) -> PathBuf;
}

impl ShimFiles for ContainerDir {
    fn bundle(&self) -> PathBuf {
        self.path().join("bundle")
    }
    fn process_file(&self) -> PathBuf {
        self.bundle().join("process.json")
    }
    fn filter_file(&self) -> PathBuf {
        self.bundle().join("seccomp.bpf")
    }
    fn attach_socket(&self) -> PathBuf {
        self.path().join(ATTACH_SOCKET)
    }
    fn shim_log(&self) -> PathBuf {
        self.path().join("shim.log")
    }
}

/// Reads a sandbox's mark; `None` when the directory or the mark is missing.
pub(crate) fn read_mark(path: &Path) -> HostResult<Option<SandboxMark>> {
    record::read_mark(path, |mark: &SandboxMark| mark.version)
}
