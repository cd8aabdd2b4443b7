//! Opening what lies in a layer without following anything out of it: descriptors only, one component at a time,
//! never blocking. Plain POSIX calls (openat, fstatat, readlinkat), so that it is the same on Linux and illumos.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::rc::Rc;
use std::time::Duration;

/// What a name stands for, by lstat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Regular,
    Directory,
    Symlink,
    Other(&'static str),
}

/// Tells one state of a file from another: any write, rename, chmod or replacement changes at least one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// More than a clock tick of any file system.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

fn nanoseconds(time: (i64, i64)) -> i128 {
    i128::from(time.0) * 1_000_000_000 + i128::from(time.1)
}

pub(super) fn file_type(stat: &FileStat) -> FileType {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileType::Regular,
        SFlag::S_IFDIR => FileType::Directory,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFIFO => FileType::Other("a FIFO"),
        SFlag::S_IFSOCK => FileType::Other("a socket"),
        SFlag::S_IFCHR => FileType::Other("a character device"),
        SFlag::S_IFBLK => FileType::Other("a block device"),
        _ => FileType::Other("neither a file nor a directory"),
    }
}

// Types of stat's members differ between systems.
#[allow(clippy::unnecessary_cast)]
impl FileKey {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    pub(super) fn device(&self) -> u64 {
        self.device
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn size(&self) -> u64 {
        self.size.max(0) as u64
    }

    /// Whether the file changed less than a clock tick before `now`: another change could then leave the same times
    /// (what git calls racily clean), so the next look must not trust them.
    pub(super) fn is_racy(&self, now: (i64, i64)) -> bool {
        nanoseconds(self.changed) + MARGIN.as_nanos() as i128 > nanoseconds(now)
    }

    /// Whether its last change was before `now`, as the clock has it.
    pub(super) fn is_past(&self, now: (i64, i64)) -> bool {
        self.changed <= now
    }
}

/// Why a file is not trusted, if it is not: it belongs to somebody other than root and the daemon, or others may
/// write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distrust {
    Owner(u32),
    Writable(u32),
}

pub(super) fn distrust(stat: &FileStat) -> Option<Distrust> {
    if stat.st_uid != 0 && stat.st_uid != nix::unistd::geteuid().as_raw() {
        return Some(Distrust::Owner(stat.st_uid));
    }
    #[allow(clippy::unnecessary_cast)]
    let mode = stat.st_mode as u32;
    (mode & 0o022 != 0).then_some(Distrust::Writable(mode & 0o7777))
}

/// An open directory.
#[derive(Clone, Debug)]
pub(super) struct Directory(Rc<OwnedFd>);

impl Directory {
    /// Opens a layer. Its own path may lead through symlinks: it comes from the settings, not from the directory.
    pub(super) fn open_layer(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        nix::fcntl::open(path, flags, Mode::empty()).map(|fd| Self(Rc::new(fd)))
    }

    pub(super) fn open_child(&self, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(self.0.as_fd(), name, flags, Mode::empty()).map(|fd| Self(Rc::new(fd)))
    }

    pub(super) fn stat(&self) -> Result<FileStat, Errno> {
        fstat(self.0.as_fd())
    }

    pub(super) fn stat_child(&self, name: &OsStr) -> Result<FileStat, Errno> {
        fstatat(self.0.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Whether a symlink leads to a directory, anywhere.
    pub(super) fn leads_to_directory(&self, name: &OsStr) -> bool {
        fstatat(self.0.as_fd(), name, AtFlags::empty()).is_ok_and(|s| file_type(&s) == FileType::Directory)
    }

    pub(super) fn read_link(&self, name: &OsStr) -> Result<OsString, Errno> {
        readlinkat(self.0.as_fd(), name)
    }

    /// The names in it, without `.` and `..`, sorted.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Errno> {
        // A descriptor of its own: a directory stream moves its descriptor's offset and closes it.
        let again =
            openat(self.0.as_fd(), ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(again)?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Where a symlink ends.
pub(super) enum Target {
    /// A file of the same layer: its directory and its name there.
    File(Directory, OsString),
    /// `/dev/null`: the name is masked.
    Null,
}

/// Why a symlink is not followed.
#[derive(Debug)]
pub(super) enum LinkError {
    Out(OsString),
    Dangling(OsString),
    Loop,
    ToDirectory,
    Untrusted(Distrust),
    Io(Errno),
}

/// As many as Linux follows (path_resolution(7)).
const LINKS: usize = 40;

/// Follows the symlink `name`, that lies in the last of `parents` (the layer and what was entered from it), component
/// by component. Absolute targets are taken as inside the layer when they start with the layer's path.
pub(super) fn follow(
    layer: &Path,
    mut parents: Vec<Directory>,
    name: &OsStr,
    trusted: impl Fn(&FileStat) -> Option<Distrust>,
) -> Result<Target, LinkError> {
    let mut left: Vec<OsString> = vec![name.to_owned()];
    let mut links = 0;
    while let Some(component) = left.pop() {
        if component == ".." {
            parents.pop();
            if parents.is_empty() {
                return Err(LinkError::Out(component));
            }
            continue;
        }
        let Some(parent) = parents.last().cloned() else { return Err(LinkError::Out(component)) };
        let stat = match parent.stat_child(&component) {
            Ok(stat) => stat,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(LinkError::Dangling(component)),
            Err(errno) => return Err(LinkError::Io(errno)),
        };
        match file_type(&stat) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(LinkError::Loop);
                }
                let target = parent.read_link(&component).map_err(LinkError::Io)?;
                if target == "/dev/null" && left.is_empty() {
                    return Ok(Target::Null);
                }
                let path = Path::new(&target);
                let relative = if path.is_absolute() {
                    let Ok(inside) = path.strip_prefix(layer) else { return Err(LinkError::Out(target)) };
                    parents.truncate(1);
                    inside
                } else {
                    path
                };
                for part in relative.components().rev() {
                    match part {
                        Component::Normal(part) => left.push(part.to_owned()),
                        Component::ParentDir => left.push("..".into()),
                        _ => {}
                    }
                }
            }
            FileType::Directory => {
                if left.is_empty() {
                    return Err(LinkError::ToDirectory);
                }
                let child = parent.open_child(&component).map_err(LinkError::Io)?;
                let stat = child.stat().map_err(LinkError::Io)?;
                if let Some(distrust) = trusted(&stat) {
                    return Err(LinkError::Untrusted(distrust));
                }
                parents.push(child);
            }
            _ if left.iter().any(|c| c != "..") || !left.is_empty() => return Err(LinkError::Dangling(component)),
            _ => return Ok(Target::File(parent, component)),
        }
    }
    Err(LinkError::ToDirectory)
}

/// What reading a file gave.
pub(super) struct Contents {
    pub(super) bytes: Vec<u8>,
    pub(super) stat: FileStat,
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    NotAFile(&'static str),
    Untrusted(Distrust),
    TooLarge(u64),
    Changing,
    Io(std::io::Error),
}

/// Reads a file that is no symlink, checks owner, mode and size on the open descriptor, and makes sure that it
/// did not change meanwhile.
pub(super) fn read(
    directory: &Directory,
    name: &OsStr,
    limit: u64,
    trusted: impl Fn(&FileStat) -> Option<Distrust>,
) -> Result<Contents, ReadError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let io = |errno: Errno| ReadError::Io(errno.into());
    let fd = match openat(directory.0.as_fd(), name, flags, Mode::empty()) {
        Ok(fd) => fd,
        // A symlink where a file was a moment ago: somebody swaps them.
        Err(Errno::ELOOP) => return Err(ReadError::Changing),
        Err(errno) => return Err(io(errno)),
    };
    let before = fstat(&fd).map_err(io)?;
    match file_type(&before) {
        FileType::Regular => {}
        FileType::Other(what) => return Err(ReadError::NotAFile(what)),
        FileType::Directory | FileType::Symlink => return Err(ReadError::Changing),
    }
    if let Some(distrust) = trusted(&before) {
        return Err(ReadError::Untrusted(distrust));
    }
    let key = FileKey::of(&before);
    if key.size() > limit {
        return Err(ReadError::TooLarge(key.size()));
    }
    let mut file = std::fs::File::from(fd);
    let mut bytes = Vec::with_capacity(key.size() as usize);
    (&mut file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    let after = fstat(&file).map_err(io)?;
    if FileKey::of(&after) != key || bytes.len() as u64 != key.size() {
        return Err(ReadError::Changing);
    }
    Ok(Contents { bytes, stat: after })
}
