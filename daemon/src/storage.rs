//! The host's storage: chosen, made ready, watched, and given to controllers as the provisioner of volumes.

mod class;

use async_trait::async_trait;
pub(crate) use class::CLASS;
use class::{default_class, spec};
use reddwarf_api::types::StorageStatus;
use reddwarf_config::Settings;
use reddwarf_config::settings::{HostKind, StorageEngineName, StorageRoots};
use reddwarf_controllers::volume::{Binding, ProvisionError, Provisioned, Provisioner, Request};
use reddwarf_host::fake::MemoryEngine;
use reddwarf_host::storage::Capacity;
use reddwarf_host::time::leisurely;
use reddwarf_host::{
    Area, Change, Clock, Dataset, DatasetId, DatasetName, EngineKind, HostError, HostErrorKind, HostResult, Limits,
    StorageEngine,
};
use reddwarf_node::{NodeStorage, StorageHealth};
use reddwarf_registry::{Author, EventTarget, EventType, Registry, RegistryError};
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked at; storage that can't be used is tried again then.
const AGAIN: Duration = Duration::from_secs(15);
/// What is left over is tried again at every so-manieth look.
const LEFTOVERS: u32 = 4;
/// A place that has not said by then how much it holds hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Who asks for the status waits no longer for it.
const GLANCE: Duration = Duration::from_secs(2);
const US: Author = Author::System("storage");

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
    /// A look at it that has not ended. A place that hangs holds this one, and no others are begun.
    looking: tokio::sync::Mutex<Option<JoinHandle<HostResult<Capacity>>>>,
    /// Whether it can be used, as it was seen last.
    health: watch::Sender<Option<StorageHealth>>,
}

/// What was told on the node so far.
#[derive(Default)]
struct Told {
    trouble: bool,
    leftovers: BTreeSet<String>,
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
        Ok(Arc::new(Self::with(engine, roots, settings.node_name.clone())))
    }

    fn with(engine: Arc<dyn StorageEngine>, roots: Roots, node: String) -> Self {
        let (looking, health) = (tokio::sync::Mutex::default(), watch::Sender::default());
        Self { engine, roots, node, state: Mutex::default(), looking, health }
    }

    /// Over an engine, for tests.
    #[cfg(test)]
    pub(crate) fn over(engine: Arc<dyn StorageEngine>) -> Self {
        Self::with(engine, Roots::TheHosts, "n".into())
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

    /// Follows whether it can be used.
    pub(crate) fn health(&self) -> watch::Receiver<Option<StorageHealth>> {
        self.health.subscribe()
    }

    /// What the place holds. Nobody waits longer than this for it, and a disk that never answers holds one thread.
    pub(crate) async fn look(&self, patience: Duration) -> HostResult<Capacity> {
        let hangs = || {
            let message = format!("it does not answer within {} s: is a disk or the network gone?", patience.as_secs());
            HostError::new(HostErrorKind::Timeout, "measure storage", &*self.engine.about().place, message)
        };
        let Ok(mut looking) = tokio::time::timeout(patience, self.looking.lock()).await else { return Err(hangs()) };
        let look = looking.get_or_insert_with(|| {
            let (engine, runtime) = (self.engine.clone(), tokio::runtime::Handle::current());
            tokio::task::spawn_blocking(move || runtime.block_on(engine.capacity()))
        });
        let Ok(ended) = tokio::time::timeout(patience, look).await else { return Err(hangs()) };
        *looking = None;
        ended.unwrap_or_else(|e| {
            let place = &*self.engine.about().place;
            Err(HostError::new(HostErrorKind::Other, "measure storage", place, "the look ended early").caused_by(e))
        })
    }

    /// Whether it can be used just now.
    async fn check(&self) -> StorageHealth {
        let looked = match self.ready().await {
            Ok(()) => self.look(PATIENCE).await.map(drop),
            Err(error) => Err(error),
        };
        let about = self.engine.about();
        match looked {
            Ok(()) => {
                let message = format!("{} at {} can be used", about.kind, about.place);
                StorageHealth { ready: true, reason: "StorageReady", message }
            }
            Err(error) => {
                let reason = match error.kind {
                    HostErrorKind::NotFound => "StorageAbsent",
                    HostErrorKind::Busy if about.kind == EngineKind::Zfs => "StorageSuspended",
                    HostErrorKind::Timeout => "StorageHangs",
                    _ => "StorageUnavailable",
                };
                StorageHealth { ready: false, reason, message: error.chain() }
            }
        }
    }

    /// What in it needs a person, besides that it can't be used.
    pub(crate) fn notices(&self) -> Vec<String> {
        let left = self.engine.leftovers().all();
        left.into_iter().map(|(what, why)| format!("StorageLeftover: {}", leftover(&what, &why))).collect()
    }

    /// Events of the node about what is another way than when it was told last.
    async fn tell(&self, registry: &Registry, told: &mut Told, health: &StorageHealth) -> Result<(), RegistryError> {
        let target = EventTarget::node(&self.node);
        let say = async |kind, reason: &str, message: &str| {
            registry.record_event(&target, kind, reason, message, "reddwarfd").await
        };
        if told.trouble == health.ready {
            let kind = if health.ready { EventType::Normal } else { EventType::Warning };
            say(kind, health.reason, &health.message).await?;
            told.trouble = !health.ready;
        }
        let left = self.engine.leftovers().all();
        for (what, why) in left.iter().filter(|(what, _)| !told.leftovers.contains(*what)) {
            say(EventType::Warning, "StorageLeftover", &leftover(what, why)).await?;
        }
        for what in told.leftovers.iter().filter(|what| !left.contains_key(*what)) {
            say(EventType::Normal, "StorageCleared", &format!("{what}, which was left over, is gone")).await?;
        }
        told.leftovers = left.into_keys().collect();
        Ok(())
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
        let capacity = self.look(GLANCE).await;
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
        let (mut class, mut told) = (false, Told::default());
        for turn in 0_u32.. {
            let health = self.check().await;
            if health.ready && !class {
                match default_class(&registry).await {
                    Ok(()) => class = true,
                    Err(error) => tracing::warn!(%error, "the storage class {CLASS} could not be made"),
                }
            }
            if health.ready
                && turn.is_multiple_of(LEFTOVERS)
                && !self.engine.leftovers().all().is_empty()
                && let Err(error) = self.engine.clear_leftovers().await
            {
                tracing::debug!(%error, "leftovers are tried again later");
            }
            if let Err(error) = self.tell(&registry, &mut told, &health).await {
                tracing::debug!(%error, "an event about the storage could not be written");
            }
            self.health.send_if_modified(|before| {
                let changed = before.as_ref() != Some(&health);
                *before = Some(health);
                changed
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(leisurely(AGAIN)) => {}
            }
        }
        Ok(())
    }
}

fn leftover(what: &str, why: &str) -> String {
    format!("{what} is left over and can't be cleared away: {why}; it is tried again")
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
    use reddwarf_objects::Object;
    use reddwarf_registry::ListQuery;

    struct World {
        engine: Arc<MemoryEngine>,
        storage: Arc<Storage>,
        registry: Registry,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let now: reddwarf_registry::Clock = Arc::new(|| "2026-01-02T03:04:05Z".parse().unwrap());
            let options = reddwarf_store::StoreOptions::new(now.clone());
            let store = reddwarf_store::Store::open(dir.path().join("store.redb"), options).unwrap().store;
            let registry = Registry::open(store, now).await.unwrap();
            let engine = Arc::new(MemoryEngine::new(dir.path()));
            Self { storage: Arc::new(Storage::over(engine.clone())), engine, registry, _dir: dir }
        }

        /// Events of the node: reason and message.
        fn said(&self) -> Vec<(String, String)> {
            let kind = reddwarf_objects::kinds().by_gvk("v1", "Event").unwrap();
            let all = self.registry.list(&ListQuery::all(kind)).unwrap().items;
            let text = |event: &Object, field: &str| event.get_str(field).unwrap_or_default().to_owned();
            all.iter().map(|event| (text(event, "/reason"), text(event, "/message"))).collect()
        }
    }

    #[tokio::test]
    async fn f33_storage_that_goes_away_is_told_by_its_cause_and_so_is_its_return() {
        let world = World::new().await;
        let mut told = Told::default();
        assert!(world.storage.check().await.ready);
        for (kind, reason) in [
            (HostErrorKind::NotFound, "StorageAbsent"),
            (HostErrorKind::Timeout, "StorageHangs"),
            (HostErrorKind::Other, "StorageUnavailable"),
        ] {
            world.engine.set_trouble(Some((kind, "the disk is away")));
            let health = world.storage.check().await;
            assert_eq!((health.ready, health.reason), (false, reason));
            assert!(health.message.contains("the disk is away"), "{health:?}");
            world.storage.tell(&world.registry, &mut told, &health).await.unwrap();
        }
        assert!(world.storage.status().await.problem.contains("StorageUnavailable: "));
        world.engine.set_trouble(None);
        let health = world.storage.check().await;
        assert!(health.ready);
        for _ in 0..2 {
            world.storage.tell(&world.registry, &mut told, &health).await.unwrap();
        }
        let reasons: Vec<String> = world.said().into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(reasons.len(), 2, "once that it went, once that it came: {reasons:?}");
        assert!(["StorageAbsent", "StorageReady"].iter().all(|r| reasons.iter().any(|said| said == r)), "{reasons:?}");
    }

    #[tokio::test]
    async fn leftovers_are_in_the_status_and_on_the_node_until_they_are_gone() {
        let world = World::new().await;
        let (mut told, health) = (Told::default(), world.storage.check().await);
        let busy = HostError::new(HostErrorKind::Busy, "destroy dataset", "x", "X is mounted below it");
        world.engine.leftovers().stays("tank/volumes/new:x", &busy);
        for _ in 0..2 {
            world.storage.tell(&world.registry, &mut told, &health).await.unwrap();
        }
        let notices = world.storage.notices();
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert!(notice.starts_with("StorageLeftover: tank/volumes/new:x is left over"), "{notice}");
        assert!(notice.contains("X is mounted below it"), "{notice}");
        world.engine.leftovers().gone("tank/volumes/new:x");
        world.storage.tell(&world.registry, &mut told, &health).await.unwrap();
        assert!(world.storage.notices().is_empty());
        let mut reasons: Vec<String> = world.said().into_iter().map(|(reason, _)| reason).collect();
        reasons.sort();
        assert_eq!(reasons, ["StorageCleared", "StorageLeftover"]);
    }

    /// A place that never answers: whoever asks waits a moment only, and one look hangs, not one for each who asks.
    #[tokio::test]
    async fn f33_a_place_that_hangs_holds_nobody_up() {
        let world = World::new().await;
        let (started, begun) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        *world.storage.looking.lock().await = Some(tokio::task::spawn_blocking(move || {
            started.send(()).unwrap();
            held.recv().unwrap();
            Ok(Capacity { total_bytes: 7, free_bytes: 7 })
        }));
        begun.recv().unwrap();
        for _ in 0..3 {
            let hangs = world.storage.look(Duration::from_millis(10)).await.unwrap_err();
            assert_eq!(hangs.kind, HostErrorKind::Timeout, "{hangs}");
            assert!(hangs.message.contains("does not answer"), "{hangs}");
        }
        release.send(()).unwrap();
        assert_eq!(
            world.storage.look(PATIENCE).await.unwrap().total_bytes,
            7,
            "the look that hung is the one that ends"
        );
        assert_eq!(world.storage.look(PATIENCE).await.unwrap().total_bytes, 1 << 40, "then it is looked anew");
    }
}
