//! `reddwarfd __exec DIR`: runs one command beside a container's first process.
//!
//! Three processes, all single-threaded: this one stays on the host, holds the socket and waits; a forked *joiner*
//! enters the container's cgroups and namespaces; its child, the *command*, is in the pid namespace, gives up what the
//! container has not, and executes the program. The joiner ends at once and leaves the command to this subreaper.

use super::compartment::Compartment;
use super::message::{self, Decoder, Report, Request, Resize};
use crate::cgroup::Cgroups;
use crate::files::read_json;
use crate::process::ProcessId;
use crate::program::{self, ProgramError};
use crate::record::{ContainerDir, FailureKind, ShimFiles};
use crate::seccomp::Filter;
use crate::users::{self, Users};
use caps::{CapSet, Capability, CapsHashSet};
use libcontainer::oci_spec::runtime::{Process, Spec};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, pipe2};
use serde::Deserialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// The part of `launch.json` that says which cgroup to join, and whose users there are.
#[derive(Deserialize)]
struct Brief {
    cgroup: PathBuf,
    options: BriefOptions,
    #[serde(default)]
    rootfs: BriefRootfs,
}

#[derive(Default, Deserialize)]
struct BriefRootfs {
    /// There where the sandbox has users of its own.
    #[serde(default)]
    users: Option<Users>,
}

#[derive(Deserialize)]
struct BriefOptions {
    cgroup_root: PathBuf,
}

/// Runs the helper for the instance directory named by `args`, the arguments after `__exec`.
///
/// Called by the daemon's `main` before anything else: in a process with threads it must not be used.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(dir) = args.first() else {
        eprintln!("usage: __exec DIRECTORY (started by reddwarfd itself)");
        return ExitCode::from(2);
    };
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    if let Ok(null) = File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
    }
    let dir = ContainerDir::new(PathBuf::from(dir));
    match run(&dir, &socket) {
        Ok(report) => {
            say(&socket, &report, &[]);
            ExitCode::SUCCESS
        }
        Err(e) => {
            say(&socket, &Report::Failed { kind: FailureKind::Other, message: e.to_string() }, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Tells the daemon, which may be gone.
fn say(socket: &UnixStream, report: &Report, fds: &[i32]) {
    if let Ok(bytes) = message::encode(report) {
        let _ = message::send(socket, &bytes, fds);
    }
}

fn run(dir: &ContainerDir, socket: &UnixStream) -> io::Result<Report> {
    let (request, mut fds) = hear_request(socket)?;
    // Nobody inside may look at or trace what has joined but not yet executed (CVE-2016-9962).
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&child_signal), None)?;
    let children = SignalFd::with_flags(&child_signal, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let init = dir.state().map_err(io::Error::other)?.map(|s| s.init);
    let Some(container) = init.map(|i| i.open()).transpose()?.flatten() else { return Ok(Report::NotRunning) };
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("{what} is missing"));
    let brief: Brief = read_json(&dir.launch_file())?.ok_or_else(|| missing("launch.json"))?;
    let process = process(dir)?.ok_or_else(|| missing("process.json"))?;
    let filter = filter(dir)?;
    let cgroups = Cgroups::detect(&brief.options.cgroup_root)?;

    let owner = users::on_host(brief.rootfs.users.as_ref(), process.user().uid());
    fds.iter().try_for_each(|stream| users::give_stream(stream, owner))?;
    let own = request.contained.then(|| Compartment::new(cgroups.clone(), &brief.cgroup));
    let (pid_told, pid_tell) = UnixStream::pair()?;
    let (exec_told, exec_tell) = pipe2(OFlag::O_CLOEXEC)?;
    let joiner = match fork()? {
        ForkResult::Child => {
            let job = Job { request, process, filter, stdio: fds, tell: exec_tell };
            let enter = join(&container, init, &cgroups, &brief, own.as_ref());
            let result = enter.and_then(|()| spawn(job, &pid_tell));
            if let Err(e) = result {
                say(&pid_tell, &Report::Failed { kind: FailureKind::Other, message: e.to_string() }, &[]);
            }
            program::exit_now(0)
        }
        ForkResult::Parent { child } => child,
    };
    drop((pid_tell, exec_tell));
    fds.clear();
    let report = attend(&pid_told, exec_told, joiner, socket, &children, own.as_ref());
    if let Some(own) = own {
        own.open();
    }
    report
}

/// From the joiner's word to the command's end.
fn attend(
    pid_told: &UnixStream,
    exec_told: OwnedFd,
    joiner: Pid,
    socket: &UnixStream,
    children: &SignalFd,
    own: Option<&Compartment>,
) -> io::Result<Report> {
    let (command, master) = match hear_joiner(pid_told)? {
        Joined::Command(pid, master) => (pid, master),
        Joined::Failed(report) => return Ok(report),
    };
    let _ = waitpid(joiner, None);
    if let Some(ProgramError { message, .. }) = program::await_exec(exec_told)? {
        let _ = waitpid(command, None);
        return Ok(Report::NoProgram { message });
    }
    let beside: Vec<i32> = master.iter().map(AsRawFd::as_raw_fd).collect();
    say(socket, &Report::Started, &beside);
    let code = wait(command, socket, master.as_ref(), children, own)?;
    Ok(Report::Exited { code })
}

/// The container's first process as it was meant to be. Versions before filters had it in `config.json` only.
fn process(dir: &ContainerDir) -> io::Result<Option<Process>> {
    if let Some(process) = read_json(&dir.process_file())? {
        return Ok(Some(process));
    }
    let spec: Option<Spec> = read_json(&dir.bundle().join("config.json"))?;
    Ok(spec.and_then(|s| s.process().clone()))
}

/// The container's filter; `None`: it has none.
fn filter(dir: &ContainerDir) -> io::Result<Option<Filter>> {
    match std::fs::read(dir.filter_file()) {
        Ok(bytes) => match Filter::from_bytes(&bytes) {
            Some(filter) => Ok(Some(filter)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "seccomp.bpf is damaged")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn hear_request(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    loop {
        let (bytes, fds) = message::receive(socket.as_raw_fd())?;
        all.extend(fds);
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&bytes);
        if let Some(request) = decoder.next::<Request>()? {
            if !request.tty && all.len() != 3 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "three descriptors are needed"));
            }
            return Ok((request, all));
        }
    }
}

enum Joined {
    Command(Pid, Option<OwnedFd>),
    Failed(Report),
}

/// The joiner says the command's pid in four bytes, with the terminal's master beside them, or why there is none.
fn hear_joiner(from: &UnixStream) -> io::Result<Joined> {
    let (bytes, mut fds) = message::receive(from.as_raw_fd())?;
    if let Ok(pid) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Ok(Joined::Command(Pid::from_raw(i32::from_ne_bytes(pid)), fds.pop()));
    }
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    let report = decoder.next::<Report>()?;
    Ok(Joined::Failed(report.unwrap_or(Report::Failed {
        kind: FailureKind::Other,
        message: "joining the container failed without a word".to_owned(),
    })))
}

/// Enters the container. Cgroups first: their paths are the host's.
fn join(
    container: &OwnedFd,
    init: Option<ProcessId>,
    cgroups: &Cgroups,
    brief: &Brief,
    own: Option<&Compartment>,
) -> io::Result<()> {
    let of_init = init.and_then(|init| crate::process::oom_score(init.pid).ok());
    crate::process::adjust_oom_score(of_init)?;
    cgroups.join(&brief.cgroup)?;
    if let Some(own) = own {
        own.enter()?;
    }
    // Nobody may enter the user namespace that he is in.
    let users = if brief.rootfs.users.is_some() { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
    let all = users
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(container, all)?;
    if !users.is_empty() {
        // The host's root is nobody in there, and what he makes (a terminal) nobody's.
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    Ok(())
}

struct Job {
    request: Request,
    process: Process,
    filter: Option<Filter>,
    stdio: Vec<OwnedFd>,
    tell: OwnedFd,
}

fn spawn(job: Job, to: &UnixStream) -> io::Result<()> {
    let terminal = if job.request.tty { Some(open_terminal()?) } else { None };
    match fork()? {
        ForkResult::Child => {
            let error = match become_command(&job, terminal.as_ref().map(|t| &t.slave)) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            program::report_and_exit(&job.tell, &error)
        }
        ForkResult::Parent { child } => {
            let beside: Vec<i32> = terminal.iter().map(|t| t.master.as_raw_fd()).collect();
            message::send(to, &child.as_raw().to_ne_bytes(), &beside)
        }
    }
}

struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

/// A terminal of the container's own devpts, so that ttyname(3) works inside.
#[allow(unsafe_code)]
fn open_terminal() -> io::Result<Terminal> {
    use nix::sys::stat::{Mode, fstat, major, minor};
    use std::os::fd::FromRawFd;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open("/dev/pts/ptmx", flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    let device = fstat(&master)?.st_rdev;
    // The container's owner may have put something else there.
    if (major(device), minor(device)) != (5, 2) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts/ptmx in the container is no ptmx"));
    }
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives; TIOCGPTPEER takes flags and makes a descriptor that is ours.
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok(Terminal { master, slave })
}

/// In the command's process: everything up to execve(2).
fn become_command(job: &Job, terminal: Option<&OwnedFd>) -> Result<std::convert::Infallible, ProgramError> {
    let failed = |what: &'static str| move |e: io::Error| ProgramError { code: 128, message: format!("{what}: {e}") };
    program::reset_signals();
    nix::unistd::setsid().map_err(|e| failed("new session")(e.into()))?;
    connect(job, terminal).map_err(failed("standard streams"))?;
    close_on_exec().map_err(failed("close descriptors"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let process = &job.process;
    if nix::unistd::chdir(process.cwd()).is_err() {
        nix::unistd::chdir("/").map_err(|e| failed("change to /")(e.into()))?;
    }
    drop_privileges(process, job.filter.as_ref()).map_err(failed("give up privileges"))?;
    let env = process.env().clone().unwrap_or_default();
    Err(program::exec(&job.request.argv, &env))
}

#[allow(unsafe_code)]
fn connect(job: &Job, terminal: Option<&OwnedFd>) -> io::Result<()> {
    if let Some(slave) = terminal {
        // SAFETY: TIOCSCTTY takes an integer.
        if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let stream = |index: usize| terminal.or_else(|| job.stdio.get(index)).ok_or(io::ErrorKind::InvalidInput);
    nix::unistd::dup2_stdin(stream(0)?)?;
    nix::unistd::dup2_stdout(stream(1)?)?;
    nix::unistd::dup2_stderr(stream(2)?)?;
    Ok(())
}

/// Marks every descriptor above the standard streams: none of ours may reach the program.
#[allow(unsafe_code)]
fn close_on_exec() -> io::Result<()> {
    // SAFETY: close_range(2) with CLOEXEC closes nothing now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same user, groups, capabilities, no_new_privs and filter as the container's first process. Nothing but
/// execve(2) may come after it.
fn drop_privileges(process: &Process, filter: Option<&Filter>) -> io::Result<()> {
    let user = process.user();
    let capabilities = process.capabilities().as_ref();
    let bounding = capability_set(capabilities.and_then(|c| c.bounding().as_ref()));
    let effective = capability_set(capabilities.and_then(|c| c.effective().as_ref()));
    for capability in supported_capabilities().difference(&bounding) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(io::Error::other)?;
    }
    // Older kernels have no ambient set; nothing is in it then.
    let _ = caps::clear(None, CapSet::Ambient);
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    nix::unistd::setresgid(gid, gid, gid)?;
    if let (Some(filter), false) = (filter, process.no_new_privileges().unwrap_or(false)) {
        nix::sys::prctl::set_keepcaps(true)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(io::Error::other)?;
        // Installing takes this one; execve(2) leaves no more than the bounding set allows, to others than root nothing.
        caps::set(None, CapSet::Effective, &[Capability::CAP_SYS_ADMIN].into()).map_err(io::Error::other)?;
        return filter.install();
    }
    // Leaving user 0 clears the permitted set by itself.
    nix::unistd::setresuid(uid, uid, uid)?;
    if uid.is_root() {
        caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(io::Error::other)?;
        caps::set(None, CapSet::Effective, &effective).map_err(io::Error::other)?;
        caps::set(None, CapSet::Permitted, &effective).map_err(io::Error::other)?;
    }
    if process.no_new_privileges().unwrap_or(false) {
        nix::sys::prctl::set_no_new_privs()?;
    }
    filter.map_or(Ok(()), Filter::install)
}

fn capability_set(names: Option<&HashSet<libcontainer::oci_spec::runtime::Capability>>) -> CapsHashSet {
    let supported = supported_capabilities();
    let named = names.into_iter().flatten().filter_map(|c| {
        let name = c.to_string();
        let full = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
        Capability::from_str(&full).ok()
    });
    named.filter(|c| supported.contains(c)).collect()
}

/// What this kernel knows.
fn supported_capabilities() -> CapsHashSet {
    caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all())
}

/// Waits for the command; carries out resizes; kills it when the daemon hangs up.
fn wait(
    command: Pid,
    socket: &UnixStream,
    master: Option<&OwnedFd>,
    children: &SignalFd,
    own: Option<&Compartment>,
) -> io::Result<i32> {
    let mut decoder = Decoder::default();
    let mut connected = true;
    loop {
        while let Ok(Some(_)) = children.read_signal() {}
        if let Some(code) = ended(command) {
            // Whoever hung up wants nothing of it to stay, however it came to its end.
            if let Some(own) = own.filter(|_| connected && has_hung_up(socket)) {
                own.kill();
            }
            return Ok(code);
        }
        let mut fds = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if connected {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !fds.get(1).is_some_and(|fd| fd.any().unwrap_or(true)) {
            continue;
        }
        let mut buffer = [0; 512];
        match (&*socket).read(&mut buffer) {
            Ok(n) if n > 0 => {
                decoder.push(buffer.get(..n).unwrap_or_default());
                while let Ok(Some(size)) = decoder.next::<Resize>() {
                    resize(master, size);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                connected = false;
                // The command leads a session: its process group goes with it.
                let _ = kill(Pid::from_raw(-command.as_raw()), Signal::SIGKILL);
                let _ = kill(command, Signal::SIGKILL);
                if let Some(own) = own {
                    own.kill();
                }
            }
        }
    }
}

fn has_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[allow(unsafe_code)]
pub(crate) fn resize(master: Option<&OwnedFd>, size: Resize) {
    let Some(master) = master else { return };
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the structure, which outlives the call.
    unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size);
    }
}

fn ended(command: Pid) -> Option<i32> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => return Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return None,
            // Gone without us having seen it end: can't happen to the only waiter.
            Err(Errno::ECHILD) => return Some(255),
            Ok(_) | Err(_) => {}
        }
    }
}

#[allow(unsafe_code)]
fn fork() -> io::Result<ForkResult> {
    // SAFETY: the helper has no threads, so the child may do anything.
    Ok(unsafe { nix::unistd::fork() }?)
}
