//! What a host can do, said once: traits, their types, the fake host and the contract suite.
//!
//! | module | holds |
//! |---|---|
//! | [`names`] | checked names: sandbox, container, link, uid; how they follow from a pod |
//! | [`spec`] | what is asked of a host: sandboxes, containers, volumes, the network |
//! | [`signal`], [`capability`] | signals by name and number; capabilities by name |
//! | [`service`] | what is asked of a host for services and network policies, as one table |
//! | [`storage`] | storage engines: datasets, snapshots, clones, and the contract in the docstrings |
//! | [`termination`] | a container's last words |
//! | [`observe`] | what a host says of itself: `Known`/`Unknown`, sandbox and container states |
//! | [`reference`], [`pull`] | images' names in full; fetching images from registries |
//! | [`build`], [`unpack`] | making images of what is here; what layers may come to |
//! | [`usage`] | figures of what the host and what runs on it use |
//! | [`traits`] | the traits a host implements, each method's contract in its docstring |
//! | [`error`] | [`HostError`] and its families |
//! | [`time`] | monotonic time since boot, which survives a restart of the daemon; the real clocks |
//! | [`fake`] | a host in memory: state machine, scripts, faults, power cuts; with files it is `--host sim` |
//! | [`contract`] | the rules of the traits as cases that every host has to pass |
//!
//! Nothing runs here by itself. Nothing here knows a Kubernetes object.

pub mod build;
pub mod capability;
pub mod contract;
pub mod error;
pub mod fake;
pub mod names;
pub mod observe;
pub mod pull;
pub mod reference;
pub mod service;
pub mod signal;
pub mod spec;
pub mod storage;
pub mod termination;
pub mod time;
pub mod traits;
pub mod unpack;
pub mod usage;

pub use build::{BuildContent, BuildFile, ImageBuild};
pub use error::{Family, HostError, HostErrorKind, HostResult};
pub use names::{
    Brand, ContainerName, DatasetName, ImageId, LinkName, NameError, PodUid, SandboxId, SnapshotName, VolumeName, hex,
};
pub use observe::{
    Change, ContainerObserved, ContainerState, HostInfo, HostObservation, ImageConfig, ImageInfo, Leftover,
    NetworkObserved, Note, Observation, SandboxObserved, SandboxState, StopOrder, StopRequest,
};
pub use pull::{PullProgress, PullRequest, PullSecret, PullStage, PulledImage};
pub use reference::{ImageReference, ReferenceError};
pub use storage::{Area, Dataset, DatasetId, DatasetSpec, EngineAbout, EngineKind, Limits, SnapshotId, StorageEngine};
pub use time::{BootTime, Clock, ManualClock, SystemClock};
pub use traits::{
    Attach, AttachRequest, Connect, Connection, Duplex, Exec, ExecExit, ExecRequest, Host, HostEvent, ImageStore,
    Network, Sandboxes, Services, Session, TerminalSize, Usage,
};
pub use unpack::{TooMuch, UnpackLimits};
pub use usage::{HostPressure, SandboxDisk, SandboxUsage, UsageReport};
