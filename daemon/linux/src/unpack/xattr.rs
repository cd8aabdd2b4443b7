//! Extended attributes of open files (xattr(7)).

use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

/// Attributes that images may carry: a user's own, and file capabilities. Everything else is the host's to decide
/// (`trusted.overlay.*` would make whiteouts, `security.selinux` labels).
pub(crate) fn is_allowed(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Sets one attribute.
pub(crate) fn set(file: &impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: `name` is NUL-terminated, `value` is valid for the length given, the descriptor is open; the call only
    // reads them.
    #[allow(unsafe_code)]
    let result =
        unsafe { libc::fsetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// All names. None where the file system has no attributes.
pub(crate) fn list(file: &impl AsFd) -> nix::Result<Vec<CString>> {
    // XATTR_LIST_MAX
    let mut buffer = vec![0u8; 65536];
    // SAFETY: the buffer is valid for writing the length given, the descriptor is open.
    #[allow(unsafe_code)]
    let result = unsafe { libc::flistxattr(file.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    match Errno::result(result) {
        Err(Errno::ENOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e),
        Ok(length) => {
            buffer.truncate(usize::try_from(length).unwrap_or(0));
            Ok(buffer.split(|b| *b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
        }
    }
}

/// One value.
pub(crate) fn get(file: &impl AsFd, name: &CStr) -> nix::Result<Vec<u8>> {
    // XATTR_SIZE_MAX
    let mut buffer = vec![0u8; 65536];
    // SAFETY: `name` is NUL-terminated, the buffer is valid for writing the length given, the descriptor is open.
    #[allow(unsafe_code)]
    let result =
        unsafe { libc::fgetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    buffer.truncate(usize::try_from(Errno::result(result)?).unwrap_or(0));
    Ok(buffer)
}
