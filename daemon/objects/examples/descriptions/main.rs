//! Writes `schema/descriptions.z`, what `kubectl explain` tells about every type and field, from the sources of the crate
//! k8s-openapi (Apache-2.0), whose texts are Kubernetes' own:
//!
//! ```sh
//! cargo fetch # or: cargo info k8s-openapi@0.29.0
//! cargo run -p reddwarf-objects --example descriptions -- ~/.cargo/registry/src/*/k8s-openapi-0.29.0/src/v1_36
//! ```
//!
//! `tests/descriptions.rs` says when the file is no longer what this writes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod read;

use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;
use std::path::Path;

fn main() {
    let sources = std::env::args().nth(1).expect("the path of k8s-openapi's src/v1_36");
    let text = read::descriptions(Path::new(&sources));
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/descriptions.z");
    std::fs::File::create(path).unwrap().write_all(&encoder.finish().unwrap()).unwrap();
    println!("{} lines, {} bytes of text", text.lines().count(), text.len());
}
