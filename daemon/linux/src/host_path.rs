//! Paths of the host that pods may mount (hostPath): only what the settings allow, found by descriptors.
//!
//! The path of a directory that the settings allow is the administrator's word and is followed wherever it leads. From
//! there on nobody else's word counts: no symbolic link is followed (openat2(2)), and what was found is looked at again
//! by its descriptor, which is what gets mounted. Exchanging a directory for a link at any moment gains nothing.

use crate::inside::Inside;
use crate::options::LinuxOptions;
use crate::record::FailureKind;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::fstatfs;
use reddwarf_host::spec::HostPathKind;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What rules the host.
const NEVER: [&str; 3] = ["/proc", "/sys", "/dev"];

/// File systems that rule the host, wherever they are mounted (statfs(2)): proc, sysfs, cgroup, cgroup2, debugfs,
/// tracefs, securityfs, bpf, devpts, nsfs.
const RULING: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1cd1,
    0x6e73_6673,
];

/// Why a path is not given.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

/// It will not be given until the pod or the settings change.
fn forbidden(path: &Path, why: &str) -> Refusal {
    Refusal { kind: FailureKind::InvalidSpec, message: format!("hostPath {} {why}", path.display()) }
}

/// It is not there as the pod says; that may change at any time.
fn mistyped(path: &Path, what: &str) -> Refusal {
    let message = format!("hostPath type check failed: {} is not {what}", path.display());
    Refusal { kind: FailureKind::Other, message }
}

fn failed(path: &Path, error: &io::Error) -> Refusal {
    let message = match error.raw_os_error() {
        Some(libc::ELOOP) => {
            format!("hostPath {} leads through a symbolic link: name what it points to", path.display())
        }
        _ => format!("hostPath {}: {error}", path.display()),
    };
    Refusal { kind: FailureKind::Other, message }
}

/// Opens a path of the host as a pod may have it, made where its kind says so.
pub(crate) fn open_allowed(path: &Path, kind: HostPathKind, options: &LinuxOptions) -> Result<OwnedFd, Refusal> {
    let allowed = options.host_path_allow.iter().filter(|allowed| path.starts_with(allowed));
    let Some(base) = allowed.max_by_key(|allowed| allowed.components().count()) else {
        return Err(forbidden(path, "is not below a path of host_path_allow in reddwarfd.toml"));
    };
    let below = path.strip_prefix(base).unwrap_or(Path::new(""));
    let start = match open_base(base) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_base(base, below, kind).and_then(|()| open_base(base)).map_err(|e| missing(path, kind, &e))
        }
        other => other.map_err(|e| failed(path, &e)),
    }?;
    let found = if below.as_os_str().is_empty() { start } else { walk(start, below, kind, path)? };
    check_place(&found, path, options)?;
    check_kind(&found, path, kind)?;
    Ok(found)
}

fn open_base(base: &Path) -> io::Result<OwnedFd> {
    Ok(open(base, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn make_base(base: &Path, below: &Path, kind: HostPathKind) -> io::Result<()> {
    match kind {
        HostPathKind::FileOrCreate if below.as_os_str().is_empty() => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            open(base, flags, Mode::from_bits_truncate(0o644)).map(drop).map_err(io::Error::from)
        }
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => crate::files::make_open_dir(base),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// From an allowed directory on.
fn walk(start: OwnedFd, below: &Path, kind: HostPathKind, path: &Path) -> Result<OwnedFd, Refusal> {
    let inside = Inside::without_links(start);
    let look = || inside.open(below, OFlag::O_PATH);
    let found = match look() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(&inside, below, kind).and_then(|()| look()),
        other => other,
    };
    found.map_err(|e| missing(path, kind, &e))
}

fn make(inside: &Inside, below: &Path, kind: HostPathKind) -> io::Result<()> {
    match kind {
        // Without a type the engines make a directory as well.
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => inside.make_dirs(below, 0o755).map(drop),
        HostPathKind::FileOrCreate => {
            let (parent, name) = (below.parent().unwrap_or(Path::new("")), below.file_name().unwrap_or_default());
            let parent = inside.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(&parent, name, flags, Mode::from_bits_truncate(0o644)) {
                // Someone else was first: what is there is looked at.
                Ok(_) | Err(nix::errno::Errno::EEXIST) => Ok(()),
                Err(e) => Err(e.into()),
            }
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn missing(path: &Path, kind: HostPathKind, error: &io::Error) -> Refusal {
    let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    match wanted(kind).filter(|_| absent) {
        Some((_, what)) => mistyped(path, what),
        None => failed(path, error),
    }
}

/// What a kind must be, in the reference's words.
fn wanted(kind: HostPathKind) -> Option<(SFlag, &'static str)> {
    Some(match kind {
        HostPathKind::Any => return None,
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => (SFlag::S_IFDIR, "a directory"),
        HostPathKind::File | HostPathKind::FileOrCreate => (SFlag::S_IFREG, "a file"),
        HostPathKind::Socket => (SFlag::S_IFSOCK, "a socket file"),
        HostPathKind::CharDevice => (SFlag::S_IFCHR, "a character device"),
        HostPathKind::BlockDevice => (SFlag::S_IFBLK, "a block device"),
    })
}

fn check_kind(found: &OwnedFd, path: &Path, kind: HostPathKind) -> Result<(), Refusal> {
    let stat = fstat(found).map_err(|e| failed(path, &e.into()))?;
    let is = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match wanted(kind) {
        Some((wanted, what)) if is != wanted => Err(mistyped(path, what)),
        Some(_) => Ok(()),
        None if matches!(is, SFlag::S_IFDIR | SFlag::S_IFREG) => Ok(()),
        None => Err(forbidden(path, "is a socket, a device or a pipe: set the volume's type to say that it is meant")),
    }
}

/// Where the descriptor really is: not in what rules the host, and not in or above what is ours.
fn check_place(found: &OwnedFd, path: &Path, options: &LinuxOptions) -> Result<(), Refusal> {
    let place = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(|e| failed(path, &e))?;
    if NEVER.iter().any(|never| place.starts_with(never)) {
        return Err(forbidden(path, "is never given to a pod"));
    }
    let kind = fstatfs(found).map_err(|e| failed(path, &e.into()))?.filesystem_type().0;
    if u64::try_from(kind).is_ok_and(|kind| RULING.contains(&kind)) {
        return Err(forbidden(path, "lies on a file system of the kernel, which is never given to a pod"));
    }
    let real = |own: &PathBuf| fs::canonicalize(own).unwrap_or_else(|_| own.clone());
    let ours = [&options.run_dir, &options.state_dir].map(real);
    if ours.iter().any(|own| place.starts_with(own) || own.starts_with(&place)) {
        return Err(forbidden(path, "holds files of reddwarfd itself, which are never given to a pod"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn options(dir: &Path) -> LinuxOptions {
        let mut options = LinuxOptions::new(dir.join("own/run"), dir.join("own/state"), "/nonexistent");
        options.host_path_allow = vec![dir.join("allowed"), "/proc/sys".into(), dir.join("all")];
        options
    }

    fn message(result: Result<OwnedFd, Refusal>) -> String {
        result.map_or_else(|refusal| refusal.message, |_| "given".to_owned())
    }

    #[test]
    fn only_what_is_allowed_as_it_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().join("allowed");
        std::fs::create_dir_all(allowed.join("a/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("own/run")).unwrap();
        std::fs::create_dir_all(dir.path().join("own/state")).unwrap();
        std::fs::write(allowed.join("file"), "x").unwrap();
        symlink("a", allowed.join("link")).unwrap();
        symlink("/etc", allowed.join("out")).unwrap();
        symlink(dir.path().join("own"), dir.path().join("all")).unwrap();
        let _socket = UnixListener::bind(allowed.join("sock")).unwrap();
        let options = options(dir.path());
        let try_open = |path: &str, kind| message(open_allowed(&dir.path().join(path), kind, &options));
        use HostPathKind::{Any, BlockDevice, CharDevice, Directory, DirectoryOrCreate, File, FileOrCreate, Socket};
        for (path, kind, expected) in [
            ("allowed", Any, "given"),
            ("allowed/a/b", Directory, "given"),
            ("allowed/file", File, "given"),
            ("allowed/file", Any, "given"),
            ("allowed/sock", Socket, "given"),
            ("allowed/new/dir", DirectoryOrCreate, "given"),
            ("allowed/untyped/dir", Any, "given"),
            ("allowed/a/new-file", FileOrCreate, "given"),
            ("allowed/none/new-file", FileOrCreate, "is not a file"),
            ("allowed/none", Directory, "is not a directory"),
            ("allowed/file", Directory, "is not a directory"),
            ("allowed/file/below", Directory, "is not a directory"),
            ("allowed/a", File, "is not a file"),
            ("allowed/a", Socket, "is not a socket file"),
            ("allowed/a", CharDevice, "is not a character device"),
            ("allowed/a", BlockDevice, "is not a block device"),
            ("allowed/sock", Any, "set the volume's type"),
            ("allowed/link", Any, "symbolic link"),
            ("allowed/link/b", Directory, "symbolic link"),
            ("allowed/out/ssh", DirectoryOrCreate, "symbolic link"),
            ("elsewhere", Any, "host_path_allow"),
            ("allowedx", Any, "host_path_allow"),
            ("all", Any, "reddwarfd itself"),
            ("all/state", Any, "reddwarfd itself"),
        ] {
            let found = try_open(path, kind);
            assert!(found.contains(expected), "{path} {kind:?}: {found}");
        }
        assert!(!dir.path().join("allowed/none").exists());
        assert!(message(open_allowed(Path::new("/proc/sys/kernel"), Any, &options)).contains("never given"));
    }

    /// However often a directory is exchanged for a link to somewhere else, what is opened is within.
    #[test]
    fn no_exchange_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().join("allowed");
        std::fs::create_dir_all(allowed.join("a/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("secret/b")).unwrap();
        symlink(dir.path().join("secret"), allowed.join("trap")).unwrap();
        let options = options(dir.path());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (a, trap) = (allowed.join("a"), allowed.join("trap"));
                    let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &a, nix::fcntl::AT_FDCWD, &trap, exchange).unwrap();
                }
            });
            let mut given = 0;
            for _ in 0..3000 {
                if let Ok(fd) = open_allowed(&allowed.join("a/b/c"), HostPathKind::DirectoryOrCreate, &options) {
                    given += 1;
                    let place = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
                    assert!(place.starts_with(allowed.canonicalize().unwrap()), "{}", place.display());
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(given > 0, "never the directory itself");
        });
        assert_eq!(std::fs::read_dir(dir.path().join("secret/b")).unwrap().count(), 0, "nothing was made outside");
    }
}
