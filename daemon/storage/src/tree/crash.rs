//! Points at which a test kills the process: between any two steps of a change (fault F1). Nothing outside of tests.

/// Here something has just changed, or is just about to.
#[cfg(not(test))]
pub(super) fn point() {}

#[cfg(test)]
pub(super) use armed::point;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "starts the test program again and waits for its end")]
mod armed {
    use crate::tree::{Layout, TreeEngine, directory};
    use reddwarf_command::Tools;
    use reddwarf_host::{DatasetId, DatasetName, DatasetSpec, Limits, SnapshotId, StorageEngine, SystemClock};
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    const AT: &str = "REDDWARF_TEST_CRASH_AT";
    const DIR: &str = "REDDWARF_TEST_CRASH_DIR";

    pub(in super::super) fn point() {
        let wanted = std::env::var(AT).ok().and_then(|n| n.parse().ok());
        if wanted == Some(PASSED.fetch_add(1, Ordering::Relaxed)) {
            // As `kill -9` does it.
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    fn engine(dir: &Path) -> TreeEngine {
        let layout = Layout::new(dir.join("place"), BTreeMap::new());
        directory::engine(layout, Tools::linux(), "a test", Arc::new(SystemClock))
    }

    fn volume(name: &str) -> DatasetId {
        DatasetId::volume(DatasetName::new(name).unwrap())
    }

    fn named(id: &DatasetId, snapshot: &str) -> SnapshotId {
        id.at(snapshot.to_owned().try_into().unwrap())
    }

    fn spec(bytes: u64) -> DatasetSpec {
        let marks = BTreeMap::from([("owner".to_owned(), "me".to_owned())]);
        let limits = Limits { quota_bytes: Some(bytes), reservation_bytes: None };
        DatasetSpec { marks, limits, ..DatasetSpec::default() }
    }

    /// A volume's life, and that of its clone.
    async fn everything(dir: &Path) {
        let engine = engine(dir);
        drop(engine.prepare().await.unwrap());
        let (one, clone) = (volume("one"), volume("clone"));
        let write = |id: &DatasetId, text: &str| fs::write(engine.data(id).join("file"), text).unwrap();
        drop(engine.create(&one, &spec(1 << 20)).await.unwrap());
        write(&one, "old");
        drop(engine.snapshot(&named(&one, "s")).await.unwrap());
        write(&one, "new");
        drop(engine.clone_of(&named(&one, "s"), &clone, &spec(1 << 20)).await.unwrap());
        drop(engine.resize(&one, &spec(1 << 21).limits).await.unwrap());
        // Left of the last time, perhaps.
        drop(engine.snapshot_remove(&named(&one, "t")).await.unwrap());
        drop(engine.rollback(&named(&one, "s")).await.unwrap());
        drop(engine.snapshot(&named(&one, "t")).await.unwrap());
        drop(engine.snapshot_remove(&named(&one, "t")).await.unwrap());
        drop(engine.destroy(&clone).await.unwrap());
        drop(engine.destroy(&one).await.unwrap());
    }

    /// What a daemon finds afterwards: what is there is whole, and nothing else is.
    async fn check(dir: &Path, at: u32) {
        let engine = engine(dir);
        drop(engine.prepare().await.unwrap_or_else(|e| panic!("killed at {at}: {}", e.chain())));
        let found = engine.list().await.unwrap();
        let kept = fs::read_to_string(engine.data(&volume("kept")).join("file")).unwrap();
        assert_eq!((kept.as_str(), found.contains_key(&volume("kept"))), ("precious", true), "killed at {at}");
        for (id, dataset) in &found {
            assert_eq!(dataset.marks, spec(0).marks, "killed at {at}: {id}");
            let text = fs::read_to_string(engine.data(id).join("file")).unwrap_or_default();
            let legal = ["", "old", "new", "precious"].contains(&text.as_str());
            assert!(legal && engine.data(id).is_dir(), "killed at {at}: {id} holds {text:?}");
            for snapshot in &dataset.snapshots {
                let path = dir.join(format!("place/volumes/.snapshots/{0}/{1}/{1}/data/file", id.name, snapshot.name));
                assert_eq!(fs::read_to_string(path).unwrap(), "old", "killed at {at}: {id}@{}", snapshot.name);
            }
        }
        let names = fs::read_dir(dir.join("place/volumes")).unwrap().map(|e| e.unwrap().file_name());
        let half: Vec<_> =
            names.filter(|n| n.to_str().is_some_and(|n| n.starts_with('.') && n != ".snapshots")).collect();
        assert!(half.is_empty(), "killed at {at}: {half:?}");
    }

    /// The part that is killed; does nothing when it is run as a test.
    #[tokio::test]
    async fn f1_in_a_process_of_its_own() {
        if let Some(dir) = std::env::var_os(DIR) {
            everything(Path::new(&dir)).await;
        }
    }

    #[tokio::test]
    async fn f1_a_kill_at_every_step_of_a_volumes_life_leaves_it_whole_or_absent() {
        // On memory: every step waits for its disk, and this test has no time for that.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let first = engine(dir.path());
        drop(first.prepare().await.unwrap());
        drop(first.create(&volume("kept"), &spec(1 << 20)).await.unwrap());
        fs::write(first.data(&volume("kept")).join("file"), "precious").unwrap();
        let run = |at: Option<u32>| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["tree::crash::armed::f1_in_a_process_of_its_own", "--exact"]).env(DIR, dir.path());
            child.env(AT, at.map_or_else(String::new, |at| at.to_string())).output().unwrap()
        };
        let mut at = 0;
        loop {
            let out = run(Some(at));
            check(dir.path(), at).await;
            if out.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&out.stdout);
            assert_eq!(out.status.signal(), Some(9), "killed at {at}: {said}");
            // Whatever was left, the same is asked again, and done.
            let again = run(None);
            assert!(again.status.success(), "after {at}: {}", String::from_utf8_lossy(&again.stdout));
            at += 1;
        }
        assert!(at > 30, "it was killed at {at} points only");
        assert_eq!(engine(dir.path()).list().await.unwrap().len(), 1, "all but the one that stays is gone");
    }
}
