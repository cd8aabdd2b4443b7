//! Filling in what a manifest leaves out, as the reference does.

mod pod;
mod service;
mod simple;
mod workload;

use crate::{kind::Kind, object::Object, pod::Pod};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

/// Fills in the defaults of `kind` and brings quantities, times and nulls into stored form ([`crate::schema::normalise`]).
/// Doing it twice changes nothing more. Values of the wrong type are left alone.
pub fn default(kind: &Kind, object: &mut Object) {
    crate::schema::normalise(kind, object);
    simple::fill(kind, object);
    let name = object.name().to_owned();
    let map = object.map_mut();
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::fill_pod(map),
        ("", "Service") => service::fill(map),
        ("", "Secret") => fill_secret(map),
        ("", "Namespace") if !name.is_empty() => {
            if let Some(labels) = child(map, "metadata").and_then(|metadata| child(metadata, "labels")) {
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            }
        }
        _ => workload::fill(kind, map),
    }
}

/// The status that a new object starts with; `None` where it has none.
pub fn initial_status(kind: &Kind, object: &Object) -> Option<Value> {
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            let qos = Pod::from_object(object).ok().map(|pod| pod.qos_class());
            Some(json!({"phase": "Pending", "qosClass": qos}))
        }
        ("", "Namespace") => Some(json!({"phase": "Active"})),
        ("", "PersistentVolumeClaim" | "PersistentVolume") => Some(json!({"phase": "Pending"})),
        ("", "Service") | ("networking.k8s.io", "Ingress") => Some(json!({"loadBalancer": {}})),
        _ if kind.has_status() => Some(json!({})),
        _ => None,
    }
}

/// `stringData` is write-only: its values go into `data` and win there.
fn fill_secret(map: &mut Map<String, Value>) {
    put(map, "type", "Opaque");
    let plain = match map.remove("stringData") {
        Some(Value::Object(plain)) => plain,
        Some(wrong) => {
            map.insert("stringData".to_owned(), wrong);
            return;
        }
        None => return,
    };
    let Some(data) = child(map, "data") else { return };
    for (key, value) in plain {
        if let Value::String(text) = value {
            data.insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

/// Puts a value where there is none.
fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), value.into());
    }
}

/// The map at `key`, made when absent; `None` when something else is there.
fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    put(map, key, Map::new());
    map.get_mut(key)?.as_object_mut()
}

/// The map at `key`, when there is one.
fn existing<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key)?.as_object_mut()
}

/// The maps in the list at `key`.
fn each<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
