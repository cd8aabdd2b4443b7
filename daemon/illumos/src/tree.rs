//! All processes that one process has started, wherever they have put themselves. On illumos they share a process contract
//! (ctrun(1) made it); in played zones (Linux) whoever loses its parent is inherited by the starter.

use std::ffi::OsString;
use std::process::ExitCode;

/// The first argument of the process that ends a tree.
pub const ARGUMENT: &str = "__zone-end";

/// From here on what loses its parent is still ours.
pub(crate) fn keep_orphans() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Ends a tree from outside of it: `__zone-end PID`, in the zone.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(root) = args.first().and_then(|a| a.to_str()).and_then(|a| a.parse().ok()) else {
        eprintln!("usage: {ARGUMENT} PID (started by reddwarfd itself, in a zone)");
        return ExitCode::from(2);
    };
    end(root, true);
    ExitCode::SUCCESS
}

/// Kills all that `root` has started. On illumos the contract does that by itself where `root` is a container's starter;
/// `others`: `root` is another process than this one, with a contract of its own.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end(root: u32, others: bool) {
    use std::process::Command;
    if !others && root == std::process::id() {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "in the zone: a short run of the zone's own tool")]
    let run = |program: &str, words: &[&str]| {
        Command::new(program).env_clear().envs(reddwarf_command::ENVIRONMENT).args(words).output()
    };
    let Ok(said) = run("/usr/bin/ps", &["-o", "ctid=", "-p", &root.to_string()]) else { return };
    let contract = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if contract.parse::<u32>().is_ok() {
        let _ = run("/usr/bin/pkill", &["-KILL", "-c", &contract]);
    }
}

/// The same by parents: everything below `root`, until nothing is left.
#[cfg(target_os = "linux")]
pub(crate) fn end(root: u32, _others: bool) {
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;
    for _ in 0..200 {
        let below = below(root);
        if below.is_empty() {
            return;
        }
        for pid in below {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // Those that this process inherited.
        while waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)).is_ok_and(|w| w.pid().is_some()) {}
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[cfg(target_os = "linux")]
fn below(root: u32) -> Vec<i32> {
    let mut parents = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let mut rest = stat.rsplit_once(") ").map(|(_, r)| r.split(' ')).into_iter().flatten();
        let (state, parent) = (rest.next().unwrap_or_default(), rest.next().and_then(|p| p.parse::<u32>().ok()));
        if let (false, Some(parent)) = (state == "Z", parent) {
            parents.insert(pid, parent);
        }
    }
    let is_below = |mut pid: u32| {
        for _ in 0..64 {
            match parents.get(&pid) {
                Some(parent) if *parent == root => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let own = std::process::id();
    parents.keys().filter(|pid| **pid != own && is_below(**pid)).filter_map(|pid| i32::try_from(*pid).ok()).collect()
}
