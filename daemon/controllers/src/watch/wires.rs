//! What the system tells of single files and directories, where it does so once for each question (illumos' event ports).
//!
//! A wire is tied to a file as a look has just seen it, and goes off once: when the file is changed, renamed, removed, mounted over,
//! or was so since. That says only "look again"; the look ties it anew, with what it then sees. So nothing is lost between two
//! looks. What has no wire (too many files, a file system that tells nothing, symlinks, whose ways lead anywhere) makes the look
//! *blind*: it is to be repeated soon.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Files and directories with wires, at most. Each holds a vnode and a few hundred bytes in the kernel.
pub(super) const WIRES_MOST: usize = 16_384;

/// How a system tells of changes of files and directories it was asked about, once for each time it was asked.
pub trait FileEvents: Send + Sync {
    /// From now on [`Self::wait`] gives `token`, once, when what `path` names (no symlink is followed at its end) is changed, renamed,
    /// replaced, removed, mounted over or unmounted; at once if it differs from `seen`. Asked again, only the new question counts.
    ///
    /// # Errors
    /// When nothing will be told of it: it went, the file system can't tell, there are too many.
    fn watch(&self, token: u64, path: &Path, seen: &Metadata) -> io::Result<()>;

    /// `token` is of no interest any more.
    fn forget(&self, token: u64);

    /// Waits for tokens, for [`Self::wake`], or for `at_most`; the last two, and an interruption, give none.
    ///
    /// # Errors
    /// When waiting makes no sense any more.
    fn wait(&self, at_most: Duration) -> io::Result<Vec<u64>>;

    /// Ends one wait: that which is under way, or else the next.
    fn wake(&self);
}

/// A system that tells nothing.
#[derive(Default)]
pub(super) struct Silence {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl FileEvents for Silence {
    fn watch(&self, _: u64, _: &Path, _: &Metadata) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn forget(&self, _: u64) {}

    fn wait(&self, at_most: Duration) -> io::Result<Vec<u64>> {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut woken, _) =
            self.bell.wait_timeout_while(woken, at_most, |woken| !*woken).unwrap_or_else(PoisonError::into_inner);
        *woken = false;
        Ok(Vec::new())
    }

    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }
}

/// Which files have wires, and which of those are still tied.
pub(super) struct Wires {
    events: Arc<dyn FileEvents>,
    most: usize,
    wires: HashMap<PathBuf, Wire>,
    /// Paths by token.
    paths: HashMap<u64, PathBuf>,
    tokens: u64,
    round: u64,
    blind: bool,
    said: bool,
}

struct Wire {
    token: u64,
    /// What it was tied with; `None`: it went off.
    tied: Option<Stamp>,
    /// The look that last met the file.
    round: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self {
            file: (about.dev(), about.ino()),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

impl Wires {
    pub(super) fn new(events: Arc<dyn FileEvents>, most: usize) -> Self {
        let (wires, paths) = (HashMap::new(), HashMap::new());
        Self { events, most, wires, paths, tokens: 0, round: 0, blind: false, said: false }
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.round += 1;
        self.blind = false;
    }

    /// The look has met this file or directory, in this state, and has not looked into it yet.
    pub(super) fn tie(&mut self, path: &Path, seen: &Metadata) {
        let (stamp, full) = (Stamp::of(seen), self.wires.len() >= self.most);
        let token = match self.wires.get_mut(path) {
            Some(wire) => {
                wire.round = self.round;
                if wire.tied == Some(stamp) {
                    return;
                }
                wire.token
            }
            None if full => return self.miss(),
            None => {
                self.tokens += 1;
                self.tokens
            }
        };
        match self.events.watch(token, path, seen) {
            Ok(()) => {
                self.wires.insert(path.to_owned(), Wire { token, tied: Some(stamp), round: self.round });
                self.paths.insert(token, path.to_owned());
            }
            Err(error) => {
                // A wire that is there and no longer tied goes when nobody meets its file any more.
                if let Some(wire) = self.wires.get_mut(path) {
                    wire.tied = None;
                }
                let told = matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound);
                if !told && !std::mem::replace(&mut self.said, true) {
                    tracing::info!(path = %path.display(), %error, "the system won't tell of changes: looking every second instead");
                }
                self.miss();
            }
        }
    }

    /// The look has met something that it is not going to be told of.
    pub(super) fn miss(&mut self) {
        self.blind = true;
    }

    /// The look is over: what it did not meet is gone. Whether all that it met has a wire.
    pub(super) fn end(&mut self) -> bool {
        let Self { wires, paths, events, round, .. } = self;
        wires.retain(|_, wire| {
            let met = wire.round == *round;
            if !met {
                events.forget(wire.token);
                paths.remove(&wire.token);
            }
            met
        });
        !self.blind
    }

    /// Waits until something goes off, somebody wakes, or for `at_most`; whether something went off.
    pub(super) fn wait(&mut self, at_most: Duration) -> io::Result<bool> {
        let tokens = self.events.wait(at_most)?;
        let mut off = false;
        for token in tokens {
            // Else it was forgotten meanwhile.
            if let Some(wire) = self.paths.get(&token).and_then(|path| self.wires.get_mut(path)) {
                wire.tied = None;
                off = true;
            }
        }
        Ok(off)
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for wire in self.wires.values() {
            self.events.forget(wire.token);
        }
    }
}

#[cfg(test)]
pub(super) mod played {
    //! Event ports by their rules: one event for each association; what an association was made with is compared at once; it is to
    //! the file that bears the name then, not to the name.

    use super::*;
    use std::fs::File;

    type Act = Box<dyn FnOnce() + Send>;

    #[derive(Default)]
    pub(crate) struct Port {
        state: Mutex<State>,
        bell: Condvar,
    }

    #[derive(Default)]
    struct State {
        tied: HashMap<u64, (File, Stamp)>,
        off: Vec<u64>,
        woken: bool,
        asked: usize,
        /// Done before the next association of a file of that name.
        before: Option<(PathBuf, Act)>,
    }

    impl Port {
        /// Somebody does something between the look at a file and the association.
        pub(crate) fn before(&self, path: &Path, act: impl FnOnce() + Send + 'static) {
            self.state.lock().unwrap().before = Some((path.to_owned(), Box::new(act)));
        }

        pub(crate) fn tied(&self) -> usize {
            self.state.lock().unwrap().tied.len()
        }

        pub(crate) fn asked(&self) -> usize {
            self.state.lock().unwrap().asked
        }
    }

    impl FileEvents for Port {
        fn watch(&self, token: u64, path: &Path, seen: &Metadata) -> io::Result<()> {
            let mut state = self.state.lock().unwrap();
            if state.before.as_ref().is_some_and(|(of, _)| of == path) {
                (state.before.take().unwrap().1)();
            }
            let file = File::open(path)?;
            let now = Stamp::of(&file.metadata()?);
            state.asked += 1;
            state.off.retain(|t| *t != token);
            if now == Stamp::of(seen) {
                state.tied.insert(token, (file, now));
            } else {
                state.tied.remove(&token);
                state.off.push(token);
            }
            Ok(())
        }

        fn forget(&self, token: u64) {
            let mut state = self.state.lock().unwrap();
            state.tied.remove(&token);
            state.off.retain(|t| *t != token);
        }

        fn wait(&self, at_most: Duration) -> io::Result<Vec<u64>> {
            let began = tokio::time::Instant::now();
            let mut state = self.state.lock().unwrap();
            loop {
                let State { tied, off, .. } = &mut *state;
                tied.retain(|token, (file, stamp)| {
                    // A removed or renamed file's time of change is another one too.
                    let same = file.metadata().is_ok_and(|about| Stamp::of(&about) == *stamp);
                    if !same {
                        off.push(*token);
                    }
                    same
                });
                if !off.is_empty() || std::mem::take(&mut state.woken) || began.elapsed() >= at_most {
                    return Ok(std::mem::take(&mut state.off));
                }
                state = self.bell.wait_timeout(state, Duration::from_millis(2)).unwrap().0;
            }
        }

        fn wake(&self) {
            self.state.lock().unwrap().woken = true;
            self.bell.notify_all();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests play the user who writes files")]
mod tests {
    use super::played::Port;
    use super::*;
    use std::fs;

    const SOON: Duration = Duration::from_millis(50);

    fn look(wires: &mut Wires, paths: &[&Path]) -> bool {
        wires.begin();
        for path in paths {
            if let Ok(about) = fs::symlink_metadata(path) {
                wires.tie(path, &about);
            }
        }
        wires.end()
    }

    #[test]
    fn a_wire_goes_off_once_and_is_tied_anew_by_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        let port = Arc::new(Port::default());
        let mut wires = Wires::new(port.clone(), 10);
        assert!(look(&mut wires, &[&a, &b]));
        assert!(look(&mut wires, &[&a, &b]));
        assert_eq!(port.asked(), 2, "what is tied is not asked for again");
        assert!(!wires.wait(SOON).unwrap());
        fs::write(&a, "a2").unwrap();
        assert!(wires.wait(Duration::from_secs(10)).unwrap());
        assert!(!wires.wait(SOON).unwrap(), "once");
        assert!(look(&mut wires, &[&a, &b]));
        assert_eq!(port.asked(), 3, "only what went off");
        // Another file of the name.
        fs::rename(&b, &a).unwrap();
        assert!(wires.wait(Duration::from_secs(10)).unwrap());
        assert!(look(&mut wires, &[&a, &b]));
        assert_eq!(port.tied(), 1, "what is gone is forgotten");
        drop(wires);
        assert_eq!(port.tied(), 0);
    }

    #[test]
    fn what_changed_between_look_and_association_goes_off_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let a = dir.path().join("a");
        fs::write(&a, "a").unwrap();
        let port = Arc::new(Port::default());
        let mut wires = Wires::new(port.clone(), 10);
        let late = a.clone();
        port.before(&a, move || {
            fs::rename(&late, late.with_extension("b")).and_then(|()| fs::write(&late, "c")).unwrap()
        });
        assert!(look(&mut wires, &[&a]));
        assert!(wires.wait(Duration::ZERO).unwrap());
        // It went altogether: nothing is going to be told, and the look knows.
        let gone = a.clone();
        port.before(&a, move || fs::remove_file(gone).unwrap());
        assert!(!look(&mut wires, &[&a]));
        assert!(look(&mut wires, &[&a]), "nothing there, nothing missed");
    }

    #[test]
    fn more_than_there_is_room_for_makes_blind() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
        for path in &paths {
            fs::write(path, "").unwrap();
        }
        let port = Arc::new(Port::default());
        let mut wires = Wires::new(port.clone(), 2);
        assert!(!look(&mut wires, &paths.each_ref().map(PathBuf::as_path)));
        assert_eq!(port.tied(), 2);
        fs::remove_file(&paths[0]).unwrap();
        assert!(!look(&mut wires, &paths.each_ref().map(PathBuf::as_path)), "room is made at the end of a look");
        assert!(look(&mut wires, &paths.each_ref().map(PathBuf::as_path)));
        assert_eq!(port.tied(), 2);
    }

    #[test]
    fn silence_is_waited_out_and_woken() {
        let silence = Arc::new(Silence::default());
        let mut wires = Wires::new(silence.clone(), 10);
        assert!(!look(&mut wires, &[Path::new("/")]));
        assert!(!wires.wait(Duration::from_millis(1)).unwrap());
        silence.wake();
        assert!(!wires.wait(Duration::from_secs(3600)).unwrap());
    }
}
