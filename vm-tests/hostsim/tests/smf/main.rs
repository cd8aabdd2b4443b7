//! The service of SMF in smf/: its manifest against the DTD's rules, its method as SMF would run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "plays SMF, which runs the method")]

mod brand;
mod manifest;
mod method;
mod xml;

use std::path::PathBuf;

fn smf(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../smf").join(name)
}
