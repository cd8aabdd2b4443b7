//! Storage engines: what [`StorageEngine`] promises, on directories, btrfs and ZFS.
//!
//! ```text
//! choose ── which engine, and why ──→ TreeEngine ── Directory: copies          ZfsEngine ── zfs(8) by
//!                                       layout,      Btrfs: subvolumes                       typed commands
//!                                       marks
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`choose`] | the engine for the settings and this machine |
//! | `anchor` | where storage was the last time, so that no other place is taken for it |
//! | [`zfs`] | datasets of a pool, by zfs(8): the same commands on illumos, OpenZFS and the old zfs-fuse; for zones too |
//! | [`tree`] | engines whose datasets are directories: layout, marks, crash safety; plain directories and btrfs below it |
//!
//! Nothing here makes a system call that only one system has: all that differs goes through the systems' own tools.
//! Every engine passes `reddwarf_host::contract::storage` (tests/contract.rs).

mod anchor;
pub mod choose;
pub mod tree;
pub mod zfs;

#[cfg(doc)]
use reddwarf_host::StorageEngine;
