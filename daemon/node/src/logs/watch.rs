//! One watcher for all logs that are followed. It is there only while somebody follows, so that an idle daemon has none.

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Tells followers when something happens to the files of a directory.
#[derive(Clone, Default)]
pub(crate) struct LogWatcher(Arc<Mutex<Watches>>);

#[derive(Default)]
struct Watches {
    watcher: Option<RecommendedWatcher>,
    dirs: Dirs,
}

/// Directories and how often each is followed. Shared with the watcher's own thread.
type Dirs = Arc<Mutex<HashMap<PathBuf, (usize, watch::Sender<()>)>>>;

/// A directory that is being watched, for as long as this lives.
pub(crate) struct Watched {
    watcher: LogWatcher,
    dir: PathBuf,
    /// Whether the system tells of changes; else they must be looked for.
    pub(crate) tells: bool,
    pub(crate) changed: watch::Receiver<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWatcher {
    /// Watches a directory. A system that has no watches left is no failure: the follower looks by itself.
    pub(crate) fn watch(&self, dir: &Path) -> Watched {
        let mut watches = lock(&self.0);
        let dirs = watches.dirs.clone();
        let known = {
            let mut dirs = lock(&dirs);
            let known = dirs.contains_key(dir);
            let entry = dirs.entry(dir.to_owned()).or_insert_with(|| (0, watch::channel(()).0));
            entry.0 += 1;
            (known, entry.1.subscribe())
        };
        let (known, changed) = known;
        // One that would look for itself (illumos) is none: followers look more often.
        if watches.watcher.is_none() && RecommendedWatcher::kind() != notify::WatcherKind::PollWatcher {
            watches.watcher = start(dirs).map_err(|e| tracing::warn!(error = %e, "logs can't be watched")).ok();
        }
        let tells = match &mut watches.watcher {
            None => false,
            Some(_) if known => true,
            Some(watcher) => match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => true,
                Err(e) => {
                    tracing::debug!(dir = %dir.display(), error = %e, "a log can't be watched: it is looked at instead");
                    false
                }
            },
        };
        drop(watches);
        Watched { watcher: self.clone(), dir: dir.to_owned(), tells, changed }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let watches = lock(&self.0);
        watches.watcher.is_none() && lock(&watches.dirs).is_empty()
    }
}

fn start(dirs: Dirs) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<Event>| {
        let dirs = lock(&dirs);
        let Ok(event) = event else {
            // Some were lost: everyone looks.
            return dirs.values().for_each(|(_, changed)| changed.send_replace(()));
        };
        // Being opened and read changes nothing: a follower would wake itself.
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in event.paths.iter() {
            for dir in [path.parent().unwrap_or(path), path] {
                if let Some((_, changed)) = dirs.get(dir) {
                    changed.send_replace(());
                }
            }
        }
        if event.need_rescan() {
            dirs.values().for_each(|(_, changed)| changed.send_replace(()));
        }
    };
    RecommendedWatcher::new(tell, Config::default())
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watches = lock(&self.watcher.0);
        let (last, none) = {
            let mut dirs = lock(&watches.dirs);
            let last = match dirs.get_mut(&self.dir) {
                Some(entry) if entry.0 > 1 => {
                    entry.0 -= 1;
                    false
                }
                _ => dirs.remove(&self.dir).is_some(),
            };
            (last, dirs.is_empty())
        };
        if none {
            // Its thread ends, and with it all watches.
            let watcher = watches.watcher.take();
            drop(watches);
            drop(watcher);
        } else if last && let Some(watcher) = &mut watches.watcher {
            // It may be gone with its directory.
            let _ = watcher.unwatch(&self.dir);
        }
    }
}
