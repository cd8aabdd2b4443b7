//! How datasets and snapshots come to their places: made under a name of their own, filled, renamed.

use super::{
    Base, DATA, Mark, NO_BASE, Stage, TreeEngine, crash, first_difference, io_error, lasting, make_dirs, mounts,
};
use super::{newer_than, renamed, sync_dir, written_since};
use reddwarf_host::storage::SnapshotInfo;
use reddwarf_host::{
    Area, DatasetId, DatasetSpec, HostError, HostErrorKind, HostResult, Limits, SnapshotId, SnapshotName,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a snapshot is made of.
pub(super) enum Fill<'f> {
    Dataset(Mark),
    /// And whether there is nothing that it would take the place of.
    Stream(&'f Path, &'f DatasetSpec, bool),
}

impl TreeEngine {
    /// Fills a staged tree and gives it its place.
    pub(super) async fn place(&self, id: &DatasetId, mark: &Mark, from: Option<&Path>) -> HostResult<()> {
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
            self.discard(&staged).await;
        }
        placed
    }

    pub(super) async fn fill(&self, staged: &Path, mark: &Mark, from: Option<&Path>, lasting: bool) -> HostResult<()> {
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
    /// Makes a snapshot of a dataset or a stream, under its name when it is complete.
    pub(super) async fn place_snapshot(&self, id: &SnapshotId, fill: Fill<'_>) -> HostResult<()> {
        let staged = self.layout.staged_snapshot(id, Stage::New);
        self.remove_snapshot(&staged).await?;
        make_dirs(&staged).map_err(|e| io_error("make snapshot", &staged, e))?;
        crash::point();
        let result = self.fill_snapshot(id, &staged, fill).await;
        if result.is_err() {
            self.noted(&staged, &self.remove_snapshot(&staged).await);
        }
        result
    }

    pub(super) async fn fill_snapshot(&self, id: &SnapshotId, staged: &Path, fill: Fill<'_>) -> HostResult<()> {
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
                crash::point();
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
    pub(super) async fn check_whole(&self, op: &'static str, id: &DatasetId) -> HostResult<()> {
        if id.area != Area::Volumes {
            return Ok(());
        }
        self.trees.check_whole(op, &self.layout.dataset(id)).await
    }

    /// Whether nothing but what was written since would be lost if other files took a dataset's place.
    pub(super) async fn check_replaceable(&self, op: &'static str, id: &DatasetId) -> HostResult<()> {
        mounts::none_below(op, &self.layout.dataset(id))?;
        self.check_whole(op, id).await
    }

    /// What differs between a dataset's files and a snapshot's.
    pub(super) async fn changed(&self, op: &'static str, since: &SnapshotId) -> HostResult<Option<PathBuf>> {
        let live = self.layout.dataset(&since.dataset).join(DATA);
        let kept = self.tree(op, &self.layout.snapshot(since))?.join(DATA);
        first_difference(op, live, kept).await
    }

    /// Whether an increment brings nothing but what is newer: it must be made since the newest snapshot, and nothing may have been
    /// written since that.
    pub(super) async fn check_follows(&self, op: &'static str, to: &SnapshotId, base: Base) -> HostResult<()> {
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
    pub(super) fn applied(&self, op: &'static str, id: &SnapshotId) -> HostResult<()> {
        let dir = self.layout.snapshot(id);
        let mark = self.snapshot_there(op, id)?;
        Mark { applied: true, ..mark }.write(&dir).map_err(|e| io_error(op, &dir, e))
    }

    /// Puts a snapshot's files in the dataset's place.
    pub(super) async fn replace(&self, id: &SnapshotId, mark: &Mark) -> HostResult<()> {
        let staged = self.layout.staged(&id.dataset, Stage::New);
        let (path, old) = (self.layout.dataset(&id.dataset), self.layout.staged(&id.dataset, Stage::Old));
        self.trees.remove(&staged).await?;
        let tree = self.tree("roll back dataset", &self.layout.snapshot(id))?;
        if let Err(error) = self.fill(&staged, mark, Some(&tree), true).await {
            self.discard(&staged).await;
            return Err(error);
        }
        let failed = |e| io_error("roll back dataset", &path, e);
        renamed(&path, &old).map_err(failed)?;
        if let Err(error) = renamed(&staged, &path) {
            renamed(&old, &path).map_err(failed)?;
            return Err(failed(error));
        }
        sync_dir(&self.layout.root(id.dataset.area)).map_err(failed)?;
        self.discard(&old).await;
        Ok(())
    }
}
