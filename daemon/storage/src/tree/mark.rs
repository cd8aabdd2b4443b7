//! The mark beside a dataset's files: whose it is. Without one that can be read a directory is not ours.

use super::layout::MARK;
use chrono::{DateTime, Utc};
use reddwarf_host::{DatasetSpec, Limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The format; a newer one is left alone.
const VERSION: u32 = 1;
/// A mark is small; more is none of ours.
const MOST: u64 = 1 << 20;

/// What is noted of a dataset or snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    pub(crate) version: u32,
    pub(crate) marks: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) limits: Limits,
    pub(crate) created: DateTime<Utc>,
    /// Orders snapshots of one moment.
    #[serde(default)]
    pub(crate) sequence: u64,
    /// Of a snapshot: the dataset has been as it is. Not so between an increment's arrival and its files' taking their place.
    #[serde(default = "yes")]
    pub(crate) applied: bool,
}

fn yes() -> bool {
    true
}

impl Mark {
    pub(crate) fn new(spec: &DatasetSpec, created: DateTime<Utc>) -> Self {
        Self { version: VERSION, marks: spec.marks.clone(), limits: spec.limits, created, sequence: 0, applied: true }
    }

    /// The mark of a directory; `None` when it bears none that this version knows.
    ///
    /// # Errors
    /// When it can't be told.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(MARK);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e),
        };
        if !found.is_file() || found.len() > MOST {
            return Ok(None);
        }
        let mark = serde_json::from_slice::<Self>(&fs::read(&path)?).ok();
        Ok(mark.filter(|mark| mark.version == VERSION))
    }

    /// Writes it where nobody looks yet: durable with the rename that gives the directory its name.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_new(&self, dir: &Path) -> io::Result<()> {
        let path = dir.join(MARK);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()
    }

    /// The same without waiting for the disk: after a power cut it may be what it was before, never half of one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_lazily(&self, dir: &Path) -> io::Result<()> {
        let (path, new) = (dir.join(MARK), dir.join(".reddwarf.json.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&new, &path)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, new) = (dir.join(MARK), dir.join(".reddwarf.json.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        super::crash::point();
        fs::rename(&new, &path)?;
        super::crash::point();
        sync_dir(dir)
    }
}

/// Makes renames in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
