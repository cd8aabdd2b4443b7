//! Which properties and resources there are, and what their values may be.

use crate::system::{RCTLS, System, is_link_name};
use ipnet::IpNet;
use std::net::IpAddr;

/// Bounds that have a short name: the property, the resource control, the least value, what happens at it.
pub(super) const ALIASES: &[(&str, &str, u64, &str)] = &[
    ("cpu-shares", "zone.cpu-shares", 1, "none"),
    ("max-lwps", "zone.max-lwps", 100, "deny"),
    ("max-processes", "zone.max-processes", 100, "deny"),
    ("max-shm-memory", "zone.max-shm-memory", 0, "deny"),
    ("max-shm-ids", "zone.max-shm-ids", 0, "deny"),
    ("max-msg-ids", "zone.max-msg-ids", 0, "deny"),
    ("max-sem-ids", "zone.max-sem-ids", 0, "deny"),
];

/// Members of resources that stand for resource controls: resource, member, control.
pub(super) const CAPPED: &[(&str, &str, &str)] = &[
    ("capped-cpu", "ncpus", "zone.cpu-cap"),
    ("capped-memory", "physical", "zone.max-physical-memory"),
    ("capped-memory", "swap", "zone.max-swap"),
    ("capped-memory", "locked", "zone.max-locked-memory"),
];

/// One kind of resource.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What has to be set.
    pub(super) required: &'static [&'static str],
    /// What may be set besides.
    pub(super) optional: &'static [&'static str],
    /// Members with several values.
    pub(super) lists: &'static [&'static str],
    /// The member of which no two resources may have the same value.
    pub(super) key: Option<&'static str>,
    /// There is one at most, and `select` needs no words.
    pub(super) single: bool,
}

const fn kind(name: &'static str, required: &'static [&'static str], optional: &'static [&'static str]) -> Kind {
    Kind { name, required, optional, lists: &[], key: None, single: false }
}

static KINDS: &[Kind] = &[
    Kind { lists: &["options"], key: Some("dir"), ..kind("fs", &["dir", "special", "type"], &["raw"]) },
    Kind {
        lists: &["property"],
        ..kind("net", &["physical"], &["address", "allowed-address", "defrouter", "mac-addr", "vlan-id", "global-nic"])
    },
    Kind { lists: &["property"], key: Some("match"), ..kind("device", &["match"], &[]) },
    Kind { key: Some("name"), ..kind("dataset", &["name"], &[]) },
    Kind { key: Some("name"), ..kind("attr", &["name", "type", "value"], &[]) },
    Kind { lists: &["value"], key: Some("name"), ..kind("rctl", &["name"], &[]) },
    Kind { single: true, ..kind("capped-cpu", &["ncpus"], &[]) },
    Kind { single: true, ..kind("dedicated-cpu", &["ncpus"], &["importance"]) },
    Kind { single: true, ..kind("capped-memory", &[], &["physical", "swap", "locked"]) },
    Kind { key: Some("user"), ..kind("admin", &["user", "auths"], &[]) },
    Kind { single: true, ..kind("security-flags", &[], &["default", "lower", "upper"]) },
];

/// A kind of resource by name.
pub(super) fn resource(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.name == name)
}

/// Whether this system knows a member: some are not in illumos-gate.
pub(super) fn has_member(system: System, kind: &Kind, member: &str) -> bool {
    let known = [kind.required, kind.optional, kind.lists].iter().any(|l| l.contains(&member));
    let newer = matches!(
        (kind.name, member),
        ("net", "mac-addr" | "vlan-id" | "global-nic" | "property") | ("device", "property")
    );
    known && !(newer && system.is_gate())
}

/// Global properties that are no resource controls.
pub(super) fn has_global(system: System, name: &str) -> bool {
    match name {
        "zonename" | "zonepath" | "brand" | "autoboot" | "bootargs" | "pool" | "limitpriv" | "scheduling-class"
        | "ip-type" | "hostid" | "fs-allowed" => true,
        "zfs-io-priority" => !system.is_gate(),
        "uuid" => system == System::Smartos,
        _ => false,
    }
}

type Checked = Result<(), String>;

fn must(condition: bool, message: impl Into<String>) -> Checked {
    if condition { Ok(()) } else { Err(message.into()) }
}

/// What a global property may be.
pub(super) fn global(name: &str, value: &str) -> Checked {
    match name {
        "zonepath" => {
            must(value.starts_with('/'), format!("{value} is not an absolute path."))?;
            must(value != "/" && value.len() < 1024, "zonepath: Invalid argument")
        }
        "autoboot" => must(matches!(value, "true" | "false"), format!("{name} value must be true or false.")),
        "ip-type" => {
            must(matches!(value, "shared" | "exclusive"), format!("{name} value must be exclusive or shared."))
        }
        "hostid" => {
            let fine =
                (1..=8).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit()) && value != "ffffffff";
            must(fine, format!("hostid {value} is not valid."))
        }
        "fs-allowed" => {
            let fine = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            must(value.split(',').all(fine), format!("{value}: invalid fs-allowed property"))
        }
        "zfs-io-priority" => {
            must(value.parse::<u64>().is_ok_and(|n| n >= 1), format!("{name} value must be at least 1"))
        }
        _ => Ok(()),
    }
}

/// What a member may be.
pub(super) fn member(kind: &str, name: &str, value: &str) -> Checked {
    match (kind, name) {
        ("net", "physical") => must(is_link_name(value), format!("{value}: invalid physical interface name")),
        ("net", "allowed-address" | "address") => address(value),
        ("net", "defrouter") => must(value.parse::<IpAddr>().is_ok(), format!("{value}: Invalid IP address")),
        ("net", "vlan-id") => must(value.parse::<u16>().is_ok_and(|n| (1..=4094).contains(&n)), "invalid vlan-id"),
        ("fs", "dir" | "special") if name == "dir" => {
            must(value.starts_with('/'), format!("{value} is not an absolute path."))
        }
        ("attr", "name") => {
            let first = value.starts_with(|c: char| c.is_ascii_alphanumeric());
            let rest = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
            must(first && rest && !value.starts_with("zone"), format!("Invalid attribute name {value}"))
        }
        ("attr", "type") => {
            must(matches!(value, "string" | "boolean" | "int" | "uint"), format!("{value}: unknown attr type"))
        }
        ("capped-cpu", "ncpus") => {
            let number = value.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.01);
            must(number.is_some(), "capped-cpu: ncpus value must be at least 0.01")
        }
        ("capped-memory", _) => {
            let bytes = size(value).ok_or_else(|| {
                format!("A non-negative number with a required scale suffix (K, M, G or T) was expected for {name}")
            })?;
            must(name != "swap" || bytes >= 50 << 20, "swap: value must be at least 50M")
        }
        ("security-flags", _) => {
            let known = ["default", "none", "all", "aslr", "forbidnullmap", "noexecstack"];
            let fine = |f: &str| known.contains(&f.trim_start_matches(['!', '-']));
            must(value.split(',').all(fine), format!("{value}: invalid security-flags"))
        }
        _ => Ok(()),
    }
}

/// An IPv6 address needs its prefix.
fn address(value: &str) -> Checked {
    let fine = value.parse::<IpNet>().is_ok() || value.parse::<std::net::Ipv4Addr>().is_ok();
    must(fine, format!("{value}: Invalid IP address (an IPv6 address needs a prefix length)"))
}

/// Bytes, with a suffix or bare.
pub(super) fn size(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()?.to_ascii_lowercase() {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => return text.parse().ok(),
    };
    let number = text.get(..text.len() - 1)?.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "sizes of memory"
    )]
    Some((number * (1_u64 << shift) as f64) as u64)
}

/// The value of a resource control, as it is kept.
pub(super) fn rctl_value(members: &[(String, String)]) -> Result<String, String> {
    let get = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let (Some(privilege), Some(limit), Some(action)) = (get("priv"), get("limit"), get("action")) else {
        return Err("rctl value needs priv, limit and action".into());
    };
    must(members.len() == 3, "rctl value: unknown member")?;
    must(matches!(privilege, "basic" | "privileged" | "system"), format!("{privilege}: invalid priv"))?;
    must(limit.parse::<u64>().is_ok(), format!("{limit}: invalid limit"))?;
    must(matches!(action, "none" | "deny") || action.starts_with("signal="), format!("{action}: invalid action"))?;
    Ok(format!("(priv={privilege},limit={limit},action={action})"))
}

/// The bound in a kept value of a resource control.
pub(super) fn rctl_limit(value: &str) -> Option<u64> {
    value.split_once("limit=")?.1.split(',').next()?.parse().ok()
}

/// Resource controls that the kernel would not know at boot.
pub(crate) fn is_known_rctl(name: &str) -> bool {
    RCTLS.contains(&name)
}
