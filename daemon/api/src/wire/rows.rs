//! Cells of table rows, remembered for as long as their object does not change: printing ten thousand pods means to copy what
//! was printed before. Ages go on, so they are put in late.

use crate::wire::table::conditions;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::{Kind, print};
use reddwarf_registry::{MetadataPlace, RawRef, RegistryError};
use reddwarf_store::Revision;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Bytes of each of the two halves.
const HALF: usize = 3 << 20;
/// What an entry costs besides its text.
const ENTRY: usize = 136;

/// The remembered rows; bounded. Safe to share.
#[derive(Debug, Default)]
pub(crate) struct RowCache {
    hasher: RandomState,
    halves: Mutex<Halves>,
}

/// Rows used since the last change of halves, and those before that: the ones that nobody asks for are forgotten in time.
#[derive(Debug, Default)]
struct Halves {
    young: HashMap<u64, Row>,
    old: HashMap<u64, Row>,
    young_bytes: usize,
}

#[derive(Debug)]
struct Row {
    revision: Revision,
    /// JSON of the cells with commas, without the age.
    text: Box<[u8]>,
    /// Where the age belongs, and since when it counts.
    age: Option<(usize, Option<DateTime<Utc>>)>,
    /// What the row says of an object that is over.
    completed: Option<print::Completed>,
    /// Where the object's metadata lies: it goes with the row.
    metadata: Option<MetadataPlace>,
}

impl RowCache {
    /// Appends the cells of a row as JSON, `["web","1/1",...]`, and of what is over `,"conditions":[...]`. Gives what [`RawRef::metadata`] would.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`].
    pub(crate) fn write(
        &self,
        kind: &Kind,
        object: RawRef<'_>,
        now: DateTime<Utc>,
        out: &mut Vec<u8>,
    ) -> Result<Option<MetadataPlace>, RegistryError> {
        let key = self.hasher.hash_one((kind.version, object.key()));
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = halves.find(key, object.revision()) {
            row.write(now, out);
            return Ok(row.metadata);
        }
        drop(halves);
        let (row, lasting) = Row::print(kind, object, now)?;
        row.write(now, out);
        let metadata = row.metadata;
        if lasting {
            self.halves.lock().unwrap_or_else(PoisonError::into_inner).add(key, row);
        }
        Ok(metadata)
    }
}

impl Halves {
    fn find(&mut self, key: u64, revision: Revision) -> Option<&Row> {
        if !self.young.contains_key(&key) {
            let row = self.old.remove(&key).filter(|row| row.revision == revision)?;
            self.add(key, row);
        }
        self.young.get(&key).filter(|row| row.revision == revision)
    }

    fn add(&mut self, key: u64, row: Row) {
        if self.young_bytes > HALF {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += row.text.len() + ENTRY;
        if let Some(before) = self.young.insert(key, row) {
            self.young_bytes -= before.text.len() + ENTRY;
        }
    }
}

impl Row {
    /// The row, and whether it stays true (apart from the age) as time goes by.
    fn print(kind: &Kind, object: RawRef<'_>, now: DateTime<Utc>) -> Result<(Self, bool), RegistryError> {
        let parsed = match print::reads(kind) {
            Some(partial) => object.partial(partial)?,
            None => object.object()?,
        };
        let cells = print::row(kind, &parsed, now);
        let later = print::row(kind, &parsed, now + TimeDelta::days(40_000));
        let is_age = |index: usize| kind.columns.get(index).is_some_and(|column| column.name == "Age");
        let lasting = cells.iter().zip(&later).enumerate().all(|(index, (a, b))| a == b || is_age(index));
        let mut text = Vec::with_capacity(160);
        let mut age = None;
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            if is_age(index) {
                age = Some((text.len(), parsed.creation_timestamp()));
            } else {
                // Into memory: no way to fail.
                let _ = serde_json::to_writer(&mut text, cell);
            }
        }
        let (revision, metadata) = (object.revision(), object.metadata());
        let completed = print::completed(kind, &parsed);
        Ok((Self { revision, text: text.into(), age, completed, metadata }, lasting))
    }

    fn write(&self, now: DateTime<Utc>, out: &mut Vec<u8>) {
        out.push(b'[');
        match self.age.and_then(|(at, since)| Some((self.text.split_at_checked(at)?, since))) {
            Some(((before, after), since)) => {
                out.extend_from_slice(before);
                out.push(b'"');
                out.extend_from_slice(print::age(since, now).as_bytes());
                out.push(b'"');
                out.extend_from_slice(after);
            }
            None => out.extend_from_slice(&self.text),
        }
        out.push(b']');
        if let Some(completed) = self.completed {
            // Into memory: no way to fail.
            let _ = write!(out, ",\"conditions\":{}", conditions(completed));
        }
    }
}
