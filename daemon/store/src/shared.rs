//! What the handles, the watchers and the writer thread have in common.

use crate::counts::Counts;
use crate::file::{self, Lock};
use crate::open::{self, Level, OpenFile, Ready};
use crate::read;
use crate::recent::{Recent, RecentCommit};
use crate::tables;
use crate::waiters::Waiters;
use crate::{Revision, StoreError, StoreOptions};
use redb::{Database, ReadTransaction, ReadableDatabase};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Waker;

/// The database, or why there is none at the moment.
#[derive(Debug)]
pub(crate) enum State {
    /// In use.
    Open(Database),
    /// The disk failed; every access tries to open it again.
    Broken(StoreError),
    /// For good.
    Closed,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) history_bytes: AtomicU64,
    pub(crate) history_commits: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) options: StoreOptions,
    state: RwLock<State>,
    /// Counts openings of the file, so that one failure makes one reopening.
    epoch: AtomicU64,
    /// Device and inode of the open file, to notice when it is deleted or replaced.
    file_id: Mutex<Option<(u64, u64)>>,
    lock: Mutex<Option<Lock>>,
    revision: AtomicU64,
    compacted: AtomicU64,
    recent: Mutex<Recent>,
    closed: AtomicBool,
    pub(crate) waiters: Waiters,
    pub(crate) counts: Counts,
    pub(crate) counters: Counters,
}

/// A panic while holding one of our locks leaves nothing half done that matters: what they guard is replaced whole.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(path: PathBuf, options: StoreOptions, ready: Ready) -> Result<Self, StoreError> {
        let txn = ready.database.begin_read().map_err(StoreError::db("read the store"))?;
        let (revision, compacted) = read::bounds(&txn)?;
        drop(txn);
        let (commits, bytes) = open::history_size(&ready.database)?;
        let counters = Counters::default();
        counters.history_commits.store(commits, Ordering::Relaxed);
        counters.history_bytes.store(bytes, Ordering::Relaxed);
        Ok(Self {
            file_id: Mutex::new(file_id(&path)),
            state: RwLock::new(State::Open(ready.database)),
            epoch: AtomicU64::new(0),
            lock: Mutex::new(Some(ready.lock)),
            revision: AtomicU64::new(revision.0),
            compacted: AtomicU64::new(compacted.0),
            recent: Mutex::new(Recent::new(revision, options.recent_bytes)),
            closed: AtomicBool::new(false),
            waiters: Waiters::new(revision),
            counts: Counts::new(revision),
            counters,
            path,
            options,
        })
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub(crate) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        hold(&self.recent)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alone with the database: no read and no write is under way.
    pub(crate) fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on the open database, without a second try.
    pub(crate) fn with_database<T>(&self, f: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.state() {
            State::Open(database) => f(database),
            State::Broken(why) => Err(why.clone()),
            State::Closed => Err(StoreError::Closed),
        }
    }

    /// Runs a read on a snapshot. After a disk failure the file is opened again and the read tried once more.
    pub(crate) fn read<T>(&self, f: impl Fn(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let on_snapshot = |d: &Database| f(&d.begin_read().map_err(StoreError::db("read the store"))?);
        // redb is written to return errors; damage beyond what it foresees must end one read, not the caller.
        let attempt = || {
            catch_unwind(AssertUnwindSafe(|| self.with_database(on_snapshot)))
                .unwrap_or_else(|_| Err(tables::damaged("the store".to_owned(), "redb gave up on its contents")))
        };
        let epoch = self.epoch();
        match attempt() {
            Err(e) if e.is_transient() => {
                self.reopen(epoch)?;
                attempt()
            }
            other => other,
        }
    }

    /// Opens the file again after a failure, unless somebody did since `epoch`.
    ///
    /// A commit that was reported as failed may turn out to have landed. It then counts as committed, although after a
    /// failed sync only the kernel's memory may have it: no system call says so, and the disk was reported as failing.
    pub(crate) fn reopen(&self, epoch: u64) -> Result<(), StoreError> {
        let mut state = self.exclusive();
        match &*state {
            State::Closed => return Err(StoreError::Closed),
            State::Open(_) if self.epoch() != epoch => return Ok(()),
            State::Open(_) | State::Broken(_) => {}
        }
        // The old one has to go first: it holds redb's lock on the file.
        *state = State::Broken(StoreError::Writer("is opening the file again".to_owned()));
        let opened = match open::open_file(&self.path, &self.options, Level::Quick) {
            Ok(OpenFile::Usable { database, .. }) => self.adopt(&mut state, database),
            Ok(OpenFile::Unusable(why)) => Err(StoreError::Invalid { path: self.path.clone(), why }),
            Err(e) => Err(e),
        };
        if let Err(e) = &opened {
            tracing::error!(path = %self.path.display(), error = %e, "the store can't be opened again yet");
            *state = State::Broken(e.clone());
        }
        opened
    }

    /// Goes on with `database`, whatever happened to the file meanwhile.
    pub(crate) fn adopt(&self, state: &mut State, database: Database) -> Result<(), StoreError> {
        let txn = database.begin_read().map_err(StoreError::db("read the store"))?;
        let (revision, compacted) = read::bounds(&txn)?;
        drop(txn);
        *state = State::Open(database);
        *hold(&self.file_id) = file_id(&self.path);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.compacted.fetch_max(compacted.0, Ordering::AcqRel);
        if revision < self.revision() {
            tracing::error!(
                path = %self.path.display(), found = revision.0, known = self.revision().0,
                "the disk lost commits that it had said were safe; revisions go on after the known ones"
            );
            self.counts.forget(self.revision());
        }
        if revision > self.revision() {
            // A commit that was reported as failed did land: watchers read it from history.
            self.recent().reset(revision);
            self.counts.forget(revision);
            let wakers = self.waiters.tell_all(revision);
            self.publish_revision(revision);
            wakers.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    /// Makes commits visible to watchers.
    pub(crate) fn publish(&self, revision: Revision, compacted: Revision, commits: Vec<RecentCommit>) {
        let commits: Vec<Arc<RecentCommit>> = commits.into_iter().map(Arc::new).collect();
        {
            let mut recent = self.recent();
            commits.iter().cloned().for_each(|c| recent.push(c));
        }
        self.counts.tell(revision, &commits);
        let wakers = self.waiters.tell(&commits);
        self.compacted.fetch_max(compacted.0, Ordering::AcqRel);
        self.publish_revision(revision);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn publish_revision(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Whether the open file still has its name.
    pub(crate) fn in_place(&self) -> bool {
        let known = *hold(&self.file_id);
        known.is_some() && file_id(&self.path) == known
    }

    /// Closes the file and tells everybody.
    pub(crate) fn close(&self) {
        *self.exclusive() = State::Closed;
        hold(&self.lock).take();
        self.closed.store(true, Ordering::Release);
        self.waiters.tell_all(self.revision()).into_iter().for_each(Waker::wake);
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// `<path>.<word>-<time>`, not taken yet.
    pub(crate) fn aside(&self, word: &str) -> PathBuf {
        file::free_name(&self.path, &format!(".{word}-{}", file::stamp((self.options.clock)())))
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}
