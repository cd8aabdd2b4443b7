//! The tables of the file and how records are encoded in them.

use crate::entry::{Entry, EntryRef};
use crate::{Op, Revision, StoreError};
use redb::TableDefinition;

/// The format of the tables below. Raise it together with a step in `migrate.rs`.
pub(crate) const FORMAT: u64 = 1;

/// Counters by name, see [`meta`].
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key → current value, see [`encode_entry`].
pub(crate) const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Revision → [`crate::CommitRecord`] as JSON.
pub(crate) const COMMITS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("commits");
/// Key and revision → what that commit did and what was there before, see [`Undo`].
pub(crate) const HISTORY: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("history");
/// Number → [`crate::GenerationRecord`] as JSON.
pub(crate) const GENERATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("generations");
/// Digest → contents of a file of a generation.
pub(crate) const CONTENTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("contents");
/// Digest → in how many unbroken runs of retained generations it occurs, see `generation.rs`.
pub(crate) const CONTENT_RUNS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("content_runs");

/// Names in [`META`].
pub(crate) mod meta {
    /// [`super::FORMAT`] of the file.
    pub(crate) const FORMAT: &str = "format";
    /// The newest revision.
    pub(crate) const REVISION: &str = "revision";
    /// The oldest revision that can be read or watched from.
    pub(crate) const COMPACTED: &str = "compacted";
    /// Bytes of the records in `commits` and `history`.
    pub(crate) const HISTORY_BYTES: &str = "history_bytes";
}

/// Bookkeeping in front of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) version: u64,
}

const HEADER: usize = 24;

/// A stored value: created, modified, version (u64, little endian), then the bytes.
pub(crate) fn encode_entry(header: Header, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + value.len());
    put_entry(&mut out, header, value);
    out
}

fn put_entry(out: &mut Vec<u8>, header: Header, value: &[u8]) {
    for n in [header.created, header.modified, header.version] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(value);
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Takes a stored value apart.
pub(crate) fn decode_entry<'a>(key: &str, bytes: &'a [u8]) -> Result<(Header, &'a [u8]), StoreError> {
    let header =
        || Some(Header { created: u64_at(bytes, 0)?, modified: u64_at(bytes, 8)?, version: u64_at(bytes, 16)? });
    match (header(), bytes.get(HEADER..)) {
        (Some(header), Some(value)) => Ok((header, value)),
        _ => Err(damaged(format!("the value of {key}"), "it is too short")),
    }
}

/// The same as an [`EntryRef`].
pub(crate) fn entry_ref<'a>(key: &'a str, bytes: &'a [u8]) -> Result<EntryRef<'a>, StoreError> {
    let (Header { created, modified, version }, value) = decode_entry(key, bytes)?;
    Ok(EntryRef { key, value, created: Revision(created), modified: Revision(modified), version })
}

/// The same as an [`Entry`].
pub(crate) fn entry(key: &str, bytes: &[u8]) -> Result<Entry, StoreError> {
    entry_ref(key, bytes).map(EntryRef::to_entry)
}

/// A record of history: how to get back to before the commit.
pub(crate) struct Undo<'a> {
    pub(crate) op: Op,
    /// The commit before that changed the key; 0 when there was none or it is not retained.
    pub(crate) parent: u64,
    /// The stored value before, encoded as in `objects`; absent when there was none.
    pub(crate) previous: Option<&'a [u8]>,
}

impl<'a> Undo<'a> {
    /// Op (0 put, 1 delete), parent (u64), whether there was a value, that value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + self.previous.map_or(0, <[u8]>::len));
        out.push(match self.op {
            Op::Put => 0,
            Op::Delete => 1,
        });
        out.extend_from_slice(&self.parent.to_le_bytes());
        out.push(u8::from(self.previous.is_some()));
        out.extend_from_slice(self.previous.unwrap_or_default());
        out
    }

    pub(crate) fn decode(key: &str, bytes: &'a [u8]) -> Result<Self, StoreError> {
        let op = match bytes.first() {
            Some(0) => Op::Put,
            Some(1) => Op::Delete,
            _ => return Err(damaged(format!("the history of {key}"), "unknown operation")),
        };
        match (u64_at(bytes, 1), bytes.get(9), bytes.get(10..)) {
            (Some(parent), Some(0), _) => Ok(Self { op, parent, previous: None }),
            (Some(parent), Some(1), Some(previous)) => Ok(Self { op, parent, previous: Some(previous) }),
            _ => Err(damaged(format!("the history of {key}"), "it is too short")),
        }
    }
}

/// Decodes a JSON record.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: impl FnOnce() -> String,
    bytes: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| damaged(what(), &e.to_string()))
}

/// Encodes a JSON record.
pub(crate) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| damaged(what.to_owned(), &e.to_string()))
}

pub(crate) fn damaged(what: String, why: &str) -> StoreError {
    StoreError::Damaged { what, why: why.to_owned() }
}

/// The least text greater than every text with this prefix; absent when there is none.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Skips the surrogates, which are no chars; UTF-8 keeps the order of code points.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            c => char::from_u32(c as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_just_behind_it() {
        assert_eq!(prefix_end("a/").as_deref(), Some("a0"));
        assert_eq!(prefix_end("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(prefix_end(""), None);
        assert_eq!(prefix_end("\u{10FFFF}"), None);
    }

    #[test]
    fn short_records_are_damage_not_a_panic() {
        for len in 0..40 {
            let bytes = vec![1; len];
            assert_eq!(entry("k", &bytes).is_ok(), len >= 24);
            assert_eq!(Undo::decode("k", &bytes).is_ok(), len >= 10);
        }
        let undo = Undo { op: Op::Delete, parent: 7, previous: Some(b"before") };
        let encoded = undo.encode();
        let back = Undo::decode("k", &encoded).unwrap();
        assert_eq!((back.op, back.parent, back.previous), (Op::Delete, 7, Some(&b"before"[..])));
    }
}
