//! The files that say what there is: written by daemon and supervisor, read by every later daemon.

use crate::paths::Paths;
use reddwarf_host::spec::{ContainerSpec, LogSpec, SandboxSpec, TerminationMessage};
use reddwarf_host::{
    BootTime, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, SandboxId, StopRequest,
};
use reddwarf_supervise::files::{io_error, names_in, read_record, write_json};
use reddwarf_supervise::lock;
use reddwarf_supervise::record::{ContainerExit, FailureKind, Moment};
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
}

/// Version of [`SandboxMark`] that this program writes.
pub(crate) const MARK_VERSION: u32 = 1;

/// `state.json` of a sandbox: all of it is made and runs. Absent: not, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRunning {
    pub(crate) started: BootTime,
}

/// `launch.json`: all that a supervisor needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// zlogin(1), by its absolute path.
    pub(crate) zlogin: PathBuf,
    pub(crate) zone: String,
    /// The one argument for zlogin.
    pub(crate) script: String,
    /// Where what runs inside says how it goes: `OUT.started`, `OUT.ended`.
    pub(crate) out: PathBuf,
    /// Where the supervisor listens.
    pub(crate) socket: PathBuf,
    pub(crate) log: LogSpec,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) termination: TerminationMessage,
    /// The file of the container's last words, where it has one.
    pub(crate) last_words: Option<PathBuf>,
    /// The slot of its root file system.
    #[serde(default)]
    pub(crate) slot: Option<u32>,
}

/// `state.json` of a container, written by the supervisor when the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRunning {
    /// The program's first process. Processes of zones have numbers of the whole host.
    pub(crate) pid: u32,
    pub(crate) supervisor: u32,
    pub(crate) started: Moment,
}

/// What the supervisor tells the daemon through its standard output, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    /// The program runs, or `exit.json` says why it doesn't.
    Ready,
    /// Nothing was started.
    Failed { kind: FailureKind, message: String },
}

/// One container instance's directory.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDir(pub(crate) PathBuf);

impl ContainerDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
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
    pub(crate) fn post_started_file(&self) -> PathBuf {
        self.0.join("post-started.json")
    }
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    pub(crate) fn spec(&self) -> HostResult<Option<ContainerSpec>> {
        read_record("read container record", &self.spec_file())
    }
    pub(crate) fn launch(&self) -> HostResult<Option<Launch>> {
        read_record("read launch record", &self.launch_file())
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

/// Writes a record, with the path in the error.
pub(crate) fn write_record<T: Serialize>(op: &'static str, path: &Path, value: &T) -> HostResult<()> {
    write_json(path, value).map_err(|e| io_error(op, path, e))
}

/// A sandbox's mark; `None` when there is none.
pub(crate) fn read_mark(path: &Path) -> HostResult<Option<SandboxMark>> {
    let Some(mark) = read_record::<SandboxMark>("read sandbox mark", path)? else { return Ok(None) };
    if mark.version > MARK_VERSION {
        let message = format!("was written by a later version (format {}): left alone", mark.version);
        return Err(HostError::new(HostErrorKind::Other, "read sandbox mark", path.display().to_string(), message));
    }
    Ok(Some(mark))
}

/// All instances of a sandbox: name, attempt, directory. Half-removed ones included.
pub(crate) fn instances(paths: &Paths, id: &SandboxId) -> HostResult<Vec<(ContainerName, u32, ContainerDir)>> {
    let dir = paths.containers(id);
    let failed = |e| io_error("list containers", &dir, e);
    let mut found = Vec::new();
    for name in names_in(&dir).map_err(failed)? {
        let Ok(name) = ContainerName::new(name) else { continue };
        for attempt in names_in(&dir.join(name.as_str())).map_err(failed)? {
            if let Ok(attempt) = attempt.parse() {
                found.push((name.clone(), attempt, ContainerDir(paths.container(id, &name, attempt))));
            }
        }
    }
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(found)
}

/// An instance's state from its records and its lock.
pub(crate) fn state(dir: &ContainerDir, lock_file: &Path) -> HostResult<ContainerState> {
    if let Some(exit) = dir.exit()? {
        return Ok(exit.into());
    }
    let held = lock::is_held(lock_file).map_err(|e| io_error("look for supervisor", lock_file, e))?;
    match (dir.state()?, held) {
        (Some(running), true) => Ok(ContainerState::Running {
            started: running.started.boot,
            started_at: running.started.wall,
            pid: running.pid,
        }),
        (None, true) => Ok(ContainerState::Creating),
        // The supervisor ends after it has written exit.json: once more, now that it is surely gone.
        (running, false) => match (dir.exit()?, running) {
            (Some(exit), _) => Ok(exit.into()),
            (None, None) => Ok(ContainerState::Creating),
            (None, Some(running)) => Ok(ContainerState::Lost(format!(
                "its supervisor (process {}) ended without a word; its first process was {}",
                running.supervisor, running.pid
            ))),
        },
    }
}
