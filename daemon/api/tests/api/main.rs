//! The API as its clients see it: over a real socket, with a fake node behind it.
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod clients;
mod daemon_routes;
mod exec;
#[cfg(target_os = "linux")]
mod figures;
mod formats;
mod forward;
mod golden;
mod matrix;
mod metrics;
mod objects;
mod openapi;
mod protobuf;
mod reading;
mod rights;
mod service_accounts;
mod versions;
mod watches;
mod world;
mod writes;

use serde_json::{Value, json};
use world::*;
