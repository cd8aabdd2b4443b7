//! The real daemon, real containers, the real client, as root, in worlds of their own.
//!
//! `REDDWARF_KEEP=1` keeps a failed test's directory.

// Network namespaces, cgroups, inotify: what these tests look at is Linux'. `tests/illumos` is the other host's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]
#![expect(clippy::disallowed_methods, reason = "runs real programs in real time")]

mod access;
#[path = "../client/mod.rs"]
mod client;
mod clients;
mod crash;
mod directory;
mod dns;
mod docs;
mod ends;
mod fields;
mod harness;
mod history;
mod images;
#[cfg(target_os = "linux")]
mod kube_rs;
mod kubectl;
mod lifecycle;
mod pods;
mod probes;
mod resources;
mod security;
mod services;
mod storage;
mod streams;
mod surface;
mod usage;
mod volumes;
mod why;
mod workloads;
