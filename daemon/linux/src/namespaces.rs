//! Namespaces of a sandbox, pinned to files (namespaces(7)): they live without any process in them, save for a shared
//! PID namespace, which needs its first process ([`crate::pause`]).

use crate::files::{make_dir, remove_tree, write_kernel_file};
use crate::mounts;
use crate::network::sysctl;
use crate::paths::Paths;
use crate::record::NamespacePaths;
use nix::sched::{CloneFlags, unshare};
use reddwarf_host::spec::{SandboxNetwork, SandboxSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Files that the namespaces of a sandbox are pinned to. On the host's network its name is the host's as well.
pub(crate) fn paths(paths: &Paths, spec: &SandboxSpec) -> NamespacePaths {
    let dir = paths.namespaces(&spec.id);
    let own = |wanted: bool, name: &str| wanted.then(|| dir.join(name));
    let network = has_link(spec);
    NamespacePaths {
        user: own(spec.own_users, "user"),
        net: own(network, "net"),
        ipc: own(!spec.host_ipc, "ipc"),
        uts: own(network, "uts"),
        pid: own(spec.share_processes, "pid"),
    }
}

/// Whether a sandbox has a network of its own.
pub(crate) fn has_link(spec: &SandboxSpec) -> bool {
    match spec.network {
        SandboxNetwork::Pod { .. } => true,
        SandboxNetwork::Host => false,
    }
}

/// Every kind as /proc/PID/ns names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Net,
    Uts,
    Ipc,
    Pid,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Net => "net",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
        }
    }

    pub(crate) fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Pid => CloneFlags::CLONE_NEWPID,
        }
    }
}

impl NamespacePaths {
    /// Those that there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, &PathBuf)> {
        [
            (Kind::User, self.user.as_ref()),
            (Kind::Net, self.net.as_ref()),
            (Kind::Uts, self.uts.as_ref()),
            (Kind::Ipc, self.ipc.as_ref()),
            (Kind::Pid, self.pid.as_ref()),
        ]
        .into_iter()
        .filter_map(|(kind, path)| path.map(|p| (kind, p)))
    }

    /// Whether every one of them is among these mount points.
    pub(crate) fn are_pinned(&self, mounted: &BTreeSet<PathBuf>) -> bool {
        self.all().all(|(_, path)| mounted.contains(path))
    }
}

/// Makes and pins namespaces that need no process of their own, in `dir`. What an interrupted call left there is taken
/// away first: its members would not belong together.
pub(crate) fn pin(
    dir: &Path,
    namespaces: &NamespacePaths,
    hostname: &str,
    sysctls: &BTreeMap<String, String>,
) -> io::Result<()> {
    clear(dir)?;
    let wanted: Vec<(Kind, PathBuf)> = namespaces.all().map(|(k, p)| (k, p.clone())).collect();
    let (hostname, sysctls) = (hostname.to_owned(), sysctls.clone());
    // A thread has namespaces of its own after unshare(2); it must not go back to tokio's pool with them.
    let thread = std::thread::Builder::new().name("pin-namespaces".to_owned()).stack_size(64 << 10);
    let made = thread.spawn(move || {
        let kinds: Vec<Kind> = wanted.iter().map(|(kind, _)| *kind).collect();
        enter_new(&kinds, &hostname, &sysctls)?;
        for (kind, path) in &wanted {
            File::create(path)?;
            mounts::bind(Path::new(&format!("/proc/thread-self/ns/{}", kind.name())), path)?;
        }
        Ok(())
    });
    made?.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes namespaces panicked")))
}

/// Leaves an empty directory to pin in.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    mounts::detach_below(dir)?;
    make_dir(dir)
}

/// Puts the calling thread into new namespaces and sets them up. A new PID namespace begins with its next child.
pub(crate) fn enter_new(kinds: &[Kind], hostname: &str, sysctls: &BTreeMap<String, String>) -> io::Result<()> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    unshare(flags)?;
    if kinds.contains(&Kind::Uts) {
        nix::unistd::sethostname(hostname)?;
    }
    if kinds.contains(&Kind::Net) {
        loopback_up()?;
        // Unprivileged ping and low ports, as containerd sets them.
        sysctl::set_up_sandbox();
    }
    // /proc/sys shows each thread its own namespaces' values.
    for (name, value) in sysctls {
        let path = sysctl_path(name)?;
        let explain = |e: io::Error| io::Error::new(e.kind(), format!("set {name} to {value:?}: {e}"));
        write_kernel_file(&path, value).map_err(explain)?;
    }
    Ok(())
}

/// sysctl(8): dots are slashes. Names hold no `..` (the pod's rules) but are not trusted to.
fn sysctl_path(name: &str) -> io::Result<PathBuf> {
    let parts: Vec<&str> = name.split(['.', '/']).collect();
    if parts.iter().any(|p| p.is_empty()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no kernel setting")));
    }
    Ok(Path::new("/proc/sys").join(parts.join("/")))
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
    Ok(remove_tree(dir)? || any)
}
