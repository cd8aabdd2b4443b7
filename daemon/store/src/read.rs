//! Reads over one snapshot of the file.

use crate::tables::{self, COMMITS, HISTORY, META, OBJECTS, Undo, meta};
use crate::{
    Change, CommitRecord, Entry, EntryRef, Key, ListOptions, ObjectCommit, Op, Revision, StoreError, VisitEnd,
};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTableMetadata};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

fn db<E: Into<redb::Error>>(e: E) -> StoreError {
    StoreError::db("read the store")(e)
}

/// Revision and compaction floor of the snapshot.
pub(crate) fn bounds(txn: &ReadTransaction) -> Result<(Revision, Revision), StoreError> {
    let table = txn.open_table(META).map_err(db)?;
    let number =
        |name| -> Result<Revision, StoreError> { Ok(Revision(table.get(name).map_err(db)?.map_or(0, |v| v.value()))) };
    Ok((number(meta::REVISION)?, number(meta::COMPACTED)?))
}

fn check_readable(txn: &ReadTransaction, at: Revision) -> Result<Revision, StoreError> {
    let (current, floor) = bounds(txn)?;
    if at > current {
        return Err(StoreError::Future { asked: at, current });
    }
    if at < floor {
        return Err(StoreError::Compacted { asked: at, floor });
    }
    Ok(current)
}

pub(crate) fn get(txn: &ReadTransaction, key: &Key) -> Result<Option<Entry>, StoreError> {
    look(txn, key, |entry| entry.to_entry())
}

/// What `see` makes of an entry.
pub(crate) fn look<T>(
    txn: &ReadTransaction,
    key: &Key,
    see: impl FnOnce(EntryRef<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    let objects = txn.open_table(OBJECTS).map_err(db)?;
    let Some(stored) = objects.get(key.as_str()).map_err(db)? else { return Ok(None) };
    tables::entry_ref(key.as_str(), stored.value()).map(|entry| Some(see(entry)))
}

pub(crate) fn get_at(txn: &ReadTransaction, key: &Key, at: Revision) -> Result<Option<Entry>, StoreError> {
    check_readable(txn, at)?;
    let history = txn.open_table(HISTORY).map_err(db)?;
    let name = key.as_str();
    // What was there before the first later change was there at that revision.
    let mut later = history.range((name, at.0.saturating_add(1))..=(name, u64::MAX)).map_err(db)?;
    match later.next() {
        None => get(txn, key),
        Some(record) => {
            let (_, bytes) = record.map_err(db)?;
            Undo::decode(name, bytes.value())?.previous.map(|p| tables::entry(name, p)).transpose()
        }
    }
}

pub(crate) fn count(txn: &ReadTransaction, prefix: &str) -> Result<u64, StoreError> {
    let objects = txn.open_table(OBJECTS).map_err(db)?;
    if prefix.is_empty() {
        return objects.len().map_err(db);
    }
    let end = tables::prefix_end(prefix);
    let mut n = 0;
    for item in objects.range::<&str>(range(prefix, end.as_deref(), None)).map_err(db)? {
        item.map_err(db)?;
        n += 1;
    }
    Ok(n)
}

fn range<'a>(prefix: &'a str, end: Option<&'a str>, after: Option<&'a str>) -> (Bound<&'a str>, Bound<&'a str>) {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let end = end.map_or(Bound::Unbounded, Bound::Excluded);
    // redb refuses a range that ends before it starts.
    match (start, end) {
        (Bound::Excluded(s), Bound::Excluded(e)) if s >= e => (Bound::Included(e), Bound::Excluded(e)),
        other => other,
    }
}

/// How far a visit has got, so that one that a disk failure broke off can go on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The key shown last; empty before the first.
    last: String,
    revision: Option<Revision>,
    shown: usize,
    bytes: usize,
}

/// Shows the entries of a part of a prefix, until `each` wants no more.
pub(crate) fn visit(
    txn: &ReadTransaction,
    prefix: &str,
    options: &ListOptions,
    progress: &mut Progress,
    each: &mut dyn FnMut(EntryRef<'_>) -> bool,
) -> Result<VisitEnd, StoreError> {
    let (revision, newest) = match progress.revision.or(options.at) {
        Some(at) => (at, check_readable(txn, at)?),
        None => bounds(txn).map(|(newest, _)| (newest, newest))?,
    };
    progress.revision = Some(revision);
    let after = match progress.last.as_str() {
        "" => options.after.as_ref().map(|key| key.as_str().to_owned()),
        last => Some(last.to_owned()),
    };
    let after = after.as_deref();
    // Of the newest revision no history is read.
    let earlier = if revision < newest { earlier_values(txn, prefix, after, revision)? } else { BTreeMap::new() };
    let objects = txn.open_table(OBJECTS).map_err(db)?;
    let end = tables::prefix_end(prefix);
    let current = objects.range::<&str>(range(prefix, end.as_deref(), after)).map_err(db)?;
    let (limit, most) = (options.limit.unwrap_or(usize::MAX), options.bytes.unwrap_or(usize::MAX));
    let mut show = |entry: EntryRef<'_>| {
        if progress.shown == limit || progress.bytes >= most || !each(entry) {
            return false;
        }
        progress.shown += 1;
        progress.bytes += entry.value.len();
        progress.last.clear();
        progress.last.push_str(entry.key);
        true
    };
    if earlier.is_empty() {
        for item in current {
            let (key, stored) = item.map_err(db)?;
            if !show(tables::entry_ref(key.value(), stored.value())?) {
                return Ok(VisitEnd { revision, more: true });
            }
        }
        return Ok(VisitEnd { revision, more: false });
    }
    let current = current.map(|item| {
        let (key, stored) = item.map_err(db)?;
        tables::entry(key.value(), stored.value())
    });
    let mut merged = Merged { current: current.peekable(), earlier: earlier.into_iter().peekable() };
    while let Some(entry) = merged.next_entry()? {
        if !show(entry.as_ref()) {
            return Ok(VisitEnd { revision, more: true });
        }
    }
    Ok(VisitEnd { revision, more: false })
}

/// The keys changed after `at`, each with what it held at `at`.
fn earlier_values(
    txn: &ReadTransaction,
    prefix: &str,
    after: Option<&str>,
    at: Revision,
) -> Result<BTreeMap<Key, Option<Entry>>, StoreError> {
    let mut out = BTreeMap::new();
    let commits = txn.open_table(COMMITS).map_err(db)?;
    let history = txn.open_table(HISTORY).map_err(db)?;
    for item in commits.range(at.0 + 1..).map_err(db)? {
        let (revision, bytes) = item.map_err(db)?;
        let record = commit_record(revision.value(), bytes.value())?;
        for change in record.changes {
            let name = change.key.as_str();
            if !name.starts_with(prefix) || after.is_some_and(|a| name <= a) || out.contains_key(&change.key) {
                continue;
            }
            let undo = history.get((name, revision.value())).map_err(db)?;
            let undo = undo.ok_or_else(|| missing(name, revision.value()))?;
            let previous = Undo::decode(name, undo.value())?.previous.map(|p| tables::entry(name, p)).transpose()?;
            out.insert(change.key, previous);
        }
    }
    Ok(out)
}

/// Current entries, overridden by what changed keys held earlier.
struct Merged<C: Iterator<Item = Result<Entry, StoreError>>, E: Iterator<Item = (Key, Option<Entry>)>> {
    current: Peekable<C>,
    earlier: Peekable<E>,
}

impl<C: Iterator<Item = Result<Entry, StoreError>>, E: Iterator<Item = (Key, Option<Entry>)>> Merged<C, E> {
    fn next_entry(&mut self) -> Result<Option<Entry>, StoreError> {
        loop {
            let take_earlier = match (self.current.peek(), self.earlier.peek()) {
                (Some(Ok(now)), Some((key, _))) => *key <= now.key,
                (None, Some(_)) => true,
                (_, None) | (Some(Err(_)), _) => false,
            };
            if !take_earlier {
                return self.current.next().transpose();
            }
            if let Some((key, entry)) = self.earlier.next() {
                self.current.next_if(|c| c.as_ref().is_ok_and(|c| c.key == key));
                if entry.is_some() {
                    return Ok(entry);
                }
            }
        }
    }
}

fn missing(name: &str, revision: u64) -> StoreError {
    tables::damaged(format!("the history of {name}"), &format!("commit {revision} is not in it"))
}

fn commit_record(revision: u64, bytes: &[u8]) -> Result<CommitRecord, StoreError> {
    tables::from_json(|| format!("commit {revision}"), bytes)
}

pub(crate) fn commits(
    txn: &ReadTransaction,
    from: Revision,
    to: Revision,
    limit: usize,
) -> Result<Vec<CommitRecord>, StoreError> {
    if from > to {
        return Ok(Vec::new());
    }
    let commits = txn.open_table(COMMITS).map_err(db)?;
    let mut out = Vec::new();
    for item in commits.range(from.0..=to.0).map_err(db)?.take(limit) {
        let (revision, bytes) = item.map_err(db)?;
        out.push(commit_record(revision.value(), bytes.value())?);
    }
    Ok(out)
}

pub(crate) fn history(txn: &ReadTransaction, key: &Key, limit: usize) -> Result<Vec<ObjectCommit>, StoreError> {
    let name = key.as_str();
    let table = txn.open_table(HISTORY).map_err(db)?;
    let commits = txn.open_table(COMMITS).map_err(db)?;
    // Newest first: what a commit left behind is what the next later one found.
    let mut value = get(txn, key)?.map(|e| e.value);
    let mut out = Vec::new();
    for item in table.range((name, 0)..=(name, u64::MAX)).map_err(db)?.rev().take(limit) {
        let (at, bytes) = item.map_err(db)?;
        let revision = at.value().1;
        let undo = Undo::decode(name, bytes.value())?;
        let record = commits.get(revision).map_err(db)?.ok_or_else(|| missing(name, revision))?;
        let CommitRecord { author, message, time, .. } = commit_record(revision, record.value())?;
        let parents = (undo.parent > 0).then_some(Revision(undo.parent)).into_iter().collect();
        let previous = undo.previous.map(|p| tables::entry(name, p)).transpose()?.map(|e| e.value);
        let after = std::mem::replace(&mut value, previous);
        out.push(ObjectCommit {
            revision: Revision(revision),
            parents,
            author,
            message,
            time,
            op: undo.op,
            value: after,
        });
    }
    Ok(out)
}

/// What a watcher gets from history in one go.
pub(crate) enum Replay {
    /// History does not reach back to the position.
    Compacted(Revision),
    /// Changes after the position and the new position.
    Changes(Vec<Change>, Revision),
}

/// Commits read from history at a time.
const REPLAY_COMMITS: usize = 256;
/// Bytes of values read from history at a time.
const REPLAY_BYTES: usize = 256 << 10;

/// The next changes under `prefix` after `position`, a bounded number of commits.
pub(crate) fn replay(txn: &ReadTransaction, prefix: &str, position: Revision) -> Result<Replay, StoreError> {
    let (current, floor) = bounds(txn)?;
    if position < floor {
        return Ok(Replay::Compacted(floor));
    }
    let commits = txn.open_table(COMMITS).map_err(db)?;
    let mut changes: Vec<Change> = Vec::new();
    let (mut reached, mut bytes_read) = (position, 0);
    let mut left = REPLAY_COMMITS;
    for item in commits.range(position.0.saturating_add(1)..).map_err(db)? {
        if left == 0 || bytes_read > REPLAY_BYTES {
            return Ok(Replay::Changes(changes, reached));
        }
        left -= 1;
        let (revision, bytes) = item.map_err(db)?;
        reached = Revision(revision.value());
        let before = changes.len();
        for change in commit_record(revision.value(), bytes.value())?.changes {
            if change.key.as_str().starts_with(prefix) {
                let change = replay_one(txn, change.key, reached)?;
                let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
                bytes_read += len(&change.value) + len(&change.previous);
                changes.push(change);
            }
        }
        if changes.len() > before
            && let Some(last) = changes.last_mut()
        {
            last.last = true;
        }
    }
    Ok(Replay::Changes(changes, current.max(reached)))
}

fn replay_one(txn: &ReadTransaction, key: Key, revision: Revision) -> Result<Change, StoreError> {
    let history = txn.open_table(HISTORY).map_err(db)?;
    let name = key.as_str();
    let mut records = history.range((name, revision.0)..=(name, u64::MAX)).map_err(db)?;
    let (op, previous) = match records.next() {
        Some(record) => {
            let (at, bytes) = record.map_err(db)?;
            if at.value().1 != revision.0 {
                return Err(missing(name, revision.0));
            }
            let undo = Undo::decode(name, bytes.value())?;
            (undo.op, undo.previous.map(|p| tables::entry(name, p)).transpose()?)
        }
        None => return Err(missing(name, revision.0)),
    };
    let value = match (op, records.next()) {
        (Op::Delete, _) => None,
        (Op::Put, None) => get(txn, &key)?,
        (Op::Put, Some(next)) => {
            let (_, bytes) = next.map_err(db)?;
            Undo::decode(name, bytes.value())?.previous.map(|p| tables::entry(name, p)).transpose()?
        }
    };
    let created = previous.as_ref().map_or(revision, |p| p.created);
    let (value, previous) = (value.map(|v| v.value), previous.map(|p| p.value));
    Ok(Change { revision, key, op, value, previous, created, last: false })
}
