//! The shim: one small process per container that outlives the daemon.
//!
//! The daemon starts `reddwarfd __shim DIR` with the instance's lock as standard input, a report pipe as standard
//! output and `DIR/shim.log` as standard error. The shim becomes a session leader and a subreaper in a cgroup of its
//! own, forks the creator (which makes and starts the container and ends), then only copies output to the log (and to
//! whoever is attached) and waits. It never allocates much and has no threads.

mod attach;
mod creator;
mod shelter;
mod staging;
mod supervise;
mod terminal;

use crate::cgroup::Cgroups;
use crate::files::{read_json, write_kernel_file};
use crate::process::ProcessId;
use crate::program::{self, ProgramError};
use crate::record::{ContainerDir, ContainerExit, ContainerRunning, FailureKind, Moment, write_record};
use crate::runtime::Streams;
use attach::Attachments;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{ForkResult, pipe2};
use reddwarf_host::spec::{LogSpec, TerminationMessage};
use reddwarf_supervise::program::{Report, take_streams, tell};
use reddwarf_supervise::termination;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The longest that making one container may take.
const CREATE_PATIENCE: Duration = Duration::from_secs(60);

/// What the creator tells the shim, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum CreatorReport {
    Runs { pid: u32 },
    Program(ProgramError),
    Failed { kind: FailureKind, message: String },
}

/// The part of `launch.json` that the shim itself needs; the rest is the creator's.
#[derive(Deserialize)]
struct Brief {
    container: BriefContainer,
    #[serde(default)]
    last_words: Option<PathBuf>,
    cgroup: PathBuf,
    options: BriefOptions,
}

#[derive(Deserialize)]
struct BriefContainer {
    log: LogSpec,
    tty: bool,
    stdin: bool,
    #[serde(default)]
    stdin_once: bool,
    #[serde(default)]
    termination_message: TerminationMessage,
}

#[derive(Deserialize)]
struct BriefOptions {
    instance: String,
    cgroup_root: PathBuf,
}

/// Runs the shim for the instance directory named by `args`, the arguments after `__shim`. Returns at its end.
///
/// Called by the daemon's `main` before anything else: in a process with threads it must not be used.
pub fn main(args: &[OsString]) -> ExitCode {
    reddwarf_supervise::program::main("__shim", args, run)
}

fn run(dir: &ContainerDir) -> io::Result<()> {
    // Kept open to the very end: while it is open, the daemon knows that this shim lives.
    let (lock, report) = take_streams()?;
    detach_from_daemon()?;
    let Some(brief) = read_json::<Brief>(&dir.launch_file())? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "launch.json is missing"));
    };
    let cgroups = Cgroups::detect(&brief.options.cgroup_root)?;
    let instance = Path::new("/").join(&brief.options.instance);
    // The kernel takes its time for that (it waits for every processor): beside the creator's work, not before it.
    let leave = || {
        if let Err(e) = cgroups.leave_daemon(&instance.join("shims")) {
            eprintln!("staying in the daemon's cgroup: {e}");
        }
    };
    let BriefContainer { log, tty, stdin, stdin_once, termination_message } = brief.container;
    let mut output = supervise::Output::new(log.clone())?;
    let shim = ProcessId::of(std::process::id())?;

    let created = create(dir, Wanted { tty, stdin, stdin_once }, lock.as_fd(), report.as_fd(), leave)?;
    let cgroup = brief.cgroup;
    let (init, started, mut attached) = match created.report {
        CreatorReport::Runs { pid } => {
            // Before anyone hears that it runs: who then wants to attach finds the door.
            let attached = Attachments::listen(dir, created.input).unwrap_or_else(|e| {
                eprintln!("nobody can attach: {e}");
                Attachments::default()
            });
            let running = ContainerRunning {
                init: ProcessId::of(pid).unwrap_or(ProcessId { pid, start_ticks: 0 }),
                shim,
                started: Moment::now(),
            };
            record(dir.state_file(), &running)?;
            tell(report, &Report::Ready);
            (pid, running.started, attached)
        }
        CreatorReport::Program(error) => {
            cgroups.kill_all(&cgroup, Duration::from_secs(5))?;
            supervise::reap_all();
            let finished = Moment::now();
            let ProgramError { code, message } = error;
            let exit =
                ContainerExit { code, signal: None, started: None, finished, oom_killed: false, lost: false, message };
            record(dir.exit_file(), &exit)?;
            remove_cgroup(&cgroups, &cgroup);
            tell(report, &Report::Ready);
            return Ok(());
        }
        CreatorReport::Failed { kind, message } => {
            cgroups.kill_all(&cgroup, Duration::from_secs(5))?;
            supervise::reap_all();
            remove_cgroup(&cgroups, &cgroup);
            tell(report, &Report::Failed { kind, message });
            return Ok(());
        }
    };
    give_memory_back();
    let end = supervise::until_exit(init, created.streams, &mut output, &mut attached)?;
    let exit = ContainerExit {
        code: end.code,
        signal: end.signal,
        started: Some(started),
        finished: Moment::now(),
        oom_killed: cgroups.oom_kills(&cgroup) > 0,
        lost: false,
        message: termination::message(&termination_message, brief.last_words.as_deref(), end.code, &log),
    };
    // What init left behind (processes that joined from outside its pid namespace) ends with it.
    if !cgroups.kill_all(&cgroup, Duration::from_secs(2))? {
        eprintln!("processes in {} can't be killed", cgroup.display());
    }
    supervise::reap_all();
    remove_cgroup(&cgroups, &cgroup);
    record(dir.exit_file(), &exit)?;
    drop(lock);
    supervise::until_taken(&mut attached)
}

fn record<T: Serialize>(path: PathBuf, value: &T) -> io::Result<()> {
    write_record("write record", &path, value).map_err(io::Error::other)
}

fn remove_cgroup(cgroups: &Cgroups, cgroup: &Path) {
    // The kernel may take a moment to let go of a dead process; the daemon removes what is left with the instance.
    for _ in 0..20 {
        if cgroups.remove(cgroup).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Session, signals, name, subreaper: from here on the daemon's end is no concern.
#[allow(unsafe_code)]
fn detach_from_daemon() -> io::Result<()> {
    // Fails only for a process group leader, which is as good.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGTSTP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }?;
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    let _ = nix::sys::prctl::set_name(c"reddwarf-shim");
    // One arena, small: there is one thread.
    // SAFETY: mallopt(3) and prctl(2) with plain integers, before any other thread could exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
    }
    // Losing the shim loses output and exit code: the kernel should take others first. Not allowed everywhere.
    let _ = write_kernel_file(Path::new("/proc/self/oom_score_adj"), "-998");
    Ok(())
}

/// Hands freed memory back to the kernel: the shim now stays for as long as the container does.
#[allow(unsafe_code)]
fn give_memory_back() {
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Which standard streams the container gets.
#[derive(Clone, Copy)]
struct Wanted {
    tty: bool,
    stdin: bool,
    stdin_once: bool,
}

struct Created {
    report: CreatorReport,
    streams: supervise::Streams,
    input: attach::Input,
}

/// Forks the creator and waits for its word.
fn create(
    dir: &ContainerDir,
    wanted: Wanted,
    lock: std::os::fd::BorrowedFd<'_>,
    report: std::os::fd::BorrowedFd<'_>,
    meanwhile: impl FnOnce(),
) -> io::Result<Created> {
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&child_signal), None)?;

    let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let mut kept = supervise::Streams::default();
    let Wanted { tty: terminal, stdin: reads, stdin_once: once } = wanted;
    let mut input = attach::Input { fd: None, terminal, reads, once };
    let mut listener = None;
    let streams = if wanted.tty {
        let (socket, path) = terminal::listen(dir.path())?;
        listener = Some(socket);
        Streams::Terminal { socket: path }
    } else {
        let (stdin, stdin_end) = if wanted.stdin {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (read, Some(write))
        } else {
            (OwnedFd::from(File::open("/dev/null")?), None)
        };
        let (stdout_end, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr_end, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        input.fd = stdin_end;
        kept = supervise::Streams { stdout: Some(stdout_end), stderr: Some(stderr_end) };
        Streams::Pipes { stdin, stdout, stderr }
    };
    let creator = match fork()? {
        ForkResult::Child => {
            // Only the shim itself may hold these: their closing says that the shim is gone.
            close_in_child(lock);
            close_in_child(report);
            drop((told, kept, input, listener));
            let said = creator::run(dir, streams);
            if let Ok(bytes) = serde_json::to_vec(&said) {
                let _ = File::from(tell).write_all(&bytes);
            }
            program::exit_now(0)
        }
        ForkResult::Parent { child } => child,
    };
    drop((tell, streams));
    meanwhile();
    let said = hear(told, creator)?;
    if let (CreatorReport::Runs { .. }, Some(listener)) = (&said, listener) {
        let master = terminal::receive(&listener)?;
        input.fd = Some(master.try_clone()?);
        kept.stdout = Some(master);
    }
    Ok(Created { report: said, streams: kept, input })
}

#[allow(unsafe_code)]
fn fork() -> io::Result<ForkResult> {
    // SAFETY: the shim has no threads, so the child may do anything.
    Ok(unsafe { nix::unistd::fork() }?)
}

#[allow(unsafe_code)]
fn close_in_child(fd: std::os::fd::BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    // SAFETY: runs in the forked child only, which ends by _exit(2) and never touches the owner's copy again.
    unsafe {
        libc::close(fd.as_raw_fd());
    }
}

/// Reads the creator's report; one that says nothing in time is killed.
#[expect(clippy::disallowed_methods, reason = "a shim is a process of its own and has no injected clock")]
fn hear(from: OwnedFd, creator: nix::unistd::Pid) -> io::Result<CreatorReport> {
    let deadline = Instant::now() + CREATE_PATIENCE;
    let mut bytes = Vec::new();
    let mut file = File::from(from);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut wait = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => {
                let _ = nix::sys::signal::kill(creator, Signal::SIGKILL);
                let message = format!("not made within {} s", CREATE_PATIENCE.as_secs());
                return Ok(CreatorReport::Failed { kind: FailureKind::Other, message });
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let mut buffer = [0; 4096];
        match file.read(&mut buffer)? {
            0 => break,
            n => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| CreatorReport::Failed {
        kind: FailureKind::Other,
        message: "the process that makes the container died: see shim.log beside its records".to_owned(),
    }))
}
