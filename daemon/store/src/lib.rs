//! Versioned key-value store on one redb file. It knows bytes, keys and revisions; no kinds, no HTTP, no hosts.
//!
//! What runs in here:
//!
//! ```text
//!  Store::commit ──→ bounded queue ──→ writer thread ──→ one redb commit (one fdatasync) for all that waited
//!                                          │                 each transaction: own verdict, own revision
//!                                          ├─→ answers every caller, durable
//!                                          └─→ recent changes (bounded, in memory) ──→ wakes the watchers of what was touched
//!  Store::get/list/count/history ──→ short redb read transactions (snapshots), on the caller's thread
//!  Watch::next ──→ recent changes; when they no longer reach back that far: history; when that is compacted: told so
//! ```
//!
//! - [`Transaction`] in, [`Committed`] or a [`CommitError`] out: see `transaction.rs`, carried out in `apply.rs`.
//! - Tables and their encoding: `tables.rs`. Current objects and their history live in different tables, so that a
//!   prefix scan never walks history. History is an undo log: each record holds what was there *before*.
//! - Opening, the lock, moving a damaged file aside: `open.rs`, `file.rs`; migration: `migrate.rs`; `backup.rs`.
//! - Generations of the manifest directory, with file contents stored once: `generation.rs`.

mod apply;
mod backend;
mod backup;
mod counts;
mod entry;
mod error;
mod file;
mod generation;
mod history;
mod key;
mod migrate;
mod open;
mod options;
mod read;
mod recent;
mod shared;
mod store;
mod tables;
mod transaction;
mod waiters;
mod watch;
mod writer;

pub use entry::{Entry, EntryRef, ListOptions, Page, VisitEnd};
pub use error::{CommitError, StoreError, WatchError};
pub use generation::{
    DeclaredKey, Digest, FileChange, FileContent, FileDiff, GenerationDiff, GenerationFile, GenerationRecord, NewFile,
    NewGeneration,
};
pub use history::{CommitChange, CommitRecord, ObjectCommit, Op};
pub use key::{Key, KeyError, MAX_KEY, Revision};
pub use options::{BackendFactory, Clock, Opened, Recovery, StoreOptions};
pub use store::{Stats, Store};
pub use transaction::{Committed, Expect, Found, Transaction, Write};
pub use watch::{Change, Watch};
