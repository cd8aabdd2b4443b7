//! Paths inside a tree that somebody else controls, resolved by descriptors (openat2(2)): no symlink leads out.

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

/// A directory that paths are resolved in.
#[derive(Debug)]
pub(crate) struct Inside {
    root: OwnedFd,
    resolve: ResolveFlag,
}

impl Inside {
    /// A container's root: symlinks are followed as the container itself would, absolute ones from this root.
    pub(crate) fn root_of(path: &Path) -> io::Result<Self> {
        Self::open_root(path, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// A volume: symlinks that stay within are followed, those that lead out are refused (`EXDEV`).
    #[cfg(test)]
    pub(crate) fn volume(path: &Path) -> io::Result<Self> {
        Self::open_root(path, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    fn open_root(path: &Path, resolve: ResolveFlag) -> io::Result<Self> {
        let root = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root, resolve })
    }

    /// The same for a tree that is open already.
    pub(crate) fn volume_of(root: OwnedFd) -> Self {
        Self { root, resolve: ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS }
    }

    /// A tree of the host: no symlink is followed at all (`ELOOP`).
    pub(crate) fn without_links(root: OwnedFd) -> Self {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS;
        Self { root, resolve }
    }

    /// Opens something inside.
    pub(crate) fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(self.resolve);
        Ok(openat2(&self.root, relative, how)?)
    }

    /// Reads a small file inside; `None` when there is none.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Option<String>> {
        // Non-blocking: the tree's owner may have put a pipe there that nobody writes to.
        let fd = match self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(fd) => fd,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        File::from(fd).take(limit).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Makes directories inside as far as they are missing, and opens the last one as a path.
    pub(crate) fn make_dirs(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let mut current = self.open(Path::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let mut so_far = std::path::PathBuf::new();
        for component in path.components() {
            let part = match component {
                Component::Normal(part) => part,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path holds '..'"));
                }
            };
            so_far.push(part);
            // From the root each time, so that links on the way are followed by the root's rule.
            current = match self.open(&so_far, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(fd) => fd,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(&current, part, Mode::from_bits_truncate(mode)) {
                        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.open(&so_far, OFlag::O_PATH | OFlag::O_DIRECTORY)?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(current)
    }
}

/// Opens a path of the host without following a final symlink.
pub(crate) fn open_no_follow(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(AT_FDCWD, path, how)?)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_out_of_a_root_stay_inside_and_out_of_a_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("passwd"), "host").unwrap();
        std::fs::write(root.join("passwd"), "inside").unwrap();
        symlink("../../passwd", root.join("etc/passwd")).unwrap();
        symlink("/passwd", root.join("etc/shadow")).unwrap();

        let container = Inside::root_of(&root).unwrap();
        assert_eq!(container.read(Path::new("/etc/passwd"), 100).unwrap().unwrap(), "inside");
        assert_eq!(container.read(Path::new("/etc/shadow"), 100).unwrap().unwrap(), "inside");
        assert_eq!(container.read(Path::new("/etc/none"), 100).unwrap(), None);

        let volume = Inside::volume(&root).unwrap();
        assert_eq!(volume.open(Path::new("etc/passwd"), OFlag::O_PATH).unwrap_err().raw_os_error(), Some(libc::EXDEV));
        assert!(volume.open(Path::new("etc"), OFlag::O_PATH).is_ok());
    }

    #[test]
    fn directories_are_made_where_missing_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        symlink("/", root.join("out")).unwrap();
        let inside = Inside::root_of(&root).unwrap();
        inside.make_dirs(Path::new("/a/b/c"), 0o755).unwrap();
        assert!(root.join("a/b/c").is_dir());
        inside.make_dirs(Path::new("/out/made-here"), 0o755).unwrap();
        assert!(root.join("made-here").is_dir(), "the link to / means the container's own /");
        assert!(inside.make_dirs(Path::new("/a/../../x"), 0o755).is_err());
    }
}
