//! Datasets of a ZFS pool: one implementation for illumos, OpenZFS on Linux and the old zfs-fuse, by what zfs(8) of all of them
//! understands. `zfs get -Hp` is what is read: tab-parted, in bytes, with where a value comes from.
//!
//! ```text
//! rpool/reddwarf                      named by the setting, made when it is not there
//! rpool/reddwarf/volumes/pvc-1        io.reddwarf:marks={"claim":…}  refquota=…   set with its creation
//!                   …/pvc-1@monday    a snapshot
//! rpool/reddwarf/volumes/new:pvc-1    being received
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `zfs.rs` | what the engine is, how it asks zfs(8), which datasets are ours |
//! | `calls.rs` | the calls of the trait |
//! | `change.rs` | limits, mounts, destroying |
//! | `stream.rs` | receiving |
//! | `properties.rs` | what is read of datasets and set on them |
//! | `text.rs`, `pool.rs` | zfs(8)'s words, and what is done with datasets by whoever keeps them |
//!
//! A mark counts only where it was set on the dataset itself: children inherit it. A dataset of ours that holds others is not
//! destroyed: those may be somebody else's.

mod calls;
mod change;
pub mod pool;
mod properties;
mod stream;
pub mod text;

use crate::anchor::Anchor;
use properties::{Found, PROPERTIES, datasets, in_order};
use reddwarf_command::{Cause, CommandError, CommandOutput, Invocation, Tool, Tools};
use reddwarf_host::storage::{EngineAbout, EngineKind, Features, Leftovers};
use reddwarf_host::{
    Area, Dataset, DatasetId, DatasetName, HostError, HostErrorKind, HostResult, SnapshotId, SnapshotName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The mark: all of a dataset's marks as one JSON object. Values may be 1023 bytes on older systems.
const MARKS: &str = "io.reddwarf:marks";
const MARK_BYTES: usize = 1023;
/// Which storage it is (`anchor`), of the areas' datasets.
const ID: &str = "io.reddwarf:id";
/// What a dataset that is being received is called before it is whole.
const STAGED: &str = "new:";
const READ: Duration = Duration::from_secs(20);
const CHANGE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(12 * 3600);
/// A dataset is busy for a moment after the last container in it went, and zfs-fuse's after it was mounted: on a machine that is
/// busy itself moments are long.
const BUSY_FOR: Duration = Duration::from_secs(15);
const BUSY_WAIT: Duration = Duration::from_millis(100);
const BUSY_WAIT_MOST: Duration = Duration::from_secs(1);

/// The engine.
#[derive(Debug)]
pub struct ZfsEngine {
    about: EngineAbout,
    base: text::Dataset,
    areas: BTreeMap<Area, text::Dataset>,
    tools: Tools,
    /// What tells its pool from another one of the same name.
    anchor: Option<Anchor>,
    /// Where the areas are mounted, as last seen.
    roots: RwLock<BTreeMap<Area, PathBuf>>,
    /// Snapshots that a clone was made of, and so were ours: images', mostly, from which pod after pod is made.
    cloned: Mutex<BTreeSet<text::Snapshot>>,
    leftovers: Leftovers,
    /// Read while something is received: what is being made is no leftover.
    staging: tokio::sync::RwLock<()>,
}

/// More snapshots are not remembered.
const CLONED_MOST: usize = 1024;

impl ZfsEngine {
    /// An engine at a dataset, with areas at datasets of their own where they are named. Looks where the pool is mounted;
    /// a pool that is not there is no error here: it may come.
    pub async fn open(
        base: text::Dataset,
        elsewhere: BTreeMap<Area, text::Dataset>,
        tools: Tools,
        why: impl Into<String>,
    ) -> HostResult<Self> {
        let mut areas = BTreeMap::new();
        for area in Area::ALL {
            let below =
                || base.child(area.as_str()).map_err(|e| invalid("choose storage", base.as_str(), e.to_string()));
            areas.insert(area, elsewhere.get(&area).cloned().map_or_else(below, Ok)?);
        }
        let features = Features { quota: true, reservation: true, instant: true, incremental: true, tuning: true };
        let about = EngineAbout { kind: EngineKind::Zfs, place: base.to_string(), why: why.into(), features };
        let roots = RwLock::new(areas.iter().map(|(area, of)| (*area, Path::new("/").join(of.as_str()))).collect());
        let engine = Self {
            about,
            base,
            areas,
            tools,
            anchor: None,
            roots,
            cloned: Mutex::default(),
            leftovers: Leftovers::default(),
            staging: tokio::sync::RwLock::default(),
        };
        if let Err(error) = engine.find_roots().await {
            tracing::debug!(%error, "where the pool is mounted is not known yet");
        }
        Ok(engine)
    }

    fn area(&self, area: Area) -> &text::Dataset {
        self.areas.get(&area).unwrap_or(&self.base)
    }

    /// Has it work only where it is said to have been before.
    pub(crate) fn anchored(mut self, record: Option<PathBuf>) -> Self {
        let areas = self.areas.iter().map(|(area, dataset)| (*area, dataset.to_string())).collect();
        self.anchor = record.map(|file| Anchor::new(file, EngineKind::Zfs, self.base.to_string(), areas));
        self
    }

    fn dataset(&self, id: &DatasetId) -> HostResult<text::Dataset> {
        self.anchor.as_ref().map_or(Ok(()), |anchor| anchor.allows("name dataset"))?;
        let made = self.area(id.area).child(id.name.as_str());
        made.map_err(|e| invalid("name dataset", &id.to_string(), e.to_string()))
    }

    fn snapshot_name(&self, id: &SnapshotId) -> HostResult<text::Snapshot> {
        let made = text::Snapshot::new(self.dataset(&id.dataset)?, id.name.as_str());
        made.map_err(|e| invalid("name snapshot", &id.to_string(), e.to_string()))
    }

    fn pool(&self) -> &str {
        self.base.as_str().split('/').next().unwrap_or_default()
    }

    async fn run(&self, op: &'static str, subject: &str, run: Invocation) -> HostResult<CommandOutput> {
        match self.tools.run(&run).await {
            Ok(output) => Ok(output),
            Err(error) => Err(self.explain(op, subject, error).await),
        }
    }

    async fn change<A: Into<String>>(&self, op: &'static str, subject: &str, args: Vec<A>) -> HostResult<()> {
        self.run(op, subject, Invocation::change(Tool::Zfs, args).within(CHANGE)).await.map(drop)
    }

    /// An error with what the pool's state adds to it.
    async fn explain(&self, op: &'static str, subject: &str, error: CommandError) -> HostError {
        let missing = error.cause() == Cause::NotFound;
        let mut error = error.into_host(op, subject);
        if matches!(error.kind, HostErrorKind::Timeout | HostErrorKind::Other) || missing {
            let pool = self.pool();
            match self.health().await {
                Ok(health) if works(&health) => {}
                Ok(health) => {
                    error.kind = HostErrorKind::Busy;
                    error.message =
                        format!("the pool {pool} is {health}: see `zpool status {pool}`; {}", error.message);
                }
                Err(why) if why.kind == HostErrorKind::NotFound => return why,
                Err(_) => {}
            }
        }
        error
    }

    /// The pool's state in ZFS' words.
    async fn health(&self) -> HostResult<String> {
        const OP: &str = "look at pool";
        let pool = self.pool();
        let run = Invocation::read(Tool::Zpool, ["list", "-H", "-o", "health", pool]).within(READ);
        match self.tools.run(&run).await {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Err(error) if error.cause() == Cause::NotFound || error.to_string().contains("no such pool") => {
                let message = format!("there is no pool {pool}: import it, or name another `storage_pool`");
                Err(HostError::new(HostErrorKind::NotFound, OP, pool, message).caused_by(error))
            }
            Err(error) => Err(error.into_host(OP, pool)),
        }
    }

    /// Refuses at once while the pool hangs: what is asked of it then may never be answered.
    async fn usable(&self, op: &'static str) -> HostResult<()> {
        let (pool, health) = (self.pool(), self.health().await?);
        if works(&health) {
            return Ok(());
        }
        let message = format!("the pool {pool} is {health}: see `zpool status {pool}`");
        Err(HostError::new(HostErrorKind::Busy, op, pool, message))
    }

    /// Properties of a dataset and all below it, snapshots too; nothing when it is not there.
    async fn get(&self, of: &text::Dataset, recursive: bool, properties: &str) -> HostResult<Found> {
        const OP: &str = "read datasets";
        let mut args = vec!["get", "-H", "-p", "-o", "name,property,value,source"];
        args.extend(recursive.then_some("-r"));
        args.extend([properties, of.as_str()]);
        let run = Invocation::read(Tool::Zfs, args).within(READ);
        let output = match self.tools.run(&run).await {
            Ok(output) => output,
            Err(error) if error.cause() == Cause::NotFound => {
                // The dataset, or the pool?
                self.health().await?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.explain(OP, of.as_str(), error).await),
        };
        in_order(&String::from_utf8_lossy(&output.stdout)).map_err(|line| {
            let message = format!("zfs get: line {line:?} makes no sense");
            HostError::new(HostErrorKind::Other, OP, of.as_str(), message)
        })
    }

    /// A property of each dataset of an area that counts bytes.
    async fn bytes(&self, area: Area, property: &str) -> HostResult<BTreeMap<DatasetName, u64>> {
        let dataset = self.area(area);
        let found = self.get(dataset, true, property).await?;
        let own = |(name, properties): &(String, BTreeMap<String, text::Property>)| {
            let name = name.strip_prefix(dataset.as_str())?.strip_prefix('/')?;
            Some((DatasetName::new(name).ok()?, properties.get(property)?.value.parse().ok()?))
        };
        Ok(found.iter().filter_map(own).collect())
    }

    async fn find_roots(&self) -> HostResult<()> {
        let mut roots = BTreeMap::new();
        for (area, dataset) in &self.areas {
            // The nearest one that is there says where the others will be.
            let (mut above, mut below) = (Some(dataset.clone()), Vec::new());
            while let Some(of) = above {
                let found = self.get(&of, false, "mountpoint").await?;
                let mountpoint = found.first().and_then(|(_, p)| p.get("mountpoint")).map(|p| p.value.clone());
                if let Some(at) = mountpoint.filter(|at| at.starts_with('/')) {
                    let mut root = PathBuf::from(at);
                    root.extend(below.iter().rev());
                    roots.insert(*area, root);
                    break;
                }
                let parent = of.as_str().rsplit_once('/').map(|(parent, last)| (parent.to_owned(), last.to_owned()));
                above = parent.and_then(|(parent, last)| {
                    below.push(last);
                    text::Dataset::new(parent).ok()
                });
            }
        }
        *self.roots.write().unwrap_or_else(PoisonError::into_inner) = roots;
        Ok(())
    }

    /// A dataset of ours, or none.
    async fn find(&self, op: &'static str, id: &DatasetId) -> HostResult<Option<Dataset>> {
        let name = self.dataset(id)?;
        let found = self.get(&name, true, PROPERTIES).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let ours = datasets(self.area(id.area), id.area, &found).remove(id);
        ours.map(Some).ok_or_else(|| {
            let message = "it bears no mark of ours: it is left alone; rename it if it should be made here";
            HostError::new(HostErrorKind::Foreign, op, name.as_str(), message)
        })
    }

    async fn there(&self, op: &'static str, id: &DatasetId) -> HostResult<Dataset> {
        let absent = || HostError::new(HostErrorKind::NotFound, op, id.to_string(), "there is no such dataset");
        self.find(op, id).await?.ok_or_else(absent)
    }

    async fn snapshot_there(&self, op: &'static str, id: &SnapshotId) -> HostResult<Dataset> {
        let dataset = self.there(op, &id.dataset).await?;
        if position(&dataset, &id.name).is_none() {
            return Err(HostError::new(HostErrorKind::NotFound, op, id.to_string(), "there is no such snapshot"));
        }
        Ok(dataset)
    }

    fn cloned(&self) -> MutexGuard<'_, BTreeSet<text::Snapshot>> {
        self.cloned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, snapshot: &text::Snapshot) {
        let mut cloned = self.cloned();
        if cloned.len() < CLONED_MOST {
            cloned.insert(snapshot.clone());
        }
    }

    /// Whether a snapshot is there and its dataset bears a mark of its own.
    async fn snapshot_is_ours(&self, snapshot: &text::Snapshot) -> HostResult<bool> {
        const ARGS: [&str; 6] = ["get", "-H", "-p", "-o", "name,property,value,source", MARKS];
        let name = snapshot.to_string();
        let run = Invocation::read(Tool::Zfs, ARGS.into_iter().chain([name.as_str()])).within(READ);
        let Ok(output) = self.tools.run(&run).await else { return Ok(false) };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let source = text.trim_end().rsplit('\t').next().unwrap_or_default();
        let dataset = name.split('@').next().unwrap_or_default();
        Ok(source == format!("inherited from {dataset}"))
    }
}

/// Whether a pool in this state, in ZFS' words, can be written to.
fn works(health: &str) -> bool {
    health == "ONLINE" || health == "DEGRADED"
}

fn invalid(op: &'static str, subject: &str, message: impl Into<String>) -> HostError {
    HostError::new(HostErrorKind::InvalidSpec, op, subject, message)
}

fn position(dataset: &Dataset, name: &SnapshotName) -> Option<usize> {
    dataset.snapshots.iter().position(|s| s.name == *name)
}
