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
//! A mark counts only where it was set on the dataset itself: children inherit it. A dataset of ours that holds others is not
//! destroyed: those may be somebody else's.

pub mod pool;
pub mod text;

use crate::anchor::{Anchor, Ids};
use crate::tree::{DATA, NO_BASE, first_difference, io_error, newer_than, partial, write_stream, written_since};
use async_trait::async_trait;
use chrono::DateTime;
use reddwarf_command::{Cause, CommandError, CommandOutput, Invocation, Tool, Tools};
use reddwarf_host::storage::{
    Capacity, DatasetUsage, EngineAbout, EngineKind, Features, SnapshotInfo, Tuning, check_marks,
};
use reddwarf_host::{
    Area, Change, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, HostResult, Limits,
    SnapshotId, SnapshotName, StorageEngine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
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
/// A dataset is busy for a moment after the last container in it went.
const BUSY_TRIES: u32 = 8;
const BUSY_WAIT: Duration = Duration::from_millis(300);

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
}

/// More snapshots are not remembered.
const CLONED_MOST: usize = 1024;

/// A dataset or snapshot with its properties, in the order of `zfs get`.
type Found = Vec<(String, BTreeMap<String, text::Property>)>;

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
        let engine = Self { about, base, areas, tools, anchor: None, roots, cloned: Mutex::default() };
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
                Ok(health) if health == "ONLINE" || health == "DEGRADED" => {}
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

    /// What to do about a dataset that may be there already: `None`: it is not, make it.
    async fn present(&self, op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Option<Change>> {
        check_marks(&spec.marks).map_err(|why| invalid(op, &id.to_string(), why))?;
        let Some(found) = self.find(op, id).await? else { return Ok(None) };
        if found.marks != spec.marks {
            let message = "a dataset of this name is there already with other marks";
            return Err(HostError::new(HostErrorKind::Conflict, op, id.to_string(), message));
        }
        // Made, perhaps, and cut off before its directory was.
        let completed = self.complete(op, id).await?;
        let resized = self.put_limits(op, id, &found, &spec.limits).await?;
        Ok(Some(if completed && resized == Change::Unchanged {
            Change::Changed(format!("completed {id}"))
        } else {
            resized
        }))
    }

    async fn put_limits(
        &self,
        op: &'static str,
        id: &DatasetId,
        found: &Dataset,
        limits: &Limits,
    ) -> HostResult<Change> {
        if found.limits == *limits {
            return Ok(Change::Unchanged);
        }
        let (name, before) = (self.dataset(id)?, limit_properties(&found.limits));
        let properties = limit_properties(limits).into_iter().filter(|(key, value)| before.get(key) != Some(value));
        // What is used is told to be too much in the words of a full disk: here it is the number that is wrong.
        match self.set(op, &name, properties.collect()).await {
            Err(e) if e.kind == HostErrorKind::Exhausted => Err(HostError { kind: HostErrorKind::InvalidSpec, ..e }),
            other => other,
        }?;
        Ok(Change::Changed("limits changed".into()))
    }

    /// Sets properties one after the other: the old zfs(8) takes no more at a time.
    async fn set(&self, op: &'static str, name: &text::Dataset, properties: text::Properties) -> HostResult<()> {
        for property in properties {
            if let Some(run) = text::set(name, &text::Properties::from([property])) {
                drop(self.run(op, name.as_str(), run).await?);
            }
        }
        Ok(())
    }

    /// Mounted, and with the directory that pods see; whether something was done.
    async fn complete(&self, op: &'static str, id: &DatasetId) -> HostResult<bool> {
        let data = self.data(id);
        if data.is_dir() {
            return Ok(false);
        }
        let name = self.dataset(id)?;
        self.mount(op, &name).await?;
        let failed = |e| io_error(op, &data, e);
        match fs::create_dir(&data) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        // Past the umask: whoever the containers run as must be able to write.
        fs::set_permissions(&data, Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(true)
    }

    async fn mount(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, false, "mounted,mountpoint").await?;
        let mounted = found.first().and_then(|(_, p)| p.get("mounted")).is_some_and(|p| p.value == "yes");
        if mounted {
            return Ok(());
        }
        let mount = Invocation::change(Tool::Zfs, ["mount", name.as_str()]).within(CHANGE);
        self.patiently(op, name.as_str(), mount).await
    }

    /// Unmounts and mounts, so that whoever opens a file afterwards sees what was received. Nobody may use it.
    async fn remount(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, false, "mounted").await?;
        if found.first().and_then(|(_, p)| p.get("mounted")).is_some_and(|p| p.value == "yes") {
            let unmount = Invocation::change(Tool::Zfs, ["unmount", name.as_str()]).within(CHANGE);
            self.patiently(op, name.as_str(), unmount).await?;
        }
        self.mount(op, name).await
    }

    /// Destroys one dataset that holds no others.
    async fn destroy_alone(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, true, "type").await?;
        let inner = found.iter().find(|(n, _)| n != name.as_str() && !n.starts_with(&format!("{name}@")));
        if let Some((inner, _)) = inner {
            let message = format!("{inner} lies in it and is not ours: move it away first");
            return Err(HostError::new(HostErrorKind::Busy, op, name.as_str(), message));
        }
        let destroyed = self.insist(op, name.as_str(), text::destroy(name)).await;
        self.naming_clones(&format!("{name}@"), destroyed).await
    }

    /// Says what was made of snapshots that are to go: with ZFS they stay as long as that does.
    async fn naming_clones(&self, snapshots: &str, done: HostResult<()>) -> HostResult<()> {
        let Err(mut error) = done else { return Ok(()) };
        if error.kind != HostErrorKind::Busy || !error.message.contains("clones") {
            return Err(error);
        }
        if let Ok(pool) = text::Dataset::new(self.pool())
            && let Ok(found) = self.get(&pool, true, "origin").await
        {
            let cloned = |(name, properties): &(String, BTreeMap<String, text::Property>)| {
                let of = &properties.get("origin")?.value;
                of.starts_with(snapshots).then(|| format!("{name} is a clone of {of}"))
            };
            let clones: Vec<String> = found.iter().filter_map(cloned).take(10).collect();
            if !clones.is_empty() {
                error.message = format!("{}: it can go once that has gone", clones.join(", "));
            }
        }
        Err(error)
    }

    /// Has something gone; it may be so already.
    async fn insist(&self, op: &'static str, subject: &str, run: Invocation) -> HostResult<()> {
        match self.patiently(op, subject, run).await {
            Err(e) if e.kind == HostErrorKind::NotFound && !e.message.contains("no pool") => Ok(()),
            other => other,
        }
    }

    /// Busy may pass within a moment.
    async fn patiently(&self, op: &'static str, subject: &str, run: Invocation) -> HostResult<()> {
        let mut tries = 1;
        loop {
            match self.run(op, subject, run.clone()).await {
                Err(e) if e.kind == HostErrorKind::Busy && tries < BUSY_TRIES && !e.message.contains("clones") => {
                    tries += 1;
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                other => return other.map(drop),
            }
        }
    }

    async fn receive_new(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let staged_name = format!("{STAGED}{}", to.dataset.name);
        let staged = self.area(to.dataset.area).child(&staged_name);
        let staged = staged.map_err(|e| invalid(OP, &to.to_string(), e.to_string()))?;
        self.destroy_alone(OP, &staged).await?;
        let made = async {
            self.stream_in(file, vec!["receive", "-u", staged.as_str()]).await?;
            self.name_arrived(&staged, &to.name).await?;
            let mut properties = limit_properties(&spec.limits);
            properties.extend(tuning_properties(OP, to, &spec.tuning)?);
            properties.insert(MARKS.to_owned(), mark(OP, &to.dataset, spec)?);
            self.set(OP, &staged, properties).await?;
            let name = self.dataset(&to.dataset)?;
            self.change(OP, name.as_str(), vec!["rename", staged.as_str(), name.as_str()]).await
        };
        if let Err(error) = made.await {
            if let Err(left) = self.destroy_alone(OP, &staged).await {
                tracing::warn!(%left, "a half-received dataset is cleared away at the next start");
            }
            return Err(error);
        }
        let name = self.dataset(&to.dataset)?;
        self.mount(OP, &name).await?;
        let data = self.data(&to.dataset);
        if !fs::symlink_metadata(&data).is_ok_and(|m| m.is_dir()) {
            self.destroy_alone(OP, &name).await?;
            let message = "the stream holds no volume of ours: it has no directory `data`";
            return Err(invalid(OP, &file.display().to_string(), message));
        }
        Ok(())
    }

    /// Receives an increment where it brings nothing but what is newer: it must be made since the newest snapshot, and nothing may
    /// have been written since that.
    async fn receive_since(&self, file: &Path, to: &SnapshotId, brings: u64, since: u64) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let conflict = |message: String| Err(HostError::new(HostErrorKind::Conflict, OP, to.to_string(), message));
        let name = self.dataset(&to.dataset)?;
        let found = self.get(&name, true, "guid").await?;
        let snapshot = |(found, properties): &(String, BTreeMap<String, text::Property>)| {
            let snapshot = found.strip_prefix(name.as_str())?.strip_prefix('@')?.to_owned();
            Some((snapshot, properties.get("guid")?.value.parse::<u64>().ok()?))
        };
        let snapshots: Vec<(String, u64)> = found.iter().filter_map(snapshot).collect();
        // Received before, and cut off before it had its name.
        if snapshots.last().is_none_or(|(_, guid)| *guid != brings) {
            let Some(base) = snapshots.iter().position(|(_, guid)| *guid == since) else {
                return conflict(NO_BASE.to_owned());
            };
            let (older, newer) = snapshots.split_at(base + 1);
            let newer: Vec<&String> = newer.iter().map(|(name, _)| name).collect();
            let base = older.last().map(|(name, _)| name.as_str()).unwrap_or_default();
            if !newer.is_empty() {
                return conflict(newer_than(base, &newer));
            }
            self.receive_onto(file, to, &name, base).await?;
        }
        self.name_arrived(&name, &to.name).await?;
        self.remount(OP, &name).await
    }

    /// Receives what was made since the newest snapshot.
    async fn receive_onto(&self, file: &Path, to: &SnapshotId, name: &text::Dataset, base: &str) -> HostResult<()> {
        match self.stream_in(file, vec!["receive", name.as_str()]).await {
            Err(e) if e.kind == HostErrorKind::Conflict && e.message.contains("has been modified") => {}
            other => return other,
        }
        // That files were read is a change, too, for ZFS.
        let Some(path) = self.changed_since(to, name, base).await? else {
            return self.stream_in(file, vec!["receive", "-F", name.as_str()]).await;
        };
        let message = written_since(base, &path);
        Err(HostError::new(HostErrorKind::Conflict, "receive dataset", to.to_string(), message))
    }

    /// A path within the files that is not as it was in a snapshot; times of access don't count. Not every ZFS has `zfs diff` or
    /// shows snapshots as directories: a clone is looked at, which `prepare` clears away where a crash leaves it.
    async fn changed_since(&self, to: &SnapshotId, name: &text::Dataset, base: &str) -> HostResult<Option<PathBuf>> {
        const OP: &str = "compare with snapshot";
        let staged_name = format!("{STAGED}{}", to.dataset.name);
        let staged = self.area(to.dataset.area).child(&staged_name);
        let staged = staged.map_err(|e| invalid(OP, &to.to_string(), e.to_string()))?;
        let snapshot = text::Snapshot::new(name.clone(), base).map_err(|e| invalid(OP, base, e.to_string()))?;
        self.destroy_alone(OP, &staged).await?;
        let compared = async {
            let quiet = text::Properties::from([("readonly".to_owned(), "on".to_owned())]);
            self.run(OP, staged.as_str(), text::clone(&snapshot, &staged, &quiet)).await?;
            self.mount(OP, &staged).await?;
            self.mount(OP, name).await?;
            let (live, kept) = (self.data(&to.dataset), self.root(to.dataset.area).join(&staged_name).join(DATA));
            first_difference(OP, live, kept).await
        };
        let compared = compared.await;
        self.destroy_alone(OP, &staged).await?;
        compared
    }

    /// Gives the one snapshot that a stream brought the name that it is to have.
    async fn name_arrived(&self, dataset: &text::Dataset, wanted: &SnapshotName) -> HostResult<()> {
        let found = self.get(dataset, true, "type").await?;
        let Some(last) = found.iter().rev().map(|(n, _)| n).find(|n| n.starts_with(&format!("{dataset}@"))) else {
            return Err(invalid("receive dataset", dataset.as_str(), "the stream brought no snapshot"));
        };
        let target = format!("{dataset}@{wanted}");
        if *last == target {
            return Ok(());
        }
        self.change("receive dataset", dataset.as_str(), vec!["rename".to_owned(), last.clone(), target]).await
    }

    async fn stream_in(&self, file: &Path, args: Vec<&str>) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let subject = file.display().to_string();
        let open = File::open(file).map_err(|e| io_error(OP, file, e))?;
        let command = self.tools.command("zfs").map_err(|e| e.into_host(OP, &*subject))?;
        match command.args(args).stdin_from(open).deadline(LONG).run().await {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { stderr, .. })
                if ["does not match", "has been modified"].iter().any(|p| stderr.contains(p)) =>
            {
                Err(HostError::new(HostErrorKind::Conflict, OP, subject, stderr))
            }
            // Cut off or damaged on its way: records have checksums, and the last one must come.
            Err(CommandError::Failed { stderr, .. })
                if ["invalid", "incomplete stream", "failed to read from stream"]
                    .iter()
                    .any(|p| stderr.contains(p)) =>
            {
                Err(invalid(OP, &subject, stderr))
            }
            Err(error) => Err(self.explain(OP, &subject, error).await),
        }
    }
}

/// What is read of every dataset.
const PROPERTIES: &str = "type,creation,io.reddwarf:marks,refquota,refreservation";

fn invalid(op: &'static str, subject: &str, message: impl Into<String>) -> HostError {
    HostError::new(HostErrorKind::InvalidSpec, op, subject, message)
}

fn position(dataset: &Dataset, name: &SnapshotName) -> Option<usize> {
    dataset.snapshots.iter().position(|s| s.name == *name)
}

/// What `zfs get -Hp -o name,property,value,source` printed, in its order: snapshots of one dataset come the oldest first.
fn in_order(printed: &str) -> Result<Found, String> {
    let by_name = text::properties(printed)?;
    let mut order: Vec<&str> = Vec::new();
    for name in printed.lines().filter_map(|line| line.split('\t').next()) {
        if order.last() != Some(&name) {
            order.push(name);
        }
    }
    Ok(order.into_iter().filter_map(|name| Some((name.to_owned(), by_name.get(name)?.clone()))).collect())
}

/// Our datasets of an area among what was found.
fn datasets(area_dataset: &text::Dataset, area: Area, found: &Found) -> BTreeMap<DatasetId, Dataset> {
    let mut ours = BTreeMap::new();
    for (name, properties) in found {
        let Some(rest) = name.strip_prefix(area_dataset.as_str()).and_then(|r| r.strip_prefix('/')) else { continue };
        let bytes = |property: &str| properties.get(property)?.value.parse().ok().filter(|b: &u64| *b > 0);
        match rest.split_once('@') {
            None => {
                let Ok(name) = DatasetName::new(rest) else { continue };
                let mark = properties.get(MARKS).filter(|p| p.local);
                let Some(marks) = mark.and_then(|p| serde_json::from_str(&p.value).ok()) else { continue };
                let limits = Limits { quota_bytes: bytes("refquota"), reservation_bytes: bytes("refreservation") };
                ours.insert(DatasetId { area, name }, Dataset { marks, limits, snapshots: Vec::new() });
            }
            Some((of, snapshot)) => {
                let (Ok(of), Ok(name)) = (DatasetName::new(of), SnapshotName::new(snapshot)) else { continue };
                let created = bytes("creation").and_then(|s| DateTime::from_timestamp(i64::try_from(s).ok()?, 0));
                if let Some(dataset) = ours.get_mut(&DatasetId { area, name: of }) {
                    dataset.snapshots.push(SnapshotInfo { name, created: created.unwrap_or_default() });
                }
            }
        }
    }
    ours
}

fn mark(op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<String> {
    let text = serde_json::to_string(&spec.marks).map_err(|e| invalid(op, &id.to_string(), e.to_string()))?;
    if text.len() > MARK_BYTES {
        let message = format!("its marks take {} bytes, more than {MARK_BYTES}", text.len());
        return Err(invalid(op, &id.to_string(), message));
    }
    Ok(text)
}

fn limit_properties(limits: &Limits) -> text::Properties {
    let shown = |bytes: Option<u64>| bytes.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
    text::Properties::from([
        ("refquota".to_owned(), shown(limits.quota_bytes)),
        ("refreservation".to_owned(), shown(limits.reservation_bytes)),
    ])
}

fn tuning_properties(
    op: &'static str,
    subject: &dyn std::fmt::Display,
    tuning: &Tuning,
) -> HostResult<text::Properties> {
    let mut properties = text::Properties::new();
    if let Some(compression) = &tuning.compression {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if compression.is_empty() || compression.len() > 20 || !compression.bytes().all(plain) {
            return Err(invalid(op, &subject.to_string(), format!("compression {compression:?} is no word of zfs(8)")));
        }
        properties.insert("compression".into(), compression.clone());
    }
    if let Some(bytes) = tuning.record_size_bytes {
        properties.insert("recordsize".into(), bytes.to_string());
    }
    Ok(properties)
}

/// What a file of `zfs send` begins with: the snapshot that it brings, by its guid, and of an increment the one that it was
/// made since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamHead {
    to: u64,
    since: Option<u64>,
}

/// Reads it (sys/zfs_ioctl.h, dmu_replay_record); `None`: it is no such file.
fn stream_head(head: &[u8]) -> Option<StreamHead> {
    const MAGIC: u64 = 0x2_f5ba_cbac;
    let word = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok());
    let magic: [u8; 8] = word(8)?;
    let read: fn([u8; 8]) -> u64 = if u64::from_le_bytes(magic) == MAGIC {
        u64::from_le_bytes
    } else if u64::from_be_bytes(magic) == MAGIC {
        u64::from_be_bytes
    } else {
        return None;
    };
    // magic, version, creation, type and flags, to, from.
    let since = Some(read(word(48)?)).filter(|guid| *guid != 0);
    Some(StreamHead { to: read(word(40)?), since })
}

#[async_trait]
impl Ids for ZfsEngine {
    async fn id(&self, area: Area) -> HostResult<Option<String>> {
        let found = self.get(self.area(area), false, ID).await?;
        let id = found.first().and_then(|(_, p)| p.get(ID)).filter(|p| p.local);
        Ok(id.map(|p| p.value.clone()))
    }

    async fn set_id(&self, area: Area, id: &str) -> HostResult<()> {
        let dataset = self.area(area);
        self.change("prepare storage", dataset.as_str(), vec!["set", &format!("{ID}={id}"), dataset.as_str()]).await
    }
}

#[async_trait]
impl StorageEngine for ZfsEngine {
    fn about(&self) -> &EngineAbout {
        &self.about
    }

    fn root(&self, area: Area) -> PathBuf {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        roots.get(&area).cloned().unwrap_or_else(|| Path::new("/").join(self.area(area).as_str()))
    }

    async fn prepare(&self) -> HostResult<Change> {
        const OP: &str = "prepare storage";
        self.health().await?;
        let ids = match &self.anchor {
            Some(anchor) => Some(anchor.check(self).await?),
            None => None,
        };
        let mut any = false;
        for dataset in [&self.base].into_iter().chain(self.areas.values()) {
            if self.get(dataset, false, "type").await?.is_empty() {
                self.change(OP, dataset.as_str(), vec!["create", "-p", dataset.as_str()]).await?;
                any = true;
            } else if dataset.as_str().contains('/') {
                self.mount(OP, dataset).await?;
            }
        }
        if let (Some(anchor), Some(ids)) = (&self.anchor, ids) {
            anchor.keep(self, ids).await?;
        }
        self.find_roots().await?;
        for (area, dataset) in &self.areas {
            let root = self.root(*area);
            // Only we go in: what lies below is handed out piece by piece.
            fs::set_permissions(&root, Permissions::from_mode(0o700)).map_err(|e| io_error(OP, &root, e))?;
            let found = self.get(dataset, true, PROPERTIES).await?;
            let staged = format!("{dataset}/{STAGED}");
            for (name, _) in found.iter().filter(|(n, _)| n.starts_with(&staged) && !n.contains('@')) {
                let name = text::Dataset::new(name).map_err(|e| invalid(OP, name, e.to_string()))?;
                match self.destroy_alone(OP, &name).await {
                    Ok(()) => any = true,
                    Err(error) => tracing::warn!(%error, "what an earlier call left half-done can't be cleared away"),
                }
            }
            // One that can't be mounted (its key is not loaded) has no files until it is; the others have theirs.
            for id in datasets(dataset, *area, &found).keys() {
                match self.complete(OP, id).await {
                    Ok(completed) => any |= completed,
                    Err(error) => tracing::warn!(%error, dataset = %id, "its files can't be reached"),
                }
            }
        }
        Ok(if any { Change::Changed(format!("storage at {}", self.base)) } else { Change::Unchanged })
    }

    async fn list(&self) -> HostResult<BTreeMap<DatasetId, Dataset>> {
        let mut all = BTreeMap::new();
        for (area, dataset) in &self.areas {
            let found = self.get(dataset, true, PROPERTIES).await?;
            if found.is_empty() {
                let message = "the dataset is not there: it is made once the pool is ready";
                return Err(HostError::new(HostErrorKind::NotFound, "list datasets", dataset.as_str(), message));
            }
            all.extend(datasets(dataset, *area, &found));
        }
        Ok(all)
    }

    async fn create(&self, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        const OP: &str = "create dataset";
        if let Some(change) = self.present(OP, id, spec).await? {
            return Ok(change);
        }
        let mut properties = limit_properties(&spec.limits);
        properties.extend(tuning_properties(OP, id, &spec.tuning)?);
        properties.insert(MARKS.to_owned(), mark(OP, id, spec)?);
        let name = self.dataset(id)?;
        match self.run(OP, name.as_str(), text::create(&name, &properties)).await {
            Err(e)
                if e.message.contains("invalid property")
                    || e.message.contains("bad property")
                    || e.message.contains("must be one of") =>
            {
                return Err(HostError { kind: HostErrorKind::InvalidSpec, ..e });
            }
            other => drop(other?),
        }
        self.complete(OP, id).await?;
        Ok(Change::Changed(format!("made {id}")))
    }

    async fn resize(&self, id: &DatasetId, limits: &Limits) -> HostResult<Change> {
        const OP: &str = "resize dataset";
        let found = self.there(OP, id).await?;
        self.put_limits(OP, id, &found, limits).await
    }

    async fn destroy(&self, id: &DatasetId) -> HostResult<Change> {
        const OP: &str = "destroy dataset";
        if self.find(OP, id).await?.is_none() {
            return Ok(Change::Unchanged);
        }
        self.destroy_alone(OP, &self.dataset(id)?).await?;
        // The place where it was mounted; what is in it was never ours.
        drop(fs::remove_dir(self.root(id.area).join(id.name.as_str())));
        Ok(Change::Changed(format!("destroyed {id}")))
    }

    async fn snapshot(&self, id: &SnapshotId) -> HostResult<Change> {
        const OP: &str = "make snapshot";
        let dataset = self.there(OP, &id.dataset).await?;
        if position(&dataset, &id.name).is_some() {
            return Ok(Change::Unchanged);
        }
        let name = self.snapshot_name(id)?;
        self.run(OP, &name.to_string(), text::snapshot(&name)).await?;
        Ok(Change::Changed(format!("made {id}")))
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> HostResult<Change> {
        const OP: &str = "remove snapshot";
        let Some(dataset) = self.find(OP, &id.dataset).await? else { return Ok(Change::Unchanged) };
        if position(&dataset, &id.name).is_none() {
            return Ok(Change::Unchanged);
        }
        let name = self.snapshot_name(id)?.to_string();
        let removed = self.insist(OP, &name, Invocation::change(Tool::Zfs, ["destroy", &name]).within(CHANGE)).await;
        self.naming_clones(&name, removed).await?;
        Ok(Change::Changed(format!("removed {id}")))
    }

    async fn rollback(&self, id: &SnapshotId) -> HostResult<Change> {
        const OP: &str = "roll back dataset";
        let dataset = self.snapshot_there(OP, id).await?;
        let at = position(&dataset, &id.name).unwrap_or(0);
        let newer: Vec<&str> = dataset.snapshots.iter().skip(at + 1).map(|s| s.name.as_str()).collect();
        let conflict = |message: String| Err(HostError::new(HostErrorKind::Conflict, OP, id.to_string(), message));
        if !newer.is_empty() {
            return conflict(format!("there are newer snapshots, remove them first: {}", newer.join(", ")));
        }
        let name = self.snapshot_name(id)?.to_string();
        match self.run(OP, &name, Invocation::change(Tool::Zfs, ["rollback", &name]).within(CHANGE)).await {
            // Such as an administrator's own.
            Err(e) if e.message.contains("more recent") => conflict(e.message),
            other => other.map(|_| Change::Changed(format!("rolled back to {id}"))),
        }
    }

    async fn clone_of(&self, from: &SnapshotId, to: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        const OP: &str = "clone dataset";
        check_marks(&spec.marks).map_err(|why| invalid(OP, &to.to_string(), why))?;
        let mut properties = limit_properties(&spec.limits);
        // What is none need not be said of a new dataset.
        properties.retain(|_, value| value != "none");
        properties.extend(tuning_properties(OP, to, &spec.tuning)?);
        properties.insert(MARKS.to_owned(), mark(OP, to, spec)?);
        let (snapshot, name) = (self.snapshot_name(from)?, self.dataset(to)?);
        // Usually all is as it has to be: every look costs a process. Whether the snapshot is ours is one; it has its
        // dataset's mark.
        let known = self.cloned().contains(&snapshot);
        if !known && !self.snapshot_is_ours(&snapshot).await? {
            if let Some(change) = self.present(OP, to, spec).await? {
                return Ok(change);
            }
            self.snapshot_there(OP, from).await?;
        }
        match self.tools.run(&text::clone(&snapshot, &name, &properties)).await {
            Ok(_) => self.remember(&snapshot),
            Err(error) => {
                self.cloned().remove(&snapshot);
                // There already, perhaps.
                if let Some(change) = self.present(OP, to, spec).await? {
                    return Ok(change);
                }
                if known {
                    self.snapshot_there(OP, from).await?;
                }
                return Err(self.explain(OP, name.as_str(), error).await);
            }
        }
        self.complete(OP, to).await?;
        Ok(Change::Changed(format!("cloned {from} to {to}")))
    }

    async fn usage(&self, id: &DatasetId) -> HostResult<DatasetUsage> {
        const OP: &str = "measure dataset";
        self.there(OP, id).await?;
        let found = self.get(&self.dataset(id)?, false, "used,referenced").await?;
        let bytes = |name: &str| found.first()?.1.get(name)?.value.parse().ok();
        Ok(DatasetUsage { data_bytes: bytes("referenced").unwrap_or(0), total_bytes: bytes("used").unwrap_or(0) })
    }

    async fn own_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        let dataset = self.area(area);
        let found = self.get(dataset, true, "used").await?;
        let own = |(name, properties): &(String, BTreeMap<String, text::Property>)| {
            let name = name.strip_prefix(dataset.as_str())?.strip_prefix('/')?;
            Some((DatasetName::new(name).ok()?, properties.get("used")?.value.parse().ok()?))
        };
        Ok(found.iter().filter_map(own).collect())
    }

    async fn capacity(&self) -> HostResult<Capacity> {
        const OP: &str = "measure storage";
        let (pool, health) = (self.pool(), self.health().await?);
        if health != "ONLINE" && health != "DEGRADED" {
            let message = format!("the pool {pool} is {health}: see `zpool status {pool}`");
            return Err(HostError::new(HostErrorKind::Busy, OP, pool, message));
        }
        let found = self.get(&self.base, false, "used,available").await?;
        let bytes = |name: &str| found.first()?.1.get(name)?.value.parse::<u64>().ok();
        let (used, free) = (bytes("used").unwrap_or(0), bytes("available").unwrap_or(0));
        Ok(Capacity { total_bytes: used.saturating_add(free), free_bytes: free })
    }

    async fn send(&self, id: &SnapshotId, since: Option<&SnapshotName>, file: &Path) -> HostResult<u64> {
        const OP: &str = "send snapshot";
        let dataset = self.snapshot_there(OP, id).await?;
        let mut args = vec!["send".to_owned()];
        if let Some(since) = since {
            let older = self.snapshot_name(&id.dataset.at(since.clone()))?.to_string();
            match (position(&dataset, since), position(&dataset, &id.name)) {
                (None, _) => {
                    let message = format!("there is no snapshot {since}");
                    return Err(HostError::new(HostErrorKind::NotFound, OP, id.to_string(), message));
                }
                (Some(since), Some(at)) if since < at => {}
                _ => return Err(invalid(OP, &id.to_string(), format!("{since} is not older"))),
            }
            args.extend(["-i".to_owned(), older]);
        }
        let name = self.snapshot_name(id)?.to_string();
        args.push(name.clone());
        let part = partial(file);
        let write = async {
            let out = File::options().write(true).open(&part).map_err(|e| io_error(OP, &part, e))?;
            let command = self.tools.command("zfs").map_err(|e| e.into_host(OP, &*name))?;
            match command.args(args).stdout_to(out).deadline(LONG).run().await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.explain(OP, &name, error).await),
            }
        };
        write_stream(OP, file, write).await
    }

    async fn receive(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<Change> {
        const OP: &str = "receive dataset";
        check_marks(&spec.marks).map_err(|why| invalid(OP, &to.to_string(), why))?;
        let mut head = Vec::new();
        let read = File::open(file).and_then(|f| f.take(512).read_to_end(&mut head));
        read.map_err(|e| io_error(OP, file, e))?;
        let Some(head) = stream_head(&head) else {
            let message = "no ZFS stream: it must be what `reddwarfctl volume send` wrote with this engine";
            return Err(invalid(OP, &file.display().to_string(), message));
        };
        let conflict = |message: &str| Err(HostError::new(HostErrorKind::Conflict, OP, to.to_string(), message));
        match (self.find(OP, &to.dataset).await?, head.since) {
            (Some(_), None) => return conflict("it is there already: a whole stream makes a new one"),
            (None, Some(_)) => return conflict("an increment needs the dataset that it was made since"),
            (Some(found), Some(_)) if position(&found, &to.name).is_some() => {
                return conflict("there is a snapshot of this name already");
            }
            (Some(_), Some(since)) => self.receive_since(file, to, head.to, since).await?,
            (None, None) => self.receive_new(file, to, spec).await?,
        }
        Ok(Change::Changed(format!("received {to}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_bears_its_own_mark_is_ours() {
        let area = text::Dataset::new("p/r/volumes").unwrap();
        let lines = [
            "p/r/volumes\tio.reddwarf:marks\t-\t-",
            "p/r/volumes/a\tio.reddwarf:marks\t{\"owner\":\"u\"}\tlocal",
            "p/r/volumes/a\trefquota\t1024\tlocal",
            "p/r/volumes/a\trefreservation\t0\tdefault",
            "p/r/volumes/a@second\tcreation\t5\t-",
            "p/r/volumes/a@first\tcreation\t4\t-",
            "p/r/volumes/a@zfs_auto\tcreation\t4\t-",
            "p/r/volumes/a/inner\tio.reddwarf:marks\t{\"owner\":\"u\"}\tinherited from p/r/volumes/a",
            "p/r/volumes/b\tio.reddwarf:marks\t{\"owner\":\"u\"}\tinherited from p/r/volumes",
            "p/r/volumes/c\tio.reddwarf:marks\tnonsense\tlocal",
            "p/r/volumes/new:d\tio.reddwarf:marks\t{\"owner\":\"u\"}\tlocal",
        ];
        let found = in_order(&lines.join("\n")).unwrap();
        let ours = datasets(&area, Area::Volumes, &found);
        let all: Vec<_> =
            ours.iter().map(|(id, d)| (id.to_string(), d.limits.quota_bytes, d.snapshots.len())).collect();
        assert_eq!(all, [("volumes/a".to_owned(), Some(1024), 2)]);
        let names: Vec<_> = ours.values().flat_map(|d| &d.snapshots).map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["second", "first"], "in the order of the tool");
        assert!(in_order("half a li").is_err());
    }

    #[test]
    fn streams_are_told_apart_by_where_they_come_from() {
        let head = |to: u64, from: u64, little: bool| {
            let word = |w: u64| if little { w.to_le_bytes() } else { w.to_be_bytes() };
            [word(0), word(0x2_f5ba_cbac), word(1), word(2), word(3), word(to), word(from)].concat()
        };
        assert_eq!(stream_head(&head(4, 0, true)), Some(StreamHead { to: 4, since: None }));
        assert_eq!(stream_head(&head(4, 7, true)), Some(StreamHead { to: 4, since: Some(7) }));
        assert_eq!(stream_head(&head(4, 7, false)), Some(StreamHead { to: 4, since: Some(7) }));
        assert_eq!(stream_head(b"no stream at all"), None);
    }

    #[test]
    fn what_would_not_be_one_word_is_no_compression() {
        let tuning = |c: &str| Tuning { compression: Some(c.into()), record_size_bytes: None };
        assert!(tuning_properties("t", &"x", &tuning("gzip-9")).is_ok());
        for bad in ["", "a b", "on,quota=1", "x=y", "LZ4"] {
            assert!(tuning_properties("t", &"x", &tuning(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_makes_it_panic(printed in "([a-z/@:.]{0,8}\t){0,5}[a-z\n\t]{0,20}", head in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(found) = in_order(&printed) {
                let _ = datasets(&text::Dataset::new("a").unwrap(), Area::Volumes, &found);
            }
            let _ = stream_head(&head);
        }
    }
}
