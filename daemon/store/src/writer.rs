//! The one thread that writes: drains the queue, one redb commit for all transactions that waited.

use crate::apply::{Batch, Totals, Verdict};
use crate::recent::RecentCommit;
use crate::shared::{Shared, State};
use crate::{CommitError, Committed, Revision, StoreError, Transaction, Write, backup};
use redb::{CompactionError, Database, ReadableDatabase};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What can be asked of the writer.
pub(crate) enum Request {
    Commit(Transaction, oneshot::Sender<Result<Committed, CommitError>>),
    Compact(Revision, oneshot::Sender<Result<(), StoreError>>),
    Shrink(oneshot::Sender<Result<(), StoreError>>),
    Restore(PathBuf, oneshot::Sender<Result<PathBuf, StoreError>>),
    Close(oneshot::Sender<()>),
}

type Waiting = (Transaction, oneshot::Sender<Result<Committed, CommitError>>);

/// Transactions in one redb commit at most.
const BATCH_TRANSACTIONS: usize = 512;
/// Bytes of values in one redb commit at most (a single transaction may have more).
const BATCH_BYTES: usize = 4 << 20;
/// With so many transactions a redb commit does not wait for more.
const BATCH_ENOUGH: usize = 32;
/// How long a redb commit waits for others to share it, while others write too. One costs about as much as what a dozen
/// transactions add to it.
const LINGER: Duration = Duration::from_micros(300);
/// As long as each wait brings so many of them it waits again,
const LINGER_FOR: usize = 3;
/// at most so often altogether.
const LINGERS: usize = 4;
/// Commits dropped from history in one redb commit at most, when asked to compact.
const COMPACT_STEP: usize = 1000;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Request>,
    /// Transactions in the last redb commit: with one, nobody else is writing.
    last: usize,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Request>) -> Self {
        Self { shared, queue, last: 0 }
    }

    /// Works until the store is closed or its last handle is gone.
    pub(crate) fn run(mut self) {
        let mut next = self.queue.blocking_recv();
        while let Some(request) = next.take() {
            match request {
                Request::Commit(transaction, reply) => next = self.commit_batch((transaction, reply)),
                Request::Compact(before, reply) => {
                    let _ = reply.send(self.guarded(|w| w.compact(before)));
                }
                Request::Shrink(reply) => {
                    let _ = reply.send(self.guarded(Self::shrink));
                }
                Request::Restore(from, reply) => {
                    let _ = reply.send(self.guarded(|w| backup::restore_open(&w.shared, &from)));
                }
                Request::Close(reply) => {
                    self.queue.close();
                    self.shared.close();
                    let _ = reply.send(());
                    return;
                }
            }
            if next.is_none() {
                next = self.queue.blocking_recv();
            }
        }
        self.shared.close();
    }

    /// Takes in what waits, commits it and answers. Gives back a request of another kind that came up.
    fn commit_batch(&mut self, first: Waiting) -> Option<Request> {
        let mut bytes = size(&first.0);
        let mut batch = vec![first];
        let mut other = None;
        let (mut lingers, mut known) = (if self.last > 1 { LINGERS } else { 0 }, None);
        while batch.len() < BATCH_TRANSACTIONS && bytes < BATCH_BYTES {
            match self.queue.try_recv() {
                Ok(Request::Commit(transaction, reply)) => {
                    bytes += size(&transaction);
                    batch.push((transaction, reply));
                }
                Ok(request) => {
                    other = Some(request);
                    break;
                }
                Err(_) if lingers > 0 && batch.len() < BATCH_ENOUGH => {
                    let brought = known.replace(batch.len()).map(|known| batch.len() - known);
                    if brought.is_some_and(|brought| brought < LINGER_FOR) {
                        break;
                    }
                    lingers -= 1;
                    std::thread::sleep(LINGER);
                }
                Err(_) => break,
            }
        }
        self.last = batch.len();
        let (transactions, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match self.guarded(|w| w.apply_all(&transactions)) {
            Ok(verdicts) => self.answer(verdicts, replies),
            Err(StoreError::Damaged { .. }) if transactions.len() > 1 => {
                // One damaged record must not fail those who have nothing to do with it.
                for (transaction, reply) in transactions.into_iter().zip(replies) {
                    match self.guarded(|w| w.apply_all(std::slice::from_ref(&transaction))) {
                        Ok(verdicts) => self.answer(verdicts, vec![reply]),
                        Err(e) => self.refuse(&e, vec![reply]),
                    }
                }
            }
            Err(e) => self.refuse(&e, replies),
        }
        other
    }

    fn apply_all(&self, transactions: &[Transaction]) -> Result<Vec<Verdict>, StoreError> {
        self.write(|batch| transactions.iter().map(|t| batch.apply(t)).collect(), transactions.len())
    }

    fn answer(&self, verdicts: Vec<Verdict>, replies: Vec<oneshot::Sender<Verdict>>) {
        for (verdict, reply) in verdicts.into_iter().zip(replies) {
            match &verdict {
                Ok(committed) if committed.changed => self.shared.counters.commits.fetch_add(1, Ordering::Relaxed),
                Err(CommitError::Conflict { .. }) => self.shared.counters.conflicts.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            let _ = reply.send(verdict);
        }
    }

    fn refuse(&self, error: &StoreError, replies: Vec<oneshot::Sender<Verdict>>) {
        self.shared.counters.failures.fetch_add(replies.len() as u64, Ordering::Relaxed);
        tracing::error!(path = %self.shared.path.display(), transactions = replies.len(), error = %error, "a commit failed");
        for reply in replies {
            let _ = reply.send(Err(match error {
                StoreError::Closed => CommitError::Closed,
                e => CommitError::Disk(e.clone()),
            }));
        }
    }

    /// Runs one piece of work on a database that is there, and opens it again when the work fails on it.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(*self.shared.state(), State::Broken(_)) {
            self.shared.reopen(self.shared.epoch())?;
        }
        if !self.shared.in_place() {
            backup::put_back(&self.shared)?;
        }
        let epoch = self.shared.epoch();
        let result = catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|_| Err(StoreError::Writer("met a defect; the log has the place".to_owned())));
        if let Err(StoreError::Database { .. } | StoreError::Writer(_)) = &result {
            // Whether it succeeds or not: the next access finds out.
            let _ = self.shared.reopen(epoch);
        }
        result
    }

    /// One redb commit around `fill`, with a share of compaction; publishes what it committed.
    fn write<T>(
        &self,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>,
        transactions: usize,
    ) -> Result<T, StoreError> {
        let known = self.shared.revision();
        let (out, totals, recent) = self.shared.with_database(|database| {
            // While somebody reads the state before, redb leaves the pages that this commit frees to the next one. Otherwise it
            // frees them at once in a commit that is only in memory: from then on, until the next real one, each page that has to
            // be read from the file costs a look into all parts of its write buffer, twice as much as the read itself.
            let _before = database.begin_read().map_err(StoreError::db("begin a commit"))?;
            let txn = database.begin_write().map_err(StoreError::db("begin a commit"))?;
            let mut batch = Batch::begin(&txn, &self.shared.options, known)?;
            let out = fill(&mut batch)?;
            let compacts = transactions == 0;
            if batch.recent.is_empty() && !compacts {
                // Nothing but refusals and no-ops: nothing to make durable.
                drop(batch);
                txn.abort().map_err(StoreError::db("end a commit"))?;
                return Ok((out, None, Vec::new()));
            }
            if !compacts {
                match batch.compact_window(4 * batch.recent.len() + 16) {
                    // Old history that can't be read must not keep anyone from writing.
                    Err(StoreError::Damaged { what, why }) => {
                        tracing::error!(%what, %why, "history can't be compacted")
                    }
                    other => other?,
                }
            }
            let (totals, recent) = batch.finish()?;
            txn.commit().map_err(StoreError::db("commit"))?;
            Ok((out, Some(totals), recent))
        })?;
        if let Some(totals) = totals {
            self.publish(totals, recent);
        }
        Ok(out)
    }

    fn publish(&self, totals: Totals, recent: Vec<RecentCommit>) {
        let counters = &self.shared.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.history_bytes.store(totals.history_bytes, Ordering::Relaxed);
        counters.history_commits.store(totals.history_commits, Ordering::Relaxed);
        self.shared.publish(totals.revision, totals.compacted, recent);
    }

    fn compact(&mut self, before: Revision) -> Result<(), StoreError> {
        while self.write(|b| b.compact_to(before, COMPACT_STEP), 0)? {}
        Ok(())
    }

    fn shrink(&mut self) -> Result<(), StoreError> {
        match &mut *self.shared.exclusive() {
            State::Open(database) => shrink(database),
            State::Broken(why) => Err(why.clone()),
            State::Closed => Err(StoreError::Closed),
        }
    }
}

/// Moves pages together and cuts the file, as far as that goes. A backup under way is left alone.
pub(crate) fn shrink(database: &mut Database) -> Result<(), StoreError> {
    loop {
        match database.compact() {
            Ok(true) => {}
            Ok(false) | Err(CompactionError::TransactionInProgress) => return Ok(()),
            Err(e) => return Err(StoreError::db("shrink the store")(e)),
        }
    }
}

fn size(transaction: &Transaction) -> usize {
    let len = |(_, write): &(_, Write)| match write {
        Write::Put(value) => value.len(),
        Write::Delete => 0,
    };
    transaction.writes.iter().map(len).sum()
}
