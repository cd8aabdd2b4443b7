//! The handle everybody else holds.

use crate::counts::Count;
use crate::read::Progress;
use crate::shared::Shared;
use crate::writer::{self, Request, Writer};
use crate::{
    CommitError, CommitRecord, Committed, Digest, Entry, EntryRef, GenerationDiff, GenerationRecord, Key, ListOptions,
    ObjectCommit, Opened, Page, Revision, StoreError, StoreOptions, Transaction, VisitEnd, Watch, WatchError, backup,
    generation, open, read, tables,
};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// An open store. Cheap to clone; the last clone's drop closes the file. Reads are short and synchronous.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Taken by the last drop.
    queue: Option<mpsc::Sender<Request>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    /// Lets the writer finish what is queued, so that the file can be opened again right away.
    fn drop(&mut self) {
        self.queue = None;
        let writer = crate::shared::hold(&self.writer).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the store's writer ended by a defect");
        }
    }
}

/// What the store has done since it was opened, and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads of one key or one page.
    pub reads: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// Durable redb commits; `commits / batches` is how many shared one fdatasync.
    pub batches: u64,
    /// Transactions refused because of an expectation.
    pub conflicts: u64,
    /// Transactions failed because of the disk.
    pub failures: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of earlier values in history.
    pub history_bytes: u64,
    /// Commits in history.
    pub history_commits: u64,
}

/// Files larger than this are looked at for unused space when they are opened.
const SHRINK_FROM: u64 = 16 << 20;

impl Store {
    /// Opens or creates the file at `path` (mode 0600; its directory too when missing) and starts the writer thread.
    ///
    /// A file that is damaged, empty or no store never blocks: it is moved to `<path>.corrupt-<time>`, an empty store
    /// takes its place and [`Opened::recovery`] says so. The new store's revisions go on from the wall clock's
    /// milliseconds, so that revisions of the lost one do not come again.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], or the disk fails.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Opened, StoreError> {
        let path = path.as_ref().to_owned();
        let mut ready = open::open(&path, &options)?;
        shrink_if_worthwhile(&path, &mut ready.database);
        let recovery = ready.recovery.take();
        let (queue, requests) = mpsc::channel(options.queue.max(1));
        let shared = Arc::new(Shared::new(path, options, ready)?);
        let work = Writer::new(shared.clone(), requests);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work.run())
            .map_err(|e| StoreError::Writer(format!("thread could not be started: {e}")))?;
        let inner = Inner { shared, queue: Some(queue), writer: Mutex::new(Some(writer)) };
        Ok(Opened { store: Self { inner: Arc::new(inner) }, recovery })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.read(|txn| read::get(txn, key))
    }

    /// What `see` makes of the value of a key, where it lies.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn look<T>(&self, key: &Key, see: impl Fn(EntryRef<'_>) -> T) -> Result<Option<T>, StoreError> {
        self.read(|txn| read::look(txn, key, &see))
    }

    /// The value a key had after commit `at`.
    ///
    /// # Errors
    /// Also [`StoreError::Compacted`] and [`StoreError::Future`].
    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Entry>, StoreError> {
        self.read(|txn| read::get_at(txn, key, at))
    }

    /// Entries whose keys start with `prefix`, in key order, from one snapshot.
    ///
    /// # Errors
    /// Also [`StoreError::Compacted`] and [`StoreError::Future`] when a revision is asked for.
    pub fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        let mut entries = Vec::new();
        let VisitEnd { revision, more } = self.visit(prefix, options, &mut |entry| {
            entries.push(entry.to_entry());
            true
        })?;
        Ok(Page { entries, revision, more })
    }

    /// Shows the same entries to `each`, one by one where they lie, until it wants no more: the entry that it gives
    /// `false` for counts as not seen.
    ///
    /// # Errors
    /// As [`Store::list`]; some entries may have been shown.
    pub fn visit(
        &self,
        prefix: &str,
        options: &ListOptions,
        each: &mut dyn FnMut(EntryRef<'_>) -> bool,
    ) -> Result<VisitEnd, StoreError> {
        // Read a second time after a disk failure, it goes on where it was.
        let under_way = RefCell::new((Progress::default(), each));
        self.read(|txn| {
            let (progress, each) = &mut *under_way.borrow_mut();
            read::visit(txn, prefix, options, progress, each)
        })
    }

    /// How many keys start with `prefix`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        self.known(prefix).map(|known| known.keys)
    }

    /// A commit after which no key that starts with `prefix` changed, as far as changes were told to anybody: as long as it is the
    /// same, what was read after asking for it is what there is. It need not be the last that changed one.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn touched(&self, prefix: &str) -> Result<Revision, StoreError> {
        self.known(prefix).map(|known| known.touched)
    }

    fn known(&self, prefix: &str) -> Result<Count, StoreError> {
        if let Some(known) = self.inner.shared.counts.get(prefix) {
            return Ok(known);
        }
        let (keys, at) = self.read(|txn| Ok((read::count(txn, prefix)?, read::bounds(txn)?.0)))?;
        self.inner.shared.counts.learn(prefix, at, keys);
        Ok(Count { keys, touched: at })
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.inner.shared.revision()
    }

    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> Revision {
        self.inner.shared.compacted()
    }

    /// Carries out a transaction; durable on return. Many callers share one disk sync; each gets its own verdict and
    /// revision, in the order of the queue. When the queue is full, this waits.
    ///
    /// Dropping the future does not take back a transaction that is queued: it may still happen.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue().ok_or(CommitError::Closed)?;
        queue.send(Request::Commit(transaction, reply)).await.map_err(|_| CommitError::Closed)?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    /// The same for threads that are not asynchronous; never call it from a runtime's thread.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit_blocking(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue().ok_or(CommitError::Closed)?;
        queue.blocking_send(Request::Commit(transaction, reply)).map_err(|_| CommitError::Closed)?;
        answer.blocking_recv().map_err(|_| CommitError::Closed)?
    }

    /// Follows changes under `prefix` that came after commit `after` (a list's revision): history first, then live.
    ///
    /// # Errors
    /// [`WatchError::Compacted`], [`WatchError::Future`], [`WatchError::Closed`].
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        Watch::start(&self.inner.shared, prefix, after)
    }

    /// The commits of one object, newest first, as far as history is retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn history(&self, key: &Key, limit: usize) -> Result<Vec<ObjectCommit>, StoreError> {
        self.read(|txn| read::history(txn, key, limit))
    }

    /// Commits in a range of revisions, oldest first, at most `limit`, as far as history is retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn commits(&self, range: RangeInclusive<Revision>, limit: usize) -> Result<Vec<CommitRecord>, StoreError> {
        self.read(|txn| read::commits(txn, *range.start(), *range.end(), limit))
    }

    /// Forgets history up to and including `before` (at most the newest revision). Values are not touched.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Request::Compact(before, reply)).await
    }

    /// Gives unused space of the file back to the filesystem. Reads and writes wait meanwhile.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn shrink(&self) -> Result<(), StoreError> {
        self.ask(Request::Shrink).await
    }

    /// Writes a consistent copy to `path`, which must not exist; it appears there complete or not at all. Gives the
    /// revision it is of. Writes go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or the disk fails.
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<Revision, StoreError> {
        let (shared, path) = (self.inner.shared.clone(), path.into());
        let copy = tokio::task::spawn_blocking(move || backup::backup(&shared, &path));
        copy.await.unwrap_or_else(|e| Err(StoreError::Writer(format!("could not make a backup: {e}"))))
    }

    /// Replaces the contents of this open store by those of a backup, which is checked first. Gives where the old file
    /// is kept. The result is a new revision after the present one, and all earlier ones count as compacted: watchers
    /// are told [`WatchError::Compacted`] and list again.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::NewerFormat`] (nothing is changed), or the disk fails.
    pub async fn restore_from(&self, backup: impl Into<PathBuf>) -> Result<PathBuf, StoreError> {
        let backup = backup.into();
        self.ask(|reply| Request::Restore(backup, reply)).await
    }

    /// The same for a store that no process has open; `None` when there was no old file.
    ///
    /// # Errors
    /// Also [`StoreError::Locked`].
    pub fn restore(backup: &Path, path: &Path, options: &StoreOptions) -> Result<Option<PathBuf>, StoreError> {
        backup::restore(backup, path, options)
    }

    /// All retained generations, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generations(&self) -> Result<Vec<GenerationRecord>, StoreError> {
        self.read(|txn| {
            let table = txn.open_table(tables::GENERATIONS).map_err(StoreError::db("read the generations"))?;
            let mut out = Vec::new();
            for item in table.iter().map_err(StoreError::db("read the generations"))? {
                let (number, bytes) = item.map_err(StoreError::db("read the generations"))?;
                out.push(generation::decode(number.value(), bytes.value())?);
            }
            Ok(out)
        })
    }

    /// One generation; absent when there never was one or it is not retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generation(&self, number: u64) -> Result<Option<GenerationRecord>, StoreError> {
        self.read(|txn| find_generation(txn, number))
    }

    /// The newest generation.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn latest_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        self.read(|txn| {
            let table = txn.open_table(tables::GENERATIONS).map_err(StoreError::db("read the generations"))?;
            let last = table.last().map_err(StoreError::db("read the generations"))?;
            last.map(|(number, bytes)| generation::decode(number.value(), bytes.value())).transpose()
        })
    }

    /// How two generations' files differ; absent when one of them is not retained.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn generation_diff(&self, from: u64, to: u64) -> Result<Option<GenerationDiff>, StoreError> {
        self.read(|txn| {
            let (Some(from), Some(to)) = (find_generation(txn, from)?, find_generation(txn, to)?) else {
                return Ok(None);
            };
            let content = |digest: &Digest| {
                let found = find_content(txn, digest)?;
                found.ok_or_else(|| tables::damaged(format!("file contents {digest}"), "they are missing"))
            };
            generation::diff(&from, &to, content).map(Some)
        })
    }

    /// The contents of a file of a generation.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn content(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.read(|txn| find_content(txn, digest))
    }

    /// Whether the contents are stored, so that a new generation need not bring them. They may be dropped with the
    /// last generation that has them: then the commit says [`CommitError::MissingContent`].
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn has_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.read(|txn| {
            let table = txn.open_table(tables::CONTENTS).map_err(StoreError::db("read file contents"))?;
            Ok(table.get(digest.0).map_err(StoreError::db("read file contents"))?.is_some())
        })
    }

    /// What the store has done and how large it is.
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.shared.counters;
        Stats {
            reads: counters.reads.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            file_bytes: self.inner.shared.file_bytes(),
            history_bytes: counters.history_bytes.load(Ordering::Relaxed),
            history_commits: counters.history_commits.load(Ordering::Relaxed),
        }
    }

    /// Finishes what is queued and closes the file; other clones and watches see `Closed` from then on.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if let Some(queue) = self.queue()
            && queue.send(Request::Close(reply)).await.is_ok()
        {
            let _ = done.await;
        }
    }

    fn queue(&self) -> Option<&mpsc::Sender<Request>> {
        self.inner.queue.as_ref()
    }

    fn read<T>(&self, f: impl Fn(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.inner.shared.read(f)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue().ok_or(StoreError::Closed)?;
        queue.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn find_generation(txn: &ReadTransaction, number: u64) -> Result<Option<GenerationRecord>, StoreError> {
    let table = txn.open_table(tables::GENERATIONS).map_err(StoreError::db("read the generations"))?;
    let found = table.get(number).map_err(StoreError::db("read the generations"))?;
    found.map(|bytes| generation::decode(number, bytes.value())).transpose()
}

fn find_content(txn: &ReadTransaction, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
    let table = txn.open_table(tables::CONTENTS).map_err(StoreError::db("read file contents"))?;
    let found = table.get(digest.0).map_err(StoreError::db("read file contents"))?;
    Ok(found.map(|bytes| Bytes::copy_from_slice(bytes.value())))
}

/// Shrinks a file of which more than half is unused. A failure only costs space: opening goes on.
fn shrink_if_worthwhile(path: &Path, database: &mut redb::Database) {
    let length = std::fs::metadata(path).map_or(0, |m| m.len());
    if length < SHRINK_FROM {
        return;
    }
    let used = || -> Result<u64, redb::Error> {
        let txn = database.begin_write()?;
        let stats = txn.stats()?;
        txn.abort()?;
        Ok(stats.allocated_pages() * stats.page_size() as u64)
    };
    let shrunk = match used() {
        Ok(used) if used < length / 2 => writer::shrink(database),
        Ok(_) => Ok(()),
        Err(e) => Err(StoreError::db("measure the store")(e)),
    };
    if let Err(e) = shrunk {
        tracing::warn!(path = %path.display(), error = %e, "can't shrink the store");
    }
}
