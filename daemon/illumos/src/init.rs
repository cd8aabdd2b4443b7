//! The first process of a zone of our own brand (`smf/brand`): gives the zone its addresses, adopts and reaps what loses its
//! parent, and asks containers' programs to end when the zone is to go. What runs otherwise is not its business.
//!
//! ```text
//! kernel → /.reddwarf/bin/init            this program under another name; its state is for the daemon to read
//!            ipmgmtd                      takes the addresses that zonecfg allows from the kernel (libipadm: "from-gz")
//!            ipadm create-addr lo0/…      loopback
//!            ipadm enable-if …            every interface that ipmgmtd knows and that is not up
//!            signals: CHLD reap; TERM ask all programs to end, then uadmin(8)
//! ```
//!
//! A kernel starts an init that has ended again, so this one never ends by itself: what goes wrong is said in [`STATE`] and on
//! the console.

use crate::parsable;
use crate::starter::{read_ended, read_started};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use reddwarf_supervise::files::write_atomically;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The path that config.xml names as `initname`: what this program is called when it is init.
const CALLED: &str = "/.reddwarf/bin/init";
/// Its file beside our program, for the zone's configuration shows that directory.
pub(crate) const NAME: &str = "init";
/// One line: `up`, or what it is at, or what went wrong. On a file system in memory: a boot begins without it.
pub(crate) const STATE: &str = "/etc/svc/volatile/reddwarf-init";
/// What [`STATE`] says when all is well.
pub(crate) const UP: &str = "up";
/// How the line of a failure begins.
pub(crate) const FAILED: &str = "failed: ";

/// Where starters say what runs.
const OUT: &str = "/.reddwarf/rw/out";
const PID: &str = "/etc/svc/volatile/reddwarf-init.pid";
/// How long programs have between being asked to end and the end of the zone: 10 s.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_MOST: u32 = 500;

/// This process as init, when it was called so. To be asked first thing in `main`.
pub fn called() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    let name = words.next()?;
    // `shutdown` is called with the path that config.xml names, as well.
    (Path::new(&name) == Path::new(CALLED)).then(|| main(&words.collect::<Vec<_>>()))
}

fn main(args: &[OsString]) -> ExitCode {
    match args.first().and_then(|a| a.to_str()) {
        Some("shutdown") => shut_down(),
        // Whatever a boot has been given (`-s`, `-m verbose`): there is one way to run.
        _ => run(),
    }
}

/// What `zoneadm shutdown` runs in the zone: asks init to end all.
fn shut_down() -> ExitCode {
    let pid = std::fs::read_to_string(PID).ok().and_then(|t| t.trim().parse().ok());
    match pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        other => {
            eprintln!("reddwarf init: {PID}: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGCHLD);
    // From here on they wait until they are looked at.
    let _ = signals.thread_block();
    put(PID, &std::process::id().to_string());
    match network() {
        Ok(()) => say(UP),
        Err(why) => say(&format!("{FAILED}{}", why.replace('\n', " "))),
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM) => {
                end_all();
                // Where that is not the end (illumos' kernel starts an init again that ends), wait for it.
                if !cfg!(target_os = "illumos") {
                    return ExitCode::SUCCESS;
                }
            }
            _ => reap(),
        }
    }
}

/// Says where it is: to the daemon, and on the console.
fn say(line: &str) {
    put(STATE, line);
    if let Ok(mut console) = File::options().write(true).open("/dev/console") {
        let _ = writeln!(console, "reddwarf init: {line}");
    }
}

/// A line in a file of ours. Who reads it waits for it: that it can't be written needs no other word.
fn put(path: &str, line: &str) {
    let _ = write_atomically(Path::new(path), format!("{line}\n").as_bytes(), 0o600);
}

/// The zone's addresses, as its configuration allows them.
fn network() -> Result<(), String> {
    say("starting ipmgmtd");
    // It refuses to run for people; its name of a service is how it knows SMF.
    let fmri = ("SMF_FMRI", "svc:/network/ip-interface-management:default");
    tool("/lib/inet/ipmgmtd", &[], &[fmri])?;
    say("giving the zone its addresses");
    for (address, object) in [("127.0.0.1/8", "lo0/v4"), ("::1/128", "lo0/v6")] {
        let local = format!("local={address}");
        tool("/sbin/ipadm", &["create-addr", "-t", "-T", "static", "-a", &local, object], &[])?;
    }
    let said = tool("/sbin/ipadm", &["show-if", "-p", "-o", "ifname,state"], &[])?;
    for line in said.lines().filter(|l| !l.is_empty()) {
        let fields = parsable::fields(line);
        let (Some(name), Some(state)) = (fields.first(), fields.get(1)) else {
            return Err(format!("ipadm show-if says {line:?}"));
        };
        // Its addresses and its default router come with it.
        if state == "disabled" {
            tool("/sbin/ipadm", &["enable-if", "-t", name], &[])?;
        }
    }
    Ok(())
}

/// Runs a tool of the zone to its end; what it printed.
fn tool(path: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
    // Stand-ins lie elsewhere: they are looked for as shells do.
    let program = if cfg!(target_os = "illumos") { path } else { path.rsplit('/').next().unwrap_or(path) };
    #[expect(clippy::disallowed_methods, reason = "in the zone: a short run of the zone's own tool")]
    let mut command = Command::new(program);
    if cfg!(target_os = "illumos") {
        command.env_clear().envs(reddwarf_command::ENVIRONMENT);
    }
    command.args(args).env("LC_ALL", "C").envs(env.iter().copied()).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("{path}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{path} {}: {} ({})", args.join(" "), said.trim(), output.status))
}

/// Collects those that have ended and have nobody else.
fn reap() {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Containers' programs, then the zone itself. Only these are asked: with a starter, or ctrun(1) above it, all of its container's
/// processes would be killed at once.
fn end_all() {
    say("ending");
    let asked: Vec<PathBuf> =
        programs().into_iter().filter(|(_, pid)| kill(*pid, Signal::SIGTERM).is_ok()).map(|p| p.0).collect();
    for _ in 0..LOOKS_MOST {
        reap();
        if asked.iter().all(|out| read_ended(out).is_some()) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    if cfg!(target_os = "illumos") {
        // A_SHUTDOWN, AD_HALT: in a zone, of the zone.
        if let Err(why) = tool("/sbin/uadmin", &["2", "0"], &[]) {
            say(&format!("{FAILED}{why}"));
        }
    }
}

/// Programs that starters say run, by where they say so.
fn programs() -> Vec<(PathBuf, Pid)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(OUT).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().and_then(|n| n.strip_suffix(".started").map(str::to_owned)) else {
            continue;
        };
        let out = Path::new(OUT).join(name);
        let pid = read_started(&out).and_then(|(pid, _)| i32::try_from(pid).ok());
        if let (Some(pid), None) = (pid, read_ended(&out)) {
            found.push((out, Pid::from_raw(pid)));
        }
    }
    found
}
