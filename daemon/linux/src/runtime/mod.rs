//! What creates a container from a bundle: libcontainer inside this process, or crun or runc by command.
//!
//! Both run in the shim's creator process. Signals, state, exec, limits and removal are ours and the same for all.

pub(crate) mod command;
pub(crate) mod libcontainer;

use crate::options::Runtime;
use crate::program::ProgramError;
use crate::record::FailureKind;
use crate::seccomp::Filter;
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The container's standard streams.
pub(crate) enum Streams {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal, made inside; its master is sent to this Unix socket.
    Terminal {
        socket: PathBuf,
    },
}

/// Why nothing runs.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// The container's own fault: an exited instance.
    Program(ProgramError),
    /// The host's: an error, tried again.
    Host { kind: FailureKind, message: String },
}

impl StartFailure {
    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::Host { kind: FailureKind::Other, message: message.into() }
    }
}

/// What a runtime is to make.
pub(crate) struct Order<'a> {
    pub(crate) id: &'a str,
    /// Holds `config.json`.
    pub(crate) bundle: &'a Path,
    /// A directory of the runtime's own.
    pub(crate) state: &'a Path,
    pub(crate) streams: Streams,
    /// Called with the container's first process before its program runs.
    pub(crate) made: &'a dyn Fn(u32) -> std::io::Result<()>,
    /// What the process may ask of the kernel.
    pub(crate) filter: Option<Filter>,
}

/// Creates and starts one container; returns its first process when its program runs.
pub(crate) trait OciRuntime {
    /// Changes the config so that [`Self::run`] can put the container under its filter; `oci` is the filter as OCI
    /// configs have it.
    fn ask_for_filter(&self, config: &mut Value, oci: &Value);

    /// Whether it keeps containers from devices on cgroup v2 by itself.
    fn filters_devices(&self) -> bool;

    fn run(&self, order: Order<'_>) -> Result<u32, StartFailure>;
}

/// The runtime that the options ask for.
pub(crate) fn select(runtime: &Runtime) -> Box<dyn OciRuntime> {
    match runtime {
        Runtime::Libcontainer => Box::new(libcontainer::Libcontainer),
        Runtime::Crun(path) => Box::new(command::Command::new(path, command::Flavour::Crun)),
        Runtime::Runc(path) => Box::new(command::Command::new(path, command::Flavour::Runc)),
    }
}
