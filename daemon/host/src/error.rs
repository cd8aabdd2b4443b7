//! What can go wrong on a host, told apart by what to do about it.

use std::error::Error as StdError;
use std::time::Duration;

/// Result of a host call.
pub type HostResult<T> = Result<T, HostError>;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The user must change something; not retried until they do.
    User,
    /// Try again later, with back-off.
    Transient,
    /// A person must look; retried rarely.
    Permanent,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostErrorKind {
    /// The thing does not exist.
    NotFound,
    /// It exists and is not what was asked for.
    Conflict,
    /// It exists and does not bear our mark: never touched.
    Foreign,
    /// In use; try again.
    Busy,
    /// The call makes no sense in the present state (start in a stopped sandbox).
    InvalidState,
    /// The spec can't be carried out as it is (no such program, bad user name, bad brand).
    InvalidSpec,
    /// The deadline passed; whether it took effect is not known.
    Timeout,
    /// The host lacks something (command, kernel feature, privilege).
    Unsupported,
    /// Someone far away (a registry) does not answer, or says that it can't just now.
    Unreachable,
    /// Someone far away (a registry) knows us not, or not well enough.
    Denied,
    /// No room: disk, memory, processes, descriptors.
    Exhausted,
    /// Anything else.
    Other,
}

/// A failed host call: what was tried, on what, why.
#[derive(Debug, thiserror::Error)]
#[error("{op} {subject}: {message}")]
pub struct HostError {
    /// What happened.
    pub kind: HostErrorKind,
    /// The operation, e.g. `start container`.
    pub op: &'static str,
    /// On what, e.g. `default-web-7f3a/app`.
    pub subject: String,
    /// Why, and how to mend it; for commands: the command, its status and its stderr.
    pub message: String,
    /// For how long whoever is far away asked to be left alone.
    pub retry_after: Option<Duration>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl HostError {
    /// An error without a deeper cause.
    pub fn new(kind: HostErrorKind, op: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, op, subject: subject.into(), message: message.into(), retry_after: None, source: None }
    }

    /// The same, not to be tried again before so long.
    #[must_use]
    pub fn retry_after(self, pause: Option<Duration>) -> Self {
        Self { retry_after: pause, ..self }
    }

    /// The same with its cause kept. The cause is not repeated in the message.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    pub fn family(&self) -> Family {
        match self.kind {
            HostErrorKind::InvalidSpec | HostErrorKind::Denied => Family::User,
            HostErrorKind::Foreign | HostErrorKind::Unsupported => Family::Permanent,
            HostErrorKind::NotFound
            | HostErrorKind::Conflict
            | HostErrorKind::Busy
            | HostErrorKind::InvalidState
            | HostErrorKind::Timeout
            | HostErrorKind::Exhausted
            | HostErrorKind::Unreachable
            | HostErrorKind::Other => Family::Transient,
        }
    }

    /// The whole chain on one line: `a: b: c`.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next: Option<&(dyn StdError + 'static)> = self.source.as_deref().map(|e| e as _);
        while let Some(e) = next {
            text.push_str(": ");
            text.push_str(&e.to_string());
            next = e.source();
        }
        text
    }
}
