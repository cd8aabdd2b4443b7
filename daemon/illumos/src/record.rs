//! The files that say what there is: written by daemon and supervisor, read by every later daemon.

use reddwarf_host::spec::{LogSpec, SandboxSpec, TerminationMessage};
use reddwarf_host::{BootTime, HostResult};
use reddwarf_supervise::files::read_record;
use reddwarf_supervise::instance::{self, Running};
use reddwarf_supervise::record::{self, Moment};
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

/// `state.json` of a sandbox: all of it is made and runs. Absent: not, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRunning {
    pub(crate) started: BootTime,
    /// The number that its zone has, another one after each boot: one that somebody else booted anew lacks what we do after
    /// a boot. Notes of earlier versions have none.
    #[serde(default)]
    pub(crate) zone: Option<u32>,
}

impl SandboxRunning {
    /// Whether it is about the zone of this number.
    pub(crate) fn is_of(&self, zone: Option<u32>) -> bool {
        self.zone.is_none() || self.zone == zone
    }
}

/// `launch.json`: all that a supervisor needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// zlogin(1), by its absolute path.
    pub(crate) zlogin: PathBuf,
    /// What it is called with besides.
    #[serde(default)]
    pub(crate) login: Vec<String>,
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

impl Running for ContainerRunning {
    fn pid(&self) -> u32 {
        self.pid
    }
    fn started(&self) -> Moment {
        self.started
    }
    /// Nobody knows: what runs in a zone is asked of the zone.
    fn outlived(&self) -> bool {
        false
    }
    fn lost(&self) -> String {
        format!("its supervisor (process {}) ended without a word; its first process was {}", self.supervisor, self.pid)
    }
}

/// One container instance's directory.
pub(crate) type ContainerDir = instance::ContainerDir<ContainerRunning>;

/// What a supervisor of that instance was started from.
pub(crate) fn launch(dir: &ContainerDir) -> HostResult<Option<Launch>> {
    read_record("read launch record", &dir.launch_file())
}

/// What the supervisor had to say that has no better place.
pub(crate) fn supervisor_log(dir: &ContainerDir) -> PathBuf {
    dir.path().join("supervisor.log")
}

/// A sandbox's mark; `None` when there is none.
pub(crate) fn read_mark(path: &Path) -> HostResult<Option<SandboxMark>> {
    record::read_mark(path, |mark: &SandboxMark| mark.version)
}
