//! The engine on ZFS is killed before and after each call of zfs(8) that changes something (fault F1): what it finds afterwards
//! it finishes or clears away, nothing is left over, and nothing is destroyed that was there. zfs(8) is played by hostsim.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "starts the test program again, and copies what is played")]

use reddwarf_command::Tools;
use reddwarf_host::{
    Change, DatasetId, DatasetName, DatasetSpec, HostErrorKind, HostResult, Limits, SnapshotId, StorageEngine,
    SystemClock,
};
use reddwarf_hostsim::lab::Lab;
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const DIR: &str = "REDDWARF_TEST_CRASH_DIR";
const STEP: &str = "REDDWARF_TEST_CRASH_STEP";

/// A volume's life, and that of what is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Create,
    Resize,
    Snapshot,
    Clone,
    Rollback,
    SnapshotLater,
    Send,
    Receive,
    ReceiveIncrement,
    RemoveSnapshot,
    DestroyClone,
    Destroy,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Prepare,
        Self::Create,
        Self::Resize,
        Self::Snapshot,
        Self::Clone,
        Self::Rollback,
        Self::SnapshotLater,
        Self::Send,
        Self::Receive,
        Self::ReceiveIncrement,
        Self::RemoveSnapshot,
        Self::DestroyClone,
        Self::Destroy,
    ];
}

fn volume(name: &str) -> DatasetId {
    DatasetId::volume(DatasetName::new(name).unwrap())
}

fn at(name: &str, snapshot: &str) -> SnapshotId {
    volume(name).at(snapshot.to_owned().try_into().unwrap())
}

fn spec(bytes: u64) -> DatasetSpec {
    let limits = Limits { quota_bytes: Some(bytes), reservation_bytes: None };
    DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), "me".to_owned())]), limits, ..DatasetSpec::default() }
}

/// A played system with a pool, somebody's datasets on it, and a volume of ours that stays.
struct World {
    dir: PathBuf,
    lab: Lab,
}

impl World {
    async fn engine(&self) -> Arc<dyn StorageEngine> {
        let wanted = Wanted {
            pool: Some("rpool/reddwarf".into()),
            engine: None,
            areas: BTreeMap::new(),
            default: self.dir.join("unused"),
            look_for_pools: false,
            record: Some(self.dir.join("root/storage.json")),
        };
        choose(&wanted, Tools::only_in(&self.lab.tools()).unwrap(), None, Arc::new(SystemClock)).await.unwrap()
    }

    /// Does one step as the daemon does: on an engine that has just been opened.
    async fn perform(&self, step: Step) -> HostResult<Change> {
        let engine = self.engine().await;
        let sent = |name: &str| self.dir.join("root").join(name);
        let send = async |id: SnapshotId, since: Option<SnapshotId>, file: &Path| {
            let sent = engine.send(&id, since.as_ref().map(|s| &s.name), file).await;
            sent.map(|bytes| Change::Changed(bytes.to_string()))
        };
        match step {
            Step::Prepare => engine.prepare().await,
            Step::Create => engine.create(&volume("one"), &spec(1 << 20)).await,
            Step::Resize => engine.resize(&volume("one"), &spec(1 << 21).limits).await,
            Step::Snapshot => engine.snapshot(&at("one", "s")).await,
            Step::Clone => engine.clone_of(&at("one", "s"), &volume("clone"), &spec(1 << 20)).await,
            Step::Rollback => engine.rollback(&at("one", "s")).await,
            Step::SnapshotLater => engine.snapshot(&at("one", "t")).await,
            Step::Send => {
                for (snapshot, since, file) in [("s", None, "whole"), ("t", Some(at("one", "s")), "increment")] {
                    match send(at("one", snapshot), since, &sent(file)).await {
                        // Sent before it was cut off.
                        Err(e) if e.kind == HostErrorKind::Conflict => {}
                        other => drop(other?),
                    }
                }
                Ok(Change::Unchanged)
            }
            Step::Receive => engine.receive(&sent("whole"), &at("arrived", "s"), &spec(1 << 22)).await,
            Step::ReceiveIncrement => engine.receive(&sent("increment"), &at("arrived", "t"), &spec(1 << 22)).await,
            Step::RemoveSnapshot => engine.snapshot_remove(&at("one", "t")).await,
            Step::DestroyClone => engine.destroy(&volume("clone")).await,
            Step::Destroy => engine.destroy(&volume("arrived")).await,
        }
    }

    /// What users write between the steps.
    async fn written_after(&self, step: Step) {
        let text = match step {
            Step::Create => "old",
            Step::Clone | Step::Rollback => "new",
            _ => return,
        };
        fs::write(self.engine().await.data(&volume("one")).join("file"), text).unwrap();
    }

    /// What a daemon finds when it starts: what is there is whole, and others' are as they were.
    async fn check(&self, why: &str) {
        let engine = self.engine().await;
        drop(engine.prepare().await.unwrap_or_else(|e| panic!("{why}: {}", e.chain())));
        for (id, dataset) in engine.list().await.unwrap() {
            assert_eq!(dataset.marks, spec(0).marks, "{why}: {id}");
            let data = engine.data(&id);
            let mode = fs::metadata(&data).unwrap_or_else(|e| panic!("{why}: {id}: {e}")).permissions().mode();
            assert_eq!(mode & 0o7777, 0o777, "{why}: {id}");
            let text = fs::read_to_string(data.join("file")).unwrap_or_default();
            assert!(["", "old", "new", "precious"].contains(&text.as_str()), "{why}: {id} holds {text:?}");
        }
        assert_eq!(fs::read_to_string(engine.data(&volume("kept")).join("file")).unwrap(), "precious", "{why}");
        let datasets = self.datasets();
        for others in ["rpool/home", "rpool/reddwarf/volumes/foreign", "rpool/reddwarf/volumes/kept@s"] {
            assert!(datasets.contains(others), "{why}: {others} is gone");
        }
        let staged: Vec<_> = datasets.iter().filter(|name| name.contains("new:")).collect();
        assert!(staged.is_empty(), "{why}: {staged:?}");
    }

    fn datasets(&self) -> BTreeSet<String> {
        self.lab.state().unwrap().datasets.into_keys().collect()
    }

    fn copy(&self, from: &str, to: &str) {
        for part in ["root", "state"] {
            let (from, to) = (self.dir.join(from).join(part), self.dir.join(to).join(part));
            let _ = fs::remove_dir_all(&to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        }
    }

    /// Does a step in a process of its own, which a fault kills; whether it came to its end.
    fn run(&self, step: Step) -> bool {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["f1_in_a_process_of_its_own", "--exact"]).env(DIR, &self.dir).env(STEP, format!("{step:?}"));
        let out = child.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() || out.status.signal() == Some(9), "{step:?}: {said}");
        out.status.success()
    }
}

/// The part that is killed; does nothing when it is run as a test.
#[tokio::test]
async fn f1_in_a_process_of_its_own() {
    let (Some(dir), Ok(name)) = (std::env::var_os(DIR), std::env::var(STEP)) else { return };
    let step = Step::ALL.into_iter().find(|step| format!("{step:?}") == name).unwrap();
    let lab = Lab::again(Path::new(&dir)).unwrap();
    let world = World { dir: dir.into(), lab };
    drop(world.perform(step).await.unwrap());
    // The zones of the played system, of which there are none, are not for us to end.
    std::mem::forget(world);
}

#[tokio::test]
async fn f1_a_kill_at_every_call_of_zfs_leaves_volumes_whole_or_absent() {
    // On memory: none of this is about the disk.
    let memory = Path::new("/dev/shm");
    let temporary = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    let world = World { lab: Lab::new(&dir).unwrap(), dir };
    let zfs = |args: &[&str]| assert_eq!(world.lab.run("zfs", args).unwrap().code, 0, "{args:?}");
    let mut kills = 0;
    for step in Step::ALL {
        world.copy(".", "before");
        drop(world.perform(step).await.unwrap());
        let done = world.datasets();
        'killed: for call in 1.. {
            for fault in ["kill-caller", "kill-caller-after"] {
                world.copy("before", ".");
                world.lab.faults(&format!("changing {call} {fault}\n")).unwrap();
                let ended = world.run(step);
                world.lab.faults("").unwrap();
                if ended {
                    break 'killed;
                }
                kills += 1;
                let why = format!("{step:?}, {fault} {call}");
                if step != Step::Prepare {
                    world.check(&why).await;
                }
                match world.perform(step).await {
                    // It was whole before it was cut off: the caller, who knows what it asked for, finds it there.
                    Err(e) if e.kind == HostErrorKind::Conflict && e.message.contains("there") => {}
                    other => drop(other.unwrap_or_else(|e| panic!("{why}: {}", e.chain()))),
                }
                assert_eq!(world.datasets(), done, "{why}");
            }
        }
        world.written_after(step).await;
        if step == Step::Prepare {
            let engine = world.engine().await;
            drop(engine.create(&volume("kept"), &spec(1 << 20)).await.unwrap());
            fs::write(engine.data(&volume("kept")).join("file"), "precious").unwrap();
            drop(engine.snapshot(&at("kept", "s")).await.unwrap());
            zfs(&["create", "rpool/home"]);
            zfs(&["create", "rpool/reddwarf/volumes/foreign"]);
        }
        if step == Step::ReceiveIncrement {
            let arrived = world.engine().await.data(&volume("arrived")).join("file");
            assert_eq!(fs::read_to_string(arrived).unwrap(), "new");
        }
    }
    assert!(kills >= 30, "it was killed {kills} times only");
    let left = world.engine().await.list().await.unwrap();
    assert_eq!(left.keys().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["kept", "one"]);
}
