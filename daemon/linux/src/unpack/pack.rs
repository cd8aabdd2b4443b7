//! A root file system as an image of one layer: a tar as it is, a directory packed into a tar that is the same for the same tree, so that
//! importing a tree again finds it again.

use super::error::{Result, UnpackError};
use super::overlay::{self, Overlay};
use super::source::{BlobPlace, ImageSource, LayerSource};
use super::stream::digest_text;
use super::xattr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use reddwarf_host::UnpackLimits;
use reddwarf_supervise::tree::entries;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Packs `root` into `scratch` and describes it as an image.
///
/// # Errors
/// `Invalid` for an empty directory, device nodes outside of /dev and too many entries; `Exhausted`, `Other`.
pub(crate) fn directory(root: &Path, scratch: &Path, architecture: &str, limits: &UnpackLimits) -> Result<ImageSource> {
    let mut packer = Packer::new(scratch, limits)?;
    packer.tree(root)?;
    if packer.entries() <= 1 {
        return Err(UnpackError::invalid(format!("{} is an empty directory", root.display())));
    }
    Ok(one_layer(packer.finish()?, architecture))
}

/// Describes an uncompressed tar of a root file system as an image.
///
/// # Errors
/// `Invalid` past the limits, `Other`.
pub(super) fn tarball(file: &Path, architecture: &str, limits: &UnpackLimits) -> Result<ImageSource> {
    let failed = |e: io::Error| UnpackError::io("read", file.display(), &e);
    let mut input = File::open(file).map_err(failed)?.take(limits.bytes.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        let n = input.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
        length += n as u64;
    }
    if length > limits.bytes {
        return Err(UnpackError::invalid(format!("it has more than {} MiB", limits.bytes >> 20)));
    }
    let place = BlobPlace { file: file.to_owned(), offset: 0, length };
    Ok(one_layer(LayerSource { place, digest: None, diff_id: digest_text(hash) }, architecture))
}

fn one_layer(layer: LayerSource, architecture: &str) -> ImageSource {
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
    });
    ImageSource { config: config.to_string(), layers: vec![layer] }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes trees into a tar, the same for the same trees.
pub(super) struct Packer {
    tar: tar::Builder<Hashing<BufWriter<File>>>,
    path: PathBuf,
    /// The first name of every file that has several.
    names: BTreeMap<(u64, u64), PathBuf>,
    entries: u64,
    limits: UnpackLimits,
    /// What comes next lies below this directory of the archive.
    below: PathBuf,
    /// What comes next belongs to this user and group; `None`: to whom it belongs.
    owner: Option<(u32, u32)>,
    /// What comes next is what a container changed, or a root in which it changed something.
    overlay: Option<Overlay>,
    /// What comes next was cloned from this tree: only what differs is packed.
    origin: Option<OwnedFd>,
}

impl Packer {
    /// Into a new file in `scratch`.
    pub(super) fn new(scratch: &Path, limits: &UnpackLimits) -> Result<Self> {
        let path = scratch.join("packed.tar");
        let file = File::create_new(&path).map_err(|e| UnpackError::io("make", path.display(), &e))?;
        let output = Hashing { inner: BufWriter::new(file), hash: Sha256::new(), length: 0 };
        let (tar, limits) = (tar::Builder::new(output), *limits);
        let (names, below) = (BTreeMap::new(), PathBuf::new());
        Ok(Self { tar, path, names, entries: 0, limits, below, owner: None, overlay: None, origin: None })
    }

    /// What comes next is the upper directory of an overlay.
    pub(super) fn of_overlay(mut self, overlay: Overlay) -> Self {
        self.overlay = Some(overlay);
        self
    }

    /// What comes next was cloned from `origin`, which nobody has changed since.
    pub(super) fn since(mut self, origin: OwnedFd) -> Self {
        self.origin = Some(origin);
        self
    }

    /// What comes next goes to the directory `below` and belongs to `owner`.
    pub(super) fn place(&mut self, below: &Path, owner: (u32, u32)) {
        self.below = below.to_owned();
        // Names of one file have one owner.
        if self.owner.replace(owner) != Some(owner) {
            self.names.clear();
        }
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The archive as a layer.
    pub(super) fn finish(self) -> Result<LayerSource> {
        let Self { tar, path, .. } = self;
        let Hashing { mut inner, hash, length } =
            tar.into_inner().map_err(|e| UnpackError::io("write", path.display(), &e))?;
        inner.flush().map_err(|e| UnpackError::io("write", path.display(), &e))?;
        let place = BlobPlace { file: path, offset: 0, length };
        Ok(LayerSource { place, digest: None, diff_id: digest_text(hash) })
    }

    /// Packs a directory and all in it: directories before what they hold, names sorted.
    pub(super) fn tree(&mut self, root: &Path) -> Result<()> {
        self.walk(root, true)
    }

    /// Packs all in a directory, but not the directory itself.
    pub(super) fn content(&mut self, root: &Path) -> Result<()> {
        self.walk(root, false)
    }

    fn walk(&mut self, root: &Path, itself: bool) -> Result<()> {
        let top = super::layer::open_root(root).map_err(|e| UnpackError::system("open", root.display(), e))?;
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let failed = |e| UnpackError::system("read", path.display(), e);
            let dir = open(&top, &path, OFlag::O_DIRECTORY).map_err(failed)?;
            let mut names = entries(&dir).map_err(failed)?;
            names.sort();
            let shown = self.below.join(&path);
            if self.overlay.as_ref().is_some_and(|o| names.is_empty() && o.is_mount_point(&shown)) {
                continue;
            }
            let before = self.origin.as_ref().and_then(|origin| open(origin, &path, OFlag::O_DIRECTORY).ok());
            let top_level = path.as_os_str().is_empty();
            if (itself || !top_level) && (top_level || !same(&before, &dir).map_err(failed)?) {
                self.directory(&shown, &dir)?;
            }
            if let Some(before) = &before {
                self.whiteouts(before, &names, &shown)?;
            }
            let mut directories = Vec::new();
            for name in names {
                let child = OsStr::from_bytes(name.as_bytes());
                if before.as_ref().is_some_and(|before| unchanged(before, &dir, &name)) {
                    continue;
                }
                if self.entry(&dir, &name, &shown.join(child))? {
                    directories.push(path.join(child));
                }
            }
            waiting.extend(directories.into_iter().rev());
        }
        Ok(())
    }

    /// Marks what was in a directory and is no more.
    fn whiteouts(&mut self, before: &OwnedFd, names: &[CString], shown: &Path) -> Result<()> {
        let mut old = entries(before).map_err(|e| UnpackError::system("read", shown.display(), e))?;
        old.sort();
        for name in old.iter().filter(|name| names.binary_search(name).is_err()) {
            self.mark(&shown.join(whiteout(name)))?;
        }
        Ok(())
    }

    /// Packs one file, whatever it is but a directory, under the name `target`.
    pub(super) fn single(&mut self, source: &Path, target: &Path) -> Result<()> {
        let (Some(parent), Some(name)) = (source.parent(), source.file_name()) else {
            return Err(UnpackError::invalid(format!("{} has no name", source.display())));
        };
        let dir = super::layer::open_root(parent).map_err(|e| UnpackError::system("open", parent.display(), e))?;
        let name = CString::new(name.as_bytes())
            .map_err(|_| UnpackError::invalid(format!("{} has a NUL in its name", source.display())))?;
        self.entry(&dir, &name, target).map(drop)
    }

    fn directory(&mut self, shown: &Path, dir: &OwnedFd) -> Result<()> {
        let failed = |e| UnpackError::system("read", shown.display(), e);
        let stat = nix::sys::stat::fstat(dir).map_err(failed)?;
        let opaque = match &self.overlay {
            Some(_) => overlay::is_opaque(dir, shown)?,
            None => false,
        };
        let named = if shown.as_os_str().is_empty() { PathBuf::from("./") } else { shown.join("") };
        self.append(&named, &stat, tar::EntryType::Directory, Some(dir), io::empty())?;
        if opaque {
            self.mark(&shown.join(".wh..wh..opq"))?;
        }
        Ok(())
    }

    /// An empty file that says something about others (OCI image spec, layer.md, "Whiteouts").
    fn mark(&mut self, path: &Path) -> Result<()> {
        self.count()?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(0);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, path, io::empty()).map_err(|e| UnpackError::io("pack", path.display(), &e))
    }

    /// Packs what is no directory; true for a directory.
    fn entry(&mut self, dir: &OwnedFd, name: &CString, path: &Path) -> Result<bool> {
        let failed = |e| UnpackError::system("read", path.display(), e);
        let stat = fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => return Ok(true),
            SFlag::S_IFREG => {
                let empty = stat.st_size == 0;
                if !self.overlay.as_ref().is_some_and(|o| empty && o.is_mount_point(path)) {
                    self.file(dir, name, path, &stat)?;
                }
            }
            SFlag::S_IFCHR if self.overlay.is_some() && stat.st_rdev == 0 => {
                self.mark(&path.with_file_name(whiteout(name)))?;
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name.as_c_str()).map_err(failed)?;
                self.link(path, &stat, tar::EntryType::Symlink, Path::new(&target))?;
            }
            SFlag::S_IFIFO => self.append(path, &stat, tar::EntryType::Fifo, None, io::empty())?,
            // Sockets mean nothing without the process behind them; devices are the runtime's to make.
            SFlag::S_IFSOCK => {}
            _ if path.starts_with("dev") => {}
            _ => {
                let message = format!("{}: device nodes outside of /dev are not allowed", path.display());
                return Err(UnpackError::invalid(message));
            }
        }
        Ok(false)
    }

    fn file(&mut self, dir: &OwnedFd, name: &CString, path: &Path, stat: &FileStat) -> Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)).cloned() {
                return self.link(path, stat, tar::EntryType::Link, &first);
            }
            self.names.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = openat(dir, name.as_c_str(), flags, Mode::empty())
            .map_err(|e| UnpackError::system("open", path.display(), e))?;
        if self.overlay.is_some() {
            overlay::check_whole(&fd, path)?;
        }
        let copy = fd.try_clone().map_err(|e| UnpackError::io("open", path.display(), &e))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        self.append(path, stat, tar::EntryType::Regular, Some(&copy), File::from(fd).take(length))
    }

    fn link(&mut self, path: &Path, stat: &FileStat, kind: tar::EntryType, target: &Path) -> Result<()> {
        let mut header = self.header(stat, kind)?;
        header.set_size(0);
        self.tar.append_link(&mut header, path, target).map_err(|e| UnpackError::io("pack", path.display(), &e))
    }

    fn append(
        &mut self,
        path: &Path,
        stat: &FileStat,
        kind: tar::EntryType,
        attributes_of: Option<&OwnedFd>,
        content: impl Read,
    ) -> Result<()> {
        let failed = |e: io::Error| UnpackError::io("pack", path.display(), &e);
        if let Some(file) = attributes_of {
            let xattrs = read_xattrs(file).map_err(|e| UnpackError::system("read attributes of", path.display(), e))?;
            if !xattrs.is_empty() {
                let xattrs: Vec<_> =
                    xattrs.into_iter().map(|(n, value)| (format!("SCHILY.xattr.{n}"), value)).collect();
                let records = xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
                self.tar.append_pax_extensions(records).map_err(failed)?;
            }
        }
        let mut header = self.header(stat, kind)?;
        header.set_size(if kind == tar::EntryType::Regular { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 });
        self.tar.append_data(&mut header, path, content).map_err(failed)
    }

    fn header(&mut self, stat: &FileStat, kind: tar::EntryType) -> Result<tar::Header> {
        self.count()?;
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        Ok(header)
    }

    fn count(&mut self) -> Result<()> {
        super::confine::check_not_abandoned()?;
        self.entries += 1;
        self.limits.check_entries(self.entries).map_err(|e| UnpackError::invalid(e.to_string()))?;
        Ok(())
    }
}

pub(super) fn open(top: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(top, path, how)
}

/// The name that stands for the removal of another.
fn whiteout(name: &CString) -> OsString {
    let mut whiteout = OsString::from(".wh.");
    whiteout.push(OsStr::from_bytes(name.as_bytes()));
    whiteout
}

/// Whether a file of a clone is still what it was cloned from: no call changes a file and leaves its change time.
fn unchanged(before: &OwnedFd, now: &OwnedFd, name: &CString) -> bool {
    let stat = |dir| fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    let (Ok(old), Ok(new)) = (stat(before), stat(now)) else { return false };
    let facts = |s: &FileStat| (s.st_ino, s.st_mode, s.st_size, s.st_ctime, s.st_ctime_nsec);
    SFlag::from_bits_truncate(new.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFDIR && facts(&old) == facts(&new)
}

/// Whether a directory looks the same; what is in it is another matter.
fn same(before: &Option<OwnedFd>, now: &OwnedFd) -> nix::Result<bool> {
    let Some(before) = before else { return Ok(false) };
    let (old, new) = (nix::sys::stat::fstat(before)?, nix::sys::stat::fstat(now)?);
    let facts = |s: &FileStat| (s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_mtime, s.st_mtime_nsec);
    Ok(facts(&old) == facts(&new) && read_xattrs(before)? == read_xattrs(now)?)
}

/// Those that images may carry.
pub(super) fn read_xattrs(file: &impl AsFd) -> nix::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(file)? {
        let Ok(text) = name.to_str() else { continue };
        if xattr::is_allowed(text.as_bytes()) {
            match xattr::get(file, &name) {
                Ok(value) => found.push((text.to_owned(), value)),
                Err(Errno::ENODATA) => {}
                Err(e) => return Err(e),
            }
        }
    }
    found.sort();
    Ok(found)
}
