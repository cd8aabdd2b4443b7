//! What this machine is.

use crate::host::unwritten;
use crate::options::LinuxOptions;
use reddwarf_host::{HostInfo, HostResult};

/// Reads it from /proc, /etc/os-release and the state directory's file system. Blocking, a few milliseconds.
pub(crate) fn read(options: &LinuxOptions) -> HostResult<HostInfo> {
    let _ = options;
    Err(unwritten("info"))
}
