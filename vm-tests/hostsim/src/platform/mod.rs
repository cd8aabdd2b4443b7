//! A running zone: what zoneadmd and its init do, with this machine's namespaces for the zone's own.
//!
//! ```text
//! zoneadm boot ── spawns ──→ hostsim __platform ZONE     (zoneadmd: lives as long as the zone; notes its end)
//!                                └─ hostsim __init ZONE    (first process of the zone's pid namespace)
//!                                      └─ what zlogin starts joins its namespaces
//! ```
//!
//! As root, or in a user namespace of its own, where the machine allows that.
//!
//! | file | holds |
//! |---|---|
//! | `root.rs` | what a zone sees as its root: directories, devices, mounts |
//! | `init.rs` | the zone's first process |

mod init;
mod root;

pub(crate) use root::furnish;

use crate::brand::Brand;
use crate::call::{Sim, replace};
use crate::state::{Config, Process};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::{Pid, getegid, geteuid, setsid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a zone's processes are told about their zone, in `/.hostsim/zone`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Inside {
    pub(crate) zone: String,
    /// What is its first process, if it is not ours.
    pub(crate) init: Option<String>,
    /// When it booted, and how long it takes to be all up, in milliseconds.
    pub(crate) booted_at: u64,
    pub(crate) milestone: u64,
    /// Links of its own stack, with an address that is allowed there.
    #[serde(default)]
    pub(crate) nets: Vec<(String, String)>,
    /// Its init is not illumos' own: no SMF.
    #[serde(default)]
    pub(crate) own_init: bool,
}

/// Where the tools are inside of a zone.
pub(crate) const INSIDE: &str = ".hostsim";

/// Whether this call was made inside of a zone.
pub(crate) fn is_inside(sim: &Sim) -> bool {
    sim.dir().join("zone").is_file()
}

pub(crate) fn inside(sim: &Sim) -> Inside {
    let text = std::fs::read_to_string(sim.dir().join("zone")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn wall() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a played system has the machine's own time")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0))
}

/// Kills a zone's first process: the kernel kills the others.
pub fn kill(init: Option<Process>) {
    if let Some(init) = init.filter(|i| i.lives()) {
        let _ = send(Pid::from_raw(init.pid), Signal::SIGKILL);
    }
}

/// Asks a zone's first process to end all and itself.
pub(crate) fn ask_to_end(init: Process) {
    if init.lives() {
        let _ = send(Pid::from_raw(init.pid), Signal::SIGTERM);
    }
}

/// Waits until a process is gone, some milliseconds at most.
pub fn wait_for_end(process: Process, milliseconds: u64) {
    for _ in 0..milliseconds / 2 {
        if !process.lives() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn own(sim: &Sim, args: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the program itself")]
    let mut command = Command::new(sim.tools().join("hostsim"));
    command.args(args).env_clear().current_dir("/").stdin(Stdio::null());
    command
}

/// Starts a zone's platform and first process.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn start(sim: &Sim, zone: &str, config: &Config) -> Result<Process, String> {
    let place = sim.kept(&format!("boot-{zone}.json"));
    let bytes = serde_json::to_vec(config).map_err(|e| e.to_string())?;
    replace(&place, &bytes).map_err(|e| e.to_string())?;
    let console = sim.kept(&format!("console-{zone}.log"));
    let log = File::options().create(true).append(true).open(&console).map_err(|e| e.to_string())?;
    let mut command = own(sim, &["__platform", zone]);
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().map_err(|e| e.to_string())?;
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut line).map_err(|e| e.to_string())?;
    }
    match line.trim().parse::<i32>().ok().and_then(Process::of) {
        Some(init) => Ok(init),
        None => {
            let _ = child.wait();
            let said = std::fs::read_to_string(&console).unwrap_or_default();
            Err(format!("hostsim: the zone's processes can't be started: {}", said.lines().last().unwrap_or_default()))
        }
    }
}

/// What `hostsim` does under its own name.
pub(crate) fn main(sim: &Sim, args: &[String]) -> i32 {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["__platform", zone] => platform(sim, zone),
        ["__init", zone, root] => init::main(zone, Path::new(root)),
        ["__hook", zone, command] => run_hook(sim, zone, command),
        _ => Err("hostsim is called by the names of illumos' tools".to_owned()),
    };
    match result {
        Ok(code) => code,
        Err(what) => {
            eprintln!("hostsim: {what}");
            1
        }
    }
}

fn said<T>(result: nix::Result<T>, what: &str) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {}", e.desc()))
}

/// zoneadmd: until the zone's first process ends.
fn platform(sim: &Sim, zone: &str) -> Result<i32, String> {
    let text = std::fs::read_to_string(sim.kept(&format!("boot-{zone}.json"))).map_err(|e| e.to_string())?;
    let config: Config = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let times = sim.lock().map_err(|e| e.to_string())?.state.times;
    let _ = setsid();
    own_namespaces()?;
    let root = config.zonepath().join("root");
    let brand = Brand::of(sim, &config);
    let net = |n: &crate::state::Resource| (n.get("physical").to_owned(), n.get("allowed-address").to_owned());
    let about = Inside {
        zone: zone.to_owned(),
        init: brand.init(),
        booted_at: wall(),
        milestone: times.milestone,
        nets: config.all("net").map(net).collect(),
        own_init: brand.has_own_init(),
    };
    root::assemble(sim, &root, &config, &about)?;
    let mut command = own(sim, &["__init", zone, &root.to_string_lossy()]);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("init: {e}"))?;
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut line).map_err(|e| e.to_string())?;
    }
    if line.trim() != "ready" {
        let _ = child.wait();
        return Err("init did not start".into());
    }
    let pid = i32::try_from(child.id()).map_err(|e| e.to_string())?;
    let process = Process::of(pid);
    println!("{pid}");
    let status = child.wait().map_err(|e| e.to_string())?;
    note_end(sim, zone, &config, process, status.code().unwrap_or(-1));
    Ok(0)
}

/// What the kernel does when a zone's first process has ended by itself.
fn note_end(sim: &Sim, zone: &str, config: &Config, init: Option<Process>, code: i32) {
    let said = sim.lock().ok().and_then(|locked| locked.state.zones.get(zone)?.exits);
    let text = format!("{}.000000 {}\n", wall() / 1000, said.unwrap_or(code));
    let _ = replace(&config.zonepath().join("lastexited"), text.as_bytes());
    let _ = sim.change(|state| {
        // A halt under way, or another boot, does it itself.
        let same = state.zones.get(zone).is_some_and(|z| z.init == init && z.state == crate::state::ZoneState::Running);
        if same {
            crate::zoneadm::halted(state, zone);
        }
    });
}

/// Namespaces that stand for the zone's own process table, network, mounts and names.
fn own_namespaces() -> Result<(), String> {
    if !geteuid().is_root() {
        let (user, group) = (geteuid(), getegid());
        said(unshare(CloneFlags::CLONE_NEWUSER), "user namespace (root is needed where these are not allowed)")?;
        let maps =
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))];
        for (name, text) in maps {
            let file = File::options().write(true).open(format!("/proc/self/{name}"));
            file.and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()))
                .map_err(|e| format!("{name}: {e}"))?;
        }
    }
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    said(unshare(all), "namespaces")
}

/// To be called by the first process: whatever is started before it would be the first one.
fn lo_up() {
    #[expect(clippy::disallowed_methods, reason = "what the platform does for a zone's loopback")]
    let mut ip = Command::new("ip");
    // Without it a zone has no loopback: what listens there shows it.
    let _ = ip.args(["link", "set", "lo", "up"]).stdin(Stdio::null()).stdout(Stdio::null()).status();
}

/// Runs a brand's hook in a running zone, as zoneadmd does; whether it went well.
pub(crate) fn hook(sim: &Sim, zone: &str, command: &str) -> bool {
    own(sim, &["__hook", zone, command]).status().is_ok_and(|status| status.success())
}

/// A process that joins the zone and runs the hook there.
fn run_hook(sim: &Sim, zone: &str, command: &str) -> Result<i32, String> {
    let found = sim.lock().map_err(|e| e.to_string())?.state.zones.get(zone).and_then(|z| z.init);
    enter(found.ok_or_else(|| format!("{zone} is not running"))?)?;
    #[expect(clippy::disallowed_methods, reason = "what zoneadmd does")]
    let mut shell = Command::new("/bin/sh");
    let status = shell.args(["-c", &format!("exec {command}")]).status().map_err(|e| e.to_string())?;
    Ok(status.code().unwrap_or(1))
}

/// Joins a running zone: what is started from here on is inside.
///
/// # Errors
/// When it is not running any more.
pub(crate) fn enter(init: Process) -> Result<(), String> {
    let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", init.pid)).map_err(|e| format!("{name}: {e}"));
    let names: &[&str] = if geteuid().is_root() {
        &["ipc", "uts", "net", "pid", "mnt"]
    } else {
        &["user", "ipc", "uts", "net", "pid", "mnt"]
    };
    let files = names.iter().map(|n| open(n)).collect::<Result<Vec<_>, _>>()?;
    if !init.lives() {
        return Err("it has ended".into());
    }
    for (file, name) in files.iter().zip(names) {
        said(setns(file, CloneFlags::empty()), name)?;
    }
    std::env::set_current_dir("/").map_err(|e| e.to_string())
}

/// Processes of a zone, as this machine numbers them.
pub(crate) fn processes(init: Process) -> Vec<i32> {
    let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(zone) = of(init.pid).filter(|_| init.lives()) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|pid| of(*pid).as_ref() == Some(&zone)).collect()
}

/// Where something of this machine is found from inside of a zone's root that is still being assembled.
pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
