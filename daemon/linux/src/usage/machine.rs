//! The machine's own figures: proc_meminfo(5), proc_stat(5), proc_loadavg(5), the network's counters, statvfs(3).

use reddwarf_host::usage::{Consumption, FileSystem, HostPressure, Traffic};
use reddwarf_host::{HostError, HostErrorKind, HostResult, LinkName};
use reddwarf_supervise::file_system;
use reddwarf_supervise::files::read_kernel_file;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const OP: &str = "read usage";
/// Nanoseconds of one tick of /proc/stat (USER_HZ, which is 100 for programs on every architecture of Linux).
const TICK: u64 = 10_000_000;

fn read(path: &str) -> HostResult<String> {
    read_kernel_file(path).map_err(|e| HostError::new(HostErrorKind::Other, OP, path, "can't be read").caused_by(e))
}

/// A line of /proc/meminfo in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// What may run short. Of the state directory's file system and that of containers' roots, if it is another, the one with
/// the smaller part free counts.
pub(super) fn pressure(state: &Path, roots: Option<&Path>) -> HostResult<HostPressure> {
    let memory = read("/proc/meminfo")?;
    let incomplete = |what: &str| HostError::new(HostErrorKind::Other, OP, "/proc/meminfo", format!("has no {what}"));
    let total = meminfo(&memory, "MemTotal").ok_or_else(|| incomplete("MemTotal"))?;
    let available = meminfo(&memory, "MemAvailable").ok_or_else(|| incomplete("MemAvailable"))?;
    let most =
        ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].iter().filter_map(|path| number(path)).min();
    Ok(HostPressure {
        memory_bytes: total,
        memory_available_bytes: available.min(total),
        storage: scarcer(file_system::figures(state)?, roots.map(file_system::figures).transpose()?),
        processes_max: most.unwrap_or(32768),
        processes: threads(&read("/proc/loadavg")?).unwrap_or_default(),
    })
}

fn number(path: &str) -> Option<u64> {
    read_kernel_file(path).ok()?.trim().parse().ok()
}

/// All that the scheduler knows: the number behind the `/` in the fourth field.
fn threads(loadavg: &str) -> Option<u64> {
    loadavg.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn scarcer(one: FileSystem, other: Option<FileSystem>) -> FileSystem {
    let Some(other) = other else { return one };
    let free =
        |of: &FileSystem, beside: &FileSystem| u128::from(of.available_bytes) * u128::from(beside.capacity_bytes);
    if free(&other, &one) < free(&one, &other) { other } else { one }
}

/// The machine as a whole. Page cache that was not used of late is not in its working set.
pub(super) fn consumption() -> HostResult<Consumption> {
    let memory = read("/proc/meminfo")?;
    let of = |key: &str| meminfo(&memory, key).unwrap_or_default();
    let used = of("MemTotal").saturating_sub(of("MemFree"));
    Ok(Consumption {
        cpu_nanos: busy_nanos(&read("/proc/stat")?),
        memory_bytes: used,
        working_set_bytes: used.saturating_sub(of("Inactive(file)")),
        rss_bytes: of("AnonPages"),
        processes: threads(&read("/proc/loadavg")?).unwrap_or_default(),
    })
}

/// user, nice, system, irq, softirq and steal of the first line: guests are in `user` already, idle and iowait are none.
fn busy_nanos(stat: &str) -> u64 {
    let fields: Vec<u64> = stat
        .lines()
        .find_map(|l| l.strip_prefix("cpu "))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or_default();
    [0, 1, 2, 5, 6, 7].map(at).iter().sum::<u64>().saturating_mul(TICK)
}

/// Counters of the host's network interfaces, from one read of proc_pid_net(5) `dev`.
pub(super) struct Traffics {
    by_name: HashMap<String, Traffic>,
    uplink: Option<String>,
}

impl Traffics {
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            by_name: interfaces(&text("/proc/thread-self/net/dev")),
            uplink: crate::info::default_interface(&text("/proc/thread-self/net/route")),
        }
    }

    pub(super) fn uplink(&self) -> Option<Traffic> {
        self.by_name.get(self.uplink.as_ref()?).copied()
    }

    /// Of the host's end of a veth: what it receives, the pod has sent.
    pub(super) fn of_sandbox(&self, link: &LinkName) -> Option<Traffic> {
        let host_end = self.by_name.get(link.as_str())?;
        Some(Traffic { received_bytes: host_end.sent_bytes, sent_bytes: host_end.received_bytes })
    }
}

/// `  eth0: RECEIVED packets errs drop fifo frame compressed multicast SENT …`.
fn interfaces(text: &str) -> HashMap<String, Traffic> {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let fields: Vec<&str> = counters.split_ascii_whitespace().collect();
        let at = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some((name.trim().to_owned(), Traffic { received_bytes: at(0)?, sent_bytes: at(8)? }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_their_manuals_say() {
        let memory = "MemTotal:       24684084 kB\nMemAvailable:   10 kB\nInactive(file):    71176 kB\n";
        assert_eq!(meminfo(memory, "MemTotal"), Some(24_684_084 * 1024));
        assert_eq!(meminfo(memory, "Inactive(file)"), Some(71176 * 1024));
        assert_eq!((meminfo(memory, "Mem"), meminfo("", "MemTotal")), (None, None));
        assert_eq!(threads("0.26 1.16 1.37 1/99 17327\n"), Some(99));
        assert_eq!(threads("nonsense"), None);
        let stat = "cpu  10 1 5 1000 7 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_nanos(stat), (10 + 1 + 5 + 2 + 3 + 4) * TICK);
        let dev = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n\
                   rd7:100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(found.get("rd7"), Some(&Traffic { received_bytes: 100, sent_bytes: 200 }));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn the_scarcer_file_system_counts() {
        let of =
            |capacity_bytes, available_bytes| FileSystem { capacity_bytes, available_bytes, inodes: 0, inodes_free: 0 };
        assert_eq!(scarcer(of(100, 50), None), of(100, 50));
        assert_eq!(scarcer(of(100, 50), Some(of(1000, 100))), of(1000, 100));
        assert_eq!(scarcer(of(100, 5), Some(of(1000, 100))), of(100, 5));
    }

    #[test]
    fn this_machine_has_figures() {
        let found = pressure(Path::new("/var/lib/nowhere"), None).unwrap();
        assert!(
            found.memory_available_bytes > 0 && found.processes > 0 && found.storage.capacity_bytes > 0,
            "{found:?}"
        );
        assert!(consumption().unwrap().cpu_nanos > 0);
    }
}
