//! Generations of the manifest directory: what files there were, what they declared, what was wrong with them.

use crate::tables::{self, CONTENT_RUNS, CONTENTS, GENERATIONS};
use crate::{CommitError, Key, StoreError};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// SHA-256 of a file's contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digests `content`.
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(content).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        let bad = || format!("{s:?} is not 64 hexadecimal digits");
        if s.len() != 64 || !s.is_ascii() {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

/// A generation to be recorded. The store gives it the next number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGeneration {
    /// The files, each name once.
    pub files: Vec<NewFile>,
    /// What they declare.
    pub declared: Vec<DeclaredKey>,
    /// What was wrong, as the reader of the directory wrote it.
    pub diagnostics: serde_json::Value,
    /// For people: why there is this generation.
    pub note: String,
    /// The generation this one goes back to.
    pub rolled_back_from: Option<u64>,
}

/// A file of a generation to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name relative to the directory.
    pub name: String,
    /// What is in it.
    pub content: FileContent,
}

/// Contents sent along, or already stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// The bytes.
    Bytes(Bytes),
    /// The store has them (`Store::has_content`); with their digest.
    Stored(Digest),
}

/// A key and the file that declares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredKey {
    /// The key.
    pub key: Key,
    /// The name of the file.
    pub file: String,
}

/// A recorded generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Its number, from 1.
    pub number: u64,
    /// When it was recorded, by the wall clock.
    pub time: DateTime<Utc>,
    /// The files, by name.
    pub files: Vec<GenerationFile>,
    /// What they declared.
    pub declared: Vec<DeclaredKey>,
    /// What was wrong, as the reader of the directory wrote it.
    pub diagnostics: serde_json::Value,
    /// For people: why there is this generation.
    pub note: String,
    /// The generation this one went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_from: Option<u64>,
}

/// A file of a generation; its contents: `Store::content(digest)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationFile {
    /// Its name relative to the directory.
    pub name: String,
    /// The digest of its contents.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// How two generations differ, by file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationDiff {
    /// The one before.
    pub from: u64,
    /// The one after.
    pub to: u64,
    /// Only files that differ.
    pub files: Vec<FileDiff>,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff {
    /// Its name.
    pub name: String,
    /// How it differs, with both contents.
    pub change: FileChange,
}

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// Only in the later generation.
    Added {
        /// Its contents.
        after: Bytes,
    },
    /// Only in the earlier generation.
    Removed {
        /// Its contents.
        before: Bytes,
    },
    /// In both, with different contents.
    Changed {
        /// The earlier contents.
        before: Bytes,
        /// The later contents.
        after: Bytes,
    },
}

/// What `record` decides: the number given, none when nothing differs from the newest, or a refusal.
pub(crate) type Recorded = Result<Option<u64>, CommitError>;

/// Records a generation inside a write transaction and drops those beyond `keep`.
///
/// Contents are counted by unbroken runs of generations they occur in: a run is counted when it begins and uncounted
/// when the generation it ends with is dropped. So recording costs what differs, not what there is.
pub(crate) fn record(
    txn: &WriteTransaction,
    new: &NewGeneration,
    time: DateTime<Utc>,
    keep: u64,
) -> Result<Recorded, StoreError> {
    let mut generations = txn.open_table(GENERATIONS).map_err(StoreError::db("open a table"))?;
    let newest = match generations.last().map_err(StoreError::db("read a generation"))? {
        Some((number, bytes)) => Some(decode(number.value(), bytes.value())?),
        None => None,
    };
    let mut store = Contents::open(txn)?;
    let files = match store.describe(new)? {
        Ok(files) => files,
        Err(e) => return Ok(Err(e)),
    };
    let number = newest.as_ref().map_or(0, |g| g.number) + 1;
    let mut declared = new.declared.clone();
    declared.sort();
    let diagnostics = new.diagnostics.clone();
    let (note, rolled_back_from) = (new.note.clone(), new.rolled_back_from);
    let record = GenerationRecord { number, time, files, declared, diagnostics, note, rolled_back_from };
    if newest.as_ref().is_some_and(|n| same(n, &record)) {
        return Ok(Ok(None));
    }
    store.begin_runs(newest.as_ref(), &record, new)?;
    let bytes = tables::to_json("a generation", &record)?;
    generations.insert(number, bytes.as_slice()).map_err(StoreError::db("write a generation"))?;
    while generations.len().map_err(StoreError::db("count generations"))? > keep.max(1) {
        let Some(oldest) = pop_oldest(&mut generations)? else { break };
        let next = match generations.first().map_err(StoreError::db("read a generation"))? {
            Some((number, bytes)) => Some(decode(number.value(), bytes.value())?),
            None => None,
        };
        store.end_runs(&oldest, next.as_ref())?;
    }
    Ok(Ok(Some(number)))
}

/// Nothing worth a new generation: same files, same meaning, and no rollback that people should see.
fn same(newest: &GenerationRecord, new: &GenerationRecord) -> bool {
    newest.files == new.files
        && newest.declared == new.declared
        && newest.diagnostics == new.diagnostics
        && (new.rolled_back_from.is_none() || newest.rolled_back_from == new.rolled_back_from)
}

fn pop_oldest(table: &mut Table<'_, u64, &'static [u8]>) -> Result<Option<GenerationRecord>, StoreError> {
    match table.pop_first().map_err(StoreError::db("drop a generation"))? {
        Some((number, bytes)) => decode(number.value(), bytes.value()).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn decode(number: u64, bytes: &[u8]) -> Result<GenerationRecord, StoreError> {
    tables::from_json(|| format!("generation {number}"), bytes)
}

fn digests(generation: Option<&GenerationRecord>) -> BTreeSet<Digest> {
    generation.into_iter().flat_map(|g| g.files.iter().map(|f| f.digest)).collect()
}

struct Contents<'t> {
    contents: Table<'t, [u8; 32], &'static [u8]>,
    runs: Table<'t, [u8; 32], u64>,
}

impl<'t> Contents<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            contents: txn.open_table(CONTENTS).map_err(StoreError::db("open a table"))?,
            runs: txn.open_table(CONTENT_RUNS).map_err(StoreError::db("open a table"))?,
        })
    }

    /// The files by name with digest and size; refuses a name twice and contents that are not there.
    fn describe(&self, new: &NewGeneration) -> Result<Result<Vec<GenerationFile>, CommitError>, StoreError> {
        let mut files = Vec::with_capacity(new.files.len());
        for file in &new.files {
            let (digest, size) = match &file.content {
                FileContent::Bytes(bytes) => (Digest::of(bytes), bytes.len() as u64),
                FileContent::Stored(digest) => {
                    match self.contents.get(digest.0).map_err(StoreError::db("read contents"))? {
                        Some(bytes) => (*digest, bytes.value().len() as u64),
                        None => return Ok(Err(CommitError::MissingContent { digest: digest.to_string() })),
                    }
                }
            };
            files.push(GenerationFile { name: file.name.clone(), digest, size });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(match files.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(CommitError::Invalid(format!("file {} is in the generation twice", pair[0].name))),
            None => Ok(files),
        })
    }

    fn begin_runs(
        &mut self,
        before: Option<&GenerationRecord>,
        record: &GenerationRecord,
        new: &NewGeneration,
    ) -> Result<(), StoreError> {
        let old = digests(before);
        for digest in digests(Some(record)).difference(&old) {
            let runs = self.runs.get(digest.0).map_err(StoreError::db("count contents"))?.map_or(0, |r| r.value());
            self.runs.insert(digest.0, runs + 1).map_err(StoreError::db("count contents"))?;
        }
        for file in &new.files {
            if let FileContent::Bytes(bytes) = &file.content {
                let digest = Digest::of(bytes);
                if self.contents.get(digest.0).map_err(StoreError::db("read contents"))?.is_none() {
                    self.contents.insert(digest.0, bytes.as_ref()).map_err(StoreError::db("write contents"))?;
                }
            }
        }
        Ok(())
    }

    fn end_runs(&mut self, dropped: &GenerationRecord, next: Option<&GenerationRecord>) -> Result<(), StoreError> {
        for digest in digests(Some(dropped)).difference(&digests(next)) {
            let runs = self.runs.get(digest.0).map_err(StoreError::db("count contents"))?.map_or(0, |r| r.value());
            if runs > 1 {
                self.runs.insert(digest.0, runs - 1).map_err(StoreError::db("count contents"))?;
            } else {
                self.runs.remove(digest.0).map_err(StoreError::db("count contents"))?;
                self.contents.remove(digest.0).map_err(StoreError::db("drop contents"))?;
            }
        }
        Ok(())
    }
}

/// Compares two records; `content` gives the bytes of a digest.
pub(crate) fn diff(
    from: &GenerationRecord,
    to: &GenerationRecord,
    content: impl Fn(&Digest) -> Result<Bytes, StoreError>,
) -> Result<GenerationDiff, StoreError> {
    let by_name = |g: &GenerationRecord| -> BTreeMap<String, Digest> {
        g.files.iter().map(|f| (f.name.clone(), f.digest)).collect()
    };
    let (old, new) = (by_name(from), by_name(to));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut files = Vec::new();
    for name in names {
        let change = match (old.get(name), new.get(name)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => FileChange::Changed { before: content(a)?, after: content(b)? },
            (Some(a), None) => FileChange::Removed { before: content(a)? },
            (None, Some(b)) => FileChange::Added { after: content(b)? },
            (None, None) => continue,
        };
        files.push(FileDiff { name: name.clone(), change });
    }
    Ok(GenerationDiff { from: from.number, to: to.number, files })
}
