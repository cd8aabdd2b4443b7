//! Makes one container and starts it. Runs in a process forked from the shim, with a mount namespace of its own: every
//! mount that it makes lives only as long as the container has it, so nothing of it can be left over.

use super::CreatorReport;
use crate::cgroup::Cgroups;
use crate::files::{make_dir, make_open_dir, write_json, write_kernel_file};
use crate::inside::{Inside, open_no_follow};
use crate::oci::{self, PidNamespace, ReadyMount};
use crate::program::{ProgramError, reset_signals};
use crate::record::{ContainerDir, FailureKind, Launch, LaunchMount};
use crate::rootfs;
use crate::runtime::{self, Order, StartFailure, Streams};
use crate::user::{self, UserError};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, fstat};
use reddwarf_host::spec::{HostPathKind, ProcessView};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A failure on the way, as the shim reports it.
struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn io(what: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |e| {
            let kind = match e.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                    FailureKind::Exhausted
                }
                _ => FailureKind::Other,
            };
            Self::new(kind, format!("{what}: {e}"))
        }
    }
}

pub(super) fn run(dir: &ContainerDir, streams: Streams) -> CreatorReport {
    // Dies with the shim: nobody else would hear of what it makes.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    reset_signals();
    match make(dir, streams) {
        Ok(pid) => CreatorReport::Runs { pid },
        Err(StartFailure::Program(error)) => CreatorReport::Program(error),
        Err(StartFailure::Host { kind, message }) => CreatorReport::Failed { kind, message },
    }
}

impl From<Failure> for StartFailure {
    fn from(f: Failure) -> Self {
        Self::Host { kind: f.kind, message: f.message }
    }
}

fn make(dir: &ContainerDir, streams: Streams) -> Result<u32, StartFailure> {
    let launch: Launch = crate::files::read_json(&dir.launch_file())
        .and_then(|l| l.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(Failure::io("read launch.json"))?;
    own_mounts().map_err(Failure::io("make a mount namespace"))?;
    let root_path = rootfs::prepare(&launch.rootfs).map_err(|e| Failure::new(e.kind.into(), e.chain()))?;
    let root = Inside::root_of(&root_path).map_err(Failure::io("open the root file system"))?;
    let user = user::resolve(&launch.container.user, &root).map_err(|e| {
        let kind = match &e {
            UserError::NoUser(_) | UserError::NoGroup(_) => FailureKind::InvalidSpec,
            UserError::Io(_) => FailureKind::Other,
        };
        Failure::new(kind, e.to_string())
    })?;
    make_working_dir(&root, &launch.container.working_dir)?;
    let mut ready = stage_all(dir, &launch.mounts)?;
    ready.extend(last_words(&launch));
    let (processes, _held) = pid_namespace(&launch)?;
    let config = oci::config(&launch, &root_path, &user, &ready, &processes)
        .map_err(|e| Failure::new(FailureKind::InvalidSpec, e.to_string()))?;
    let bundle = dir.bundle();
    write_json(&bundle.join("config.json"), &config).map_err(Failure::io("write config.json"))?;
    let state = dir.path().join("oci");
    make_dir(&state).map_err(Failure::io("make the runtime's directory"))?;
    lift_oom_score().map_err(Failure::io("set oom_score_adj"))?;
    let cgroups = Cgroups::detect(&launch.options.cgroup_root).map_err(Failure::io("look for cgroups"))?;
    let shims = Path::new("/").join(&launch.options.instance).join("shims");
    let made = |pid| cgroups.take_from_daemon(&shims, pid);
    let order = Order { id: &launch.id, bundle: &bundle, state: &state, streams, made: &made };
    runtime::select(&launch.options.runtime).run(order)
}

/// The file of the container's last words, where no volume of the user's is mounted.
fn last_words(launch: &Launch) -> Option<ReadyMount> {
    let target = &launch.container.termination_message.path;
    let source = launch.last_words.clone().filter(|_| !launch.mounts.iter().any(|m| m.target == *target))?;
    Some(ReadyMount { source, target: target.clone(), read_only: false })
}

/// Which PID namespace the container gets, and the descriptor that keeps a shared one from becoming another's.
fn pid_namespace(launch: &Launch) -> Result<(PidNamespace, Option<fs::File>), Failure> {
    match (&launch.container.processes, launch.process_peer) {
        (ProcessView::Own, _) => Ok((PidNamespace::New, None)),
        (ProcessView::Host, _) => Ok((PidNamespace::Host, None)),
        (ProcessView::Container(target), peer) => {
            let gone = || Failure::new(FailureKind::NotFound, format!("target container {target} does not run"));
            let peer = peer.ok_or_else(gone)?;
            let file = fs::File::open(format!("/proc/{}/ns/pid", peer.pid)).map_err(|_| gone())?;
            // Looked at after opening: the descriptor is the namespace of that very process.
            if !peer.is_alive() {
                return Err(gone());
            }
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            Ok((PidNamespace::Join(path.into()), Some(file)))
        }
    }
}

/// A mount namespace whose changes never reach the host's.
fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Containers don't inherit the protection from the kernel's OOM killer that daemon and shim have.
fn lift_oom_score() -> io::Result<()> {
    let path = Path::new("/proc/self/oom_score_adj");
    if fs::read_to_string(path)?.trim().parse::<i32>().is_ok_and(|now| now < 0) {
        write_kernel_file(path, "0")?;
    }
    Ok(())
}

/// Made when missing, as every engine does; a file in its place is the program's problem.
fn make_working_dir(root: &Inside, path: &str) -> Result<(), StartFailure> {
    if path.is_empty() || path == "/" {
        return Ok(());
    }
    match root.make_dirs(Path::new(path), 0o755) {
        Ok(_) => Ok(()),
        // A read-only root, or a directory that a volume brings along: chdir(2) will tell.
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(e) => {
            let message = format!("working directory {path}: {e}");
            Err(StartFailure::Program(ProgramError { code: 128, message }))
        }
    }
}

fn stage_all(dir: &ContainerDir, mounts: &[LaunchMount]) -> Result<Vec<ReadyMount>, Failure> {
    let staging = dir.path().join("mnt");
    let mut ready = Vec::with_capacity(mounts.len());
    for (number, wanted) in mounts.iter().enumerate() {
        let at = staging.join(number.to_string());
        let source = open_source(wanted)?;
        stage(&source, &at).map_err(Failure::io("bind a volume"))?;
        ready.push(ReadyMount { source: at, target: wanted.target.clone(), read_only: wanted.read_only });
    }
    Ok(ready)
}

/// Binds an opened source to a path of ours. By descriptor: what was checked is what is mounted.
fn stage(source: &OwnedFd, at: &Path) -> io::Result<()> {
    let is_dir = SFlag::from_bits_truncate(fstat(source)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    if is_dir {
        make_dir(at)?;
    } else {
        if let Some(parent) = at.parent() {
            make_dir(parent)?;
        }
        fs::File::create(at)?;
    }
    let by_descriptor = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(by_descriptor.as_str()), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

fn open_source(wanted: &LaunchMount) -> Result<OwnedFd, Failure> {
    let what = wanted.source.display();
    let volume = match wanted.host_path {
        Some(kind) => open_host_path(&wanted.source, kind)?,
        None => open_no_follow(&wanted.source).map_err(Failure::io("open a volume"))?,
    };
    if wanted.sub_path.is_empty() {
        return Ok(volume);
    }
    let sub_path = Path::new(&wanted.sub_path);
    let inside = Inside::volume_of(volume);
    let opened = match inside.open(sub_path, OFlag::O_PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => inside.make_dirs(sub_path, 0o755),
        other => other,
    };
    opened.map_err(|e| {
        let kind = if e.raw_os_error() == Some(libc::EXDEV) { FailureKind::InvalidSpec } else { FailureKind::Other };
        let why = if kind == FailureKind::InvalidSpec { "leads out of the volume".to_owned() } else { e.to_string() };
        Failure::new(kind, format!("sub path {:?} of {what}: {why}", wanted.sub_path))
    })
}

/// Opens a path of the host without following a final symlink, and checks that it is what the pod says.
fn open_host_path(path: &Path, kind: HostPathKind) -> Result<OwnedFd, Failure> {
    let shown = path.display();
    let opened = match open_no_follow(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_host_path(path, kind)?;
            open_no_follow(path)
        }
        other => other,
    };
    let fd = opened.map_err(|e| Failure::new(FailureKind::InvalidSpec, format!("host path {shown}: {e}")))?;
    let stat = fstat(&fd).map_err(|e| Failure::io("look at a host path")(e.into()))?;
    let found = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if found == SFlag::S_IFLNK {
        let message = format!("host path {shown} is a symbolic link: name what it points to");
        return Err(Failure::new(FailureKind::InvalidSpec, message));
    }
    let wanted = match kind {
        HostPathKind::Any => return Ok(fd),
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => (SFlag::S_IFDIR, "a directory"),
        HostPathKind::File | HostPathKind::FileOrCreate => (SFlag::S_IFREG, "a regular file"),
        HostPathKind::Socket => (SFlag::S_IFSOCK, "a socket"),
        HostPathKind::CharDevice => (SFlag::S_IFCHR, "a character device"),
        HostPathKind::BlockDevice => (SFlag::S_IFBLK, "a block device"),
    };
    if found != wanted.0 {
        return Err(Failure::new(FailureKind::InvalidSpec, format!("host path {shown} is not {}", wanted.1)));
    }
    Ok(fd)
}

fn make_host_path(path: &Path, kind: HostPathKind) -> Result<(), Failure> {
    match kind {
        HostPathKind::DirectoryOrCreate => make_open_dir(path).map_err(Failure::io("make a host path")),
        HostPathKind::FileOrCreate => fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map(drop)
            .map_err(Failure::io("make a host path")),
        HostPathKind::Any
        | HostPathKind::Directory
        | HostPathKind::File
        | HostPathKind::Socket
        | HostPathKind::CharDevice
        | HostPathKind::BlockDevice => Ok(()),
    }
}
