//! What people do with volumes beyond claims: snapshots, rolling back, clones, streams to files and from them.
//!
//! A clone or a received volume gets a PersistentVolume that is set aside for a claim of the caller's choice: the claim of
//! that name is bound to it, and to nothing else, once somebody makes it.

use crate::storage::Storage;
use reddwarf_api::runtime::RuntimeError;
use reddwarf_api::types::{Done, StoredVolume, VolumeAction, VolumeList, VolumeRequest, VolumeSnapshot};
use reddwarf_controllers::volume::{DRIVER, Provisioner};
use reddwarf_host::storage::SnapshotInfo;
use reddwarf_host::{
    Area, Change, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, Limits, SnapshotId,
    SnapshotName,
};
use reddwarf_objects::pod::{Phase, Pod};
use reddwarf_objects::{Object, ObjectKey, Quantity, kinds};
use reddwarf_registry::{Author, ListQuery, Registry, RegistryError, WriteOptions};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const US: Author = Author::System("storage");
/// The owner, in a dataset's marks, of a volume that was made by hand and waited for its claim.
pub(crate) const ADMINISTRATOR: &str = "administrator";
/// The mark that says which stream a dataset was received from ([`fingerprint`]).
const STREAM: &str = "stream";
/// The mark that says which snapshot a dataset was cloned from.
const FROM: &str = "from";

fn failed(error: HostError) -> RuntimeError {
    let text = error.chain();
    match error.kind {
        HostErrorKind::NotFound => RuntimeError::NotFound(text),
        HostErrorKind::Conflict | HostErrorKind::Busy | HostErrorKind::Foreign => RuntimeError::Conflict(text),
        HostErrorKind::InvalidSpec => RuntimeError::BadRequest(text),
        HostErrorKind::Unsupported => RuntimeError::Unsupported(text),
        HostErrorKind::Exhausted | HostErrorKind::Timeout => RuntimeError::Unavailable(text),
        HostErrorKind::InvalidState | HostErrorKind::Unreachable | HostErrorKind::Denied | HostErrorKind::Other => {
            RuntimeError::Internal(text)
        }
    }
}

fn internal(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Internal(error.to_string())
}

pub(crate) fn objects(registry: &Registry, kind: &str) -> Result<Vec<Object>, RuntimeError> {
    let Some(kind) = kinds().by_gvk("v1", kind) else { return Ok(Vec::new()) };
    Ok(registry.list(&ListQuery::all(kind)).map_err(internal)?.items)
}

/// The volume in our storage that a PersistentVolume is.
pub(crate) fn handle(volume: &Object) -> Option<&str> {
    volume.get_str("/spec/csi/volumeHandle").filter(|_| volume.get_str("/spec/csi/driver") == Some(DRIVER))
}

/// All volumes.
///
/// # Errors
/// The engine's.
pub(crate) async fn list(storage: &Storage, registry: &Registry) -> Result<VolumeList, RuntimeError> {
    let volumes = objects(registry, "PersistentVolume")?;
    let known: BTreeSet<&str> = volumes.iter().filter_map(handle).collect();
    let mut items = Vec::new();
    for (id, dataset) in storage.engine().list().await.map_err(failed)? {
        if id.area != Area::Volumes {
            continue;
        }
        let used = match storage.engine().usage(&id).await {
            Ok(used) => used,
            // Destroyed meanwhile.
            Err(error) if error.kind == HostErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let snapshot = |s: &SnapshotInfo| VolumeSnapshot { name: s.name.to_string(), created: Some(s.created) };
        items.push(StoredVolume {
            known: known.contains(id.name.as_str()),
            claim: dataset.marks.get("claim").cloned().unwrap_or_default(),
            quota_bytes: dataset.limits.quota_bytes.unwrap_or(0),
            used_bytes: used.data_bytes,
            snapshots: dataset.snapshots.iter().map(snapshot).collect(),
            name: id.name.to_string(),
        });
    }
    Ok(VolumeList { items })
}

/// Does one thing.
///
/// # Errors
/// See [`reddwarf_api::Runtime::volume_action`].
pub(crate) async fn act(
    storage: &Storage,
    registry: &Registry,
    action: VolumeAction,
    request: &VolumeRequest,
) -> Result<Done, RuntimeError> {
    let work = Work { storage, registry, request };
    let message = match action {
        VolumeAction::Snapshot => work.snapshot().await,
        VolumeAction::SnapshotRemove => work.snapshot_remove().await,
        VolumeAction::Rollback => work.rollback().await,
        VolumeAction::Clone => work.clone_of().await,
        VolumeAction::Send => work.send().await,
        VolumeAction::Receive => work.receive().await,
    }?;
    Ok(Done { message })
}

struct Work<'w> {
    storage: &'w Storage,
    registry: &'w Registry,
    request: &'w VolumeRequest,
}

impl Work<'_> {
    fn namespace(&self) -> &str {
        if self.request.namespace.is_empty() { "default" } else { &self.request.namespace }
    }

    fn claim(&self, name: &str) -> Result<Option<Object>, RuntimeError> {
        let key = ObjectKey {
            group: String::new(),
            resource: "persistentvolumeclaims".into(),
            namespace: Some(self.namespace().to_owned()),
            name: name.to_owned(),
        };
        self.registry.find(&key).map_err(internal)
    }

    /// The volume that the request names: by its claim, or by its own name.
    fn volume(&self) -> Result<DatasetId, RuntimeError> {
        let name = &self.request.volume;
        let volume_name = match self.claim(name)? {
            Some(claim) => match claim.get_str("/spec/volumeName").filter(|v| !v.is_empty()) {
                Some(volume) => volume.to_owned(),
                None => return Err(RuntimeError::Conflict(format!("claim {name} has no volume yet"))),
            },
            None => name.clone(),
        };
        let volumes = objects(self.registry, "PersistentVolume")?;
        let object = volumes.iter().find(|v| v.name() == volume_name);
        let handle = match object {
            Some(volume) => handle(volume).map(str::to_owned).ok_or_else(|| {
                RuntimeError::BadRequest(format!("volume {volume_name} is not in this host's storage"))
            })?,
            // One that no PersistentVolume knows any more.
            None => volume_name,
        };
        let name = DatasetName::new(handle).map_err(|e| RuntimeError::BadRequest(e.to_string()))?;
        Ok(DatasetId::volume(name))
    }

    fn snapshot_id(&self) -> Result<SnapshotId, RuntimeError> {
        Ok(self.volume()?.at(snapshot_name(&self.request.snapshot)?))
    }

    async fn dataset(&self, id: &DatasetId) -> Result<Dataset, RuntimeError> {
        let mut all = self.storage.engine().list().await.map_err(failed)?;
        all.remove(id).ok_or_else(|| RuntimeError::NotFound(format!("there is no volume {}", id.name)))
    }

    /// Pods that use a volume now, `namespace/name` each.
    fn users(&self, id: &DatasetId) -> Result<Vec<String>, RuntimeError> {
        let volumes = objects(self.registry, "PersistentVolume")?;
        let claims: BTreeSet<(&str, &str)> = volumes
            .iter()
            .filter(|v| handle(v) == Some(id.name.as_str()))
            .filter_map(|v| Some((v.get_str("/spec/claimRef/namespace")?, v.get_str("/spec/claimRef/name")?)))
            .collect();
        let mut users = Vec::new();
        for object in objects(self.registry, "Pod")? {
            let Ok(pod) = Pod::from_object(&object) else { continue };
            let phase = object.get_str("/status/phase");
            let ended = [Phase::Succeeded, Phase::Failed].map(|p| format!("{p:?}"));
            if ended.iter().any(|e| phase == Some(e)) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_str();
            let mounts = |v: &reddwarf_objects::pod::Volume| {
                v.claim_name(&pod.metadata.name).is_some_and(|claim| claims.contains(&(namespace, claim.as_str())))
            };
            if pod.spec.volumes.iter().any(mounts) {
                users.push(format!("{namespace}/{}", pod.metadata.name));
            }
        }
        Ok(users)
    }

    fn unused(&self, id: &DatasetId) -> Result<(), RuntimeError> {
        let users = self.users(id)?;
        if users.is_empty() {
            return Ok(());
        }
        let what = format!("pods use volume {}: delete them first: {}", id.name, users.join(", "));
        Err(RuntimeError::Conflict(what))
    }

    async fn snapshot(&self) -> Result<String, RuntimeError> {
        let id = self.snapshot_id()?;
        self.dataset(&id.dataset).await?;
        match self.storage.engine().snapshot(&id).await.map_err(failed)? {
            Change::Changed(_) => Ok(format!("snapshot {} of {} made", id.name, id.dataset.name)),
            Change::Unchanged => {
                Err(RuntimeError::Conflict(format!("{} has a snapshot {} already", id.dataset.name, id.name)))
            }
        }
    }

    async fn snapshot_remove(&self) -> Result<String, RuntimeError> {
        let id = self.snapshot_id()?;
        match self.storage.engine().snapshot_remove(&id).await.map_err(failed)? {
            Change::Changed(_) => Ok(format!("snapshot {} of {} removed", id.name, id.dataset.name)),
            Change::Unchanged => {
                Err(RuntimeError::NotFound(format!("{} has no snapshot {}", id.dataset.name, id.name)))
            }
        }
    }

    async fn rollback(&self) -> Result<String, RuntimeError> {
        let id = self.snapshot_id()?;
        self.unused(&id.dataset)?;
        drop(self.storage.engine().rollback(&id).await.map_err(failed)?);
        Ok(format!("{} is as in its snapshot {}", id.dataset.name, id.name))
    }

    async fn clone_of(&self) -> Result<String, RuntimeError> {
        let from = self.snapshot_id()?;
        let dataset = self.dataset(&from.dataset).await?;
        let Some(snapshot) = dataset.snapshots.iter().find(|s| s.name == from.name) else {
            return Err(RuntimeError::NotFound(format!("{} has no snapshot {}", from.dataset.name, from.name)));
        };
        let (to, mut spec) = self.set_aside(&self.request.to, dataset.limits)?;
        // With its time: a snapshot may be removed and made anew.
        let source = format!("{}@{} of {}", from.dataset.name, from.name, snapshot.created.to_rfc3339());
        spec.marks.insert(FROM.to_owned(), source.clone());
        self.waits(&self.request.to, &to)?;
        let engine = self.storage.engine();
        let (limits, was_there) = match engine.list().await.map_err(failed)?.remove(&to) {
            None => {
                drop(engine.clone_of(&from, &to, &spec).await.map_err(failed)?);
                (dataset.limits, "")
            }
            Some(there) if there.marks == spec.marks => (there.limits, WAS_THERE),
            Some(there) => {
                let of = there.marks.get(FROM).map_or_else(String::new, |of| format!(", a clone of {of}"));
                let what = format!("volume {} is there already{of}, and not a clone of {source}", to.name);
                return Err(RuntimeError::Conflict(what));
            }
        };
        self.publish(&self.request.to, &to, limits).await?;
        Ok(format!(
            "volume {} of {}@{}{was_there} waits for claim {}",
            to.name, from.dataset.name, from.name, self.request.to
        ))
    }

    async fn send(&self) -> Result<String, RuntimeError> {
        let id = self.snapshot_id()?;
        let since = Some(&self.request.since).filter(|s| !s.is_empty()).map(|s| snapshot_name(s)).transpose()?;
        let path = Path::new(&self.request.path);
        let bytes = self.storage.engine().send(&id, since.as_ref(), path).await.map_err(failed)?;
        Ok(format!("{bytes} bytes in {}", path.display()))
    }

    async fn receive(&self) -> Result<String, RuntimeError> {
        let snapshot = snapshot_name(&self.request.snapshot)?;
        let path = Path::new(&self.request.path);
        if let Some(claim) = self.claim(&self.request.volume)? {
            // An increment for a volume that is in use by its claim.
            let id = self.volume()?;
            self.unused(&id)?;
            let marks = self.dataset(&id).await?.marks;
            let spec = DatasetSpec { marks, ..DatasetSpec::default() };
            drop(self.storage.engine().receive(path, &id.at(snapshot), &spec).await.map_err(failed)?);
            return Ok(format!("claim {} has what {} brought", claim.name(), path.display()));
        }
        let (id, mut spec) = self.set_aside(&self.request.volume, Limits::default())?;
        self.waits(&self.request.volume, &id)?;
        // What a crash left half-made is settled before anything is taken for absent.
        self.storage.ready().await.map_err(failed)?;
        if let Some(stream) = fingerprint(path).await? {
            spec.marks.insert(STREAM.to_owned(), stream);
        }
        let to = id.at(snapshot);
        let (limits, was_there) = match self.storage.engine().list().await.map_err(failed)?.remove(&id) {
            None => {
                self.receive_new(path, &to, &spec).await?;
                (Limits::default(), "")
            }
            // Received before, and cut off before there was an object of it, or asked for twice.
            Some(Dataset { marks, limits, snapshots })
                if marks == spec.marks && newest(&snapshots) == Some(&to.name) =>
            {
                (limits, WAS_THERE)
            }
            Some(there) => (self.receive_increment(path, &to, there).await?, ""),
        };
        self.publish(&self.request.volume, &id, limits).await?;
        Ok(format!("volume {}{was_there} waits for claim {}", id.name, self.request.volume))
    }

    async fn receive_new(&self, path: &Path, to: &SnapshotId, spec: &DatasetSpec) -> Result<(), RuntimeError> {
        let engine = self.storage.engine();
        match engine.receive(path, to, spec).await {
            // A snapshot of another stream, perhaps, which was cut off before the dataset was made of it.
            Err(error) if error.kind == HostErrorKind::Conflict => {
                let there = engine.list().await.map_err(failed)?.contains_key(&to.dataset);
                if there || engine.snapshot_remove(to).await.map_err(failed)? == Change::Unchanged {
                    return Err(failed(error));
                }
                engine.receive(path, to, spec).await.map(drop).map_err(failed)
            }
            received => received.map(drop).map_err(failed),
        }
    }

    /// An increment for a volume that waits still: it need not have room within what was enough so far. The limits that it has
    /// then.
    async fn receive_increment(&self, path: &Path, to: &SnapshotId, there: Dataset) -> Result<Limits, RuntimeError> {
        let (engine, Dataset { marks, limits, .. }) = (self.storage.engine(), there);
        let whose = format!("{}/{}", self.namespace(), self.request.volume);
        if marks.get("claim") != Some(&whose) {
            let of = marks.get("claim").map_or_else(String::new, |of| format!(": it was made for claim {of}"));
            return Err(RuntimeError::Conflict(format!("volume {} is there already{of}", to.dataset.name)));
        }
        let free = Limits { quota_bytes: None, ..limits };
        drop(engine.resize(&to.dataset, &free).await.map_err(failed)?);
        match engine.receive(path, to, &DatasetSpec { marks, ..DatasetSpec::default() }).await {
            Ok(_) => Ok(free),
            Err(error) => {
                // Without a limit it is the rest of one that was cut off after it had brought its files: that is finished.
                match limits.quota_bytes {
                    Some(_) => drop(engine.resize(&to.dataset, &limits).await.map_err(failed)?),
                    None => self.publish(&self.request.volume, &to.dataset, limits).await?,
                }
                Err(failed(error))
            }
        }
    }

    /// Refuses a volume that is there and does not wait for the claim any more.
    fn waits(&self, claim: &str, id: &DatasetId) -> Result<(), RuntimeError> {
        let all = objects(self.registry, "PersistentVolume")?;
        let of = all.iter().filter(|v| v.name() == id.name.as_str() || handle(v) == Some(id.name.as_str()));
        match of.into_iter().find(|v| !waits(v, id, self.namespace(), claim)) {
            None => Ok(()),
            Some(volume) => Err(taken(volume)),
        }
    }

    /// The dataset of a volume that waits for a claim: the same for the same claim, so that a repeat finishes it.
    fn set_aside(&self, claim: &str, limits: Limits) -> Result<(DatasetId, DatasetSpec), RuntimeError> {
        if self.claim(claim)?.is_some_and(|c| c.get_str("/spec/volumeName").is_some_and(|v| !v.is_empty())) {
            return Err(RuntimeError::Conflict(format!("claim {claim} has a volume already")));
        }
        let name = DatasetName::new(format!("{}-{claim}", self.namespace()))
            .map_err(|e| RuntimeError::BadRequest(format!("claim {claim}: {e}")))?;
        let whose = format!("{}/{claim}", self.namespace());
        let marks = BTreeMap::from([("owner".to_owned(), ADMINISTRATOR.to_owned()), ("claim".to_owned(), whose)]);
        Ok((DatasetId::volume(name), DatasetSpec { marks, limits, ..DatasetSpec::default() }))
    }

    /// The PersistentVolume of a volume that waits for a claim. It is kept when the claim goes: somebody made it by hand.
    ///
    /// A stream does not say how large the volume was to be. So it is held to what its files take until its claim says more:
    /// then it is grown, as its class allows, and bound (`controllers/src/volume`).
    async fn publish(&self, claim: &str, id: &DatasetId, limits: Limits) -> Result<(), RuntimeError> {
        let bytes = match limits.quota_bytes {
            Some(bytes) => bytes,
            None => self.hold(id, limits).await?,
        };
        let capacity = Quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)).to_string();
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [self.storage.node()]}]});
        let value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": id.name.as_str()}, "spec": {
            "capacity": {"storage": &capacity},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": self.namespace(), "name": claim},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": crate::storage::CLASS,
            "volumeMode": "Filesystem",
            "csi": {"driver": DRIVER, "volumeHandle": id.name.as_str()},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        }});
        let object = Object::from_value(value).map_err(internal)?;
        match self.registry.create(&US, object, WriteOptions::default()).await {
            Ok(_) => Ok(()),
            Err(RegistryError::AlreadyExists(key)) => {
                let waits = |live: &Object| waits(live, id, self.namespace(), claim);
                let update = |live: &mut Object| {
                    if waits(live) {
                        live.set("/spec/capacity/storage", json!(capacity));
                    }
                };
                let now = self.registry.modify(&US, &key, update).await.map_err(internal)?.object;
                if waits(&now) { Ok(()) } else { Err(taken(&now)) }
            }
            Err(error) => Err(internal(error)),
        }
    }

    /// Holds a volume to what its files take, and a little: so many bytes.
    async fn hold(&self, id: &DatasetId, limits: Limits) -> Result<u64, RuntimeError> {
        let bytes = room(self.storage.engine().usage(id).await.map_err(failed)?.data_bytes);
        let held = Limits { quota_bytes: Some(bytes), ..limits };
        if let Err(error) = self.storage.engine().resize(id, &held).await {
            // It is held once its claim says how much.
            tracing::warn!(%error, "a volume that waits for its claim is not held to its size");
        }
        Ok(bytes)
    }
}

/// Said of a volume that was not made anew.
const WAS_THERE: &str = " was there already, with whatever was written to it since, and";

/// Whether a PersistentVolume is the one that [`Work::publish`] makes of a dataset, and nobody has it yet.
fn waits(volume: &Object, id: &DatasetId, namespace: &str, claim: &str) -> bool {
    let is = |pointer: &str, text: &str| volume.get_str(pointer).unwrap_or_default() == text;
    volume.name() == id.name.as_str()
        && handle(volume) == Some(id.name.as_str())
        && volume.deletion_timestamp().is_none()
        && is("/spec/claimRef/namespace", namespace)
        && is("/spec/claimRef/name", claim)
        && is("/spec/claimRef/uid", "")
}

fn taken(volume: &Object) -> RuntimeError {
    let text = |pointer: &str| volume.get_str(pointer).unwrap_or_default();
    let has = match (text("/spec/claimRef/namespace"), text("/spec/claimRef/name")) {
        (_, "") => "it is for no claim in particular".to_owned(),
        (namespace, claim) if text("/spec/claimRef/uid").is_empty() => format!("it is for claim {namespace}/{claim}"),
        (namespace, claim) => format!("claim {namespace}/{claim} has it, or had"),
    };
    let name = volume.name();
    RuntimeError::Conflict(format!("there is a PersistentVolume {name}: {has}; nothing was changed"))
}

fn newest(snapshots: &[SnapshotInfo]) -> Option<&SnapshotName> {
    snapshots.last().map(|s| &s.name)
}

/// What tells a stream from another one without reading all of it: its length, and a digest of its beginning and of places
/// all over it. `None`: there is no such file, or it is none; the engine says so in its own words.
async fn fingerprint(path: &Path) -> Result<Option<String>, RuntimeError> {
    const BEGINNING: u64 = 1 << 20;
    const PLACES: u64 = 64;
    const PLACE: u64 = 16 << 10;
    let path = path.to_owned();
    let read = move || -> io::Result<Option<String>> {
        // Looked at first: opening a pipe would wait for whoever writes to it.
        let length = match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => found.len(),
            _ => return Ok(None),
        };
        let mut file = File::open(&path)?;
        let places = (1..=PLACES).map(|n| (length.saturating_sub(PLACE) / PLACES * n, PLACE));
        let mut hash = Sha256::new();
        for (at, bytes) in std::iter::once((0, BEGINNING)).chain(places) {
            file.seek(SeekFrom::Start(at))?;
            let mut part = Vec::new();
            file.by_ref().take(bytes).read_to_end(&mut part)?;
            hash.update(&part);
        }
        let digest = reddwarf_host::hex(hash.finalize().get(..16).unwrap_or_default());
        Ok(Some(format!("{length}-{digest}")))
    };
    tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(internal)
}

/// Room for files that take so many bytes, in whole MiB: a sixteenth more, since file systems count their own part late.
fn room(used: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    (used.saturating_add(used / 16) / MIB).saturating_add(1).saturating_mul(MIB)
}

fn snapshot_name(text: &str) -> Result<SnapshotName, RuntimeError> {
    SnapshotName::new(text).map_err(|e| RuntimeError::BadRequest(e.to_string()))
}

#[cfg(test)]
mod tests;
