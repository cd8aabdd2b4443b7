//! mount(2) in the few forms that root file systems need.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Binds `source` with everything mounted below it.
pub(super) fn bind_tree(source: &Path, target: &Path) -> HostResult<()> {
    const NONE: Option<&str> = None;
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .and_then(|()| mount(NONE, target, NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE))
        .map_err(|e| failed(&format!("bind {}", source.display()), target, e))
}

/// The same, not writable and without device nodes, through and through.
pub(super) fn bind_tree_read_only(source: &Path, target: &Path) -> HostResult<()> {
    bind_tree(source, target)?;
    set_read_only(target).map_err(|e| failed("make read-only", target, e))
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// mount_setattr(2): `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV` on a mount and all below it. Remounting (mount(2)) can do
/// one mount at a time only, and would need /proc/self/mountinfo.
fn set_read_only(target: &Path) -> nix::Result<()> {
    const RDONLY: u64 = 0x1;
    const NODEV: u64 = 0x4;
    let path = CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let attr = MountAttr { set: RDONLY | NODEV, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: `path` is a NUL-terminated string and `attr` a whole struct mount_attr of the size given; both outlive
    // the call, which only reads them.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
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
