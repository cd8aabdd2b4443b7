//! Why a command gave no answer.

use crate::cause::Cause;
use reddwarf_host::{HostError, HostErrorKind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a command gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("{program} is not installed (looked in {})", shown(directories))]
    Missing {
        /// The program's name.
        program: String,
        /// Where it was looked for.
        directories: Vec<PathBuf>,
    },
    /// The program, or the directory it is in, could be changed by others.
    #[error("{}: {why}: not run", path.display())]
    Unsafe {
        /// The program or its directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It could not be started.
    #[error("{command}: could not be started")]
    Spawn {
        /// Program and arguments.
        command: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Talking to it failed.
    #[error("{command}: reading its answer failed")]
    Io {
        /// Program and arguments.
        command: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("{command}: no end after {} s, killed", deadline.as_secs())]
    Timeout {
        /// Program and arguments.
        command: String,
        /// How long it had.
        deadline: Duration,
    },
    /// Others of its kind took so long that its turn never came.
    #[error("{command}: not started within {} s: {at_once} others of its kind still run", deadline.as_secs())]
    Crowded {
        /// Program and arguments.
        command: String,
        /// How long it waited.
        deadline: Duration,
        /// How many may run at a time.
        at_once: usize,
    },
    /// It ended with a failure.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed to standard error, trimmed and capped.
        stderr: String,
        /// What that means.
        cause: Cause,
    },
    /// It printed more than it may; killed.
    #[error("{command}: printed more than {limit} bytes, killed")]
    TooMuchOutput {
        /// Program and arguments.
        command: String,
        /// The cap in bytes.
        limit: usize,
    },
}

fn shown(directories: &[PathBuf]) -> String {
    directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl CommandError {
    /// What happened, as far as it can be told. Decide from state that was read again; this says how to go on.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Timeout { .. } | Self::Crowded { .. } => Cause::Timeout,
            Self::Failed { cause, .. } => *cause,
            Self::Missing { .. }
            | Self::Unsafe { .. }
            | Self::Spawn { .. }
            | Self::Io { .. }
            | Self::TooMuchOutput { .. } => Cause::Other,
        }
    }

    /// This failure as a host error of the right kind.
    pub fn into_host(self, op: &'static str, subject: impl Into<String>) -> HostError {
        let kind = match &self {
            Self::Missing { .. } | Self::Unsafe { .. } => HostErrorKind::Unsupported,
            Self::Spawn { .. } | Self::Io { .. } | Self::TooMuchOutput { .. } => HostErrorKind::Other,
            Self::Timeout { .. } | Self::Crowded { .. } | Self::Failed { .. } => match self.cause() {
                Cause::NotFound => HostErrorKind::NotFound,
                Cause::Exists => HostErrorKind::Conflict,
                Cause::Busy => HostErrorKind::Busy,
                Cause::WrongState => HostErrorKind::InvalidState,
                Cause::NoSpace => HostErrorKind::Exhausted,
                Cause::Permission => HostErrorKind::Unsupported,
                Cause::Timeout => HostErrorKind::Timeout,
                Cause::Invalid | Cause::Other => HostErrorKind::Other,
            },
        };
        let message = match &self {
            Self::Missing { program, .. } if program == "nft" => format!("{self}: install nftables"),
            _ => self.to_string(),
        };
        HostError::new(kind, op, subject, message).caused_by(self)
    }
}
