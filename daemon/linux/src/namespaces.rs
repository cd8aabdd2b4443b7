//! Namespaces of a sandbox, pinned to files (namespaces(7)): they live without any process in them.

use crate::files::make_dir;
use crate::mounts;
use crate::paths::Paths;
use crate::record::NamespacePaths;
use nix::sched::{CloneFlags, unshare};
use reddwarf_host::SandboxId;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What a sandbox needs: everything, or, on the host's network, IPC only (the host's name comes with its network).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Full,
    HostNetwork,
}

/// Files that the namespaces of `id` are pinned to.
pub(crate) fn paths(paths: &Paths, id: &SandboxId, isolation: Isolation) -> NamespacePaths {
    let dir = paths.namespaces(id);
    let full = isolation == Isolation::Full;
    NamespacePaths { net: full.then(|| dir.join("net")), ipc: dir.join("ipc"), uts: full.then(|| dir.join("uts")) }
}

impl NamespacePaths {
    fn all(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [("net", self.net.as_ref()), ("ipc", Some(&self.ipc)), ("uts", self.uts.as_ref())]
            .into_iter()
            .filter_map(|(kind, path)| path.map(|p| (kind, p)))
    }

    /// Whether every one of them is among these mount points.
    pub(crate) fn are_pinned(&self, mounted: &std::collections::BTreeSet<PathBuf>) -> bool {
        self.all().all(|(_, path)| mounted.contains(path))
    }
}

/// Makes and pins the namespaces unless they are all there; whether something was done. Half of a set left by a crash
/// is taken away first: its members would not belong together.
pub(crate) fn pin(namespaces: &NamespacePaths, hostname: &str) -> io::Result<bool> {
    let Some(dir) = namespaces.ipc.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    if namespaces.are_pinned(&mounts::targets_below(dir)?) {
        return Ok(false);
    }
    mounts::detach_below(dir)?;
    make_dir(dir)?;
    let wanted: Vec<(&'static str, PathBuf)> = namespaces.all().map(|(k, p)| (k, p.clone())).collect();
    let hostname = hostname.to_owned();
    // A thread has namespaces of its own after unshare(2); it must not go back to tokio's pool with them.
    let thread = std::thread::Builder::new().name("pin-namespaces".to_owned()).stack_size(64 << 10);
    let result = thread.spawn(move || make_and_bind(&wanted, &hostname))?.join();
    result.unwrap_or_else(|_| Err(io::Error::other("the thread that makes namespaces panicked")))?;
    Ok(true)
}

fn make_and_bind(wanted: &[(&'static str, PathBuf)], hostname: &str) -> io::Result<()> {
    let mut flags = CloneFlags::empty();
    for (kind, _) in wanted {
        flags |= match *kind {
            "net" => CloneFlags::CLONE_NEWNET,
            "uts" => CloneFlags::CLONE_NEWUTS,
            _ => CloneFlags::CLONE_NEWIPC,
        };
    }
    unshare(flags)?;
    for (kind, path) in wanted {
        match *kind {
            "uts" => nix::unistd::sethostname(hostname)?,
            "net" => loopback_up()?,
            _ => {}
        }
        File::create(path)?;
        mounts::bind(Path::new(&format!("/proc/thread-self/ns/{kind}")), path)?;
    }
    Ok(())
}

/// Brings `lo` of the calling thread's network namespace up (netdevice(7)).
#[allow(unsafe_code)]
fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid; the name is shorter than IFNAMSIZ and zero-terminated by the rest; the
    // ioctls read and write only the structure, which outlives them.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets go of a sandbox's namespaces; whether there were any. They end with the last process in them.
pub(crate) fn unpin(dir: &Path) -> io::Result<bool> {
    let any = mounts::detach_below(dir)?;
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(any),
        Err(e) => Err(e),
    }
}
