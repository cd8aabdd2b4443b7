//! Devices of containers: which ones a cgroup lets through, and all of the host's for privileged containers.

pub(crate) mod filter;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Mounts of a container's own below /dev; the host's are not looked into.
const OWN: [&str; 5] = ["pts", "shm", "mqueue", "hugepages", "fd"];

/// Deeper directories below /dev hold no devices worth a guard against loops.
const DEEPEST: usize = 6;

/// Kinds of device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Character,
}

/// What may be done with devices, as bits of the kernel's (`BPF_DEVCG_ACC_*`, linux/bpf.h).
mod access {
    pub(super) const MAKE_NODES: u32 = 1;
    pub(super) const ALL: u32 = 7;
}

/// A set of devices, and what may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    kind: Kind,
    /// `None`: any.
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Allowed {
    const fn character(major: u32, minor: u32) -> Self {
        Self { kind: Kind::Character, major: Some(major), minor: Some(minor), access: access::ALL }
    }

    /// Nodes of all devices may lie there; who opens one is asked again.
    const fn nodes_of(kind: Kind) -> Self {
        Self { kind, major: None, minor: None, access: access::MAKE_NODES }
    }

    /// In the words of OCI configs.
    fn oci(&self) -> Value {
        let kind = match self.kind {
            Kind::Block => "b",
            Kind::Character => "c",
        };
        let access = if self.access == access::ALL { "rwm" } else { "m" };
        let mut rule = json!({"allow": true, "type": kind, "access": access});
        for (name, number) in [("major", self.major), ("minor", self.minor)] {
            if let Some(number) = number {
                rule[name] = number.into();
            }
        }
        rule
    }
}

/// What containers without privileges may use: null, zero, full, random, urandom, terminals.
const ALLOWED: [Allowed; 11] = [
    Allowed::nodes_of(Kind::Character),
    Allowed::nodes_of(Kind::Block),
    Allowed::character(1, 3),
    Allowed::character(1, 5),
    Allowed::character(1, 7),
    Allowed::character(1, 8),
    Allowed::character(1, 9),
    Allowed::character(5, 0),
    Allowed::character(5, 1),
    Allowed::character(5, 2),
    Allowed { kind: Kind::Character, major: Some(136), minor: None, access: access::ALL },
];

/// Device rules for OCI runtimes; on cgroup v2 libcontainer leaves them to [`filter`].
pub(crate) fn rules(privileged: bool) -> Value {
    if privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let nothing_else = std::iter::once(json!({ "allow": false, "access": "rwm" }));
    Value::Array(nothing_else.chain(ALLOWED.iter().map(Allowed::oci)).collect())
}

/// All devices of the host, for `linux.devices`. What can't be read is not there.
pub(crate) fn of_host() -> Value {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    Value::Array(found)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Value>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            if depth < DEEPEST && !(depth == 0 && OWN.iter().any(|own| name == *own)) {
                collect(&path, depth + 1, found);
            }
            continue;
        }
        let letter = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => "c",
            (_, true) => "b",
            _ => continue,
        };
        // Made inside by whoever makes the terminal.
        if path == Path::new("/dev/console") || path == Path::new("/dev/ptmx") {
            continue;
        }
        let device = metadata.rdev();
        found.push(json!({
            "path": path, "type": letter, "major": libc::major(device), "minor": libc::minor(device),
            "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_as_oci_runtimes_read_them() {
        let rules = rules(false);
        assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(rules[1], json!({"allow": true, "type": "c", "access": "m"}));
        assert_eq!(rules[3], json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}));
        assert_eq!(rules[11], json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
        assert_eq!(rules.as_array().unwrap().len(), 12);
    }
}
