//! What files said when they were read, for as long as nothing was written there: an idle daemon looks at the same few
//! hundred of them again and again.

use reddwarf_host::HostResult;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A directory that was changed within this time may be changed again without another stamp: its file system counts
/// time in ticks.
const SETTLED: Duration = Duration::from_secs(1);

/// Which file it is and when it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanos: i64,
    size: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), seconds: meta.mtime(), nanos: meta.mtime_nsec(), size: meta.len() })
    }

    /// Whether a change that comes now gives it another stamp. A time that is yet to come says nothing.
    fn is_settled(self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.seconds), u32::try_from(self.nanos)) else { return false };
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        written.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age >= SETTLED)
    }
}

/// Values by the path that they were read from.
#[derive(Debug)]
pub struct Kept<T>(Mutex<HashMap<PathBuf, (Stamp, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// What `read` makes of a file that is only ever replaced as a whole ([`crate::files::write_atomically`]): a new one
    /// has an inode of its own. `None`, and nothing is kept, where there is none.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn file(&self, path: &Path, read: impl FnOnce() -> HostResult<Option<T>>) -> HostResult<Option<Arc<T>>> {
        let Some(stamp) = Stamp::of(path) else { return Ok(read()?.map(Arc::new)) };
        if let Some(value) = self.known(path, stamp) {
            return Ok(Some(value));
        }
        let Some(value) = read()?.map(Arc::new) else { return Ok(None) };
        self.keep(path, stamp, &value);
        Ok(Some(value))
    }

    /// What `read` makes of the names in a directory, and of files in it that are only ever replaced as a whole: all of that
    /// changes the directory.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn directory(&self, path: &Path, read: impl FnOnce() -> HostResult<T>) -> HostResult<Arc<T>> {
        // Before it is read: what changes meanwhile has a later stamp.
        let stamp = Stamp::of(path);
        if let Some(value) = stamp.and_then(|stamp| self.known(path, stamp)) {
            return Ok(value);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "file systems have the kernel's time, whatever a simulation plays"
        )]
        let settled = stamp.filter(|stamp| stamp.is_settled(SystemTime::now()));
        let value = Arc::new(read()?);
        if let Some(stamp) = settled {
            self.keep(path, stamp, &value);
        }
        Ok(value)
    }

    fn known(&self, path: &Path, stamp: Stamp) -> Option<Arc<T>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(path).filter(|(known, _)| *known == stamp).map(|(_, value)| value.clone())
    }

    fn keep(&self, path: &Path, stamp: Stamp, value: &Arc<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), (stamp, value.clone()));
    }

    /// Forgets what is gone, when there is more than was found at last.
    pub fn sweep(&self, found: usize) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() > found {
            map.retain(|path, _| path.exists());
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use crate::files::{names_in, read_record, write_json};
    use std::fs::File;

    fn names(kept: &Kept<Vec<String>>, path: &Path, reads: &mut u32) -> Vec<String> {
        let names = kept.directory(path, || {
            *reads += 1;
            let mut names = names_in(path).unwrap();
            names.sort();
            Ok(names)
        });
        names.unwrap().to_vec()
    }

    /// As if nothing had been changed there for an hour.
    fn age(path: &Path) {
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn a_directory_is_read_again_when_something_came_went_or_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, mut reads) = (Kept::default(), 0);
        fs::write(dir.path().join("a"), "1").unwrap();
        assert_eq!(names(&kept, dir.path(), &mut reads), ["a"]);
        assert_eq!(names(&kept, dir.path(), &mut reads), ["a"]);
        assert_eq!(reads, 2, "one that was changed just now is not believed");
        age(dir.path());
        for _ in 0..3 {
            assert_eq!(names(&kept, dir.path(), &mut reads), ["a"]);
        }
        assert_eq!(reads, 3);
        write_json(&dir.path().join("a"), &2).unwrap();
        assert_eq!(names(&kept, dir.path(), &mut reads), ["a"]);
        assert_eq!(reads, 4, "replaced");
        age(dir.path());
        names(&kept, dir.path(), &mut reads);
        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(names(&kept, dir.path(), &mut reads).is_empty());
    }

    #[test]
    fn another_directory_of_the_same_name_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let (kept, mut reads) = (Kept::default(), 0);
        assert!(names(&kept, &path, &mut reads).is_empty(), "none");
        for name in ["a", "b"] {
            fs::create_dir(&path).unwrap();
            fs::write(path.join(name), "").unwrap();
            age(&path);
            assert_eq!(names(&kept, &path, &mut reads), [name]);
            fs::remove_dir_all(&path).unwrap();
            assert!(names(&kept, &path, &mut reads).is_empty(), "gone");
        }
    }

    #[test]
    fn a_clock_that_was_put_back_is_not_believed() {
        let stamp = |seconds| Stamp { inode: 1, seconds, nanos: 0, size: 0 };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert!(stamp(99).is_settled(now));
        for seconds in [-5, 100, 101, i64::MAX] {
            assert!(!stamp(seconds).is_settled(now), "{seconds}");
        }
    }

    #[test]
    fn a_replaced_file_is_read_again_and_those_gone_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let kept = Kept::<u32>::default();
        let get = || kept.file(&path, || read_record("read", &path)).unwrap();
        assert_eq!(get(), None);
        for value in 1..4 {
            write_json(&path, &value).unwrap();
            let first = get().unwrap();
            assert_eq!(*first, value);
            assert!(Arc::ptr_eq(&first, &get().unwrap()));
        }
        kept.sweep(1);
        assert_eq!(kept.0.lock().unwrap().len(), 1);
        fs::remove_file(&path).unwrap();
        kept.sweep(0);
        assert!(kept.0.lock().unwrap().is_empty());
    }
}
