//! Whole documents, written piece by piece.

use super::definitions::{Definitions, schema};
use super::descriptions::Descriptions;
use super::{Version, gnostic, operations};
use crate::kind::{Kind, kinds};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What documents are made from: when this does not change, they do not.
pub fn sources() -> [&'static [u8]; 4] {
    [
        include_bytes!("../../schema/kinds.txt"),
        include_bytes!("../../schema/bodies.txt"),
        include_bytes!("../../schema/types.txt"),
        include_bytes!("../../schema/descriptions.z"),
    ]
}

/// The group (empty for core) and version of every OpenAPI 3 document, in the order of the table of kinds.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for kind in kinds().iter() {
        if !found.contains(&(kind.group, kind.version)) {
            found.push((kind.group, kind.version));
        }
    }
    found
}

/// The OpenAPI 3 document of a group (empty for core) and version, in JSON; `None` when there is no such version.
pub fn v3(group: &str, version: &str) -> Option<String> {
    let of_version: Vec<&Kind> = kinds().iter().filter(|k| k.group == group && k.version == version).collect();
    if of_version.is_empty() {
        return None;
    }
    let texts = Descriptions::read();
    let (paths, definitions) = gather(&of_version, Version::V3);
    let mut out = String::with_capacity(1 << 20);
    out.push_str("{\"components\":{\"schemas\":");
    pieces(&mut out, definitions.0.iter().map(|(name, d)| (name.as_str(), schema(name, *d, Version::V3, &texts))));
    let _ = write!(out, "}},\"info\":{},\"openapi\":\"3.0.0\",\"paths\":", info());
    pieces(&mut out, paths.iter().map(|(path, item)| (path.as_str(), item.clone())));
    out.push('}');
    Some(out)
}

/// The OpenAPI 2 document of everything, in JSON.
pub fn v2_json() -> String {
    let texts = Descriptions::read();
    let all: Vec<&Kind> = kinds().iter().collect();
    let (paths, definitions) = gather(&all, Version::V2);
    let mut out = String::with_capacity(2 << 20);
    out.push_str("{\"definitions\":");
    pieces(&mut out, definitions.0.iter().map(|(name, d)| (name.as_str(), schema(name, *d, Version::V2, &texts))));
    let _ = write!(out, ",\"info\":{},\"swagger\":\"2.0\",\"paths\":", info());
    pieces(&mut out, paths.iter().map(|(path, item)| (path.as_str(), item.clone())));
    out.push('}');
    out
}

/// The same as protobuf: `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf() -> Vec<u8> {
    let texts = Descriptions::read();
    let all: Vec<&Kind> = kinds().iter().collect();
    let (paths, definitions) = gather(&all, Version::V2);
    let definitions = definitions.0.iter().map(|(name, d)| (name.as_str(), schema(name, *d, Version::V2, &texts)));
    gnostic::document(&info(), paths.iter().map(|(path, item)| (path.as_str(), item)), definitions)
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// Paths and definitions of kinds.
fn gather(kinds: &[&'static Kind], version: Version) -> (BTreeMap<String, Value>, Definitions) {
    let mut definitions = Definitions::default();
    let mut paths = BTreeMap::new();
    for kind in kinds {
        definitions.kind(kind);
        paths.extend(operations::paths(kind, version, &mut definitions));
    }
    (paths, definitions)
}

/// A JSON map, entry by entry.
fn pieces<'a>(out: &mut String, entries: impl Iterator<Item = (&'a str, Value)>) {
    out.push('{');
    for (index, (name, value)) in entries.enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{}:{value}", Value::from(name));
    }
    out.push('}');
}
