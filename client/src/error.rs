//! What can go wrong, in the words that a person reads: what, why, how to mend.

use crate::exit::Exit;
use crate::wire::Status;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Every failure of the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket can't be connected to.
    #[error("no daemon answers at {}", socket.display())]
    Unreachable {
        /// The socket asked.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The daemon said no.
    #[error("{}", status.message)]
    Refused {
        /// What the daemon said.
        status: Box<Status>,
    },
    /// The connection broke, or what came over it can't be understood.
    #[error("{doing}")]
    Broken {
        /// What was being done, `the daemon's answer to GET /x can't be read`.
        doing: String,
        /// Why it failed.
        source: Cause,
    },
    /// The command line asks for something that does not exist or does not fit.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// How to mend it; may be empty.
        help: String,
    },
    /// A file given on the command line can't be read or written.
    #[error("{}: can't be {doing}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The time given was up.
    #[error("{what}")]
    TimedOut {
        /// What was waited for, and what was seen last.
        what: String,
        /// What to look at.
        help: String,
    },
    /// The daemon did what was asked for, and it failed.
    #[error("{0}")]
    Failed(String),
    /// The terminal can't be set up.
    #[error("the terminal can't be set up")]
    Terminal(#[source] io::Error),
    /// Standard output can't be written to.
    #[error("the output can't be written")]
    Output(#[source] io::Error),
    /// The program itself can't start.
    #[error("the program can't start")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// A bad command line.
    pub(crate) fn usage(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), help: help.into() }
    }

    /// A broken connection or answer.
    pub(crate) fn broken(doing: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Broken { doing: doing.into(), source: source.into() }
    }

    /// Somebody closed our standard output (`| head`): no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Is it the daemon's 404?
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status } if status.code == 404)
    }

    /// Did the connection fail, so that asking again later may help?
    pub(crate) fn is_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken { .. })
    }

    /// How the program ends on it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused { status } => Exit::of_http(status.code),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            Self::TimedOut { .. } => Exit::TimedOut,
            e if e.is_broken_pipe() => Exit::Ok,
            _ => Exit::Error,
        }
    }

    /// Why, from the chain of sources; empty when the message says it all.
    pub(crate) fn why(&self) -> String {
        if let Self::Unreachable { source, .. } = self {
            return match source.kind() {
                io::ErrorKind::NotFound => {
                    "the socket does not exist: reddwarfd is not running or listens elsewhere".into()
                }
                io::ErrorKind::ConnectionRefused => {
                    "the socket is there but nobody listens: reddwarfd has ended".into()
                }
                io::ErrorKind::PermissionDenied => {
                    "only root and members of the daemon's socket group may connect".into()
                }
                _ => source.to_string(),
            };
        }
        let mut words = Vec::new();
        let mut source = self.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if words.last() != Some(&text) {
                words.push(text);
            }
            source = cause.source();
        }
        words.join(": ")
    }

    /// How to mend it; empty when there is nothing to say.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as root (sudo reddwarfctl …), or join the group: usermod -aG reddwarf USER, then log in again"
                    .into()
            }
            Self::Unreachable { .. } => "start it with `systemctl start reddwarfd` (or `reddwarfd` as root); \
                                         name another socket with --socket or REDDWARF_SOCKET"
                .into(),
            Self::Refused { status } => status.help(),
            Self::Broken { .. } => "look at the daemon: `reddwarfctl status`, `journalctl -u reddwarfd`".into(),
            Self::Usage { help, .. } | Self::TimedOut { help, .. } => help.clone(),
            _ => String::new(),
        }
    }

    /// The text for standard error.
    pub(crate) fn render(&self, paint: impl Fn(&str) -> String) -> String {
        let mut text = format!("{} {self}\n", paint("error:"));
        for (label, line) in [("why:", self.why()), ("help:", self.help())] {
            if !line.is_empty() {
                text.push_str(&format!("  {label} {line}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(kind: io::ErrorKind) -> Error {
        Error::Unreachable { socket: "/run/reddwarf/reddwarf.sock".into(), source: kind.into() }
    }

    #[test]
    fn errors_say_what_why_and_how_to_mend() {
        let error = unreachable(io::ErrorKind::NotFound);
        assert_eq!(
            error.render(str::to_owned),
            "error: no daemon answers at /run/reddwarf/reddwarf.sock\n  \
             why: the socket does not exist: reddwarfd is not running or listens elsewhere\n  \
             help: start it with `systemctl start reddwarfd` (or `reddwarfd` as root); name another socket with --socket \
             or REDDWARF_SOCKET\n"
        );
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(unreachable(io::ErrorKind::PermissionDenied).exit(), Exit::Permission);
        assert!(unreachable(io::ErrorKind::PermissionDenied).help().contains("sudo"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert!(error.is_broken_pipe());
        assert_eq!(error.exit(), Exit::Ok);
        assert_eq!(Error::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Error);
    }
}
