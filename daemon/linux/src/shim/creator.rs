//! Makes one container and starts it. Runs in a process forked from the shim, with a mount namespace of its own: every
//! mount that it makes lives only as long as the container has it, so nothing of it can be left over.

use super::{CreatorReport, shelter, staging};
use crate::cgroup::Cgroups;
use crate::files::{make_dir, write_atomically, write_json};
use crate::inside::Inside;
use crate::oci::{self, Grantable, PidNamespace, ReadyMount};
use crate::process;
use crate::program::{ProgramError, reset_signals};
use crate::record::{ContainerDir, FailureKind, Launch, ShimFiles};
use crate::rootfs;
use crate::runtime::{self, OciRuntime, Order, StartFailure, Streams};
use crate::seccomp;
use crate::user::{self, User, UserError};
use crate::users::{self, Users};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use reddwarf_host::spec::{ProcessView, Propagation, UserSpec};
use serde_json::Value;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A failure on the way, as the shim reports it.
pub(super) struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn io(what: &str) -> impl FnOnce(io::Error) -> Self + '_ {
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
    let mut launch: Launch = crate::files::read_json(&dir.launch_file())
        .and_then(|l| l.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(Failure::io("read launch.json"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Failure::io("make a mount namespace")(e.into()))?;
    let shared = staging::take_shared(&launch)?;
    cut_off().map_err(Failure::io("cut the mount namespace off"))?;
    let root_path = rootfs::prepare(&launch.rootfs).map_err(|e| Failure::new(e.kind.into(), e.chain()))?;
    let root = Inside::root_of(&root_path).map_err(Failure::io("open the root file system"))?;
    let security = &launch.container.security;
    let user = resolve_user(&launch.container.user, &root, security.strict_groups).map_err(|e| {
        let kind = match &e {
            UserError::NoUser(_) | UserError::NoGroup(_) => FailureKind::InvalidSpec,
            UserError::Io(_) => FailureKind::Other,
        };
        Failure::new(kind, e.to_string())
    })?;
    let users = launch.rootfs.users.clone();
    make_working_dir(&root, &launch.container.working_dir, users.as_ref())?;
    staging::add_env_files(&mut launch)?;
    let mut ready = staging::stage_all(dir, &launch, shared)?;
    ready.extend(last_words(&launch));
    let (mut processes, _held) = pid_namespace(&launch)?;
    if let Streams::Pipes { stdin, stdout, stderr } = &streams {
        let owner = users::on_host(users.as_ref(), user.uid);
        let given = [stdin, stdout, stderr].into_iter().try_for_each(|s| users::give_stream(s, owner));
        given.map_err(Failure::io("give the standard streams to the user"))?;
    }
    let root_path = match &users {
        None => root_path,
        Some(users) => shelter::move_in(&mut launch, users, &root_path, &mut ready, &mut processes)?,
    };
    let cgroups = Cgroups::detect(&launch.options.cgroup_root).map_err(Failure::io("look for cgroups"))?;
    let config = oci::config(&launch, &root_path, &user, &ready, &processes, &cgroups)
        .map_err(|e| Failure::new(FailureKind::InvalidSpec, e.to_string()))?;
    let filter = prepare_filter(dir, &launch, &cgroups)?;
    let runtime = runtime::select(&launch.options.runtime);
    let bundle = dir.bundle();
    write_config(dir, config, runtime.as_ref(), filter.as_ref()).map_err(Failure::io("write config.json"))?;
    let state = dir.path().join("oci");
    make_dir(&state).map_err(Failure::io("make the runtime's directory"))?;
    process::adjust_oom_score(launch.container.oom_score_adj).map_err(Failure::io("set oom_score_adj"))?;
    let shims = Path::new("/").join(&launch.options.instance).join("shims");
    let made = |pid| {
        cgroups.limit_further(&launch.cgroup, &launch.container.resources)?;
        if !runtime.filters_devices() && !launch.container.security.privileged {
            cgroups.filter_devices(&launch.cgroup)?;
        }
        cgroups.take_from_daemon(&shims, pid)
    };
    let filter = filter.map(|prepared| prepared.filter);
    runtime.run(Order { id: &launch.id, bundle: &bundle, state: &state, streams, made: &made, filter })
}

/// The system call filter, kept where commands that join the container find it.
fn prepare_filter(
    dir: &ContainerDir,
    launch: &Launch,
    cgroups: &Cgroups,
) -> Result<Option<seccomp::Prepared>, Failure> {
    let security = &launch.container.security;
    let invalid = |message: String| Failure::new(FailureKind::InvalidSpec, message);
    let Some(wanted) = &security.seccomp else { return Ok(None) };
    let capabilities = oci::capabilities(security, &Grantable::of_host(cgroups)).map_err(|e| invalid(e.to_string()))?;
    let prepared = seccomp::prepare(wanted, &launch.options.seccomp_dir, &capabilities);
    let prepared = prepared.map_err(|e| invalid(e.to_string()))?;
    if let Some(prepared) = &prepared {
        write_atomically(&dir.filter_file(), &prepared.filter.to_bytes(), 0o600)
            .map_err(Failure::io("write seccomp.bpf"))?;
    }
    Ok(prepared)
}

/// The config as the runtime is to see it, and the process as it is meant to be for commands that join it.
fn write_config(
    dir: &ContainerDir,
    mut config: Value,
    runtime: &dyn OciRuntime,
    filter: Option<&seccomp::Prepared>,
) -> io::Result<()> {
    write_json(&dir.process_file(), &config["process"])?;
    if let Some(filter) = filter {
        runtime.ask_for_filter(&mut config, &filter.oci);
    }
    write_json(&dir.bundle().join("config.json"), &config)
}

/// The file of the container's last words, where no volume of the user's is mounted.
fn last_words(launch: &Launch) -> Option<ReadyMount> {
    let target = &launch.container.termination_message.path;
    let source = launch.last_words.clone().filter(|_| !launch.mounts.iter().any(|m| m.target == *target))?;
    Some(ReadyMount {
        source,
        target: target.clone(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    })
}

/// Which PID namespace the container gets, and the descriptor that keeps a shared one from becoming another's.
fn pid_namespace(launch: &Launch) -> Result<(PidNamespace, Option<fs::File>), Failure> {
    match (&launch.container.processes, launch.process_peer) {
        (ProcessView::Own, _) => Ok((PidNamespace::New, None)),
        (ProcessView::Host, _) => Ok((PidNamespace::Host, None)),
        (ProcessView::Sandbox, _) => match &launch.namespaces.pid {
            Some(path) => Ok((PidNamespace::Join(path.clone()), None)),
            None => Err(Failure::new(FailureKind::InvalidSpec, "the sandbox was not made to share processes")),
        },
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

/// From here on nothing that is mounted in this namespace reaches the host's.
fn cut_off() -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Made when missing, as every engine does; a file in its place is the program's problem.
fn make_working_dir(root: &Inside, path: &str, users: Option<&Users>) -> Result<(), StartFailure> {
    if path.is_empty() || path == "/" {
        return Ok(());
    }
    match as_their_root(users, || root.make_dirs(Path::new(path), 0o755)) {
        Ok(_) => Ok(()),
        // A read-only root, or a directory that a volume brings along: chdir(2) will tell.
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(e) => {
            let message = format!("working directory {path}: {e}");
            Err(StartFailure::Program(ProgramError { code: 128, message }))
        }
    }
}

/// Does something to the root file system as the root of the sandbox's own users: the host's is nobody there.
fn as_their_root<T>(users: Option<&Users>, what: impl FnOnce() -> T) -> T {
    let Some(users) = users else { return what() };
    let id = users.range.outside(0);
    nix::unistd::setfsgid(Gid::from_raw(id));
    nix::unistd::setfsuid(Uid::from_raw(id));
    let done = what();
    nix::unistd::setfsuid(Uid::from_raw(0));
    nix::unistd::setfsgid(Gid::from_raw(0));
    done
}

/// The container's user, by the image's own databases.
fn resolve_user(spec: &UserSpec, root: &Inside, strict: bool) -> Result<User, UserError> {
    let read = |path| Ok::<_, std::io::Error>(root.read(Path::new(path), user::LARGEST)?.unwrap_or_default());
    user::resolve(spec, &read("etc/passwd")?, &read("etc/group")?, strict)
}
