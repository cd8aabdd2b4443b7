//! Whether a tree is still what its snapshot holds: a snapshot of btrfs and a clone of ZFS' show the very inodes, so a file that
//! nobody touched has the same number and the same time of its last change in both. Reading changes neither.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first path, within the trees, that differs; `None` when they are the same.
///
/// # Errors
/// The system's.
pub(super) fn first_difference(one: &Path, other: &Path) -> io::Result<Option<PathBuf>> {
    let told = |found: &Metadata| (found.ino(), found.mode(), found.size(), found.ctime(), found.ctime_nsec());
    let mut left = vec![PathBuf::new()];
    while let Some(inner) = left.pop() {
        let (first, second) = (one.join(&inner), other.join(&inner));
        let (a, b) = (fs::symlink_metadata(&first)?, fs::symlink_metadata(&second)?);
        if told(&a) != told(&b) {
            return Ok(Some(inner));
        }
        if !a.is_dir() {
            continue;
        }
        let names = |dir: &Path| -> io::Result<BTreeSet<_>> {
            fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
        };
        let (names, others) = (names(&first)?, names(&second)?);
        if let Some(name) = names.symmetric_difference(&others).next() {
            return Ok(Some(inner.join(name)));
        }
        left.extend(names.into_iter().map(|name| inner.join(name)));
    }
    Ok(None)
}
