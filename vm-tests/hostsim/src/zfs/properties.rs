//! Which properties there are, what they may be, where their values come from.

use super::tree;
use crate::state::{Dataset, State};

/// Properties that children take over, with their defaults.
const INHERITED: &[(&str, &str)] = &[
    ("aclinherit", "restricted"),
    ("aclmode", "discard"),
    ("atime", "on"),
    ("checksum", "on"),
    ("compression", "off"),
    ("copies", "1"),
    ("devices", "on"),
    ("exec", "on"),
    ("logbias", "latency"),
    ("mountpoint", ""),
    ("nbmand", "off"),
    ("primarycache", "all"),
    ("readonly", "off"),
    ("recordsize", "131072"),
    ("secondarycache", "all"),
    ("setuid", "on"),
    ("sharenfs", "off"),
    ("snapdir", "hidden"),
    ("sync", "standard"),
    ("xattr", "on"),
    ("zoned", "off"),
];

/// Properties of a dataset alone, with their defaults.
const OWN: &[(&str, &str)] = &[
    ("canmount", "on"),
    ("quota", "0"),
    ("refquota", "0"),
    ("reservation", "0"),
    ("refreservation", "0"),
    ("volsize", "-"),
];

/// What can only be asked for.
const READ_ONLY: &[&str] = &[
    "available",
    "compressratio",
    "creation",
    "defer_destroy",
    "guid",
    "keystatus",
    "logicalused",
    "mounted",
    "name",
    "origin",
    "referenced",
    "type",
    "used",
    "usedbychildren",
    "usedbydataset",
    "usedbysnapshots",
    "userrefs",
    "written",
];

/// Short names of columns.
pub(super) fn full_name(name: &str) -> &str {
    match name {
        "avail" => "available",
        "refer" => "referenced",
        "compress" => "compression",
        "reserv" => "reservation",
        "refreserv" => "refreservation",
        "recsize" => "recordsize",
        "rdonly" => "readonly",
        other => other,
    }
}

/// A user property: `module:name`, lower case.
fn is_user(name: &str) -> bool {
    name.contains(':')
        && name.len() <= 256
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":+._-".contains(&b))
}

fn is_settable(name: &str) -> bool {
    is_user(name) || INHERITED.iter().chain(OWN).any(|(n, _)| *n == name)
}

/// All names that `get all` shows.
pub(super) fn all(dataset: &Dataset) -> Vec<String> {
    let known = READ_ONLY.iter().filter(|n| **n != "name").copied();
    let known = known.chain(INHERITED.iter().chain(OWN).map(|(n, _)| *n));
    known.map(ToOwned::to_owned).chain(dataset.local.keys().filter(|n| is_user(n)).cloned()).collect()
}

/// Whether a property may be asked for.
pub(super) fn is_known(name: &str) -> bool {
    is_settable(name) || READ_ONLY.contains(&name)
}

/// Checks `name=value` for a dataset that is made or changed.
pub(super) fn check(pair: &str) -> Result<(String, String), String> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(format!("missing '=' for property=value argument: {pair}"));
    };
    let name = full_name(name);
    let bad = |what: &str| Err(format!("bad property list: {what}"));
    if READ_ONLY.contains(&name) {
        return bad(&format!("'{name}' is readonly"));
    }
    if !is_settable(name) {
        return bad(&format!("invalid property '{name}'"));
    }
    if is_user(name) {
        return if value.len() <= 8191 { Ok((name.into(), value.into())) } else { bad("property value too long") };
    }
    let on_off = ["atime", "devices", "exec", "nbmand", "readonly", "setuid", "zoned"];
    if on_off.contains(&name) && !matches!(value, "on" | "off") {
        return bad(&format!("'{name}' must be one of 'on | off'"));
    }
    if name == "canmount" && !matches!(value, "on" | "off" | "noauto") {
        return bad("'canmount' must be one of 'on | off | noauto'");
    }
    if matches!(name, "quota" | "refquota" | "reservation" | "refreservation" | "volsize" | "recordsize") {
        let Some(bytes) = bytes(value) else { return bad(&format!("bad numeric value '{value}'")) };
        if name == "recordsize" && !(bytes.is_power_of_two() && (512..=1 << 20).contains(&bytes)) {
            return bad("'recordsize' must be power of 2 from 512B to 1M");
        }
        return Ok((name.into(), bytes.to_string()));
    }
    if name == "mountpoint" && !(matches!(value, "none" | "legacy") || value.starts_with('/')) {
        return bad("'mountpoint' must be an absolute path, 'none', or 'legacy'");
    }
    Ok((name.into(), value.into()))
}

/// Nothing of the machine that plays is touched.
pub(super) fn is_ours(state: &State, mountpoint: &str) -> Result<(), String> {
    if mountpoint.starts_with('/') && !std::path::Path::new(mountpoint).starts_with(&state.home) {
        return Err(format!("hostsim: mountpoint {mountpoint} is not below {}", state.home.display()));
    }
    Ok(())
}

/// A number with a suffix or without, or `none`.
fn bytes(text: &str) -> Option<u64> {
    if text == "none" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b');
    let shift = match number.bytes().last()? {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => return number.parse().ok(),
    };
    number.get(..number.len() - 1)?.parse::<u64>().ok()?.checked_shl(shift)
}

/// Changes a property of a dataset that is there.
pub(super) fn set(state: &mut State, name: &str, pair: &str) -> Result<(), String> {
    let (property, value) = check(pair).map_err(|what| format!("cannot set property for '{name}': {what}"))?;
    if matches!(property.as_str(), "quota" | "refquota") {
        let bound: u64 = value.parse().unwrap_or(0);
        if bound != 0 && bound < tree::used(state, name) {
            return Err(format!("cannot set property for '{name}': size is less than current used or reserved space"));
        }
    }
    if property == "mountpoint" || property == "canmount" {
        is_ours(state, &value)?;
        return tree::move_to(state, name, &property, Some(value));
    }
    if let Some(dataset) = state.datasets.get_mut(name) {
        dataset.local.insert(property, value);
    }
    Ok(())
}

/// Takes a property's own value away.
pub(super) fn inherit(state: &mut State, name: &str, property: &str) -> Result<(), String> {
    let property = full_name(property);
    if !is_settable(property) || OWN.iter().any(|(n, _)| *n == property) {
        return Err(format!("'{property}' property cannot be inherited"));
    }
    if property == "mountpoint" {
        return tree::move_to(state, name, property, None);
    }
    if let Some(dataset) = state.datasets.get_mut(name) {
        dataset.local.remove(property);
    }
    Ok(())
}

fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('@').or_else(|| name.rsplit_once('/')).map(|(parent, _)| parent)
}

/// A value that is set on a dataset or above it, and by which.
fn stored<'s>(state: &'s State, name: &'s str, property: &str) -> Option<(&'s str, &'s str)> {
    let mut at = Some(name);
    while let Some(dataset) = at {
        if let Some(value) = state.datasets.get(dataset).and_then(|d| d.local.get(property)) {
            return Some((value, dataset));
        }
        at = parent(dataset);
    }
    None
}

/// Where a file system is mounted, or would be.
pub(crate) fn mountpoint(state: &State, name: &str) -> Option<String> {
    let (value, owner) = stored(state, name, "mountpoint")?;
    match value {
        "none" | "legacy" => None,
        path => Some(format!("{path}{}", name.strip_prefix(owner)?)),
    }
}

/// Where a property of a dataset comes from, as `zfs get` says it.
pub(crate) fn source_of(state: &State, name: &str, property: &str) -> String {
    get(state, name, property).1
}

/// A property's value and source as `zfs get` prints them.
pub(super) fn get(state: &State, name: &str, property: &str) -> (String, String) {
    let dash = || "-".to_owned();
    let Some(dataset) = state.datasets.get(name) else { return (dash(), dash()) };
    let is_snapshot = dataset.kind == "snapshot";
    let number = |n: u64| (n.to_string(), dash());
    match property {
        "name" => return (name.to_owned(), dash()),
        "type" => return (dataset.kind.clone(), dash()),
        "origin" if dataset.origin.is_empty() => return (dash(), dash()),
        "origin" => return (dataset.origin.clone(), dash()),
        "used" | "usedbydataset" | "logicalused" | "written" => return number(tree::used(state, name)),
        "referenced" => return number(tree::referenced(state, name)),
        "available" if is_snapshot => return (dash(), dash()),
        "available" => return number(tree::available(state, name)),
        "creation" => return number(1_700_000_000 + dataset.created),
        // One that was received is the same as where it was sent.
        "guid" if dataset.guid != 0 => return number(dataset.guid),
        "guid" => return number(0x5a1e_0000_0000 + dataset.created),
        "mounted" if dataset.kind != "filesystem" => return (dash(), dash()),
        "mounted" => return (if dataset.mounted { "yes" } else { "no" }.into(), dash()),
        "userrefs" if is_snapshot => return number(dataset.holds.len() as u64),
        "defer_destroy" if is_snapshot => return ("off".into(), dash()),
        "compressratio" => return ("1.00".into(), dash()),
        "keystatus" | "userrefs" | "defer_destroy" => return (dash(), dash()),
        "usedbysnapshots" | "usedbychildren" => return number(0),
        _ => {}
    }
    if let Some((_, default)) = OWN.iter().find(|(n, _)| *n == property) {
        return match dataset.local.get(property) {
            Some(value) => (value.clone(), "local".into()),
            None if is_snapshot => (dash(), dash()),
            None => ((*default).to_owned(), "default".into()),
        };
    }
    if property == "mountpoint" {
        let Some((raw, owner)) = stored(state, name, property).filter(|_| dataset.kind == "filesystem") else {
            return (dash(), dash());
        };
        let value = mountpoint(state, name).unwrap_or_else(|| raw.to_owned());
        return (value, source(name, owner));
    }
    match stored(state, name, property) {
        Some((value, owner)) => (value.to_owned(), source(name, owner)),
        None => match INHERITED.iter().find(|(n, _)| *n == property) {
            Some((_, default)) => ((*default).to_owned(), "default".into()),
            None => (dash(), dash()),
        },
    }
}

fn source(name: &str, owner: &str) -> String {
    if name == owner { "local".into() } else { format!("inherited from {owner}") }
}
