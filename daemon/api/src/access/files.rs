//! Files of ours that nobody else may read or that must never be half there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {op} {path}: {source}", path = .path.display())]
pub struct FileError {
    /// `read`, `write`, ...
    pub op: &'static str,
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { op, path, source }
}

/// Larger files than this are none of ours.
const MOST: u64 = 4 << 20;

/// Makes a directory that only we may look into, if it is not there.
///
/// # Errors
/// [`FileError`].
pub(crate) fn private_directory(path: &Path) -> Result<(), FileError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", path)(e)),
        _ => Ok(()),
    }
}

/// Writes a file as a whole, durably: after a crash it is the old or the new one.
///
/// # Errors
/// [`FileError`]; the old file is then still there.
pub(crate) fn replace(path: &Path, mode: u32, contents: &[u8]) -> Result<(), FileError> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = directory.join(format!(".{name}.{:x}", std::process::id()));
    drop(std::fs::remove_file(&fresh));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&fresh)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()));
    let placed = written
        .map_err(failed("write", &fresh))
        .and_then(|()| std::fs::rename(&fresh, path).map_err(failed("put in place", path)));
    if placed.is_err() {
        drop(std::fs::remove_file(&fresh));
        return placed;
    }
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed("sync the directory of", path))
}

/// What a file of ours holds.
#[derive(Debug)]
pub(crate) enum Kept {
    /// It is not there.
    Absent,
    /// Others may have read or written it, or it is no file: it is not to be trusted, and why.
    Unsafe(&'static str),
    /// Its contents, which only we can have read and written.
    Safe(Vec<u8>),
}

/// Reads a file that nobody else may read.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read_private(path: &Path) -> Result<Kept, FileError> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Kept::Absent),
        Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => return Ok(Kept::Unsafe("it is a symbolic link")),
        opened => opened.map_err(failed("open", path))?,
    };
    let meta = file.metadata().map_err(failed("look at", path))?;
    if !meta.is_file() {
        return Ok(Kept::Unsafe("it is no file"));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(Kept::Unsafe("it belongs to somebody else"));
    }
    if meta.mode() & 0o077 != 0 {
        return Ok(Kept::Unsafe("others may have read it"));
    }
    read_all(file, path).map(Kept::Safe)
}

/// Reads a file of the user's, which may be a link.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let flags = nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed("open", path))?;
    read_all(file, path)
}

fn read_all(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > MOST {
        return Err(failed("read", path)(io::Error::other("it is too large")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn private_files_are_replaced_whole_and_trusted_only_while_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(matches!(read_private(&path).unwrap(), Kept::Absent));
        replace(&path, 0o600, b"one").unwrap();
        replace(&path, 0o600, b"two").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(read_private(&path).unwrap(), Kept::Safe(bytes) if bytes == b"two"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_private(&path).unwrap(), Kept::Unsafe(_)));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(read_private(&link).unwrap(), Kept::Unsafe(_)));
        assert!(matches!(read_private(dir.path()).unwrap(), Kept::Unsafe(_)));
    }
}
