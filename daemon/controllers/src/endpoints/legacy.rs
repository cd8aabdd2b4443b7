//! A service's endpoints as an Endpoints object, for those who still read them. Pure.

use super::decide::{Endpoint, Port};
use super::{ENDPOINTS_MANAGER, ENDPOINTS_US, HEADLESS, TRIGGERED};
use reddwarf_objects::{Kind, Object};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Addresses in one object at most.
const MOST: usize = 1000;
const OVER: &str = "endpoints.kubernetes.io/over-capacity";

/// The object as it should be.
pub(super) fn object(kind: &Kind, service: &Object, endpoints: &[Endpoint]) -> Object {
    let mut object = Object::new(kind, service.namespace(), service.name());
    let own = service.labels().filter(|(key, _)| ![ENDPOINTS_MANAGER, HEADLESS].contains(key));
    let mut labels: Map<String, Value> = own.map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(ENDPOINTS_MANAGER.to_owned(), json!(ENDPOINTS_US));
    if service.get_str("/spec/clusterIP") == Some("None") {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    object.set("/metadata/labels", Value::Object(labels));
    let family = service.get_str("/spec/ipFamilies/0").unwrap_or("IPv4");
    let unready_too = service.get("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let listed = |e: &&Endpoint| unready_too || !e.terminating;
    // Ready ones first: they are what a cut must leave.
    let mut shown: Vec<&Endpoint> = endpoints.iter().filter(listed).collect();
    shown.sort_by_key(|e| !e.ready);
    if shown.len() > MOST {
        shown.truncate(MOST);
        object.set_annotation(OVER, "truncated");
    }
    let mut subsets: BTreeMap<Vec<Port>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for endpoint in shown {
        let Some(address) = endpoint.addresses.iter().find(|a| a.contains(':') == (family == "IPv6")) else { continue };
        let (ready, not_ready) = subsets.entry(endpoint.ports.clone()).or_default();
        if endpoint.ready { ready.push(value(endpoint, address)) } else { not_ready.push(value(endpoint, address)) }
    }
    let subsets: Vec<Value> = subsets.into_iter().map(subset).collect();
    if !subsets.is_empty() {
        object.set("/subsets", subsets);
    }
    object
}

fn subset((ports, (ready, not_ready)): (Vec<Port>, (Vec<Value>, Vec<Value>))) -> Value {
    let mut subset = Map::new();
    for (field, list) in [
        ("addresses", ready),
        ("notReadyAddresses", not_ready),
        ("ports", ports.iter().map(|p| p.value(false)).collect()),
    ] {
        if !list.is_empty() {
            subset.insert(field.to_owned(), Value::Array(list));
        }
    }
    Value::Object(subset)
}

fn value(endpoint: &Endpoint, address: &str) -> Value {
    let (namespace, name, uid) = &endpoint.pod;
    let mut value =
        json!({"ip": address, "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid}});
    if let Some(hostname) = &endpoint.hostname {
        value["hostname"] = json!(hostname);
    }
    if let Some(node) = &endpoint.node {
        value["nodeName"] = json!(node);
    }
    value
}

/// Writes `wanted` over what is there; says whether anything differs.
pub(super) fn overwrite(live: &mut Object, wanted: &Object, stamp: &str) -> bool {
    let parts = |o: &Object| {
        (o.get("/subsets").cloned(), o.get("/metadata/labels").cloned(), o.annotation(OVER).map(str::to_owned))
    };
    if parts(live) == parts(wanted) {
        return false;
    }
    match wanted.get("/subsets") {
        Some(subsets) => live.set("/subsets", subsets.clone()),
        None => drop(live.remove("/subsets")),
    }
    live.set("/metadata/labels", wanted.get("/metadata/labels").cloned().unwrap_or_default());
    match wanted.annotation(OVER) {
        Some(text) => live.set_annotation(OVER, text),
        None => live.remove_annotation(OVER),
    }
    live.set_annotation(TRIGGERED, stamp);
    true
}
