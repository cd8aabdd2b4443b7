//! The engine on ZFS where zfs(8) is played by hostsim: what the real ones can't be made to do at will, and how many calls it takes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use reddwarf_command::Tools;
use reddwarf_host::{
    DatasetId, DatasetName, DatasetSpec, EngineKind, HostErrorKind, SnapshotId, StorageEngine, SystemClock,
};
use reddwarf_hostsim::lab::Lab;
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

struct World {
    lab: Lab,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { lab: Lab::new(&dir.path().canonicalize().unwrap()).unwrap(), dir }
    }

    async fn engine(&self) -> Arc<dyn StorageEngine> {
        let wanted = Wanted {
            pool: Some("rpool/reddwarf".into()),
            engine: Some(EngineKind::Zfs),
            areas: BTreeMap::new(),
            default: self.dir.path().join("unused"),
            look_for_pools: false,
            record: Some(self.dir.path().join("storage.json")),
        };
        choose(&wanted, Tools::only_in(&self.lab.tools()).unwrap(), None, Arc::new(SystemClock)).await.unwrap()
    }

    fn zfs(&self, args: &[&str]) {
        assert_eq!(self.lab.run("zfs", args).unwrap().code, 0, "{args:?}");
    }

    fn set_health(&self, health: &str) {
        self.lab.change(|state| state.pools.insert("rpool".into(), health.into())).unwrap();
    }

    /// How many calls of the system's tools something takes.
    async fn calls<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        self.lab.forget_transcript().unwrap();
        let done = work.await;
        (self.lab.transcript().unwrap().len(), done)
    }
}

fn volume(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

fn root(number: u32) -> DatasetId {
    DatasetId::root(DatasetName::new(format!("root-{number}")).unwrap())
}

fn spec() -> DatasetSpec {
    DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), "me".to_owned())]), ..DatasetSpec::default() }
}

fn golden(image: &DatasetId) -> SnapshotId {
    image.at("golden".to_owned().try_into().unwrap())
}

/// A pool that lost its disks: every call says which pool and how it is, none waits for it, nothing is taken for absent.
#[tokio::test]
async fn f33_a_suspended_pool_is_named_and_nothing_waits_for_it() {
    let world = World::new();
    let engine = world.engine().await;
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("kept"), &spec()).await.unwrap());
    for health in ["SUSPENDED", "UNAVAIL", "FAULTED"] {
        world.set_health(health);
        // Looking at it asks the pool alone: whatever would wait for its disks is not called.
        world.lab.forget_transcript().unwrap();
        for error in [engine.capacity().await.unwrap_err(), engine.prepare().await.unwrap_err()] {
            assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
            assert!(error.message.contains(&format!("the pool rpool is {health}")), "{error}");
        }
        assert!(world.lab.transcript().unwrap().iter().all(|call| call.tool == "zpool"), "{health}");
    }
    world.set_health("SUSPENDED");
    for error in [
        engine.list().await.unwrap_err(),
        engine.create(&volume("new"), &spec()).await.unwrap_err(),
        engine.destroy(&volume("kept")).await.unwrap_err(),
        engine.usage(&volume("kept")).await.unwrap_err(),
        // A daemon that starts meanwhile.
        world.engine().await.prepare().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
        assert!(error.message.contains("the pool rpool is SUSPENDED: see `zpool status rpool`"), "{error}");
    }
    world.set_health("DEGRADED");
    assert!(engine.list().await.unwrap().contains_key(&volume("kept")));
    assert!(engine.capacity().await.unwrap().total_bytes > 0);
    drop(engine.create(&volume("new"), &spec()).await.unwrap());
}

/// What an earlier call left and is in use is named until it can go; what is others' is not looked at.
#[tokio::test]
async fn what_cannot_be_cleared_away_is_named_until_it_can() {
    let world = World::new();
    drop(world.engine().await.prepare().await.unwrap());
    let staged = "rpool/reddwarf/volumes/new:half";
    world.zfs(&["create", staged]);
    world.zfs(&["create", "rpool/reddwarf/volumes/others"]);
    let inner = format!("{staged}/inner");
    world.zfs(&["create", &inner]);
    let engine = world.engine().await;
    drop(engine.prepare().await.unwrap());
    let left = engine.leftovers().all();
    assert_eq!(left.keys().map(String::as_str).collect::<Vec<_>>(), [staged]);
    assert!(left[staged].contains("new:half/inner lies in it and is not ours"), "{left:?}");
    engine.clear_leftovers().await.unwrap();
    assert!(engine.leftovers().all().contains_key(staged), "what lies in it is somebody else's");
    world.zfs(&["destroy", &inner]);
    engine.clear_leftovers().await.unwrap();
    assert!(engine.leftovers().all().is_empty());
    let datasets = world.lab.state().unwrap().datasets;
    assert!(!datasets.contains_key(staged) && datasets.contains_key("rpool/reddwarf/volumes/others"));
}

/// A dataset is busy for a while after the last file in it was let go of, and how long that takes is the machine's affair.
#[tokio::test]
async fn f29_what_is_busy_for_a_while_goes_nevertheless() {
    let world = World::new();
    let engine = world.engine().await;
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("busy"), &spec()).await.unwrap());
    let name = "rpool/reddwarf/volumes/busy";
    world.lab.change(|s| s.datasets.get_mut(name).unwrap().busy = 10).unwrap();
    drop(engine.destroy(&volume("busy")).await.unwrap());
    assert!(!world.lab.state().unwrap().datasets.contains_key(name));
}

/// Numbers: a container's root costs one call of zfs(8), and looking at all datasets as many as there are areas, however many
/// datasets there are.
#[tokio::test]
async fn a_clone_is_one_call_and_a_list_one_for_each_area() {
    let world = World::new();
    let engine = world.engine().await;
    drop(engine.prepare().await.unwrap());
    let image = DatasetId::image(DatasetName::new("image").unwrap());
    drop(engine.create(&image, &spec()).await.unwrap());
    drop(engine.snapshot(&golden(&image)).await.unwrap());
    for number in 0..12 {
        let (golden, root, spec) = (golden(&image), root(number), spec());
        let (calls, cloned) = world.calls(engine.clone_of(&golden, &root, &spec)).await;
        drop(cloned.unwrap());
        // Of the first one it is not known yet that its origin is ours.
        assert_eq!(calls, if number == 0 { 2 } else { 1 }, "clone {number}");
        assert!(engine.data(&root).is_dir());
    }
    let (calls, listed) = world.calls(engine.list()).await;
    assert_eq!((calls, listed.unwrap().len()), (3, 13));
    let (calls, own) = world.calls(engine.own_bytes(root(0).area)).await;
    assert_eq!((calls, own.unwrap().len()), (1, 12));
    let last = root(11);
    let (calls, gone) = world.calls(engine.destroy(&last)).await;
    drop(gone.unwrap());
    assert!(calls <= 3, "a root's destruction takes {calls} calls");
}
