//! Mounts of root file systems, and what goes wrong with them as host errors.

use crate::mounts;
use crate::users::Users;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::io;
use std::path::Path;

/// Binds `source` with everything mounted below it, for the sandbox's own users where it has such.
pub(super) fn bind_tree(source: &Path, target: &Path, users: Option<&Users>) -> HostResult<()> {
    const NONE: Option<&str> = None;
    let bound = match users {
        None => mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).map_err(io::Error::from),
        Some(users) => users.view(source).and_then(|view| mounts::attach(&view, target)),
    };
    bound
        .and_then(|()| Ok(mount(NONE, target, NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)?))
        .map_err(|e| io_failed(&format!("bind {}", source.display()), target, &e))
}

/// The same, not writable and without device nodes, through and through.
pub(super) fn bind_tree_read_only(source: &Path, target: &Path, users: Option<&Users>) -> HostResult<()> {
    bind_tree(source, target, users)?;
    mounts::set_read_only(target).map_err(|e| io_failed("make read-only", target, &e))
}

fn io_failed(what: &str, target: &Path, error: &io::Error) -> HostError {
    match error.raw_os_error() {
        Some(errno) => failed(what, target, Errno::from_raw(errno)),
        None => {
            let message = format!("{what}: {error}");
            HostError::new(HostErrorKind::Unsupported, super::PREPARE, target.display().to_string(), message)
        }
    }
}

/// A failed mount as a host error.
pub(super) fn failed(what: &str, target: &Path, errno: Errno) -> HostError {
    let (kind, hint) = match errno {
        Errno::EPERM | Errno::EACCES => (HostErrorKind::Unsupported, " (CAP_SYS_ADMIN is needed: run as root)"),
        Errno::ENODEV => (HostErrorKind::Unsupported, " (the kernel lacks this file system)"),
        Errno::ENOSYS => (HostErrorKind::Unsupported, " (Linux 5.12 or newer is needed)"),
        Errno::ENOSPC | Errno::ENOMEM => (HostErrorKind::Exhausted, ""),
        Errno::EBUSY => (HostErrorKind::Busy, ""),
        _ => (HostErrorKind::Other, ""),
    };
    HostError::new(kind, super::PREPARE, target.display().to_string(), format!("{what}: {}{hint}", errno.desc()))
        .caused_by(errno)
}
