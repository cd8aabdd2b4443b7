//! Subvolumes of btrfs: snapshots and clones in constant time, quotas by qgroups, increments. Everything goes through
//! btrfs(8), but for what the host offers to do itself ([`Subvolumes`]).

use super::directory::is_full;
use super::{Base, Layout, Stream, TreeEngine, Trees, crash, io_error};
use async_trait::async_trait;
use reddwarf_command::{CommandError, CommandOutput, Tools};
use reddwarf_host::storage::{EngineKind, Features, Subvolumes};
use reddwarf_host::{Clock, HostError, HostErrorKind, HostResult, Limits};
use reddwarf_supervise::files::remove_tree;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A subvolume's root has this inode number, and nothing else has.
const SUBVOLUME_INODE: u64 = 256;
/// Streams may be large.
const LONG: Duration = Duration::from_secs(12 * 3600);
const SHORT: Duration = Duration::from_secs(120);
/// A stream's first command, with names as long as they may be, lies within so many bytes.
const HEAD: u64 = 8192;
/// Subvolumes within a subvolume that is removed; a pod may make them.
const NESTED: usize = 10_000;

/// An engine on btrfs. The place must be on such a file system, with btrfs(8) at hand.
pub fn engine(
    layout: Layout,
    tools: Tools,
    subvolumes: Option<Arc<dyn Subvolumes>>,
    why: impl Into<String>,
    clock: Arc<dyn Clock>,
) -> TreeEngine {
    TreeEngine::new(layout, Btrfs { tools, subvolumes }, why, clock)
}

/// Whether a path is on btrfs, as btrfs(8) says; `None` when it is not installed.
pub async fn is_at(tools: &Tools, path: &Path) -> Option<bool> {
    let command = tools.command("btrfs").ok()?;
    let args = [OsString::from("filesystem"), "df".into(), "-b".into(), path.as_os_str().to_owned()];
    Some(command.args(args).deadline(SHORT).run().await.is_ok())
}

#[derive(Debug)]
struct Btrfs {
    tools: Tools,
    subvolumes: Option<Arc<dyn Subvolumes>>,
}

impl Btrfs {
    async fn run<I>(&self, op: &'static str, subject: &Path, args: I, deadline: Duration) -> HostResult<CommandOutput>
    where
        I: IntoIterator<Item = OsString> + Send,
        I::IntoIter: Send,
    {
        let shown = subject.display().to_string();
        let command = self.tools.command("btrfs").map_err(|e| e.into_host(op, &*shown))?;
        match command.args(args).deadline(deadline).run().await {
            Ok(output) => Ok(output),
            Err(CommandError::Failed { stderr, .. }) if is_full(&stderr) => {
                Err(HostError::new(HostErrorKind::Exhausted, op, shown, stderr))
            }
            Err(CommandError::Failed { stderr, .. }) if stderr.contains("Device or resource busy") => {
                Err(HostError::new(HostErrorKind::Busy, op, shown, stderr))
            }
            Err(error) => Err(error.into_host(op, shown)),
        }
    }

    async fn short(
        &self,
        op: &'static str,
        subject: &Path,
        args: &[&str],
        paths: &[&Path],
    ) -> HostResult<CommandOutput> {
        let args: Vec<OsString> =
            args.iter().map(OsString::from).chain(paths.iter().map(|p| p.as_os_str().to_owned())).collect();
        self.run(op, subject, args, SHORT).await
    }

    /// Has the host do it by a call of the kernel's; `None`: it offers none.
    async fn call(
        &self,
        op: &'static str,
        path: &Path,
        work: impl FnOnce(&dyn Subvolumes) -> io::Result<()> + Send + 'static,
    ) -> Option<HostResult<()>> {
        let subvolumes = self.subvolumes.clone()?;
        // The kernel may have a transaction to write first.
        let done = tokio::task::spawn_blocking(move || work(&*subvolumes)).await;
        Some(done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| io_error(op, path, e)))
    }

    /// What each subvolume in a directory takes.
    async fn measure(&self, root: &Path, column: Column) -> HostResult<BTreeMap<String, u64>> {
        const OP: &str = "measure datasets";
        let listed = self.short(OP, root, &["subvolume", "list"], &[root]).await?;
        let shown = self.short(OP, root, &["qgroup", "show", "--raw"], &[root]).await?;
        let text = |output: &CommandOutput| String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(measured(root, &text(&listed), &text(&shown), column))
    }

    /// Removes one subvolume that holds no others, and its quota group.
    async fn remove_one(&self, path: &Path) -> HostResult<()> {
        const OP: &str = "remove dataset";
        let going = path.to_owned();
        if let Some(done) = self.call(OP, path, move |s| s.remove(&going)).await {
            return done;
        }
        let id = self.short(OP, path, &["inspect-internal", "rootid"], &[path]).await?;
        self.short(OP, path, &["subvolume", "delete", "--"], &[path]).await?;
        crash::point();
        let group = format!("0/{}", String::from_utf8_lossy(&id.stdout).trim());
        if let Some(parent) = path.parent() {
            // A group without its subvolume does no harm; newer kernels remove it themselves.
            let gone = self.short(OP, path, &["qgroup", "destroy", &group], &[parent]).await;
            if let Err(error) = gone {
                tracing::debug!(%error, "a quota group stays");
            }
        }
        Ok(())
    }
}

/// Is it the root of a subvolume? Also false when it is not there.
fn is_subvolume(path: &Path) -> io::Result<Option<bool>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.is_dir() && found.ino() == SUBVOLUME_INODE)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Subvolumes below a directory, the deepest last.
fn nested(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let path = entry.path();
            if is_subvolume(&path)? == Some(true) {
                found.push(path.clone());
                if found.len() > NESTED {
                    return Err(io::Error::other(format!("more than {NESTED} subvolumes in one")));
                }
            }
            left.push(path);
        }
    }
    found.sort_by_key(|path| path.components().count());
    Ok(found)
}

#[async_trait]
impl Trees for Btrfs {
    fn kind(&self) -> (EngineKind, Features) {
        let features = Features { quota: true, instant: true, incremental: true, ..Features::default() };
        (EngineKind::Btrfs, features)
    }

    async fn prepare(&self, root: &Path) -> HostResult<()> {
        // Already on is fine, and said with success.
        self.short("prepare storage", root, &["quota", "enable"], &[root]).await.map(drop)
    }

    async fn make(&self, path: &Path) -> HostResult<()> {
        let new = path.to_owned();
        match self.call("make dataset", path, move |s| s.create(&new)).await {
            Some(done) => done?,
            None => drop(self.short("make dataset", path, &["subvolume", "create", "--"], &[path]).await?),
        }
        crash::point();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(path, private).map_err(|e| io_error("make dataset", path, e))
    }

    async fn copy(&self, from: &Path, to: &Path, read_only: bool) -> HostResult<()> {
        let (origin, new) = (from.to_owned(), to.to_owned());
        if let Some(done) = self.call("copy dataset", from, move |s| s.snapshot(&origin, &new, read_only)).await {
            return done;
        }
        let verb: &[&str] =
            if read_only { &["subvolume", "snapshot", "-r", "--"] } else { &["subvolume", "snapshot", "--"] };
        self.short("copy dataset", from, verb, &[from, to]).await.map(drop)
    }

    async fn remove(&self, path: &Path) -> HostResult<()> {
        let failed = |e| io_error("remove dataset", path, e);
        // Subvolumes of other disks may be mounted in it: nothing is looked for below those.
        super::mounts::none_below("remove dataset", path)?;
        match is_subvolume(path).map_err(failed)? {
            None => return Ok(()),
            // Left by a receive that was cut off: a directory around what arrived.
            Some(false) => {
                for inner in nested(path).map_err(failed)?.iter().rev() {
                    self.remove_one(inner).await?;
                }
                return remove_tree(path).map(drop).map_err(failed);
            }
            Some(true) => {}
        }
        if self.remove_one(path).await.is_ok() {
            return Ok(());
        }
        // A pod may have made subvolumes of its own.
        let tree = path.to_owned();
        let inner = tokio::task::spawn_blocking(move || nested(&tree)).await;
        for inner in inner.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed)?.iter().rev() {
            self.remove_one(inner).await?;
        }
        self.remove_one(path).await
    }

    async fn check_whole(&self, op: &'static str, path: &Path) -> HostResult<()> {
        let listed = self.short(op, path, &["subvolume", "list", "-o"], &[path]).await?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let Some(inner) = listed.lines().find_map(|line| Some(line.split_once(" path ")?.1)) else { return Ok(()) };
        let message = format!(
            "a subvolume was made in it, {inner}: no snapshot holds that, and going back would lose it; move its files to a directory and \
             delete it"
        );
        Err(HostError::new(HostErrorKind::Unsupported, op, path.display().to_string(), message))
    }

    async fn limit(&self, path: &Path, limits: &Limits) -> HostResult<()> {
        let most = limits.quota_bytes.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
        self.short("limit dataset", path, &["qgroup", "limit", &most], &[path]).await.map(drop)
    }

    async fn used(&self, path: &Path) -> HostResult<u64> {
        const OP: &str = "measure dataset";
        // What was written a moment ago counts once it is on its way to the disk.
        self.short(OP, path, &["filesystem", "sync"], &[path]).await?;
        let shown = self.short(OP, path, &["qgroup", "show", "--raw", "-f"], &[path]).await?;
        referenced(&String::from_utf8_lossy(&shown.stdout)).ok_or_else(|| {
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            let message = format!("btrfs qgroup show: no line of a quota group in {text:?}");
            HostError::new(HostErrorKind::Other, OP, path.display().to_string(), message)
        })
    }

    async fn own(&self, root: &Path) -> HostResult<BTreeMap<String, u64>> {
        self.measure(root, Column::Exclusive).await
    }

    async fn counted(&self, root: &Path) -> HostResult<BTreeMap<String, u64>> {
        self.measure(root, Column::Referenced).await
    }

    async fn send(&self, snapshot: &Path, since: Option<&Path>, file: &Path) -> HostResult<()> {
        let mut args: Vec<OsString> = vec!["send".into(), "--quiet".into()];
        if let Some(since) = since {
            args.extend(["-p".into(), since.as_os_str().to_owned()]);
        }
        args.extend(["-f".into(), file.as_os_str().to_owned(), snapshot.as_os_str().to_owned()]);
        self.run("send snapshot", snapshot, args, LONG).await.map(drop)
    }

    async fn look(&self, file: &Path) -> HostResult<Stream> {
        let mut head = Vec::new();
        let read = File::open(file).and_then(|f| f.take(HEAD).read_to_end(&mut head));
        read.map_err(|e| io_error("receive dataset", file, e))?;
        let kind = stream_kind(&head).ok_or_else(|| {
            let message = "no btrfs stream: it must be what `reddwarfctl volume send` wrote with this engine";
            HostError::new(HostErrorKind::InvalidSpec, "receive dataset", file.display().to_string(), message)
        })?;
        super::whole(file, super::archive::btrfs).await?;
        Ok(kind)
    }

    async fn is_base(&self, snapshot: &Path, base: Base) -> HostResult<bool> {
        let shown = self.short("receive dataset", snapshot, &["subvolume", "show"], &[snapshot]).await?;
        Ok(is_known_as(&String::from_utf8_lossy(&shown.stdout), base))
    }

    async fn receive(&self, file: &Path, within: &Path) -> HostResult<()> {
        let args = [
            "receive".into(),
            "--quiet".into(),
            "-f".into(),
            file.as_os_str().to_owned(),
            within.as_os_str().to_owned(),
        ];
        match self.run("receive dataset", file, args, LONG).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind == HostErrorKind::Other && e.message.contains("parent") => {
                Err(HostError { kind: HostErrorKind::Conflict, ..e })
            }
            Err(e) if e.kind == HostErrorKind::Other => Err(HostError { kind: HostErrorKind::InvalidSpec, ..e }),
            Err(e) => Err(e),
        }
    }
}

/// The referenced bytes in what `btrfs qgroup show --raw -f` prints: the second column of its only group.
fn referenced(text: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let group = words.next()?;
        group.starts_with("0/").then(|| words.find_map(|word| word.parse().ok()))?
    })
}

/// Columns of `btrfs qgroup show`, by their place.
#[derive(Clone, Copy, Debug)]
enum Column {
    /// All that can be reached from a subvolume: what its limit counts.
    Referenced = 1,
    /// What belongs to it alone.
    Exclusive = 2,
}

/// What each subvolume in a directory takes: of what `btrfs subvolume list` and `btrfs qgroup show --raw` print.
fn measured(root: &Path, subvolumes: &str, groups: &str, column: Column) -> BTreeMap<String, u64> {
    let bytes = |line: &str| -> Option<(u64, u64)> {
        let id = line.split_whitespace().next()?.strip_prefix("0/")?.parse().ok()?;
        Some((id, line.split_whitespace().nth(column as usize)?.parse().ok()?))
    };
    let bytes: BTreeMap<u64, u64> = groups.lines().filter_map(bytes).collect();
    let named = |line: &str| -> Option<(String, u64)> {
        // ID 257 gen 9 top level 5 path pods/a: from the file system's top, wherever it is mounted.
        let id: u64 = line.strip_prefix("ID ")?.split(' ').next()?.parse().ok()?;
        let path = Path::new(line.split_once(" path ")?.1);
        let here = path.parent()?.file_name() == root.file_name();
        let name = path.file_name()?.to_str()?;
        (here && !name.starts_with('.')).then(|| Some((name.to_owned(), *bytes.get(&id)?)))?
    };
    subvolumes.lines().filter_map(named).collect()
}

/// Whether what `btrfs subvolume show` prints names this subvolume: itself, or what it was received of.
fn is_known_as(shown: &str, base: Base) -> bool {
    let digits = reddwarf_host::hex(&base);
    let named = |line: &str| {
        let (key, value) = line.trim().split_once(':')?;
        ["UUID", "Received UUID"].contains(&key).then(|| value.trim().replace('-', "").eq_ignore_ascii_case(&digits))
    };
    shown.lines().filter_map(named).any(|same| same)
}

/// Reads a stream's beginning: magic, version, then its first command and, of an increment, which subvolume it was made since
/// (linux/fs/btrfs/send.h).
fn stream_kind(head: &[u8]) -> Option<Stream> {
    const MAGIC: &[u8] = b"btrfs-stream\0";
    const CLONE_UUID: [u8; 2] = [20, 0];
    let rest = head.strip_prefix(MAGIC)?;
    // Version (4), length of the command (4), its number (2), its checksum (4).
    match rest.get(8..10)? {
        [1, 0] => return Some(Stream::Whole),
        [2, 0] => {}
        _ => return None,
    }
    // Attributes: number (2), length (2), value.
    let mut left = rest.get(14..)?;
    loop {
        let (kind, length) = (left.get(..2)?, u16::from_le_bytes(left.get(2..4)?.try_into().ok()?));
        let (value, next) = left.get(4..)?.split_at_checked(usize::from(length))?;
        if kind == CLONE_UUID {
            return value.try_into().ok().map(Stream::Increment);
        }
        left = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_refers_to_is_read_from_old_and_new_tables() {
        let old = "qgroupid         rfer         excl \n--------         ----         ---- \n0/257        16384        16384 \n";
        let new = "Qgroupid    Referenced    Exclusive   Path\n--------    ----------    ---------   ----\n0/257            16384        16384   volumes/a\n";
        assert_eq!((referenced(old), referenced(new), referenced("")), (Some(16384), Some(16384), None));
    }

    #[test]
    fn what_is_a_subvolumes_own_is_read_from_two_tables() {
        let groups =
            "qgroupid  rfer  excl \n--------  ----  ---- \n0/5  1  2\n0/257  900  10 \n0/258  900  20 \n0/259  1  30\n";
        let list = "ID 257 gen 9 top level 5 path @/storage/pods/a\nID 258 gen 9 top level 5 path @/storage/images/a\n\
                    ID 259 gen 9 top level 5 path @/storage/pods/.new-b\nID 300 gen 9 top level 5 path @/storage/pods/c\nnonsense\n";
        for (column, bytes) in [(Column::Exclusive, 10), (Column::Referenced, 900)] {
            let found = measured(Path::new("/var/lib/reddwarf/storage/pods"), list, groups, column);
            assert_eq!(found, BTreeMap::from([("a".to_owned(), bytes)]));
        }
    }

    #[test]
    fn streams_are_told_apart_by_their_first_command() {
        let head = |command: u8| [b"btrfs-stream\0".as_slice(), &[1, 0, 0, 0], &[9, 0, 0, 0], &[command, 0]].concat();
        assert_eq!(stream_kind(&head(1)), Some(Stream::Whole));
        let base = [&[15, 0, 1, 0, b's'][..], &[20, 0, 16, 0], &[0xab; 16]].concat();
        let since = [head(2), vec![0; 4], base].concat();
        assert_eq!(stream_kind(&since), Some(Stream::Increment([0xab; 16])));
        assert_eq!(stream_kind(&since[..since.len() - 1]), None, "cut off");
        let shown =
            "volumes/a\n\tName: \t\t\ta\n\tUUID: \t\t\t01ababab-abab-abab-abab-abababababab\n\tParent UUID: \t\t-\n";
        assert!(!is_known_as(shown, [0xab; 16]) && is_known_as(&shown.replace("01", "ab"), [0xab; 16]));
        let received = shown.to_owned() + "\tReceived UUID: \t\tabababab-abab-abab-abab-abababababab\n";
        assert!(is_known_as(&received, [0xab; 16]));
        assert!(!is_known_as("\tParent UUID: \t\tabababab-abab-abab-abab-abababababab\n", [0xab; 16]));
        assert_eq!((stream_kind(&head(3)), stream_kind(b"btrfs"), stream_kind(b"")), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn no_stream_makes_it_panic(head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = stream_kind(&head);
        }
    }
}
