//! Removing a directory tree that a container could write to.
//!
//! Its depth is the container's choice, so nothing here recurses or holds a descriptor per level: directories found
//! below the first level are moved up to it. Symbolic links are never followed.
//!
//! What is mounted below it stays: no directory is entered before the kernel has refused to remove it for being full. To
//! remove one that something is mounted on it refuses as busy, be it empty or not, and of the same file system or not.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Removes `path` and all below it. False when it was not there.
///
/// # Errors
/// The system's; `EBUSY` when something is mounted below it, which is untouched then.
pub fn remove_tree(path: &Path) -> nix::Result<bool> {
    let top = match open(path, directory(), Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(false),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            nix::unistd::unlink(path)?;
            return Ok(true);
        }
        Err(e) => return Err(e),
    };
    let mut moved = 0u64;
    loop {
        let names = entries(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            remove_entry(top.as_fd(), &name, &mut moved)?;
        }
    }
    drop(top);
    unlinkat(nix::fcntl::AT_FDCWD, path, UnlinkatFlags::RemoveDir)?;
    Ok(true)
}

/// Removes one entry of the top directory; its subdirectories become entries of the top directory.
fn remove_entry(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> nix::Result<()> {
    match unlinkat(top, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(e),
    }
    match unlinkat(top, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    let dir = openat(top, name, directory(), Mode::empty())?;
    for child in entries(&dir)? {
        match unlinkat(&dir, child.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(e) => return Err(e),
        }
        match unlinkat(&dir, child.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        move_up(&dir, &child, top, moved)?;
    }
    unlinkat(top, name, UnlinkatFlags::RemoveDir)
}

fn move_up(dir: &OwnedFd, child: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> nix::Result<()> {
    loop {
        *moved += 1;
        let Ok(name) = CString::new(format!(".removing-{moved}")) else { return Err(Errno::EINVAL) };
        match renameat(dir, child, top, name.as_c_str()) {
            // A name that the container happened to use.
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            // Moving a directory rewrites its `..`: it must be writable even to root on some file systems.
            Err(Errno::EACCES) => {
                fchmodat(dir, child, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                return renameat(dir, child, top, name.as_c_str());
            }
            other => return other,
        }
    }
}

fn directory() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// The system's.
pub fn entries(dir: &impl AsFd) -> nix::Result<Vec<CString>> {
    let copy = openat(dir, c".", directory(), Mode::empty())?;
    let mut open = Dir::from_fd(copy)?;
    let mut names = Vec::new();
    for entry in open.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Bytes that a tree occupies on disk, links counted once per name; symbolic links are not followed.
///
/// # Errors
/// The system's.
pub fn tree_size(path: &Path) -> nix::Result<u64> {
    let mut total = 0u64;
    let mut waiting = vec![path.to_owned()];
    while let Some(next) = waiting.pop() {
        let dir = open(&next, directory(), Mode::empty())?;
        for name in entries(&dir)? {
            let stat = nix::sys::stat::fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            total = total.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                use std::os::unix::ffi::OsStrExt;
                waiting.push(next.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use std::fs;

    /// A privileged pod may have left its own mounts, of other disks or of other places of this one.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_mounted_below_a_tree_stays() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, share) = (dir.path().join("tree"), dir.path().join("share"));
        for at in [&tree.join("a/b/tmpfs/x"), &tree.join("bound"), &share] {
            fs::create_dir_all(at).unwrap();
        }
        fs::write(share.join("precious"), "bound").unwrap();
        let (other, bound) = (tree.join("a/b/tmpfs"), tree.join("bound"));
        mount(Some("tmpfs"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(Some(&share), &bound, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        fs::write(other.join("precious"), "other").unwrap();
        let held = nix::fcntl::open(&other, directory(), Mode::empty()).unwrap();
        let tried = [remove_tree(&tree), remove_tree(&tree)];
        let kept = (fs::exists(share.join("precious")), entries(&held).map(|names| names.len()));
        drop(held);
        for at in crate::mounted::targets_below(&tree).unwrap() {
            umount2(&at, MntFlags::MNT_DETACH).unwrap();
        }
        assert_eq!(tried, [Err(Errno::EBUSY); 2]);
        assert_eq!((kept.0.unwrap(), kept.1), (true, Ok(1)));
        assert!(remove_tree(&tree).unwrap());
        assert!(share.join("precious").exists());
    }

    #[test]
    fn follows_no_link_and_removes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::File::create(outside.join("precious")).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join("a/b/d/e")).unwrap();
        fs::create_dir_all(tree.join(".removing-1/x/y")).unwrap();
        fs::File::create(tree.join("a/b/c/file")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/b/link")).unwrap();
        assert!(remove_tree(&tree).unwrap());
        assert!(!tree.exists());
        assert!(outside.join("precious").exists());
        assert!(!remove_tree(&tree).unwrap());
    }

    /// A container can make a tree deeper than any path name, stack or descriptor table.
    #[test]
    fn a_very_deep_tree_is_no_problem() {
        // In memory where there is some: a busy disk makes this slow.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(&tree, directory(), Mode::empty()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", directory(), Mode::empty()).unwrap();
        }
        drop(at);
        assert!(remove_tree(&tree).unwrap());
        assert!(!tree.exists());
    }
}
