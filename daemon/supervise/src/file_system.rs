//! What a file system has room for: statvfs(3).

use nix::sys::statvfs::{Statvfs, statvfs};
use reddwarf_host::usage::{FileSystem, fillable};
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
        capacity_bytes: capacity(&vfs),
        available_bytes: vfs.blocks_available().saturating_mul(vfs.fragment_size()),
        inodes: vfs.files(),
        inodes_free: vfs.files_available(),
    })
}

/// What can be filled, in bytes.
fn capacity(vfs: &Statvfs) -> u64 {
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    let blocks = fillable(vfs.blocks().into(), vfs.blocks_free().into(), vfs.blocks_available().into());
    blocks.saturating_mul(vfs.fragment_size())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// df(1) is the judge, on the file system of this test: used and available are all that there is to fill.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test's own judge")]
    fn the_figures_are_those_of_df() {
        let dir = tempfile::tempdir().unwrap();
        let df = || -> Vec<u64> {
            let out =
                std::process::Command::new("df").args(["-B1", "--output=used,avail"]).arg(dir.path()).output().unwrap();
            let text = String::from_utf8(out.stdout).unwrap();
            text.lines().nth(1).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect()
        };
        // Others write meanwhile; the sum of both changes only by what comes and goes between two calls of statvfs(3).
        let close = |a: u64, b: u64| a.abs_diff(b) < 4 << 30;
        let found = figures(dir.path()).unwrap();
        let said = df();
        assert!(close(found.capacity_bytes, said[0] + said[1]), "{found:?}, df: {said:?}");
        assert!(close(found.available_bytes, said[1]), "{found:?}, df: {said:?}");
    }
}
