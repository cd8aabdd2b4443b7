//! What a file system has room for: statvfs(3).

use nix::sys::statvfs::statvfs;
use reddwarf_host::usage::FileSystem;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::path::Path;

/// What must stay free besides an image's blobs: their content, unpacked, and everything else on the host. A guess that
/// keeps hopeless pulls from filling the disk; a disk that is full all the same is an error like any other.
const UNPACKED: u64 = 3;

/// The figures of the file system that `dir`, or the nearest directory above it that is there, lies on.
///
/// # Errors
/// The system's.
pub fn figures(dir: &Path) -> HostResult<FileSystem> {
    let dir = dir.ancestors().find(|p| p.is_dir()).unwrap_or_else(|| Path::new("/"));
    let vfs = statvfs(dir).map_err(|e| {
        let message = "can't ask its file system";
        HostError::new(HostErrorKind::Other, "read usage", dir.display().to_string(), message).caused_by(e)
    })?;
    Ok(FileSystem {
        capacity_bytes: vfs.blocks().saturating_mul(vfs.fragment_size()),
        available_bytes: vfs.blocks_available().saturating_mul(vfs.fragment_size()),
        inodes: vfs.files(),
        inodes_free: vfs.files_available(),
    })
}

/// Whether blobs of an image, so many bytes, can be fetched to `dir` and unpacked. Where that can't be told: yes.
///
/// # Errors
/// A sentence for people.
pub fn room_for_blobs(dir: &Path, bytes: u64) -> Result<(), String> {
    let Ok(vfs) = statvfs(dir) else { return Ok(()) };
    let free = vfs.blocks_available().saturating_mul(vfs.fragment_size());
    if bytes.saturating_mul(UNPACKED) <= free {
        return Ok(());
    }
    let (bytes, free) = (bytes >> 20, free >> 20);
    Err(format!("no space left on device: {bytes} MiB are to be fetched and unpacked, {free} MiB are free"))
}
