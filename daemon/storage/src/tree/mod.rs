//! Engines whose datasets are directories below one place. What differs, how a tree is made, copied and removed, is in
//! [`Trees`]: plain directories ([`directory`]) or btrfs' subvolumes ([`btrfs`]).
//!
//! A dataset is made under a name that begins with a dot and renamed when it is complete; it is removed by being renamed
//! first. So a crash leaves it whole or absent, and what begins with a dot is cleared away (or, of a rollback, put back) by
//! [`TreeEngine::prepare`].

mod archive;
pub mod btrfs;
mod compare;
mod crash;
pub mod directory;
mod layout;
mod mark;
mod mounts;
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
    Capacity, DatasetUsage, EngineAbout, EngineKind, Features, SnapshotInfo, Tuning, check_marks,
};
use reddwarf_host::usage::fillable;
use reddwarf_host::{
    Area, Change, Clock, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, HostResult, Limits,
    SnapshotId, SnapshotName, StorageEngine,
};
use reddwarf_supervise::files::remove_tree;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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

/// Cleaning up after a failure: the failure itself is what matters, `prepare` clears what stays.
async fn discard(trees: &dyn Trees, path: &Path) {
    if let Err(error) = trees.remove(path).await {
        tracing::warn!(%error, "half-made storage is cleared away at the next start");
    }
}

impl TreeEngine {
    pub(crate) fn new(layout: Layout, trees: impl Trees, why: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        let (kind, features) = trees.kind();
        let place = layout.base().display().to_string();
        let about = EngineAbout { kind, place, why: why.into(), features };
        Self { about, layout, trees: Box::new(trees), clock, anchor: None, locks: Mutex::default() }
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

    /// Fills a staged tree and gives it its place.
    async fn place(&self, id: &DatasetId, mark: &Mark, from: Option<&Path>) -> HostResult<()> {
        let staged = self.layout.staged(id, Stage::New);
        self.trees.remove(&staged).await?;
        let filled = self.fill(&staged, mark, from, lasting(id)).await;
        let placed = filled.and_then(|()| {
            let path = self.layout.dataset(id);
            let failed = |e| io_error("make dataset", &path, e);
            renamed(&staged, &path).map_err(failed)?;
            if lasting(id) { sync_dir(&self.layout.root(id.area)).map_err(failed) } else { Ok(()) }
        });
        if placed.is_err() {
            discard(&*self.trees, &staged).await;
        }
        placed
    }

    async fn fill(&self, staged: &Path, mark: &Mark, from: Option<&Path>, lasting: bool) -> HostResult<()> {
        match from {
            Some(from) => self.trees.copy(from, staged, false).await?,
            None => self.trees.make(staged).await?,
        }
        crash::point();
        let failed = |e| io_error("make dataset", staged, e);
        let data = staged.join(DATA);
        if from.is_none() {
            fs::create_dir(&data).map_err(failed)?;
            // Past the umask: whoever the containers run as must be able to write.
            fs::set_permissions(&data, Permissions::from_mode(0o777)).map_err(failed)?;
        }
        crash::point();
        if lasting { mark.write_new(staged) } else { mark.write_lazily(staged) }.map_err(failed)?;
        // A tree that was just made has no limits.
        if mark.limits == Limits::default() { Ok(()) } else { self.trees.limit(staged, &mark.limits).await }
    }

    /// Finishes or clears what begins with a dot in an area. What can't be cleared away stands in nobody's way but its own: it
    /// stays for the next start.
    async fn settle(&self, area: Area) -> HostResult<bool> {
        let root = self.layout.root(area);
        let mut any = false;
        let mut cleared = |done: HostResult<()>| match done {
            Ok(()) => any = true,
            Err(error) => tracing::warn!(%error, "what an earlier call left half-done can't be cleared away"),
        };
        for name in names(&root).map_err(|e| io_error("prepare storage", &root, e))? {
            let staged = Stage::ALL.iter().find_map(|stage| Some((*stage, name.strip_prefix(stage.prefix())?)));
            let Some((stage, of)) = staged else { continue };
            let Ok(id) = DatasetName::new(of).map(|name| DatasetId { area, name }) else { continue };
            // A call for it may be under way, when the place is prepared once more.
            let _one = self.lock(&id).await;
            let (path, place) = (root.join(&name), root.join(of));
            if path.exists() {
                cleared(self.settle_one(stage, &path, &place).await);
            }
        }
        let snapshots = root.join(".snapshots");
        for dataset in names(&snapshots).map_err(|e| io_error("prepare storage", &snapshots, e))? {
            let dir = snapshots.join(&dataset);
            for name in names(&dir).map_err(|e| io_error("prepare storage", &dir, e))? {
                if Stage::ALL.iter().any(|stage| name.starts_with(stage.prefix())) {
                    cleared(self.remove_snapshot(&dir.join(&name)).await);
                }
            }
        }
        Ok(any)
    }

    async fn settle_one(&self, stage: Stage, path: &Path, place: &Path) -> HostResult<()> {
        if stage == Stage::Old && !place.exists() {
            // A rollback was cut off between its two renames: as if it had not begun.
            return renamed(path, place).map_err(|e| io_error("undo rollback", path, e));
        }
        if stage == Stage::Gone
            && let (Some(root), Some(of)) = (place.parent(), place.file_name())
        {
            self.remove_below(&root.join(".snapshots").join(of)).await?;
        }
        self.trees.remove(path).await
    }

    /// Removes a snapshot's directory: its trees first.
    async fn remove_snapshot(&self, dir: &Path) -> HostResult<()> {
        let failed = |e| io_error("remove snapshot", dir, e);
        for name in names(dir).map_err(failed)? {
            let path = dir.join(name);
            if fs::symlink_metadata(&path).map_err(failed)?.is_dir() {
                self.trees.remove(&path).await?;
                crash::point();
            }
        }
        remove_tree(dir).map(drop).map_err(failed)
    }

    /// Removes all snapshots in a directory, and it.
    async fn remove_below(&self, dir: &Path) -> HostResult<()> {
        for name in names(dir).map_err(|e| io_error("destroy dataset", dir, e))? {
            self.remove_snapshot(&dir.join(name)).await?;
        }
        match fs::remove_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("destroy dataset", dir, e)),
            _ => Ok(()),
        }
    }

    /// Makes a snapshot of a dataset or a stream, under its name when it is complete.
    async fn place_snapshot(&self, id: &SnapshotId, fill: Fill<'_>) -> HostResult<()> {
        let staged = self.layout.staged_snapshot(id, Stage::New);
        self.remove_snapshot(&staged).await?;
        make_dirs(&staged).map_err(|e| io_error("make snapshot", &staged, e))?;
        crash::point();
        let result = self.fill_snapshot(id, &staged, fill).await;
        if result.is_err()
            && let Err(error) = self.remove_snapshot(&staged).await
        {
            tracing::warn!(%error, "a half-made snapshot is cleared away at the next start");
        }
        result
    }

    async fn fill_snapshot(&self, id: &SnapshotId, staged: &Path, fill: Fill<'_>) -> HostResult<()> {
        let sequence = self.snapshots(&id.dataset)?.last().map_or(0, |(_, last)| last.saturating_add(1));
        let failed = |e| io_error("make snapshot", staged, e);
        let mark = match fill {
            Fill::Dataset(mark) => {
                self.trees.copy(&self.layout.dataset(&id.dataset), &staged.join(id.name.as_str()), true).await?;
                crash::point();
                mark
            }
            Fill::Stream(file, spec, applied) => {
                self.trees.receive(file, staged).await?;
                let tree = self.tree("receive dataset", staged)?;
                if !fs::symlink_metadata(tree.join(DATA)).is_ok_and(|m| m.is_dir()) {
                    let message = "the stream holds no volume of ours: it has no directory `data`";
                    let subject = file.display().to_string();
                    return Err(HostError::new(HostErrorKind::InvalidSpec, "receive dataset", subject, message));
                }
                Mark { applied, ..Mark::new(spec, self.now()) }
            }
        };
        Mark { created: self.now(), sequence, ..mark }.write(staged).map_err(failed)?;
        renamed(staged, self.layout.snapshot(id)).map_err(failed)?;
        sync_dir(&self.layout.snapshots(&id.dataset)).map_err(failed)
    }

    /// Volumes' users may make in them what no copy holds. Roots are what we made of an image.
    async fn check_whole(&self, op: &'static str, id: &DatasetId) -> HostResult<()> {
        if id.area != Area::Volumes {
            return Ok(());
        }
        self.trees.check_whole(op, &self.layout.dataset(id)).await
    }

    /// Whether nothing but what was written since would be lost if other files took a dataset's place.
    async fn check_replaceable(&self, op: &'static str, id: &DatasetId) -> HostResult<()> {
        mounts::none_below(op, &self.layout.dataset(id))?;
        self.check_whole(op, id).await
    }

    /// What differs between a dataset's files and a snapshot's.
    async fn changed(&self, op: &'static str, since: &SnapshotId) -> HostResult<Option<PathBuf>> {
        let live = self.layout.dataset(&since.dataset).join(DATA);
        let kept = self.tree(op, &self.layout.snapshot(since))?.join(DATA);
        first_difference(op, live, kept).await
    }

    /// Whether an increment brings nothing but what is newer: it must be made since the newest snapshot, and nothing may have been
    /// written since that.
    async fn check_follows(&self, op: &'static str, to: &SnapshotId, base: Base) -> HostResult<()> {
        let conflict = |message: String| Err(HostError::new(HostErrorKind::Conflict, op, to.to_string(), message));
        let mut newer: Vec<SnapshotName> = Vec::new();
        for (SnapshotInfo { name, .. }, _) in self.snapshots(&to.dataset)?.into_iter().rev() {
            let snapshot = to.dataset.at(name);
            if !self.trees.is_base(&self.tree(op, &self.layout.snapshot(&snapshot))?, base).await? {
                newer.push(snapshot.name);
                continue;
            }
            if !newer.is_empty() {
                return conflict(newer_than(snapshot.name.as_str(), &newer));
            }
            return match self.changed(op, &snapshot).await? {
                None => Ok(()),
                Some(path) => conflict(written_since(snapshot.name.as_str(), &path)),
            };
        }
        conflict(NO_BASE.to_owned())
    }

    /// An increment's files are in their place.
    fn applied(&self, op: &'static str, id: &SnapshotId) -> HostResult<()> {
        let dir = self.layout.snapshot(id);
        let mark = self.snapshot_there(op, id)?;
        Mark { applied: true, ..mark }.write(&dir).map_err(|e| io_error(op, &dir, e))
    }

    /// Puts a snapshot's files in the dataset's place.
    async fn replace(&self, id: &SnapshotId, mark: &Mark) -> HostResult<()> {
        let staged = self.layout.staged(&id.dataset, Stage::New);
        let (path, old) = (self.layout.dataset(&id.dataset), self.layout.staged(&id.dataset, Stage::Old));
        self.trees.remove(&staged).await?;
        let tree = self.tree("roll back dataset", &self.layout.snapshot(id))?;
        if let Err(error) = self.fill(&staged, mark, Some(&tree), true).await {
            discard(&*self.trees, &staged).await;
            return Err(error);
        }
        let failed = |e| io_error("roll back dataset", &path, e);
        renamed(&path, &old).map_err(failed)?;
        if let Err(error) = renamed(&staged, &path) {
            renamed(&old, &path).map_err(failed)?;
            return Err(failed(error));
        }
        sync_dir(&self.layout.root(id.dataset.area)).map_err(failed)?;
        discard(&*self.trees, &old).await;
        Ok(())
    }
}

/// What a snapshot is made of.
enum Fill<'f> {
    Dataset(Mark),
    /// And whether there is nothing that it would take the place of.
    Stream(&'f Path, &'f DatasetSpec, bool),
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

#[async_trait]
impl StorageEngine for TreeEngine {
    fn about(&self) -> &EngineAbout {
        &self.about
    }

    fn root(&self, area: Area) -> PathBuf {
        self.layout.root(area)
    }

    async fn prepare(&self) -> HostResult<Change> {
        let found = match &self.anchor {
            Some(anchor) => Some(anchor.check(&self.layout).await?),
            None => None,
        };
        let mut any = false;
        for area in Area::ALL {
            let root = self.layout.root(area);
            if !root.is_dir() {
                make_dirs(&root).map_err(|e| io_error("prepare storage", &root, e))?;
                any = true;
            }
            self.trees.prepare(&root).await?;
        }
        if let (Some(anchor), Some(found)) = (&self.anchor, found) {
            anchor.keep(&self.layout, found).await?;
        }
        for area in Area::ALL {
            any |= self.settle(area).await?;
        }
        Ok(if any { Change::Changed(format!("storage at {}", self.about.place)) } else { Change::Unchanged })
    }

    async fn list(&self) -> HostResult<BTreeMap<DatasetId, Dataset>> {
        let mut found = BTreeMap::new();
        for area in Area::ALL {
            let root = self.layout.root(area);
            let failed = |e| io_error("list datasets", &root, e);
            self.here("list datasets", area)?;
            // Not an empty place: one that is not there.
            fs::metadata(&root).map_err(failed)?;
            for name in names(&root).map_err(failed)? {
                let Ok(name) = DatasetName::new(name) else { continue };
                let id = DatasetId { area, name };
                let Some(mark) = Mark::read(&self.layout.dataset(&id)).map_err(failed)? else { continue };
                let snapshots = self.snapshots(&id)?.into_iter().map(|(snapshot, _)| snapshot).collect();
                found.insert(id, Dataset { marks: mark.marks, limits: mark.limits, snapshots });
            }
        }
        Ok(found)
    }

    async fn create(&self, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        let _one = self.lock(id).await;
        if let Some(change) = self.present("create dataset", id, spec).await? {
            return Ok(change);
        }
        self.place(id, &Mark::new(spec, self.now()), None).await?;
        Ok(Change::Changed(format!("made {id}")))
    }

    async fn resize(&self, id: &DatasetId, limits: &Limits) -> HostResult<Change> {
        let _one = self.lock(id).await;
        let mark = self.there("resize dataset", id)?;
        if mark.limits == *limits {
            return Ok(Change::Unchanged);
        }
        let shrinks = limits.quota_bytes.is_some_and(|new| mark.limits.quota_bytes.is_none_or(|old| new < old));
        if let Some(quota) = limits.quota_bytes.filter(|_| shrinks) {
            let used = self.trees.used(&self.layout.dataset(id)).await?;
            if quota < used {
                let message = format!("its files take {used} bytes already, more than {quota}");
                return Err(HostError::new(HostErrorKind::InvalidSpec, "resize dataset", id.to_string(), message));
            }
        }
        self.put_limits(id, mark, limits).await
    }

    async fn destroy(&self, id: &DatasetId) -> HostResult<Change> {
        let _one = self.lock(id).await;
        let (path, gone) = (self.layout.dataset(id), self.layout.staged(id, Stage::Gone));
        let there = self.mark("destroy dataset", id)?.is_some();
        if there {
            mounts::none_below("destroy dataset", &path)?;
            self.trees.remove(&gone).await?;
            let failed = |e| io_error("destroy dataset", &path, e);
            renamed(&path, &gone).map_err(failed)?;
            if lasting(id) {
                sync_dir(&self.layout.root(id.area)).map_err(failed)?;
            }
        }
        let any = there || gone.exists();
        if any {
            // The renamed dataset stays until its snapshots are gone: it tells the next start what to finish.
            self.remove_below(&self.layout.snapshots(id)).await?;
            crash::point();
            self.trees.remove(&gone).await?;
        }
        Ok(if any { Change::Changed(format!("destroyed {id}")) } else { Change::Unchanged })
    }

    async fn snapshot(&self, id: &SnapshotId) -> HostResult<Change> {
        let _one = self.lock(&id.dataset).await;
        let mark = self.there("make snapshot", &id.dataset)?;
        if self.snapshot_mark("make snapshot", id)?.is_some() {
            return Ok(Change::Unchanged);
        }
        self.check_whole("make snapshot", &id.dataset).await?;
        self.place_snapshot(id, Fill::Dataset(mark)).await?;
        Ok(Change::Changed(format!("made {id}")))
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> HostResult<Change> {
        let _one = self.lock(&id.dataset).await;
        self.mark("remove snapshot", &id.dataset)?;
        let (path, gone) = (self.layout.snapshot(id), self.layout.staged_snapshot(id, Stage::Gone));
        let there = self.snapshot_mark("remove snapshot", id)?.is_some();
        if there {
            self.remove_snapshot(&gone).await?;
            renamed(&path, &gone).map_err(|e| io_error("remove snapshot", &path, e))?;
        }
        let any = there || gone.exists();
        self.remove_snapshot(&gone).await?;
        Ok(if any { Change::Changed(format!("removed {id}")) } else { Change::Unchanged })
    }

    async fn rollback(&self, id: &SnapshotId) -> HostResult<Change> {
        const OP: &str = "roll back dataset";
        let _one = self.lock(&id.dataset).await;
        let mark = self.there(OP, &id.dataset)?;
        self.snapshot_there(OP, id)?;
        let all = self.snapshots(&id.dataset)?;
        let newer = all.iter().skip_while(|(s, _)| s.name != id.name).skip(1);
        let newer: Vec<&str> = newer.map(|(s, _)| s.name.as_str()).collect();
        if !newer.is_empty() {
            let message = format!("there are newer snapshots, remove them first: {}", newer.join(", "));
            return Err(HostError::new(HostErrorKind::Conflict, OP, id.to_string(), message));
        }
        self.check_replaceable(OP, &id.dataset).await?;
        self.replace(id, &mark).await?;
        Ok(Change::Changed(format!("rolled back to {id}")))
    }

    async fn clone_of(&self, from: &SnapshotId, to: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        const OP: &str = "clone dataset";
        let _one = self.lock(to).await;
        if let Some(change) = self.present(OP, to, spec).await? {
            return Ok(change);
        }
        self.there(OP, &from.dataset)?;
        self.snapshot_there(OP, from)?;
        let tree = self.tree(OP, &self.layout.snapshot(from))?;
        self.place(to, &Mark::new(spec, self.now()), Some(&tree)).await?;
        Ok(Change::Changed(format!("cloned {from} to {to}")))
    }

    async fn usage(&self, id: &DatasetId) -> HostResult<DatasetUsage> {
        self.there("measure dataset", id)?;
        let data_bytes = self.trees.used(&self.layout.dataset(id)).await?;
        let mut total_bytes = data_bytes;
        if !self.about.features.instant {
            let snapshots = self.layout.snapshots(id);
            if snapshots.is_dir() {
                total_bytes = total_bytes.saturating_add(self.trees.used(&snapshots).await?);
            }
        }
        Ok(DatasetUsage { data_bytes, total_bytes })
    }

    async fn own_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        self.here("measure datasets", area)?;
        let own = self.trees.own(&self.layout.root(area)).await?;
        Ok(own.into_iter().filter_map(|(name, bytes)| Some((DatasetName::new(name).ok()?, bytes))).collect())
    }

    async fn capacity(&self) -> HostResult<Capacity> {
        self.here("measure storage", Area::Volumes)?;
        capacity("measure storage", &self.layout.root(Area::Volumes))
    }

    async fn send(&self, id: &SnapshotId, since: Option<&SnapshotName>, file: &Path) -> HostResult<u64> {
        const OP: &str = "send snapshot";
        self.there(OP, &id.dataset)?;
        let mark = self.snapshot_there(OP, id)?;
        let since = since.map(|name| id.dataset.at(name.clone()));
        if let Some(older) = &since {
            let refuse = |kind, message: String| Err(HostError::new(kind, OP, id.to_string(), message));
            if !self.about.features.incremental {
                let kind = self.about.kind;
                return refuse(HostErrorKind::Unsupported, format!("the engine {kind} can't send increments"));
            }
            if self.snapshot_there(OP, older)?.sequence >= mark.sequence {
                return refuse(HostErrorKind::InvalidSpec, format!("{older} is not older"));
            }
        }
        let path = self.tree(OP, &self.layout.snapshot(id))?;
        let since = since.map(|older| self.tree(OP, &self.layout.snapshot(&older))).transpose()?;
        write_stream(OP, file, self.trees.send(&path, since.as_deref(), &partial(file))).await
    }

    async fn receive(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<Change> {
        const OP: &str = "receive dataset";
        let _one = self.lock(&to.dataset).await;
        self.check_spec(OP, &to.dataset, spec)?;
        fs::metadata(file).map_err(|e| io_error(OP, file, e))?;
        let conflict = |message: &str| Err(HostError::new(HostErrorKind::Conflict, OP, to.to_string(), message));
        let present = self.mark(OP, &to.dataset)?;
        let stream = self.trees.look(file).await?;
        match (stream, &present) {
            (Stream::Whole, Some(_)) => return conflict("it is there already: a whole stream makes a new one"),
            (Stream::Increment(_), None) => return conflict("an increment needs the dataset that it was made since"),
            _ => {}
        }
        if let Some(mark) = self.snapshot_mark(OP, to)? {
            // Received before, and cut off before the dataset was made of it, or had its files.
            let cut_off = if present.is_some() { !mark.applied } else { mark.marks == spec.marks };
            if !cut_off {
                return conflict("there is a snapshot of this name already");
            }
            if present.is_some() && self.changed(OP, to).await?.is_none() {
                self.applied(OP, to)?;
                return Ok(Change::Changed(format!("received {to}")));
            }
            self.remove_snapshot(&self.layout.snapshot(to)).await?;
        }
        if let Stream::Increment(base) = stream {
            self.check_follows(OP, to, base).await?;
            self.check_replaceable(OP, &to.dataset).await?;
        }
        self.place_snapshot(to, Fill::Stream(file, spec, present.is_none())).await?;
        let dir = self.layout.snapshot(to);
        let placed = match present {
            Some(mark) => self.replace(to, &mark).await.and_then(|()| self.applied(OP, to)),
            None => {
                let tree = self.tree(OP, &dir)?;
                self.place(&to.dataset, &Mark::new(spec, self.now()), Some(&tree)).await
            }
        };
        if let Err(error) = placed {
            if let Err(left) = self.remove_snapshot(&dir).await {
                tracing::warn!(%left, "a received snapshot without its dataset stays");
            }
            return Err(error);
        }
        Ok(Change::Changed(format!("received {to}")))
    }
}
