//! The rules of [`StorageEngine`] as cases that every engine has to pass.

use crate::error::{HostErrorKind, HostResult};
use crate::names::{DatasetName, SnapshotName};
use crate::observe::Change;
use crate::storage::{Area, Dataset, DatasetId, DatasetSpec, Limits, StorageEngine, no_room};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an engine's test supplies. The place is empty at first and nobody else's.
#[async_trait]
pub trait StorageFixture: Send + Sync {
    /// The engine under test.
    fn engine(&self) -> Arc<dyn StorageEngine>;
    /// Another one at the same place, as a restarted daemon would open it.
    async fn restart(&self) -> Arc<dyn StorageEngine>;
    /// Datasets have real files.
    fn files(&self) -> bool;
    /// Puts something where this dataset would go that is not ours. False: it can't.
    async fn plant_foreign(&self, id: &DatasetId) -> bool;
    /// A directory for streams.
    fn scratch(&self) -> PathBuf;
}

/// Runs all cases on one fixture, one after the other; panics with the case's words at the first that fails.
///
/// # Panics
/// When the engine breaks a rule.
#[allow(clippy::panic, clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test suite")]
pub async fn suite(fixture: &dyn StorageFixture) {
    let engine = fixture.engine();
    drop(engine.prepare().await.unwrap());
    assert_eq!(engine.prepare().await.unwrap(), Change::Unchanged, "a place that is prepared is left alone");
    made_once_and_destroyed(fixture, &*engine).await;
    whose_it_is(fixture, &*engine).await;
    limits(fixture, &*engine).await;
    snapshots_and_rollback(fixture, &*engine).await;
    clones(fixture, &*engine).await;
    roots(fixture, &*engine).await;
    streams(fixture, &*engine).await;
    survives_a_restart(fixture).await;
    assert!(engine.list().await.unwrap().is_empty(), "the suite leaves nothing");
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
fn volume(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
fn named(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap()
}

fn spec(owner: &str) -> DatasetSpec {
    DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), owner.to_owned())]), ..DatasetSpec::default() }
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: HostResult<T>) -> Option<HostErrorKind> {
    result.err().map(|e| e.kind)
}

/// A dataset's file, if there are files.
struct File<'f> {
    fixture: &'f dyn StorageFixture,
    path: PathBuf,
}

#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test suite")]
impl<'f> File<'f> {
    fn of(fixture: &'f dyn StorageFixture, engine: &dyn StorageEngine, id: &DatasetId) -> Self {
        Self { fixture, path: engine.data(id).join("file") }
    }

    fn write(&self, text: &str) {
        if self.fixture.files() {
            fs::write(&self.path, text).unwrap();
        }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        if self.fixture.files() {
            assert_eq!(fs::read_to_string(&self.path).unwrap(), text);
        }
    }
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn made_once_and_destroyed(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let id = volume("once");
    assert!(matches!(engine.create(&id, &spec("a")).await.unwrap(), Change::Changed(_)));
    assert_eq!(engine.create(&id, &spec("a")).await.unwrap(), Change::Unchanged, "asked again");
    let found = engine.list().await.unwrap();
    assert_eq!(found.get(&id).map(|d| &d.marks), Some(&spec("a").marks));
    if fixture.files() {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(engine.data(&id)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "open to whoever runs in a pod");
    }
    let file = File::of(fixture, engine, &id);
    file.write("kept");
    assert_eq!(engine.create(&id, &spec("a")).await.unwrap(), Change::Unchanged);
    file.says("kept");
    engine.usage(&id).await.unwrap();
    assert!(engine.capacity().await.unwrap().total_bytes > 0);
    assert!(matches!(engine.destroy(&id).await.unwrap(), Change::Changed(_)));
    assert_eq!(engine.destroy(&id).await.unwrap(), Change::Unchanged, "gone already");
    assert!(!engine.list().await.unwrap().contains_key(&id));
    assert!(!engine.data(&id).exists());
    assert_eq!(kind(engine.usage(&id).await), Some(HostErrorKind::NotFound));
    assert_eq!(kind(engine.resize(&id, &Limits::default()).await), Some(HostErrorKind::NotFound));
    assert_eq!(kind(engine.snapshot(&id.at(named("s"))).await), Some(HostErrorKind::NotFound));
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn whose_it_is(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let id = volume("whose");
    assert_eq!(kind(engine.create(&id, &DatasetSpec::default()).await), Some(HostErrorKind::InvalidSpec), "no mark");
    drop(engine.create(&id, &spec("a")).await.unwrap());
    assert_eq!(kind(engine.create(&id, &spec("b")).await), Some(HostErrorKind::Conflict));
    drop(engine.destroy(&id).await.unwrap());
    let foreign = volume("foreign");
    if !fixture.plant_foreign(&foreign).await {
        return;
    }
    assert!(!engine.list().await.unwrap().contains_key(&foreign), "what bears no mark is not ours");
    for result in [
        engine.create(&foreign, &spec("a")).await,
        engine.resize(&foreign, &Limits::default()).await,
        engine.snapshot(&foreign.at(named("s"))).await,
        engine.destroy(&foreign).await,
    ] {
        assert_eq!(kind(result), Some(HostErrorKind::Foreign));
    }
}

#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test suite")]
async fn limits(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    const MIB: u64 = 1 << 20;
    let id = volume("limits");
    let quota = |mib: u64| Limits { quota_bytes: Some(mib * MIB), reservation_bytes: None };
    drop(engine.create(&id, &DatasetSpec { limits: quota(16), ..spec("a") }).await.unwrap());
    assert_eq!(engine.list().await.unwrap()[&id].limits, quota(16));
    if fixture.files() && engine.about().features.quota {
        let big = engine.data(&id).join("big");
        let write = |mib: u64| {
            use std::io::Write;
            let mut file = fs::File::create(&big)?;
            let mut block = vec![0_u8; 1 << 20];
            for n in 0..mib {
                // Nothing that compresses.
                let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for byte in &mut block {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    *byte = x as u8;
                }
                file.write_all(&block)?;
            }
            file.sync_all()
        };
        let failed = write(24).unwrap_err();
        // EDQUOT or ENOSPC, by engine.
        assert!(matches!(failed.raw_os_error(), Some(122 | 28 | 49)), "{failed}");
        // That it is full can be seen, once what was written is on its way to the disk.
        let begun = std::time::Instant::now();
        loop {
            let room = (16 * MIB).saturating_sub(engine.data_bytes(Area::Volumes).await.unwrap()[&id.name]);
            if room <= no_room(16 * MIB) {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "{room} bytes are free, they say, in a volume that is full");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        drop(fs::remove_file(&big));
        drop(engine.resize(&id, &quota(64)).await.unwrap());
        write(24).unwrap();
        assert_eq!(kind(engine.resize(&id, &quota(8)).await), Some(HostErrorKind::InvalidSpec), "less than is used");
    }
    drop(engine.resize(&id, &quota(64)).await.unwrap());
    assert_eq!(engine.resize(&id, &quota(64)).await.unwrap(), Change::Unchanged);
    assert_eq!(engine.create(&id, &DatasetSpec { limits: quota(64), ..spec("a") }).await.unwrap(), Change::Unchanged);
    drop(engine.destroy(&id).await.unwrap());
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn snapshots_and_rollback(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let id = volume("snaps");
    drop(engine.create(&id, &spec("a")).await.unwrap());
    let file = File::of(fixture, engine, &id);
    file.write("one");
    let (first, second) = (id.at(named("first")), id.at(named("second")));
    assert!(matches!(engine.snapshot(&first).await.unwrap(), Change::Changed(_)));
    assert_eq!(engine.snapshot(&first).await.unwrap(), Change::Unchanged);
    file.write("two");
    drop(engine.snapshot(&second).await.unwrap());
    let names = |found: &Dataset| found.snapshots.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&engine.list().await.unwrap()[&id]), ["first", "second"], "the oldest first");
    file.write("three");
    assert_eq!(kind(engine.rollback(&first).await), Some(HostErrorKind::Conflict), "the newer one would be lost");
    file.says("three");
    drop(engine.rollback(&second).await.unwrap());
    file.says("two");
    drop(engine.snapshot_remove(&second).await.unwrap());
    assert_eq!(engine.snapshot_remove(&second).await.unwrap(), Change::Unchanged);
    drop(engine.rollback(&first).await.unwrap());
    file.says("one");
    assert_eq!(engine.list().await.unwrap()[&id].marks, spec("a").marks, "it is still ours");
    assert_eq!(kind(engine.rollback(&second).await), Some(HostErrorKind::NotFound));
    drop(engine.destroy(&id).await.unwrap());
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn clones(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let (id, copy) = (volume("origin"), volume("clone"));
    drop(engine.create(&id, &spec("a")).await.unwrap());
    let file = File::of(fixture, engine, &id);
    file.write("golden");
    let golden = id.at(named("golden"));
    assert_eq!(kind(engine.clone_of(&golden, &copy, &spec("b")).await), Some(HostErrorKind::NotFound));
    drop(engine.snapshot(&golden).await.unwrap());
    file.write("changed");
    assert!(matches!(engine.clone_of(&golden, &copy, &spec("b")).await.unwrap(), Change::Changed(_)));
    assert_eq!(engine.clone_of(&golden, &copy, &spec("b")).await.unwrap(), Change::Unchanged);
    assert_eq!(kind(engine.clone_of(&golden, &copy, &spec("c")).await), Some(HostErrorKind::Conflict));
    let other = File::of(fixture, engine, &copy);
    other.says("golden");
    other.write("own");
    file.says("changed");
    let found = engine.list().await.unwrap();
    assert_eq!((&found[&copy].marks, found[&copy].snapshots.len()), (&spec("b").marks, 0));
    // Either it goes and the clone stays whole, or it is refused.
    match engine.destroy(&id).await {
        Ok(_) => other.says("own"),
        Err(e) => assert_eq!(e.kind, HostErrorKind::Busy, "{e}"),
    }
    other.says("own");
    drop(engine.destroy(&copy).await.unwrap());
    drop(engine.destroy(&id).await.unwrap());
}

/// An image, imported once, and a root of every container: apart from each other and from volumes of the same name.
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test suite")]
async fn roots(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let name = |text: &str| DatasetName::new(text).unwrap();
    let image = DatasetId::image(name("base"));
    drop(engine.create(&image, &spec("image")).await.unwrap());
    File::of(fixture, engine, &image).write("golden");
    let golden = image.at(named("golden"));
    drop(engine.snapshot(&golden).await.unwrap());
    let pods = ["base", "one", "two"].map(|text| DatasetId::root(name(text)));
    for pod in &pods {
        assert!(matches!(engine.clone_of(&golden, pod, &spec("pod")).await.unwrap(), Change::Changed(_)));
        File::of(fixture, engine, pod).says("golden");
    }
    File::of(fixture, engine, &pods[0]).write("own");
    File::of(fixture, engine, &pods[1]).says("golden");
    File::of(fixture, engine, &image).says("golden");
    let own = engine.own_bytes(Area::Pods).await.unwrap();
    assert_eq!(own.keys().map(DatasetName::as_str).collect::<Vec<_>>(), ["base", "one", "two"]);
    assert_eq!(engine.own_bytes(Area::Images).await.unwrap().len(), 1);
    assert_eq!(engine.list().await.unwrap().keys().filter(|id| id.area == Area::Pods).count(), 3);
    // All at once, as pods start.
    let more = ["more-1", "more-2", "more-3"].map(|text| DatasetId::root(name(text)));
    let started = spec("pod");
    let clone = |pod: usize| engine.clone_of(&golden, &more[pod], &started);
    let (first, second, third) = tokio::join!(clone(0), clone(1), clone(2));
    for made in [first, second, third] {
        assert!(matches!(made.unwrap(), Change::Changed(_)));
    }
    for pod in pods.iter().chain(&more) {
        assert!(matches!(engine.destroy(pod).await.unwrap(), Change::Changed(_)));
        assert!(!engine.data(pod).exists());
    }
    assert!(engine.own_bytes(Area::Pods).await.unwrap().is_empty());
    File::of(fixture, engine, &image).says("golden");
    drop(engine.destroy(&image).await.unwrap());
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn streams(fixture: &dyn StorageFixture, engine: &dyn StorageEngine) {
    let (id, copy) = (volume("sent"), volume("received"));
    drop(engine.create(&id, &spec("a")).await.unwrap());
    let file = File::of(fixture, engine, &id);
    file.write("one");
    let (first, second) = (id.at(named("first")), id.at(named("second")));
    let whole = fixture.scratch().join("whole");
    assert_eq!(kind(engine.send(&first, None, &whole).await), Some(HostErrorKind::NotFound));
    assert!(!whole.exists(), "a file that is not complete does not appear");
    drop(engine.snapshot(&first).await.unwrap());
    file.write("two");
    drop(engine.snapshot(&second).await.unwrap());
    assert!(engine.send(&first, None, &whole).await.unwrap() > 0);
    assert_eq!(kind(engine.send(&first, None, &whole).await), Some(HostErrorKind::Conflict), "never overwritten");
    drop(engine.receive(&whole, &copy.at(named("first")), &spec("b")).await.unwrap());
    let other = File::of(fixture, engine, &copy);
    other.says("one");
    let found = engine.list().await.unwrap();
    assert_eq!(found[&copy].marks, spec("b").marks, "it is whose it was received for");
    assert_eq!(found[&copy].snapshots.len(), 1);
    assert_eq!(
        kind(engine.receive(&whole, &copy.at(named("first")), &spec("b")).await),
        Some(HostErrorKind::Conflict),
        "what is there is not replaced by a whole one"
    );
    let increment = fixture.scratch().join("increment");
    let sent = engine.send(&second, Some(&named("first")), &increment).await;
    if engine.about().features.incremental {
        sent.unwrap();
        diverged(fixture, engine, &copy, &increment).await;
        drop(engine.receive(&increment, &copy.at(named("second")), &spec("b")).await.unwrap());
        other.says("two");
        let wrong = engine.send(&first, Some(&named("second")), &fixture.scratch().join("wrong")).await;
        assert_eq!(kind(wrong), Some(HostErrorKind::InvalidSpec), "not the older one");
    } else {
        assert_eq!(kind(sent), Some(HostErrorKind::Unsupported));
    }
    if fixture.files() {
        let nonsense = fixture.scratch().join("nonsense");
        #[allow(clippy::disallowed_methods, reason = "a test's file")]
        fs::write(&nonsense, "no stream").unwrap();
        let to = volume("none").at(named("s"));
        assert_eq!(kind(engine.receive(&nonsense, &to, &spec("b")).await), Some(HostErrorKind::InvalidSpec));
        assert!(!engine.list().await.unwrap().contains_key(&to.dataset), "nothing half-made is left");
    }
    drop(engine.destroy(&copy).await.unwrap());
    drop(engine.destroy(&id).await.unwrap());
}

/// An increment never undoes what was written since the snapshot that it was made since, nor what was kept.
#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn diverged(fixture: &dyn StorageFixture, engine: &dyn StorageEngine, copy: &DatasetId, increment: &Path) {
    let file = File::of(fixture, engine, copy);
    let refused = async |why: &str| {
        let error = engine.receive(increment, &copy.at(named("second")), &spec("b")).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Conflict, "{why}: {error}");
        assert!(!fixture.files() || error.message.contains(why), "{why}: {error}");
    };
    if fixture.files() {
        file.write("mine");
        refused("go back to first first").await;
        file.says("mine");
        drop(engine.rollback(&copy.at(named("first"))).await.unwrap());
        file.says("one");
    }
    drop(engine.snapshot(&copy.at(named("mine"))).await.unwrap());
    refused("remove them first: mine").await;
    let found = engine.list().await.unwrap();
    assert_eq!(found[copy].snapshots.len(), 2, "what was there is there");
    drop(engine.snapshot_remove(&copy.at(named("mine"))).await.unwrap());
}

#[allow(clippy::unwrap_used, reason = "a test suite")]
async fn survives_a_restart(fixture: &dyn StorageFixture) {
    let id = volume("stays");
    let engine = fixture.engine();
    drop(engine.create(&id, &spec("a")).await.unwrap());
    File::of(fixture, &*engine, &id).write("still");
    drop(engine.snapshot(&id.at(named("s"))).await.unwrap());
    let before = engine.list().await.unwrap();
    let engine = fixture.restart().await;
    drop(engine.prepare().await.unwrap());
    assert_eq!(engine.list().await.unwrap(), before);
    File::of(fixture, &*engine, &id).says("still");
    drop(engine.destroy(&id).await.unwrap());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::MemoryEngine;

    struct InMemory(Arc<MemoryEngine>);

    #[async_trait]
    impl StorageFixture for InMemory {
        fn engine(&self) -> Arc<dyn StorageEngine> {
            self.0.clone()
        }
        async fn restart(&self) -> Arc<dyn StorageEngine> {
            self.0.clone()
        }
        fn files(&self) -> bool {
            false
        }
        async fn plant_foreign(&self, id: &DatasetId) -> bool {
            self.0.plant_foreign(id);
            true
        }
        fn scratch(&self) -> PathBuf {
            "/nonexistent".into()
        }
    }

    #[tokio::test]
    async fn the_engine_in_memory_keeps_the_contract() {
        suite(&InMemory(Arc::new(MemoryEngine::new("/nonexistent")))).await;
    }
}
