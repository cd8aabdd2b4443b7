//! A control group's figures (cgroups(7); kernel documentation, cgroup-v1/memory, cgroup-v1/cpuacct, cgroup-v2).

use crate::cgroup::Cgroups;
use reddwarf_host::usage::Consumption;
use std::fs;
use std::path::Path;

/// What is in it and below it uses; `None` when it is not there.
pub(super) fn consumption(cgroups: &Cgroups, cgroup: &Path) -> Option<Consumption> {
    let read = |controller: &str, file: &str| {
        let path = cgroups.directory(controller, cgroup)?.join(file);
        fs::read_to_string(path).ok()
    };
    if cgroups.is_unified() {
        let memory = number(&read("memory", "memory.current")?)?;
        let stat = read("memory", "memory.stat").unwrap_or_default();
        let cpu = read("cpu", "cpu.stat").unwrap_or_default();
        let processes = read("pids", "pids.current").and_then(|t| number(&t)).unwrap_or_default();
        return Some(Consumption {
            cpu_nanos: keyed(&cpu, "usage_usec").saturating_mul(1000),
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(keyed(&stat, "inactive_file")),
            rss_bytes: keyed(&stat, "anon"),
            processes,
        });
    }
    let memory = number(&read("memory", "memory.usage_in_bytes")?)?;
    let stat = read("memory", "memory.stat").unwrap_or_default();
    Some(Consumption {
        cpu_nanos: read("cpuacct", "cpuacct.usage").and_then(|t| number(&t)).unwrap_or_default(),
        memory_bytes: memory,
        working_set_bytes: memory.saturating_sub(keyed(&stat, "total_inactive_file")),
        rss_bytes: keyed(&stat, "total_rss"),
        processes: read("pids", "pids.current").and_then(|t| number(&t)).unwrap_or_default(),
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value on the line that begins with `key`; 0 without one.
fn keyed(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ').and_then(number));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let stat = "cache 1\ninactive_file 5\ntotal_inactive_file 7\nrss 2\ntotal_rss 9\n";
        assert_eq!((keyed(stat, "inactive_file"), keyed(stat, "total_inactive_file")), (5, 7));
        assert_eq!((keyed(stat, "total_rss"), keyed(stat, "total"), keyed("", "x")), (9, 0, 0));
    }

    #[test]
    fn figures_of_both_layouts_mean_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::files::write_atomically(&path, text.as_bytes(), 0o600).unwrap();
        };
        for (file, text) in [
            ("v2/g/memory.current", "1000\n"),
            ("v2/g/memory.stat", "anon 600\nfile 400\ninactive_file 300\n"),
            ("v2/g/cpu.stat", "usage_usec 5\nuser_usec 3\n"),
            ("v2/g/pids.current", "4\n"),
            ("memory/g/memory.usage_in_bytes", "1000\n"),
            ("memory/g/memory.stat", "inactive_file 1\ntotal_rss 600\ntotal_inactive_file 300\n"),
            ("cpuacct/g/cpuacct.usage", "5000\n"),
            ("pids/g/pids.current", "4\n"),
        ] {
            write(file, text);
        }
        let wanted =
            Consumption { cpu_nanos: 5000, memory_bytes: 1000, working_set_bytes: 700, rss_bytes: 600, processes: 4 };
        let v2 = Cgroups::unified(dir.path().join("v2"));
        assert_eq!(consumption(&v2, Path::new("/g")), Some(wanted));
        let v1 = Cgroups::separate(["memory", "cpuacct", "pids"].map(|c| (dir.path().join(c), vec![c.to_owned()])));
        assert_eq!(consumption(&v1, Path::new("/g")), Some(wanted));
        assert_eq!(consumption(&v1, Path::new("/other")), None);
    }
}
