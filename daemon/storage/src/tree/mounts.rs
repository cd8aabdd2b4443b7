//! What others have mounted within a dataset, such as a privileged pod that does not clean up: it is theirs, and no part of
//! the dataset.

use super::io_error;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::mounted::targets_below;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn below(path: &Path) -> io::Result<BTreeSet<PathBuf>> {
    match fs::canonicalize(path) {
        // The table knows no links.
        Ok(path) => targets_below(&path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(e) => Err(e),
    }
}

/// What is mounted below a tree, if anything is: one of it.
pub(super) fn any_below(op: &'static str, path: &Path) -> HostResult<Option<PathBuf>> {
    Ok(below(path).map_err(|e| io_error(op, path, e))?.into_iter().next())
}

/// Refuses to touch a tree while something is mounted below it.
pub(super) fn none_below(op: &'static str, path: &Path) -> HostResult<()> {
    let Some(at) = any_below(op, path)? else { return Ok(()) };
    let message = format!("{} is mounted below it: unmount it first", at.display());
    Err(HostError::new(HostErrorKind::Busy, op, path.display().to_string(), message))
}

/// Refuses a tree that holds another file system which is not mounted there: a subvolume, which is a part of it.
pub(super) fn one_file_system(op: &'static str, path: &Path) -> HostResult<()> {
    let failed = |e| io_error(op, path, e);
    let mounted = below(path).map_err(failed)?;
    let top = fs::canonicalize(path).map_err(failed)?;
    let device = fs::symlink_metadata(&top).map_err(failed)?.dev();
    let mut left = vec![top];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let inner = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || mounted.contains(&inner) {
                continue;
            }
            if fs::symlink_metadata(&inner).is_ok_and(|found| found.dev() != device) {
                let message = format!(
                    "{} is a subvolume, which would be left out: unmount what is mounted below",
                    inner.display()
                );
                return Err(HostError::new(HostErrorKind::Unsupported, op, path.display().to_string(), message));
            }
            left.push(inner);
        }
    }
    Ok(())
}
