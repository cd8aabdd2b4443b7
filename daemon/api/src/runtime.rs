//! What the API needs from the rest of the daemon. The API knows no host: the daemon's wiring implements these traits
//! over the node and the directory source, tests over fakes.

use crate::types::{
    BackupReport, Check, Done, FileSet, GenerationDetail, GenerationDiff, GenerationList, Image, ImageBuild,
    ImageBuildStatus, ImageImport, ImageList, ImagePull, ImagePullList, ImagePullStatus, ImagesPruned, PlanReport,
    ReloadReport, RollbackReport, StatusReport, VolumeAction, VolumeList, VolumeRequest, WhyReport,
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// Why the daemon could not do what a request asked. The text is shown to the user as it is.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing of that name: 404.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense as it stands: 400.
    #[error("{0}")]
    BadRequest(String),
    /// The state does not allow it now: 409.
    #[error("{0}")]
    Conflict(String),
    /// Not in this version or on this host: 501.
    #[error("{0}")]
    Unsupported(String),
    /// Try again later: 503.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault or the host's: 500.
    #[error("{0}")]
    Internal(String),
}

/// A pod by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// `GET pods/{name}/log` query, as in the Kubernetes API (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; the API has checked that it exists, and filled in the only one.
    pub container: String,
    /// Keep the stream open for new lines until the container is gone.
    pub follow: bool,
    /// Of the terminated instance before the present one.
    pub previous: bool,
    /// Only lines at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Prefix every line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Of which output.
    pub stream: LogOutput,
}

/// Which of a container's outputs a log is read of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Both, as they came.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A log being read: chunks of text ready to send. The sender waits when the reader is slow and stops when the
/// receiver is dropped (the client went away).
pub type LogStream = mpsc::Receiver<Result<Bytes, RuntimeError>>;

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Container; the API has checked that it exists.
    pub container: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// A terminal.
    pub tty: bool,
    /// Standard input is connected.
    pub stdin: bool,
}

/// What of a container's own standard streams a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Container; the API has checked that it exists.
    pub container: String,
    /// Write to its standard input.
    pub stdin: bool,
    /// Read its standard output.
    pub stdout: bool,
    /// Read its standard error.
    pub stderr: bool,
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// A connection into a pod; shutting down the writing side leaves the reading side open.
pub type Connection = Box<dyn Duplex>;

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// The standard streams of a command, which ends when the session is dropped (F45), or of a container's first process,
/// which does not. The same shape as the host's session, so that wiring only moves fields.
pub struct Session {
    /// Standard input; dropping it is end of file. `None` when not asked for.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, or the terminal.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes; ignored without a terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// How it ended; a dropped sender means that its supervisor died.
    pub exit: oneshot::Receiver<ExecExit>,
    /// Dropped with the session, it ends the command, or the attachment.
    pub guard: Box<dyn Send + Sync>,
}

impl Session {
    /// Of a command that never ran.
    pub(crate) fn ended(exit: ExecExit) -> Self {
        let (told, ended) = oneshot::channel();
        // The receiver is right here.
        let _ = told.send(exit);
        Self {
            stdin: None,
            stdout: Box::new(tokio::io::empty()),
            stderr: None,
            resize: mpsc::channel(1).0,
            exit: ended,
            guard: Box::new(()),
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecExit {
    /// Exit code; 128+n for death by signal n.
    pub code: i32,
    /// What went wrong before the program ran; empty otherwise.
    pub message: String,
}

/// What something uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Billionths of a processor.
    pub cpu_nanocores: u64,
    /// Memory that can't be taken from it at once, in bytes.
    pub memory_bytes: u64,
}

/// What the node and its pods use, for metrics.k8s.io.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsReport {
    /// When it was found out.
    pub time: DateTime<Utc>,
    /// The time that rates are over.
    pub window: Duration,
    /// The Node object's name.
    pub node: String,
    /// The node as a whole.
    pub used: Used,
    /// Pods that run, in order of name; of each its containers.
    pub pods: Vec<(PodName, Vec<(String, Used)>)>,
}

/// The node and the daemon itself.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Log of a container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when the container never ran, [`RuntimeError::BadRequest`] when it waits to start.
    async fn logs(&self, pod: &PodName, options: LogOptions) -> Result<LogStream, RuntimeError>;

    /// Start a command in a running container.
    ///
    /// # Errors
    /// [`RuntimeError::Conflict`] when the container does not run.
    async fn exec(&self, pod: &PodName, options: ExecOptions) -> Result<Session, RuntimeError>;

    /// Join the standard streams of a running container's first process; `exit` tells, with code 0, that its output has
    /// ended.
    ///
    /// # Errors
    /// [`RuntimeError::Conflict`] when the container does not run.
    async fn attach(&self, pod: &PodName, options: AttachOptions) -> Result<Session, RuntimeError>;

    /// Connect to a TCP port inside a pod, as a process inside would: at 127.0.0.1, then at ::1.
    ///
    /// # Errors
    /// [`RuntimeError::Conflict`] when the pod does not run or nobody listens there.
    async fn connect(&self, pod: &PodName, port: u16) -> Result<Connection, RuntimeError>;

    /// What the node would do now, executing nothing.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the host cannot be observed.
    async fn plan(&self) -> Result<PlanReport, RuntimeError>;

    /// Why an object is as it is. `namespace` is `None` for cluster-wide kinds.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown object.
    async fn why(&self, plural: &str, namespace: Option<&str>, name: &str) -> Result<WhyReport, RuntimeError>;

    /// Restart a pod's containers, or one of them.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown pod or container.
    async fn restart(&self, pod: &PodName, container: Option<&str>) -> Result<Done, RuntimeError>;

    /// Images on the host, in name order.
    ///
    /// # Errors
    /// [`RuntimeError::Internal`] with the host's message.
    async fn images(&self) -> Result<ImageList, RuntimeError>;

    /// Import an image from a path.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when the path holds no image.
    async fn image_import(&self, request: &ImageImport) -> Result<Image, RuntimeError>;

    /// Begin to pull an image, or join the pull that is under way.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] for what is no image name.
    async fn image_pull(&self, request: &ImagePull) -> Result<ImagePullStatus, RuntimeError>;

    /// Pulls under way and lately ended, newest last.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without a host.
    async fn image_pulls(&self) -> Result<ImagePullList, RuntimeError>;

    /// Begin to make an image.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] for a recipe that makes no sense, [`RuntimeError::Unavailable`] while as many builds
    /// as may run do.
    async fn image_build(&self, request: &ImageBuild) -> Result<ImageBuildStatus, RuntimeError>;

    /// How far a build is.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for one that is not known (any more).
    async fn image_build_status(&self, id: &str) -> Result<ImageBuildStatus, RuntimeError>;

    /// Remove images that no container was started from; with `all` those too that were imported by hand.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the host can't be asked.
    async fn image_prune(&self, all: bool) -> Result<ImagesPruned, RuntimeError>;

    /// Remove an image by name.
    ///
    /// # Errors
    /// [`RuntimeError::Conflict`] naming the pods that use it.
    async fn image_remove(&self, name: &str) -> Result<Done, RuntimeError>;

    /// Volumes of the host's storage, in name order.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without a host, [`RuntimeError::Unavailable`] when the storage can't be read.
    async fn volumes(&self) -> Result<VolumeList, RuntimeError>;

    /// Does something with a volume.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for an unknown claim, volume or snapshot, [`RuntimeError::Conflict`] while pods use it and
    /// when something of that name is there already, [`RuntimeError::BadRequest`] for bad names and files.
    async fn volume_action(&self, action: VolumeAction, request: &VolumeRequest) -> Result<Done, RuntimeError>;

    /// A full pass now; with `allow_prune` the mass-deletion guard lets this pass through.
    ///
    /// # Errors
    /// [`RuntimeError::Conflict`] when the guard holds.
    async fn reconcile(&self, allow_prune: bool) -> Result<Done, RuntimeError>;

    /// Stop the daemon after answering; with `stop_pods` stop all pods first.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] while already shutting down.
    async fn shutdown(&self, stop_pods: bool) -> Result<Done, RuntimeError>;

    /// Write a consistent copy of the database to a new file.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] for a relative or existing path.
    async fn backup(&self, path: &str) -> Result<BackupReport, RuntimeError>;

    /// Replace the database by a backup; the daemon stops its loops and starts again on it.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when the file is no backup of ours.
    async fn restore(&self, path: &str) -> Result<Done, RuntimeError>;

    /// What the node and its pods use. The first to ask waits for about a second.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] without a host, [`RuntimeError::Internal`] with the host's message.
    async fn metrics_report(&self) -> Result<MetricsReport, RuntimeError>;

    /// What the kubelet answers at `/stats/summary`.
    ///
    /// # Errors
    /// As [`Runtime::metrics_report`].
    async fn stats_summary(&self) -> Result<serde_json::Value, RuntimeError>;

    /// Named checks for `/readyz`, in a fixed order.
    fn checks(&self) -> Vec<Check>;

    /// Further lines for `/metrics`, in the Prometheus text format, each ending in a newline.
    fn metrics(&self) -> String;
}

/// The manifest directory and its generations.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The whole report of `GET status`.
    ///
    /// # Errors
    /// [`RuntimeError::Internal`] only.
    async fn status(&self) -> Result<StatusReport, RuntimeError>;

    /// Read the directory now and wait until it is applied.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] while shutting down.
    async fn reload(&self) -> Result<ReloadReport, RuntimeError>;

    /// What applying these files (and nothing else) would do, executing nothing.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the host cannot be observed. Bad files are no error: see the diagnostics.
    async fn plan(&self, files: FileSet) -> Result<PlanReport, RuntimeError>;

    /// Retained generations, newest first.
    ///
    /// # Errors
    /// [`RuntimeError::Internal`] when the store cannot be read.
    async fn generations(&self) -> Result<GenerationList, RuntimeError>;

    /// One generation.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it is not retained.
    async fn generation(&self, number: u64) -> Result<GenerationDetail, RuntimeError>;

    /// Difference of two generations.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when one is not retained.
    async fn generation_diff(&self, from: u64, to: u64) -> Result<GenerationDiff, RuntimeError>;

    /// Go back to a generation; with `write` also rewrite the files.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it is not retained, [`RuntimeError::Conflict`] while another rollback runs.
    async fn rollback(&self, number: u64, write: bool) -> Result<RollbackReport, RuntimeError>;

    /// Files whose verdict is invalid now (metric `reddwarf_manifests_invalid`), and the generation in force.
    fn gauges(&self) -> DirectoryGauges;
}

/// Figures of the directory for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryGauges {
    /// Generation in force.
    pub generation: u64,
    /// Files refused now.
    pub manifests_invalid: u64,
    /// Files in force now.
    pub manifests: u64,
}
