//! Where everything lies.
//!
//! ```text
//! volumes/.reddwarf-id                 which storage it is (`anchor`)
//! volumes/pvc-1/reddwarf.json          the mark: whose it is, its limits
//! volumes/pvc-1/data/                  what pods see
//! volumes/.snapshots/pvc-1/monday/     a snapshot: its mark, and beside it
//!                          monday/data   the dataset as it was
//! volumes/.new-pvc-1                   being made: not there yet, as far as anyone is concerned
//! volumes/.old-pvc-1                   what a rollback replaces
//! volumes/.gone-pvc-1                  being removed
//! ```
//!
//! Names of datasets and snapshots never begin with a dot, so nothing of ours is ever taken for a dataset.

use reddwarf_host::{Area, DatasetId, SnapshotId};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The mark's file.
pub(crate) const MARK: &str = "reddwarf.json";
/// What pods see.
pub(crate) const DATA: &str = "data";

/// What a name that begins with a dot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    New,
    Old,
    Gone,
}

impl Stage {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Old, Self::Gone];

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::New => ".new-",
            Self::Old => ".old-",
            Self::Gone => ".gone-",
        }
    }
}

/// Where the areas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    roots: BTreeMap<Area, PathBuf>,
    base: PathBuf,
}

impl Layout {
    /// All areas below `base`, those in `elsewhere` excepted.
    pub fn new(base: impl Into<PathBuf>, elsewhere: BTreeMap<Area, PathBuf>) -> Self {
        Self { roots: elsewhere, base: base.into() }
    }

    /// The place that everything without a place of its own lies below.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Datasets of ours in an area's directory.
    pub(crate) fn marked(root: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let found = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        Ok(found.into_iter().filter(|path| path.join(MARK).is_file()).collect())
    }

    pub(crate) fn root(&self, area: Area) -> PathBuf {
        self.roots.get(&area).cloned().unwrap_or_else(|| self.base.join(area.as_str()))
    }

    pub(crate) fn dataset(&self, id: &DatasetId) -> PathBuf {
        self.root(id.area).join(id.name.as_str())
    }

    pub(crate) fn staged(&self, id: &DatasetId, stage: Stage) -> PathBuf {
        self.root(id.area).join(format!("{}{}", stage.prefix(), id.name))
    }

    pub(crate) fn snapshots(&self, id: &DatasetId) -> PathBuf {
        self.root(id.area).join(".snapshots").join(id.name.as_str())
    }

    pub(crate) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots(&id.dataset).join(id.name.as_str())
    }

    pub(crate) fn staged_snapshot(&self, id: &SnapshotId, stage: Stage) -> PathBuf {
        self.snapshots(&id.dataset).join(format!("{}{}", stage.prefix(), id.name))
    }
}
