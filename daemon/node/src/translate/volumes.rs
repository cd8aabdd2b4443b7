//! A pod's volumes.

use super::{Facts, Identity, account, files};
use crate::desired::{PodIntent, VolumeSource};
use crate::plan::Notice;
use reddwarf_host::spec::{HostPathKind, SandboxSpec, VolumeSpec};
use reddwarf_host::{DatasetName, VolumeName};
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
    if let Some(name) = volume.claim_name(&intent.key.name) {
        return claimed(intent, facts, &name, volume.ephemeral.is_some(), now);
    }
    let message = "this version mounts emptyDir, configMap, secret, downwardAPI, projected, hostPath and claims only";
    Err(Problem::new("", message))
}

/// What a claim is bound to. A pod that runs keeps what it has, whatever becomes of the claim.
fn claimed(
    intent: &PodIntent,
    facts: Facts<'_>,
    name: &str,
    ephemeral: bool,
    now: Option<&VolumeSpec>,
) -> Result<VolumeSpec, Problem> {
    let has = now.filter(|now| matches!(now, VolumeSpec::Persistent { .. } | VolumeSpec::HostPath { .. }));
    match (bound(intent, facts, name, ephemeral, has.is_some()), has) {
        (Err(_), Some(has)) => Ok(has.clone()),
        (found, _) => found,
    }
}

fn bound(
    intent: &PodIntent,
    facts: Facts<'_>,
    name: &str,
    ephemeral: bool,
    running: bool,
) -> Result<VolumeSpec, Problem> {
    let namespace = &intent.key.namespace;
    let refuse = |message: String| Err(Problem::new("", message));
    let Some(claim) = facts.config.claims.get(&(namespace.clone(), name.to_owned())) else {
        return refuse(format!("persistentvolumeclaim {name:?} not found"));
    };
    if ephemeral && !claim.owners.iter().any(|owner| owner == intent.uid.as_str()) {
        return refuse(format!("PVC {namespace}/{name} was not created for pod {} (pod is not owner)", intent.key));
    }
    if claim.leaving && !running {
        return refuse(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if claim.one_pod
        && !running
        && let Some(other) = holder(intent, facts, name)
    {
        let why = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
        return refuse(format!("PVC {namespace}/{name}: {why}: {}", other.key));
    }
    let Some(volume_name) = &claim.volume else {
        let why = "pod has unbound immediate PersistentVolumeClaims";
        return refuse(format!("PVC {namespace}/{name} is not bound: {why}"));
    };
    let Some(volume) = facts.config.volumes.get(volume_name) else {
        return refuse(format!("persistentvolume {volume_name:?} of PVC {namespace}/{name} not found"));
    };
    let own = |(ns, of, uid): &(String, String, String)| ns == namespace && of == name && *uid == claim.uid;
    if !volume.claim.as_ref().is_some_and(own) {
        return refuse(format!("PV {volume_name:?} is bound to another claim than PVC {namespace}/{name}"));
    }
    if claim.block {
        return refuse(format!("PVC {namespace}/{name} has volumeMode Block: this version mounts file systems only"));
    }
    if !volume.mount_options.is_empty() {
        let options = volume.mount_options.join(", ");
        return refuse(format!(
            "PV {volume_name:?} has mountOptions ({options}), which this version does not apply: take them off"
        ));
    }
    match &volume.source {
        VolumeSource::Storage(handle) => {
            let handle = DatasetName::new(handle).map_err(|e| Problem::new("", e.to_string()))?;
            match &facts.settings.storage {
                Some(storage) => {
                    Ok(VolumeSpec::Persistent { path: storage.volume_root.join(handle.as_str()).join("data") })
                }
                None => refuse("this host has no storage for volumes".into()),
            }
        }
        VolumeSource::Local(path) => host_path(facts, &HostPath { path: path.clone(), kind: "Directory".into() }),
        VolumeSource::HostPath(path) => host_path(facts, path),
        VolumeSource::Other(what) => {
            refuse(format!("PV {volume_name:?} can't be mounted: this version knows no {what} volumes"))
        }
    }
    .map_err(|problem| Problem { field: "persistentVolumeClaim".into(), ..problem })
}

/// The pod that has a claim which is for one pod at a time: of those that are placed here and not over, the eldest but us.
/// Between two the same one always gives way.
fn holder<'f>(intent: &PodIntent, facts: Facts<'f>, claim: &str) -> Option<&'f PodIntent> {
    let age = |pod: &PodIntent| (pod.object.creation_timestamp(), pod.uid.clone());
    facts.pods.values().map(|other| &**other).find(|other| {
        other.key.namespace == intent.key.namespace
            && other.uid != intent.uid
            && !other.finished
            && !other.pod.spec.node_name.is_empty()
            && age(other) < age(intent)
            && other.pod.spec.volumes.iter().any(|v| v.claim_name(&other.key.name).as_deref() == Some(claim))
    })
}

/// Whether no container may write to a volume: its claim's mount or its PersistentVolume says so.
pub(super) fn is_read_only(intent: &PodIntent, facts: Facts<'_>, name: &str) -> bool {
    let Some(volume) = intent.pod.spec.volumes.iter().find(|v| v.name == name) else { return false };
    if volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only) {
        return true;
    }
    let Some(claim) = volume.claim_name(&intent.key.name) else { return false };
    let claim = facts.config.claims.get(&(intent.key.namespace.clone(), claim));
    let bound = claim.and_then(|c| facts.config.volumes.get(c.volume.as_ref()?));
    bound.is_some_and(|v| v.read_only)
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
