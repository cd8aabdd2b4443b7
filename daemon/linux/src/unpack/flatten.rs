//! An image's layers as one tree, copied into a directory of a storage engine, which roots of containers are cloned from.

use super::confine;
use super::entry::{Entry, EntryKind};
use super::error::{Result, UnpackError};
use super::layer::{make_fifo, open_root, set_attributes, set_directory_attributes, set_link_attributes, time};
use super::pack::{open, read_xattrs};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens, mkdirat};
use nix::unistd::{linkat, symlinkat};
use reddwarf_supervise::tree::entries;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Copies what the layers (lowest first, names in `layers_dir`) show together into `target`, an empty directory.
/// `scratch` is an empty directory to mount them on. How many entries there were.
///
/// # Errors
/// `NotFound`, `Exhausted`, `Unsupported`, `Other`.
pub(super) fn flatten(layers_dir: &Path, layers: &[String], scratch: &Path, target: &Path) -> Result<u64> {
    let view = match layers {
        [] => return Err(UnpackError::invalid("the image has no layers")),
        [one] => layers_dir.join(one),
        several => {
            confine::mount_together(layers_dir, several, scratch)?;
            scratch.to_owned()
        }
    };
    let root = |path: &Path| open_root(path).map_err(|e| UnpackError::system("open", path.display(), e));
    let copy = Copy { from: root(&view)?, into: root(target)?, links: BTreeMap::new(), entries: 0 };
    confine::drop_capabilities()?;
    copy.run()
}

/// One tree on its way to another place. Nothing is followed that is a link.
struct Copy {
    from: OwnedFd,
    into: OwnedFd,
    /// Where the first name of every file with several lies.
    links: BTreeMap<(u64, u64), PathBuf>,
    entries: u64,
}

impl Copy {
    fn run(mut self) -> Result<u64> {
        let mut times = Vec::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let failed = |e| UnpackError::system("copy", path.display(), e);
            let from = open(&self.from, &path, OFlag::O_DIRECTORY).map_err(failed)?;
            let into = open(&self.into, &path, OFlag::O_DIRECTORY).map_err(failed)?;
            let stat = fstat(&from).map_err(failed)?;
            let like = entry(&stat, EntryKind::Directory, Some(from.as_fd())).map_err(failed)?;
            set_directory_attributes(&into, &like).map_err(failed)?;
            for name in entries(&from).map_err(failed)? {
                confine::check_not_abandoned()?;
                self.entries += 1;
                let child = path.join(OsStr::from_bytes(name.as_bytes()));
                if self.one(&from, &into, &name, &child)? {
                    waiting.push(child);
                }
            }
            times.push((path, like.mtime));
        }
        // Making entries changed them.
        for (path, mtime) in times {
            let set = open(&self.into, &path, OFlag::O_DIRECTORY);
            set.and_then(|dir| futimens(&dir, &time(mtime), &time(mtime)))
                .map_err(|e| UnpackError::system("set time of", path.display(), e))?;
        }
        // A snapshot that is made of it must hold all of it.
        nix::unistd::syncfs(&self.into).map_err(|e| UnpackError::system("write", "the copy", e))?;
        Ok(self.entries)
    }

    /// Copies one entry; of a directory only itself, and true.
    fn one(&mut self, from: &OwnedFd, into: &OwnedFd, name: &CStr, path: &Path) -> Result<bool> {
        let failed = |e| UnpackError::system("copy", path.display(), e);
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => {
                mkdirat(into, name, Mode::S_IRWXU).map_err(failed)?;
                return Ok(true);
            }
            SFlag::S_IFREG => self.file(from, into, name, &stat, path)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name).map_err(failed)?;
                let target = CString::new(target.into_vec()).map_err(|_| failed(Errno::EINVAL))?;
                let like = entry(&stat, EntryKind::Symlink(Vec::new()), None).map_err(failed)?;
                symlinkat(target.as_c_str(), into, name)
                    .and_then(|()| set_link_attributes(into, name, &like))
                    .map_err(failed)?;
            }
            SFlag::S_IFIFO => {
                let like = entry(&stat, EntryKind::Fifo, None).map_err(failed)?;
                make_fifo(into, name, &like).map_err(failed)?;
            }
            // Sockets mean nothing without a process; layers hold no devices.
            _ => {}
        }
        Ok(false)
    }

    fn file(&mut self, from: &OwnedFd, into: &OwnedFd, name: &CStr, stat: &FileStat, path: &Path) -> Result<()> {
        let failed = |e| UnpackError::system("copy", path.display(), e);
        let id = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&id) {
            let (Some(parent), Some(old)) = (first.parent(), first.file_name()) else { return Ok(()) };
            let parent = open(&self.into, parent, OFlag::O_DIRECTORY).map_err(failed)?;
            return linkat(&parent, old, into, name, AtFlags::empty()).map_err(failed);
        }
        if stat.st_nlink > 1 {
            self.links.insert(id, path.to_owned());
        }
        let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut source = File::from(openat(from, name, read, Mode::empty()).map_err(failed)?);
        let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut copy = File::from(openat(into, name, write, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?);
        // Shares its blocks where both lie on one file system that can.
        let copied = std::io::copy(&mut source, &mut copy).and_then(|_| copy.flush());
        copied.map_err(|e| UnpackError::io("copy", path.display(), &e))?;
        let like = entry(stat, EntryKind::File(0), Some(source.as_fd())).map_err(failed)?;
        set_attributes(&copy, &like).map_err(failed)
    }
}

/// What a file is like, in the words of an archive.
fn entry(stat: &FileStat, kind: EntryKind, attributes_of: Option<BorrowedFd<'_>>) -> nix::Result<Entry> {
    let xattrs = attributes_of.map(|file| read_xattrs(&file)).transpose()?.unwrap_or_default();
    Ok(Entry {
        path: Vec::new(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
    })
}
