//! kstat, prstat and the small tools that tell what there is.

use crate::call::{Answer, Call};
use crate::platform;
use crate::state::{State, Zone};
use std::fmt::Write;

/// One call.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    match (call.tool, words.as_slice()) {
        ("kstat", _) => kstat(state, &words),
        ("prstat", ["-c", "-Z", "-n", _, "1", "1"]) => Answer::out(prstat(state)),
        ("zonename", []) => Answer::out("global\n"),
        ("uname", _) => uname(&words, "hostsim"),
        ("isainfo", ["-b"]) => Answer::out("64\n"),
        ("isainfo", ["-k"]) => Answer::out("amd64\n"),
        ("psrinfo", []) => {
            Answer::out("0\ton-line   since 01/01/2026 00:00:00\n1\ton-line   since 01/01/2026 00:00:00\n")
        }
        ("psrinfo", ["-t"]) => Answer::out("2\n"),
        ("prtconf", ["-m"]) => Answer::out("8192\n"),
        ("prtconf", []) => Answer::out("System Configuration:  hostsim  i86pc\nMemory size: 8192 Megabytes\n"),
        ("fuser", [.., _]) => Answer::ok(),
        ("prctl", _) => crate::rctl::prctl(state, &words),
        ("rcapadm", ["-z", zone, "-m", bytes]) => crate::rctl::rcapadm(state, zone, bytes),
        ("pkill", ["-KILL", "-z", zone, "bhyve"]) => {
            // The first process of such a zone becomes bhyve (the brand's init.c).
            let machine = state.zones.get(*zone).filter(|z| z.config.global("brand") == "bhyve").and_then(|z| z.init);
            let found = machine.filter(|init| init.lives());
            platform::kill(found);
            Answer { code: i32::from(found.is_none()), ..Answer::default() }
        }
        ("pkill", ["-z", ..]) => Answer { code: 1, ..Answer::default() },
        (tool, _) => Answer::usage(format!("hostsim: {tool} is not played with these arguments")),
    }
}

/// uname(1)
pub(crate) fn uname(words: &[&str], node: &str) -> Answer {
    match words {
        ["-s"] | [] => Answer::out("SunOS\n"),
        ["-n"] => Answer::out(format!("{node}\n")),
        ["-r"] => Answer::out("5.11\n"),
        ["-v"] => Answer::out("omnios-r151056-hostsim\n"),
        ["-m"] => Answer::out("i86pc\n"),
        ["-p"] => Answer::out("i386\n"),
        ["-a"] => Answer::out(format!("SunOS {node} 5.11 omnios-r151056-hostsim i86pc i386 i86pc\n")),
        _ => Answer::usage("usage: uname [-snrvmapiX]"),
    }
}

/// What a zone's processes have used: nanoseconds in programs and in the kernel, bytes resident, how many they are.
fn used(zone: &Zone) -> (u64, u64, u64, usize) {
    let Some(init) = zone.init else { return (0, 0, 0, 0) };
    let (mut user, mut system, mut resident) = (0, 0, 0);
    let pids = platform::processes(init);
    for pid in &pids {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let rest: Vec<u64> = stat
            .rsplit_once(") ")
            .map(|(_, r)| r.split(' ').map(|f| f.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        let field = |n: usize| rest.get(n).copied().unwrap_or(0);
        // Ended children count too.
        // Clock ticks are coarse: what a process has run for is known to the nanosecond.
        let ran = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        let ran = ran.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        user += ran.saturating_sub(field(12) * 10_000_000).max(field(11) * 10_000_000) + field(13) * 10_000_000;
        system += (field(12) + field(14)) * 10_000_000;
        resident += field(21) * 4096;
    }
    (user, system, resident, pids.len())
}

/// The bound of a control that the running zone has.
fn bound(zone: &Zone, control: &str) -> Option<u64> {
    let config = zone.booted.as_ref()?;
    let found = config.all("rctl").find(|r| r.get("name") == control)?;
    found.list("value").first()?.split_once("limit=")?.1.split(',').next()?.parse().ok()
}

struct Stat {
    module: &'static str,
    instance: u32,
    name: String,
    statistic: &'static str,
    value: String,
}

fn stats(state: &State) -> Vec<Stat> {
    let mut all = Vec::new();
    for (name, zone) in &state.zones {
        let Some(id) = zone.id else { continue };
        let (user, system, resident, count) = used(zone);
        let short: String = name.chars().take(30).collect();
        let mut add = |module, kstat: &str, statistic, value: String| {
            all.push(Stat { module, instance: id, name: kstat.to_owned(), statistic, value });
        };
        for (statistic, value) in [
            ("nsec_user", user),
            ("nsec_sys", system),
            ("nsec_waitrq", 0),
            ("avenrun_1min", 0),
            ("boot_time", zone.booted_at / 1000),
        ] {
            add("zones", &short, statistic, value.to_string());
        }
        add("zones", &short, "zonename", name.clone());
        add("zones", &short, "crtime", format!("{}.{:09}", zone.booted_at / 1000, zone.booted_at % 1000 * 1_000_000));
        let now = platform::wall();
        add("zones", &short, "snaptime", format!("{}.{:09}", now / 1000, now % 1000 * 1_000_000));
        let most = u64::MAX;
        if !state.system.is_gate() {
            let physical = bound(zone, "zone.max-physical-memory").unwrap_or(most);
            let swap = bound(zone, "zone.max-swap").unwrap_or(most);
            for (statistic, value) in [
                ("rss", resident),
                ("physcap", physical),
                ("swap", resident),
                ("swapcap", swap),
                ("nover", 0),
                ("pagedout", 0),
                ("anon_alloc_fail", 0),
            ] {
                add("memory_cap", &short, statistic, value.to_string());
            }
            add("memory_cap", &short, "zonename", name.clone());
        }
        for (kstat, control, usage) in [
            ("swapresv_zone", "zone.max-swap", resident),
            ("lockedmem_zone", "zone.max-locked-memory", 0),
            ("nprocs_zone", "zone.max-processes", count as u64),
        ] {
            let kstat = format!("{kstat}_{id}");
            add("caps", &kstat, "usage", usage.to_string());
            add("caps", &kstat, "value", bound(zone, control).unwrap_or(most).to_string());
            add("caps", &kstat, "zonename", name.clone());
        }
        if let Some(cap) = bound(zone, "zone.cpu-cap") {
            let kstat = format!("cpucaps_zone_{id}");
            add("caps", &kstat, "value", cap.to_string());
            add("caps", &kstat, "usage", "0".into());
            add("caps", &kstat, "zonename", name.clone());
        }
    }
    for (name, link) in &state.links {
        for statistic in ["rbytes64", "obytes64", "ipackets64", "opackets64"] {
            let value = link.mtu.to_string();
            all.push(Stat { module: "link", instance: 0, name: name.clone(), statistic, value });
        }
    }
    for (statistic, value) in
        [("physmem", 2_097_152_u64), ("pagestotal", 2_097_152), ("freemem", 1_048_576), ("availrmem", 1_048_576)]
    {
        all.push(Stat {
            module: "unix",
            instance: 0,
            name: "system_pages".into(),
            statistic,
            value: value.to_string(),
        });
    }
    for (statistic, value) in [("size", 1_u64 << 30), ("c_min", 64 << 20)] {
        all.push(Stat { module: "zfs", instance: 0, name: "arcstats".into(), statistic, value: value.to_string() });
    }
    for cpu in 0..2 {
        for statistic in ["cpu_nsec_user", "cpu_nsec_kernel", "cpu_nsec_idle"] {
            let value = (platform::wall() * 1000).to_string();
            all.push(Stat { module: "cpu", instance: cpu, name: "sys".into(), statistic, value });
        }
    }
    all.push(Stat { module: "unix", instance: 0, name: "system_misc".into(), statistic: "ncpus", value: "2".into() });
    all.push(Stat { module: "unix", instance: 0, name: "system_misc".into(), statistic: "nproc", value: "50".into() });
    all.push(Stat {
        module: "unix",
        instance: 0,
        name: "system_misc".into(),
        statistic: "boot_time",
        value: "1700000000".into(),
    });
    all
}

/// `kstat -p 'module:instance:name:statistic' …`
fn kstat(state: &State, words: &[&str]) -> Answer {
    let ["-p", patterns @ ..] = words else { return Answer::usage("hostsim: kstat is played with -p only") };
    let fits = |stat: &Stat| {
        patterns.iter().any(|pattern| {
            let parts: Vec<&str> = pattern.split(':').collect();
            let instance = stat.instance.to_string();
            let values = [stat.module, instance.as_str(), stat.name.as_str(), stat.statistic];
            parts.len() <= 4 && parts.iter().zip(values).all(|(p, v)| p.is_empty() || *p == v)
        })
    };
    let mut out = String::new();
    for stat in stats(state).iter().filter(|s| patterns.is_empty() || fits(s)) {
        let _ = writeln!(out, "{}:{}:{}:{}\t{}", stat.module, stat.instance, stat.name, stat.statistic, stat.value);
    }
    if out.is_empty() { Answer { code: 1, ..Answer::default() } } else { Answer::out(out) }
}

fn prstat(state: &State) -> String {
    let head = "ZONEID    NPROC  SWAP   RSS MEMORY      TIME  CPU ZONE                        \n";
    let mut rows = format!("     0       50  200M  300M   3.0%   0:01:00 0.1% {:<28}\n", "global");
    for (name, zone) in &state.zones {
        let Some(id) = zone.id else { continue };
        let (.., resident, count) = used(zone);
        let megabytes = resident >> 20;
        let short: String = name.chars().take(28).collect();
        let _ = writeln!(rows, "{id:>6} {count:>8} {megabytes:>4}M {megabytes:>4}M   0.1%   0:00:00 0.0% {short:<28}");
    }
    format!(
        "{head}{rows}Total: 50 processes, 100 lwps, load averages: 0.00, 0.00, 0.00\n{head}{rows}Total: 50 processes, 100 lwps, load averages: 0.00, 0.00, 0.00\n"
    )
}
