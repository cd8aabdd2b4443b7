//! The files that say what there is: written by daemon and shim, read by every later daemon.

use crate::files::io_error;
pub(crate) use crate::files::read_record;
use crate::options::LinuxOptions;
use crate::process::ProcessId;
use crate::rootfs::RootfsRequest;
use crate::users::UserRange;
use reddwarf_host::spec::{ContainerSpec, EnvFile, Propagation, SandboxSpec};
use reddwarf_host::{BootTime, HostError, HostErrorKind, HostResult, StopRequest};
pub(crate) use reddwarf_supervise::record::{ContainerExit, FailureKind, Moment};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `sandbox.json`: our mark, and the spec as last applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxMark {
    /// Format of the file, for later versions.
    pub(crate) version: u32,
    /// The instance that owns it.
    pub(crate) instance: String,
    pub(crate) spec: SandboxSpec,
    /// The users and groups that are its own, if it has such.
    #[serde(default)]
    pub(crate) users: Option<UserRange>,
}

/// Version of [`SandboxMark`] that this program writes.
pub(crate) const MARK_VERSION: u32 = 1;

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

/// What the shim tells the daemon through its standard output, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ShimReport {
    /// The program runs, or `exit.json` says why it doesn't.
    Ready,
    /// Nothing was started.
    Failed { kind: FailureKind, message: String },
}

/// Name of a shim's socket in its instance's directory.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";

/// One container instance's directory.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDir(pub(crate) PathBuf);

impl ContainerDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    /// `container.json`: the spec, written first.
    pub(crate) fn spec_file(&self) -> PathBuf {
        self.0.join("container.json")
    }
    pub(crate) fn launch_file(&self) -> PathBuf {
        self.0.join("launch.json")
    }
    pub(crate) fn state_file(&self) -> PathBuf {
        self.0.join("state.json")
    }
    pub(crate) fn stop_file(&self) -> PathBuf {
        self.0.join("stop.json")
    }
    pub(crate) fn exit_file(&self) -> PathBuf {
        self.0.join("exit.json")
    }
    /// There when the instance's postStart hook is done.
    pub(crate) fn post_started_file(&self) -> PathBuf {
        self.0.join("post-started.json")
    }
    /// The OCI bundle: `config.json`, and `rootfs` to mount on.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }
    /// The process as it is meant to be: what the runtime reads in `config.json` may differ on the way there.
    pub(crate) fn process_file(&self) -> PathBuf {
        self.bundle().join("process.json")
    }
    /// The system call filter, where there is one.
    pub(crate) fn filter_file(&self) -> PathBuf {
        self.bundle().join("seccomp.bpf")
    }
    /// Where the shim listens for those who want to attach.
    pub(crate) fn attach_socket(&self) -> PathBuf {
        self.0.join(ATTACH_SOCKET)
    }
    /// What the shim or the creator had to say that has no better place.
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn spec(&self) -> HostResult<Option<ContainerSpec>> {
        read_record("read container record", &self.spec_file())
    }
    pub(crate) fn state(&self) -> HostResult<Option<ContainerRunning>> {
        read_record("read container state", &self.state_file())
    }
    pub(crate) fn stop(&self) -> HostResult<Option<StopRequest>> {
        read_record("read stop request", &self.stop_file())
    }
    pub(crate) fn post_started(&self) -> HostResult<bool> {
        Ok(read_record("read note", &self.post_started_file())?.unwrap_or(false))
    }
    pub(crate) fn exit(&self) -> HostResult<Option<ContainerExit>> {
        read_record("read exit record", &self.exit_file())
    }
}

/// Reads a sandbox's mark; `None` when the directory or the mark is missing.
pub(crate) fn read_mark(path: &Path) -> HostResult<Option<SandboxMark>> {
    let Some(mark) = read_record::<SandboxMark>("read sandbox mark", path)? else { return Ok(None) };
    if mark.version > MARK_VERSION {
        let message = format!("was written by a later version (format {}): left alone", mark.version);
        return Err(HostError::new(HostErrorKind::Other, "read sandbox mark", path.display().to_string(), message));
    }
    Ok(Some(mark))
}

/// Writes a record, with the path in the error.
pub(crate) fn write_record<T: Serialize>(op: &'static str, path: &Path, value: &T) -> HostResult<()> {
    crate::files::write_json(path, value).map_err(|e| io_error(op, path, e))
}
