//! A document per group and version, as every client since 1.0 reads them. Source: Kubernetes "API Concepts", meta/v1.

use super::{groups, resources, subresources};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reddwarf_objects::Kind;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;

/// `/api`.
pub(super) fn versions(listen: Option<SocketAddr>) -> Value {
    let address = listen.map(|address| json!({"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}));
    let addresses: Vec<Value> = address.into_iter().collect();
    json!({"kind": "APIVersions", "versions": super::versions(""), "serverAddressByClientCIDRs": addresses})
}

/// `/apis`.
pub(super) fn group_list() -> Value {
    let groups: Vec<Value> = groups().into_iter().map(summary).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(super) fn group(name: &str) -> Value {
    let mut group = summary(name);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

fn summary(name: &str) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = super::versions(name).iter().map(version).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/{version}`, `/apis/{group}/{version}`.
pub(super) fn resource_list(group: &str, version: &str) -> Value {
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resources: Vec<Value> = resources(group, version).into_iter().flat_map(entries).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// A resource's own entry and those of its subresources.
fn entries(kind: &'static Kind) -> Vec<Value> {
    let mut own = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    for (field, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            own[field] = json!(list);
        }
    }
    if !kind.is_virtual {
        own["storageVersionHash"] = storage_version_hash(kind).into();
    }
    let mut all = vec![own];
    all.extend(subresources(kind).into_iter().map(|sub| {
        let mut entry = json!({
            "name": format!("{}/{}", kind.plural, sub.name),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if let Some((group, version)) = sub.group_version {
            entry["group"] = group.into();
            entry["version"] = version.into();
        }
        entry
    }));
    all
}

/// Tells clients when stored objects change their version: the start of the digest of the version they are stored in.
fn storage_version_hash(kind: &Kind) -> String {
    let stored = reddwarf_objects::kinds().by_group_resource(kind.group, kind.plural).unwrap_or(kind);
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    BASE64_STANDARD.encode(digest.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_references() {
        let list = resource_list("apps", "v1");
        let hash = |name: &str| {
            let resources = list["resources"].as_array().unwrap();
            resources.iter().find(|r| r["name"] == name).unwrap()["storageVersionHash"].clone()
        };
        assert_eq!((hash("controllerrevisions"), hash("daemonsets")), (json!("85nkx63pcBU="), json!("dd7pWHUlMKQ=")));
    }
}
