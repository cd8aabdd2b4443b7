//! Probes and lifecycle hooks: what containers are asked while they run, and what is done when they start and stop.
//!
//! ```text
//!  pod's worker: observation ──→ jobs (pure): which probes and hooks should be at work
//!                                  │ what changed
//!  run: one task per probe or hook ┘──shots──→ tally (pure) ──a verdict──→ checks ──wakes──→ pod's worker
//!                                                                            │
//!  plan, status ←── standing (pure): hook done? started? ready? at fault? ───┘
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `spec.rs` | a container's probes and hooks with names resolved and defaults filled in |
//! | `tally.rs` | answers counted against thresholds |
//! | `checks.rs` | what was found out of each instance |
//! | `standing.rs` | what follows from it for one instance; what is not known yet is as the status said |
//! | `jobs.rs` | which probes and hooks should be at work |
//! | `run.rs` | the tasks: timers, events, results |
//! | `shot.rs` | one question by exec, HTTP, TCP or gRPC, and what its answer means |
//! | `hook.rs` | one hook |
//! | `exec.rs`, `http.rs`, `url.rs`, `grpc.rs` | how the asking is done |
//!
//! A shot costs no observation of the host: only a changed verdict wakes the pod's worker. Nothing here is stored: the
//! status remembers readiness for the next daemon, the host's records remember hooks and stops.

mod checks;
mod exec;
mod grpc;
mod hook;
mod http;
mod jobs;
mod run;
mod shot;
mod spec;
mod standing;
mod tally;
mod url;

pub use checks::{Checks, Found, InstanceId};
pub use jobs::{Job, Jobs, TaskKey, What, Work, jobs};
pub(crate) use run::{Probes, run};
pub use shot::{Outcome, Target, shoot};
pub use spec::{Action, Kind, ProbeSpec, lifecycle, probes};
pub use standing::{Fault, Standing, Start, pre_stop, standing};
pub use tally::Tally;

use std::time::Duration;

/// What probes and hooks call themselves to servers; some tell probes from people by it.
const USER_AGENT: &str = "kube-probe/1.36";

/// A duration as Go prints it (`1s`, `1m0s`), which is how it shows in the reference's messages.
fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
