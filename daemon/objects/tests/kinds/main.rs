//! The table of kinds against what a real server serves: `reference.txt` was recorded from kube-apiserver 1.36 and its discovery.

#![allow(clippy::unwrap_used)]

use reddwarf_objects::kind::{Kind, kinds, subresource_verbs};
use std::collections::BTreeMap;

/// Groups of the recording that this project does not serve: devices are not shared out between pods here.
const NOT_SERVED: [&str; 1] = ["resource.k8s.io"];

/// Served here by the daemon itself; by a program of its own (metrics-server) where the recording was made.
const NOT_RECORDED: [(&str, &str); 2] = [("autoscaling", "v1"), ("metrics.k8s.io", "v1beta1")];

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

/// Names as they are on the wire, each with its type where that is not text, and `*` where it is for `-o wide`.
fn columns(kind: &Kind) -> String {
    let column = |c: &reddwarf_objects::Column| {
        let about = match reddwarf_objects::print::column(kind, c).kind {
            "string" => String::new(),
            other => format!(":{other}"),
        };
        format!("{}{about}{}", c.name, if c.wide { "*" } else { "" })
    };
    kind.columns.iter().map(column).collect::<Vec<_>>().join("|")
}

#[test]
fn every_kind_is_as_the_reference_has_it() {
    let recorded = recorded();
    for kind in kinds().iter() {
        // The recording holds the preferred version of each resource.
        let Some((expected, cols)) = recorded.get(&path(kind)) else {
            assert!(NOT_RECORDED.contains(&(kind.group, kind.version)), "{} is not in the recording", path(kind));
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

/// The table of docs/kubernetes-api.md.
fn documented() -> String {
    let mut text = String::from(
        "| apiVersion | kind | resource | short | scope | verbs | subresources |\n|---|---|---|---|---|---|---|\n",
    );
    for kind in kinds().iter() {
        let verbs = match (kind.is_virtual, kind.verbs.len()) {
            (_, 8) => "all".to_owned(),
            (false, 7) => "all but deletecollection".to_owned(),
            _ => kind.verbs.join(", "),
        };
        let scope = if kind.namespaced { "namespace" } else { "cluster" };
        let (short, subresources) = (kind.short_names.join(", "), kind.subresources.join(", "));
        let (version, name, plural) = (kind.api_version(), kind.kind, kind.plural);
        text.push_str(&format!("| {version} | {name} | {plural} | {short} | {scope} | {verbs} | {subresources} |\n"));
    }
    text
}

#[test]
fn the_documentation_lists_what_is_served() {
    let document = include_str!("../../../../docs/kubernetes-api.md");
    assert!(document.contains(&documented()), "docs/kubernetes-api.md must hold this table:\n{}", documented());
}
