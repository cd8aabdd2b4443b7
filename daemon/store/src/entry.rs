//! What reading gives back.

use crate::{Key, Revision};
use bytes::Bytes;

/// A value with its bookkeeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The bytes as written.
    pub value: Bytes,
    /// The commit that created it (the last creation, if it was deleted in between).
    pub created: Revision,
    /// The commit that wrote it last.
    pub modified: Revision,
    /// How often it was written since its creation, that included: 1 after creation.
    pub version: u64,
}

/// An entry that a visitor is shown, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Its key.
    pub key: &'a str,
    /// The bytes as written.
    pub value: &'a [u8],
    /// As [`Entry::created`].
    pub created: Revision,
    /// As [`Entry::modified`].
    pub modified: Revision,
    /// As [`Entry::version`].
    pub version: u64,
}

impl EntryRef<'_> {
    /// A copy of it.
    pub fn to_entry(self) -> Entry {
        Entry {
            key: Key::stored(self.key),
            value: Bytes::copy_from_slice(self.value),
            created: self.created,
            modified: self.modified,
            version: self.version,
        }
    }
}

impl Entry {
    /// As a visitor sees it.
    pub fn as_ref(&self) -> EntryRef<'_> {
        let Self { key, value, created, modified, version } = self;
        EntryRef { key: key.as_str(), value, created: *created, modified: *modified, version: *version }
    }
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitEnd {
    /// As [`Page::revision`].
    pub revision: Revision,
    /// As [`Page::more`]; also when the visitor wanted no more.
    pub more: bool,
}

/// Which part of a prefix to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The state after this commit; the newest when absent. Give the first page's revision to get the next pages of
    /// the same snapshot.
    pub at: Option<Revision>,
    /// At most so many entries; all when absent.
    pub limit: Option<usize>,
    /// No further entry once so many bytes of values are read; the first is always given.
    pub bytes: Option<usize>,
    /// Only keys after this one (the last key of the page before).
    pub after: Option<Key>,
}

/// A part of a list, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The revision the list is true for; a watch after it continues the list without gap.
    pub revision: Revision,
    /// There is more after the last entry.
    pub more: bool,
}
