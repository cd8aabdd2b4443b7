//! What earlier calls left half-done is finished or cleared away, and what goes goes piece by piece.

use super::{Stage, TreeEngine, crash, io_error, names, renamed};
use reddwarf_host::{Area, DatasetId, DatasetName, HostResult};
use reddwarf_supervise::files::remove_tree;
use std::fs;
use std::io;
use std::path::Path;

impl TreeEngine {
    /// Cleaning up after a failure: the failure itself is what matters, what stays is cleared away later.
    pub(super) async fn discard(&self, path: &Path) {
        self.noted(path, &self.trees.remove(path).await);
    }

    /// Whether something went; one that stays is told of until it has gone.
    pub(super) fn noted(&self, path: &Path, removed: &HostResult<()>) -> bool {
        self.leftovers.note(path.display(), removed)
    }

    /// What stayed earlier is tried again, and forgotten where somebody else has removed it.
    pub(super) async fn settle_again(&self) -> HostResult<()> {
        for area in Area::ALL {
            self.here("clear leftovers", area)?;
            self.settle(area).await?;
        }
        self.leftovers.retain(|what| !Path::new(what).is_absolute() || fs::symlink_metadata(what).is_ok());
        Ok(())
    }

    /// Finishes or clears what begins with a dot in an area. What can't be cleared away stands in nobody's way but its own: it
    /// stays for the next start.
    pub(super) async fn settle(&self, area: Area) -> HostResult<bool> {
        let root = self.layout.root(area);
        let mut any = false;
        for name in names(&root).map_err(|e| io_error("prepare storage", &root, e))? {
            let staged = Stage::ALL.iter().find_map(|stage| Some((*stage, name.strip_prefix(stage.prefix())?)));
            let Some((stage, of)) = staged else { continue };
            let Ok(id) = DatasetName::new(of).map(|name| DatasetId { area, name }) else { continue };
            // A call for it may be under way, when the place is prepared once more.
            let _one = self.lock(&id).await;
            let (path, place) = (root.join(&name), root.join(of));
            if path.exists() {
                any |= self.noted(&path, &self.settle_one(stage, &path, &place).await);
            }
        }
        let snapshots = root.join(".snapshots");
        for dataset in names(&snapshots).map_err(|e| io_error("prepare storage", &snapshots, e))? {
            let dir = snapshots.join(&dataset);
            let Ok(id) = DatasetName::new(dataset).map(|name| DatasetId { area, name }) else { continue };
            let _one = self.lock(&id).await;
            for name in names(&dir).map_err(|e| io_error("prepare storage", &dir, e))? {
                if Stage::ALL.iter().any(|stage| name.starts_with(stage.prefix())) {
                    let path = dir.join(&name);
                    any |= self.noted(&path, &self.remove_snapshot(&path).await);
                }
            }
        }
        Ok(any)
    }

    pub(super) async fn settle_one(&self, stage: Stage, path: &Path, place: &Path) -> HostResult<()> {
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
    pub(super) async fn remove_snapshot(&self, dir: &Path) -> HostResult<()> {
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
    pub(super) async fn remove_below(&self, dir: &Path) -> HostResult<()> {
        for name in names(dir).map_err(|e| io_error("destroy dataset", dir, e))? {
            self.remove_snapshot(&dir.join(name)).await?;
        }
        match fs::remove_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("destroy dataset", dir, e)),
            _ => Ok(()),
        }
    }
}
