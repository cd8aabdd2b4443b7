//! The group that owns a sandbox's volumes (Kubernetes' fsGroup): every file belongs to it and is open to it, and what
//! is made later in a directory inherits it.

use reddwarf_host::spec::{FsGroup, FsGroupChange, VolumeSpec};
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// What the group may do with files, and beyond that with directories.
const WRITABLE: u32 = 0o660;
const READABLE: u32 = 0o440;
const DIRECTORY: u32 = 0o2110;

/// Gives a volume that lies at `dir` to its group, host paths aside. Nothing runs in the sandbox at this time.
///
/// # Errors
/// The system's.
pub fn give_volume(dir: &Path, volume: &VolumeSpec, group: FsGroup) -> io::Result<()> {
    let mask = mask(volume);
    if group.change == FsGroupChange::OnRootMismatch && belongs(&fs::symlink_metadata(dir)?, group, mask) {
        return Ok(());
    }
    give(dir, group.gid, mask)
}

/// The same for a new set of files that is not shown yet.
pub fn give_files(dir: &Path, group: Option<FsGroup>) -> io::Result<()> {
    group.map_or(Ok(()), |group| give(dir, group.gid, READABLE))
}

fn mask(volume: &VolumeSpec) -> u32 {
    match volume {
        VolumeSpec::Files { .. } => READABLE,
        VolumeSpec::EmptyDir { .. } | VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => WRITABLE,
    }
}

fn belongs(root: &Metadata, group: FsGroup, mask: u32) -> bool {
    let wanted = mask | DIRECTORY;
    root.gid() == group.gid && root.mode() & wanted == wanted
}

/// Never follows a link: what a container left in its volume is not trusted.
fn give(path: &Path, gid: u32, mask: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    lchown(path, None, Some(gid))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let more = if metadata.is_dir() { mask | DIRECTORY } else { mask };
    // After the change of the group, which takes set-id bits away.
    fs::set_permissions(path, Permissions::from_mode((metadata.mode() & 0o7777) | more))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), gid, mask)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_open_to_its_group_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("sub")).unwrap();
        for (file, mode) in [(volume.join("sub/f"), 0o600), (outside.clone(), 0o600)] {
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        fs::set_permissions(&volume, Permissions::from_mode(0o700)).unwrap();
        let group = FsGroup { gid, change: FsGroupChange::OnRootMismatch };
        assert!(!belongs(&fs::metadata(&volume).unwrap(), group, WRITABLE));
        give(&volume, gid, WRITABLE).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&volume), mode(&volume.join("sub/f")), mode(&outside)), (0o2770, 0o660, 0o600));
        assert!(belongs(&fs::metadata(&volume).unwrap(), group, WRITABLE));
        give(&volume, gid, READABLE).unwrap();
        assert_eq!(mode(&volume.join("sub")) & 0o2070, 0o2070);
    }
}
