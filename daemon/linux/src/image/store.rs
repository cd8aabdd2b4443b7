//! The image store's files.
//!
//! ```text
//! STATE/images/         0700: layers hold setuid programs, which no user of the host may reach
//!   lock                flock while something is changed
//!   readers             flock, shared, while layers are read for long: none of them goes meanwhile
//!   layers/CHAIN        one unpacked layer, ready to be a lower directory of overlayfs; CHAIN is the first 32
//!                       hexadecimal digits of its chain id (OCI image spec, config.md)
//!   records/ID.json     one image: what it is made of, how it is run; its time is that of the last use
//!   names.json          name to image id
//!   tmp/                unfinished work; cleared by whoever takes the lock next
//!   together/           where readers mount several layers as one
//!   removed/            layers that no image has any more: file by file they go in the background
//!   pulls/              blobs from registries, whole and in part, until they are unpacked
//! ```
//!
//! An import makes layers, then the record, then the name; a removal goes the other way round. So whatever a crash
//! leaves is garbage that nothing refers to, and [`Store::collect`] finds it.

use super::crash;
use crate::options::LinuxOptions;
use crate::rootfs::io_error;
use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg};
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, ImageConfig, ImageId, ImageInfo};
use reddwarf_supervise::tree::remove_tree;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const OPEN: &str = "open image store";
const READ: &str = "read image store";
const WRITE: &str = "write image store";
const REMOVE: &str = "remove image";
/// How long to wait for another import to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);
/// How long to wait for a process that still writes to `tmp/` and holds no lock.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: ImageId,
    /// How it is run.
    pub(crate) config: ImageConfig,
    /// Its layers, lowest first, as names of directories in `layers/`.
    pub(crate) layers: Vec<String>,
    /// Digests of the layers' content, in the same order (OCI image spec, config.md, `diff_ids`). Empty in records of
    /// versions that did not keep them.
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
    /// Bytes on disk of all its layers.
    pub(crate) size_bytes: u64,
    /// Names under which it came from a registry, and what the registry called it (`registry/repository@sha256:…`).
    /// Names that are not here were given by hand.
    #[serde(default)]
    pub(crate) pulled: BTreeMap<String, String>,
}

type Names = BTreeMap<String, ImageId>;

/// The store below one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// The right to change the store. The directories are there, `tmp/` is empty.
pub(crate) struct Locked<'a> {
    pub(crate) store: &'a Store,
    _lock: Flock<File>,
    /// Nobody reads layers.
    alone: Option<Flock<File>>,
}

/// Layers stay while this is held. Others may be unpacked meanwhile.
pub(crate) struct Reading {
    _lock: Flock<File>,
}

/// An image's id as it stands in names of files.
fn hex(id: &ImageId) -> &str {
    id.as_str().strip_prefix("sha256:").unwrap_or(id.as_str())
}

impl Store {
    pub(crate) fn of(options: &LinuxOptions) -> Self {
        Self { dir: options.state_dir.join("images") }
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Where one reader may mount layers on each other.
    pub(crate) fn together_dir(&self, image: &ImageId) -> PathBuf {
        self.dir.join("together").join(hex(image))
    }

    fn removed_dir(&self) -> PathBuf {
        self.dir.join("removed")
    }

    fn records_dir(&self) -> PathBuf {
        self.dir.join("records")
    }

    fn names_path(&self) -> PathBuf {
        self.dir.join("names.json")
    }

    fn record_path(&self, id: &ImageId) -> PathBuf {
        self.records_dir().join(format!("{}.json", hex(id)))
    }

    /// One image; `None` when it is not here.
    ///
    /// # Errors
    /// `Other` when the record can't be read.
    pub(crate) fn record(&self, id: &ImageId) -> HostResult<Option<Record>> {
        read_json(&self.record_path(id))
    }

    fn names(&self) -> HostResult<Names> {
        Ok(read_json(&self.names_path())?.unwrap_or_default())
    }

    /// All images that have a name or a record.
    ///
    /// # Errors
    /// `Other` when the index of names can't be read.
    pub(crate) fn list(&self) -> HostResult<Vec<ImageInfo>> {
        let names = self.names()?;
        let mut images = Vec::new();
        for path in self.record_paths()? {
            match read_json::<Record>(&path) {
                Ok(Some(record)) => images.push(self.info(record, &names)),
                Ok(None) => {}
                // One damaged record must not hide the others.
                Err(error) => tracing::warn!(error = %error.chain(), "image left out"),
            }
        }
        Ok(images)
    }

    /// All records that can be read.
    ///
    /// # Errors
    /// `Other`.
    pub(crate) fn records(&self) -> HostResult<Vec<Record>> {
        let paths = self.record_paths()?;
        Ok(paths.iter().filter_map(|path| read_json(path).ok().flatten()).collect())
    }

    /// Notes that an image was used: what was not for the longest time is removed first when room is needed.
    pub(crate) fn touch(&self, id: &ImageId, now: DateTime<Utc>) {
        let times = std::fs::FileTimes::new().set_modified(now.into());
        let touched = File::options().write(true).open(self.record_path(id)).and_then(|f| f.set_times(times));
        if let Err(error) = touched {
            tracing::debug!(image = %id, %error, "an image's last use could not be noted");
        }
    }

    fn info(&self, record: Record, names: &Names) -> ImageInfo {
        let used = std::fs::metadata(self.record_path(&record.id)).and_then(|m| m.modified());
        let Record { id, config, layers: _, diff_ids: _, size_bytes, mut pulled } = record;
        let names: Vec<String> = names.iter().filter(|(_, i)| **i == id).map(|(name, _)| name.clone()).collect();
        pulled.retain(|name, _| names.contains(name));
        ImageInfo { id, names, size_bytes, config, pulled, last_used: used.ok().map(DateTime::from) }
    }

    fn record_paths(&self) -> HostResult<Vec<PathBuf>> {
        let dir = self.records_dir();
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| io_error(READ, &dir, e))?,
        };
        let mut paths = entries
            .map(|entry| entry.map(|e| e.path()))
            .filter(|p| p.as_ref().map_or(true, |p| p.extension().is_some_and(|e| e == "json")))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| io_error(READ, &dir, e))?;
        paths.sort();
        Ok(paths)
    }

    /// Waits until nobody else changes the store.
    ///
    /// # Errors
    /// `Busy` when another import takes too long, `Exhausted`, `Other`.
    pub(crate) async fn lock(&self) -> HostResult<Locked<'_>> {
        self.make_directories()?;
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(lock) = self.flock("lock", FlockArg::LockExclusiveNonblock)? {
                let locked = Locked { store: self, _lock: lock, alone: None };
                match locked.clear_scratch() {
                    Ok(()) => return Ok(locked),
                    // An unpacking process of a killed daemon notices soon that it is alone.
                    Err(_) if begun.elapsed() < ORPHAN_PATIENCE => {}
                    Err(error) => return Err(error),
                }
            }
            self.wait(begun, "another import is still running").await?;
        }
    }

    /// Waits until nobody else changes the store, nor reads layers. Who waits keeps nobody from importing.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub(crate) async fn lock_to_remove(&self) -> HostResult<Locked<'_>> {
        let begun = tokio::time::Instant::now();
        loop {
            let mut locked = self.lock().await?;
            locked.alone = self.flock("readers", FlockArg::LockExclusiveNonblock)?;
            if locked.alone.is_some() {
                return Ok(locked);
            }
            drop(locked);
            self.wait(begun, "an image is still copied to its dataset").await?;
        }
    }

    /// Waits until no layers are removed. An import may go on for as long as it likes.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub(crate) async fn read(&self) -> HostResult<Reading> {
        self.make_directories()?;
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(lock) = self.flock("readers", FlockArg::LockSharedNonblock)? {
                return Ok(Reading { _lock: lock });
            }
            self.wait(begun, "images are still removed").await?;
        }
    }

    /// A lock of the store, or `None` while others hold it.
    fn flock(&self, name: &str, how: FlockArg) -> HostResult<Option<Flock<File>>> {
        let path = self.dir.join(name);
        let file = File::create(&path).map_err(|e| io_error(OPEN, &path, e))?;
        match Flock::lock(file, how) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(io_error(OPEN, &path, e.into())),
        }
    }

    /// A moment, unless it has been too many.
    async fn wait(&self, since: tokio::time::Instant, why: &str) -> HostResult<()> {
        if since.elapsed() >= LOCK_PATIENCE {
            return Err(HostError::new(HostErrorKind::Busy, OPEN, self.dir.display().to_string(), why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// Begins to remove the files of layers that went, unless that is under way: a thousand images may have a million
    /// of them, and nobody is to wait for that.
    pub(crate) fn sweep_later(&self) {
        let store = self.clone();
        // Not a task of the runtime: a daemon that ends does not wait for it, and the next one goes on.
        let thread = std::thread::Builder::new().name("images-sweep".to_owned()).spawn(move || store.sweep());
        if let Err(error) = thread {
            tracing::warn!(%error, "removed images still take room: there is no thread to remove their files");
        }
    }

    /// Removes the files of layers that went.
    pub(crate) fn sweep(&self) {
        let dir = self.removed_dir();
        let Ok(opened) = File::open(&dir) else { return };
        let Ok(_lock) = Flock::lock(opened, FlockArg::LockExclusiveNonblock) else { return };
        // New ones may come meanwhile; what can't be removed is not tried for ever.
        let mut failed = BTreeSet::new();
        loop {
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path());
            let waiting: Vec<PathBuf> = entries.filter(|path| !failed.contains(path)).collect();
            if waiting.is_empty() {
                return;
            }
            for path in waiting {
                if let Err(error) = remove_tree(&path) {
                    tracing::warn!(path = %path.display(), %error, "a removed layer still takes room");
                    failed.insert(path);
                }
            }
        }
    }

    fn make_directories(&self) -> HostResult<()> {
        // Overlayfs takes these apart in mount options.
        if self.dir.to_str().is_none_or(|text| text.contains([',', ':', '\\'])) {
            let message = "images need a state directory without ',', ':' and '\\' in its path";
            return Err(HostError::new(HostErrorKind::Unsupported, OPEN, self.dir.display().to_string(), message));
        }
        for dir in [self.dir.clone(), self.layers_dir(), self.records_dir(), self.scratch_dir(), self.removed_dir()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| io_error(OPEN, &dir, e))?;
        }
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.dir, private).map_err(|e| io_error(OPEN, &self.dir, e))
    }
}

impl Locked<'_> {
    /// Empties `tmp/`.
    pub(crate) fn clear_scratch(&self) -> HostResult<()> {
        let dir = self.store.scratch_dir();
        for entry in std::fs::read_dir(&dir).map_err(|e| io_error(OPEN, &dir, e))? {
            let path = entry.map_err(|e| io_error(OPEN, &dir, e))?.path();
            crash::point();
            remove_tree(&path).map_err(|e| io_error(OPEN, &path, e.into()))?;
        }
        Ok(())
    }

    /// Gives a layer that lies complete and on disk at `from` its name.
    pub(crate) fn take_layer(&self, from: &Path, chain: &str) -> HostResult<()> {
        let to = self.store.layers_dir().join(chain);
        crash::point();
        std::fs::rename(from, &to)
            .inspect(|()| crash::point())
            .and_then(|()| sync_directory(&self.store.layers_dir()))
            .map_err(|e| io_error(WRITE, &to, e))
    }

    /// Records an image and points `name` at it.
    pub(crate) fn take_image(&self, record: &Record, name: &str) -> HostResult<ImageInfo> {
        write_json(&self.store.record_path(&record.id), record)?;
        let mut names = self.store.names()?;
        if names.get(name) != Some(&record.id) {
            names.insert(name.to_owned(), record.id.clone());
            write_json(&self.store.names_path(), &names)?;
        }
        Ok(self.store.info(record.clone(), &names))
    }

    /// Takes a name away; the image goes with its last one.
    pub(crate) fn remove_name(&self, name: &str, in_use: &BTreeSet<ImageId>) -> HostResult<Change> {
        let mut names = self.store.names()?;
        let Some(id) = names.remove(name) else { return Ok(Change::Unchanged) };
        let last = !names.values().any(|other| *other == id);
        if last && in_use.contains(&id) {
            let message = format!("a container runs from it ({id}); stop its pod first");
            return Err(HostError::new(HostErrorKind::Busy, REMOVE, name, message));
        }
        write_json(&self.store.names_path(), &names)?;
        self.collect(in_use)?;
        Ok(Change::Changed(if last { format!("removed image {id}") } else { format!("removed the name {name}") }))
    }

    /// Takes all names from images that are not in use, which go then, all at once. Which of them went.
    pub(crate) fn remove_images(&self, images: &[ImageId], in_use: &BTreeSet<ImageId>) -> HostResult<Vec<ImageId>> {
        let gone: BTreeSet<&ImageId> = images.iter().filter(|id| !in_use.contains(*id)).collect();
        let mut names = self.store.names()?;
        let before = names.len();
        names.retain(|_, id| !gone.contains(id));
        if names.len() != before {
            write_json(&self.store.names_path(), &names)?;
        }
        let there: BTreeSet<ImageId> = self.store.records()?.into_iter().map(|r| r.id).collect();
        self.collect(in_use)?;
        Ok(gone.into_iter().filter(|id| there.contains(*id)).cloned().collect())
    }

    /// Removes images that have no name and are not in use, and layers that no image has. While layers are read all of them
    /// stay, for the next time.
    pub(crate) fn collect(&self, in_use: &BTreeSet<ImageId>) -> HostResult<()> {
        let _alone = match &self.alone {
            Some(_) => None,
            None => match self.store.flock("readers", FlockArg::LockExclusiveNonblock)? {
                None => return self.clear_scratch(),
                alone => alone,
            },
        };
        let named: BTreeSet<ImageId> = self.store.names()?.into_values().collect();
        let mut layers = BTreeSet::new();
        for path in self.store.record_paths()? {
            // A record that can't be read is not one that is not there: its layers may be any.
            let Some(record) = read_json::<Record>(&path)? else { continue };
            if named.contains(&record.id) || in_use.contains(&record.id) {
                layers.extend(record.layers);
            } else {
                crash::point();
                std::fs::remove_file(&path).map_err(|e| io_error(REMOVE, &path, e))?;
            }
        }
        sync_directory(&self.store.records_dir()).map_err(|e| io_error(REMOVE, &self.store.records_dir(), e))?;
        let dir = self.store.layers_dir();
        for entry in std::fs::read_dir(&dir).map_err(|e| io_error(REMOVE, &dir, e))? {
            let entry = entry.map_err(|e| io_error(REMOVE, &dir, e))?;
            if entry.file_name().to_str().is_none_or(|name| !layers.contains(name)) {
                self.remove_layer(&entry.path())?;
            }
        }
        self.clear_scratch()
    }

    /// Moved away first: half a layer must never be found under its name.
    fn remove_layer(&self, path: &Path) -> HostResult<()> {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Ok(()) };
        for number in 0.. {
            crash::point();
            // The same layer may have come and gone before.
            match std::fs::rename(path, self.store.removed_dir().join(format!("{name}.{number}"))) {
                Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                other => return other.map_err(|e| io_error(REMOVE, path, e)),
            }
        }
        Ok(())
    }
}

/// `None` when there is no such file.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> HostResult<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| io_error(READ, path, e))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        let message = format!("damaged ({e}): remove this file and import the image again");
        HostError::new(HostErrorKind::Other, READ, path.display().to_string(), message).caused_by(e)
    })
}

/// Atomic and on disk when it returns.
fn write_json<T: Serialize>(path: &Path, value: &T) -> HostResult<()> {
    let failed = |e| io_error(WRITE, path, e);
    let bytes = serde_json::to_vec(value).map_err(|e| failed(e.into()))?;
    let temporary = path.with_extension("json.new");
    crash::point();
    let mut file = File::create(&temporary).map_err(failed)?;
    crash::point();
    file.write_all(&bytes)
        .inspect(|()| crash::point())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect(|()| crash::point())
        .and_then(|()| path.parent().map_or(Ok(()), sync_directory))
        .map_err(failed)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
