//! Points at which a test kills the process: between any two changes of the store (fault F1). Nothing outside of tests.

/// Here the store has just changed, or is just about to.
#[cfg(not(test))]
pub(super) fn point() {}

#[cfg(test)]
pub(super) use armed::{passed, point};

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "starts the test program again and waits for its end")]
mod armed {
    use super::super::import::import;
    use super::super::store::Store;
    use crate::options::LinuxOptions;
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSED: AtomicU32 = AtomicU32::new(0);

    thread_local! {
        /// How many points this thread has passed.
        static HERE: Cell<u32> = const { Cell::new(0) };
    }

    /// How many points this thread passes while it does something: how much it changes.
    pub(in super::super) fn passed<T>(work: impl FnOnce() -> T) -> (u32, T) {
        let before = HERE.get();
        let done = work();
        (HERE.get() - before, done)
    }
    const AT: &str = "REDDWARF_TEST_CRASH_AT";
    const DIR: &str = "REDDWARF_TEST_CRASH_DIR";

    pub(in super::super) fn point() {
        HERE.set(HERE.get() + 1);
        let wanted = std::env::var(AT).ok().and_then(|n| n.parse().ok());
        if wanted == Some(PASSED.fetch_add(1, Ordering::Relaxed)) {
            // As `kill -9` does it.
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    fn options(dir: &Path) -> LinuxOptions {
        LinuxOptions::new(dir.join("run"), dir.join("state"), "/proc/self/exe")
    }

    fn tree(dir: &Path, name: &str) -> PathBuf {
        let root = dir.join(name);
        std::fs::create_dir_all(root.join("etc")).unwrap();
        for file in ["etc/one", "etc/two"] {
            std::io::Write::write_all(&mut std::fs::File::create(root.join(file)).unwrap(), name.as_bytes()).unwrap();
        }
        root
    }

    /// Two imports under one name, another name, and the removal of both.
    async fn everything(dir: &Path) {
        let (options, store) = (options(dir), Store::of(&options(dir)));
        let none = || Ok(BTreeSet::new());
        for (source, name) in [("a", "app"), ("b", "app"), ("b", "other"), ("a", "last")] {
            import(&options, &dir.join(source), name, &none).await.map(drop).unwrap();
        }
        for name in ["app", "other"] {
            let _ = store.lock().await.unwrap().remove_name(name, &BTreeSet::new()).unwrap();
        }
    }

    /// What is listed is whole; the rest can't be seen.
    fn check(dir: &Path, at: u32) {
        let store = Store::of(&options(dir));
        for image in store.list().unwrap_or_else(|e| panic!("killed at {at}: {}", e.chain())) {
            let record = store.record(&image.id).unwrap().unwrap();
            let layers: Vec<_> = record.layers.iter().map(|l| store.layers_dir().join(l)).collect();
            assert_eq!(layers.len(), 1, "killed at {at}");
            for layer in layers.iter().filter(|_| !image.names.is_empty()) {
                let one = std::fs::read_to_string(layer.join("etc/one")).unwrap_or_default();
                let two = std::fs::read_to_string(layer.join("etc/two")).unwrap_or_default();
                assert!(one == two && (one == "a" || one == "b"), "killed at {at}: {layer:?}: {one:?} {two:?}");
            }
        }
    }

    /// The part that is killed; does nothing when it is run as a test.
    #[tokio::test]
    async fn f1_in_a_process_of_its_own() {
        if let Some(dir) = std::env::var_os(DIR) {
            everything(Path::new(&dir)).await;
        }
    }

    #[tokio::test]
    async fn f1_a_kill_at_every_step_of_imports_and_removals_leaves_nothing_half_done() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to unpack images");
            return;
        }
        // On memory: every step waits for its disk, and this test has no time for that.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        tree(dir.path(), "a");
        tree(dir.path(), "b");
        let mut at = 0;
        loop {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "image::crash::armed::f1_in_a_process_of_its_own";
            let out = child.args([name, "--exact"]).env(AT, at.to_string()).env(DIR, dir.path()).output().unwrap();
            check(dir.path(), at);
            if out.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&out.stdout);
            assert_eq!(out.status.signal(), Some(9), "killed at {at}: {said}");
            at += 1;
        }
        assert!(at > 30, "it was killed at {at} points only");
        // Whatever was left on the way is gone.
        let store = Store::of(&options(dir.path()));
        let count = |dir: PathBuf| std::fs::read_dir(dir).unwrap().count();
        assert_eq!((store.list().unwrap().len(), count(store.layers_dir()), count(store.scratch_dir())), (1, 1, 0));
    }
}
