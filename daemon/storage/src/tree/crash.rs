//! Points at which a test kills the process: between any two steps of a change (fault F1). Nothing outside of tests.

/// Here something has just changed, or is just about to.
#[cfg(not(test))]
pub(super) fn point() {}

#[cfg(test)]
pub(super) use armed::point;

#[cfg(test)]
#[allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of their own use the rest of it, and run real programs"
)]
#[path = "../../tests/loopback/mod.rs"]
mod loopback;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "starts the test program again and waits for its end")]
mod armed {
    use crate::tree::{Layout, TreeEngine, btrfs, directory};
    use reddwarf_command::Tools;
    use reddwarf_host::{
        Change, DatasetId, DatasetName, DatasetSpec, HostErrorKind, HostResult, Limits, SnapshotId, StorageEngine,
        SystemClock,
    };
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Command, Output};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    const AT: &str = "REDDWARF_TEST_CRASH_AT";
    const DIR: &str = "REDDWARF_TEST_CRASH_DIR";
    const KIND: &str = "REDDWARF_TEST_CRASH_KIND";
    const TOOLS: &str = "REDDWARF_TEST_CRASH_TOOLS";

    /// What keeps the trees.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Directory,
        /// Subvolumes by the kernel's calls.
        Calls,
        /// By btrfs(8) alone.
        Tool,
    }

    impl Kind {
        const ALL: [Self; 3] = [Self::Directory, Self::Calls, Self::Tool];
    }

    pub(in super::super) fn point() {
        let wanted = std::env::var(AT).ok().and_then(|n| n.parse().ok());
        if wanted == Some(PASSED.fetch_add(1, Ordering::Relaxed)) {
            // As `kill -9` does it.
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    fn engine(dir: &Path, kind: Kind) -> TreeEngine {
        let (layout, clock) = (Layout::new(dir.join("place"), BTreeMap::new()), Arc::new(SystemClock));
        let subvolumes = if kind == Kind::Calls { super::loopback::calls() } else { None };
        let tools = std::env::var_os(TOOLS).map(|dir| Tools::only_in(Path::new(&dir)).unwrap());
        let tools = tools.unwrap_or_else(Tools::linux);
        match kind {
            Kind::Directory => directory::engine(layout, tools, "a test", clock),
            Kind::Calls | Kind::Tool => btrfs::engine(layout, tools, subvolumes, "a test", clock),
        }
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

    /// What was done before the kill is found to be there.
    fn done_or_there(done: HostResult<Change>) {
        match done {
            Err(e) if e.kind == HostErrorKind::Conflict && e.message.contains("already") => {}
            other => drop(other.unwrap()),
        }
    }

    /// A volume's life, that of its clone, and of what is received of it.
    async fn everything(dir: &Path, kind: Kind) {
        let engine = engine(dir, kind);
        drop(engine.prepare().await.unwrap());
        let (one, clone, arrived) = (volume("one"), volume("clone"), volume("arrived"));
        let write = |id: &DatasetId, text: &str| fs::write(engine.data(id).join("file"), text).unwrap();
        let send = async |id: SnapshotId, since: Option<&str>| {
            let file = dir.join(format!("sent-{}", id.name));
            let _ = fs::remove_file(&file);
            let since = since.map(|name| named(&one, name).name);
            engine.send(&id, since.as_ref(), &file).await.unwrap();
            file
        };
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
        if engine.about().features.incremental {
            let whole = send(named(&one, "s"), None).await;
            done_or_there(engine.receive(&whole, &named(&arrived, "s"), &spec(1 << 22)).await);
            let increment = send(named(&one, "t"), Some("s")).await;
            done_or_there(engine.receive(&increment, &named(&arrived, "t"), &spec(1 << 22)).await);
        }
        drop(engine.snapshot_remove(&named(&one, "t")).await.unwrap());
        for id in [clone, arrived, one] {
            drop(engine.destroy(&id).await.unwrap());
        }
    }

    /// What a daemon finds afterwards: what is there is whole, and nothing else is.
    async fn check(dir: &Path, kind: Kind, at: u32) {
        let engine = engine(dir, kind);
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
        let (Some(dir), Ok(name)) = (std::env::var_os(DIR), std::env::var(KIND)) else { return };
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name).unwrap();
        everything(Path::new(&dir), kind).await;
    }

    fn child(dir: &Path, kind: Kind) -> Command {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["tree::crash::armed::f1_in_a_process_of_its_own", "--exact"]).env(DIR, dir);
        child.env(KIND, format!("{kind:?}"));
        child
    }

    fn run(dir: &Path, kind: Kind, at: Option<u32>) -> Output {
        child(dir, kind).env(AT, at.map_or_else(String::new, |at| at.to_string())).output().unwrap()
    }

    /// One that is there when the others come and when they have gone.
    async fn keep_one(dir: &Path, kind: Kind) {
        let engine = engine(dir, kind);
        drop(engine.prepare().await.unwrap());
        drop(engine.create(&volume("kept"), &spec(1 << 20)).await.unwrap());
        fs::write(engine.data(&volume("kept")).join("file"), "precious").unwrap();
    }

    /// Kills it at each point; at how many that were. `left`: what nothing but a look at the disk tells, of what lies there.
    async fn kill_everywhere(dir: &Path, kind: Kind, left: impl Fn() -> Vec<String>) -> u32 {
        keep_one(dir, kind).await;
        let before = left();
        let mut at = 0;
        loop {
            let out = run(dir, kind, Some(at));
            check(dir, kind, at).await;
            if out.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&out.stdout);
            assert_eq!(out.status.signal(), Some(9), "killed at {at}: {said}");
            // Whatever was left, the same is asked again, and done.
            let again = run(dir, kind, None);
            assert!(again.status.success(), "after {at}: {}", String::from_utf8_lossy(&again.stdout));
            assert_eq!(left(), before, "after {at}");
            at += 1;
        }
        assert_eq!(engine(dir, kind).list().await.unwrap().len(), 1, "all but the one that stays is gone");
        at
    }

    #[tokio::test]
    async fn f1_a_kill_at_every_step_of_a_volumes_life_leaves_it_whole_or_absent() {
        // On memory: every step waits for its disk, and this test has no time for that.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let points = kill_everywhere(dir.path(), Kind::Directory, Vec::new).await;
        assert!(points > 30, "it was killed at {points} points only");
    }

    /// All subvolumes of a file system.
    #[cfg(target_os = "linux")]
    fn subvolumes(of: &Path) -> Vec<String> {
        let out = Command::new("btrfs").args(["subvolume", "list"]).arg(of).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter_map(|line| Some(line.split_once(" path ")?.1.to_owned())).collect()
    }

    #[cfg(target_os = "linux")]
    async fn kill_everywhere_on_btrfs(kind: Kind) {
        let Some(disk) = super::loopback::Btrfs::mounted(256) else { return };
        let points = kill_everywhere(disk.path(), kind, || subvolumes(disk.path())).await;
        assert!(points > 50, "{kind:?}: it was killed at {points} points only");
    }

    /// Between any two calls of the kernel's.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn f1_a_kill_at_every_step_of_a_subvolumes_life_leaves_it_whole_or_absent() {
        kill_everywhere_on_btrfs(Kind::Calls).await;
    }

    /// Between any two runs of btrfs(8).
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn f1_without_calls_of_the_kernels_too() {
        kill_everywhere_on_btrfs(Kind::Tool).await;
    }

    /// Of what btrfs(8) does by halves, one half, and both die: the `number`th time that it is asked for this.
    #[cfg(target_os = "linux")]
    const BY_HALVES: &str = r#"#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd "$(dirname "$0")"
if [ "$1" = VERB ]; then
    echo >>asked
    if [ "$(wc -l <asked)" -eq NUMBER ]; then
        for word; do
            [ "$before" = -f ] && file=$word
            before=$word
        done
        if [ "$1" = send ]; then
            btrfs "$@"
            truncate -s "$(($(stat -c %s "$file") / 2))" "$file"
        else
            head -c "$(($(stat -c %s "$file") / 2))" "$file" | btrfs receive --quiet "$word"
        fi
        kill -9 "$PPID"
        exit 1
    fi
fi
exec btrfs "$@"
"#;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn f1_a_kill_within_a_stream_leaves_nothing_of_it() {
        let Some(disk) = super::loopback::Btrfs::mounted(256) else { return };
        let (dir, kind) = (disk.path(), Kind::Tool);
        keep_one(dir, kind).await;
        let before = subvolumes(dir);
        for (verb, number) in [("send", 1), ("send", 2), ("receive", 1), ("receive", 2)] {
            let tools = tempfile::tempdir().unwrap();
            let script = BY_HALVES.replace("VERB", verb).replace("NUMBER", &number.to_string());
            fs::write(tools.path().join("btrfs"), script).unwrap();
            let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(tools.path().join("btrfs"), all).unwrap();
            let out = child(dir, kind).env(TOOLS, tools.path()).output().unwrap();
            assert_eq!(out.status.signal(), Some(9), "{verb} {number}: {}", String::from_utf8_lossy(&out.stdout));
            assert!(subvolumes(dir).len() > before.len(), "{verb} {number}: it was in the middle");
            check(dir, kind, number).await;
            let again = run(dir, kind, None);
            assert!(again.status.success(), "{verb} {number}: {}", String::from_utf8_lossy(&again.stdout));
            assert_eq!(subvolumes(dir), before, "{verb} {number}");
        }
    }
}
