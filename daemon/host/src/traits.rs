//! The traits a host implements. No default bodies: a fake must not inherit real behaviour, nor the other way round.
//!
//! Rules for every mutating call:
//! * *Idempotent*: asked again after success it returns `Unchanged`; asked again after a crash or a timeout at any
//!   point it finishes the work.
//! * *Marked*: what it creates bears our mark before it is of any use; what lacks the mark is never changed
//!   (`HostErrorKind::Foreign`).
//! * *Bounded*: it returns within its own deadline (`Timeout`), having left nothing that a repeat can't finish.
//! * Calls for one sandbox are never made concurrently by the node; calls for different sandboxes are.

use crate::build::ImageBuild;
use crate::error::HostResult;
use crate::names::{ContainerName, ImageId, SandboxId, VolumeName};
use crate::observe::{Change, HostInfo, HostObservation, ImageInfo, Leftover, Note};
use crate::pull::{PullProgress, PullRequest, PulledImage};
use crate::service::{Listener, ServiceTable};
use crate::spec::{ContainerSpec, NetworkSpec, Resources, SandboxSpec, Signal, VolumeSpec};
use crate::usage::{HostPressure, SandboxDisk, UsageReport};
use async_trait::async_trait;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// All that the node needs of a host.
#[async_trait]
pub trait Host:
    Sandboxes + Network + Services + ImageStore + Exec + Attach + Connect + Usage + Send + Sync + 'static
{
    /// What this machine is. Cheap; capacity may change between calls.
    ///
    /// # Errors
    /// `Other` when the system can't be read.
    async fn info(&self) -> HostResult<HostInfo>;

    /// All of ours on this host, in a constant number of queries. Never fails as a whole: what can't be read is
    /// `Unknown`. Executes nothing that changes state.
    async fn observe(&self) -> HostObservation;

    /// Things that changed by themselves. A hint only: the receiver observes. A lagging receiver observes anew.
    fn events(&self) -> broadcast::Receiver<HostEvent>;

    /// Removes one thing that [`HostObservation::leftovers`] named. Gone already is `Unchanged`.
    ///
    /// # Errors
    /// `Busy` when it is in use, `Foreign` when it does not bear our mark (any more).
    async fn leftover_remove(&self, leftover: &Leftover) -> HostResult<Change>;

    /// Takes away what is there for no sandbox in particular: services, the pod network, mounts, control groups. No
    /// sandbox runs, and nothing but a restart of the daemon comes after it, which makes all of it anew.
    ///
    /// # Errors
    /// `Busy` while something still uses it, `Other`.
    async fn withdraw(&self) -> HostResult<()> {
        let _ = self.services_ensure(&ServiceTable::default()).await?;
        self.network_remove().await.map(drop)
    }
}

/// Something on the host changed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// A container started, ended or got lost.
    Container(SandboxId, ContainerName),
    /// A sandbox changed outside our calls.
    Sandbox(SandboxId),
    /// The pod network changed outside our calls.
    Network,
    /// Some notices were lost: look at everything.
    Everything,
}

/// Sandboxes, their containers and their volumes.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// Brings the sandbox from absent, Partial or Stopped to Running: mark, volumes, network, namespaces or zone.
    ///
    /// A Running sandbox whose spec differs only in what can be changed in place (resources) is changed in place;
    /// differing otherwise is `Conflict` (the planner destroys first).
    ///
    /// # Errors
    /// `InvalidSpec`, `Conflict`, `Foreign` (a zone, link or directory of that name without our mark), `Busy`,
    /// `Unsupported`, `Exhausted`, `Timeout`, `Other`.
    async fn sandbox_ensure(&self, spec: &SandboxSpec) -> HostResult<Change>;

    /// Kills whatever still runs in it and brings it to Stopped (halt). Absent is `Unchanged`.
    ///
    /// # Errors
    /// `Busy` while something can't be killed yet, `Timeout`, `Other`.
    async fn sandbox_stop(&self, id: &SandboxId) -> HostResult<Change>;

    /// Removes all of it: containers' records, root file systems, volumes, network, cgroups or zone, mark last.
    /// Absent is `Unchanged`. Logs stay.
    ///
    /// # Errors
    /// `InvalidState` while a container runs in it (stop first), `Busy`, `Timeout`, `Other`.
    async fn sandbox_destroy(&self, id: &SandboxId) -> HostResult<Change>;

    /// Replaces a `Files` volume's content atomically; containers see the new files without a restart.
    ///
    /// # Errors
    /// `NotFound` (no such sandbox or volume), `InvalidSpec` when the volume is not of that kind, `Exhausted`.
    async fn volume_update(&self, id: &SandboxId, volume: &VolumeName, spec: &VolumeSpec) -> HostResult<Change>;

    /// Makes and starts one instance. The same name and attempt again is `Unchanged` if it started, whatever it
    /// does now. An older attempt of the same name must have exited.
    ///
    /// A program that can't be executed makes an Exited instance with a message and code 126 to 128, not an error.
    ///
    /// # Errors
    /// `NotFound` (sandbox, image), `InvalidState` (sandbox not Running, an older attempt still runs),
    /// `InvalidSpec` (unknown user, bad capability), `Exhausted`, `Timeout`, `Other`.
    async fn container_start(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change>;

    /// Sends a signal to the instance's first process (SIGKILL: to all of its processes) and records the stop
    /// request when `signal` is SIGKILL or the container's stop signal. Exited or absent is `Unchanged`.
    ///
    /// SIGKILL to a lost instance is no stop request but ends whatever is left of it and puts its end on record:
    /// exited with 137 and [`ContainerObserved::lost`](crate::ContainerObserved::lost).
    ///
    /// # Errors
    /// `Busy` (what is left of a lost instance is not gone yet), `Other`.
    async fn container_signal(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        signal: Signal,
    ) -> HostResult<Change>;

    /// Notes durably how far an instance has come; nothing inside notices. Comes back in observations. A second
    /// [`Note::Stopping`] is `Unchanged`, as is any note about an instance that has exited or is absent.
    ///
    /// A signal that [`Sandboxes::container_signal`] records after a noted stop is recorded with it.
    ///
    /// # Errors
    /// `Exhausted`, `Other`.
    async fn container_note(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        note: Note,
    ) -> HostResult<Change>;

    /// Changes limits of a running instance in place, and its recorded spec.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` (exited), `Busy` (memory limit below use), `Other`.
    async fn container_update(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        resources: &Resources,
    ) -> HostResult<Change>;

    /// Forgets an exited instance and removes its root file system and its log. Absent is `Unchanged`.
    ///
    /// # Errors
    /// `InvalidState` while it runs, `Busy`, `Other`.
    async fn container_remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change>;
}

/// The pod network as one value.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes bridge or etherstub, gateway address, forwarding and masquerade as asked; repairs drift.
    ///
    /// # Errors
    /// `Foreign` when a link of that name lacks our mark, `Conflict` when the address range is in use on this host,
    /// `Unsupported`, `Timeout`, `Other`.
    async fn network_ensure(&self, spec: &NetworkSpec) -> HostResult<Change>;

    /// Removes all of it. Absent is `Unchanged`.
    ///
    /// # Errors
    /// `Busy` while sandboxes use it, `Other`.
    async fn network_remove(&self) -> HostResult<Change>;
}

/// Services and network policies, as one value.
#[async_trait]
pub trait Services: Send + Sync {
    /// Makes packets go as the table says, in one step: nobody sees half of it, connections that stand go on. What was
    /// changed by others is put right; asked again without a change it costs next to nothing. The empty table removes all
    /// of it. What clients of a UDP service that lost its backend send finds another one.
    ///
    /// # Errors
    /// `InvalidSpec` ([`ServiceTable::problem`]), `Conflict` when the host uses cluster addresses itself, `Foreign`,
    /// `Unsupported`, `Timeout`, `Other`.
    async fn services_ensure(&self, table: &ServiceTable) -> HostResult<Change>;

    /// What is missing or wrong since the last [`Services::services_ensure`], in words; empty when nothing is.
    ///
    /// # Errors
    /// `Unsupported`, `Timeout`, `Other`.
    async fn services_drift(&self) -> HostResult<Vec<String>>;

    /// Ports on which the host's own programs listen for others: a service's port there takes their connections away.
    ///
    /// # Errors
    /// `Other`.
    async fn listeners(&self) -> HostResult<BTreeSet<Listener>>;

    /// Networks that this host reaches besides ours, with what leads there, for people.
    ///
    /// # Errors
    /// `Other`.
    async fn routes(&self) -> HostResult<Vec<(String, IpNet)>>;
}

/// Images that containers start from.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// Imports a root file system directory, an OCI layout directory, or an archive (tar, tar.gz, tar.zst) of an
    /// OCI layout, of `docker save` or of a root file system under `name`. The same content again only adds the name. A name that pointed elsewhere moves.
    ///
    /// # Errors
    /// `NotFound` (path), `InvalidSpec` (not an image, unsafe paths, digest mismatch), `Exhausted`, `Other`.
    async fn image_import(&self, source: &Path, name: &str) -> HostResult<ImageInfo>;

    /// Fetches an image from its registry, unless what the registry has is here already, and gives it the reference's
    /// full form as a name. Cancel safe: what is half done is gone on with, or removed, later; it is never seen.
    /// Several run at a time. Not bounded as a whole, but a registry that says nothing is given up.
    ///
    /// # Errors
    /// `NotFound` (the registry has it not), `Denied`, `Unreachable` (no answer, cut off, 429, 5xx), `InvalidSpec`
    /// (wrong digest, not for this host, unsafe), `Exhausted` (no room), `Busy`, `Unsupported`, `Other`.
    async fn image_pull(
        &self,
        request: &PullRequest,
        progress: &watch::Sender<PullProgress>,
    ) -> HostResult<PulledImage>;

    /// Makes an image of files or of an ended container: one layer more than the image below, which it shares. The same
    /// again is the same image. Nothing of it is seen before all of it is there.
    ///
    /// # Errors
    /// `NotFound` (the image below, the container, a file), `InvalidState` (the container has not ended), `InvalidSpec`
    /// (no content, a target that is not absolute, device nodes), `Exhausted`, `Busy`, `Unsupported`, `Other`.
    async fn image_build(&self, build: &ImageBuild) -> HostResult<ImageInfo>;

    /// Removes images with all their names, those in use left out, and gives those that are gone. Constant in the number
    /// of images but for their files.
    ///
    /// # Errors
    /// `Busy`, `Other`.
    async fn image_collect(&self, images: &[ImageId]) -> HostResult<Vec<ImageId>>;

    /// All images, by name.
    ///
    /// # Errors
    /// `Other`.
    async fn image_list(&self) -> HostResult<Vec<ImageInfo>>;

    /// Removes a name, and the image when no name is left. Absent is `Unchanged`.
    ///
    /// # Errors
    /// `Busy` while a container uses it (only when it is the last name), `Other`.
    async fn image_remove(&self, name: &str) -> HostResult<Change>;
}

/// Commands in running containers.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Starts a command beside the container's first process: same root, namespaces, user, limits.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` (not running), `InvalidSpec` (no such program), `Other`.
    async fn exec(&self, id: &SandboxId, name: &ContainerName, request: ExecRequest) -> HostResult<Session>;
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// A terminal: stdout only, sizes through [`Session::resize`].
    pub tty: bool,
    /// Whether standard input is connected.
    pub stdin: bool,
    /// Dropping the session before the command's end kills all that it started, wherever that has put itself;
    /// otherwise only the command's process group.
    pub contained: bool,
}

/// The standard streams of containers' first processes.
#[async_trait]
pub trait Attach: Send + Sync {
    /// Joins a running container's standard streams: what it writes from now on, and its standard input where it has
    /// one ([`ContainerSpec::stdin`]). Several may be attached at a time; each sees all output. A client that takes
    /// nothing for some seconds is let go: the container and its log never wait for it longer. Dropping the session
    /// leaves the container running; only the end of a standard input with [`ContainerSpec::stdin_once`] is passed on.
    ///
    /// The session's `exit` tells, with code 0, that the container's output has ended.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` (not running), `Unsupported` (started by a version that could not), `Exhausted`
    /// (too many are attached), `Other`.
    async fn attach(&self, id: &SandboxId, name: &ContainerName, request: AttachRequest) -> HostResult<Session>;
}

/// Connections into sandboxes.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Connects to a TCP port of a sandbox as a process inside would: at 127.0.0.1, then at ::1.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` (not running, or nobody listens there), `Exhausted`, `Timeout`, `Other`.
    async fn connect(&self, id: &SandboxId, port: u16) -> HostResult<Connection>;

    /// Connects to a TCP port as the host itself would: from its own network, names looked up by its own resolver. The
    /// caller gives it up by dropping it.
    ///
    /// The message says it in Go's words (`dial tcp 10.0.0.1:80: connect: connection refused`), which are what users of
    /// Kubernetes look for.
    ///
    /// # Errors
    /// `NotFound` (no such name), `InvalidState` (nobody listens there), `Exhausted`, `Timeout`, `Other`.
    async fn dial(&self, host: &str, port: u16) -> HostResult<Connection>;
}

/// What the host and what runs on it use. Executes nothing that changes state.
#[async_trait]
pub trait Usage: Send + Sync {
    /// The few figures of the host alone that tell whether it runs short of something. Cheap: asked every few seconds.
    ///
    /// # Errors
    /// `Other` when the system can't be read.
    async fn pressure(&self) -> HostResult<HostPressure>;

    /// Host, sandboxes and containers, disks left out, in a constant number of queries beside a few small reads for
    /// each container. Counters of one container never go back while it runs.
    ///
    /// # Errors
    /// `Other` when the system can't be read. A single sandbox that can't be read is left out.
    async fn usage(&self) -> HostResult<UsageReport>;

    /// What sandboxes have on disk. Slow, as every file is looked at: given up after `budget`, when what is missing
    /// shows in [`SandboxDisk::complete`]. Sandboxes that are not there are left out.
    ///
    /// # Errors
    /// `Other`.
    async fn disk_usage(
        &self,
        sandboxes: &[SandboxId],
        budget: Duration,
    ) -> HostResult<BTreeMap<SandboxId, SandboxDisk>>;
}

/// What of a container's standard streams is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Write to its standard input.
    pub stdin: bool,
    /// Read its standard output (or its terminal).
    pub stdout: bool,
    /// Read its standard error; nothing comes there from a terminal.
    pub stderr: bool,
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// A connection; shutting down the writing side leaves the reading side open.
pub type Connection = Box<dyn Duplex>;

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// The standard streams of a process: of a command, which ends when the session is dropped, or of a container's first
/// process, which does not.
pub struct Session {
    /// Its standard input; dropping it is end of file. `None` when not asked for.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output, or its terminal.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error; `None` with a terminal, or when not asked for.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes; ignored without a terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// How it ended. A dropped sender means that the supervisor died.
    pub exit: oneshot::Receiver<ExecExit>,
    /// Dropped with the session, it ends the command, or the attachment.
    pub guard: Box<dyn Send + Sync>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecExit {
    /// Exit code; 128+n for death by signal n.
    pub code: i32,
    /// What went wrong before the program ran; empty otherwise.
    pub message: String,
}
