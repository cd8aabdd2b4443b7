//! The tools as the daemon calls them: messages, exit codes, what is refused, and the quirks that real ones have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

mod faults;
mod network;
mod zfs;
mod zonecfg;
mod zones;
