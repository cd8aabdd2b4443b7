//! Storage that is not there is never taken for another one: nothing is begun beside a disk that is not mounted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "runs real programs")]

#[allow(dead_code, reason = "other tests use the rest")]
mod loopback;

use loopback::Btrfs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use reddwarf_command::Tools;
use reddwarf_host::{DatasetId, DatasetName, DatasetSpec, EngineKind, HostErrorKind, StorageEngine, SystemClock};
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A daemon's settings and state.
struct Daemon {
    default: PathBuf,
    state: PathBuf,
}

impl Daemon {
    fn new(default: PathBuf, state: &Path) -> Self {
        Self { default, state: state.to_owned() }
    }

    fn record(&self) -> PathBuf {
        self.state.join("storage.json")
    }

    async fn start(&self) -> Arc<dyn StorageEngine> {
        let wanted = Wanted {
            pool: None,
            engine: None,
            areas: BTreeMap::new(),
            default: self.default.clone(),
            look_for_pools: false,
            record: Some(self.record()),
        };
        choose(&wanted, Tools::linux(), None, Arc::new(SystemClock)).await.unwrap()
    }
}

fn volume(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

fn spec() -> DatasetSpec {
    DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), "me".to_owned())]), ..DatasetSpec::default() }
}

/// A disk, and where it is mounted now and then.
struct Disk {
    real: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn mount(&self) {
        mount(Some(&self.real), &self.at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }

    fn unmount(&self) {
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// The life of a volume on a disk that comes and goes.
async fn comes_and_goes(real: PathBuf, state: &Path, kind: EngineKind) {
    let disk = Disk { real, at: state.join("mnt") };
    for dir in [&disk.real, &disk.at] {
        fs::create_dir_all(dir).unwrap();
    }
    disk.mount();
    let daemon = Daemon::new(disk.at.join("place"), state);
    let running = daemon.start().await;
    assert_eq!(running.about().kind, kind, "{:?}", running.about());
    drop(running.prepare().await.unwrap());
    drop(running.create(&volume("kept"), &spec()).await.unwrap());
    fs::write(running.data(&volume("kept")).join("file"), "precious").unwrap();
    disk.unmount();
    let started = daemon.start().await;
    assert_eq!(started.about().kind, kind, "{:?}", started.about());
    for error in [
        started.prepare().await.unwrap_err(),
        started.create(&volume("new"), &spec()).await.unwrap_err(),
        running.create(&volume("new"), &spec()).await.unwrap_err(),
        // Unchanged would be: it is gone.
        running.destroy(&volume("kept")).await.unwrap_err(),
        running.list().await.unwrap_err(),
        running.capacity().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, HostErrorKind::NotFound, "{error}");
        assert!(error.message.contains("is not there now") && error.message.contains("storage.json"), "{error}");
    }
    assert_eq!(fs::read_dir(&disk.at).unwrap().count(), 0, "nothing was made beside the disk");
    disk.mount();
    for engine in [started, running] {
        drop(engine.prepare().await.unwrap());
        assert!(engine.list().await.unwrap().contains_key(&volume("kept")));
        assert_eq!(fs::read_to_string(engine.data(&volume("kept")).join("file")).unwrap(), "precious");
    }
}

#[tokio::test]
async fn nothing_is_begun_beside_a_disk_that_is_not_mounted() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    comes_and_goes(dir.path().join("real"), dir.path(), EngineKind::Directory).await;
}

/// Without its disk the place is on another file system, which would have meant another engine.
#[tokio::test]
async fn subvolumes_stay_subvolumes_while_their_disk_is_away() {
    let Some(btrfs) = Btrfs::mounted(128) else { return };
    let dir = tempfile::tempdir().unwrap();
    comes_and_goes(btrfs.path().join("real"), dir.path(), EngineKind::Btrfs).await;
}

#[tokio::test]
async fn a_move_is_accepted_where_nothing_is_left_behind_or_when_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] =
        ["first", "second", "third"].map(|name| Daemon::new(dir.path().join(name), dir.path()));
    drop(first.start().await.prepare().await.unwrap());
    // Nothing was there yet.
    let engine = second.start().await;
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("kept"), &spec()).await.unwrap());
    let engine = third.start().await;
    for refused in [engine.prepare().await.unwrap_err(), engine.create(&volume("x"), &spec()).await.unwrap_err()] {
        assert_eq!(refused.kind, HostErrorKind::NotFound, "{refused}");
    }
    let refused = engine.prepare().await.unwrap_err().message;
    for named in ["second/volumes", "third/volumes", "remove", "storage.json"] {
        assert!(refused.contains(named), "{refused}");
    }
    assert!(!third.default.exists(), "nothing was made");
    fs::remove_file(third.record()).unwrap();
    drop(engine.prepare().await.unwrap());
    drop(engine.create(&volume("x"), &spec()).await.unwrap());
    // And back, the same way: what was left behind is as it was.
    assert!(second.start().await.prepare().await.is_err());
    fs::remove_file(second.record()).unwrap();
    let engine = second.start().await;
    drop(engine.prepare().await.unwrap());
    assert!(engine.list().await.unwrap().contains_key(&volume("kept")));
    // The directory was moved as a whole: it is the same storage.
    fs::rename(dir.path().join("second"), dir.path().join("fourth")).unwrap();
    let engine = Daemon::new(dir.path().join("fourth"), dir.path()).start().await;
    drop(engine.prepare().await.unwrap());
    assert!(engine.list().await.unwrap().contains_key(&volume("kept")));
}

/// Of before there was a record.
#[tokio::test]
async fn what_was_begun_without_a_record_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(dir.path().join("place"), dir.path());
    let mark = r#"{"version":1,"marks":{"owner":"me"},"created":"2026-01-01T00:00:00Z"}"#;
    fs::create_dir_all(dir.path().join("place/volumes/old/data")).unwrap();
    fs::write(dir.path().join("place/volumes/old/reddwarf.json"), mark).unwrap();
    let engine = daemon.start().await;
    drop(engine.prepare().await.unwrap());
    assert!(engine.list().await.unwrap().contains_key(&volume("old")));
    // Cut off before the record was written: the id that is there stays.
    let id = fs::read_to_string(dir.path().join("place/volumes/.reddwarf-id")).unwrap();
    fs::remove_file(daemon.record()).unwrap();
    drop(daemon.start().await.prepare().await.unwrap());
    assert_eq!(fs::read_to_string(dir.path().join("place/volumes/.reddwarf-id")).unwrap(), id);
    assert!(fs::read_to_string(daemon.record()).unwrap().contains(&id));
    // A damaged record is no absent one.
    fs::write(daemon.record(), "{").unwrap();
    let refused = daemon.start().await.prepare().await.unwrap_err();
    assert!(refused.to_string().contains("storage.json"), "{refused}");
}
