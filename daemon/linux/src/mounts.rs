//! Mounts: the table as the kernel shows it, and the few calls that we make.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
pub(crate) use reddwarf_supervise::mounted::targets_below;
use reddwarf_supervise::mounted::unescape;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One line of `/proc/thread-self/mountinfo` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountInfo {
    pub(crate) target: PathBuf,
    pub(crate) fs_type: String,
    /// Per-superblock options; cgroup v1 controllers are among them.
    pub(crate) super_options: String,
}

/// All mounts that this process sees.
pub(crate) fn table() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

fn parse(bytes: &[u8]) -> Vec<MountInfo> {
    bytes.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_target(line: &[u8]) -> Option<PathBuf> {
    Some(PathBuf::from(unescape(line.split(|b| *b == b' ').nth(4)?)))
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let target = parse_target(line)?;
    // Optional fields end with a lone `-`; then type, source, superblock options.
    let mut rest = line.split(|b| *b == b' ').skip(6).skip_while(|f| *f != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    let super_options = String::from_utf8_lossy(rest.nth(1)?).into_owned();
    Some(MountInfo { target, fs_type, super_options })
}

/// Mounts a tmpfs, no set-user-id programs and no devices on it.
pub(crate) fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(OsStr::new("tmpfs")), target, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

/// How a mount hangs together with others (mount_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ties {
    pub(crate) mount_point: PathBuf,
    /// What is mounted below it shows on its peers.
    pub(crate) shared: bool,
    /// What is mounted below its master shows here.
    pub(crate) follows: bool,
}

/// The ties of the mount that an open file lies on.
pub(crate) fn ties(fd: &OwnedFd) -> io::Result<Ties> {
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
    let table = fs::read("/proc/thread-self/mountinfo")?;
    let found = table.split(|b| *b == b'\n').find_map(|line| parse_ties(line, id.as_bytes()));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("mount {id} is not in mountinfo")))
}

fn parse_ties(line: &[u8], id: &[u8]) -> Option<Ties> {
    let mut fields = line.split(|b| *b == b' ');
    if fields.next() != Some(id) {
        return None;
    }
    let optional: Vec<&[u8]> = fields.skip(5).take_while(|f| *f != b"-").collect();
    let has = |tag: &[u8]| optional.iter().any(|field| field.starts_with(tag));
    Some(Ties { mount_point: parse_target(line)?, shared: has(b"shared:"), follows: has(b"master:") })
}

/// A copy of what an open file shows, with all that is mounted below it, attached nowhere yet (open_tree(2)).
pub(crate) fn copy(of: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let flags = i64::from(flags) | i64::from(libc::AT_EMPTY_PATH) | i64::from(libc::AT_RECURSIVE);
    // SAFETY: the path is an empty NUL-terminated string that outlives the call.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_open_tree, of.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = Errno::result(result)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just gave it to us, and nobody else knows of it.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a copy that [`copy`] made (move_mount(2)).
pub(crate) fn attach(copy: &OwnedFd, target: &Path) -> io::Result<()> {
    /// `MOVE_MOUNT_F_EMPTY_PATH`: the first path is empty, the descriptor is meant itself.
    const FROM_DESCRIPTOR: u32 = 0x4;
    let path = CString::new(target.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both paths are NUL-terminated strings that outlive the call.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            copy.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            FROM_DESCRIPTOR,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

impl Attributes {
    /// Sets them on the mount at `path` seen from `at`, an empty one meaning `at` itself, and on all that is below it.
    fn apply(&self, at: i32, path: &CStr) -> io::Result<()> {
        // SAFETY: the path is a NUL-terminated string, `self` a whole struct mount_attr of the size given; both outlive
        // the call, which only reads them.
        #[allow(unsafe_code)]
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                at,
                path.as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                std::ptr::from_ref(self),
                size_of::<Self>(),
            )
        };
        Ok(Errno::result(result).map(drop)?)
    }
}

/// Cuts all ties of a copy and of what is below it: `MS_PRIVATE | MS_REC`, for what is attached nowhere yet.
pub(crate) fn untie(copy: &OwnedFd) -> io::Result<()> {
    Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() }.apply(copy.as_raw_fd(), c"")
}

/// Has a copy and what is below it show the users and groups of files as those of a user namespace: what belongs to 0 on
/// disk belongs to its 0.
pub(crate) fn map_users(copy: &OwnedFd, namespace: &File) -> io::Result<()> {
    /// `MOUNT_ATTR_IDMAP`.
    const MAPPED: u64 = 0x0010_0000;
    let userns = u64::try_from(namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    Attributes { set: MAPPED, userns, ..Attributes::default() }.apply(copy.as_raw_fd(), c"")
}

/// Makes a mount and all below it read-only and without device nodes. Remounting (mount(2)) can do one mount at a time
/// only, and would need /proc/self/mountinfo.
pub(crate) fn set_read_only(target: &Path) -> io::Result<()> {
    /// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV`.
    const HARMLESS: u64 = 0x1 | 0x4;
    let path = CString::new(target.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    Attributes { set: HARMLESS, ..Attributes::default() }.apply(libc::AT_FDCWD, &path)
}

/// Keeps mounts below `target` from showing up elsewhere.
pub(crate) fn make_private(target: &Path) -> io::Result<()> {
    mount(None::<&str>, target, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Binds one path onto another.
pub(crate) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Binds and makes it read-only, without set-user-id programs and devices.
pub(crate) fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    bind(source, target)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// Takes a mount away, in use or not (`MNT_DETACH`), and what is stacked below it; whether there was one.
pub(crate) fn detach(target: &Path) -> io::Result<bool> {
    let mut any = false;
    // Several mounts may be stacked on one place after a crash between mount and record.
    for _ in 0..64 {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => any = true,
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(any),
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!("{}: more than 64 mounts on one place", target.display())))
}

/// Detaches every mount below `dir`, `dir` included, deepest first; whether there was one.
pub(crate) fn detach_below(dir: &Path) -> io::Result<bool> {
    // The table knows no links.
    let targets = targets_below(&fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()))?;
    let mut any = false;
    // BTreeSet orders a directory before what is in it.
    for target in targets.iter().rev() {
        any |= detach(target)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_odd_names_and_optional_fields_is_read() {
        let text =
            b"29 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            30 1 0:27 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw,size=1k\nbroken line\n";
        let table = parse(text);
        assert_eq!(table.len(), 2);
        assert_eq!(table[0].fs_type, "cgroup");
        assert_eq!(table[0].super_options, "rw,cpu,cpuacct");
        assert_eq!(table[1].target, PathBuf::from("/mnt/a b\\c"));
        assert_eq!(table[1].super_options, "rw,size=1k");
    }

    #[test]
    fn ties_are_read_from_the_table() {
        let line = b"29 1 0:26 / /srv/a\\040b rw,relatime shared:9 master:1 - tmpfs tmpfs rw";
        let ties = parse_ties(line, b"29").unwrap();
        assert_eq!((ties.mount_point.as_path(), ties.shared, ties.follows), (Path::new("/srv/a b"), true, true));
        assert_eq!(parse_ties(line, b"2"), None);
        let alone = parse_ties(b"30 1 0:27 / /x rw - tmpfs tmpfs rw", b"30").unwrap();
        assert!(!alone.shared && !alone.follows);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }
    }
}
