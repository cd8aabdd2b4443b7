//! Plain directories, on any file system: the engine that needs nothing. Snapshots and clones are copies (which share their
//! blocks where the file system can: XFS). Quotas are noted, not kept.

use super::{Base, Layout, Stream, TreeEngine, Trees, io_error};
use async_trait::async_trait;
use reddwarf_command::{CommandError, Tools};
use reddwarf_host::storage::{EngineKind, Features};
use reddwarf_host::{Clock, HostError, HostErrorKind, HostResult, Limits};
use reddwarf_supervise::files::remove_tree;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Copying or packing a volume takes no longer.
const LONG: Duration = Duration::from_secs(12 * 3600);

/// An engine on plain directories.
pub fn engine(layout: Layout, tools: Tools, why: impl Into<String>, clock: Arc<dyn Clock>) -> TreeEngine {
    TreeEngine::new(layout, Directories { tools }, why, clock)
}

#[derive(Debug)]
struct Directories {
    tools: Tools,
}

/// How cp(1) copies everything there is of a tree: owners, modes, times, links, attributes, holes.
#[cfg(target_os = "linux")]
const COPY: &[&str] = &["-a", "--reflink=auto", "--"];
#[cfg(not(target_os = "linux"))]
const COPY: &[&str] = &["-pPR@", "--"];

/// How tar(1) packs it.
#[cfg(target_os = "linux")]
const PACK: &[&str] =
    &["--create", "--one-file-system", "--sparse", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
#[cfg(target_os = "linux")]
const UNPACK: &[&str] =
    &["--extract", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner", "-p"];

impl Directories {
    async fn run(&self, op: &'static str, subject: &Path, program: &str, args: Vec<OsString>) -> HostResult<()> {
        let shown = subject.display().to_string();
        let command = self.tools.command(program).map_err(|e| e.into_host(op, &*shown))?;
        match command.args(args).deadline(LONG).run().await {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { stderr, .. }) if is_full(&stderr) => {
                Err(HostError::new(HostErrorKind::Exhausted, op, shown, stderr))
            }
            Err(error) => Err(error.into_host(op, shown)),
        }
    }
}

/// Whether nothing but files that were listed and then were not there kept cp(1) from copying everything.
fn is_vanished(message: &str) -> bool {
    let gone = |line: &str| {
        ["cannot stat", "cannot access", "cannot open"].iter().any(|words| line.starts_with(&format!("cp: {words} ")))
            && line.ends_with(": No such file or directory")
    };
    // The command and its status, then what it said.
    let said = message.split_once(": cp: ").map(|(_, said)| format!("cp: {said}"));
    // A long message is told without its middle.
    said.is_some_and(|said| said.lines().all(gone) && !said.contains(" [...] "))
}

/// The C library's words, which these tools end their messages with.
pub(super) fn is_full(stderr: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| stderr.contains(words))
}

pub(super) fn arguments<const N: usize>(options: &[&str], paths: [&Path; N]) -> Vec<OsString> {
    let options = options.iter().map(OsString::from);
    options.chain(paths.into_iter().map(|path| path.as_os_str().to_owned())).collect()
}

#[async_trait]
impl Trees for Directories {
    fn kind(&self) -> (EngineKind, Features) {
        (EngineKind::Directory, Features::default())
    }

    async fn prepare(&self, _root: &Path) -> HostResult<()> {
        Ok(())
    }

    async fn make(&self, path: &Path) -> HostResult<()> {
        // Never its parents: where they are missing a disk is.
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|e| io_error("make dataset", path, e))
    }

    async fn copy(&self, from: &Path, to: &Path, _read_only: bool) -> HostResult<()> {
        let mut options = COPY.to_vec();
        // What is mounted below it is no part of it. A subvolume that somebody made in it is, but cp(1) can't tell the two.
        if super::mounts::any_below("copy dataset", from)?.is_some() {
            super::mounts::one_file_system("copy dataset", from)?;
            options.splice(0..0, ["-x"]);
        }
        match self.run("copy dataset", from, "cp", arguments(&options, [from, to])).await {
            // A file that went while the copy was made might have gone before it was begun.
            Err(error) if error.kind != HostErrorKind::Exhausted && is_vanished(&error.message) && to.is_dir() => {
                tracing::info!(%error, "files that went meanwhile are not in the copy");
            }
            copied => copied?,
        }
        // A copy that is renamed into place must be on the disk by then.
        #[cfg(target_os = "linux")]
        self.run("copy dataset", to, "sync", arguments(&["-f"], [to])).await?;
        Ok(())
    }

    async fn remove(&self, path: &Path) -> HostResult<()> {
        super::mounts::none_below("remove dataset", path)?;
        let tree = path.to_owned();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&tree)).await;
        removed.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| io_error("remove dataset", path, e)).map(drop)
    }

    async fn limit(&self, _path: &Path, _limits: &Limits) -> HostResult<()> {
        Ok(())
    }

    async fn used(&self, path: &Path) -> HostResult<u64> {
        let tree = path.to_owned();
        let used = tokio::task::spawn_blocking(move || bytes_below(&tree)).await;
        used.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| io_error("measure dataset", path, e))
    }

    async fn own(&self, root: &Path) -> HostResult<BTreeMap<String, u64>> {
        let mut own = BTreeMap::new();
        for name in super::names(root).map_err(|e| io_error("measure datasets", root, e))? {
            if !name.starts_with('.') {
                let bytes = self.used(&root.join(&name)).await?;
                own.insert(name, bytes);
            }
        }
        Ok(own)
    }

    #[cfg(target_os = "linux")]
    async fn send(&self, snapshot: &Path, _since: Option<&Path>, file: &Path) -> HostResult<()> {
        let mut args: Vec<OsString> = PACK.iter().map(OsString::from).collect();
        args.extend(arguments(&["--file"], [file]));
        args.extend(arguments(&["--directory"], [snapshot]));
        args.push(super::layout::DATA.into());
        self.run("send snapshot", snapshot, "tar", args).await
    }

    #[cfg(not(target_os = "linux"))]
    async fn send(&self, snapshot: &Path, _since: Option<&Path>, _file: &Path) -> HostResult<()> {
        let message = "directories can't be sent on this system: use ZFS";
        Err(HostError::new(HostErrorKind::Unsupported, "send snapshot", snapshot.display().to_string(), message))
    }

    async fn look(&self, file: &Path) -> HostResult<Stream> {
        let mut head = Vec::new();
        let read = File::open(file).and_then(|f| f.take(512).read_to_end(&mut head));
        read.map_err(|e| io_error("receive dataset", file, e))?;
        // tar(5): the magic of POSIX and GNU archives.
        if head.get(257..262) == Some(b"ustar") {
            super::whole(file, super::archive::tar).await?;
            return Ok(Stream::Whole);
        }
        let message =
            "no archive of the directory engine: it must be what `reddwarfctl volume send` wrote with this engine";
        Err(HostError::new(HostErrorKind::InvalidSpec, "receive dataset", file.display().to_string(), message))
    }

    async fn is_base(&self, _snapshot: &Path, _base: Base) -> HostResult<bool> {
        // Directories have no increments.
        Ok(false)
    }

    #[cfg(target_os = "linux")]
    async fn receive(&self, file: &Path, within: &Path) -> HostResult<()> {
        let tree = within.join("received");
        self.make(&tree).await?;
        let mut args: Vec<OsString> = UNPACK.iter().map(OsString::from).collect();
        args.extend(arguments(&["--file"], [file]));
        args.extend(arguments(&["--directory"], [&tree]));
        // Nothing but the volume's files: what else an archive holds is not unpacked.
        args.push(super::layout::DATA.into());
        match self.run("receive dataset", file, "tar", args).await {
            Err(e) if e.kind == HostErrorKind::Other => Err(HostError { kind: HostErrorKind::InvalidSpec, ..e }),
            other => other,
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn receive(&self, file: &Path, _within: &Path) -> HostResult<()> {
        let message = "directories can't be received on this system: use ZFS";
        Err(HostError::new(HostErrorKind::Unsupported, "receive dataset", file.display().to_string(), message))
    }
}

/// Bytes on disk of all files below a directory, each counted once; other file systems mounted below are left out.
fn bytes_below(root: &Path) -> io::Result<u64> {
    let device = fs::symlink_metadata(root)?.dev();
    let (mut bytes, mut linked, mut left) = (0_u64, HashSet::new(), vec![root.to_owned()]);
    while let Some(dir) = left.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // Whoever uses the volume goes on using it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let path = entry?.path();
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.dev() != device || (found.nlink() > 1 && !found.is_dir() && !linked.insert(found.ino())) {
                continue;
            }
            // stat(2): blocks of 512 bytes, whatever the file system's are.
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_went_meanwhile_is_told_from_a_failure() {
        let command = "/usr/bin/cp -a --reflink=auto -- /a /b: exit status: 1: ";
        let gone = "cp: cannot stat '/a/data/x': No such file or directory\ncp: cannot open '/a/y' for reading: No such file or directory";
        assert!(is_vanished(&format!("{command}{gone}")));
        for failure in [
            "cp: error writing '/b/x': Input/output error",
            "cp: cannot create directory '/b/x': No such file or directory",
            "cp: cannot open '/a/x' for reading: Permission denied",
            "cp: cannot stat '/a/x': No such file or directory\ncp: cannot stat '/a/y': Input/output error",
            "",
        ] {
            assert!(!is_vanished(&format!("{command}{failure}")), "{failure}");
        }
    }
}
