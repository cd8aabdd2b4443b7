//! What the boot of a bhyve zone wants of its attributes: disks that are there and given to it as devices, ISO images that it
//! sees, firmware, sizes.

use crate::state::{Config, State};

const FIRMWARE: &[&str] =
    &["BHYVE_RELEASE", "BHYVE_RELEASE_CSM", "BHYVE_DEBUG", "BHYVE_DEBUG_CSM", "BHYVE_CSM", "BHYVE"];
const SWITCHES: &[&str] = &["acpi", "memreserve", "rng", "uefivars", "xhci"];

/// Whether `name` is `kind` or `kind` with a number.
fn is(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Why the machine would not start.
pub(crate) fn check(state: &State, config: &Config) -> Result<(), String> {
    for attr in config.all("attr") {
        let (name, value) = (attr.get("name"), attr.get("value"));
        if attr.get("type") != "string" {
            return Err(format!("attribute {name} is not of type string"));
        }
        if name == "bootdisk" || is(name, "disk") {
            disk(state, config, value)?;
        } else if is(name, "cdrom") && !config.all("fs").any(|fs| fs.get("dir") == value) {
            return Err(format!("could not open {value}: No such file or directory"));
        } else if name == "bootrom" && !FIRMWARE.contains(&value) {
            return Err(format!("bootrom {value} not found."));
        } else if SWITCHES.contains(&name) && !["on", "off", "true", "false"].contains(&value) {
            return Err(format!("Invalid value {value} for boolean variable {name}"));
        } else if name == "vcpus" && value.parse::<u32>().is_err() {
            return Err(format!("invalid vcpus {value}"));
        } else if name == "ram" && !value.trim_end_matches(['K', 'M', 'G', 'T']).parse::<u64>().is_ok_and(|n| n > 0) {
            return Err(format!("Could not parse ram value \"{value}\""));
        }
    }
    Ok(())
}

fn disk(state: &State, config: &Config, volume: &str) -> Result<(), String> {
    let path = format!("/dev/zvol/rdsk/{volume}");
    if !config.all("device").any(|d| d.get("match") == path) {
        return Err(format!("could not open {path}: the zone has no such device"));
    }
    match state.datasets.get(volume) {
        Some(found) if found.kind == "volume" => Ok(()),
        _ => Err(format!("could not open {path}: No such file or directory")),
    }
}
