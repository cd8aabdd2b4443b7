//! A disk in memory that can be full, broken, or lose power.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use redb::{BackendError, StorageBackend};
use reddwarf_store::BackendFactory;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the disk does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Growing or writing fails with this errno.
    NoWrites(i32),
    /// Syncing fails with this errno.
    NoSync(i32),
    /// Reading fails too.
    Dead(i32),
}

#[derive(Debug)]
pub struct Inner {
    pub mood: Mood,
    /// Writes since the last sync, not yet on the platter.
    unsynced: Vec<Unsynced>,
    pub syncs: u64,
    /// Power goes when this many syncs were done: nothing later reaches the platter, except what chance picks.
    pub cut_after: Option<u64>,
    pub cut: bool,
    random: fastrand::Rng,
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// Settings shared with the test.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            mood: Mood::Well,
            unsynced: Vec::new(),
            syncs: 0,
            cut_after: None,
            cut: false,
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    pub fn get(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn set(&self, mood: Mood) {
        self.get().mood = mood;
    }

    /// Writes that no sync has made durable yet.
    pub fn unsynced_writes(&self) -> usize {
        self.get().unsynced.iter().filter(|one| matches!(one, Unsynced::Write(..))).count()
    }

    pub fn factory(&self) -> BackendFactory {
        let disk = self.clone();
        Arc::new(move |_, file| {
            // What an earlier opening did not get synced is lost.
            disk.get().unsynced.clear();
            Ok(Box::new(Platter { disk: disk.clone(), view: Mutex::new(View::of(&file)?), file }))
        })
    }
}

/// What the process sees; what is on the platter is in the file.
struct View {
    bytes: Vec<u8>,
}

impl View {
    fn of(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self { bytes })
    }
}

struct Platter {
    disk: Disk,
    view: Mutex<View>,
    file: File,
}

impl fmt::Debug for Platter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Platter")
    }
}

impl Platter {
    fn apply(&self, one: &Unsynced) -> io::Result<()> {
        match one {
            Unsynced::Write(at, data) => self.file.write_all_at(data, *at),
            Unsynced::Length(len) => self.file.set_len(*len),
        }
    }
}

fn failure(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.view.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Mood::Dead(errno) = self.disk.get().mood {
            return Err(failure(errno));
        }
        let at = usize::try_from(offset).unwrap();
        let view = self.view.lock().unwrap();
        let from = view.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.get();
        if let Mood::NoWrites(errno) | Mood::Dead(errno) = disk.mood {
            return Err(failure(errno));
        }
        self.view.lock().unwrap().bytes.resize(usize::try_from(len).unwrap(), 0);
        disk.unsynced.push(Unsynced::Length(len));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.get();
        if let Mood::NoWrites(errno) | Mood::Dead(errno) = disk.mood {
            return Err(failure(errno));
        }
        let at = usize::try_from(offset).unwrap();
        self.view.lock().unwrap().bytes[at..at + data.len()].copy_from_slice(data);
        disk.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.get();
        if let Mood::NoSync(errno) | Mood::Dead(errno) = disk.mood {
            return Err(failure(errno));
        }
        if disk.cut {
            return Err(failure(libc::EIO));
        }
        let pending = std::mem::take(&mut disk.unsynced);
        if disk.cut_after == Some(disk.syncs) {
            // Power fails during this sync: any part of what was under way may have reached the platter.
            disk.cut = true;
            for one in &pending {
                if matches!(one, Unsynced::Length(_)) || disk.random.bool() {
                    self.apply(one)?;
                }
            }
            return Err(failure(libc::EIO));
        }
        disk.syncs += 1;
        pending.iter().try_for_each(|one| self.apply(one))
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
