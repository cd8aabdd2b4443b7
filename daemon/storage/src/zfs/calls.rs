//! What the engine does for its callers, call by call.

use super::properties::{PROPERTIES, datasets, limit_properties, mark, tuning_properties};
use super::stream::stream_head;
use super::{CHANGE, ID, LONG, MARKS, STAGED, ZfsEngine, invalid, position, text};
use crate::anchor::Ids;
use crate::tree::{io_error, partial, write_stream};
use async_trait::async_trait;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::storage::{Capacity, DatasetUsage, EngineAbout, Leftovers, check_marks};
use reddwarf_host::{
    Area, Change, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, HostResult, Limits,
    SnapshotId, SnapshotName, StorageEngine,
};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

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
        self.usable(OP).await?;
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
            // What lies in one is somebody else's.
            let left = |name: &&String| name.strip_prefix(&staged).is_some_and(|rest| !rest.contains(['@', '/']));
            for name in found.iter().map(|(name, _)| name).filter(left) {
                let name = text::Dataset::new(name).map_err(|e| invalid(OP, name, e.to_string()))?;
                any |= self.discard(OP, &name).await;
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

    fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    async fn clear_leftovers(&self) -> HostResult<()> {
        const OP: &str = "clear leftovers";
        let Ok(_nothing_comes) = self.staging.try_write() else { return Ok(()) };
        self.usable(OP).await?;
        for what in self.leftovers.all().into_keys() {
            let ours = |area: &&text::Dataset| what.starts_with(&format!("{area}/{STAGED}"));
            if let (Some(_), Ok(name)) = (self.areas.values().find(ours), text::Dataset::new(&*what)) {
                self.discard(OP, &name).await;
            }
        }
        Ok(())
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
        match self.patiently(OP, &name, Invocation::change(Tool::Zfs, ["rollback", &name]).within(CHANGE)).await {
            // Such as an administrator's own.
            Err(e) if e.message.contains("more recent") => conflict(e.message),
            other => other.map(|()| Change::Changed(format!("rolled back to {id}"))),
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
        self.bytes(area, "used").await
    }

    async fn data_bytes(&self, area: Area) -> HostResult<BTreeMap<DatasetName, u64>> {
        self.bytes(area, "referenced").await
    }

    async fn capacity(&self) -> HostResult<Capacity> {
        const OP: &str = "measure storage";
        self.usable(OP).await?;
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
        let _staging = self.staging.read().await;
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
