//! Kernel statistics (kstat(8)): one run for all zones, links and the machine.

use reddwarf_command::{Invocation, Tool};
use std::collections::BTreeMap;

/// Asks for what figures of use are made of; [`parse`] reads the answer.
pub fn usage() -> Invocation {
    let patterns = [
        "zones:::",
        "memory_cap:::",
        "caps:::",
        "link:0::",
        "unix:0:system_pages:",
        "unix:0:system_misc:",
        "cpu::sys:",
    ];
    Invocation::read(Tool::Kstat, ["-p"].into_iter().chain(patterns).chain(CACHE))
}

/// Asks for the machine's own few figures.
pub fn machine() -> Invocation {
    Invocation::read(Tool::Kstat, ["-p", "unix:0:system_pages:", "unix:0:system_misc:"].into_iter().chain(CACHE))
}

/// What ZFS caches, and how little of that it keeps when others want memory.
const CACHE: [&str; 2] = ["zfs:0:arcstats:size", "zfs:0:arcstats:c_min"];

/// One kernel statistic's place: module, instance and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `zones`, `memory_cap`, `link`, ….
    pub module: String,
    /// The zone's or the processor's number.
    pub instance: u32,
    /// Cut to 30 characters by the kernel.
    pub name: String,
}

/// Statistics by place and name.
pub type Kstats = BTreeMap<Place, BTreeMap<String, String>>;

/// Reads `module:instance:name:statistic<TAB>value`. A name may itself hold colons; lines that make no sense are passed
/// over, as figures are no ground for any change.
pub fn parse(text: &str) -> Kstats {
    let mut all = Kstats::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('\t') else { continue };
        let Some((module, rest)) = key.split_once(':') else { continue };
        let Some((instance, rest)) = rest.split_once(':') else { continue };
        let Some((name, statistic)) = rest.rsplit_once(':') else { continue };
        let Ok(instance) = instance.parse() else { continue };
        let place = Place { module: module.to_owned(), instance, name: name.to_owned() };
        all.entry(place).or_default().insert(statistic.to_owned(), value.to_owned());
    }
    all
}

/// A zone's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneUsage {
    /// Nanoseconds of all processors, in programs and in the kernel, since its boot.
    pub cpu_nanos: u64,
    /// Resident memory in bytes; reserved swap where the system has no other exact figure.
    pub memory_bytes: u64,
    /// Processes.
    pub processes: u64,
}

fn number(of: &BTreeMap<String, String>, statistic: &str) -> Option<u64> {
    of.get(statistic)?.parse().ok()
}

/// What is known of one boot of a zone.
#[derive(Default)]
struct Boot {
    /// When it was.
    at: u64,
    figures: ZoneUsage,
    resident: Option<u64>,
}

/// Zones' figures by name. Kernel names are cut, the statistic `zonename` is not; and a zone that was booted again has another
/// number, while something may still hold the kernel's figures of the boot before: those of the last one count.
pub fn zones(all: &Kstats) -> BTreeMap<String, ZoneUsage> {
    let mut boots: BTreeMap<(&str, u32), Boot> = BTreeMap::new();
    for (place, of) in all {
        let Some(zone) = of.get("zonename") else { continue };
        let boot = boots.entry((zone, place.instance)).or_default();
        match place.module.as_str() {
            "zones" => {
                boot.at = number(of, "boot_time").unwrap_or_default();
                boot.figures.cpu_nanos =
                    number(of, "nsec_user").unwrap_or_default() + number(of, "nsec_sys").unwrap_or_default();
            }
            "memory_cap" => boot.resident = number(of, "rss"),
            "caps" if place.name.starts_with("swapresv_zone_") => {
                boot.figures.memory_bytes = number(of, "usage").unwrap_or_default();
            }
            "caps" if place.name.starts_with("nprocs_zone_") => {
                boot.figures.processes = number(of, "usage").unwrap_or_default();
            }
            _ => {}
        }
    }
    let mut found: BTreeMap<&str, ((u64, u32), ZoneUsage)> = BTreeMap::new();
    for ((zone, number), boot) in boots {
        let memory_bytes = boot.resident.unwrap_or(boot.figures.memory_bytes);
        let of = ((boot.at, number), ZoneUsage { memory_bytes, ..boot.figures });
        if found.get(zone).is_none_or(|(last, _)| *last < of.0) {
            found.insert(zone, of);
        }
    }
    found.into_iter().map(|(zone, (_, figures))| (zone.to_owned(), figures)).collect()
}

/// Bytes received and sent by links.
pub fn links(all: &Kstats) -> BTreeMap<String, (u64, u64)> {
    let of = |(place, of): (&Place, &BTreeMap<String, String>)| {
        (place.module == "link").then_some(())?;
        Some((place.name.clone(), (number(of, "rbytes64")?, number(of, "obytes64")?)))
    };
    all.iter().filter_map(of).collect()
}

/// The machine's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Pages of memory.
    pub pages: u64,
    /// Pages that nobody uses.
    pub free_pages: u64,
    /// Bytes of ZFS' cache that it gives up when others want them.
    pub cache_bytes: u64,
    /// Processors.
    pub cpus: u64,
    /// Processes.
    pub processes: u64,
    /// Seconds since 1970.
    pub boot_time: u64,
    /// Nanoseconds that processors worked.
    pub cpu_nanos: u64,
}

impl Machine {
    /// Bytes to be had without taking them from programs; with pages of so many bytes. ZFS' cache takes all memory that is
    /// free, and gives it back only when hardly any is left: it does not count as used.
    pub fn available_bytes(&self, page: u64) -> u64 {
        let free = self.free_pages.saturating_mul(page).saturating_add(self.cache_bytes);
        free.min(self.pages.saturating_mul(page))
    }
}

/// The machine, as far as it was asked for.
pub fn of_machine(all: &Kstats) -> Machine {
    let mut machine = Machine::default();
    for (place, of) in all {
        let get = |statistic| number(of, statistic).unwrap_or_default();
        match (place.module.as_str(), place.name.as_str()) {
            ("unix", "system_pages") => {
                machine.pages = get("physmem");
                machine.free_pages = get("freemem");
            }
            ("unix", "system_misc") => {
                machine.cpus = get("ncpus");
                machine.processes = get("nproc");
                machine.boot_time = get("boot_time");
            }
            ("zfs", "arcstats") => machine.cache_bytes = get("size").saturating_sub(get("c_min")),
            ("cpu", "sys") => machine.cpu_nanos += get("cpu_nsec_user") + get("cpu_nsec_kernel"),
            _ => {}
        }
    }
    machine
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "zones:7:default-web-with-a-very-long-n:nsec_user\t1500000000\n\
        zones:7:default-web-with-a-very-long-n:nsec_sys\t500000000\n\
        zones:7:default-web-with-a-very-long-n:zonename\tdefault-web-with-a-very-long-name-76zrocju4f\n\
        memory_cap:7:default-web-with-a-very-long-n:rss\t4096000\n\
        memory_cap:7:default-web-with-a-very-long-n:zonename\tdefault-web-with-a-very-long-name-76zrocju4f\n\
        caps:7:swapresv_zone_7:usage\t8192000\ncaps:7:swapresv_zone_7:zonename\tdefault-web-with-a-very-long-name-76zrocju4f\n\
        caps:7:nprocs_zone_7:usage\t12\ncaps:7:nprocs_zone_7:zonename\tdefault-web-with-a-very-long-name-76zrocju4f\n\
        link:0:rwabc0:rbytes64\t10\nlink:0:rwabc0:obytes64\t20\n\
        unix:0:system_pages:physmem\t1000\nunix:0:system_pages:freemem\t400\nunix:0:system_misc:ncpus\t2\n\
        zfs:0:arcstats:size\t300000\nzfs:0:arcstats:c_min\t100000\n\
        cpu:0:sys:cpu_nsec_user\t5\ncpu:1:sys:cpu_nsec_kernel\t6\n";

    #[test]
    fn figures_are_told_by_the_whole_name() {
        let all = parse(TEXT);
        let zones = zones(&all);
        let web = zones["default-web-with-a-very-long-name-76zrocju4f"];
        assert_eq!(web, ZoneUsage { cpu_nanos: 2_000_000_000, memory_bytes: 4_096_000, processes: 12 });
        assert_eq!(links(&all)["rwabc0"], (10, 20));
        let machine = of_machine(&all);
        assert_eq!((machine.pages, machine.free_pages, machine.cpus, machine.cpu_nanos), (1000, 400, 2, 11));
        assert_eq!(machine.available_bytes(4096), 400 * 4096 + 200_000, "ZFS' cache is to be had");
        let full = Machine { cache_bytes: u64::MAX, ..machine };
        assert_eq!(full.available_bytes(4096), 1000 * 4096);
    }

    #[test]
    fn illumos_gate_has_no_resident_size() {
        let text: String = TEXT.lines().filter(|l| !l.starts_with("memory_cap")).map(|l| format!("{l}\n")).collect();
        assert_eq!(zones(&parse(&text)).values().next().unwrap().memory_bytes, 8_192_000);
    }

    /// Zone numbers begin again from the lowest one day: the time of the boot tells.
    #[test]
    fn figures_are_those_of_the_zones_last_boot() {
        let boot = |number: u32, at: u32, nanos: u32, processes: u32| {
            format!(
                "zones:{number}:web:nsec_user\t{nanos}\nzones:{number}:web:boot_time\t{at}\nzones:{number}:web:zonename\tweb\n\
                 memory_cap:{number}:web:rss\t{nanos}\nmemory_cap:{number}:web:zonename\tweb\n\
                 caps:{number}:nprocs_zone_{number}:usage\t{processes}\ncaps:{number}:nprocs_zone_{number}:zonename\tweb\n"
            )
        };
        for (old, new) in [(7, 12), (9_998, 1)] {
            let text = boot(old, 1000, 5000, 0) + &boot(new, 2000, 10, 3);
            let wanted = ZoneUsage { cpu_nanos: 10, memory_bytes: 10, processes: 3 };
            assert_eq!(zones(&parse(&text)), BTreeMap::from([("web".to_owned(), wanted)]));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z0-9:\t\n]{0,80}") {
            let all = parse(&text);
            let _ = (zones(&all), links(&all), of_machine(&all));
        }
    }
}
