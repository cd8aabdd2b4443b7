//! Small files: written whole or not at all, read with a limit, removed without fuss when gone already.

use crate::{mounted, tree};
use nix::errno::Errno;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// No record of ours is larger: a guard against a damaged or hostile file eating all memory.
const LARGEST: u64 = 64 << 20;

/// An I/O failure as a host error: what was being done, on which path.
pub fn io_error(op: &'static str, path: &Path, error: io::Error) -> HostError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => HostErrorKind::NotFound,
        io::ErrorKind::ResourceBusy => HostErrorKind::Busy,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HostErrorKind::Exhausted,
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => HostErrorKind::Exhausted,
            Some(libc::EPERM | libc::EACCES) => HostErrorKind::Unsupported,
            _ => HostErrorKind::Other,
        },
    };
    HostError::new(kind, op, path.display().to_string(), error.to_string())
}

/// Makes a directory that only root may enter, and its parents.
///
/// # Errors
/// The system's.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory that everyone may enter (what containers see), and its parents.
pub fn make_open_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Replaces `path` by `bytes` in one step: readers see the old or the new content, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // Calls for one sandbox never run at the same time, and the shim's file names are its own: one name is enough.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// [`write_atomically`] of a value as JSON, for root's eyes only.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_atomically(path, &serde_json::to_vec(value)?, 0o600)
}

/// Reads a JSON record; `None` when there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(e),
    };
    // Room for most records. From 1 KiB on glibc's malloc tidies up all that is free first.
    let mut bytes = Vec::with_capacity(960);
    file.take(LARGEST).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// [`read_json`] with the path in the error.
pub fn read_record<T: DeserializeOwned>(op: &'static str, path: &Path) -> HostResult<Option<T>> {
    read_json(path).map_err(|e| io_error(op, path, e))
}

/// [`write_json`] with the path in the error.
pub fn write_record<T: Serialize>(op: &'static str, path: &Path, value: &T) -> HostResult<()> {
    write_json(path, value).map_err(|e| io_error(op, path, e))
}

/// Removes a file; whether it was there.
pub fn remove_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes an empty directory; whether it was there.
pub fn remove_dir(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes a tree, never through symlinks and nothing that is mounted below it; whether it was there.
///
/// # Errors
/// `ResourceBusy` when something is mounted there, the system's.
pub fn remove_tree(path: &Path) -> io::Result<bool> {
    tree::remove_tree(path).map_err(|error| match error {
        Errno::EBUSY => {
            let at = mounted::targets_below(path).ok().and_then(|mounts| mounts.into_iter().next());
            let what = at.map_or_else(|| "something".to_owned(), |at| at.display().to_string());
            io::Error::new(io::ErrorKind::ResourceBusy, format!("{what} is mounted or in use: unmount it first"))
        }
        other => other.into(),
    })
}

/// The text of a file of /proc or /sys, which has no length that could be asked for. Read into the stack: most are short, and
/// these are most of what an idle daemon reads.
pub fn read_kernel_file(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?.take(LARGEST);
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    String::from_utf8(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes a value to a file of /proc or /sys: the kernel takes one write(2) as one value.
#[allow(clippy::disallowed_methods, reason = "the kernel's files are not replaced but written to")]
pub fn write_kernel_file(path: &Path, value: &str) -> io::Result<()> {
    // Never made: where the kernel has none, a file of that name would be a lie.
    fs::File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// Names in a directory; none when it does not exist. Names that are not UTF-8 are not ours.
pub fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(names_in(dir.path()).unwrap(), vec!["a.json"]);
    }

    #[test]
    fn a_damaged_record_is_an_error_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, b"{").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!remove_file(&dir.path().join("x")).unwrap());
        assert!(!remove_tree(&dir.path().join("x")).unwrap());
        assert!(!remove_dir(&dir.path().join("x")).unwrap());
    }
}
