//! Files that snapshots are sent to: there under their name when they are whole, and for nobody but us at any time.

use super::{io_error, renamed, sync_dir};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The temporary name of a stream that is being written.
pub(crate) fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Checks where a stream is to go, has it written to [`partial`], which is there and empty, and gives it its name: its size.
pub(crate) async fn write_stream(
    op: &'static str,
    file: &Path,
    write: impl Future<Output = HostResult<()>>,
) -> HostResult<u64> {
    let free = || {
        let message = "the file is there already: name another one";
        let there = fs::symlink_metadata(file).is_ok();
        let refused = || HostError::new(HostErrorKind::Conflict, op, file.display().to_string(), message);
        if there { Err(refused()) } else { Ok(()) }
    };
    free()?;
    let part = partial(file);
    let failed = |e| io_error(op, file, e);
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    // Whoever writes it opens it, and leaves its mode as it is.
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?);
    let result = write.await.and_then(|()| free()).and_then(|()| finish(&part, file).map_err(failed));
    if result.is_err() {
        drop(fs::remove_file(&part));
    }
    result
}

fn finish(part: &Path, file: &Path) -> io::Result<u64> {
    let written = File::open(part)?;
    written.sync_all()?;
    renamed(part, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(dir)?;
    Ok(written.metadata()?.len())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_stream_is_nobody_elses_from_its_first_byte_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("stream");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // Left by a crash, for all to read.
        fs::write(partial(&file), "old").unwrap();
        fs::set_permissions(partial(&file), fs::Permissions::from_mode(0o644)).unwrap();
        let bytes = write_stream("send snapshot", &file, async {
            assert_eq!((mode(&partial(&file)), fs::read(partial(&file)).unwrap().len()), (0o600, 0));
            fs::write(partial(&file), "whole").unwrap();
            Ok(())
        });
        assert_eq!(bytes.await.unwrap(), 5);
        assert_eq!((mode(&file), partial(&file).exists()), (0o600, false));
        let other = dir.path().join("other");
        let refused = write_stream("send snapshot", &other, async {
            fs::write(&other, "somebody was faster").unwrap();
            Ok(())
        });
        assert_eq!(refused.await.unwrap_err().kind, HostErrorKind::Conflict);
        assert_eq!(fs::read_to_string(&other).unwrap(), "somebody was faster");
        assert!(!partial(&other).exists());
    }
}
