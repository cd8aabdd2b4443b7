//! What the engine does for its callers, call by call.

use super::place::Fill;
use super::{Mark, Stage, Stream, TreeEngine, capacity, crash, io_error, lasting, make_dirs, mounts, names, partial};
use super::{renamed, sync_dir, write_stream};
use async_trait::async_trait;
use reddwarf_host::storage::{Capacity, DatasetUsage, EngineAbout, Leftovers};
use reddwarf_host::{
    Area, Change, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, HostResult, Limits,
    SnapshotId, SnapshotName, StorageEngine,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What has a name of ours.
fn named(bytes: BTreeMap<String, u64>) -> BTreeMap<DatasetName, u64> {
    bytes.into_iter().filter_map(|(name, bytes)| Some((DatasetName::new(name).ok()?, bytes))).collect()
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

    fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    async fn clear_leftovers(&self) -> HostResult<()> {
        self.settle_again().await
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
            let removed = async {
                self.remove_below(&self.layout.snapshots(id)).await?;
                crash::point();
                self.trees.remove(&gone).await
            };
            let removed = removed.await;
            self.noted(&gone, &removed);
            removed?;
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
        Ok(named(self.trees.own(&self.layout.root(area)).await?))
    }

    async fn data_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        self.here("measure datasets", area)?;
        Ok(named(self.trees.counted(&self.layout.root(area)).await?))
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
            self.noted(&dir, &self.remove_snapshot(&dir).await);
            return Err(error);
        }
        Ok(Change::Changed(format!("received {to}")))
    }
}
