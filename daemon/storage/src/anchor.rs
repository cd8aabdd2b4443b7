//! Where storage lies is decided once and written down: a disk that is not mounted, or a pool that is not imported yet, must not
//! have new volumes begin at another place, where they would be out of sight as soon as the first one is back.
//!
//! ```text
//! STATE/storage.json            {"engine":"btrfs","place":"/data","areas":{"volumes":{"place":"/data/volumes","id":"…"}, …}}
//! /data/volumes/.reddwarf-id    the same id; with ZFS the property `io.reddwarf:id`
//! ```
//!
//! The ids are written first and the file after them, so a crash in between is a first start once more. A place that had data
//! before there were ids is taken as it is found.

use crate::tree::{Layout, io_error, sync_dir};
use async_trait::async_trait;
use reddwarf_host::{Area, EngineKind, HostError, HostErrorKind, HostResult};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const OP: &str = "prepare storage";
const VERSION: u32 = 1;
/// The file with an area's id, where areas are directories.
const ID: &str = ".reddwarf-id";

/// What was written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) engine: EngineKind,
    pub(crate) place: String,
    areas: BTreeMap<Area, Spot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spot {
    place: String,
    id: String,
}

impl Record {
    /// What a file says; `None` when there is none.
    ///
    /// # Errors
    /// It can't be read or understood.
    pub(crate) fn read(file: &Path) -> HostResult<Option<Self>> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(OP, file, e)),
        };
        let record = serde_json::from_slice(&bytes).ok().filter(|record: &Self| record.version == VERSION);
        let unknown = || {
            let message =
                "where storage lies can't be read of it: restore it, or remove it if storage is where it always was";
            HostError::new(HostErrorKind::Other, OP, file.display().to_string(), message)
        };
        record.ok_or_else(unknown).map(Some)
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        put(file, &serde_json::to_vec(self)?)
    }

    /// Whether its place is there and holds no volume: nothing is out of sight then. Of a pool that is not told.
    pub(crate) fn is_empty(&self) -> bool {
        let Some(spot) = self.areas.get(&Area::Volumes) else { return true };
        let root = Path::new(&spot.place);
        self.engine != EngineKind::Zfs
            && read_id(root).is_ok_and(|id| id.as_ref() == Some(&spot.id))
            && Layout::marked(root).is_ok_and(|found| found.is_empty())
    }

    fn shown(&self) -> String {
        let volumes = self.areas.get(&Area::Volumes).map_or(&self.place, |spot| &spot.place);
        format!("{} at {volumes}", self.engine)
    }
}

/// Replaces a small file durably.
fn put(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    sync_dir(file.parent().unwrap_or(Path::new("/")))
}

/// The id that an area's directory bears.
fn read_id(root: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(root.join(ID)) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// How areas bear their ids.
#[async_trait]
pub(crate) trait Ids: Send + Sync {
    /// An area's; `None` when it bears none, or is not there.
    async fn id(&self, area: Area) -> HostResult<Option<String>>;
    /// Has it bear one.
    async fn set_id(&self, area: Area, id: &str) -> HostResult<()>;
}

#[async_trait]
impl Ids for Layout {
    async fn id(&self, area: Area) -> HostResult<Option<String>> {
        let root = self.root(area);
        read_id(&root).map_err(|e| io_error(OP, &root, e))
    }

    async fn set_id(&self, area: Area, id: &str) -> HostResult<()> {
        let file = self.root(area).join(ID);
        put(&file, id.as_bytes()).map_err(|e| io_error(OP, &file, e))
    }
}

/// Ids that were found.
pub(crate) type Found = BTreeMap<Area, String>;

/// What was chosen now, beside what was written down.
#[derive(Debug)]
pub(crate) struct Anchor {
    file: PathBuf,
    engine: EngineKind,
    place: String,
    areas: BTreeMap<Area, String>,
    /// Ids of what is in use.
    known: Mutex<Found>,
}

impl Anchor {
    pub(crate) fn new(file: PathBuf, engine: EngineKind, place: String, areas: BTreeMap<Area, String>) -> Self {
        Self { file, engine, place, areas, known: Mutex::default() }
    }

    /// Before anything is made: is it the storage that was in use before? Which ids are there?
    ///
    /// # Errors
    /// `NotFound` when it is another one, or is not there.
    pub(crate) async fn check(&self, ids: &dyn Ids) -> HostResult<Found> {
        let before = Record::read(&self.file)?;
        let mut found = Found::new();
        for (area, place) in &self.areas {
            let id = ids.id(*area).await?;
            if let Some(before) = &before
                && let Some(spot) = before.areas.get(area)
                && (before.engine != self.engine || id.as_ref() != Some(&spot.id))
            {
                if before.engine == self.engine && spot.place == *place {
                    return Err(self.absent(OP, place));
                }
                // Images and roots of pods are made again; nothing but volumes is missed.
                if *area == Area::Volumes && !before.is_empty() {
                    return Err(self.moved(OP, before));
                }
            }
            found.extend(id.map(|id| (*area, id)));
        }
        Ok(found)
    }

    /// The areas are there: it is written down which they are.
    ///
    /// # Errors
    /// The engine's, the system's.
    pub(crate) async fn keep(&self, ids: &dyn Ids, mut found: Found) -> HostResult<()> {
        for area in self.areas.keys().filter(|area| !found.contains_key(area)).copied().collect::<Vec<_>>() {
            let id = new_id().map_err(|e| io_error(OP, &self.file, e))?;
            ids.set_id(area, &id).await?;
            found.insert(area, id);
        }
        let spot = |(area, place): (&Area, &String)| {
            Some((*area, Spot { place: place.clone(), id: found.get(area)?.clone() }))
        };
        let areas = self.areas.iter().filter_map(spot).collect();
        let now = Record { version: VERSION, engine: self.engine, place: self.place.clone(), areas };
        let before = Record::read(&self.file)?;
        if before.as_ref() != Some(&now) {
            if let Some(before) = before {
                tracing::info!(before = before.shown(), now = now.shown(), "storage was moved");
            }
            now.write(&self.file).map_err(|e| io_error(OP, &self.file, e))?;
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// Whether an area's directory is the one in use: its disk may have been unmounted since.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn here(&self, op: &'static str, area: Area, root: &Path) -> HostResult<()> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&area).cloned();
        let id = match known {
            Some(id) => id,
            None => {
                let Some(before) = Record::read(&self.file)? else { return Ok(()) };
                if before.engine != self.engine {
                    return Err(self.moved(op, &before));
                }
                let Some(spot) = before.areas.get(&area) else { return Ok(()) };
                spot.id.clone()
            }
        };
        let there = read_id(root).map_err(|e| io_error(op, root, e))?;
        if there == Some(id) { Ok(()) } else { Err(self.absent(op, &root.display().to_string())) }
    }

    /// Whether the choice is the one that was made before, as far as can be told without looking at it.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn allows(&self, op: &'static str) -> HostResult<()> {
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        let Some(before) = Record::read(&self.file)? else { return Ok(()) };
        let volumes = before.areas.get(&Area::Volumes).map(|spot| &spot.place);
        if before.engine == self.engine && volumes == self.areas.get(&Area::Volumes) {
            return Ok(());
        }
        Err(self.moved(op, &before))
    }

    fn absent(&self, op: &'static str, place: &str) -> HostError {
        let (engine, file) = (self.engine, self.file.display());
        let message = format!(
            "the storage that was in use ({engine} at {place}) is not there now: is its disk mounted, its pool imported? Nothing is \
             made in its place meanwhile. If it is gone for good, remove {file}: storage begins anew there"
        );
        HostError::new(HostErrorKind::NotFound, op, place, message)
    }

    fn moved(&self, op: &'static str, before: &Record) -> HostError {
        let (file, before) = (self.file.display(), before.shown());
        let volumes = self.areas.get(&Area::Volumes).unwrap_or(&self.place);
        let message = format!(
            "volumes lie in {before}, and would be out of sight in {} at {volumes}: put the settings back, or, if storage is to \
             begin anew there, remove {file}",
            self.engine
        );
        HostError::new(HostErrorKind::NotFound, op, &*self.place, message)
    }
}
