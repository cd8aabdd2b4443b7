//! A virtual machine as the container of its pod: a small process in the global zone that a supervisor has instead of zlogin(1),
//! and that lives for as long as the machine's zone is up. Asked to end (TERM), it has the zone shut down (ACPI), which zoneadm(8)
//! waits for; told that it took too long (INT), it ends that zoneadm, and the daemon halts the zone.
//!
//! A container with a terminal (`tty`) has the machine's console for it: `zlogin -C`, which wants a terminal of its own, for as long as the
//! machine is up. So the console is in the container's log, and whoever attaches has it.

use crate::delegated::{self, Gift};
use crate::host::Shared;
use crate::starter::{Kind, say_end, say_started};
use crate::zone::machine::{GRANT, Machine};
use crate::zoneadm::{self, ZoneState};
use nix::pty::openpty;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::record::Moment;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

const DISK: Gift = Gift { grant: GRANT, kind: "volume", create: "zfs create -V SIZE" };

/// Its first argument.
pub(crate) const ARGUMENT: &str = "__zone-machine";

/// How often it looks at the zone.
const LOOK: Duration = Duration::from_secs(1);
/// How often the question may go unanswered before the machine is taken as gone.
const UNANSWERED_MOST: u32 = 60;

/// After the console went while the machine is up (somebody else had it, perhaps): the first pause, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What a supervisor starts for a machine: our own program, what it is given before the zone's name. `zlogin`: where the console is
/// its terminal.
pub(crate) fn words(zoneadm: &Path, out: &Path, zlogin: Option<&Path>) -> Vec<String> {
    let paths = [Some(zoneadm), Some(out), zlogin].into_iter().flatten().map(|p| p.to_string_lossy().into_owned());
    std::iter::once(ARGUMENT.to_owned()).chain(paths).collect()
}

/// `__zone-machine ZONEADM OUT [ZLOGIN] [-n] ZONE SCRIPT`, as zlogin would be called.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let words: Option<Vec<&str>> = args.iter().map(|a| a.to_str()).collect();
    let (zoneadm, out, zlogin, zone) = match words.as_deref() {
        Some([zoneadm, out, rest @ .., zone, _script]) => {
            (*zoneadm, Path::new(*out), rest.iter().copied().find(|word| word.starts_with('/')), *zone)
        }
        _ => {
            eprintln!("usage: {ARGUMENT} ZONEADM OUT [ZLOGIN] ZONE SCRIPT (started by reddwarfd itself)");
            return ExitCode::from(2);
        }
    };
    let asked = Arc::new(AtomicBool::new(false));
    // Before any thread: all of them leave the signal to the one that waits for it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let _ = signals.thread_block();
    let Some(zonepath) = up(zoneadm, zone).unwrap_or_default() else {
        say_end(out, 128, None, Kind::Other, "the machine's zone is not running");
        return ExitCode::FAILURE;
    };
    let began = Moment::now().wall.timestamp();
    std::thread::spawn({
        let (asked, zoneadm, zone) = (asked.clone(), zoneadm.to_owned(), zone.to_owned());
        move || listen(signals, &asked, &zoneadm, &zone)
    });
    if let Err(e) = say_started(out, std::process::id(), std::process::id()) {
        eprintln!("{}: {e}", out.display());
        return ExitCode::FAILURE;
    }
    match zlogin {
        Some(zlogin) => {
            println!("the virtual machine of zone {zone} runs; its console:");
            let (zlogin, zone) = (zlogin.to_owned(), zone.to_owned());
            std::thread::spawn(move || console(&zlogin, &zone));
        }
        None => println!("the virtual machine of zone {zone} runs; its console: zlogin -C {zone}"),
    }
    let mut unanswered = 0;
    while unanswered < UNANSWERED_MOST {
        std::thread::sleep(LOOK);
        match up(zoneadm, zone) {
            Ok(Some(_)) => unanswered = 0,
            Ok(None) => break,
            Err(why) => {
                eprintln!("{why}");
                unanswered += 1;
            }
        }
    }
    let last = std::fs::read_to_string(zonepath.join("lastexited")).unwrap_or_default();
    let (code, signal, how) = match how(&last, began) {
        (0, _, _) if asked.load(Ordering::Relaxed) => (0, None, "was shut down"),
        how => how,
    };
    println!("the virtual machine of zone {zone} {how}");
    say_end(out, code, signal, Kind::Program, "");
    ExitCode::SUCCESS
}

/// What OmniOS notes in a zone's path at the end of its first process, which is bhyve: `SECONDS.MICROSECONDS STATUS`, as wait(3C) has it
/// or the code alone. What is older than this boot, or not there, says nothing; so does -1, a halt.
fn how(last: &str, began: i64) -> (i32, Option<i32>, &'static str) {
    let note = last.trim().split_once(' ').and_then(|(at, status)| {
        let seconds: i64 = at.split('.').next()?.parse().ok()?;
        (seconds >= began).then_some(())?;
        status.parse::<i32>().ok()
    });
    let code = match note {
        Some(status) if status > 0xff => status >> 8,
        Some(status) => status,
        None => 0,
    };
    match (code, note) {
        (3, _) => (3, None, "has crashed: a triple fault"),
        (4, _) => (4, None, "has ended by an error of bhyve's (its log is /tmp/init.log in the zone)"),
        (signal @ 6..=64, Some(6..=64)) => (128 + signal, Some(signal), "was killed"),
        // Rebooted, powered off, halted, suspended (bhyve(8)): as it wished.
        _ => (0, None, "has ended"),
    }
}

/// Does what signals ask for, one shutdown at a time.
fn listen(signals: SigSet, asked: &AtomicBool, zoneadm: &str, zone: &str) {
    let mut shutdown: Option<Child> = None;
    while let Ok(signal) = signals.wait() {
        asked.store(true, Ordering::Relaxed);
        let under_way = shutdown.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        match (signal, &mut shutdown) {
            (Signal::SIGINT, Some(child)) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            (Signal::SIGTERM, _) if !under_way => {
                // What it says goes to the container's log.
                match command(zoneadm, &["-z", zone, "shutdown"]).spawn() {
                    Ok(child) => shutdown = Some(child),
                    Err(e) => eprintln!("{zoneadm}: {e}"),
                }
            }
            _ => {}
        }
    }
}

/// Our side of the console's terminal, while there is one.
#[derive(Default)]
struct Input {
    terminal: Mutex<Option<File>>,
    there: Condvar,
}

impl Input {
    fn set(&self, terminal: Option<File>) {
        *self.terminal.lock().unwrap_or_else(PoisonError::into_inner) = terminal;
        self.there.notify_all();
    }
}

/// Has the console's bytes pass between it and our own streams, again and again until this process ends with the zone.
fn console(zlogin: &str, zone: &str) {
    let input: Arc<Input> = Arc::default();
    std::thread::spawn({
        let input = input.clone();
        move || type_in(&input)
    });
    let (mut pause, longest) = AGAIN;
    loop {
        match connect(zlogin, zone, &input) {
            // It was there: the next one may be at once.
            Ok(true) => pause = AGAIN.0,
            Ok(false) => {}
            Err(e) => eprintln!("the console of zone {zone}: {e}"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// What is typed goes to the console, and waits for it.
fn type_in(input: &Input) {
    let mut from = io::stdin().lock();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let terminal = input.terminal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut terminal = input.there.wait_while(terminal, |t| t.is_none()).unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = terminal.as_mut() {
            // It may go at this moment; then this is as lost as what a guest does not read.
            let _ = to.write_all(buffer.get(..n).unwrap_or_default());
        }
    }
}

/// One run of zlogin, on a terminal that nobody else has; whether it worked.
fn connect(zlogin: &str, zone: &str, input: &Input) -> io::Result<bool> {
    let pair = openpty(None, None)?;
    // The line is the machine's: nothing is to be echoed or changed here before zlogin says so itself.
    let mut raw = tcgetattr(&pair.slave)?;
    cfmakeraw(&mut raw);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &raw)?;
    let slave = || pair.slave.try_clone().map(Stdio::from);
    // -E: no escapes, for all bytes are the client's; -Q: no words of zlogin's own.
    let mut zlogin = command(zlogin, &["-E", "-Q", "-C", zone]);
    let mut child = zlogin.stdin(slave()?).stdout(slave()?).stderr(slave()?).spawn()?;
    // Ours are closed: the last one of the terminal is zlogin's.
    drop((zlogin, pair.slave));
    let mut from = File::from(pair.master);
    input.set(Some(from.try_clone()?));
    let mut buffer = [0; 16 * 1024];
    // EIO on some systems, no bytes on others: zlogin is gone.
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut to = io::stdout();
        if to.write_all(buffer.get(..n).unwrap_or_default()).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
    input.set(None);
    Ok(child.wait()?.success())
}

/// Its path while it is up.
fn up(zoneadm: &str, zone: &str) -> Result<Option<PathBuf>, String> {
    let text = run(zoneadm, &["list", "-p"])?;
    let all = zoneadm::list(&text).map_err(|e| e.to_string())?;
    let is_up =
        |state: &ZoneState| !matches!(state, ZoneState::Configured | ZoneState::Incomplete | ZoneState::Installed);
    Ok(all.into_iter().find(|z| z.name == zone && is_up(&z.state)).map(|z| z.zonepath))
}

fn command(program: &str, args: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the supervisor's side: there is no runner here")]
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(reddwarf_command::ENVIRONMENT).stdin(Stdio::null());
    command
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = command(program, args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Asks a machine's process to have it shut down, or to wait for that no more; whether there was one.
pub(crate) fn ask(pid: u32, no_more: bool) -> bool {
    let signal = if no_more { Signal::SIGINT } else { Signal::SIGTERM };
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// Whether everything that a machine is to have is there, and its pod's to use.
///
/// # Errors
/// `InvalidSpec`, with what is missing and how it is given; the tools'.
pub(crate) async fn check(shared: &Shared, op: &'static str, spec: &SandboxSpec, machine: &Machine) -> HostResult<()> {
    let refuse = |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, op, spec.id.as_str(), message));
    for volume in machine.disks() {
        delegated::given(shared, op, spec, volume, &DISK).await?;
    }
    for file in machine.cdroms() {
        let path = shared.paths.isos().join(file);
        if !path.symlink_metadata().is_ok_and(|m| m.is_file()) {
            return refuse(format!("there is no file {}: put the ISO image there", path.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_crashed_is_told_from_one_that_was_turned_off() {
        let code = |last: &str| {
            let (code, signal, _) = how(last, 1000);
            (code, signal)
        };
        for fine in
            ["", "garbage", "1000.5 0", "1000.5 1", "1001.000000 256\n", "1000.0 512", "1000.0 1280", "1000.0 -1"]
        {
            assert_eq!(code(fine), (0, None), "{fine}");
        }
        assert_eq!((code("1000.1 3"), code("1000.1 768")), ((3, None), (3, None)));
        assert_eq!((code("1000.1 4"), code("1000.1 1024")), ((4, None), (4, None)));
        assert_eq!((code("1000.1 9"), code("1000.1 11")), ((137, Some(9)), (139, Some(11))));
        assert_eq!(code("999.9 3"), (0, None), "of an earlier boot");
    }
}
