//! What can go wrong with an image, in a form that crosses from the child process to the daemon.

use nix::errno::Errno;
use reddwarf_host::{HostError, HostErrorKind};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io;

/// Which kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// Something named is not there.
    NotFound,
    /// The image is broken, hostile or of an unknown form.
    Invalid,
    /// No room.
    Exhausted,
    /// The host lacks something.
    Unsupported,
    /// Anything else.
    Other,
}

/// A failure, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UnpackError {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, UnpackError>;

impl UnpackError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The image is at fault.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A failed system call on `subject`.
    pub(crate) fn system(what: &str, subject: impl Display, errno: Errno) -> Self {
        let kind = match errno {
            Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE => Kind::Exhausted,
            Errno::EPERM | Errno::ENOSYS | Errno::ENODEV => Kind::Unsupported,
            _ => Kind::Other,
        };
        Self::new(kind, format!("{what} {subject}: {}", errno.desc()))
    }

    /// A failed system call that got its path from the image: what the path leads to is the image's fault.
    pub(crate) fn path(what: &str, subject: impl Display, errno: Errno) -> Self {
        match errno {
            Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EISDIR | Errno::ENOENT | Errno::EXDEV => {
                Self::invalid(format!("{what} {subject}: {}", errno.desc()))
            }
            other => Self::system(what, subject, other),
        }
    }

    /// A failed read or write.
    pub(crate) fn io(what: &str, subject: impl Display, error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            return inner.clone();
        }
        if let Some(errno) = error.raw_os_error() {
            return match Errno::from_raw(errno) {
                Errno::ENOENT => Self::new(Kind::NotFound, format!("{what} {subject}: no such file or directory")),
                errno => Self::system(what, subject, errno),
            };
        }
        // tar and gzip decoders report damage without an errno.
        Self::invalid(format!("{what} {subject}: {}", reddwarf_zar::damage(error)))
    }

    /// This failure as an I/O error, to pass through readers; [`UnpackError::io`] gets it back.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// This failure as a host error.
    pub(crate) fn into_host(self, op: &'static str, subject: impl Into<String>) -> HostError {
        let kind = match self.kind {
            Kind::NotFound => HostErrorKind::NotFound,
            Kind::Invalid => HostErrorKind::InvalidSpec,
            Kind::Exhausted => HostErrorKind::Exhausted,
            Kind::Unsupported => HostErrorKind::Unsupported,
            Kind::Other => HostErrorKind::Other,
        };
        HostError::new(kind, op, subject, self.message)
    }
}
