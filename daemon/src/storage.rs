//! The host's storage: chosen, made ready, watched, and given to controllers as the provisioner of volumes.

use async_trait::async_trait;
use reddwarf_api::types::StorageStatus;
use reddwarf_config::Settings;
use reddwarf_config::settings::{HostKind, StorageEngineName, StorageRoots};
use reddwarf_controllers::volume::{Binding, PROVISIONER, ProvisionError, Provisioned, Provisioner, Request};
use reddwarf_host::fake::MemoryEngine;
use reddwarf_host::storage::Tuning;
use reddwarf_host::time::leisurely;
use reddwarf_host::{
    Area, Change, Clock, Dataset, DatasetId, DatasetName, DatasetSpec, EngineKind, HostError, HostErrorKind,
    HostResult, Limits, StorageEngine,
};
use reddwarf_node::NodeStorage;
use reddwarf_objects::{Object, names::did_you_mean};
use reddwarf_registry::{Author, ListQuery, Registry, RegistryError, WriteOptions};
use reddwarf_storage::choose::{Wanted, choose};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Storage that can't be used is tried again this often.
const AGAIN: Duration = Duration::from_secs(15);
const US: Author = Author::System("storage");
/// The class that every daemon with storage has.
pub(crate) const CLASS: &str = "reddwarf";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What pods' root file systems are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roots {
    /// Clones of images, on the engine.
    Clones,
    /// Overlays on images' layers.
    Overlays,
    /// The host has its own way.
    TheHosts,
}

/// The engine in use and how it is.
#[derive(Debug)]
pub(crate) struct Storage {
    engine: Arc<dyn StorageEngine>,
    roots: Roots,
    node: String,
    /// Why it can't be used; `None` before it was tried.
    state: Mutex<Option<Result<(), String>>>,
}

impl Storage {
    /// Chooses the engine that the settings and this machine give. Nothing is made yet.
    ///
    /// # Errors
    /// What in the settings does not fit.
    pub(crate) async fn open(settings: &Settings, clock: Arc<dyn Clock>) -> HostResult<Arc<Self>> {
        let engine: Arc<dyn StorageEngine> = match settings.host {
            HostKind::Sim => Arc::new(MemoryEngine::new(settings.state_dir.join("sim/storage"))),
            HostKind::Linux | HostKind::Illumos => {
                choose(&wanted(settings), crate::host::tools(settings)?, crate::host::subvolumes(), clock).await?
            }
        };
        let about = engine.about();
        tracing::info!(engine = %about.kind, place = about.place, why = about.why, "storage for volumes");
        let roots = match (settings.host, settings.storage_roots) {
            (HostKind::Linux, StorageRoots::Auto) if about.features.instant => Roots::Clones,
            (HostKind::Linux, _) => Roots::Overlays,
            (HostKind::Illumos | HostKind::Sim, _) => Roots::TheHosts,
        };
        Ok(Arc::new(Self { roots, node: settings.node_name.clone(), state: Mutex::default(), engine }))
    }

    /// Over an engine, for tests.
    #[cfg(test)]
    pub(crate) fn over(engine: Arc<dyn StorageEngine>) -> Self {
        Self { engine, roots: Roots::TheHosts, node: "n".into(), state: Mutex::default() }
    }

    /// The engine, if pods' root file systems are to be clones on it; made ready if that can be had soon.
    pub(crate) async fn for_roots(&self) -> Option<Arc<dyn StorageEngine>> {
        if self.roots != Roots::Clones {
            return None;
        }
        // Logged there, and tried again. Pods wait meanwhile.
        let _ = tokio::time::timeout(AGAIN, self.ready()).await;
        Some(self.engine.clone())
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Arc<dyn StorageEngine> {
        &self.engine
    }

    /// What the node must know of it.
    pub(crate) fn for_node(&self) -> NodeStorage {
        let about = self.engine.about();
        NodeStorage {
            volume_root: self.engine.root(Area::Volumes),
            about: format!("{} at {}: {}", about.kind, about.place, about.why),
        }
    }

    /// Makes it ready, once; later only after it could not be used.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn ready(&self) -> HostResult<()> {
        if matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), Some(Ok(()))) {
            return Ok(());
        }
        let prepared = self.engine.prepare().await;
        let state = prepared.as_ref().map(drop).map_err(HostError::chain);
        let before = self.state.lock().unwrap_or_else(PoisonError::into_inner).replace(state.clone());
        match (&prepared, before) {
            (Ok(Change::Changed(what)), _) => tracing::info!(what, "storage is ready"),
            (Err(error), before) if before.as_ref() != Some(&state) => {
                tracing::error!(error = error.chain(), "storage can't be used; volumes wait");
            }
            _ => {}
        }
        prepared.map(drop)
    }

    /// A volume of ours and what it is; `None`: it is not there.
    async fn find(&self, handle: &str) -> Result<Option<(DatasetId, Dataset)>, ProvisionError> {
        self.ready().await.map_err(|e| failed(&e))?;
        let id = volume(handle)?;
        let mut all = self.engine.list().await.map_err(|e| failed(&e))?;
        Ok(all.remove(&id).map(|found| (id, found)))
    }

    /// Whether there are no files in a volume. One that is not mounted can't be looked into, which is an error.
    async fn is_empty(&self, id: &DatasetId) -> Result<bool, ProvisionError> {
        if self.engine.about().kind == EngineKind::Memory {
            return Ok(self.engine.usage(id).await.map_err(|e| failed(&e))?.data_bytes == 0);
        }
        let data = self.engine.data(id);
        let first = async { tokio::fs::read_dir(&data).await?.next_entry().await };
        match first.await {
            Ok(entry) => Ok(entry.is_none()),
            Err(error) => Err(ProvisionError(format!("{} can't be looked into: {error}", data.display()))),
        }
    }

    /// For `status`.
    pub(crate) async fn status(&self) -> StorageStatus {
        let about = self.engine.about();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let capacity = self.engine.capacity().await;
        let problem = match (state, &capacity) {
            (Some(Err(why)), _) => why,
            (Some(Ok(())), Err(error)) => error.chain(),
            _ => String::new(),
        };
        let capacity = capacity.unwrap_or_default();
        StorageStatus {
            engine: about.kind.to_string(),
            place: about.place.clone(),
            why: about.why.clone(),
            roots: match self.roots {
                Roots::Clones => "clones".to_owned(),
                Roots::Overlays => "overlays".to_owned(),
                Roots::TheHosts => String::new(),
            },
            total_bytes: capacity.total_bytes,
            free_bytes: capacity.free_bytes,
            problem: if problem.is_empty() { problem } else { format!("StorageUnavailable: {problem}") },
        }
    }

    /// Makes it ready and keeps looking whether it is.
    pub(crate) async fn watch(self: Arc<Self>, registry: Registry, stop: CancellationToken) -> Result<(), String> {
        let mut class = false;
        loop {
            let ready = self.ready().await.is_ok();
            if ready && !class {
                match default_class(&registry).await {
                    Ok(()) => class = true,
                    Err(error) => tracing::warn!(%error, "the storage class {CLASS} could not be made"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(leisurely(AGAIN)) => {}
            }
        }
    }
}

fn wanted(settings: &Settings) -> Wanted {
    let areas = [
        (Area::Images, &settings.storage_images),
        (Area::Pods, &settings.storage_pods),
        (Area::Volumes, &settings.storage_volumes),
    ];
    Wanted {
        pool: settings.storage_pool.clone(),
        engine: match settings.storage_engine {
            StorageEngineName::Auto => None,
            StorageEngineName::Zfs => Some(EngineKind::Zfs),
            StorageEngineName::Btrfs => Some(EngineKind::Btrfs),
            StorageEngineName::Directory => Some(EngineKind::Directory),
        },
        areas: areas.into_iter().filter_map(|(area, at)| Some((area, at.clone()?))).collect(),
        default: settings.state_dir.join("storage"),
        // Several daemons on one machine have state directories of their own; only the usual one takes what is for all.
        look_for_pools: settings.state_dir == Path::new("/var/lib/reddwarf"),
        record: Some(settings.state_dir.join("storage.json")),
    }
}

/// Makes our class unless it is there; it is the default one unless another says that it is.
async fn default_class(registry: &Registry) -> Result<(), RegistryError> {
    let Some(kind) = reddwarf_objects::kinds().by_gvk("storage.k8s.io/v1", "StorageClass") else { return Ok(()) };
    let all = registry.list(&ListQuery::all(kind))?.items;
    if all.iter().any(|class| class.name() == CLASS) {
        return Ok(());
    }
    let other = all.iter().any(|class| class.annotation(DEFAULT_CLASS) == Some("true"));
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: if other { "false" } else { "true" }}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    let Ok(class) = Object::from_value(class) else { return Ok(()) };
    match registry.create(&US, class, WriteOptions::default()).await {
        Ok(_) | Err(RegistryError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a storage class may say in `parameters`.
const PARAMETERS: [&str; 5] = ["engine", "quota", "reservation", "compression", "recordsize"];

/// A class's parameters, understood.
fn spec(engine: &dyn StorageEngine, request: &Request) -> Result<DatasetSpec, ProvisionError> {
    let bad = |text: String| Err(ProvisionError(text));
    let about = engine.about();
    let (mut quota, mut reservation, mut tuning) = (about.features.quota, false, Tuning::default());
    for (key, value) in &request.parameters {
        let flag = || match value.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(ProvisionError(format!("parameter {key}: {other:?} must be true or false"))),
        };
        match key.as_str() {
            "engine" if *value == about.kind.as_str() => {}
            "engine" => {
                return bad(format!(
                    "parameter engine: the class wants {value}, this host's storage is {}",
                    about.kind
                ));
            }
            "quota" => quota = flag()?,
            "reservation" => reservation = flag()?,
            "compression" => tuning.compression = Some(value.clone()),
            "recordsize" => match reddwarf_objects::Quantity::from_value(&json!(value)).map(|q| q.units()) {
                Ok(bytes) if bytes >= 512 && bytes.count_ones() == 1 => {
                    tuning.record_size_bytes = u64::try_from(bytes).ok();
                }
                _ => return bad(format!("parameter recordsize: {value:?} must be a power of two such as 16Ki")),
            },
            other => {
                let near = did_you_mean(other, PARAMETERS.into_iter()).map(|near| format!(", did you mean {near}?"));
                let known = PARAMETERS.join(", ");
                return bad(format!("unknown parameter {other:?}{}; known are {known}", near.unwrap_or_default()));
            }
        }
    }
    if quota && !about.features.quota {
        let kind = about.kind;
        return bad(format!("parameter quota: the engine {kind} can't keep volumes to a size; btrfs and zfs can"));
    }
    if reservation && !about.features.reservation {
        return bad(format!("parameter reservation: the engine {} can't keep room free; zfs can", about.kind));
    }
    let marks = BTreeMap::from([
        ("owner".to_owned(), request.uid.clone()),
        ("claim".to_owned(), format!("{}/{}", request.namespace, request.claim)),
    ]);
    let bytes = Some(request.bytes).filter(|b| *b > 0);
    let limits = Limits {
        quota_bytes: bytes.filter(|_| quota || !about.features.quota),
        reservation_bytes: bytes.filter(|_| reservation),
    };
    Ok(DatasetSpec { marks, limits, tuning })
}

pub(crate) fn volume(handle: &str) -> Result<DatasetId, ProvisionError> {
    DatasetName::new(handle).map(DatasetId::volume).map_err(|e| ProvisionError(e.to_string()))
}

fn failed(error: &HostError) -> ProvisionError {
    let cause = match error.kind {
        HostErrorKind::Exhausted => "no room: ",
        HostErrorKind::Busy => "in use: ",
        HostErrorKind::NotFound => "storage is not there: ",
        _ => "",
    };
    ProvisionError(format!("{cause}{}", error.chain()))
}

#[async_trait]
impl Provisioner for Storage {
    fn node(&self) -> &str {
        &self.node
    }

    async fn provision(&self, request: &Request) -> Result<Provisioned, ProvisionError> {
        self.ready().await.map_err(|e| failed(&e))?;
        let spec = spec(&*self.engine, request)?;
        let id = volume(&request.name)?;
        drop(self.engine.create(&id, &spec).await.map_err(|e| failed(&e))?);
        let attributes = BTreeMap::from([("engine".to_owned(), self.engine.about().kind.to_string())]);
        Ok(Provisioned { handle: request.name.clone(), attributes })
    }

    async fn made_for(&self, handle: &str) -> Result<Option<Binding>, ProvisionError> {
        let Some((_, found)) = self.find(handle).await? else { return Ok(None) };
        let mark = |key: &str| found.marks.get(key).map_or("", String::as_str);
        let (namespace, name) = mark("claim").split_once('/').unwrap_or_default();
        Ok(Some(Binding { namespace: namespace.into(), name: name.into(), uid: mark("owner").into() }))
    }

    async fn destroy_unused(&self, handle: &str) -> Result<bool, ProvisionError> {
        let Some((id, found)) = self.find(handle).await? else { return Ok(true) };
        if !found.snapshots.is_empty() || !self.is_empty(&id).await? {
            return Ok(false);
        }
        self.destroy(handle).await.map(|()| true)
    }

    async fn destroy(&self, handle: &str) -> Result<(), ProvisionError> {
        self.ready().await.map_err(|e| failed(&e))?;
        self.engine.destroy(&volume(handle)?).await.map(drop).map_err(|e| failed(&e))
    }

    async fn resize(&self, handle: &str, bytes: u64) -> Result<(), ProvisionError> {
        let Some((id, found)) = self.find(handle).await? else {
            return Err(ProvisionError(format!("storage has no volume {handle:?} of ours")));
        };
        let Limits { quota_bytes, reservation_bytes } = found.limits;
        // One that was made by hand may not have had a size before its claim said one.
        let by_hand = found.marks.get("owner").is_some_and(|owner| owner == crate::volumes::ADMINISTRATOR);
        let limits = Limits {
            quota_bytes: Some(bytes).filter(|_| quota_bytes.is_some() || by_hand),
            reservation_bytes: reservation_bytes.map(|_| bytes),
        };
        self.engine.resize(&id, &limits).await.map(drop).map_err(|e| failed(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, &str)]) -> Request {
        Request {
            name: "pvc-u".into(),
            namespace: "d".into(),
            claim: "c".into(),
            uid: "u".into(),
            bytes: 100,
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn parameters_are_understood_or_refused_with_what_to_write() {
        let engine = MemoryEngine::new("/x");
        let said = |parameters: &[(&str, &str)]| spec(&engine, &request(parameters)).map_err(|e| e.0);
        let plain = said(&[("engine", "memory"), ("compression", "lz4"), ("recordsize", "16Ki")]).unwrap();
        assert_eq!((plain.tuning.compression.as_deref(), plain.tuning.record_size_bytes), (Some("lz4"), Some(16384)));
        assert_eq!(plain.limits.quota_bytes, Some(100), "noted where it can't be kept");
        for (parameters, part) in [
            (&[("engine", "zfs")][..], "the class wants zfs, this host's storage is memory"),
            (&[("quota", "yes")], "must be true or false"),
            (&[("quota", "true")], "can't keep volumes to a size"),
            (&[("reservation", "true")], "can't keep room free"),
            (&[("recordsize", "3000")], "power of two"),
            (&[("compresion", "on")], "did you mean compression?"),
        ] {
            let error = said(parameters).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
