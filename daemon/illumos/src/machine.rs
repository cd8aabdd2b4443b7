//! A virtual machine as the container of its pod: a small process in the global zone that a supervisor has instead of zlogin(1),
//! and that lives for as long as the machine's zone is up. Asked to end (TERM), it has the zone shut down (ACPI), which zoneadm(8)
//! waits for; told that it took too long (INT), it ends that zoneadm, and the daemon halts the zone.

use crate::datasets;
use crate::host::Shared;
use crate::starter::{Kind, say_end, say_started};
use crate::zone::machine::{GRANT, Machine};
use crate::zoneadm::{self, ZoneState};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Its first argument.
pub(crate) const ARGUMENT: &str = "__zone-machine";

/// How often it looks at the zone.
const LOOK: Duration = Duration::from_secs(1);
/// How often the question may go unanswered before the machine is taken as gone.
const UNANSWERED_MOST: u32 = 60;

/// What a supervisor starts for a machine: our own program, what it is given before the zone's name.
pub(crate) fn words(zoneadm: &Path, out: &Path) -> Vec<String> {
    [ARGUMENT.into(), zoneadm.to_string_lossy(), out.to_string_lossy()].map(std::borrow::Cow::into_owned).to_vec()
}

/// `__zone-machine ZONEADM OUT [-n] ZONE SCRIPT`, as zlogin would be called.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let words: Option<Vec<&str>> = args.iter().map(|a| a.to_str()).collect();
    let (zoneadm, out, zone) = match words.as_deref() {
        Some([zoneadm, out, .., zone, _script]) => (*zoneadm, Path::new(*out), *zone),
        _ => {
            eprintln!("usage: {ARGUMENT} ZONEADM OUT ZONE SCRIPT (started by reddwarfd itself)");
            return ExitCode::from(2);
        }
    };
    let asked = Arc::new(AtomicBool::new(false));
    // Before any thread: all of them leave the signal to the one that waits for it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let _ = signals.thread_block();
    if !is_up(zoneadm, zone).unwrap_or(false) {
        say_end(out, 128, None, Kind::Other, "the machine's zone is not running");
        return ExitCode::FAILURE;
    }
    std::thread::spawn({
        let (asked, zoneadm, zone) = (asked.clone(), zoneadm.to_owned(), zone.to_owned());
        move || listen(signals, &asked, &zoneadm, &zone)
    });
    if let Err(e) = say_started(out, std::process::id(), std::process::id()) {
        eprintln!("{}: {e}", out.display());
        return ExitCode::FAILURE;
    }
    println!("the virtual machine of zone {zone} runs; its console: zlogin -C {zone}");
    let mut unanswered = 0;
    while unanswered < UNANSWERED_MOST {
        std::thread::sleep(LOOK);
        match is_up(zoneadm, zone) {
            Ok(true) => unanswered = 0,
            Ok(false) => break,
            Err(why) => {
                eprintln!("{why}");
                unanswered += 1;
            }
        }
    }
    let how = if asked.load(Ordering::Relaxed) { "was shut down" } else { "has ended" };
    println!("the virtual machine of zone {zone} {how}");
    say_end(out, 0, None, Kind::Program, "");
    ExitCode::SUCCESS
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

fn is_up(zoneadm: &str, zone: &str) -> Result<bool, String> {
    let text = run(zoneadm, &["list", "-p"])?;
    let all = zoneadm::list(&text).map_err(|e| e.to_string())?;
    let found = all.into_iter().find(|z| z.name == zone);
    Ok(found.is_some_and(|z| !matches!(z.state, ZoneState::Configured | ZoneState::Incomplete | ZoneState::Installed)))
}

fn command(program: &str, args: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the supervisor's side: there is no runner here")]
    let mut command = Command::new(program);
    command.args(args).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
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
    let pod = format!("{}/{}", spec.pod.namespace, spec.pod.name);
    for volume in machine.disks() {
        let found = datasets::properties(shared, op, volume, &["type", GRANT]).await?;
        let of = found.get(volume.as_str());
        match of.and_then(|of| of.get("type")).map(|p| p.value.as_str()) {
            Some("volume") => {}
            Some(other) => return refuse(format!("{volume} is a {other}, not a volume: zfs create -V SIZE {volume}")),
            None => return refuse(format!("there is no volume {volume}: zfs create -V SIZE {volume}")),
        }
        let granted = of.and_then(|of| of.get(GRANT)).filter(|p| p.local);
        if granted.is_none_or(|p| p.value != pod) {
            return refuse(format!("{volume} is not this pod's to use: zfs set {GRANT}={pod} {volume}"));
        }
    }
    for file in machine.cdroms() {
        let path = shared.paths.isos().join(file);
        if !path.symlink_metadata().is_ok_and(|m| m.is_file()) {
            return refuse(format!("there is no file {}: put the ISO image there", path.display()));
        }
    }
    Ok(())
}
