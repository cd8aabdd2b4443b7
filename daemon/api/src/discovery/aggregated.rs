//! Everything that is served in one document. Source: Kubernetes "The Kubernetes API" (Aggregated discovery),
//! apidiscovery.k8s.io/v2 and v2beta1, which differ in their name only.

use super::{Subresource, groups, resources, subresources, versions};
use reddwarf_objects::Kind;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A document as it goes out.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: String,
    /// With its quotes.
    pub(super) etag: String,
}

/// `/api` (`core`) or `/apis` in a version of apidiscovery.k8s.io. Made once: the table of kinds does not change.
pub(super) fn document(core: bool, version: &str) -> &'static Document {
    static CORE: LazyLock<[Document; 2]> = LazyLock::new(|| ["v2", "v2beta1"].map(|v| make(&[""], v)));
    static NAMED: LazyLock<[Document; 2]> = LazyLock::new(|| ["v2", "v2beta1"].map(|v| make(&groups(), v)));
    let [v2, v2beta1] = if core { &*CORE } else { &*NAMED };
    if version == "v2" { v2 } else { v2beta1 }
}

fn make(groups: &[&str], version: &str) -> Document {
    let items: Vec<Value> = groups.iter().map(|name| group(name)).collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let text = list.to_string();
    let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
    Document { text, etag: format!("\"{digest}\"") }
}

fn group(name: &str) -> Value {
    let version = |version: &&str| {
        let resources: Vec<Value> = resources(name, version).into_iter().map(resource).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = versions(name).iter().map(version).collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn resource(kind: &'static Kind) -> Value {
    let mut entry = json!({
        "resource": kind.plural,
        // As the reference: an empty group and version are those of the list.
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    for (field, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    let subresources: Vec<Value> = subresources(kind).into_iter().map(subresource).collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn subresource(sub: Subresource) -> Value {
    let (group, version) = sub.group_version.unwrap_or_default();
    json!({
        "subresource": sub.name,
        "responseKind": {"group": group, "version": version, "kind": sub.kind},
        "verbs": sub.verbs,
    })
}
