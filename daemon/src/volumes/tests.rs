//! Volumes by hand, over an engine in memory: what a repeat finishes, and what it refuses.

use super::*;
use reddwarf_host::StorageEngine;
use reddwarf_host::fake::{MemoryEngine, StorageFault};
use reddwarf_registry::DeleteOptions;
use reddwarf_store::{Store, StoreOptions};
use std::sync::Arc;

/// A daemon's storage and store, with a volume `notes` that has a snapshot `s`.
struct World {
    engine: Arc<MemoryEngine>,
    storage: Storage,
    registry: Registry,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now: reddwarf_registry::Clock = Arc::new(|| "2026-01-02T03:04:05Z".parse().unwrap());
        let store = Store::open(dir.path().join("store.redb"), StoreOptions::new(now.clone())).unwrap().store;
        let registry = Registry::open(store, now).await.unwrap();
        let engine = Arc::new(MemoryEngine::new(dir.path()));
        let world = Self { storage: Storage::over(engine.clone()), engine, registry, dir };
        let marks = BTreeMap::from([("owner".to_owned(), "u".to_owned())]);
        drop(world.engine.create(&id("notes"), &DatasetSpec { marks, ..DatasetSpec::default() }).await.unwrap());
        world.snapshot("s").await;
        world
    }

    async fn snapshot(&self, name: &str) {
        drop(self.engine.snapshot(&id("notes").at(SnapshotName::new(name).unwrap())).await.unwrap());
    }

    /// Writes a stream of the snapshot `s`, or of what is newer.
    async fn stream(&self, name: &str, snapshot: &str, since: Option<&str>) -> String {
        let path = self.dir.path().join(name);
        let since = since.map(|s| SnapshotName::new(s).unwrap());
        let of = id("notes").at(SnapshotName::new(snapshot).unwrap());
        self.engine.send(&of, since.as_ref(), &path).await.unwrap();
        io::Write::write_all(&mut File::create(&path).unwrap(), name.as_bytes()).unwrap();
        path.display().to_string()
    }

    async fn act(&self, action: VolumeAction, request: VolumeRequest) -> Result<String, RuntimeError> {
        act(&self.storage, &self.registry, action, &request).await.map(|done| done.message)
    }

    async fn receive(&self, snapshot: &str, path: &str) -> Result<String, RuntimeError> {
        let text = str::to_owned;
        let request =
            VolumeRequest { volume: text("c"), snapshot: text(snapshot), path: text(path), ..VolumeRequest::default() };
        self.act(VolumeAction::Receive, request).await
    }

    async fn clone(&self, snapshot: &str) -> Result<String, RuntimeError> {
        let text = str::to_owned;
        let request = VolumeRequest {
            volume: text("notes"),
            snapshot: text(snapshot),
            to: text("c"),
            ..VolumeRequest::default()
        };
        self.act(VolumeAction::Clone, request).await
    }

    fn key(&self) -> ObjectKey {
        let name = "default-c".to_owned();
        ObjectKey { group: String::new(), resource: "persistentvolumes".into(), namespace: None, name }
    }

    fn volume(&self) -> Option<Object> {
        self.registry.find(&self.key()).unwrap()
    }

    async fn delete(&self) {
        self.registry.delete(&US, &self.key(), &DeleteOptions::default()).await.unwrap();
    }

    async fn take(&self) {
        self.registry.modify(&US, &self.key(), |v| v.set("/spec/claimRef/uid", "u")).await.unwrap();
    }

    async fn limit(&self) -> Option<u64> {
        self.engine.list().await.unwrap()[&id("default-c")].limits.quota_bytes
    }
}

fn id(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

fn conflict(said: Result<String, RuntimeError>, part: &str) {
    match said {
        Err(RuntimeError::Conflict(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_receive_that_was_cut_off_is_finished_by_a_repeat_and_nothing_else() {
    let world = World::new().await;
    let (one, other) = (world.stream("one", "s", None).await, world.stream("other", "s", None).await);
    world.receive("s", &one).await.unwrap();
    // As when the daemon was killed before it made the object.
    world.delete().await;
    conflict(world.receive("s", &other).await, "it is there already");
    assert!(world.volume().is_none(), "nothing was made of another stream");
    world.receive("s", &one).await.unwrap();
    assert!(world.volume().is_some());
    assert!(world.receive("s", &one).await.unwrap().contains("was there already"));
    world.take().await;
    conflict(world.receive("s", &one).await, "claim default/c has it");
    world.receive("s", "/nowhere").await.unwrap_err();
}

#[tokio::test]
async fn an_increment_that_was_cut_off_leaves_a_volume_with_a_limit() {
    let world = World::new().await;
    let whole = world.stream("whole", "s", None).await;
    world.snapshot("t").await;
    let newer = world.stream("newer", "t", Some("s")).await;
    world.receive("s", &whole).await.unwrap();
    assert!(world.limit().await.is_some());
    // Its files are there, its limit and its answer are lost.
    let free = Limits::default();
    drop(world.engine.resize(&id("default-c"), &free).await.unwrap());
    let marks = world.engine.list().await.unwrap()[&id("default-c")].marks.clone();
    let spec = DatasetSpec { marks, ..DatasetSpec::default() };
    let to = id("default-c").at(SnapshotName::new("t").unwrap());
    drop(world.engine.receive(Path::new(&newer), &to, &spec).await.unwrap());
    drop(world.receive("t", &newer).await);
    assert!(world.limit().await.is_some(), "it is held to a size again");
    // One that fails leaves the limit as it was.
    world.engine.plan_faults([StorageFault::Before(HostErrorKind::Exhausted)]);
    world.receive("t", &newer).await.unwrap_err();
    assert!(world.limit().await.is_some());
}

#[tokio::test]
async fn a_clone_is_of_what_was_asked_for() {
    let world = World::new().await;
    world.snapshot("t").await;
    world.clone("s").await.unwrap();
    world.delete().await;
    conflict(world.clone("t").await, "a clone of notes@s of");
    assert!(world.volume().is_none());
    assert!(world.clone("s").await.unwrap().contains("was there already"));
    assert!(world.volume().is_some());
    // Of the same name, and another one.
    drop(world.engine.snapshot_remove(&id("notes").at(SnapshotName::new("s").unwrap())).await.unwrap());
    world.snapshot("s").await;
    conflict(world.clone("s").await, "a clone of notes@s of");
    world.take().await;
    conflict(world.clone("s").await, "claim default/c has it");
}

#[tokio::test]
async fn another_object_of_the_name_is_left_alone() {
    let world = World::new().await;
    let value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "default-c"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    world.registry.create(&US, Object::from_value(value).unwrap(), WriteOptions::default()).await.unwrap();
    conflict(world.clone("s").await, "there is a PersistentVolume default-c");
    assert!(!world.engine.list().await.unwrap().contains_key(&id("default-c")));
}

#[test]
fn there_is_room_for_what_is_there() {
    assert_eq!((room(0), room(4096), room(1 << 20)), (1 << 20, 1 << 20, 2 << 20));
    assert_eq!(room(160 << 20), 171 << 20);
    assert!(room(u64::MAX) > u64::MAX / 2, "no overflow");
}
