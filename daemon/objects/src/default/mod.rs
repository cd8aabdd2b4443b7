//! Filling in what a manifest leaves out, as the reference does.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`default()`]: what happens to every object that is read, on every write |
//! | `prepare.rs` | [`prepare_create`], [`prepare_update`]: what happens once, when an object is made or replaced |
//! | `service_update.rs` | the same for services: what stays allocated, what a type can't have |
//! | `simple.rs` | defaults that need no thought: a table |
//! | `pod.rs` `volume.rs` `service.rs` `workload.rs` `small.rs` | the others, by kind |

mod pod;
mod prepare;
mod service;
mod service_update;
mod simple;
mod small;
mod volume;
mod workload;

pub use prepare::{prepare_create, prepare_update};

use crate::{kind::Kind, object::Object};
use serde_json::{Map, Value};

/// Fills in the defaults of `kind` and brings every value into stored form ([`crate::schema::normalise`]).
/// Doing it twice changes nothing more. Values of the wrong type are left alone.
pub fn default(kind: &Kind, object: &mut Object) {
    crate::schema::normalise(kind, object);
    simple::fill(kind, object);
    let map = object.map_mut();
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::fill_pod(map),
        ("", "PodTemplate" | "ReplicationController") | ("apps" | "batch", _) => workload::fill(kind, map),
        ("", "Service") => service::fill(map),
        ("", "PersistentVolume") => {
            existing(map, "spec").into_iter().for_each(volume::fill_persistent_source);
        }
        _ => small::fill(kind, map),
    }
}

/// Puts a value where there is none.
fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Puts a value where there is none, or where there is the number 0 or an empty text.
fn put_unless_set(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let set = match map.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() != Some(0),
        Some(_) => true,
    };
    if !set {
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

/// The text at `key`; empty when absent.
fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
