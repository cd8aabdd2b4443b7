//! The control socket: there is no moment at which it can be reached by somebody who may not.
//!
//! It is bound inside a fresh directory of mode 0700, gets its mode and group there, and is then renamed into place,
//! which also replaces a socket left by a daemon that died. A lock file beside it tells two daemons apart.

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Group, chown};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon serves here.
    #[error("another reddwarfd{0} already serves {path}; stop it, or choose another --socket and --state for this one", path = .1.display())]
    InUse(String, PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0} exists and is no socket; move it away or choose another --socket")]
    NotASocket(PathBuf),
    /// Others could replace the socket.
    #[error(
        "{path} is {why}, so that others could put a socket of their own there; chmod 0750 it, or choose another --socket"
    )]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// `writable by everybody`, ...
        why: &'static str,
    },
    /// Unix sockets have short paths.
    #[error("the path {0} is too long for a socket (at most {max} bytes); choose a shorter --socket", max = MAX_PATH)]
    TooLong(PathBuf),
    /// Certificates, tokens or the kubeconfig can't be used.
    #[error(transparent)]
    Certificates(#[from] crate::access::certificates::CertificateError),
    /// An operation failed.
    #[error("can't {op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// `sun_path` holds 108 bytes on Linux and illumos, one of them the end.
const MAX_PATH: usize = 107;

pub(crate) fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::Io { op, path, source }
}

/// A bound control socket. Dropping it removes the file if it is still ours.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    group: Option<Gid>,
    identity: (u64, u64),
    _lock: Flock<File>,
}

impl Socket {
    /// Binds `path`, for members of `group` (if there is such a group) and root.
    ///
    /// # Errors
    /// [`BindError`]; an existing live daemon, file or unsafe directory is left as it is.
    pub(crate) fn bind(path: &Path, group: Option<&str>) -> Result<(Self, UnixListener), BindError> {
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let group = group.and_then(|name| Group::from_name(name).ok().flatten()).map(|g| g.gid);
        prepare_directory(&directory, group)?;
        let lock = lock(path)?;
        clear(path)?;
        let (listener, identity) = place(path, &directory, group)?;
        Ok((Self { path: path.to_owned(), group, identity, _lock: lock }, listener))
    }

    /// Is the file at the path still this socket?
    pub(crate) fn in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Binds again after the file was removed or replaced (F42). We hold the lock, so what is there is no daemon's.
    ///
    /// # Errors
    /// As [`Socket::bind`].
    pub(crate) fn rebind(&mut self) -> Result<UnixListener, BindError> {
        let directory = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        prepare_directory(&directory, self.group)?;
        clear(&self.path)?;
        let (listener, identity) = place(&self.path, &directory, self.group)?;
        self.identity = identity;
        Ok(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.in_place() {
            // Best effort: a socket left behind is replaced by the next daemon.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Makes the directory (0750, with the group) or checks the one that is there.
fn prepare_directory(directory: &Path, group: Option<Gid>) -> Result<(), BindError> {
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => chown(directory, None, group).map_err(|e| io_error("set the group of", directory)(e.into())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => check_directory(directory),
        Err(e) => Err(io_error("create the directory", directory)(e)),
    }
}

fn check_directory(directory: &Path) -> Result<(), BindError> {
    let meta = std::fs::metadata(directory).map_err(io_error("read the directory", directory))?;
    if !meta.is_dir() {
        return Err(io_error("use as a directory", directory)(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let (mode, sticky) = (meta.mode() & 0o777, meta.mode() & 0o1000 != 0);
    let unsafe_because = |why| Err(BindError::UnsafeDirectory { path: directory.to_owned(), why });
    if mode & 0o002 != 0 && !sticky {
        return unsafe_because("writable by everybody");
    }
    if mode & 0o020 != 0 && !sticky && meta.gid() != 0 {
        return unsafe_because("writable by its group");
    }
    Ok(())
}

/// Takes the lock beside the socket; held by another daemon, it names that.
fn lock(path: &Path) -> Result<Flock<File>, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&name)
        .map_err(io_error("open the lock", &name))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people only: who holds it.
            let pid = format!("{}\n", std::process::id());
            let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(pid.as_bytes()));
            written.map_err(io_error("write the lock", &name))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            let who = if read { format!(" (process {})", pid.trim()) } else { String::new() };
            Err(BindError::InUse(who, path.to_owned()))
        }
        Err((_, e)) => Err(io_error("lock", &name)(e.into())),
    }
}

/// Looks at what is at the path: nothing or a dead socket is fine, a live one or another kind of file is not.
fn clear(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("look at", path)(e)),
        Ok(meta) if !meta.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(BindError::InUse(String::new(), path.to_owned())),
            // Refused or gone: nobody answers.
            Err(_) => Ok(()),
        },
    }
}

/// Binds in a private directory, sets mode and group, renames into place.
fn place(path: &Path, directory: &Path, group: Option<Gid>) -> Result<(UnixListener, (u64, u64)), BindError> {
    let private = directory.join(format!(".{:x}", std::process::id()));
    let inner = private.join("s");
    if path.as_os_str().len() > MAX_PATH || inner.as_os_str().len() > MAX_PATH {
        return Err(BindError::TooLong(path.to_owned()));
    }
    remove_private(&private)?;
    DirBuilder::new().mode(0o700).create(&private).map_err(io_error("create", &private))?;
    let placed = bind_in(&inner, path, group);
    remove_private(&private)?;
    placed
}

fn bind_in(inner: &Path, path: &Path, group: Option<Gid>) -> Result<(UnixListener, (u64, u64)), BindError> {
    let listener = UnixListener::bind(inner).map_err(io_error("bind", inner))?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(inner, Permissions::from_mode(mode)).map_err(io_error("set the mode of", inner))?;
    chown(inner, None, group).map_err(|e| io_error("set the group of", inner)(e.into()))?;
    let identity = identity(inner).map_err(io_error("look at", inner))?;
    std::fs::rename(inner, path).map_err(io_error("put in place", path))?;
    Ok((listener, identity))
}

/// Removes what an earlier daemon with our process number may have left in the way.
fn remove_private(private: &Path) -> Result<(), BindError> {
    match std::fs::remove_dir_all(private) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", private)(e)),
        _ => Ok(()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_ours_alone_without_a_group_and_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/reddwarf.sock");
        let (socket, _listener) = Socket::bind(&path, Some("no-such-group-here")).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o750));
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the socket and its lock, no private directory: {left:?}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn f42_a_second_daemon_is_refused_and_a_dead_ones_socket_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (first, listener) = Socket::bind(&path, None).unwrap();
        let refused = Socket::bind(&path, None).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("another reddwarfd (process {}) already serves", std::process::id())),
            "{refused}"
        );
        assert!(first.in_place(), "and the first goes on");
        // A daemon that died leaves its file: nobody answers.
        drop(listener);
        drop(first);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (again, _listener) = Socket::bind(&path, None).unwrap();
        assert!(again.in_place());
    }

    #[tokio::test]
    async fn f42_a_foreign_live_socket_a_plain_file_and_open_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("live");
        let _other = std::os::unix::net::UnixListener::bind(&live).unwrap();
        assert!(matches!(Socket::bind(&live, None), Err(BindError::InUse(..))));
        let plain = dir.path().join("plain");
        File::create(&plain).unwrap();
        assert!(Socket::bind(&plain, None).unwrap_err().to_string().contains("exists and is no socket"));
        assert!(plain.exists());
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let error = Socket::bind(&open.join("s"), None).unwrap_err().to_string();
        assert!(error.contains("writable by everybody"), "{error}");
        let long = dir.path().join("x".repeat(120));
        assert!(Socket::bind(&long, None).unwrap_err().to_string().contains("too long for a socket"));
    }

    #[tokio::test]
    async fn f42_a_removed_or_replaced_file_is_noticed_and_bound_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (mut socket, _listener) = Socket::bind(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!socket.in_place());
        let _again = socket.rebind().unwrap();
        assert!(socket.in_place());
        assert!(UnixStream::connect(&path).is_ok());
    }
}
