//! Storage engines: datasets that hold files, their snapshots and clones.
//!
//! An engine has a place of its own, in which it makes one area for each purpose ([`Area`]). A dataset bears marks; what
//! bears none was not made by us and is never changed. Its files lie below [`StorageEngine::data`], which is a directory
//! *within* the dataset: when the dataset is not mounted the directory is not there, so nothing is ever written beside it.
//!
//! Rules for every call that changes something are those of [`crate::traits`]: idempotent, marked, bounded. Calls for one
//! dataset may be made at one time; the engine puts them in order. A crash at any point leaves a dataset whole or absent.

use crate::error::{HostError, HostResult};
use crate::names::{DatasetName, SnapshotName};
use crate::observe::Change;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What datasets are for; each area may lie at a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    /// Root file systems that pods are cloned from.
    Images,
    /// Root file systems of pods.
    Pods,
    /// Volumes that outlive pods.
    Volumes,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Images, Self::Pods, Self::Volumes];

    /// Its name: the directory or dataset below the engine's place.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Pods => "pods",
            Self::Volumes => "volumes",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetId {
    /// What it is for.
    pub area: Area,
    /// Its name there.
    pub name: DatasetName,
}

impl DatasetId {
    /// A volume.
    pub fn volume(name: DatasetName) -> Self {
        Self { area: Area::Volumes, name }
    }

    /// What root file systems are cloned from.
    pub fn image(name: DatasetName) -> Self {
        Self { area: Area::Images, name }
    }

    /// The root file system of one container.
    pub fn root(name: DatasetName) -> Self {
        Self { area: Area::Pods, name }
    }

    /// A snapshot of it.
    pub fn at(&self, snapshot: SnapshotName) -> SnapshotId {
        SnapshotId { dataset: self.clone(), name: snapshot }
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.area, self.name)
    }
}

/// Which snapshot of which dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The dataset.
    pub dataset: DatasetId,
    /// The snapshot's name, unique in the dataset.
    pub name: SnapshotName,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.name)
    }
}

/// How much a dataset may and will have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Most bytes of its files. Kept where the engine can ([`Features::quota`]), noted elsewhere.
    pub quota_bytes: Option<u64>,
    /// Bytes kept free for it. Kept where the engine can, noted elsewhere.
    pub reservation_bytes: Option<u64>,
}

/// How a dataset is stored. Asked of an engine that has no such thing it is `InvalidSpec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// `on`, `off`, or an algorithm by the engine's own name (`lz4`, `zstd`).
    pub compression: Option<String>,
    /// Largest block of a file, in bytes: a power of two.
    pub record_size_bytes: Option<u64>,
}

/// A dataset to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Our marks: whose it is. Keys are lower-case letters, digits and dashes; at least one is needed.
    pub marks: BTreeMap<String, String>,
    /// How much.
    pub limits: Limits,
    /// How.
    pub tuning: Tuning,
}

/// A snapshot as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: SnapshotName,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// A dataset as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its marks.
    pub marks: BTreeMap<String, String>,
    /// Its limits.
    pub limits: Limits,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotInfo>,
}

/// What a dataset takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetUsage {
    /// Bytes of its files.
    pub data_bytes: u64,
    /// Bytes with its snapshots, as far as the engine tells them apart.
    pub total_bytes: u64,
}

/// So little room is none for a dataset that may take so many bytes: engines refuse what is written in one go when not all
/// of it fits.
pub fn no_room(quota_bytes: u64) -> u64 {
    (quota_bytes / 10).min(8 << 20)
}

/// The engine's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes that it holds.
    pub total_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Plain directories on any file system; snapshots and clones are copies.
    Directory,
    /// Subvolumes of btrfs.
    Btrfs,
    /// Datasets of a ZFS pool.
    Zfs,
    /// In memory, for tests and the simulated host.
    Memory,
}

impl EngineKind {
    /// Its name in settings, status and storage classes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an engine does itself, beyond what all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Writes past [`Limits::quota_bytes`] fail.
    pub quota: bool,
    /// [`Limits::reservation_bytes`] are kept free.
    pub reservation: bool,
    /// Snapshots and clones take constant time and no room.
    pub instant: bool,
    /// [`StorageEngine::send`] can send what changed between two snapshots.
    pub incremental: bool,
    /// [`Tuning`] has a meaning.
    pub tuning: bool,
}

/// What an engine is, for people and for decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineAbout {
    /// Which.
    pub kind: EngineKind,
    /// Its place: a path or a dataset.
    pub place: String,
    /// Why it was chosen, in words.
    pub why: String,
    /// What it can do.
    pub features: Features,
}

/// What calls that failed, or a crash, left in storage and nobody could clear away so far: where it lies, and why it stays.
#[derive(Debug, Default)]
pub struct Leftovers(Mutex<BTreeMap<String, String>>);

impl Leftovers {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It could not be cleared away.
    pub fn stays(&self, what: impl fmt::Display, error: &HostError) {
        let (what, why) = (what.to_string(), error.chain());
        let mut map = self.map();
        if map.get(&what) != Some(&why) {
            tracing::warn!(what, error = why, "what is left over in storage can't be cleared away yet");
            map.insert(what, why);
        }
    }

    /// How clearing it away went: whether it did.
    pub fn note(&self, what: impl fmt::Display, cleared: &HostResult<()>) -> bool {
        match cleared {
            Ok(()) => self.gone(what),
            Err(error) => self.stays(what, error),
        }
        cleared.is_ok()
    }

    /// It is not there any more.
    pub fn gone(&self, what: impl fmt::Display) {
        self.map().remove(&what.to_string());
    }

    /// Forgets what `stays` does not name.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.map().retain(|what, _| stays(what));
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.map().clone()
    }
}

/// Datasets, snapshots and clones of them. See the module for what all calls have in common.
///
/// Errors that any call may give: `Unsupported` (a tool is missing), `NotFound` for the place itself (pool exported, disk not
/// mounted), `Busy` (in use; a suspended pool), `Exhausted` (no room, a quota), `Timeout`, `Other`.
#[async_trait]
pub trait StorageEngine: fmt::Debug + Send + Sync + 'static {
    /// What this engine is.
    fn about(&self) -> &EngineAbout;

    /// Where an area's datasets lie: the dataset `x` at `x` below it, and its files at `x/data`.
    fn root(&self, area: Area) -> PathBuf;

    /// Where a dataset's files lie.
    fn data(&self, id: &DatasetId) -> PathBuf {
        self.root(id.area).join(id.name.as_str()).join("data")
    }

    /// Makes the place and its areas, and clears away or finishes what a crash left half-made.
    ///
    /// # Errors
    /// `Foreign` when something that is not ours is at the place.
    async fn prepare(&self) -> HostResult<Change>;

    /// What could not be cleared away. Who keeps datasets here adds to it what they can't get rid of.
    fn leftovers(&self) -> &Leftovers;

    /// Tries once more to clear away what the engine itself left over, calls that are under way left alone.
    ///
    /// # Errors
    /// See the trait. What stays is no error, but in [`StorageEngine::leftovers`].
    async fn clear_leftovers(&self) -> HostResult<()>;

    /// All datasets that bear our marks, in a constant number of queries.
    ///
    /// # Errors
    /// See the trait: what can't be read is never taken for absent.
    async fn list(&self) -> HostResult<BTreeMap<DatasetId, Dataset>>;

    /// Makes an empty dataset, open to whoever runs in a pod. There already with the same marks: its limits are put right.
    ///
    /// # Errors
    /// `Conflict` (there with other marks), `Foreign` (there without marks), `InvalidSpec` (tuning, marks).
    async fn create(&self, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Change>;

    /// Gives a dataset other limits.
    ///
    /// # Errors
    /// `NotFound`, `Foreign`, `InvalidSpec` (a quota below what is used).
    async fn resize(&self, id: &DatasetId, limits: &Limits) -> HostResult<Change>;

    /// Destroys a dataset with its snapshots. Absent is `Unchanged`.
    ///
    /// # Errors
    /// `Foreign`, `Busy` (mounted in a pod, or clones depend on it).
    async fn destroy(&self, id: &DatasetId) -> HostResult<Change>;

    /// Keeps a dataset's files as they are now. There already is `Unchanged`.
    ///
    /// # Errors
    /// `NotFound`, `Foreign`.
    async fn snapshot(&self, id: &SnapshotId) -> HostResult<Change>;

    /// Removes a snapshot. Absent is `Unchanged`.
    ///
    /// # Errors
    /// `Foreign`, `Busy` (clones depend on it).
    async fn snapshot_remove(&self, id: &SnapshotId) -> HostResult<Change>;

    /// Gives a dataset the files of a snapshot; what was written since is lost. Nothing may use the dataset.
    ///
    /// # Errors
    /// `NotFound`, `Foreign`, `Conflict` (there are newer snapshots: they would be lost), `Busy`.
    async fn rollback(&self, id: &SnapshotId) -> HostResult<Change>;

    /// Makes a dataset of a snapshot's files. There already with the same marks is `Unchanged`.
    ///
    /// # Errors
    /// As [`StorageEngine::create`]; `NotFound` (the snapshot).
    async fn clone_of(&self, from: &SnapshotId, to: &DatasetId, spec: &DatasetSpec) -> HostResult<Change>;

    /// What a dataset takes. May look at every file.
    ///
    /// # Errors
    /// `NotFound`.
    async fn usage(&self, id: &DatasetId) -> HostResult<DatasetUsage>;

    /// What each dataset of an area takes for itself, in bytes: what it shares with what it was cloned from is left out
    /// where the engine tells them apart. One look at all; what was written in the last seconds may be missing.
    ///
    /// # Errors
    /// See the trait.
    async fn own_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>>;

    /// What the files of each dataset of an area take, in bytes, as its quota counts them. One look at all; what was written in
    /// the last seconds may be missing.
    ///
    /// # Errors
    /// See the trait.
    async fn data_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>>;

    /// How much the place holds.
    ///
    /// # Errors
    /// See the trait.
    async fn capacity(&self) -> HostResult<Capacity>;

    /// Writes a snapshot to a new file, or what changed since an older one of the same dataset. The file appears at its
    /// name when it is complete. Gives its size in bytes.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (the file is there), `Unsupported` (no increments), `InvalidSpec` (`since` is not older).
    async fn send(&self, id: &SnapshotId, since: Option<&SnapshotName>, file: &Path) -> HostResult<u64>;

    /// Makes a dataset of what [`StorageEngine::send`] wrote, with a snapshot of this name. An increment goes to the dataset
    /// whose newest snapshot is the one that it was made since, which then has the newer files. Cut off, the same call again goes on.
    ///
    /// # Errors
    /// `Conflict` (a whole one and the dataset is there; an increment and it does not fit: there is a newer snapshot, or
    /// something was written since), `InvalidSpec` (not such a file, or
    /// of another engine), `NotFound` (the file).
    async fn receive(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<Change>;
}

/// Subvolumes of btrfs by the kernel's own calls, which a host may offer its engine: starting btrfs(8) takes longer than
/// what it does. Blocking. Paths are the engine's own; the last component of one that is made is not there yet.
pub trait Subvolumes: fmt::Debug + Send + Sync + 'static {
    /// Makes an empty subvolume.
    ///
    /// # Errors
    /// The kernel's.
    fn create(&self, path: &Path) -> io::Result<()>;

    /// Makes a subvolume of another's content.
    ///
    /// # Errors
    /// The kernel's.
    fn snapshot(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()>;

    /// Removes a subvolume that holds no other, with its quota group.
    ///
    /// # Errors
    /// The kernel's: `ENOTEMPTY` when it holds one.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Whether marks can be kept by every engine.
///
/// # Errors
/// What is wrong with them.
pub fn check_marks(marks: &BTreeMap<String, String>) -> Result<(), String> {
    if marks.is_empty() {
        return Err("a dataset without a mark would not be known as ours".to_owned());
    }
    for (key, value) in marks {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if key.is_empty() || key.len() > 64 || !key.bytes().all(plain) {
            return Err(format!("mark {key:?}: may hold only a-z, 0-9 and '-', at most 64"));
        }
        // zfs(8): 1023 bytes on older systems; a tab or newline would part its output.
        if value.is_empty() || value.len() > 1023 || value.chars().any(char::is_control) || value == "-" {
            return Err(format!("mark {key}: its value must be 1 to 1023 bytes of text on one line, and not '-'"));
        }
    }
    Ok(())
}
