//! What happened, commit by commit.

use crate::{Key, Revision};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a commit did to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Created or replaced it.
    Put,
    /// Deleted it (a tombstone).
    Delete,
}

/// One commit of the whole store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Its number.
    pub revision: Revision,
    /// The commit before it in the store; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Revision>,
    /// Who wrote.
    pub author: String,
    /// Why.
    pub message: String,
    /// When, by the wall clock.
    pub time: DateTime<Utc>,
    /// What it changed, in the order of the transaction.
    pub changes: Vec<CommitChange>,
    /// The generation of the manifest directory recorded with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// One key in a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitChange {
    /// The key.
    pub key: Key,
    /// What was done.
    pub op: Op,
    /// The commit before this one that changed this key (its creation's parent is its tombstone, while retained).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Revision>,
}

/// One commit as seen from one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectCommit {
    /// The commit.
    pub revision: Revision,
    /// The commits this one came from: the object's earlier commit.
    pub parents: Vec<Revision>,
    /// Who wrote.
    pub author: String,
    /// Why.
    pub message: String,
    /// When, by the wall clock.
    pub time: DateTime<Utc>,
    /// What was done.
    pub op: Op,
    /// The bytes after it; absent for a delete.
    pub value: Option<Bytes>,
}
