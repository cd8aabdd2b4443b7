//! Subvolumes by the kernel's own calls (linux/btrfs.h): btrfs(8) does the same and takes a process each time.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use reddwarf_host::storage::Subvolumes;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// `BTRFS_IOCTL_MAGIC`.
const MAGIC: u8 = 0x94;
/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;
/// `BTRFS_FIRST_FREE_OBJECTID`: the root directory of every subvolume.
const ROOT_INODE: u64 = 256;
/// `BTRFS_SUBVOL_NAME_MAX`, with the NUL after it.
const NAME: usize = 4040;

/// `struct btrfs_ioctl_vol_args_v2`, without inheritance of quota groups.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct LookupArgs {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct GroupArgs {
    create: u64,
    qgroupid: u64,
}

const SNAP_CREATE: libc::Ioctl = nix::request_code_write!(MAGIC, 23, size_of::<VolumeArgs>());
const SUBVOL_CREATE: libc::Ioctl = nix::request_code_write!(MAGIC, 24, size_of::<VolumeArgs>());
const SNAP_DESTROY: libc::Ioctl = nix::request_code_write!(MAGIC, 63, size_of::<VolumeArgs>());
const INO_LOOKUP: libc::Ioctl = nix::request_code_readwrite!(MAGIC, 18, size_of::<LookupArgs>());
const QGROUP_CREATE: libc::Ioctl = nix::request_code_write!(MAGIC, 42, size_of::<GroupArgs>());

/// The kernel's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls;

impl Subvolumes for Calls {
    fn create(&self, path: &Path) -> io::Result<()> {
        let (parent, mut args) = place(path)?;
        call(&parent, SUBVOL_CREATE, &mut args)
    }

    fn snapshot(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
        let origin = directory(from)?;
        let (parent, mut args) = place(to)?;
        args.fd = origin.as_raw_fd().into();
        args.flags = if read_only { READ_ONLY } else { 0 };
        call(&parent, SNAP_CREATE, &mut args)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let qgroupid = subvolume_id(&directory(path)?)?;
        let (parent, mut args) = place(path)?;
        call(&parent, SNAP_DESTROY, &mut args)?;
        // A group without its subvolume does no harm; newer kernels remove it themselves.
        if let Err(error) = call(&parent, QGROUP_CREATE, &mut GroupArgs { create: 0, qgroupid }) {
            tracing::debug!(%error, qgroupid, "a quota group stays");
        }
        Ok(())
    }
}

/// `ioctl(2)` with the structure that `request` takes.
fn call<T>(at: &OwnedFd, request: libc::Ioctl, args: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes no more than the structure, whose size is part of `request`; it is initialised
    // and outlives the call, as does the descriptor.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(at.as_raw_fd(), request, std::ptr::from_mut(args)) };
    Errno::result(result)?;
    Ok(())
}

fn directory(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The directory that a subvolume is, or will be, in, and its name there.
fn place(path: &Path) -> io::Result<(OwnedFd, VolumeArgs)> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EINVAL.into()) };
    let mut args = VolumeArgs { fd: 0, transid: 0, flags: 0, unused: [0; 4], name: [0; NAME] };
    let name = name.as_bytes();
    // The last byte stays NUL.
    match args.name.get_mut(..name.len()) {
        Some(target) if name.len() < NAME => target.copy_from_slice(name),
        _ => return Err(Errno::ENAMETOOLONG.into()),
    }
    Ok((directory(parent)?, args))
}

/// The number of the subvolume that a directory lies in.
fn subvolume_id(dir: &OwnedFd) -> io::Result<u64> {
    let mut args = LookupArgs { treeid: 0, objectid: ROOT_INODE, name: [0; 4080] };
    call(dir, INO_LOOKUP, &mut args)?;
    Ok(args.treeid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_as_large_as_the_kernel_has_them() {
        assert_eq!((size_of::<VolumeArgs>(), size_of::<LookupArgs>(), size_of::<GroupArgs>()), (4096, 4096, 16));
    }

    #[test]
    fn what_is_no_btrfs_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("plain")).unwrap();
        assert!(Calls.create(&dir.path().join("new")).is_err());
        assert!(Calls.snapshot(&dir.path().join("plain"), &dir.path().join("copy"), false).is_err());
        assert!(Calls.remove(&dir.path().join("plain")).is_err());
        assert!(Calls.create(&dir.path().join("x".repeat(NAME))).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
