//! Looking at the directories again, where `notify` is told nothing by the system.
//!
//! illumos has no inotify; what the `notify` crate does there is to compare modification times every thirty seconds. This
//! looks at names, numbers, sizes and times, and says so only when two looks in a row agree: a file that is still being written is
//! not read half. When it looks again is up to the [`Wires`]: at once when one of them goes off, every second where there are
//! none, and now and then in any case. A look may take a fiftieth of the time at most: with very many files looks become rarer.

use super::wires::{FileEvents, WIRES_MOST, Wires};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

/// From a change to the look that has to agree.
const SETTLE: Duration = Duration::from_millis(200);
/// Of this many parts of the time a look may take one.
const SHARE: u32 = 50;
/// Entries that one look takes in; what is beyond is left to the periodic pass.
const ENTRIES_MOST: usize = 200_000;
/// How deep directories may lie in one another: the scanner itself looks at two levels.
const DEPTH_MOST: usize = 4;

/// How often is looked when nothing is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Where something could change untold. Also after a wire that went off for nothing.
    pub(super) blind: Duration,
    /// Where all has wires. Writing through a mapping of a file sets off none.
    pub(super) told: Duration,
}

impl Pace {
    pub(super) const USUAL: Self = Self { blind: Duration::from_secs(1), told: Duration::from_secs(10) };
}

/// The thread that looks; it ends when this is dropped.
pub(super) struct Poller {
    stop: Arc<AtomicBool>,
    events: Arc<dyn FileEvents>,
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.events.wake();
    }
}

impl Poller {
    /// Looks at `layers`, those that are not there yet included, and calls `changed` after every change.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        layers: Vec<PathBuf>,
        events: Arc<dyn FileEvents>,
        pace: Pace,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut watch = Watch::new(layers, Arc::clone(&events), pace);
        let stop = Arc::clone(&watch.stop);
        // Before anybody reads the directories for the first time.
        let first = watch.look();
        let run = move || watch.run(first, &changed);
        thread::Builder::new().name("directories".to_owned()).spawn(run)?;
        Ok(Self { stop, events })
    }
}

/// What one look says.
struct Looked {
    /// A digest of all that a change of a file changes.
    digest: u64,
    /// Whether all of it has wires.
    told: bool,
    began: Instant,
    took: Duration,
}

/// What the thread works with.
struct Watch {
    layers: Vec<PathBuf>,
    wires: Wires,
    stop: Arc<AtomicBool>,
    pace: Pace,
    /// Waiting failed, which was said.
    deaf: bool,
}

impl Watch {
    fn new(layers: Vec<PathBuf>, events: Arc<dyn FileEvents>, pace: Pace) -> Self {
        let wires = Wires::new(events, WIRES_MOST);
        Self { layers, wires, stop: Arc::default(), pace, deaf: false }
    }

    fn run(&mut self, first: Looked, changed: &impl Fn()) {
        let (mut told, mut seen, mut quiet, mut for_nothing) = (first.digest, first, true, false);
        loop {
            let busy = seen.took * SHARE;
            let pause = match (quiet, seen.told) {
                (false, _) => SETTLE.min(self.pace.blind),
                (true, false) => self.pace.blind,
                (true, true) => self.pace.told,
            };
            let least = if for_nothing { self.pace.blind } else { SETTLE.min(self.pace.blind) };
            let off = self.rest(seen.began + seen.took + pause.max(busy), seen.began + seen.took + least.max(busy));
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let now = self.look();
            let was_quiet = std::mem::replace(&mut quiet, now.digest == seen.digest);
            for_nothing = off && was_quiet && quiet;
            seen = now;
            if quiet && seen.digest != told {
                told = seen.digest;
                changed();
            }
        }
    }

    /// Waits until `due`, or when a wire goes off until `least`; whether one did.
    fn rest(&mut self, due: Instant, least: Instant) -> bool {
        let mut off = false;
        loop {
            let until = if off { least.min(due) } else { due };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::SeqCst) {
                return off;
            }
            match self.wires.wait(left) {
                Ok(one) => off |= one,
                Err(error) => {
                    if !std::mem::replace(&mut self.deaf, true) {
                        tracing::warn!(%error, "the system tells no more of changes of files: looking every second");
                    }
                    thread::sleep(left.min(self.pace.blind));
                    return off;
                }
            }
        }
    }

    fn look(&mut self) -> Looked {
        let began = Instant::now();
        self.wires.begin();
        let mut look = Look { all: DefaultHasher::new(), left: ENTRIES_MOST, wires: &mut self.wires };
        for layer in &self.layers {
            layer.hash(&mut look.all);
            look.layer(layer);
        }
        let digest = look.all.finish();
        let told = self.wires.end();
        Looked { digest, told, began, took: began.elapsed() }
    }
}

/// A look under way.
struct Look<'a> {
    all: DefaultHasher,
    left: usize,
    wires: &'a mut Wires,
}

impl Look<'_> {
    fn layer(&mut self, layer: &Path) {
        self.entry(layer, DEPTH_MOST);
        match fs::symlink_metadata(layer) {
            Ok(about) if about.is_symlink() => {
                if let Ok(real) = layer.canonicalize() {
                    self.entry(&real, DEPTH_MOST);
                }
            }
            Ok(_) => {}
            Err(_) => self.way_to(layer),
        }
    }

    /// Ties a wire to the directory in which a layer that is not there, or a directory on the way to it, is going to appear.
    fn way_to(&mut self, layer: &Path) {
        let way: Vec<&Path> = layer.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        let mut last = None;
        // Downwards: each was seen before what is in it.
        for directory in way.into_iter().rev() {
            let Ok(about) = fs::symlink_metadata(directory) else { break };
            if about.is_symlink() {
                self.wires.miss();
            }
            last = Some((directory, about));
        }
        match last {
            // What is there by now is found by the next look.
            _ if layer.symlink_metadata().is_ok() => self.wires.miss(),
            Some((directory, about)) if about.is_dir() => self.wires.tie(directory, &about),
            _ => self.wires.miss(),
        }
    }

    fn entry(&mut self, path: &Path, depth: usize) {
        let Some(rest) = self.left.checked_sub(1) else { return self.wires.miss() };
        self.left = rest;
        let Ok(about) = fs::symlink_metadata(path) else {
            // Not there, or not for us to see: that too is something to notice.
            0_u8.hash(&mut self.all);
            return;
        };
        (about.dev(), about.ino(), about.mode(), about.uid()).hash(&mut self.all);
        if about.is_symlink() {
            self.wires.miss();
            self.target(path);
        } else {
            self.wires.tie(path, &about);
        }
        if !about.is_dir() {
            // ctime too: a file of the same size may bear the time of the one before.
            let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
            (about.size(), times).hash(&mut self.all);
            return;
        }
        let Some(depth) = depth.checked_sub(1) else { return };
        let mut names: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        names.sort_unstable();
        if names.len() > self.left {
            names.truncate(self.left);
            self.wires.miss();
        }
        for name in names {
            name.hash(&mut self.all);
            self.entry(&path.join(&name), depth);
        }
    }

    /// What a link within the layers leads to.
    fn target(&mut self, path: &Path) {
        if let Ok(about) = fs::metadata(path) {
            let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
            (about.dev(), about.ino(), about.size(), times).hash(&mut self.all);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests play the user who writes files")]
mod tests {
    use super::super::wires::Silence;
    use super::super::wires::played::Port;
    use super::*;
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

    /// Longer than any test.
    const NEVER: Duration = Duration::from_secs(3600);
    const LONG: Duration = Duration::from_secs(10);

    fn look(layers: &[PathBuf]) -> u64 {
        Watch::new(layers.to_vec(), Arc::new(Silence::default()), Pace::USUAL).look().digest
    }

    fn start(layers: Vec<PathBuf>, events: Arc<dyn FileEvents>, blind: Duration) -> (Poller, Receiver<()>) {
        let (send, told) = mpsc::channel();
        let changed = move || {
            let _ = send.send(());
        };
        (Poller::start(layers, events, Pace { blind, told: NEVER }, changed).unwrap(), told)
    }

    #[test]
    fn every_kind_of_change_shows_and_quiet_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let layers = vec![dir.path().join("etc"), dir.path().join("later")];
        let file = layers[0].join("a.yaml");
        let mut seen = vec![look(&layers)];
        let mut differs = |what: &str| {
            let now = look(&layers);
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(now, look(&layers), "{what}: twice the same");
            seen.push(now);
        };
        fs::create_dir(&layers[0]).unwrap();
        differs("a layer appears");
        fs::write(&file, "one").unwrap();
        differs("a file");
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
        differs("same size, same time");
        fs::write(dir.path().join("next"), "two").unwrap();
        fs::rename(dir.path().join("next"), &file).unwrap();
        differs("another file in its place");
        fs::create_dir(layers[0].join("app")).unwrap();
        differs("a directory");
        fs::write(layers[0].join("app/b.yaml"), "").unwrap();
        differs("a file in it");
        fs::rename(&file, layers[0].join("c.yaml")).unwrap();
        differs("another name");
        fs::remove_file(layers[0].join("c.yaml")).unwrap();
        differs("a file gone");
    }

    #[test]
    fn a_change_is_told_once_it_is_whole_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let (poller, told) = start(vec![dir.path().into()], Arc::new(Silence::default()), Duration::from_millis(20));
        // Written bit by bit: nothing is said before it is quiet.
        let path = dir.path().join("a.yaml");
        let mut text = String::new();
        for _ in 0..20 {
            text.push('x');
            fs::write(&path, &text).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        while told.recv_timeout(Duration::from_millis(200)).is_ok() {}
        fs::remove_file(&path).unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(poller);
        assert!(
            matches!(told.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected)),
            "its thread ends"
        );
    }

    #[test]
    fn by_events_alone_every_kind_of_change_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let layers = vec![dir.path().join("etc"), dir.path().join("run/later")];
        let (layer, later) = (layers[0].clone(), layers[1].clone());
        let app = layer.join("app");
        fs::create_dir_all(&app).unwrap();
        fs::write(layer.join("a.yaml"), "one").unwrap();
        fs::write(app.join("b.yaml"), "one").unwrap();
        let port = Arc::new(Port::default());
        let (poller, told) = start(layers, port.clone(), NEVER);
        // Both directories, both files, what the second layer's way has so far.
        assert_eq!(port.tied(), 5);
        let tells = |what: &str| assert_eq!(told.recv_timeout(LONG), Ok(()), "{what}");
        fs::write(layer.join("c.yaml"), "new").unwrap();
        tells("a new file");
        fs::File::options().write(true).open(app.join("b.yaml")).unwrap().set_len(1).unwrap();
        tells("a file written in place, in a subdirectory");
        fs::write(dir.path().join("next"), "two").unwrap();
        fs::rename(dir.path().join("next"), layer.join("a.yaml")).unwrap();
        tells("a file moved over another");
        fs::remove_file(app.join("b.yaml")).unwrap();
        tells("a file removed");
        fs::create_dir_all(&later).unwrap();
        tells("a layer that comes later, with the directory it is in");
        fs::write(later.join("d.yaml"), "").unwrap();
        tells("a file in it");
        fs::remove_dir_all(&later).unwrap();
        tells("a layer that goes");
        fs::create_dir(&later).unwrap();
        tells("and comes back");
        fs::write(later.join("d.yaml"), "").unwrap();
        tells("with a file");
        assert_eq!(told.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout), "no more than that");
        drop(poller);
        assert_eq!(told.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected), "it is woken to end");
        assert_eq!(port.tied(), 0);
    }

    #[test]
    fn what_changes_while_the_directories_are_looked_at_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (port, layer) = (Arc::new(Port::default()), dir.path().join("etc"));
        fs::create_dir(&layer).unwrap();
        let file = layer.join("a.yaml");
        // After the directory's time was read, before its names are.
        port.before(&layer, move || fs::write(file, "").unwrap());
        let mut watch = Watch::new(vec![layer.clone()], port.clone(), Pace { blind: NEVER, told: NEVER });
        let first = watch.look();
        assert!(watch.rest(Instant::now() + LONG, Instant::now()));
        assert_eq!(watch.look().digest, first.digest, "what was told of was seen already");
        // After it was seen.
        let file = layer.join("a.yaml");
        let again = file.clone();
        fs::write(&file, "1").unwrap();
        port.before(&file, move || fs::write(again, "22").unwrap());
        let before = watch.look();
        assert!(watch.rest(Instant::now() + LONG, Instant::now()));
        assert_ne!(watch.look().digest, before.digest);
    }

    #[test]
    fn where_events_do_not_reach_it_looks_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, elsewhere) = (dir.path().join("etc"), dir.path().join("site/current"));
        fs::create_dir_all(&elsewhere).unwrap();
        fs::create_dir(&layer).unwrap();
        fs::write(elsewhere.join("a.yaml"), "one").unwrap();
        std::os::unix::fs::symlink(elsewhere.join("a.yaml"), layer.join("a.yaml")).unwrap();
        let (_poller, told) = start(vec![layer], Arc::new(Port::default()), Duration::from_millis(50));
        fs::rename(&elsewhere, dir.path().join("site/last")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("a.yaml"), "two").unwrap();
        told.recv_timeout(LONG).unwrap();
        // A layer that is a link itself is looked into.
        let (link, real) = (dir.path().join("link"), dir.path().join("real"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let (_poller, told) = start(vec![link], Arc::new(Port::default()), Duration::from_millis(50));
        fs::write(real.join("a.yaml"), "one").unwrap();
        told.recv_timeout(LONG).unwrap();
        while told.recv_timeout(Duration::from_millis(300)).is_ok() {}
        fs::write(real.join("a.yaml"), "two").unwrap();
        told.recv_timeout(LONG).unwrap();
    }
}
