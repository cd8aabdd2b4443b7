//! Looking at the directories again and again, where the system does not tell of changes.
//!
//! illumos has no inotify; what the `notify` crate does there is to compare modification times every thirty seconds. This
//! looks every second at names, numbers, sizes and times, and says so only when two looks in a row agree: a file that is
//! still being written is not read half. A look may take a fiftieth of the time at most: with very many files they
//! become rarer.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// From a change to the look that has to agree.
const SETTLE: Duration = Duration::from_millis(200);
/// Of this many parts of the time a look may take one.
const SHARE: u32 = 50;
/// Entries that one look takes in; what is beyond is left to the periodic pass.
const ENTRIES_MOST: usize = 200_000;
/// How deep directories may lie in one another: the scanner itself looks at two levels.
const DEPTH_MOST: usize = 4;

/// The thread that looks; it ends when this is dropped.
pub(super) struct Poller {
    _stop: mpsc::Sender<()>,
}

impl Poller {
    /// Looks at `layers`, those that are not there yet included, and calls `changed` after every change.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        layers: Vec<PathBuf>,
        interval: Duration,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut told = look(&layers);
        let watch = move || {
            let mut seen = told;
            let mut pause = interval;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                let began = tokio::time::Instant::now();
                let now = look(&layers);
                let took = began.elapsed();
                let quiet = now == seen;
                seen = now;
                pause = if quiet { interval } else { SETTLE.min(interval) }.max(took * SHARE);
                if quiet && now != told {
                    told = now;
                    changed();
                }
            }
        };
        thread::Builder::new().name("directories".to_owned()).spawn(watch)?;
        Ok(Self { _stop: stop })
    }
}

/// A digest of all that a change of a file changes.
fn look(layers: &[PathBuf]) -> u64 {
    let mut all = DefaultHasher::new();
    let mut left = ENTRIES_MOST;
    for layer in layers {
        layer.hash(&mut all);
        entry(layer, DEPTH_MOST, &mut left, &mut all);
    }
    all.finish()
}

fn entry(path: &Path, depth: usize, left: &mut usize, all: &mut DefaultHasher) {
    let Some(rest) = left.checked_sub(1) else { return };
    *left = rest;
    let Ok(about) = fs::symlink_metadata(path) else {
        // Not there, or not for us to see: that too is something to notice.
        0_u8.hash(all);
        return;
    };
    (about.dev(), about.ino(), about.mode(), about.uid()).hash(all);
    if !about.is_dir() {
        // ctime too: a file of the same size may bear the time of the one before.
        (about.size(), about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()).hash(all);
        if about.is_symlink() {
            target(path, all);
        }
        return;
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    let mut names: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    names.sort_unstable();
    names.truncate(*left);
    for name in names {
        name.hash(all);
        entry(&path.join(&name), depth, left, all);
    }
}

/// What a link within the layers leads to.
fn target(path: &Path, all: &mut DefaultHasher) {
    if let Ok(about) = fs::metadata(path) {
        (about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec(), about.ctime()).hash(all);
        about.ctime_nsec().hash(all);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests play the user who writes files")]
mod tests {
    use super::*;

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
        let (send, told) = mpsc::channel();
        let poller = Poller::start(vec![dir.path().into()], Duration::from_millis(20), move || {
            let _ = send.send(());
        });
        let poller = poller.unwrap();
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
}
