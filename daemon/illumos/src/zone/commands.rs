//! The runs of zoneadm(8) and zonecfg(8). Every zone name here was checked (`SandboxId`) or is one of our own templates.

use reddwarf_command::{Invocation, Tool};
use std::path::Path;
use std::time::Duration;

/// An installation copies or clones a root; from packages it takes long.
const INSTALL: Duration = Duration::from_secs(1800);
/// Clones take a moment, copies where there is no ZFS take long.
const CLONE: Duration = Duration::from_secs(600);
const BOOT: Duration = Duration::from_secs(180);
const HALT: Duration = Duration::from_secs(120);
const UNINSTALL: Duration = Duration::from_secs(600);

/// All zones of the host in one go; [`crate::zoneadm::list`] reads the answer.
pub(crate) fn list() -> Invocation {
    Invocation::read(Tool::Zoneadm, ["list", "-cp"])
}

fn zoneadm(zone: &str, words: &[&str]) -> Invocation {
    Invocation::change(Tool::Zoneadm, ["-z", zone].into_iter().chain(words.iter().copied()))
}

pub(crate) fn install(zone: &str, words: &[String]) -> Invocation {
    let words: Vec<&str> = ["install"].into_iter().chain(words.iter().map(String::as_str)).collect();
    zoneadm(zone, &words).within(INSTALL)
}

pub(crate) fn clone(zone: &str, from: &str) -> Invocation {
    zoneadm(zone, &["clone", from]).within(CLONE)
}

pub(crate) fn boot(zone: &str) -> Invocation {
    zoneadm(zone, &["boot"]).within(BOOT)
}

pub(crate) fn halt(zone: &str) -> Invocation {
    zoneadm(zone, &["halt"]).within(HALT)
}

/// Ends a virtual machine as if its power were cut. Its zone's first process is bhyve itself, and the zone goes down with it
/// unless that ended with 0.
pub(crate) fn turn_off(zone: &str) -> Invocation {
    Invocation::change(Tool::Pkill, ["-KILL", "-z", zone, "bhyve"])
}

pub(crate) fn unmount(zone: &str) -> Invocation {
    zoneadm(zone, &["unmount"]).within(HALT)
}

pub(crate) fn uninstall(zone: &str) -> Invocation {
    zoneadm(zone, &["uninstall", "-F"]).within(UNINSTALL)
}

/// Carries out a command file: stops at its first error, and commits what came before. The configuration is read back
/// afterwards, whatever it says.
pub(crate) fn configure(zone: &str, file: &Path) -> Invocation {
    Invocation::change(Tool::Zonecfg, ["-z", zone, "-f", &file.to_string_lossy()])
}

/// The configuration as it is; [`crate::zonecfg::export`] reads the answer.
pub(crate) fn export(zone: &str) -> Invocation {
    Invocation::read(Tool::Zonecfg, ["-z", zone, "export"])
}

pub(crate) fn delete(zone: &str) -> Invocation {
    Invocation::change(Tool::Zonecfg, ["-z", zone, "delete", "-F"])
}

fn prctl(zone: &str, control: &str, how: &[&str]) -> Invocation {
    let words = ["-n", control, "-t", "privileged"].into_iter().chain(how.iter().copied());
    Invocation::change(Tool::Prctl, words.chain(["-i", "zone", zone]))
}

/// Another value for a bound that a running zone has (prctl(1)). Without `-t` it might find the system's own value, which
/// nobody can change.
pub(crate) fn replace_rctl(zone: &str, control: &str, value: u64) -> Invocation {
    prctl(zone, control, &["-r", "-v", &value.to_string()])
}

/// A bound that a running zone has not had.
pub(crate) fn add_rctl(zone: &str, control: &str, value: u64) -> Invocation {
    prctl(zone, control, &["-s", "-v", &value.to_string(), "-e", "deny"])
}

/// Takes a bound from a running zone.
pub(crate) fn remove_rctl(zone: &str, control: &str) -> Invocation {
    prctl(zone, control, &["-x"])
}

/// The bound on resident memory that rcapd(8) keeps, where the kernel has none; 0: none.
pub(crate) fn cap_resident(zone: &str, bytes: u64) -> Invocation {
    Invocation::change(Tool::Rcapadm, ["-z", zone, "-m", &bytes.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Defects of the earlier reddwarf: `zoneadm -z X list -cp` is always a usage error, uninstall without -F waits for a
    /// terminal, scripts in argv or on standard input go on after errors.
    #[test]
    fn runs_are_those_that_the_tools_take() {
        let shown: Vec<String> = [
            list(),
            install("rw-a", &["-s".into(), "rpool/i@golden".into()]),
            clone("rw-a", "rw-golden"),
            boot("rw-a"),
            halt("rw-a"),
            turn_off("rw-a"),
            unmount("rw-a"),
            uninstall("rw-a"),
            configure("rw-a", Path::new("/s/zonecfg/rw-a")),
            export("rw-a"),
            delete("rw-a"),
            replace_rctl("rw-a", "zone.cpu-cap", 150),
            add_rctl("rw-a", "zone.max-lwps", 200),
            remove_rctl("rw-a", "zone.max-swap"),
            cap_resident("rw-a", 1 << 29),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        assert_eq!(
            shown,
            [
                "zoneadm list -cp",
                "zoneadm -z rw-a install -s rpool/i@golden",
                "zoneadm -z rw-a clone rw-golden",
                "zoneadm -z rw-a boot",
                "zoneadm -z rw-a halt",
                "pkill -KILL -z rw-a bhyve",
                "zoneadm -z rw-a unmount",
                "zoneadm -z rw-a uninstall -F",
                "zonecfg -z rw-a -f /s/zonecfg/rw-a",
                "zonecfg -z rw-a export",
                "zonecfg -z rw-a delete -F",
                "prctl -n zone.cpu-cap -t privileged -r -v 150 -i zone rw-a",
                "prctl -n zone.max-lwps -t privileged -s -v 200 -e deny -i zone rw-a",
                "prctl -n zone.max-swap -t privileged -x -i zone rw-a",
                "rcapadm -z rw-a -m 536870912",
            ]
        );
    }
}
