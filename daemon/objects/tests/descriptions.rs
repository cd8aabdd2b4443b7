//! Are the committed descriptions those of the crate that they come from? Asked where its sources are at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../examples/descriptions/read.rs"]
mod read;

use flate2::read::ZlibDecoder;
use std::io::Read;
use std::path::PathBuf;

fn sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    registries.flatten().map(|r| r.path().join("k8s-openapi-0.29.0/src/v1_36")).find(|path| path.is_dir())
}

#[test]
fn descriptions_are_current() {
    let Some(sources) = sources() else {
        println!("skipped: k8s-openapi 0.29.0 is not in the cargo registry of this machine");
        return;
    };
    let mut committed = String::new();
    ZlibDecoder::new(include_bytes!("../schema/descriptions.z").as_slice()).read_to_string(&mut committed).unwrap();
    let now = read::descriptions(&sources);
    let differs = now.lines().zip(committed.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None, "run the example `descriptions`");
    assert_eq!(now.lines().count(), committed.lines().count(), "run the example `descriptions`");
    // Some types have none; most do.
    assert!(now.lines().filter(|line| line.ends_with('\t')).count() < 60);
}
