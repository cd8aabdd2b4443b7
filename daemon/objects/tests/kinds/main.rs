//! The table of kinds against what a real server serves: `reference.txt` was recorded from kube-apiserver 1.36 and its discovery.

#![allow(clippy::unwrap_used)]

use reddwarf_objects::kind::{Kind, kinds, subresource_verbs};
use std::collections::BTreeMap;

/// Groups of the recording that this project does not serve: devices are not shared out between pods here.
const NOT_SERVED: [&str; 1] = ["resource.k8s.io"];

/// One resource of the recording: its line, and the line of its columns.
fn recorded() -> BTreeMap<String, (String, String)> {
    let mut lines = include_str!("reference.txt").lines();
    let mut found = BTreeMap::new();
    while let (Some(head), Some(columns)) = (lines.next(), lines.next()) {
        let (path, rest) = head.split_once(' ').unwrap();
        let columns = columns.trim().strip_prefix("cols:").unwrap().trim();
        found.insert(path.to_owned(), (rest.to_owned(), columns.to_owned()));
    }
    found
}

fn path(kind: &Kind) -> String {
    let root = if kind.group.is_empty() { "api" } else { "apis" };
    format!("/{root}/{}/{}", kind.api_version(), kind.plural)
}

fn head(kind: &Kind) -> String {
    let mut subresources: Vec<String> =
        kind.subresources.iter().map(|s| format!("{s}({})", subresource_verbs(s).join("/"))).collect();
    subresources.sort();
    format!(
        "[{}] {} short={} cat={} subs={}",
        if kind.namespaced { "N" } else { "C" },
        kind.kind,
        kind.short_names.join(","),
        kind.categories.join(","),
        subresources.join(",")
    )
}

fn columns(kind: &Kind) -> String {
    let column =
        |c: &reddwarf_objects::Column| format!("{}{}", c.name.replace(' ', "-"), if c.wide { "*" } else { "" });
    kind.columns.iter().map(column).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_kind_is_as_the_reference_has_it() {
    let recorded = recorded();
    for kind in kinds().iter() {
        // The recording holds the preferred version of each resource.
        let Some((expected, cols)) = recorded.get(&path(kind)) else {
            assert_eq!((kind.group, kind.version), ("autoscaling", "v1"), "{} is not in the recording", path(kind));
            continue;
        };
        assert_eq!(head(kind), *expected, "{}", path(kind));
        assert_eq!(columns(kind), *cols, "{}", path(kind));
    }
}

#[test]
fn every_recorded_kind_is_served() {
    let served: Vec<String> = kinds().iter().map(path).collect();
    for path in recorded().keys().filter(|p| !NOT_SERVED.iter().any(|group| p.contains(group))) {
        assert!(served.contains(path), "{path} is missing");
    }
}
