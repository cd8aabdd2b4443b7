//! What a writer asks for and what it gets.

use crate::{Key, NewGeneration, Revision};
use bytes::Bytes;

/// Several writes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Who writes, for the history.
    pub author: String,
    /// Why, for the history.
    pub message: String,
    /// What must hold, all of it, for the writes to happen.
    pub expect: Vec<(Key, Expect)>,
    /// The writes; a key at most once.
    pub writes: Vec<(Key, Write)>,
    /// A generation of the manifest directory to be recorded with the writes.
    pub generation: Option<NewGeneration>,
}

impl Transaction {
    /// An empty one.
    pub fn new(author: impl Into<String>, message: impl Into<String>) -> Self {
        Self { author: author.into(), message: message.into(), ..Self::default() }
    }

    /// Adds an expectation.
    #[must_use]
    pub fn expect(mut self, key: Key, expect: Expect) -> Self {
        self.expect.push((key, expect));
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.push((key, Write::Put(value.into())));
        self
    }

    /// Adds a put that only succeeds where nothing is yet.
    #[must_use]
    pub fn create(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.expect(key.clone(), Expect::Absent).put(key, value)
    }

    /// Adds a put that only succeeds on what was last written at `revision` (compare-and-swap).
    #[must_use]
    pub fn replace(self, key: Key, revision: Revision, value: impl Into<Bytes>) -> Self {
        self.expect(key.clone(), Expect::AtRevision(revision)).put(key, value)
    }

    /// Adds a delete. Deleting what is absent changes nothing and is no error.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push((key, Write::Delete));
        self
    }

    /// Adds a generation of the manifest directory.
    #[must_use]
    pub fn generation(mut self, generation: NewGeneration) -> Self {
        self.generation = Some(generation);
        self
    }
}

/// A condition on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is there.
    Absent,
    /// Something is there, last modified by exactly this commit.
    AtRevision(Revision),
    /// Something is there.
    Exists,
    /// Always true.
    Any,
}

/// What was found instead of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A value last modified by this commit.
    AtRevision(Revision),
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Create or replace.
    Put(Bytes),
    /// Remove; the history keeps a tombstone.
    Delete,
}

/// The good answer to a commit. It survives power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision the transaction made; when it changed nothing, the store's revision at that point.
    pub revision: Revision,
    /// Whether anything differs from before.
    pub changed: bool,
    /// The number of the generation that was recorded.
    pub generation: Option<u64>,
}
