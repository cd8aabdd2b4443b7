//! The zone's first process: says that it is there, reaps what is orphaned, ends all when it is asked to.

use super::{INSIDE, Inside, said};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pivot_root, sethostname};
use std::ffi::CString;
use std::io::Write;
use std::path::Path;

pub(super) fn main(zone: &str, root: &Path) -> Result<i32, String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGCHLD);
    said(signals.thread_block(), "signals")?;
    said(sethostname(zone), "name")?;
    super::lo_up();
    // pivot_root moves all processes of a mount namespace: zoneadmd stays where it is.
    said(unshare(CloneFlags::CLONE_NEWNS), "mounts")?;
    std::env::set_current_dir(root).map_err(|e| format!("{}: {e}", root.display()))?;
    said(pivot_root(".", "."), "pivot_root")?;
    said(umount2(".", MntFlags::MNT_DETACH), "old root")?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    said(mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>), "proc")?;
    let about = std::fs::read_to_string(format!("/{INSIDE}/zone")).unwrap_or_default();
    let about: Inside = serde_json::from_str(&about).unwrap_or_default();
    println!("ready");
    std::io::stdout().flush().map_err(|e| e.to_string())?;
    if let Some(program) = about.init.filter(|p| Path::new(p).is_file()) {
        let _ = signals.thread_unblock();
        let path = CString::new(program).map_err(|e| e.to_string())?;
        // A kernel gives none; here it says where the tools are.
        let env =
            CString::new(format!("PATH=/{INSIDE}/bin:/usr/sbin:/usr/bin:/sbin:/bin")).map_err(|e| e.to_string())?;
        let Err(error) = nix::unistd::execve(&path, std::slice::from_ref(&path), &[env]);
        return Err(format!("{}: {}", path.to_string_lossy(), error.desc()));
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM) => break,
            _ => reap(),
        }
    }
    // What init's own end does not wait for, the kernel kills.
    let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
    while kill(Pid::from_raw(-1), None).is_ok() {
        reap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(0)
}

fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
