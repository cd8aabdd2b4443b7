//! Records of a container's life that supervisors write and every later daemon reads.

use crate::files::read_record;
use chrono::{DateTime, Utc};
use reddwarf_host::{BootTime, Clock, ContainerState, HostError, HostErrorKind, HostResult, StopRequest, SystemClock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of `sandbox.json`, a sandbox's mark, that this program writes.
pub const MARK_VERSION: u32 = 1;

/// A sandbox's mark, as the host has it; `None`: there is none.
///
/// # Errors
/// Of a damaged mark, and of one that a later version wrote.
pub fn read_mark<M: DeserializeOwned>(path: &Path, version: impl Fn(&M) -> u32) -> HostResult<Option<M>> {
    let Some(mark) = read_record::<M>("read sandbox mark", path)? else { return Ok(None) };
    if version(&mark) > MARK_VERSION {
        let message = format!("was written by a later version (format {}): left alone", version(&mark));
        return Err(HostError::new(HostErrorKind::Other, "read sandbox mark", path.display().to_string(), message));
    }
    Ok(Some(mark))
}

/// A moment, for planning and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Since boot.
    pub boot: BootTime,
    /// Time of day.
    pub wall: DateTime<Utc>,
}

impl Moment {
    /// Now, by the kernel's clocks: shims have no injected clock.
    pub fn now() -> Self {
        Self { boot: boot_time(), wall: wall_time() }
    }
}

/// The time of day, for people.
pub fn wall_time() -> DateTime<Utc> {
    SystemClock.wall()
}

/// Time since boot: goes on during suspend, never jumps.
pub fn boot_time() -> BootTime {
    SystemClock.boot()
}

/// `exit.json`, written by the shim at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerExit {
    /// 128+n for death by signal n.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `None` when the program never ran.
    pub started: Option<Moment>,
    /// When it ended.
    pub finished: Moment,
    /// Killed by the kernel for want of memory.
    pub oom_killed: bool,
    /// Written by the daemon, for a supervisor that ended without a word.
    #[serde(default)]
    pub lost: bool,
    /// What went wrong, or its last words.
    pub message: String,
}

impl ContainerExit {
    /// Of an instance whose supervisor is gone and of which nothing runs any more; `why` is for people. The code is the
    /// reference's for containers that it can't find.
    pub fn lost(started: Moment, finished: Moment, why: String) -> Self {
        let started = Some(started);
        Self { code: 137, signal: None, started, finished, oom_killed: false, lost: true, message: why }
    }
}

impl From<ContainerExit> for ContainerState {
    fn from(exit: ContainerExit) -> Self {
        Self::Exited {
            code: exit.code,
            signal: exit.signal,
            started: exit.started.map(|m| m.boot),
            finished: exit.finished.boot,
            started_at: exit.started.map(|m| m.wall),
            finished_at: exit.finished.wall,
            message: exit.message,
        }
    }
}

/// The record of a stop signal, or of SIGKILL, sent `now`.
pub fn stop_request(before: Option<StopRequest>, now: BootTime, kill: bool) -> StopRequest {
    let mut request = before.unwrap_or(StopRequest { at: now, killed: false, order: None });
    request.killed |= kill;
    if let Some(order) = &mut request.order {
        order.signalled.get_or_insert(now);
    }
    request
}

/// [`HostErrorKind`] as far as shims use it, in a form that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// As [`HostErrorKind::NotFound`].
    NotFound,
    /// As [`HostErrorKind::InvalidSpec`].
    InvalidSpec,
    /// As [`HostErrorKind::Unsupported`].
    Unsupported,
    /// As [`HostErrorKind::Exhausted`].
    Exhausted,
    /// As [`HostErrorKind::Busy`].
    Busy,
    /// As [`HostErrorKind::Other`].
    Other,
}

impl From<HostErrorKind> for FailureKind {
    fn from(kind: HostErrorKind) -> Self {
        match kind {
            HostErrorKind::NotFound => Self::NotFound,
            HostErrorKind::InvalidSpec => Self::InvalidSpec,
            HostErrorKind::Unsupported => Self::Unsupported,
            HostErrorKind::Exhausted => Self::Exhausted,
            HostErrorKind::Busy => Self::Busy,
            HostErrorKind::Conflict
            | HostErrorKind::Foreign
            | HostErrorKind::InvalidState
            | HostErrorKind::Timeout
            | HostErrorKind::Unreachable
            | HostErrorKind::Denied
            | HostErrorKind::Other => Self::Other,
        }
    }
}

impl From<FailureKind> for HostErrorKind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::NotFound => Self::NotFound,
            FailureKind::InvalidSpec => Self::InvalidSpec,
            FailureKind::Unsupported => Self::Unsupported,
            FailureKind::Exhausted => Self::Exhausted,
            FailureKind::Busy => Self::Busy,
            FailureKind::Other => Self::Other,
        }
    }
}
