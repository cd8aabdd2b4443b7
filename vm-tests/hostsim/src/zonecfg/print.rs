//! export and info.

use super::session::{Session, word};
use super::table::{self, ALIASES, CAPPED};
use crate::state::{Config, Resource};
use reddwarf_illumos::zonecfg::Argument;
use std::fmt::Write;

/// Global properties in the order of export.
const GLOBALS: &[&str] = &[
    "zonepath",
    "brand",
    "autoboot",
    "bootargs",
    "pool",
    "limitpriv",
    "scheduling-class",
    "ip-type",
    "hostid",
    "fs-allowed",
];

/// Kinds of resources in the order of export.
const KINDS: &[&str] =
    &["fs", "net", "device", "capped-memory", "rctl", "attr", "dataset", "dedicated-cpu", "admin", "security-flags"];

/// Members in the order of export.
const MEMBERS: &[&str] = &[
    "dir",
    "special",
    "raw",
    "address",
    "allowed-address",
    "defrouter",
    "global-nic",
    "mac-addr",
    "physical",
    "vlan-id",
    "match",
    "name",
    "type",
    "value",
    "ncpus",
    "importance",
    "physical",
    "swap",
    "locked",
    "user",
    "auths",
    "default",
    "lower",
    "upper",
];

impl Session<'_> {
    pub(super) fn export(&mut self, arguments: &[Argument]) {
        let text = self.config.as_ref().map(export).unwrap_or_default();
        let words: Vec<_> = arguments.iter().filter_map(word).collect();
        match words[..] {
            [] => self.out += &text,
            ["-f", path] => {
                if let Err(error) = crate::call::replace(std::path::Path::new(path), text.as_bytes()) {
                    self.error(&format!("unable to open file {path}: {error}"));
                }
            }
            _ => self.error("usage: export [-f output-file]"),
        }
    }

    pub(super) fn info(&mut self, arguments: &[Argument]) {
        let only = arguments.first().and_then(word);
        let Some(config) = &self.config else { return };
        let mut out = String::new();
        for name in std::iter::once(&"zonename").chain(GLOBALS) {
            if only.is_none_or(|o| o == *name) && *name != "zonename" {
                let _ = writeln!(out, "{name}: {}", shown(config.global(name)));
            }
        }
        for (alias, control, ..) in ALIASES {
            let found = config.all("rctl").find(|r| r.get("name") == *control);
            if let Some(limit) = found.and_then(|r| table::rctl_limit(r.list("value").first()?))
                && only.is_none_or(|o| o == *alias)
            {
                let _ = writeln!(out, "[{alias}: {limit}]");
            }
        }
        for kind in KINDS.iter().filter(|k| only.is_none_or(|o| o == **k)) {
            for resource in config.all(kind) {
                info_resource(&mut out, resource);
            }
        }
        self.out += &out;
    }
}

fn info_resource(out: &mut String, resource: &Resource) {
    let _ = writeln!(out, "{}:", resource.kind);
    let Some(kind) = table::resource(&resource.kind) else { return };
    for name in kind.required.iter().chain(kind.optional) {
        let _ = match resource.get(name) {
            "" => writeln!(out, "\t{name} not specified"),
            value => writeln!(out, "\t{name}: {}", shown(value)),
        };
    }
    for name in kind.lists {
        let values = resource.list(name);
        let _ = match resource.kind.as_str() {
            "rctl" => values.iter().try_for_each(|v| writeln!(out, "\t{name}: {v}")),
            _ => writeln!(out, "\t{name}: [{}]", values.join(",")),
        };
    }
}

/// With a blank in it, between quotes.
fn shown(value: &str) -> String {
    if value.contains([' ', '\t']) { format!("\"{value}\"") } else { value.to_owned() }
}

/// Words that are more than letters and digits stand between quotes.
fn quoted(value: &str) -> String {
    if value.bytes().all(|b| b.is_ascii_alphanumeric()) { value.to_owned() } else { format!("\"{value}\"") }
}

/// What makes this configuration again.
pub(super) fn export(config: &Config) -> String {
    let mut out = String::from("create -b\n");
    let others = config.globals.keys().map(String::as_str).filter(|name| !GLOBALS.contains(name));
    for name in GLOBALS.iter().copied().chain(others) {
        match config.global(name) {
            "" => {}
            value => {
                let _ = writeln!(out, "set {name}={}", quoted(value));
            }
        }
    }
    for kind in KINDS {
        for resource in config.all(kind) {
            resource_text(&mut out, resource);
        }
    }
    out
}

fn resource_text(out: &mut String, resource: &Resource) {
    let _ = writeln!(out, "add {}", resource.kind);
    let mut done: Vec<&str> = Vec::new();
    for name in MEMBERS {
        let value = resource.get(name);
        if !value.is_empty() && !done.contains(name) {
            done.push(name);
            let _ = writeln!(out, "set {name}={}", quoted(value));
        }
    }
    for (name, values) in &resource.lists {
        for value in values {
            let _ = match resource.kind.as_str() {
                "fs" => writeln!(out, "add {name} {}", quoted(value)),
                _ => writeln!(out, "add {name} {value}"),
            };
        }
    }
    let _ = writeln!(out, "end");
    debug_assert!(CAPPED.len() == 4, "capped members are kept as controls");
}
