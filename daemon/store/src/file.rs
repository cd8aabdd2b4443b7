//! The file beside redb: lock, permissions, names, directory syncs.

use crate::StoreError;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `<path><suffix>` in the same directory.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The first of `<path><suffix>`, `<path><suffix>.2`, … that does not exist.
pub(crate) fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let first = beside(path, suffix);
    if !occupied(&first) {
        return first;
    }
    (2u32..).map(|n| beside(&first, &format!(".{n}"))).find(|p| !occupied(p)).unwrap_or(first)
}

fn occupied(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A time as part of a file name.
pub(crate) fn stamp(time: chrono::DateTime<chrono::Utc>) -> String {
    time.format("%Y%m%dT%H%M%SZ").to_string()
}

/// The directory of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let dir = parent(path);
    File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::io("sync the directory", dir))
}

/// Opens an existing file for the database.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Creates a file that only its owner can read; it must not exist.
pub(crate) fn create_private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("create", path))
}

/// Removes a leftover of an interrupted run of ours.
pub(crate) fn remove_leftover(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Gives `from` the name `to`, unless something has it: then `Exists`. Atomic and durable.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(StoreError::Exists { path: to.to_owned() }),
        other => other.map_err(StoreError::io("create", to))?,
    }
    fs::remove_file(from).map_err(StoreError::io("remove", from))?;
    sync_parent(to)
}

/// Puts `new` in the place of `path` in one step; what was there is kept as `aside`.
pub(crate) fn replace_keeping(new: &Path, path: &Path, aside: &Path) -> Result<(), StoreError> {
    fs::hard_link(path, aside).map_err(StoreError::io("keep the old file as", aside))?;
    fs::rename(new, path).map_err(StoreError::io("replace", path))?;
    sync_parent(path)
}

/// The lock of a store: a file beside it, so that it outlasts the store file's being replaced. The kernel releases it
/// with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the store at `path`, or says who has it.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        let name = beside(path, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(StoreError::io("open the lock file", &name))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &name)(e)),
        }
        // The number is only for people: a full disk must not keep the daemon from starting.
        if let Err(e) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            tracing::warn!(path = %name.display(), error = %e, "can't write the process number into the lock file");
        }
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let Some(pid) = pid else { return "another process".to_owned() };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}
