//! The illumos host against played tools (`vm-tests/hostsim`): zones are namespaces of this machine. Needs root and the
//! program `hostsim` (`cargo build -p reddwarf-hostsim`); says so and passes otherwise.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests use real time and make files that nobody else reads")]

#[path = "../../../host/tests/common/mod.rs"]
mod common;
mod support;

mod announced;
mod balancer;
mod brand;
mod contract;
mod delegated;
mod faults;
mod guards;
mod images;
mod limits;
mod lx;
mod machines;
mod network;
mod passes;
mod policies;
mod states;
mod storage;
mod supervision;
mod zar;
