//! A pod's volumes.

use super::{Facts, RefKind, lookup};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::VolumeName;
use reddwarf_host::spec::{FileContent, HostPathKind, VolumeSpec};
use reddwarf_objects::pod::{HostPath, KeyToPath, Volume};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The reason of a volume that can't be made (kubelet's event reason).
const FAILED_MOUNT: &str = "FailedMount";

/// All volumes, or everything that is wrong with them.
pub(super) fn volumes(intent: &PodIntent, facts: Facts<'_>) -> Result<BTreeMap<VolumeName, VolumeSpec>, Vec<Notice>> {
    let mut volumes = BTreeMap::new();
    let mut problems = Vec::new();
    for (i, volume) in intent.pod.spec.volumes.iter().enumerate() {
        let field = format!("spec.volumes[{i}]");
        let named = VolumeName::new(&volume.name).map_err(|e| Notice::new(FAILED_MOUNT, e.to_string()).at(&field));
        match named.and_then(|name| one(intent, facts, volume, &field).map(|spec| (name, spec))) {
            Ok((name, spec)) => {
                volumes.insert(name, spec);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(volumes) } else { Err(problems) }
}

fn one(intent: &PodIntent, facts: Facts<'_>, volume: &Volume, field: &str) -> Result<VolumeSpec, Notice> {
    if let Some(dir) = &volume.empty_dir {
        let size = dir.size_limit.as_ref().map(|q| u64::try_from(q.units()).unwrap_or(0)).filter(|s| *s > 0);
        return Ok(VolumeSpec::EmptyDir { memory: dir.medium == "Memory", size_limit_bytes: size });
    }
    if let Some(map) = &volume.config_map {
        let field = format!("{field}.configMap");
        let wanted = Wanted { name: &map.name, items: &map.items, mode: map.default_mode, optional: map.optional };
        return files(intent, facts, RefKind::ConfigMap, wanted, &field);
    }
    if let Some(secret) = &volume.secret {
        let field = format!("{field}.secret");
        let wanted = Wanted {
            name: &secret.secret_name,
            items: &secret.items,
            mode: secret.default_mode,
            optional: secret.optional,
        };
        return files(intent, facts, RefKind::Secret, wanted, &field);
    }
    if let Some(path) = &volume.host_path {
        return host_path(facts, path, &format!("{field}.hostPath"));
    }
    let message = format!("volume {:?}: this version has emptyDir, configMap, secret and hostPath only", volume.name);
    Err(Notice::new(FAILED_MOUNT, message).at(field))
}

/// What a configMap or secret volume asks for.
struct Wanted<'a> {
    name: &'a str,
    items: &'a [KeyToPath],
    mode: u32,
    optional: bool,
}

fn files(
    intent: &PodIntent,
    facts: Facts<'_>,
    kind: RefKind,
    wanted: Wanted<'_>,
    field: &str,
) -> Result<VolumeSpec, Notice> {
    let secret = kind == RefKind::Secret;
    let Some(data) = lookup(intent, kind, facts.config, wanted.name) else {
        if wanted.optional {
            return Ok(VolumeSpec::Files { files: BTreeMap::new(), secret });
        }
        let message = format!("{} {:?} not found in namespace {}", kind.word(), wanted.name, intent.key.namespace);
        return Err(Notice::new(FAILED_MOUNT, message).at(field));
    };
    let mut files = BTreeMap::new();
    if wanted.items.is_empty() {
        for (key, bytes) in data.iter() {
            files.insert(key.clone(), FileContent { bytes: bytes.clone(), mode: wanted.mode });
        }
    }
    for (i, item) in wanted.items.iter().enumerate() {
        let field = format!("{field}.items[{i}]");
        if !is_plain_relative(&item.path) {
            let message = format!("{:?} must be a relative path without '..'", item.path);
            return Err(Notice::new(FAILED_MOUNT, message).at(format!("{field}.path")));
        }
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = item.mode.unwrap_or(wanted.mode);
                files.insert(item.path.clone(), FileContent { bytes: bytes.clone(), mode });
            }
            None if wanted.optional => {}
            None => {
                let message = format!("{} {:?} has no key {:?}", kind.word(), wanted.name, item.key);
                return Err(Notice::new(FAILED_MOUNT, message).at(format!("{field}.key")));
            }
        }
    }
    Ok(VolumeSpec::Files { files, secret })
}

/// Relative, at least one part, only plain parts.
pub(super) fn is_plain_relative(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Never given to a pod, allow-list or not: what these hold rules the host.
const NEVER: [&str; 4] = ["/proc", "/sys", "/dev", "/"];

fn host_path(facts: Facts<'_>, path: &HostPath, field: &str) -> Result<VolumeSpec, Notice> {
    let refuse = |message: String| Err(Notice::new("HostPathForbidden", message).at(format!("{field}.path")));
    let asked = PathBuf::from(&path.path);
    let plain = asked.is_absolute()
        && asked.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir))
        && !path.path.contains('\0');
    if !plain {
        return refuse(format!("{:?} must be absolute and without '..'", path.path));
    }
    let forbidden = NEVER.iter().any(|n| *n != "/" && asked.starts_with(n)) || asked == Path::new("/");
    if forbidden {
        return refuse(format!("{:?} is never given to a pod", path.path));
    }
    if !facts.settings.host_path_allow.iter().any(|allowed| asked.starts_with(allowed)) {
        let message = format!("{:?} is not below a path of host_path_allow in reddwarfd.toml", path.path);
        return refuse(message);
    }
    let kind = match path.kind.as_str() {
        "" => HostPathKind::Any,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "Directory" => HostPathKind::Directory,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "File" => HostPathKind::File,
        "Socket" => HostPathKind::Socket,
        "CharDevice" => HostPathKind::CharDevice,
        "BlockDevice" => HostPathKind::BlockDevice,
        other => {
            return Err(Notice::new(FAILED_MOUNT, format!("{other:?} is no hostPath type")).at(format!("{field}.type")));
        }
    };
    Ok(VolumeSpec::HostPath { path: asked, kind })
}
