//! Devices of containers: which ones a cgroup lets through, and all of the host's for privileged containers.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Mounts of a container's own below /dev; the host's are not looked into.
const OWN: [&str; 5] = ["pts", "shm", "mqueue", "hugepages", "fd"];

/// Deeper directories below /dev hold no devices worth a guard against loops.
const DEEPEST: usize = 6;

/// Device cgroup rules: the standard devices and terminals only.
pub(crate) fn rules(privileged: bool) -> Value {
    if privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let allow =
        |major: u32, minor: u32| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "b", "access": "m" },
        allow(1, 3),
        allow(1, 5),
        allow(1, 7),
        allow(1, 8),
        allow(1, 9),
        allow(5, 0),
        allow(5, 1),
        allow(5, 2),
        { "allow": true, "type": "c", "major": 136, "access": "rwm" },
    ])
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
