//! Locks that tell whether a shim lives.
//!
//! The daemon opens and locks the file (flock(2)), the shim inherits the very same open file and keeps it until it
//! ends, however it ends. So a held lock means a living shim, without any question of pid reuse; and the last close of
//! the file is an inotify event (`IN_CLOSE_WRITE`), so one watch on the directory tells of every shim's end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Takes the lock; `None` when a shim holds it. Dropping the file (and every copy) frees it.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // A probe of `is_held` in another thread holds the lock for some microseconds: try more than once.
    for _ in 0..5 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Ok(None)
}

/// Whether a shim holds the lock. Opens for reading only, so that the probe is no event itself.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_its_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(!is_held(&path).unwrap());
        let lock = take(&path).unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        assert!(take(&path).unwrap().is_none());
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        assert!(is_held(&path).unwrap(), "the shim's copy keeps it");
        drop(inherited);
        assert!(!is_held(&path).unwrap());
    }
}
