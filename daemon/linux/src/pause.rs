//! `__pause`: makes the namespaces of a sandbox that needs a process of one thread for it: one that shares processes, as
//! whose first process it stays, or one that has users of its own.
//!
//! Three single-threaded processes: this one, on the host, pins what the *maker* enters; the maker's child is the *pause*: process 1 of the shared PID namespace, which only collects dead children. It has an empty
//! root, no capabilities and no user of anyone else's, because containers may well have the right to look into it.

use crate::cgroup::Cgroups;
use crate::files::{io_error, read_json, write_json};
use crate::host::Shared;
use crate::mounts;
use crate::namespaces::{self, Kind};
use crate::process::ProcessId;
use crate::program::{exit_now, reset_signals};
use crate::record::NamespacePaths;
use crate::users::UserRange;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, pivot_root};
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

/// Nobody's user and group, as pause processes have it elsewhere.
const NOBODY: u32 = 65535;

/// What is to be made; in `pause.json` of the sandbox's directory.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    namespaces: NamespacePaths,
    hostname: String,
    sysctls: BTreeMap<String, String>,
    /// For the user namespace, where there is to be one.
    users: Option<UserRange>,
    cgroup_root: PathBuf,
    /// For the process that stays.
    cgroup: PathBuf,
    /// Where the process that stays is noted.
    record: PathBuf,
}

/// The first process of a sandbox's shared PID namespace lives, or the sandbox shares none.
pub(crate) fn lives(shared: &Shared, spec: &SandboxSpec) -> HostResult<bool> {
    if !spec.share_processes {
        return Ok(true);
    }
    let path = record(shared, &spec.id);
    let noted: Option<ProcessId> = crate::files::read_record("read the first process", &path)?;
    Ok(noted.is_some_and(ProcessId::is_alive))
}

fn record(shared: &Shared, id: &SandboxId) -> PathBuf {
    shared.paths.run.sandbox(id).join("first-process.json")
}

/// Has the namespaces made and pinned by a process of its own.
#[allow(clippy::disallowed_methods, reason = "our own program, on a blocking thread")]
pub(crate) fn pin(shared: &Shared, spec: &SandboxSpec, wanted: &NamespacePaths) -> HostResult<()> {
    let dir = shared.paths.namespaces(&spec.id);
    namespaces::clear(&dir).map_err(|e| io_error("make namespaces", &dir, e))?;
    let order = Order {
        namespaces: wanted.clone(),
        hostname: spec.hostname.clone(),
        sysctls: spec.sysctls.clone(),
        users: crate::sandbox::own_mark(shared, &spec.id)?.and_then(|mark| mark.users),
        cgroup_root: shared.options.cgroup_root.clone(),
        cgroup: shared.cgroup(&spec.id).join("pause"),
        record: record(shared, &spec.id),
    };
    let path = shared.paths.run.sandbox(&spec.id).join("pause.json");
    write_json(&path, &order).map_err(|e| io_error("make namespaces", &path, e))?;
    let exe = shared.paths.exe();
    let output = std::process::Command::new(&exe)
        .arg("__pause")
        .arg(&path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io_error("make namespaces", &exe, e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("{}: {}", output.status, said.trim());
    Err(HostError::new(HostErrorKind::Other, "make namespaces", spec.id.as_str(), message))
}

/// Runs the helper for the order in the file that `args` names. In a process with threads it must not be used.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(path) = args.first() else {
        eprintln!("usage: __pause FILE (started by reddwarfd itself)");
        return ExitCode::from(2);
    };
    match run(Path::new(path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path) -> io::Result<()> {
    let Some(order) = read_json::<Order>(path)? else { return Err(io::ErrorKind::NotFound.into()) };
    Cgroups::detect(&order.cgroup_root)?.leave_daemon(&order.cgroup)?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let maker = match fork()? {
        ForkResult::Child => {
            drop(ours);
            let code = match make(&order, theirs) {
                Ok(()) => 0,
                Err(e) => {
                    eprintln!("{e}");
                    1
                }
            };
            exit_now(code)
        }
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    if let Some(range) = order.users {
        hear(&mut ours)?;
        range.map(u32::try_from(maker.as_raw()).map_err(io::Error::other)?)?;
        tell(&mut ours, 0)?;
    }
    let first = hear(&mut ours)?;
    for (kind, path) in order.namespaces.all() {
        let pid = if kind == Kind::Pid { first } else { maker.as_raw() };
        File::create(path)?;
        mounts::bind(Path::new(&format!("/proc/{pid}/ns/{}", kind.name())), path)?;
    }
    if let Ok(pid) = u32::try_from(first)
        && pid != 0
    {
        write_json(&order.record, &ProcessId::of(pid)?)?;
    }
    tell(&mut ours, 0)?;
    match waitpid(maker, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(io::Error::other(format!("the process that makes namespaces ended: {other:?}"))),
    }
}

/// A number of four bytes, across the socket.
fn tell(to: &mut UnixStream, number: i32) -> io::Result<()> {
    to.write_all(&number.to_ne_bytes())
}

fn hear(from: &mut UnixStream) -> io::Result<i32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// In the maker: enters what is new, and leaves the first process of a PID namespace behind.
fn make(order: &Order, mut parent: UnixStream) -> io::Result<()> {
    // Nobody else would end it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if order.users.is_some() {
        become_own_root(&mut parent)?;
    }
    let all = order.namespaces.all().map(|(kind, _)| kind);
    let kinds: Vec<Kind> = all.filter(|kind| *kind != Kind::User).collect();
    namespaces::enter_new(&kinds, &order.hostname, &order.sysctls)?;
    let mut first = 0;
    if kinds.contains(&Kind::Pid) {
        let (mut ready, mut say) = UnixStream::pair()?;
        first = match fork()? {
            ForkResult::Child => {
                drop((ready, parent));
                match withdraw() {
                    Ok(()) => {
                        let _ = tell(&mut say, 0);
                        drop(say);
                        stay()
                    }
                    Err(e) => {
                        eprintln!("the first process can't withdraw: {e}");
                        exit_now(1)
                    }
                }
            }
            ForkResult::Parent { child } => child.as_raw(),
        };
        drop(say);
        hear(&mut ready)?;
    }
    tell(&mut parent, first)?;
    // Everything must be pinned before this process goes, and with it what holds the namespaces.
    hear(&mut parent)?;
    Ok(())
}

/// Enters a new user namespace as its root: the namespaces that are made next are its.
fn become_own_root(parent: &mut UnixStream) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    tell(parent, 0)?;
    // The range is given from outside.
    hear(parent)?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    // The signal of a parent's death is lost with the user.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

/// Takes everything from this process: files, mounts, capabilities, its user.
fn withdraw() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
    // A directory that every system has; what lies there is not needed any more.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), flags, Some("size=4k,mode=555"))?;
    nix::unistd::chdir("/proc")?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    let _ = nix::sys::prctl::set_name(c"pause");
    nix::sys::prctl::set_no_new_privs()?;
    nix::unistd::setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_dumpable(false)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Collects children until the end, which is SIGKILL.
fn stay() -> ! {
    reset_signals();
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let _ = children.thread_block();
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let _ = children.wait();
    }
}

#[allow(unsafe_code)]
fn fork() -> io::Result<ForkResult> {
    // SAFETY: the helper has no threads, so the child may do anything.
    Ok(unsafe { nix::unistd::fork() }?)
}
