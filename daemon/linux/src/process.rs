//! Processes: identity that survives pid reuse, signals without races.

use crate::files::write_kernel_file;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// How readily the kernel kills a process for want of memory.
pub(crate) fn oom_score(pid: u32) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Gives this process, and what it forks, `wanted`, or as low as it may go without CAP_SYS_RESOURCE. Containers that
/// ask for nothing don't inherit the protection that daemon and shim have.
pub(crate) fn adjust_oom_score(wanted: Option<i32>) -> io::Result<()> {
    let now = oom_score(std::process::id())?;
    let wanted = wanted.unwrap_or(now.max(0));
    if now == wanted {
        return Ok(());
    }
    match write_kernel_file(Path::new("/proc/self/oom_score_adj"), &wanted.to_string()) {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => Ok(()),
        other => other,
    }
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The number in the host's pid namespace.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot (proc(5), `/proc/PID/stat` field 22).
    pub(crate) start_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: start_ticks(pid)? })
    }

    /// Whether it still exists and is not a zombie.
    pub(crate) fn is_alive(self) -> bool {
        matches!(stat(self.pid), Ok(stat) if stat.start_ticks == self.start_ticks && stat.state != b'Z' && stat.state != b'X')
    }

    /// A descriptor of it; `None` when it is gone or the number belongs to another process now.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let fd = match pidfd_open(self.pid) {
            Ok(fd) => fd,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Checked after opening: from here on the descriptor can't come to mean another process.
        if self.is_alive() { Ok(Some(fd)) } else { Ok(None) }
    }

    /// Sends a signal; whether there was a process to get it.
    pub(crate) fn signal(self, signal: i32) -> io::Result<bool> {
        match self.open()? {
            Some(fd) => pidfd_send(&fd, signal),
            None => Ok(false),
        }
    }
}

struct Stat {
    state: u8,
    start_ticks: u64,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The command name (field 2) may hold anything, so fields are counted from its last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let close = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // Field 3 is the state; field 22 comes 18 further on.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

/// Start time of a process in clock ticks since boot.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    stat(pid).map(|s| s.start_ticks)
}

#[allow(unsafe_code)]
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers; the descriptor that it returns is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

#[allow(unsafe_code)]
fn pidfd_send(fd: &OwnedFd, signal: i32) -> io::Result<bool> {
    // SAFETY: pidfd_send_signal(2) with no siginfo takes a descriptor, which `fd` keeps open, and integers.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_and_blanks_does_not_confuse() {
        let line = b"42 (a) R 1 2) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.state, b'S');
        assert_eq!(stat.start_ticks, 987_654);
        assert!(parse_stat(b"42 (a").is_none());
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(me.open().unwrap().is_some());
        let earlier = ProcessId { start_ticks: me.start_ticks - 1, ..me };
        assert!(!earlier.is_alive());
        assert!(!earlier.signal(libc::SIGKILL).unwrap(), "would have killed the wrong process");
    }
}
