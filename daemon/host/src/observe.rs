//! What a host says of itself. *Unknown is not absent*: nothing is deleted or made again on `Unknown`.

use crate::names::{Brand, ContainerName, ImageId, SandboxId};
use crate::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use crate::time::BootTime;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A fact, or the reason why it could not be found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Observation<T> {
    /// The host said so.
    Known(T),
    /// The host could not be asked, or its answer made no sense.
    Unknown(String),
}

impl<T> Observation<T> {
    /// The fact, when known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(v) => Some(v),
            Self::Unknown(_) => None,
        }
    }
}

/// What a mutating call did.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// All was as asked already.
    Unchanged,
    /// Something was done; in words.
    Changed(String),
}

/// Everything of ours on the host at one moment, gathered with a constant number of queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostObservation {
    /// When it was taken.
    pub at: BootTime,
    /// All sandboxes that bear our mark. The outer `Unknown`: the list itself could not be read.
    pub sandboxes: Observation<BTreeMap<SandboxId, Observation<SandboxObserved>>>,
    /// The pod network; `Known(None)` when there is none of ours.
    pub network: Observation<Option<NetworkObserved>>,
    /// Things that bear our mark but belong to no sandbox (left by a crash in the middle of something).
    pub leftovers: Vec<Leftover>,
    /// Images in the store, by content.
    pub images: Observation<BTreeMap<ImageId, ImageInfo>>,
}

/// One sandbox as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxObserved {
    /// The spec it was made from, as last changed in place: our mark.
    /// Shared: a pass over a thousand sandboxes copies none of them.
    pub spec: Arc<SandboxSpec>,
    /// Its state.
    pub state: SandboxState,
    /// When `sandbox_ensure` last brought it to Running.
    pub started: Option<BootTime>,
    /// Every container instance that the host still knows, newest attempt last.
    pub containers: BTreeMap<ContainerName, Vec<ContainerObserved>>,
}

/// The states that hosts' own states map to.
///
/// | illumos zone state | here |
/// |---|---|
/// | configured, incomplete | Partial |
/// | installed | Stopped |
/// | ready, running | Running (ready: Partial) |
/// | shutting_down, down, mounted | Stopping |
/// | any other text | Other |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SandboxState {
    /// Made in part; `sandbox_ensure` goes on, `sandbox_destroy` cleans up. Which part is missing, in words.
    Partial(String),
    /// Complete; containers can run in it.
    Running,
    /// Going down; wait or stop again.
    Stopping,
    /// Complete, but nothing runs and nothing can until `sandbox_ensure`.
    Stopped,
    /// A state that this version does not know: left alone, shown.
    Other(String),
}

/// One instance (attempt) of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerObserved {
    /// The spec it was started from.
    pub spec: Arc<ContainerSpec>,
    /// Its state.
    pub state: ContainerState,
    /// The last request to stop it, if any.
    pub stop: Option<StopRequest>,
    /// [`Note::Started`] was noted.
    #[serde(default)]
    pub post_started: bool,
    /// Process killed by the kernel for want of memory.
    pub oom_killed: bool,
    /// It was [`ContainerState::Lost`], and then made sure to have ended: how, nobody knows.
    #[serde(default)]
    pub lost: bool,
}

/// A container instance's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// Being made: `container_start` was begun and not finished.
    Creating,
    /// Its first process runs.
    Running {
        /// When it started.
        started: BootTime,
        /// The same for people.
        started_at: DateTime<Utc>,
        /// The first process's id on the host.
        pid: u32,
    },
    /// Its first process ended, or never started.
    Exited {
        /// Exit code; 128+n for death by signal n.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// When it started; `None` when it never did.
        started: Option<BootTime>,
        /// When it ended.
        finished: BootTime,
        /// The same for people.
        started_at: Option<DateTime<Utc>>,
        /// The same for people.
        finished_at: DateTime<Utc>,
        /// What went wrong, where the host knows (`exec: no such file`); empty otherwise.
        message: String,
    },
    /// The supervisor is gone and left no word; whether the process runs is not known.
    Lost(String),
}

/// A container was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// When first asked.
    pub at: BootTime,
    /// SIGKILL was sent.
    pub killed: bool,
    /// How it is to stop, where that was noted before any signal; `None`: its stop signal was sent at `at`.
    #[serde(default)]
    pub order: Option<StopOrder>,
}

/// How a container is to stop ([`Note::Stopping`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// The time that it was given, from [`StopRequest::at`].
    pub grace: Duration,
    /// It stops for a failure of its own: it waits its back-off before it is started again.
    pub fault: bool,
    /// When its stop signal was sent; `None`: what comes before that is not done.
    #[serde(default)]
    pub signalled: Option<BootTime>,
}

impl StopRequest {
    /// When its stop signal was sent; `None`: not yet.
    pub fn signalled(&self) -> Option<BootTime> {
        match self.order {
            Some(order) => order.signalled,
            None => Some(self.at),
        }
    }

    /// Whether it stops for a failure of its own.
    pub fn is_fault(&self) -> bool {
        self.order.is_some_and(|o| o.fault)
    }
}

/// What a host remembers of an instance because the node asks it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Note {
    /// Its postStart hook is done.
    Started,
    /// It is to stop, and something comes before its stop signal, or its grace is its own.
    Stopping {
        /// The time that it is given from now on.
        grace: Duration,
        /// It stops for a failure of its own.
        fault: bool,
    },
}

/// The pod network as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkObserved {
    /// As last applied and still true.
    pub spec: NetworkSpec,
    /// What is missing or wrong, in words; empty when all is as applied.
    pub drift: Vec<String>,
}

/// Something of ours without an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leftover {
    /// `link`, `mount`, `cgroup`, `process`, `dataset`, `directory`.
    pub kind: String,
    /// Its name on the host.
    pub name: String,
}

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// By content.
    pub id: ImageId,
    /// Names it was imported under, normalised (`docker.io/library/web:1` stays as typed by the user here).
    pub names: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Those of its names that came from a registry, and what the registry called it
    /// (`docker.io/library/web@sha256:…`). Other names were given by hand.
    #[serde(default)]
    pub pulled: BTreeMap<String, String>,
    /// When a container was last started from it, or it came here; `None`: not known.
    #[serde(default)]
    pub last_used: Option<DateTime<Utc>>,
}

impl ImageInfo {
    /// Whether a person put it here: it is not removed for want of room.
    pub fn is_imported(&self) -> bool {
        self.names.iter().any(|name| !self.pulled.contains_key(name))
    }
}

/// The part of an OCI image config that matters for running (OCI image spec, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// WORKDIR.
    pub working_dir: String,
    /// USER.
    pub user: String,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
}

impl ImageConfig {
    /// The part of an image's config document that says how to run it (OCI image spec, config.md). Every field may be
    /// null.
    ///
    /// # Errors
    /// Where the document is none.
    pub fn of_document(document: &[u8]) -> serde_json::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Run {
            entrypoint: Option<Vec<String>>,
            cmd: Option<Vec<String>>,
            env: Option<Vec<String>>,
            working_dir: Option<String>,
            user: Option<String>,
            stop_signal: Option<String>,
        }
        #[derive(Deserialize)]
        struct Document {
            config: Option<Run>,
        }
        let document: Document = serde_json::from_slice(document)?;
        let Run { entrypoint, cmd, env, working_dir, user, stop_signal } = document.config.unwrap_or_default();
        Ok(Self {
            entrypoint: entrypoint.unwrap_or_default(),
            cmd: cmd.unwrap_or_default(),
            env: env.unwrap_or_default(),
            working_dir: working_dir.unwrap_or_default(),
            user: user.unwrap_or_default(),
            stop_signal: stop_signal.filter(|s| !s.is_empty()),
        })
    }
}

/// What this machine is, for the Node object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// `linux`, `illumos`, `sim`.
    pub kind: String,
    /// Brands that `sandbox_ensure` accepts.
    pub brands: Vec<Brand>,
    /// CPUs, in thousandths.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Bytes of the file system under the state directory.
    pub storage_bytes: u64,
    /// Addresses other than loopback.
    pub addresses: Vec<std::net::IpAddr>,
    /// `uname -r`.
    pub kernel_version: String,
    /// PRETTY_NAME of os-release(5).
    pub os_image: String,
    /// Kubernetes' architecture name (`amd64`).
    pub architecture: String,
    /// machine-id(5), or what stands for it.
    pub machine_id: String,
    /// Changes at every boot.
    pub boot_id: String,
    /// Name and version of what runs containers, e.g. `libcontainer://0.7.0`.
    pub runtime_version: String,
}
