//! The supervisor: one small process in the global zone for each container, which outlives the daemon.
//!
//! The daemon starts `reddwarfd __zone-supervisor DIR` with the instance's lock as standard input, a report pipe as
//! standard output and `DIR/supervisor.log` as standard error; on illumos in a process contract of its own (ctrun(1)), so
//! that SMF does not end it with the daemon. It starts zlogin(1) with the container's program, copies output to the log and
//! to whoever is attached, waits, and writes down the end. Its socket tells the daemon that it lives: who is connected
//! reads the end when it ends.

use crate::inside;
use crate::record::{ContainerDir, ContainerRunning, Launch};
use crate::starter::{self, Ended, Kind, read_ended, read_started};
use crate::stream::{Outlets, listen};
use reddwarf_supervise::files::{read_json, write_json};
use reddwarf_supervise::log::{Lines, Log, Stream};
use reddwarf_supervise::program::{self, Report, tell};
use reddwarf_supervise::record::{ContainerExit, FailureKind, Moment};
use reddwarf_supervise::termination;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Its first argument.
pub const ARGUMENT: &str = "__zone-supervisor";

/// The longest until the program runs inside.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// After the end: how long output may still come from whoever else holds the pipe.
const DRAIN: Duration = Duration::from_millis(500);
/// How long it may take to end a program whose starter is gone.
const ORPHAN: Duration = Duration::from_secs(5);
/// How often it is looked whether the program has begun.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the supervisor for the instance directory named by `args`.
pub fn main(args: &[OsString]) -> ExitCode {
    program::main(ARGUMENT, args, run)
}

/// The log, and everyone attached.
struct Output {
    log: Mutex<Log>,
    outlets: Arc<Outlets>,
}

fn run(dir: &ContainerDir) -> io::Result<()> {
    // Kept open to the very end: while it is open, the daemon knows that this supervisor lives.
    let (_lock, report) = program::take_streams()?;
    // Fails only for the leader of a process group, which is as good.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    let Some(launch) = read_json::<Launch>(&dir.launch_file())? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "launch.json is missing"));
    };
    let log = Mutex::new(Log::open(launch.log.clone())?);
    let mut zlogin = match start(&launch) {
        Ok(child) => child,
        Err(e) => {
            tell(report, &Report::Failed { kind: FailureKind::Other, message: format!("zlogin: {e}") });
            return Ok(());
        }
    };
    let stdin = Arc::new(Mutex::new(zlogin.stdin.take()));
    let outlets = Arc::new(Outlets::new(launch.tty, launch.stdin, launch.stdin_once, stdin.clone()));
    let output = Arc::new(Output { log, outlets: outlets.clone() });
    let copies = copy_both(&mut zlogin, &output);
    let (ended, end) = mpsc::channel();
    let pid = zlogin.id();
    std::thread::spawn(move || {
        let _ = ended.send(zlogin.wait());
    });

    let Some((program, status)) = begin(&launch, &end)? else {
        kill(pid);
        let message = format!("did not start within {} s", START_PATIENCE.as_secs());
        tell(report, &Report::Failed { kind: FailureKind::Other, message });
        return Ok(());
    };
    if program.is_none()
        && let Some(ended) = read_ended(&launch.out)
        && ended.kind != Kind::Program
    {
        let kind = if ended.kind == Kind::Invalid { FailureKind::InvalidSpec } else { FailureKind::Other };
        tell(report, &Report::Failed { kind, message: ended.message });
        return Ok(());
    }
    let started = program.map(|pid| (pid, Moment::now()));
    if let Some((pid, started)) = started {
        if let Err(e) = listen(&launch.socket, outlets.clone()) {
            eprintln!("nobody can attach: {e}");
        }
        write_json(&dir.state_file(), &ContainerRunning { pid, supervisor: std::process::id(), started })?;
        tell(report.try_clone()?, &Report::Ready);
    }
    let status = match status {
        Some(status) => status,
        None => end.recv().map_err(io::Error::other)??,
    };
    end_orphan(&launch);
    drain(&copies);
    let Ended { code, signal, message, .. } = how(&launch, status);
    let message = if message.is_empty() {
        termination::message(&launch.termination, launch.last_words.as_deref(), code, &launch.log)
    } else {
        message
    };
    let started = started.map(|(_, moment)| moment).filter(|_| read_started(&launch.out).is_some());
    let exit =
        ContainerExit { code, signal, started, finished: Moment::now(), oom_killed: false, lost: false, message };
    write_json(&dir.exit_file(), &exit)?;
    if started.is_none() {
        tell(report, &Report::Ready);
    }
    let _ = std::fs::remove_file(&launch.socket);
    outlets.finish();
    Ok(())
}

fn start(launch: &Launch) -> io::Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "not a tool whose answer is awaited: it lives as long as the container"
    )]
    let mut command = Command::new(&launch.zlogin);
    command.args(&launch.login);
    if !launch.stdin {
        command.arg("-n");
    }
    command.arg(&launch.zone).arg(&launch.script).env_clear().envs(reddwarf_command::ENVIRONMENT).process_group(0);
    command.stdin(if launch.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

type End = mpsc::Receiver<io::Result<ExitStatus>>;

/// Waits until the program runs, or has ended; `None`: neither in time.
fn begin(launch: &Launch, end: &End) -> io::Result<Option<(Option<u32>, Option<ExitStatus>)>> {
    let mut left = START_PATIENCE;
    loop {
        match end.recv_timeout(LOOK) {
            Ok(status) => {
                let status = Some(status?);
                return Ok(Some((read_started(&launch.out).map(|(pid, _)| pid), status)));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("nobody waits for zlogin")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some((pid, _)) = read_started(&launch.out) {
            return Ok(Some((Some(pid), None)));
        }
        left = left.saturating_sub(LOOK);
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Where whoever started the program was killed alone, the program goes too: the next one would have it beside itself. A zone that
/// was halted lets nobody in.
fn end_orphan(launch: &Launch) {
    let (Some((pid, _)), None) = (read_started(&launch.out), read_ended(&launch.out)) else { return };
    // A machine's process lives outside, and is what has ended.
    if launch.script.is_empty() {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the supervisor's side: there is no runner here")]
    let mut command = Command::new(&launch.zlogin);
    command.args(&launch.login).arg("-n").arg(&launch.zone).arg(inside::kill("KILL", pid, true));
    command.env_clear().envs(reddwarf_command::ENVIRONMENT).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let mut left = ORPHAN;
    while matches!(child.try_wait(), Ok(None)) {
        if left.is_zero() {
            // A zone on its way down may keep it: the end is told all the same.
            kill(child.id());
            let _ = child.wait();
            return;
        }
        std::thread::sleep(LOOK);
        left = left.saturating_sub(LOOK);
    }
}

/// What the starter said; where it could not, what zlogin's end means.
fn how(launch: &Launch, status: ExitStatus) -> Ended {
    if let Some(ended) = read_ended(&launch.out) {
        return ended;
    }
    if read_started(&launch.out).is_some() {
        // The starter was killed with everything else: the zone was halted.
        return Ended { code: 137, signal: Some(9), kind: Kind::Program, message: String::new() };
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let said = "zlogin ended before the program ran: see supervisor.log and the container's log";
    Ended { code: if code == 0 { 128 } else { code }, signal: None, kind: Kind::Other, message: said.to_owned() }
}

/// Threads that copy output; each sends when its stream has ended.
fn copy_both(zlogin: &mut Child, output: &Arc<Output>) -> mpsc::Receiver<()> {
    let (done, copies) = mpsc::channel();
    let copy = |from: Option<Box<dyn Read + Send>>, stream: Stream| {
        let (output, done) = (output.clone(), done.clone());
        std::thread::spawn(move || {
            if let Some(from) = from {
                copy(from, stream, &output);
            }
            let _ = done.send(());
        });
    };
    copy(zlogin.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>), Stream::Stdout);
    copy(zlogin.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>), Stream::Stderr);
    copies
}

fn copy(mut from: Box<dyn Read + Send>, stream: Stream, output: &Output) {
    let mut lines = Lines::new(stream);
    let mut buffer = [0; 16 * 1024];
    let log = || output.log.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                {
                    let mut log = log();
                    lines.push(bytes, &mut log);
                    log.flush();
                }
                output.outlets.give(stream, bytes);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let mut log = log();
    lines.finish(&mut log);
    log.flush();
    drop(log);
    output.outlets.end(stream);
}

fn drain(copies: &mpsc::Receiver<()>) {
    for _ in 0..2 {
        if copies.recv_timeout(DRAIN).is_err() {
            return;
        }
    }
}

/// The container's standard input.
pub(crate) type Input = Arc<Mutex<Option<ChildStdin>>>;

/// The one argument for zlogin that starts what `file` says, by our own program inside, in a process contract of its own.
/// `takes_all`: whatever the program leaves behind ends with it, wherever that has put itself.
pub(crate) fn native_script(file: &str, program: &str, takes_all: bool) -> String {
    use crate::zlogin::quoted;
    let (program, file) = (quoted(program), quoted(file));
    format!(
        "if [ -x /usr/bin/ctrun ]; then exec /usr/bin/ctrun -l child{options} {program} {start} {file}; fi; \
         exec {program} {start} {file}",
        options = if takes_all { " -o noorphan" } else { "" },
        start = starter::ARGUMENT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_argument_is_the_same_shell_text_everywhere() {
        assert_eq!(
            native_script(".reddwarf/run/start/app.0.json", ".reddwarf/bin/reddwarfd", true),
            "if [ -x /usr/bin/ctrun ]; then exec /usr/bin/ctrun -l child -o noorphan '.reddwarf/bin/reddwarfd' \
             __zone-start '.reddwarf/run/start/app.0.json'; fi; exec '.reddwarf/bin/reddwarfd' __zone-start \
             '.reddwarf/run/start/app.0.json'"
        );
    }

    proptest::proptest! {
        /// Whatever the file and the program are called, they are one word each where they belong, and all else is ours.
        #[test]
        fn hostile_names_are_words(file in "[^\0]{1,60}", program in "[^\0]{1,60}", takes_all: bool) {
            use crate::zlogin::words::{self, Word};
            let words = words::of(&native_script(&file, &program, takes_all)).unwrap();
            let bare: Vec<&str> =
                words.iter().filter_map(|w| if let Word::Bare(w) = w { Some(w.as_str()) } else { None }).collect();
            let option = if takes_all { "-o noorphan " } else { "" };
            // What ends the command stands right behind the quotes of the file's name.
            let shell = "if [ -x /usr/bin/ctrun ]; then exec /usr/bin/ctrun -l child ";
            proptest::prop_assert_eq!(bare.join(" "), format!("{shell}{option}__zone-start fi; exec __zone-start"));
            let quoted: Vec<String> =
                words.into_iter().filter_map(|w| if let Word::Quoted(w) = w { Some(w) } else { None }).collect();
            proptest::prop_assert_eq!(quoted, [program.clone(), format!("{file};"), program, file]);
        }
    }
}
