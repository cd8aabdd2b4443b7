//! The Linux host with real namespaces, cgroups and processes. Needs root; says so and passes otherwise.
//!
//! Every test has network and mount namespaces of its own, so that nothing of it can touch this machine or another
//! test; cgroups are told apart by the instance's name, and removed at the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests use real time and make files that nobody else reads")]

#[path = "../../../host/tests/common/mod.rs"]
mod common;
mod support;

mod contract;
mod ends;
mod figures;
mod guard;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod rights;
mod roots;
mod runtimes;
mod survival;
mod unified;
