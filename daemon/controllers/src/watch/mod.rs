//! Notices that something under the manifest directories changed.
//!
//! A notice says only "look again": the scan decides what changed. Lost notices (queue overflow, network file
//! systems) cost at most one periodic interval, because the directory loop looks by itself too. Where `notify` is told nothing
//! (illumos), `poll.rs` looks: when it is told by [`FileEvents`], which the binary brings, else every second.

mod poll;
mod wires;

use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, WatcherKind};
use poll::{Pace, Poller};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

pub use wires::FileEvents;

/// Watches the layers and, for those that do not exist yet, their parents.
pub struct DirectoryWatch {
    watcher: Option<RecommendedWatcher>,
    /// In the watcher's place where `notify` is told nothing.
    _poller: Option<Poller>,
    layers: Vec<PathBuf>,
    watched: Vec<Target>,
    changed: Arc<Changed>,
    problem: Option<String>,
}

/// Notices since somebody last looked.
#[derive(Default)]
struct Changed {
    notify: Notify,
    /// Something other than the arrival of whole files.
    piecemeal: AtomicBool,
}

/// What a notice says about how the change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Files were renamed into the directory from outside it and nothing else happened: they are whole.
    Whole,
    /// Anything else, which may still be under way: a file being written, an editor's dance of renames.
    Piecemeal,
}

impl DirectoryWatch {
    /// Starts watching `layers`, by `events` if there are any. A system that cannot watch is no error: [`Self::problem`] says so,
    /// and the periodic look remains.
    pub fn new(layers: Vec<PathBuf>, events: Option<Arc<dyn FileEvents>>) -> Self {
        match events {
            Some(events) => Self::looking(layers, events),
            None if RecommendedWatcher::kind() == WatcherKind::PollWatcher => {
                Self::looking(layers, Arc::new(wires::Silence::default()))
            }
            None => Self::told(layers),
        }
    }

    /// Looks by itself, when `events` say so, and every now and then.
    fn looking(layers: Vec<PathBuf>, events: Arc<dyn FileEvents>) -> Self {
        let changed = Arc::new(Changed::default());
        let noticed = Arc::clone(&changed);
        let poller = Poller::start(layers.clone(), events, Pace::USUAL, move || {
            noticed.piecemeal.store(true, Ordering::SeqCst);
            noticed.notify.notify_one();
        });
        let (poller, problem) = match poller {
            Ok(poller) => (Some(poller), None),
            Err(e) => (None, Some(format!("cannot look for changes ({e}); looking every few seconds instead"))),
        };
        Self { watcher: None, _poller: poller, layers, watched: Vec::new(), changed, problem }
    }

    /// Is told by the system.
    fn told(layers: Vec<PathBuf>) -> Self {
        let changed = Arc::new(Changed::default());
        let noticed = Arc::clone(&changed);
        let interested = layers.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if is_noise(&event, &interested) => {}
            Ok(event) if is_arrival(&event) => noticed.notify.notify_one(),
            // An error is an overflow or a vanished watch: looking again is the answer to both.
            Ok(_) | Err(_) => {
                noticed.piecemeal.store(true, Ordering::SeqCst);
                noticed.notify.notify_one();
            }
        });
        let (watcher, problem) = match watcher {
            Ok(w) => (Some(w), None),
            Err(e) => (None, Some(format!("cannot watch for changes ({e}); looking every few seconds instead"))),
        };
        let mut this = Self { watcher, _poller: None, layers, watched: Vec::new(), changed, problem };
        this.refresh();
        this
    }

    /// Why changes are only noticed by the periodic look, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Waits for a notice. Cancel-safe: a notice is kept until somebody waits.
    pub async fn changed(&self) -> Arrival {
        self.changed.notify.notified().await;
        // What comes after this leaves a notice of its own.
        if self.changed.piecemeal.swap(false, Ordering::SeqCst) { Arrival::Piecemeal } else { Arrival::Whole }
    }

    /// Adjusts the watches to what exists now: a directory that appeared, vanished or was replaced.
    pub fn refresh(&mut self) {
        let wanted = targets(&self.layers);
        let Some(watcher) = self.watcher.as_mut() else { return };
        if wanted == self.watched {
            return;
        }
        for target in self.watched.drain(..) {
            // A vanished directory took its watch along: the error says just that.
            let _ = watcher.unwatch(&target.path);
        }
        self.problem = None;
        for target in wanted {
            // The parent tells of a layer that is created, replaced or unmounted later.
            let mode = if target.layer { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match watcher.watch(&target.path, mode) {
                Ok(()) => self.watched.push(target),
                Err(e) => {
                    self.problem =
                        Some(format!("cannot watch {}: {e}; looking every few seconds instead", target.path.display()));
                }
            }
        }
    }
}

/// A directory to watch; device and inode tell a replaced one from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    path: PathBuf,
    layer: bool,
    identity: (u64, u64),
}

fn targets(layers: &[PathBuf]) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    let mut add = |path: Option<&Path>, layer: bool| {
        let Some(path) = path else { return };
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if found.iter().all(|t| t.path != path) {
            found.push(Target { path: path.to_owned(), layer, identity: (metadata.dev(), metadata.ino()) });
        }
    };
    for layer in layers {
        add(layer.is_dir().then_some(layer.as_path()), true);
    }
    for layer in layers {
        let existing = layer.ancestors().find(|p| p.is_dir());
        add(existing_parent(layer, existing), false);
    }
    found
}

fn existing_parent<'a>(layer: &'a Path, existing: Option<&'a Path>) -> Option<&'a Path> {
    match existing {
        Some(p) if p == layer => layer.parent().filter(|p| p.is_dir()),
        other => other,
    }
}

/// A file came in by a rename. One from within the layers was announced by its leaving, which is none; so this alone
/// is one from outside.
fn is_arrival(event: &notify::Event) -> bool {
    matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)))
}

/// Reads and closes of unwritten files, and events of a parent directory that concern no layer.
fn is_noise(event: &notify::Event, layers: &[PathBuf]) -> bool {
    if matches!(event.kind, EventKind::Access(notify::event::AccessKind::Open(_) | notify::event::AccessKind::Read)) {
        return true;
    }
    if let EventKind::Access(notify::event::AccessKind::Close(mode)) = event.kind
        && mode != notify::event::AccessMode::Write
    {
        return true;
    }
    !event.paths.is_empty()
        && event.paths.iter().all(|p| !layers.iter().any(|layer| p.starts_with(layer) || layer.starts_with(p)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests play the user who writes files")]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn notices(watch: &DirectoryWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_and_a_layer_that_appears_later_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("etc");
        let later = dir.path().join("run");
        std::fs::create_dir(&there).unwrap();
        let mut watch = DirectoryWatch::new(vec![there.clone(), later.clone()], None);
        assert_eq!(watch.problem(), None);

        std::fs::File::create(there.join("a.yaml")).unwrap();
        assert!(notices(&watch).await);

        std::fs::create_dir(&later).unwrap();
        assert!(notices(&watch).await);
        watch.refresh();
        // Whatever was queued before the refresh is taken first.
        while tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok() {}
        std::fs::File::create(later.join("b.yaml")).unwrap();
        assert!(notices(&watch).await);
    }

    #[tokio::test]
    async fn where_notify_is_told_nothing_changes_are_noticed_all_the_same() {
        let played: Arc<dyn FileEvents> = Arc::new(wires::played::Port::default());
        for events in [Arc::new(wires::Silence::default()), played] {
            let dir = tempfile::tempdir().unwrap();
            let later = dir.path().join("etc");
            let mut watch = DirectoryWatch::new(vec![later.clone()], Some(events));
            assert_eq!(watch.problem(), None);
            std::fs::create_dir(&later).unwrap();
            assert!(notices(&watch).await);
            watch.refresh();
            std::fs::write(later.join("a.yaml"), "a").unwrap();
            assert_eq!(tokio::time::timeout(Duration::from_secs(5), watch.changed()).await, Ok(Arrival::Piecemeal));
        }
    }

    #[tokio::test]
    async fn a_file_moved_in_is_whole_and_one_moved_about_or_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("etc");
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(dir.path().join("next"), "a").unwrap();
        let watch = DirectoryWatch::new(vec![layer.clone()], None);
        let next = || tokio::time::timeout(Duration::from_secs(5), watch.changed());
        std::fs::rename(dir.path().join("next"), layer.join("a.yaml")).unwrap();
        assert_eq!(next().await, Ok(Arrival::Whole));
        // Whatever else the kernel says of it.
        while tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok() {}
        std::fs::rename(layer.join("a.yaml"), layer.join("b.yaml")).unwrap();
        assert_eq!(next().await, Ok(Arrival::Piecemeal));
        while tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok() {}
        std::fs::write(layer.join("b.yaml"), "b").unwrap();
        assert_eq!(next().await, Ok(Arrival::Piecemeal));
    }

    #[test]
    fn a_neighbour_in_the_parent_directory_is_noise() {
        let layers = vec![PathBuf::from("/etc/reddwarf.d")];
        let event =
            |path: &str| notify::Event::new(EventKind::Create(notify::event::CreateKind::File)).add_path(path.into());
        assert!(is_noise(&event("/etc/passwd.new"), &layers));
        assert!(!is_noise(&event("/etc/reddwarf.d/web.yaml"), &layers));
        assert!(!is_noise(&event("/etc/reddwarf.d"), &layers));
    }
}
