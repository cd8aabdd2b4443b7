//! What can go wrong while an image is fetched, told apart by what to do about it.

use reddwarf_host::{HostError, HostErrorKind};
use std::io;
use std::time::Duration;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The registry does not answer, breaks off, or says 429 or 5xx.
    Unreachable,
    /// 401 or 403: unknown, or not allowed to.
    Denied,
    /// 404: no such repository, tag or blob.
    NotFound,
    /// What it sent is not what it announced, or no image that can be run here.
    Invalid,
    /// No room on this host.
    Exhausted,
    /// This host's own fault: its settings, its files.
    Local,
}

/// A failure, in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct PullError {
    /// What happened.
    pub kind: PullErrorKind,
    /// What, where, how to mend; without secrets.
    pub message: String,
    /// When the registry said that it may be asked again.
    pub retry_after: Option<Duration>,
    /// Whether asking once more at once may help.
    pub(crate) again: bool,
}

pub(crate) type Result<T> = std::result::Result<T, PullError>;

impl PullError {
    pub(crate) fn new(kind: PullErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, again: false }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(PullErrorKind::Invalid, message)
    }

    /// Not reached, or cut off: asked again a few times.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self { again: true, ..Self::new(PullErrorKind::Unreachable, message) }
    }

    /// As a host says it that pulls the image of that name.
    pub fn into_host(self, op: &'static str, name: &str) -> HostError {
        let kind = match self.kind {
            PullErrorKind::Unreachable => HostErrorKind::Unreachable,
            PullErrorKind::Denied => HostErrorKind::Denied,
            PullErrorKind::NotFound => HostErrorKind::NotFound,
            PullErrorKind::Invalid => HostErrorKind::InvalidSpec,
            PullErrorKind::Exhausted => HostErrorKind::Exhausted,
            PullErrorKind::Local => HostErrorKind::Other,
        };
        HostError::new(kind, op, name, self.message).retry_after(self.retry_after)
    }

    /// A failed read or write of a file of ours.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = if full { PullErrorKind::Exhausted } else { PullErrorKind::Local };
        Self::new(kind, format!("{what} {}: {error}", path.display()))
    }
}
