//! A pod's volumes.

use super::{Facts, Identity, account, files};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::VolumeName;
use reddwarf_host::spec::{HostPathKind, SandboxSpec, VolumeSpec};
use reddwarf_objects::pod::{EmptyDir, HostPath, PodSpec, Volume};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The reason of a volume that can't be made (kubelet's event reason).
const FAILED_MOUNT: &str = "FailedMount";

/// Why a volume can't be made: as the reference says it, and where in the volume.
pub(super) struct Problem {
    pub(super) message: String,
    /// Below the volume: `configMap.items[0].key`; may be empty.
    pub(super) field: String,
}

impl Problem {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), field: field.into() }
    }
}

/// All volumes, or everything that is wrong with them. `running` is the spec of the sandbox that the pod has now.
pub(super) fn volumes(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
    running: Option<&SandboxSpec>,
) -> Result<BTreeMap<VolumeName, VolumeSpec>, Vec<Notice>> {
    let mut volumes = BTreeMap::new();
    let mut problems = Vec::new();
    for (i, volume) in intent.pod.spec.volumes.iter().enumerate() {
        let field = format!("spec.volumes[{i}]");
        let name = match VolumeName::new(&volume.name) {
            Ok(name) => name,
            Err(e) => {
                problems.push(Notice::new(FAILED_MOUNT, e.to_string()).at(&field));
                continue;
            }
        };
        let now = running.and_then(|r| r.volumes.get(&name));
        match one(intent, identity, facts, volume, now) {
            Ok(spec) => drop(volumes.insert(name, spec)),
            // As in the reference, a volume that no container mounts is not made.
            Err(_) if !is_mounted(&intent.pod.spec, &volume.name) => volumes.extend(now.map(|now| (name, now.clone()))),
            Err(problem) => problems.push(failed(&volume.name, &field, &problem)),
        }
    }
    if let Some((name, projected)) = account::given(intent, identity, facts) {
        let now = running.and_then(|r| r.volumes.get(&name));
        match files::projected(intent, identity, facts, &projected, now) {
            Ok(spec) => drop(volumes.insert(name, spec)),
            Err(problem) => problems.push(failed(name.as_str(), "spec.serviceAccountName", &problem)),
        }
    }
    if problems.is_empty() { Ok(volumes) } else { Err(problems) }
}

fn failed(volume: &str, field: &str, problem: &Problem) -> Notice {
    let at = if problem.field.is_empty() { field.to_owned() } else { format!("{field}.{}", problem.field) };
    let message = format!("MountVolume.SetUp failed for volume {volume:?} : {}", problem.message);
    Notice::new(FAILED_MOUNT, message).at(at)
}

fn is_mounted(spec: &PodSpec, name: &str) -> bool {
    let ephemeral = spec.ephemeral_containers.iter().map(|c| &c.container);
    let mut all = spec.init_containers.iter().chain(&spec.containers).chain(ephemeral);
    all.any(|container| container.volume_mounts.iter().any(|m| m.name == name))
}

fn one(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
    volume: &Volume,
    now: Option<&VolumeSpec>,
) -> Result<VolumeSpec, Problem> {
    if let Some(dir) = &volume.empty_dir {
        return empty_dir(&intent.pod.spec, facts, dir, now);
    }
    if let Some(map) = &volume.config_map {
        return files::config_map(intent, facts, map);
    }
    if let Some(secret) = &volume.secret {
        return files::secret(intent, facts, secret);
    }
    if let Some(downward) = &volume.downward_api {
        return files::downward(intent, identity, facts, downward, now);
    }
    if let Some(projected) = &volume.projected {
        return files::projected(intent, identity, facts, projected, now);
    }
    if let Some(path) = &volume.host_path {
        return host_path(facts, path);
    }
    let message = "this version mounts emptyDir, configMap, secret, downwardAPI, projected and hostPath only";
    Err(Problem::new("", message))
}

/// On memory without a limit of its own it has the pod's memory, at most what the host has for pods.
fn empty_dir(
    spec: &PodSpec,
    facts: Facts<'_>,
    dir: &EmptyDir,
    now: Option<&VolumeSpec>,
) -> Result<VolumeSpec, Problem> {
    let asked = dir.size_limit.as_ref().and_then(|q| u64::try_from(q.units()).ok()).filter(|s| *s > 0);
    match dir.medium.as_str() {
        "" => Ok(VolumeSpec::EmptyDir { memory: false, size_limit_bytes: asked }),
        "Memory" => {
            let of_pod = super::resources::pod(spec).memory_limit_bytes;
            let of_host = Some(facts.host.memory_bytes).filter(|bytes| *bytes > 0);
            let limit = match (asked, now) {
                // What follows from the host stays as it was made.
                (None, Some(VolumeSpec::EmptyDir { memory: true, size_limit_bytes })) => *size_limit_bytes,
                _ => [asked, of_pod, of_host].into_iter().flatten().min(),
            };
            Ok(VolumeSpec::EmptyDir { memory: true, size_limit_bytes: limit })
        }
        other => Err(Problem::new("emptyDir.medium", format!("{other:?}: this version has disk and Memory only"))),
    }
}

/// Relative, at least one part, only plain parts.
pub(super) fn is_plain_relative(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Never given to a pod, allow-list or not: what these hold rules the host.
const NEVER: [&str; 3] = ["/proc", "/sys", "/dev"];

fn host_path(facts: Facts<'_>, path: &HostPath) -> Result<VolumeSpec, Problem> {
    let refuse = |message: String| Err(Problem::new("hostPath.path", message));
    let asked = PathBuf::from(&path.path);
    let plain = asked.is_absolute()
        && asked.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir))
        && !path.path.contains('\0');
    if !plain {
        return refuse(format!("{:?} must be absolute and without '..'", path.path));
    }
    if NEVER.iter().any(|never| asked.starts_with(never)) || asked == Path::new("/") {
        return refuse(format!("{:?} is never given to a pod", path.path));
    }
    if !facts.settings.host_path_allow.iter().any(|allowed| asked.starts_with(allowed)) {
        return refuse(format!("{:?} is not below a path of host_path_allow in reddwarfd.toml", path.path));
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
        other => return Err(Problem::new("hostPath.type", format!("{other:?} is no hostPath type"))),
    };
    Ok(VolumeSpec::HostPath { path: asked, kind })
}
