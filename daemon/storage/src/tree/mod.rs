//! Engines whose datasets are directories below one place. What differs, how a tree is made, copied and removed, is in
//! [`Trees`]: plain directories ([`directory`]) or btrfs' subvolumes ([`btrfs`]).
//!
//! A dataset is made under a name that begins with a dot and renamed when it is complete; it is removed by being renamed
//! first. So a crash leaves it whole or absent, and what begins with a dot is cleared away (or, of a rollback, put back) by
//! `TreeEngine::prepare`: `place.rs` does the former, `settle.rs` the latter, `calls.rs` has the trait's calls.

mod archive;
pub mod btrfs;
mod calls;
mod compare;
mod crash;
pub mod directory;
mod layout;
mod mark;
mod mounts;
mod place;
mod settle;
mod stream;

pub use layout::Layout;
pub(crate) use stream::{partial, write_stream};

use crate::anchor::Anchor;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
pub(crate) use layout::DATA;
use layout::Stage;
use mark::Mark;
pub(crate) use mark::sync_dir;
use nix::sys::statvfs::statvfs;
use reddwarf_host::storage::{
    Capacity, EngineAbout, EngineKind, Features, Leftovers, SnapshotInfo, Tuning, check_marks,
};
use reddwarf_host::usage::fillable;
use reddwarf_host::{
    Area, Change, Clock, DatasetId, DatasetSpec, HostError, HostErrorKind, HostResult, Limits, SnapshotId, SnapshotName,
};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How trees of one kind of file system are handled. Paths are the engine's own; parents are there.
#[async_trait]
pub(crate) trait Trees: fmt::Debug + Send + Sync + 'static {
    /// Which engine it makes, and what that can do.
    fn kind(&self) -> (EngineKind, Features);
    /// Looks whether the place can be used; called for each area before anything else.
    async fn prepare(&self, root: &Path) -> HostResult<()>;
    /// Makes an empty tree.
    async fn make(&self, path: &Path) -> HostResult<()>;
    /// Makes a tree of another's content.
    async fn copy(&self, from: &Path, to: &Path, read_only: bool) -> HostResult<()>;
    /// Removes a tree. Absent is fine.
    async fn remove(&self, path: &Path) -> HostResult<()>;
    /// Whether a copy holds all that lies in a tree.
    async fn check_whole(&self, _op: &'static str, _path: &Path) -> HostResult<()> {
        Ok(())
    }
    /// Puts limits in force.
    async fn limit(&self, path: &Path, limits: &Limits) -> HostResult<()>;
    /// Bytes that a tree takes.
    async fn used(&self, path: &Path) -> HostResult<u64>;
    /// Bytes that each tree in a directory takes for itself, by name.
    async fn own(&self, root: &Path) -> HostResult<BTreeMap<String, u64>>;
    /// Bytes of each tree in a directory that count for its limits, by name.
    async fn counted(&self, root: &Path) -> HostResult<BTreeMap<String, u64>> {
        self.own(root).await
    }
    /// Writes a snapshot, or what changed since an older one, to a file that is not there.
    async fn send(&self, snapshot: &Path, since: Option<&Path>, file: &Path) -> HostResult<()>;
    /// Whether a file holds all of what [`Trees::send`] writes, and whether that is an increment.
    async fn look(&self, file: &Path) -> HostResult<Stream>;
    /// Whether a snapshot's tree is the one that an increment was made since.
    async fn is_base(&self, snapshot: &Path, base: Base) -> HostResult<bool>;
    /// Makes a tree of a stream in an empty directory; its name there is the stream's.
    async fn receive(&self, file: &Path, within: &Path) -> HostResult<()>;
}

/// What a file of [`Trees::send`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Whole,
    Increment(Base),
}

/// What an increment calls the snapshot that it was made since.
pub(crate) type Base = [u8; 16];

/// An engine over [`Trees`].
pub struct TreeEngine {
    about: EngineAbout,
    layout: Layout,
    trees: Box<dyn Trees>,
    clock: Arc<dyn Clock>,
    /// What tells its place from another one of the same name.
    anchor: Option<Anchor>,
    locks: Mutex<HashMap<DatasetId, Weak<tokio::sync::Mutex<()>>>>,
    leftovers: Leftovers,
}

impl fmt::Debug for TreeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeEngine").field("about", &self.about).field("layout", &self.layout).finish_non_exhaustive()
    }
}

pub(crate) fn io_error(op: &'static str, path: &Path, error: io::Error) -> HostError {
    let kind = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT) => HostErrorKind::Exhausted,
        Some(nix::errno::Errno::EBUSY) => HostErrorKind::Busy,
        _ if error.kind() == io::ErrorKind::ResourceBusy => HostErrorKind::Busy,
        _ if error.kind() == io::ErrorKind::NotFound => HostErrorKind::NotFound,
        _ => HostErrorKind::Other,
    };
    HostError::new(kind, op, path.display().to_string(), error.to_string())
}

/// The first path within two trees that differs, one of which is of a snapshot of the other.
pub(crate) async fn first_difference(op: &'static str, live: PathBuf, kept: PathBuf) -> HostResult<Option<PathBuf>> {
    let shown = live.clone();
    let compared = tokio::task::spawn_blocking(move || compare::first_difference(&live, &kept)).await;
    compared.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| io_error(op, &shown, e))
}

/// Why an increment does not fit.
pub(crate) const NO_BASE: &str = "the increment was made since a snapshot that it does not have";

/// Why an increment does not fit: it was made since an older snapshot.
pub(crate) fn newer_than(base: &str, newer: &[impl fmt::Display]) -> String {
    let newer: Vec<String> = newer.iter().map(ToString::to_string).collect();
    format!(
        "the increment was made since its snapshot {base}, and there are newer ones, remove them first: {}",
        newer.join(", ")
    )
}

/// Why an increment does not fit: what was written would be lost.
pub(crate) fn written_since(base: &str, path: &Path) -> String {
    format!(
        "{} was changed since its snapshot {base}, which the increment would undo: go back to {base} first (`volume rollback`), or \
         receive a whole stream under another name",
        Path::new(DATA).join(path).display()
    )
}

/// Has a stream walked to its end: one that was cut off or damaged on its way makes no dataset.
async fn whole(
    file: &Path,
    walk: impl FnOnce(io::BufReader<fs::File>) -> Result<(), archive::Flaw> + Send + 'static,
) -> HostResult<()> {
    const OP: &str = "receive dataset";
    let path = file.to_owned();
    let walked = tokio::task::spawn_blocking(move || walk(io::BufReader::new(fs::File::open(path)?))).await;
    match walked.unwrap_or_else(|e| Err(io::Error::other(e).into())) {
        Ok(()) => Ok(()),
        Err(archive::Flaw::Read(error)) => Err(io_error(OP, file, error)),
        Err(flaw) => Err(HostError::new(HostErrorKind::InvalidSpec, OP, file.display().to_string(), flaw.to_string())),
    }
}

impl TreeEngine {
    pub(crate) fn new(layout: Layout, trees: impl Trees, why: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        let (kind, features) = trees.kind();
        let place = layout.base().display().to_string();
        let about = EngineAbout { kind, place, why: why.into(), features };
        Self {
            about,
            layout,
            trees: Box::new(trees),
            clock,
            anchor: None,
            locks: Mutex::default(),
            leftovers: Leftovers::default(),
        }
    }

    /// Has it work only where it is said to have been before.
    pub(crate) fn anchored(mut self, record: Option<PathBuf>) -> Self {
        let areas = Area::ALL.map(|area| (area, self.layout.root(area).display().to_string()));
        let EngineAbout { kind, place, .. } = &self.about;
        self.anchor = record.map(|file| Anchor::new(file, *kind, place.clone(), BTreeMap::from(areas)));
        self
    }

    /// Refuses when an area is not there: an unmounted disk's place looks empty.
    fn here(&self, op: &'static str, area: Area) -> HostResult<()> {
        self.anchor.as_ref().map_or(Ok(()), |anchor| anchor.here(op, area, &self.layout.root(area)))
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.wall()
    }

    /// One call for a dataset at a time.
    async fn lock(&self, id: &DatasetId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let found = locks.get(id).and_then(Weak::upgrade);
            found.unwrap_or_else(|| {
                let new = Arc::default();
                locks.insert(id.clone(), Arc::downgrade(&new));
                new
            })
        };
        lock.lock_owned().await
    }

    /// A dataset's mark; `None` when it is not there.
    fn mark(&self, op: &'static str, id: &DatasetId) -> HostResult<Option<Mark>> {
        self.here(op, id.area)?;
        let path = self.layout.dataset(id);
        match fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(op, &path, e)),
        }
        let foreign = || {
            let message = "it bears no mark of ours: it is left alone; move it away if it should be made here";
            HostError::new(HostErrorKind::Foreign, op, path.display().to_string(), message)
        };
        Mark::read(&path).map_err(|e| io_error(op, &path, e))?.ok_or_else(foreign).map(Some)
    }

    fn there(&self, op: &'static str, id: &DatasetId) -> HostResult<Mark> {
        let absent = || HostError::new(HostErrorKind::NotFound, op, id.to_string(), "there is no such dataset");
        self.mark(op, id)?.ok_or_else(absent)
    }

    fn snapshot_mark(&self, op: &'static str, id: &SnapshotId) -> HostResult<Option<Mark>> {
        let path = self.layout.snapshot(id);
        Mark::read(&path).map_err(|e| io_error(op, &path, e))
    }

    fn snapshot_there(&self, op: &'static str, id: &SnapshotId) -> HostResult<Mark> {
        let absent = || HostError::new(HostErrorKind::NotFound, op, id.to_string(), "there is no such snapshot");
        self.snapshot_mark(op, id)?.ok_or_else(absent)
    }

    /// The tree of a snapshot: what lies beside its mark.
    fn tree(&self, op: &'static str, dir: &Path) -> HostResult<PathBuf> {
        let mut found = None;
        for name in names(dir).map_err(|e| io_error(op, dir, e))? {
            let path = dir.join(&name);
            if !name.starts_with('.') && fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
                found = Some(path);
            }
        }
        let absent = || HostError::new(HostErrorKind::NotFound, op, dir.display().to_string(), "it holds no files");
        found.ok_or_else(absent)
    }

    fn snapshots(&self, id: &DatasetId) -> HostResult<Vec<(SnapshotInfo, u64)>> {
        let dir = self.layout.snapshots(id);
        let mut found = Vec::new();
        for name in names(&dir).map_err(|e| io_error("list snapshots", &dir, e))? {
            let Ok(name) = SnapshotName::new(name) else { continue };
            let mark = Mark::read(&dir.join(name.as_str())).map_err(|e| io_error("list snapshots", &dir, e))?;
            if let Some(mark) = mark {
                found.push((SnapshotInfo { name, created: mark.created }, mark.sequence));
            }
        }
        found.sort_by(|(a, m), (b, n)| (m, a.created, &a.name).cmp(&(n, b.created, &b.name)));
        Ok(found)
    }

    fn check_spec(&self, op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<()> {
        let refuse = |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, op, id.to_string(), message));
        if let Err(why) = check_marks(&spec.marks) {
            return refuse(why);
        }
        if spec.tuning != Tuning::default() {
            let kind = self.about.kind;
            return refuse(format!("the engine {kind} knows neither compression nor record size: only zfs does"));
        }
        Ok(())
    }

    /// What to do about a dataset that may be there already: `None`: it is not, make it.
    async fn present(&self, op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Option<Change>> {
        self.check_spec(op, id, spec)?;
        let Some(mark) = self.mark(op, id)? else { return Ok(None) };
        if mark.marks != spec.marks {
            let message = "a dataset of this name is there already with other marks";
            return Err(HostError::new(HostErrorKind::Conflict, op, id.to_string(), message));
        }
        self.put_limits(id, mark, &spec.limits).await.map(Some)
    }

    async fn put_limits(&self, id: &DatasetId, mark: Mark, limits: &Limits) -> HostResult<Change> {
        if mark.limits == *limits {
            return Ok(Change::Unchanged);
        }
        let path = self.layout.dataset(id);
        self.trees.limit(&path, limits).await?;
        crash::point();
        let marked = Mark { limits: *limits, ..mark }.write(&path);
        marked.map_err(|e| io_error("resize dataset", &path, e))?;
        Ok(Change::Changed("limits changed".into()))
    }
}

/// Whether it must be there, and be gone, after a power cut as well. Pods' roots go with their pods then, so that making one
/// waits for the disk no more than the file system itself does.
fn lasting(id: &DatasetId) -> bool {
    id.area != Area::Pods
}

/// rename(2), between two points at which a test may kill us.
fn renamed(from: &Path, to: impl AsRef<Path>) -> io::Result<()> {
    crash::point();
    fs::rename(from, to)?;
    crash::point();
    Ok(())
}

/// Names in a directory; none when it is not there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        // What is not UTF-8 is none of ours.
        found.extend(entry?.file_name().into_string().ok());
    }
    found.sort();
    Ok(found)
}

/// Directories that only the daemon enters.
fn make_dirs(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What statvfs(3) says of a place; what the file system reserves is not part of it, as in df(1).
pub(crate) fn capacity(op: &'static str, place: &Path) -> HostResult<Capacity> {
    let found = statvfs(place).map_err(|e| io_error(op, place, e.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    let (all, free, available): (u64, u64, u64) =
        (found.blocks().into(), found.blocks_free().into(), found.blocks_available().into());
    Ok(Capacity { total_bytes: bytes(fillable(all, free, available)), free_bytes: bytes(available) })
}
