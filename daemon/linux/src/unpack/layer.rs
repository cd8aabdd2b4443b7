//! Applying one layer's tar stream to a directory tree (OCI image spec, layer.md).
//!
//! The tree is the process's root directory by now, or at least a descriptor: every path is resolved below it by the
//! kernel (openat2(2), RESOLVE_IN_ROOT), as it would be in the container. Symbolic links in the middle of a path are
//! followed within the root; the last component never is.

use super::entry::{Entry, EntryKind, read_entries};
use super::error::{Result, UnpackError};
use super::path::EntryPath;
use super::xattr;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat};
use reddwarf_host::UnpackLimits;
use reddwarf_supervise::tree::entries;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Names that stand for the removal of others.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs, never content.
const AUFS: &[u8] = b".wh..wh.";

/// A tree that a layer is applied to.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory that collects this layer's changes, when `root` is an overlay on other layers.
    upper: Option<OwnedFd>,
    /// The directory that the last entry lay in.
    last_parent: Option<(EntryPath, OwnedFd)>,
    /// Set at the end: making entries changes a directory's time.
    directory_times: Vec<(EntryPath, (i64, i64))>,
    entries: u64,
    skipped_devices: u64,
}

/// What was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Entries of the stream.
    pub(crate) entries: u64,
    /// Device nodes below /dev that were left out: the runtime makes its own.
    pub(crate) skipped_devices: u64,
}

impl Tree {
    /// A tree below `root`. `upper` is where changes land when `root` is an overlay.
    pub(crate) fn new(root: OwnedFd, upper: Option<OwnedFd>) -> Self {
        Self { root, upper, last_parent: None, directory_times: Vec::new(), entries: 0, skipped_devices: 0 }
    }

    /// Applies a whole stream.
    ///
    /// # Errors
    /// `Invalid` for what may not or can't be unpacked, naming the entry; `Exhausted`, `Other`.
    pub(crate) fn apply(mut self, stream: impl Read, limits: &UnpackLimits) -> Result<Applied> {
        read_entries(stream, |entry, _, content| {
            self.entries += 1;
            limits.check_entries(self.entries).map_err(|e| UnpackError::invalid(e.to_string()))?;
            self.apply_entry(&entry, content)
        })?;
        for (path, mtime) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            match self.open_directory(&path) {
                Ok(dir) => futimens(&dir, &time(mtime), &time(mtime))
                    .map_err(|e| UnpackError::system("set time of", &path, e))?,
                // Replaced by a later entry.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(e) => return Err(UnpackError::system("open", &path, e)),
            }
        }
        Ok(Applied { entries: self.entries, skipped_devices: self.skipped_devices })
    }

    fn apply_entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let path = EntryPath::parse(&entry.path)?;
        let Some((parent_path, name)) = path.split() else {
            return self.apply_root(entry);
        };
        if name.as_bytes() == OPAQUE {
            return self.hide_lower(&parent_path);
        }
        if path.components().iter().any(|c| c.as_bytes().starts_with(AUFS)) {
            return Ok(());
        }
        if parent_path.components().iter().any(|c| c.as_bytes().starts_with(WHITEOUT)) {
            return Err(UnpackError::invalid(format!("entry {path}: lies below a whiteout")));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent_path, hidden, &path);
        }
        if entry.kind == EntryKind::Device {
            return self.skip_device(&path);
        }
        self.enter_parent(&parent_path)?;
        let Some((_, parent)) = self.last_parent.as_ref() else { return Ok(()) };
        let replaced = make_way(parent, name, &entry.kind).map_err(|e| UnpackError::path("replace", &path, e))?;
        match &entry.kind {
            EntryKind::File(size) => write_file(parent, name, entry, *size, content, &path)?,
            EntryKind::Directory => {
                make_directory(parent, name, entry).map_err(|e| UnpackError::path("make directory", &path, e))?;
                self.directory_times.push((path, entry.mtime));
            }
            EntryKind::Symlink(target) => {
                let target = CString::new(target.as_slice())
                    .map_err(|_| UnpackError::invalid(format!("entry {path}: has a NUL in its target")))?;
                symlinkat(target.as_c_str(), parent, name.as_c_str())
                    .and_then(|()| set_link_attributes(parent, name, entry))
                    .map_err(|e| UnpackError::path("make link", &path, e))?;
            }
            EntryKind::Hardlink(target) => self.hard_link(target, &path)?,
            EntryKind::Fifo => make_fifo(parent, name, entry).map_err(|e| UnpackError::path("make fifo", &path, e))?,
            EntryKind::Device => {}
        }
        if replaced {
            // The cached directory may have been below what was replaced.
            self.last_parent = None;
        }
        Ok(())
    }

    /// `./`: the root directory's own attributes.
    fn apply_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(UnpackError::invalid("the archive's root is no directory"));
        }
        let path = EntryPath::parse(b".")?;
        set_directory_attributes(&self.root, entry).map_err(|e| UnpackError::system("set attributes of", &path, e))?;
        self.directory_times.push((path, entry.mtime));
        Ok(())
    }

    fn skip_device(&mut self, path: &EntryPath) -> Result<()> {
        // Images made from running systems hold a /dev, which the runtime mounts over.
        if path.first() == Some(b"dev") {
            self.skipped_devices += 1;
            return Ok(());
        }
        Err(UnpackError::invalid(format!("entry {path}: device nodes outside of /dev are not allowed")))
    }

    fn hard_link(&mut self, target: &[u8], path: &EntryPath) -> Result<()> {
        let target = EntryPath::parse(target)?;
        let refuse = |e| UnpackError::path(&format!("link to {target}"), path, e);
        let Some((target_parent, target_name)) = target.split() else { return Err(refuse(Errno::EISDIR)) };
        let from = self.open_directory(&target_parent).map_err(refuse)?;
        let (Some((_, parent)), Some((_, name))) = (self.last_parent.as_ref(), path.split()) else { return Ok(()) };
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one to the link itself.
        linkat(&from, target_name.as_c_str(), parent, name.as_c_str(), AtFlags::empty()).map_err(|e| match e {
            Errno::EPERM => UnpackError::invalid(format!("entry {path}: is a hard link to the directory {target}")),
            e => refuse(e),
        })
    }

    /// Makes `last_parent` the directory `path`, with every directory that is missing on the way.
    fn enter_parent(&mut self, path: &EntryPath) -> Result<()> {
        if self.last_parent.as_ref().is_some_and(|(p, _)| p == path) {
            return Ok(());
        }
        let dir = match self.open_directory(path) {
            Err(Errno::ENOENT) => self.make_directories(path),
            other => other,
        };
        let dir = dir.map_err(|e| UnpackError::path("open directory", path, e))?;
        self.last_parent = Some((path.clone(), dir));
        Ok(())
    }

    fn make_directories(&self, path: &EntryPath) -> nix::Result<OwnedFd> {
        let mut at = EntryPath::parse(b".").map_err(|_| Errno::EINVAL)?;
        let mut dir = self.open_directory(&at)?;
        for name in path.components() {
            at = at.join(name.clone());
            dir = match self.open_directory(&at) {
                Err(Errno::ENOENT) => {
                    // A dangling link is EEXIST here: refused.
                    mkdirat(&dir, name.as_c_str(), Mode::from_bits_truncate(0o755))?;
                    fchmodat(&dir, name.as_c_str(), Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
                    self.open_directory(&at)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    fn open_directory(&self, path: &EntryPath) -> nix::Result<OwnedFd> {
        open_in(&self.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT)
    }

    /// `.wh.NAME`: what lower layers have at NAME is gone.
    fn whiteout(&mut self, parent: &EntryPath, hidden: &[u8], path: &EntryPath) -> Result<()> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(UnpackError::invalid(format!("entry {path}: is a whiteout of nothing")));
        }
        let Some(upper) = self.upper.as_ref() else { return Ok(()) };
        let name = CString::new(hidden).map_err(|_| UnpackError::invalid("a whiteout has a NUL in its name"))?;
        let failed = |e| UnpackError::path("hide", path, e);
        let dir = match self.open_directory(parent) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.map_err(failed)?,
        };
        let target = parent.join(name.clone());
        match kind_in_upper(upper, &target).map_err(failed)? {
            None => remove_beneath(&dir, name).map_err(failed)?,
            // This layer's own stays; a directory of it shows no lower entries any more.
            Some(SFlag::S_IFDIR) => self.hide_lower(&target)?,
            Some(_) => {}
        }
        self.last_parent = None;
        Ok(())
    }

    /// Removes from the view all that this layer did not put at or below `path`.
    fn hide_lower(&mut self, path: &EntryPath) -> Result<()> {
        let Some(upper) = self.upper.as_ref() else { return Ok(()) };
        let failed = |e| UnpackError::path("hide what is below", path, e);
        let mut waiting = vec![path.clone()];
        while let Some(next) = waiting.pop() {
            let dir = match self.open_directory(&next) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                other => other.map_err(failed)?,
            };
            for name in entries(&dir).map_err(failed)? {
                let child = next.join(name.clone());
                match kind_in_upper(upper, &child).map_err(failed)? {
                    None => remove_beneath(&dir, name).map_err(failed)?,
                    Some(SFlag::S_IFDIR) => waiting.push(child),
                    Some(_) => {}
                }
            }
        }
        self.last_parent = None;
        Ok(())
    }
}

/// What the layer being made has at a path of the view; `None` when it comes from below. The kernel's whiteouts count
/// as nothing: the view does not show them.
fn kind_in_upper(upper: &OwnedFd, path: &EntryPath) -> nix::Result<Option<SFlag>> {
    let found = open_in(
        upper,
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH,
    );
    match found {
        Ok(fd) => Ok(Some(file_type(&nix::sys::stat::fstat(&fd)?))),
        // ELOOP: a link on the way, which the view follows; what lies behind it has another path in the layer.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes the entry `name` of `dir` and all below it; gone already is fine. No renames (overlayfs has none for lower
/// directories) and no descriptor per level: layers may be 2000 levels deep.
fn remove_beneath(dir: &OwnedFd, name: CString) -> nix::Result<()> {
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let open = |path: &EntryPath| open_in(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, beneath);
    let start = EntryPath::parse(b".").map_err(|_| Errno::EINVAL)?.join(name);
    let mut waiting = vec![start];
    while let Some(path) = waiting.last().cloned() {
        let Some((parent, name)) = path.split() else { return Err(Errno::EINVAL) };
        if remove_if_empty(&open(&parent)?, name)? {
            waiting.pop();
            continue;
        }
        let inside = open(&path)?;
        for child in entries(&inside)? {
            if !remove_if_empty(&inside, &child)? {
                waiting.push(path.join(child));
            }
        }
    }
    Ok(())
}

/// False for a directory that holds something.
fn remove_if_empty(parent: &OwnedFd, name: &CStr) -> nix::Result<bool> {
    use nix::unistd::unlinkat;
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(e),
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

fn open_in(root: &OwnedFd, path: &EntryPath, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, &path.to_path(), how)
}

fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

pub(super) fn time((seconds, nanos): (i64, i64)) -> TimeSpec {
    TimeSpec::new(seconds, nanos)
}

/// Removes what is at `name`, unless a directory meets a directory. True when something went.
fn make_way(parent: &OwnedFd, name: &CStr, kind: &EntryKind) -> nix::Result<bool> {
    let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(false),
        other => other?,
    };
    if file_type(&stat) == SFlag::S_IFDIR {
        if *kind == EntryKind::Directory {
            return Ok(false);
        }
        remove_beneath(parent, name.to_owned())?;
    } else {
        nix::unistd::unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(true)
}

fn write_file(
    parent: &OwnedFd,
    name: &CStr,
    entry: &Entry,
    size: u64,
    content: &mut dyn Read,
    path: &EntryPath,
) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|e| UnpackError::path("make file", path, e))?;
    let mut file = File::from(fd);
    let mut buffer = vec![0; 1 << 16];
    let mut written = 0u64;
    loop {
        let n = content.read(&mut buffer).map_err(|e| UnpackError::io("read", path, &e))?;
        if n == 0 {
            break;
        }
        file.write_all(buffer.get(..n).unwrap_or_default()).map_err(|e| UnpackError::io("write", path, &e))?;
        written += n as u64;
    }
    if written != size {
        return Err(UnpackError::invalid(format!("entry {path}: the archive ends {} bytes early", size - written)));
    }
    set_attributes(&file, entry).map_err(|e| UnpackError::system("set attributes of", path, e))
}

/// Owner before mode: changing the owner clears setuid. Attributes before mode: a read-only file takes them too.
pub(super) fn set_attributes(file: &impl AsFd, entry: &Entry) -> nix::Result<()> {
    nix::unistd::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    set_xattrs(file, entry)?;
    fchmod(file, Mode::from_bits_truncate(entry.mode))?;
    futimens(file, &time(entry.mtime), &time(entry.mtime))
}

pub(super) fn set_directory_attributes(dir: &impl AsFd, entry: &Entry) -> nix::Result<()> {
    nix::unistd::fchown(dir, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    set_xattrs(dir, entry)?;
    fchmod(dir, Mode::from_bits_truncate(entry.mode))
}

fn set_xattrs(file: &impl AsFd, entry: &Entry) -> nix::Result<()> {
    for (name, value) in entry.xattrs.iter().filter(|(n, _)| xattr::is_allowed(n)) {
        let Ok(name) = CString::new(name.as_slice()) else { continue };
        match xattr::set(file, &name, value) {
            // A file system without user attributes: nothing that a program relies on.
            Err(Errno::ENOTSUP) if name.as_bytes().starts_with(b"user.") => {}
            other => other?,
        }
    }
    Ok(())
}

fn make_directory(parent: &OwnedFd, name: &CStr, entry: &Entry) -> nix::Result<()> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    set_directory_attributes(&nix::fcntl::openat(parent, name, flags, Mode::empty())?, entry)
}

pub(super) fn set_link_attributes(parent: &OwnedFd, name: &CStr, entry: &Entry) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    utimensat(parent, name, &time(entry.mtime), &time(entry.mtime), UtimensatFlags::NoFollowSymlink)
}

pub(super) fn make_fifo(parent: &OwnedFd, name: &CStr, entry: &Entry) -> nix::Result<()> {
    nix::unistd::mkfifoat(parent, name, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    // It was made a moment ago in a directory that nobody else uses: it is no link.
    fchmodat(parent, name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
    utimensat(parent, name, &time(entry.mtime), &time(entry.mtime), UtimensatFlags::NoFollowSymlink)
}

/// Opens a directory by path, for a [`Tree`].
///
/// # Errors
/// What openat(2) says.
pub(crate) fn open_root(path: &std::path::Path) -> nix::Result<OwnedFd> {
    nix::fcntl::openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
