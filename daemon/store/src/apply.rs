//! Carries out transactions inside one redb write transaction: verdict, no-op detection, history, compaction.

use crate::generation;
use crate::recent::{RecentChange, RecentCommit};
use crate::tables::{self, COMMITS, Header, META, OBJECTS, Undo, meta};
use crate::{
    CommitChange, CommitError, CommitRecord, Committed, Expect, Found, Key, Op, Revision, StoreError, StoreOptions,
    Transaction, Write,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use std::collections::HashSet;

/// How a transaction ended inside a batch that can still be committed.
pub(crate) type Verdict = Result<Committed, CommitError>;

/// One redb write transaction that takes in many of ours.
pub(crate) struct Batch<'t> {
    txn: &'t WriteTransaction,
    options: &'t StoreOptions,
    meta: Table<'t, &'static str, u64>,
    objects: Table<'t, &'static str, &'static [u8]>,
    commits: Table<'t, u64, &'static [u8]>,
    history: Table<'t, (&'static str, u64), &'static [u8]>,
    revision: u64,
    compacted: u64,
    history_bytes: u64,
    /// What was found last under a key that is not written: most transactions of a batch expect the same of the same namespace.
    expected: Option<(Key, Found)>,
    /// What was committed, for the watchers.
    pub(crate) recent: Vec<RecentCommit>,
}

/// What the file holds when the batch ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) history_bytes: u64,
    pub(crate) history_commits: u64,
}

/// A write that makes a difference.
struct Difference {
    key: Key,
    op: Op,
    value: Option<Bytes>,
    previous: Option<Vec<u8>>,
}

impl<'t> Batch<'t> {
    /// Starts on `txn`; revisions continue after `known` at least.
    pub(crate) fn begin(
        txn: &'t WriteTransaction,
        options: &'t StoreOptions,
        known: Revision,
    ) -> Result<Self, StoreError> {
        let open = StoreError::db("open a table");
        let meta = txn.open_table(META).map_err(open)?;
        let objects = txn.open_table(OBJECTS).map_err(StoreError::db("open a table"))?;
        let commits = txn.open_table(COMMITS).map_err(StoreError::db("open a table"))?;
        let history = txn.open_table(tables::HISTORY).map_err(StoreError::db("open a table"))?;
        let number = |name| -> Result<u64, StoreError> {
            Ok(meta.get(name).map_err(StoreError::db("read a counter"))?.map_or(0, |v| v.value()))
        };
        let revision = number(meta::REVISION)?.max(known.0);
        let (compacted, history_bytes) = (number(meta::COMPACTED)?, number(meta::HISTORY_BYTES)?);
        Ok(Self {
            txn,
            options,
            meta,
            objects,
            commits,
            history,
            revision,
            compacted,
            history_bytes,
            expected: None,
            recent: Vec::new(),
        })
    }

    /// Carries out one transaction. The outer error means that the whole batch must be given up.
    pub(crate) fn apply(&mut self, transaction: &Transaction) -> Result<Verdict, StoreError> {
        if let Err(e) = self.check(transaction) {
            return Ok(Err(e));
        }
        for (key, expected) in &transaction.expect {
            let known = self.expected.as_ref().filter(|(known, _)| known == key).map(|(_, found)| *found);
            let found = match known {
                Some(found) => found,
                None => self.found(key)?,
            };
            if !holds(*expected, found) {
                return Ok(Err(CommitError::Conflict { key: key.clone(), expected: *expected, found }));
            }
            if known.is_none() && found != Found::Absent {
                self.expected = Some((key.clone(), found));
            }
        }
        let differences = self.differences(transaction)?;
        let now = (self.options.clock)();
        let generation = match &transaction.generation {
            Some(new) => match generation::record(self.txn, new, now, self.options.generations)? {
                Ok(number) => number,
                Err(e) => return Ok(Err(e)),
            },
            None => None,
        };
        if differences.is_empty() && generation.is_none() {
            return Ok(Ok(Committed { revision: Revision(self.revision), changed: false, generation: None }));
        }
        self.write(transaction, differences, generation, now)?;
        Ok(Ok(Committed { revision: Revision(self.revision), changed: true, generation }))
    }

    fn check(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let mut seen = HashSet::new();
        for (key, write) in &transaction.writes {
            if transaction.writes.len() > 1 && !seen.insert(key) {
                return Err(CommitError::Invalid(format!("{key} is written twice")));
            }
            if let Write::Put(value) = write
                && value.len() > self.options.max_value
            {
                let (len, max) = (value.len(), self.options.max_value);
                return Err(CommitError::Invalid(format!("{key}: {len} bytes are more than the {max} allowed")));
            }
        }
        Ok(())
    }

    fn found(&self, key: &Key) -> Result<Found, StoreError> {
        Ok(match self.objects.get(key.as_str()).map_err(StoreError::db("read a value"))? {
            None => Found::Absent,
            Some(stored) => Found::AtRevision(Revision(tables::decode_entry(key.as_str(), stored.value())?.0.modified)),
        })
    }

    fn differences(&self, transaction: &Transaction) -> Result<Vec<Difference>, StoreError> {
        let mut out = Vec::with_capacity(transaction.writes.len());
        for (key, write) in &transaction.writes {
            // What was expected to be absent was found so.
            let absent = transaction.expect.iter().any(|(k, expected)| *expected == Expect::Absent && k == key);
            let stored = match absent {
                true => None,
                false => self.objects.get(key.as_str()).map_err(StoreError::db("read a value"))?,
            };
            let before = stored.as_ref().map(|s| tables::decode_entry(key.as_str(), s.value())).transpose()?;
            let (op, value) = match (write, before) {
                (Write::Put(new), Some((_, old))) if new.as_ref() == old => continue,
                (Write::Delete, None) => continue,
                (Write::Put(new), _) => (Op::Put, Some(new.clone())),
                (Write::Delete, Some(_)) => (Op::Delete, None),
            };
            let previous = stored.as_ref().map(|s| s.value().to_vec());
            out.push(Difference { key: key.clone(), op, value, previous });
        }
        Ok(out)
    }

    fn write(
        &mut self,
        transaction: &Transaction,
        differences: Vec<Difference>,
        generation: Option<u64>,
        time: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let parent = (self.revision > 0).then_some(Revision(self.revision));
        self.revision += 1;
        let mut changes = Vec::with_capacity(differences.len());
        let mut recent = Vec::with_capacity(differences.len());
        for difference in differences {
            let (change, seen) = self.write_one(difference)?;
            changes.push(change);
            recent.push(seen);
        }
        let revision = Revision(self.revision);
        let (author, message) = (transaction.author.clone(), transaction.message.clone());
        let record = CommitRecord { revision, parent, author, message, time, changes, generation };
        let bytes = tables::to_json("a commit record", &record)?;
        self.history_bytes += bytes.len() as u64;
        self.commits.insert(self.revision, bytes.as_slice()).map_err(StoreError::db("write a commit"))?;
        self.recent.push(RecentCommit { revision, changes: recent });
        Ok(())
    }

    fn write_one(&mut self, difference: Difference) -> Result<(CommitChange, RecentChange), StoreError> {
        let Difference { key, op, value, previous } = difference;
        self.expected.take_if(|(known, _)| *known == key);
        let name = key.as_str();
        let before = previous.as_deref().map(|p| tables::decode_entry(name, p)).transpose()?;
        let parent = match before {
            Some((header, _)) => header.modified,
            None => self.tombstone(name)?,
        };
        let undo = Undo { op, parent, previous: previous.as_deref() }.encode();
        self.history_bytes += (name.len() + undo.len()) as u64;
        self.history.insert((name, self.revision), undo.as_slice()).map_err(StoreError::db("write history"))?;
        let (created, version) = before.map_or((self.revision, 0), |(h, _)| (h.created, h.version));
        match &value {
            Some(value) => {
                let header = Header { created, modified: self.revision, version: version + 1 };
                let stored = tables::encode_entry(header, value);
                self.objects.insert(name, stored.as_slice()).map_err(StoreError::db("write a value"))?;
            }
            None => {
                self.objects.remove(name).map_err(StoreError::db("remove a value"))?;
            }
        }
        let previous = before.map(|(_, old)| Bytes::copy_from_slice(old));
        let parent = (parent > 0).then_some(Revision(parent));
        let change = CommitChange { key: key.clone(), op, parent };
        Ok((change, RecentChange { key, op, value, previous, created: Revision(created) }))
    }

    /// The commit that deleted an absent key, while retained.
    fn tombstone(&self, name: &str) -> Result<u64, StoreError> {
        let mut range = self.history.range((name, 0)..=(name, u64::MAX)).map_err(StoreError::db("read history"))?;
        match range.next_back() {
            Some(record) => Ok(record.map_err(StoreError::db("read history"))?.0.value().1),
            None => Ok(0),
        }
    }

    /// Drops history beyond the configured window, at most `budget` commits, so that no batch takes long.
    pub(crate) fn compact_window(&mut self, budget: usize) -> Result<(), StoreError> {
        let now = (self.options.clock)();
        let oldest_kept = chrono::Duration::from_std(self.options.history_age)
            .ok()
            .and_then(|age| now.checked_sub_signed(age))
            .unwrap_or(DateTime::<Utc>::MIN_UTC);
        for _ in 0..budget {
            let Some(oldest) = self.oldest()? else { return Ok(()) };
            let count = self.commits.len().map_err(StoreError::db("count commits"))?;
            let keep = count <= self.options.history_commits
                && self.history_bytes <= self.options.history_bytes
                && oldest.1.time >= oldest_kept;
            if keep {
                return Ok(());
            }
            self.forget(oldest)?;
        }
        Ok(())
    }

    /// Drops at most `budget` commits up to `before`; says whether there are more.
    pub(crate) fn compact_to(&mut self, before: Revision, budget: usize) -> Result<bool, StoreError> {
        let before = before.0.min(self.revision);
        for _ in 0..budget {
            match self.oldest()? {
                Some(oldest) if oldest.1.revision.0 <= before => self.forget(oldest)?,
                _ => {
                    self.compacted = self.compacted.max(before);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn oldest(&self) -> Result<Option<(u64, CommitRecord)>, StoreError> {
        let Some((revision, bytes)) = self.commits.first().map_err(StoreError::db("read a commit"))? else {
            return Ok(None);
        };
        let record = tables::from_json(|| format!("commit {}", revision.value()), bytes.value())?;
        Ok(Some((bytes.value().len() as u64, record)))
    }

    fn forget(&mut self, (size, record): (u64, CommitRecord)) -> Result<(), StoreError> {
        let revision = record.revision.0;
        let mut freed = size;
        for change in &record.changes {
            let name = change.key.as_str();
            if let Some(undo) = self.history.remove((name, revision)).map_err(StoreError::db("drop history"))? {
                freed += (name.len() + undo.value().len()) as u64;
            }
        }
        self.commits.remove(revision).map_err(StoreError::db("drop a commit"))?;
        self.history_bytes = self.history_bytes.saturating_sub(freed);
        self.compacted = self.compacted.max(revision);
        Ok(())
    }

    /// Writes the counters down. Call it last.
    pub(crate) fn finish(mut self) -> Result<(Totals, Vec<RecentCommit>), StoreError> {
        for (name, value) in [
            (meta::REVISION, self.revision),
            (meta::COMPACTED, self.compacted),
            (meta::HISTORY_BYTES, self.history_bytes),
        ] {
            self.meta.insert(name, value).map_err(StoreError::db("write a counter"))?;
        }
        let history_commits = self.commits.len().map_err(StoreError::db("count commits"))?;
        let totals = Totals {
            revision: Revision(self.revision),
            compacted: Revision(self.compacted),
            history_bytes: self.history_bytes,
            history_commits,
        };
        Ok((totals, self.recent))
    }
}

fn holds(expected: Expect, found: Found) -> bool {
    match (expected, found) {
        (Expect::Any, _) | (Expect::Absent, Found::Absent) | (Expect::Exists, Found::AtRevision(_)) => true,
        (Expect::AtRevision(want), Found::AtRevision(is)) => want == is,
        (Expect::Absent | Expect::Exists | Expect::AtRevision(_), _) => false,
    }
}
