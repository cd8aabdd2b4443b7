//! The real daemon with `--host illumos`, on illumos' tools as `vm-tests/hostsim` plays them: zones are local processes,
//! everything else is a model that refuses what the real tools refuse. Needs root, as zones do; says so and passes
//! otherwise.
//!
//! `REDDWARF_KEEP=1` keeps a failed test's directory.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]
#![expect(clippy::disallowed_methods, reason = "runs real programs in real time")]

mod announced;
mod balancer;
mod brand;
#[path = "../client/mod.rs"]
mod client;
mod crash;
mod defects;
mod faults;
mod harness;
mod lifecycle;
mod limits;
mod matrix;
mod network;
mod policies;
mod suspended;
