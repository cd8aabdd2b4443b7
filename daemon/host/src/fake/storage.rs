//! A storage engine in memory: the rules of the real ones, without files. For controllers' tests and the simulated host.

use crate::error::{HostError, HostErrorKind, HostResult};
use crate::names::{DatasetName, SnapshotName};
use crate::observe::Change;
use crate::storage::{
    Area, Capacity, Dataset, DatasetId, DatasetSpec, DatasetUsage, EngineAbout, EngineKind, Features, Leftovers,
    Limits, SnapshotId, SnapshotInfo, StorageEngine, check_marks,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When a planned fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageFault {
    /// The call fails and nothing happened.
    Before(HostErrorKind),
    /// The call fails and all of it happened.
    After(HostErrorKind),
}

#[derive(Debug, Default)]
struct State {
    datasets: BTreeMap<DatasetId, Dataset>,
    foreign: Vec<DatasetId>,
    used: BTreeMap<DatasetId, u64>,
    sent: BTreeMap<PathBuf, (Option<SnapshotName>, SnapshotName)>,
    faults: Vec<StorageFault>,
    calls: Vec<String>,
    ticks: i64,
    trouble: Option<(HostErrorKind, String)>,
}

/// The engine.
#[derive(Debug)]
pub struct MemoryEngine {
    about: EngineAbout,
    root: PathBuf,
    leftovers: Leftovers,
    state: Mutex<State>,
}

impl MemoryEngine {
    /// An empty one whose datasets would lie below `root`; nothing is made there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let features = Features { incremental: true, instant: true, ..Features::default() };
        let about = EngineAbout {
            kind: EngineKind::Memory,
            place: root.display().to_string(),
            why: "the host is simulated".into(),
            features,
        };
        Self { about, root, leftovers: Leftovers::default(), state: Mutex::default() }
    }

    /// One that keeps datasets to their size.
    pub fn keeping_quotas(mut self) -> Self {
        self.about.features.quota = true;
        self
    }

    /// The place can't be used for this reason, or can again.
    pub fn set_trouble(&self, trouble: Option<(HostErrorKind, &str)>) {
        self.state().trouble = trouble.map(|(kind, why)| (kind, why.to_owned()));
    }

    /// The next calls that change something meet these, one each.
    pub fn plan_faults(&self, faults: impl IntoIterator<Item = StorageFault>) {
        self.state().faults.extend(faults);
    }

    /// Calls that changed something or tried to, oldest first.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Puts something without marks there.
    pub fn plant_foreign(&self, id: &DatasetId) {
        self.state().foreign.push(id.clone());
    }

    /// Says that a dataset's files take so much.
    pub fn fill(&self, id: &DatasetId, bytes: u64) {
        self.state().used.insert(id.clone(), bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, op: &'static str) -> HostResult<()> {
        match &self.state().trouble {
            Some((kind, why)) => Err(HostError::new(*kind, op, &*self.about.place, &**why)),
            None => Ok(()),
        }
    }

    /// Carries out a change, with the fault that was planned for it.
    fn change(
        &self,
        op: &'static str,
        subject: &dyn std::fmt::Display,
        act: impl FnOnce(&mut State) -> HostResult<Change>,
    ) -> HostResult<Change> {
        let mut state = self.state();
        state.calls.push(format!("{op} {subject}"));
        state.ticks += 1;
        let fault = (!state.faults.is_empty()).then(|| state.faults.remove(0));
        let failed = |kind| Err(HostError::new(kind, op, subject.to_string(), "a fault was planned here"));
        match fault {
            Some(StorageFault::Before(kind)) => failed(kind),
            Some(StorageFault::After(kind)) => {
                drop(act(&mut state)?);
                failed(kind)
            }
            None => act(&mut state),
        }
    }
}

fn error(kind: HostErrorKind, op: &'static str, subject: &dyn std::fmt::Display, message: &str) -> HostError {
    HostError::new(kind, op, subject.to_string(), message)
}

fn ours<'s>(state: &'s mut State, op: &'static str, id: &DatasetId) -> HostResult<Option<&'s mut Dataset>> {
    if state.foreign.contains(id) {
        return Err(error(HostErrorKind::Foreign, op, id, "it bears no mark of ours"));
    }
    Ok(state.datasets.get_mut(id))
}

fn there<'s>(state: &'s mut State, op: &'static str, id: &DatasetId) -> HostResult<&'s mut Dataset> {
    ours(state, op, id)?.ok_or_else(|| error(HostErrorKind::NotFound, op, id, "there is no such dataset"))
}

fn has(dataset: &Dataset, name: &SnapshotName) -> bool {
    dataset.snapshots.iter().any(|s| s.name == *name)
}

fn make(state: &mut State, op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
    check_marks(&spec.marks).map_err(|why| error(HostErrorKind::InvalidSpec, op, id, &why))?;
    if spec.tuning != crate::storage::Tuning::default() {
        return Err(error(HostErrorKind::InvalidSpec, op, id, "memory knows neither compression nor record size"));
    }
    if let Some(present) = ours(state, op, id)? {
        if present.marks != spec.marks {
            return Err(error(HostErrorKind::Conflict, op, id, "it is there with other marks"));
        }
        if present.limits == spec.limits {
            return Ok(Change::Unchanged);
        }
        present.limits = spec.limits;
        return Ok(Change::Changed("limits".into()));
    }
    let dataset = Dataset { marks: spec.marks.clone(), limits: spec.limits, snapshots: Vec::new() };
    state.datasets.insert(id.clone(), dataset);
    Ok(Change::Changed("made".into()))
}

fn take_snapshot(state: &mut State, op: &'static str, id: &SnapshotId) -> HostResult<Change> {
    let created = DateTime::UNIX_EPOCH + TimeDelta::seconds(state.ticks);
    let dataset = there(state, op, &id.dataset)?;
    if has(dataset, &id.name) {
        return Ok(Change::Unchanged);
    }
    dataset.snapshots.push(SnapshotInfo { name: id.name.clone(), created });
    Ok(Change::Changed("made".into()))
}

#[async_trait]
impl StorageEngine for MemoryEngine {
    fn about(&self) -> &EngineAbout {
        &self.about
    }

    fn root(&self, area: Area) -> PathBuf {
        self.root.join(area.as_str())
    }

    async fn prepare(&self) -> HostResult<Change> {
        self.usable("prepare storage").map(|()| Change::Unchanged)
    }

    fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    async fn clear_leftovers(&self) -> HostResult<()> {
        Ok(())
    }

    async fn list(&self) -> HostResult<BTreeMap<DatasetId, Dataset>> {
        Ok(self.state().datasets.clone())
    }

    async fn create(&self, id: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        self.change("create dataset", id, |state| make(state, "create dataset", id, spec))
    }

    async fn resize(&self, id: &DatasetId, limits: &Limits) -> HostResult<Change> {
        self.change("resize dataset", id, |state| {
            let used = state.used.get(id).copied().unwrap_or(0);
            let dataset = there(state, "resize dataset", id)?;
            if limits.quota_bytes.is_some_and(|quota| quota < used) {
                return Err(error(HostErrorKind::InvalidSpec, "resize dataset", id, "its files take more already"));
            }
            if dataset.limits == *limits {
                return Ok(Change::Unchanged);
            }
            dataset.limits = *limits;
            Ok(Change::Changed("limits".into()))
        })
    }

    async fn destroy(&self, id: &DatasetId) -> HostResult<Change> {
        self.change("destroy dataset", id, |state| {
            if ours(state, "destroy dataset", id)?.is_none() {
                return Ok(Change::Unchanged);
            }
            state.datasets.remove(id);
            state.used.remove(id);
            Ok(Change::Changed("destroyed".into()))
        })
    }

    async fn snapshot(&self, id: &SnapshotId) -> HostResult<Change> {
        self.change("make snapshot", id, |state| take_snapshot(state, "make snapshot", id))
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> HostResult<Change> {
        self.change("remove snapshot", id, |state| {
            let Some(dataset) = ours(state, "remove snapshot", &id.dataset)? else { return Ok(Change::Unchanged) };
            if !has(dataset, &id.name) {
                return Ok(Change::Unchanged);
            }
            dataset.snapshots.retain(|s| s.name != id.name);
            Ok(Change::Changed("removed".into()))
        })
    }

    async fn rollback(&self, id: &SnapshotId) -> HostResult<Change> {
        self.change("roll back dataset", id, |state| {
            let dataset = there(state, "roll back dataset", &id.dataset)?;
            if !has(dataset, &id.name) {
                return Err(error(HostErrorKind::NotFound, "roll back dataset", id, "there is no such snapshot"));
            }
            if dataset.snapshots.last().is_some_and(|last| last.name != id.name) {
                return Err(error(HostErrorKind::Conflict, "roll back dataset", id, "there are newer snapshots"));
            }
            Ok(Change::Changed("rolled back".into()))
        })
    }

    async fn clone_of(&self, from: &SnapshotId, to: &DatasetId, spec: &DatasetSpec) -> HostResult<Change> {
        self.change("clone dataset", to, |state| {
            if !has(there(state, "clone dataset", &from.dataset)?, &from.name) {
                return Err(error(HostErrorKind::NotFound, "clone dataset", from, "there is no such snapshot"));
            }
            make(state, "clone dataset", to, spec)
        })
    }

    async fn usage(&self, id: &DatasetId) -> HostResult<DatasetUsage> {
        let mut state = self.state();
        there(&mut state, "measure dataset", id)?;
        let bytes = state.used.get(id).copied().unwrap_or(0);
        Ok(DatasetUsage { data_bytes: bytes, total_bytes: bytes })
    }

    async fn own_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        let state = self.state();
        let of_area = state.datasets.keys().filter(|id| id.area == area);
        Ok(of_area.map(|id| (id.name.clone(), state.used.get(id).copied().unwrap_or(0))).collect())
    }

    async fn data_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        self.own_bytes(area).await
    }

    async fn capacity(&self) -> HostResult<Capacity> {
        self.usable("measure storage")?;
        Ok(Capacity { total_bytes: 1 << 40, free_bytes: 1 << 39 })
    }

    async fn send(&self, id: &SnapshotId, since: Option<&SnapshotName>, file: &Path) -> HostResult<u64> {
        let mut state = self.state();
        let dataset = there(&mut state, "send snapshot", &id.dataset)?;
        let place = |name: &SnapshotName| dataset.snapshots.iter().position(|s| s.name == *name);
        let Some(at) = place(&id.name) else {
            return Err(error(HostErrorKind::NotFound, "send snapshot", id, "there is no such snapshot"));
        };
        match since.map(place) {
            Some(None) => return Err(error(HostErrorKind::NotFound, "send snapshot", id, "there is no older one")),
            Some(Some(older)) if older >= at => {
                return Err(error(HostErrorKind::InvalidSpec, "send snapshot", id, "the other one is not older"));
            }
            _ => {}
        }
        if state.sent.contains_key(file) {
            return Err(error(HostErrorKind::Conflict, "send snapshot", id, "the file is there already"));
        }
        state.sent.insert(file.to_owned(), (since.cloned(), id.name.clone()));
        Ok(1)
    }

    async fn receive(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<Change> {
        self.change("receive dataset", to, |state| {
            let subject = file.display();
            let Some((since, _)) = state.sent.get(file).cloned() else {
                return Err(error(HostErrorKind::NotFound, "receive dataset", &subject, "there is no such file"));
            };
            let present = ours(state, "receive dataset", &to.dataset)?.map(|d| d.clone());
            match (since, present) {
                (None, Some(_)) => Err(error(HostErrorKind::Conflict, "receive dataset", to, "it is there already")),
                (Some(base), Some(dataset)) if dataset.snapshots.last().is_some_and(|last| last.name == base) => {
                    take_snapshot(state, "receive dataset", to)
                }
                (Some(_), _) => {
                    Err(error(HostErrorKind::Conflict, "receive dataset", to, "the increment does not fit"))
                }
                (None, None) => {
                    drop(make(state, "receive dataset", &to.dataset, spec)?);
                    take_snapshot(state, "receive dataset", to)
                }
            }
        })
    }
}
