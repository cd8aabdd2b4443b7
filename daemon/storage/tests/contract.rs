//! Every engine keeps the contract: directories, and btrfs in a file of its own (as root, where btrfs-progs is installed).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "runs real programs")]

mod loopback;

use async_trait::async_trait;
use loopback::{Btrfs, Zfs, calls};
use reddwarf_command::Tools;
use reddwarf_host::contract::storage::{StorageFixture, suite};
use reddwarf_host::storage::Tuning;
use reddwarf_host::{DatasetId, DatasetName, DatasetSpec, EngineKind, HostErrorKind, StorageEngine, SystemClock};
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn wanted(place: &Path, engine: Option<EngineKind>) -> Wanted {
    Wanted {
        pool: None,
        engine,
        areas: BTreeMap::new(),
        default: place.to_owned(),
        look_for_pools: false,
        record: None,
    }
}

async fn open(place: &Path, engine: Option<EngineKind>) -> Arc<dyn StorageEngine> {
    choose(&wanted(place, engine), Tools::linux(), calls(), Arc::new(SystemClock)).await.unwrap()
}

/// An engine below a path.
struct AtPath {
    place: PathBuf,
    kind: EngineKind,
    engine: Arc<dyn StorageEngine>,
    scratch: TempDir,
}

impl AtPath {
    async fn new(place: &Path, kind: EngineKind) -> Self {
        let engine = open(place, Some(kind)).await;
        Self { place: place.to_owned(), kind, engine, scratch: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl StorageFixture for AtPath {
    fn engine(&self) -> Arc<dyn StorageEngine> {
        self.engine.clone()
    }
    async fn restart(&self) -> Arc<dyn StorageEngine> {
        open(&self.place, Some(self.kind)).await
    }
    fn files(&self) -> bool {
        true
    }
    async fn plant_foreign(&self, id: &DatasetId) -> bool {
        let dir = self.engine.root(id.area).join(id.name.as_str());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("precious"), "not ours").unwrap();
        true
    }
    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }
}

fn volume(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

fn spec() -> DatasetSpec {
    DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), "me".to_owned())]), ..DatasetSpec::default() }
}

/// A stream that lost its end on the way makes nothing, wherever it was cut.
async fn cut_streams_make_nothing(fixture: &dyn StorageFixture) {
    let engine = fixture.engine();
    let id = volume("long");
    drop(engine.create(&id, &spec()).await.unwrap());
    // Letters, then zeros: for many a tool a file that ends on zeros looks like its archive's end.
    fs::write(engine.data(&id).join("file"), "long ".repeat(3000) + &"\0".repeat(6000)).unwrap();
    let (snapshot, path) = (id.at("s".to_owned().try_into().unwrap()), fixture.scratch().join("long"));
    drop(engine.snapshot(&snapshot).await.unwrap());
    assert!(engine.send(&snapshot, None, &path).await.unwrap() > 0);
    let (stream, cut) = (fs::read(&path).unwrap(), fixture.scratch().join("cut"));
    let to = volume("cut").at("s".to_owned().try_into().unwrap());
    for end in [1, 512, 600, 1024, 2000, 4096, 10_000].into_iter().chain((8..13).map(|part| stream.len() * part / 16)) {
        fs::write(&cut, &stream[..end]).unwrap();
        let refused = engine.receive(&cut, &to, &spec()).await.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "cut at {end}: {refused}");
        assert!(!engine.list().await.unwrap().contains_key(&to.dataset), "cut at {end}: something half-made is left");
    }
    drop(engine.receive(&path, &to, &spec()).await.unwrap());
    drop(engine.destroy(&to.dataset).await.unwrap());
    drop(engine.destroy(&id).await.unwrap());
}

#[tokio::test]
async fn directories_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = AtPath::new(&dir.path().join("place"), EngineKind::Directory).await;
    suite(&fixture).await;
    cut_streams_make_nothing(&fixture).await;
    let foreign = dir.path().join("place/volumes/foreign/precious");
    assert_eq!(fs::read_to_string(foreign).unwrap(), "not ours");
}

/// A crash after an increment has arrived, before its files are in their place and after: the same call again goes on.
async fn a_cut_off_increment_is_finished(engine: &dyn StorageEngine, scratch: &Path, volumes: &Path) {
    let (from, to) = (volume("from"), volume("to"));
    let at = |id: &DatasetId, name: &str| id.at(name.to_owned().try_into().unwrap());
    let (whole, increment) = (scratch.join("from-whole"), scratch.join("from-increment"));
    drop(engine.create(&from, &spec()).await.unwrap());
    for (text, name) in [("one", "first"), ("two", "second")] {
        fs::write(engine.data(&from).join("file"), text).unwrap();
        drop(engine.snapshot(&at(&from, name)).await.unwrap());
    }
    assert!(engine.send(&at(&from, "first"), None, &whole).await.unwrap() > 0);
    assert!(engine.send(&at(&from, "second"), Some(&at(&from, "first").name), &increment).await.unwrap() > 0);
    drop(engine.receive(&whole, &at(&to, "first"), &spec()).await.unwrap());
    drop(engine.receive(&increment, &at(&to, "second"), &spec()).await.unwrap());
    let (place, second) = (volumes.join("to"), volumes.join(".snapshots/to/second/reddwarf.json"));
    let unapplied = || {
        let mark = fs::read_to_string(&second).unwrap();
        assert!(mark.contains(r#""applied":true"#), "{mark}");
        fs::write(&second, mark.replace(r#""applied":true"#, r#""applied":false"#)).unwrap();
    };
    let says = || fs::read_to_string(engine.data(&to).join("file")).unwrap();
    unapplied();
    drop(engine.receive(&increment, &at(&to, "second"), &spec()).await.unwrap());
    assert_eq!(says(), "two");
    // And before: the dataset is as in its first snapshot still.
    unapplied();
    let mark = fs::read(place.join("reddwarf.json")).unwrap();
    let first = fs::read_dir(volumes.join(".snapshots/to/first")).unwrap().map(|e| e.unwrap().path());
    let first = first.into_iter().find(|path| path.is_dir()).unwrap();
    let btrfs =
        |args: &[&Path]| std::process::Command::new("btrfs").arg("-q").arg("subvolume").args(args).status().unwrap();
    assert!(btrfs(&[Path::new("delete"), &place]).success());
    assert!(btrfs(&[Path::new("snapshot"), &first, &place]).success());
    fs::write(place.join("reddwarf.json"), mark).unwrap();
    assert_eq!(says(), "one");
    drop(engine.receive(&increment, &at(&to, "second"), &spec()).await.unwrap());
    assert_eq!(says(), "two");
    let again = engine.receive(&increment, &at(&to, "second"), &spec()).await.unwrap_err();
    assert_eq!(again.kind, HostErrorKind::Conflict, "done is done: {again}");
    for id in [from, to] {
        drop(engine.destroy(&id).await.unwrap());
    }
}

#[tokio::test]
async fn btrfs_keeps_the_contract() {
    let Some(disk) = Btrfs::mounted(512) else { return };
    let fixture = AtPath::new(&disk.path().join("place"), EngineKind::Btrfs).await;
    suite(&fixture).await;
    cut_streams_make_nothing(&fixture).await;
    a_cut_off_increment_is_finished(&*fixture.engine, fixture.scratch.path(), &disk.path().join("place/volumes")).await;
    assert_eq!(open(&disk.path().join("place"), None).await.about().kind, EngineKind::Btrfs, "chosen without a word");
    // And by btrfs(8) alone, as where the host offers no calls.
    let place = disk.path().join("by-tool");
    let by_tool = choose(&wanted(&place, Some(EngineKind::Btrfs)), Tools::linux(), None, Arc::new(SystemClock)).await;
    let engine = by_tool.unwrap();
    let fixture = AtPath { place, kind: EngineKind::Btrfs, engine, scratch: tempfile::tempdir().unwrap() };
    suite(&fixture).await;
}

/// An engine on a pool.
struct OnPool {
    zfs: Zfs,
    engine: Arc<dyn StorageEngine>,
    scratch: TempDir,
}

impl OnPool {
    async fn open(zfs: &Zfs) -> Arc<dyn StorageEngine> {
        let wanted = Wanted { pool: Some(format!("{}/reddwarf", zfs.pool)), ..wanted(zfs.directory(), None) };
        choose(&wanted, Tools::only_in(zfs.tools()).unwrap(), calls(), Arc::new(SystemClock)).await.unwrap()
    }
}

#[async_trait]
impl StorageFixture for OnPool {
    fn engine(&self) -> Arc<dyn StorageEngine> {
        self.engine.clone()
    }
    async fn restart(&self) -> Arc<dyn StorageEngine> {
        Self::open(&self.zfs).await
    }
    fn files(&self) -> bool {
        true
    }
    async fn plant_foreign(&self, id: &DatasetId) -> bool {
        self.zfs.zfs(&["create", &format!("{}/reddwarf/{}/{}", self.zfs.pool, id.area, id.name)])
    }
    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }
}

/// The contract, and what only a pool can do: datasets of others, a pool that is exported under us.
#[tokio::test]
async fn zfs_keeps_the_contract_and_names_a_pool_that_is_gone() {
    let Some(zfs) = Zfs::with_pool(512) else { return };
    let engine = OnPool::open(&zfs).await;
    let fixture = OnPool { engine: engine.clone(), scratch: tempfile::tempdir().unwrap(), zfs };
    suite(&fixture).await;
    cut_streams_make_nothing(&fixture).await;
    let zfs = &fixture.zfs;
    // Tuning is passed on; what ZFS does not know is the user's mistake.
    let tuned = |compression: &str| DatasetSpec {
        tuning: Tuning { compression: Some(compression.into()), record_size_bytes: Some(16384) },
        ..spec()
    };
    drop(engine.create(&volume("tuned"), &tuned("gzip")).await.unwrap());
    let refused = engine.create(&volume("other"), &tuned("nonsense")).await.unwrap_err();
    assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "{refused}");
    // A volume stays as long as its clone, which is named.
    let (snapshot, clone) = (volume("tuned").at("s".to_owned().try_into().unwrap()), volume("of-tuned"));
    drop(engine.snapshot(&snapshot).await.unwrap());
    drop(engine.clone_of(&snapshot, &clone, &spec()).await.unwrap());
    for busy in [engine.destroy(&volume("tuned")).await, engine.snapshot_remove(&snapshot).await] {
        let busy = busy.unwrap_err();
        assert_eq!(busy.kind, HostErrorKind::Busy, "{busy}");
        assert!(busy.message.contains("volumes/of-tuned is a clone of") && busy.message.contains("tuned@s"), "{busy}");
    }
    drop(engine.destroy(&clone).await.unwrap());
    drop(engine.snapshot_remove(&snapshot).await.unwrap());
    // Somebody's dataset within ours: ours is not destroyed.
    let inner = format!("{}/reddwarf/volumes/tuned/precious", zfs.pool);
    assert!(zfs.zfs(&["create", &inner]));
    let busy = engine.destroy(&volume("tuned")).await.unwrap_err();
    assert_eq!(busy.kind, HostErrorKind::Busy, "{busy}");
    assert!(busy.message.contains("precious"), "{busy}");
    // zfs-fuse lets go of a fresh mount a moment later.
    let mut tries = (0..50).map(|_| std::thread::sleep(std::time::Duration::from_millis(100)));
    assert!(tries.any(|()| zfs.zfs(&["destroy", &inner])));
    // The pool is exported: what is asked says so, nothing is taken for absent.
    assert!(zfs.zpool(&["export", &zfs.pool]));
    for error in [
        engine.list().await.unwrap_err(),
        engine.create(&volume("new"), &spec()).await.unwrap_err(),
        engine.destroy(&volume("tuned")).await.unwrap_err(),
        engine.capacity().await.unwrap_err(),
        OnPool::open(zfs).await.prepare().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, HostErrorKind::NotFound, "{error}");
        assert!(error.message.contains("there is no pool"), "{error}");
    }
    assert!(!engine.data(&volume("new")).exists(), "nothing is written beside the pool");
    assert!(zfs.zpool(&["import", "-d", zfs.directory().to_str().unwrap(), &zfs.pool]));
    assert!(engine.list().await.unwrap().contains_key(&volume("tuned")));
    drop(engine.destroy(&volume("tuned")).await.unwrap());
    another_pool_of_the_name_is_another_pool(zfs).await;
}

/// A pool that was found without a word, and is not imported at the next start; then one of its name that is new.
async fn another_pool_of_the_name_is_another_pool(zfs: &Zfs) {
    let place = zfs.directory().join("place");
    let found =
        Wanted { look_for_pools: true, record: Some(zfs.directory().join("storage.json")), ..wanted(&place, None) };
    let start = || choose(&found, Tools::only_in(zfs.tools()).unwrap(), None, Arc::new(SystemClock));
    let engine = start().await.unwrap();
    assert_eq!(engine.about().kind, EngineKind::Zfs, "{:?}", engine.about());
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("kept"), &spec()).await.unwrap());
    assert!(zfs.zpool(&["export", &zfs.pool]));
    let engine = start().await.unwrap();
    let absent = engine.prepare().await.unwrap_err();
    assert!(absent.message.contains("there is no pool"), "{absent}");
    let (disk, at) = (zfs.directory().join("other"), zfs.directory().join("at-other"));
    fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    assert!(zfs.zpool(&["create", "-m", at.to_str().unwrap(), &zfs.pool, disk.to_str().unwrap()]));
    for other in [engine, start().await.unwrap()] {
        let absent = other.prepare().await.unwrap_err();
        assert!(absent.message.contains("is not there now"), "{absent}");
    }
    assert!(!at.join("reddwarf").exists() && !place.exists(), "nothing was made");
}

/// Where tar(1) itself would take the end of the file for the archive's: between any two blocks, and within some.
#[tokio::test]
async fn an_archive_that_was_cut_off_makes_no_volume() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("place"), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    let (from, to) = (volume("from"), volume("to").at("s".to_owned().try_into().unwrap()));
    drop(engine.create(&from, &spec()).await.unwrap());
    let data = engine.data(&from);
    fs::create_dir(data.join("inner")).unwrap();
    fs::write(data.join("inner/zeros"), vec![0; 3000]).unwrap();
    fs::write(data.join("a name that takes more than the hundred bytes ".repeat(4)), "long").unwrap();
    fs::hard_link(data.join("inner/zeros"), data.join("linked")).unwrap();
    std::os::unix::fs::symlink("inner", data.join("pointer")).unwrap();
    let sparse = fs::File::create(data.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"far", 1 << 20).unwrap();
    let snapshot = from.at("s".to_owned().try_into().unwrap());
    drop(engine.snapshot(&snapshot).await.unwrap());
    let file = dir.path().join("archive");
    assert!(engine.send(&snapshot, None, &file).await.unwrap() > 0);
    let archive = fs::read(&file).unwrap();
    // What follows two blocks of zeros fills up the last record.
    let end = archive.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512) + 1024;
    let cuts = (1..).map(|n| n * 512).take_while(|cut| *cut < end).flat_map(|cut| [cut - 300, cut - 1, cut]);
    let cut_off = dir.path().join("cut");
    for cut in cuts {
        fs::write(&cut_off, &archive[..cut]).unwrap();
        let refused = engine.receive(&cut_off, &to, &spec()).await.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::InvalidSpec, "{cut} of {end}: {refused}");
        assert!(cut < 512 || refused.message.contains("cut off"), "{cut} of {end}: {refused}");
        assert!(!engine.list().await.unwrap().contains_key(&to.dataset), "{cut} of {end}");
        let left = dir.path().join("place/volumes/.snapshots/to");
        assert!(!left.exists() || fs::read_dir(left).unwrap().count() == 0, "{cut} of {end}");
    }
    fs::write(&cut_off, &archive[..end]).unwrap();
    drop(engine.receive(&cut_off, &to, &spec()).await.unwrap());
    assert_eq!(
        fs::read_to_string(engine.data(&to.dataset).join("a name that takes more than the hundred bytes ".repeat(4)))
            .unwrap(),
        "long"
    );
}

/// What a crash leaves at each point is finished or cleared away, and what was whole before is whole after.
#[tokio::test]
async fn whatever_a_crash_leaves_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    for name in ["kept", "rolled", "going"] {
        drop(engine.create(&volume(name), &spec()).await.unwrap());
        fs::write(engine.data(&volume(name)).join("file"), name).unwrap();
        let snapshot = volume(name).at("s".to_owned().try_into().unwrap());
        drop(engine.snapshot(&snapshot).await.unwrap());
    }
    let volumes = dir.path().join("volumes");
    let copy = |from: &str, to: &str| {
        let done = std::process::Command::new("cp").arg("-a").arg(volumes.join(from)).arg(volumes.join(to)).status();
        assert!(done.unwrap().success());
    };
    // In the middle of making one, with and without its mark.
    fs::create_dir_all(volumes.join(".new-half/data")).unwrap();
    copy("kept", ".new-whole");
    // Between the renames of a rollback, and after the second.
    copy("rolled", ".new-rolled");
    fs::rename(volumes.join("rolled"), volumes.join(".old-rolled")).unwrap();
    copy("kept", ".old-kept");
    // In the middle of destroying one, and of making a snapshot.
    fs::rename(volumes.join("going"), volumes.join(".gone-going")).unwrap();
    fs::create_dir_all(volumes.join(".snapshots/kept/.new-t/t/data")).unwrap();

    let engine = open(dir.path(), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    let found = engine.list().await.unwrap();
    assert_eq!(found.keys().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["kept", "rolled"]);
    assert!(found.values().all(|d| d.snapshots.len() == 1));
    for name in ["kept", "rolled"] {
        assert_eq!(fs::read_to_string(engine.data(&volume(name)).join("file")).unwrap(), name);
    }
    let mut left: Vec<_> =
        fs::read_dir(&volumes).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [".snapshots", "kept", "rolled"]);
    let mut left: Vec<_> = fs::read_dir(volumes.join(".snapshots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["kept", "rolled"]);
}

/// Without a word: what was begun on directories stays there; a place that is not mounted is no empty place.
#[tokio::test]
async fn the_choice_says_why_and_absent_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("place"), None).await;
    assert_eq!(engine.about().kind, EngineKind::Directory, "{:?}", engine.about());
    assert!(engine.about().why.contains("no ZFS pool was named"), "{:?}", engine.about());
    assert!(engine.list().await.is_err(), "nothing was prepared: nothing is known");
    let refused =
        choose(&wanted(dir.path(), Some(EngineKind::Btrfs)), Tools::linux(), calls(), Arc::new(SystemClock)).await;
    assert!(refused.unwrap_err().to_string().contains("btrfs"));
    let Some(disk) = Btrfs::mounted(128) else { return };
    let began = open(disk.path(), Some(EngineKind::Directory)).await;
    drop(began.prepare().await.unwrap());
    drop(began.create(&volume("old"), &spec()).await.unwrap());
    let again = open(disk.path(), None).await;
    assert_eq!(again.about().kind, EngineKind::Directory, "{:?}", again.about());
}

/// A disk that runs full: a typed error, and nothing half-made.
#[tokio::test]
async fn a_full_disk_leaves_nothing_half_made() {
    let Some(disk) = loopback::Small::mounted(4) else { return };
    let engine = open(disk.path(), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("big"), &spec()).await.unwrap());
    fs::write(engine.data(&volume("big")).join("file"), vec![7_u8; 3 << 20]).unwrap();
    let full = engine.snapshot(&volume("big").at("s".to_owned().try_into().unwrap())).await.unwrap_err();
    assert_eq!(full.kind, reddwarf_host::HostErrorKind::Exhausted, "{full}");
    let found = engine.list().await.unwrap();
    assert_eq!(found[&volume("big")].snapshots.len(), 0);
    let dir = disk.path().join("volumes/.snapshots/big");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

/// A mount that goes with the test.
#[cfg(target_os = "linux")]
struct Bound(PathBuf);

#[cfg(target_os = "linux")]
impl Bound {
    /// One directory shown at another, as a privileged pod may leave it; `None`, and says so, where that can't be had.
    fn at(source: &Path, target: &Path) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        fs::create_dir_all(target).unwrap();
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>).unwrap();
        Some(Self(target.to_owned()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Bound {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What somebody mounted within a volume is neither removed nor copied, whatever is done with the volume.
#[cfg(target_os = "linux")]
async fn what_is_mounted_within_is_left_alone(engine: &dyn StorageEngine, elsewhere: &Path) {
    drop(engine.prepare().await.unwrap());
    let id = volume("shared");
    let snapshot = id.at("s".to_owned().try_into().unwrap());
    drop(engine.create(&id, &spec()).await.unwrap());
    drop(engine.snapshot(&snapshot).await.unwrap());
    fs::create_dir_all(elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "not ours").unwrap();
    let at = engine.data(&id).join("inner/mount");
    let Some(bound) = Bound::at(elsewhere, &at) else { return };
    for refused in [engine.destroy(&id).await, engine.rollback(&snapshot).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::Busy, "{refused}");
        assert!(refused.message.contains("inner/mount is mounted below it"), "{refused}");
    }
    let (later, copy) = (id.at("t".to_owned().try_into().unwrap()), volume("copy"));
    drop(engine.snapshot(&later).await.unwrap());
    drop(engine.clone_of(&later, &copy, &spec()).await.unwrap());
    assert!(engine.data(&copy).join("inner/mount").is_dir());
    assert!(!engine.data(&copy).join("inner/mount/precious").exists(), "it is no part of the volume");
    assert_eq!(fs::read_to_string(at.join("precious")).unwrap(), "not ours");
    drop(bound);
    assert!(!at.join("precious").exists());
    for id in [id, copy] {
        drop(engine.destroy(&id).await.unwrap());
    }
    assert_eq!(fs::read_to_string(elsewhere.join("precious")).unwrap(), "not ours");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_mounted_within_a_directory_is_left_alone() {
    // Another file system than the volume's, which cp(1) can tell.
    let Some(share) = loopback::Small::mounted(4) else { return };
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("place"), Some(EngineKind::Directory)).await;
    what_is_mounted_within_is_left_alone(&*engine, &share.path().join("share")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_mounted_within_a_subvolume_is_left_alone() {
    let Some(disk) = Btrfs::mounted(128) else { return };
    let engine = open(&disk.path().join("place"), Some(EngineKind::Btrfs)).await;
    what_is_mounted_within_is_left_alone(&*engine, &disk.path().join("share")).await;
}

/// A subvolume that a pod made in its volume would be in no snapshot, and lost by going back: that is said.
#[tokio::test]
async fn a_subvolume_within_a_volume_is_in_no_snapshot_and_is_not_lost() {
    let Some(disk) = Btrfs::mounted(128) else { return };
    let engine = open(&disk.path().join("place"), Some(EngineKind::Btrfs)).await;
    drop(engine.prepare().await.unwrap());
    let (id, before) = (volume("outer"), volume("outer").at("before".to_owned().try_into().unwrap()));
    drop(engine.create(&id, &spec()).await.unwrap());
    drop(engine.snapshot(&before).await.unwrap());
    let inner = engine.data(&id).join("inner");
    let made = std::process::Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&inner).status().unwrap();
    assert!(made.success());
    fs::write(inner.join("precious"), "written by a pod").unwrap();
    let after = id.at("after".to_owned().try_into().unwrap());
    for refused in [engine.snapshot(&after).await, engine.rollback(&before).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, HostErrorKind::Unsupported, "{refused}");
        assert!(refused.message.contains("volumes/outer/data/inner"), "{refused}");
    }
    assert_eq!(fs::read_to_string(inner.join("precious")).unwrap(), "written by a pod");
    drop(engine.destroy(&id).await.unwrap());
}

/// What can't be cleared away is nobody else's trouble.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_leftover_that_stays_keeps_no_other_volume_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("place"), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("kept"), &spec()).await.unwrap());
    let (share, volumes) = (dir.path().join("share"), dir.path().join("place/volumes"));
    fs::create_dir_all(&share).unwrap();
    fs::create_dir_all(volumes.join(".new-other/data")).unwrap();
    let Some(bound) = Bound::at(&share, &volumes.join(".gone-stuck/data/mount")) else { return };
    let engine = open(&dir.path().join("place"), Some(EngineKind::Directory)).await;
    drop(engine.prepare().await.unwrap());
    assert!(engine.list().await.unwrap().contains_key(&volume("kept")));
    assert!(!volumes.join(".new-other").exists(), "what can be cleared away is");
    // It is named until it is gone, which is tried again.
    let stuck = volumes.join(".gone-stuck");
    for _ in 0..2 {
        let left = engine.leftovers().all();
        assert_eq!(left.keys().map(String::as_str).collect::<Vec<_>>(), [stuck.to_str().unwrap()]);
        assert!(left.values().all(|why| why.contains("is mounted below it")), "{left:?}");
        engine.clear_leftovers().await.unwrap();
    }
    drop(bound);
    engine.clear_leftovers().await.unwrap();
    assert!(engine.leftovers().all().is_empty() && !stuck.exists());
    // A volume whose removal is cut short is no volume any more, and named as well.
    drop(engine.create(&volume("held"), &spec()).await.unwrap());
    fs::rename(volumes.join("held"), volumes.join(".gone-held")).unwrap();
    let Some(bound) = Bound::at(&share, &volumes.join(".gone-held/data/mount")) else { return };
    assert!(engine.destroy(&volume("held")).await.is_err());
    assert!(engine.leftovers().all().contains_key(volumes.join(".gone-held").to_str().unwrap()));
    drop(bound);
    drop(engine.destroy(&volume("held")).await.unwrap());
    assert!(engine.leftovers().all().is_empty());
}
