//! Endpoints spread over slices of at most [`MOST`], changing as few slices as can be. Pure.

use super::TRIGGERED;
use super::decide::{Endpoint, Port};
use crate::runtime::Id;
use reddwarf_objects::{Kind, Object};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Endpoints in one slice at most.
const MOST: usize = 100;

/// Endpoints that belong together: of one family, on the same ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// As a slice writes them.
    pub ports: Value,
    /// As a slice writes them, without two for one address.
    pub endpoints: Vec<Value>,
}

/// What of a slice is ours to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    family: &'static str,
    ports: Value,
    endpoints: Vec<Value>,
    labels: Map<String, Value>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceChange {
    /// A new slice.
    Create(Fields),
    /// A slice of this name says something else now.
    Replace(String, Fields),
    /// A slice of this name is not needed any more.
    Delete(String),
}

/// A service's endpoints by family and ports. A service without any has an empty group all the same: its slice says so.
pub(super) fn wanted(service: &Object, endpoints: &[Endpoint]) -> Vec<Wanted> {
    let families = service.get("/spec/ipFamilies").and_then(Value::as_array);
    let has = |name: &str| families.is_none_or(|f| f.iter().any(|f| f == name));
    let mut groups: BTreeMap<(&'static str, Vec<Port>), Vec<Value>> = BTreeMap::new();
    for family in ["IPv4", "IPv6"].into_iter().filter(|f| has(f)) {
        for endpoint in endpoints {
            let fits = |a: &&String| a.contains(':') == (family == "IPv6");
            if let Some(address) = endpoint.addresses.iter().find(fits) {
                let group = groups.entry((family, endpoint.ports.clone())).or_default();
                group.push(endpoint.value(address));
            }
        }
        if !groups.keys().any(|(f, _)| *f == family) && (families.is_some() || family == "IPv4") {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    let value = |ports: Vec<Port>| Value::Array(ports.iter().map(|p| p.value(true)).collect());
    groups.into_iter().map(|((family, ports), endpoints)| Wanted { family, ports: value(ports), endpoints }).collect()
}

/// The writes that bring the slices at hand to what is wanted: what stays in its slice stays there, what is new fills
/// slices that change anyway, then those with room, then new ones.
pub fn spread(present: &[Object], wanted: &[Wanted], labels: &Map<String, Value>) -> Vec<SliceChange> {
    let mut changes = Vec::new();
    let mut left: BTreeSet<&str> = present.iter().map(Object::name).collect();
    for group in wanted {
        let mut missing: BTreeMap<String, &Value> =
            group.endpoints.iter().map(|e| (address_of(e).to_owned(), e)).collect();
        let fits = |slice: &&Object| {
            left.contains(slice.name())
                && slice.get_str("/addressType") == Some(group.family)
                && list(slice, "ports") == group.ports.as_array().map_or(&[][..], Vec::as_slice)
        };
        let mut kept: Vec<(&Object, Vec<Value>, bool)> = Vec::new();
        for slice in present.iter().filter(fits) {
            let before = list(slice, "endpoints");
            let stay: Vec<Value> = before.iter().filter_map(|e| missing.remove(address_of(e))).cloned().collect();
            let changed = stay != before;
            kept.push((slice, stay, changed));
        }
        let mut new: VecDeque<Value> = missing.into_values().cloned().collect();
        // Fuller slices first, and those that change anyway before others.
        kept.sort_by_key(|(_, endpoints, changed)| (!changed, std::cmp::Reverse(endpoints.len())));
        for (_, endpoints, changed) in &mut kept {
            while endpoints.len() < MOST
                && let Some(endpoint) = new.pop_front()
            {
                endpoints.push(endpoint);
                *changed = true;
            }
        }
        let empty = group.endpoints.is_empty();
        let mut placeholder = false;
        for (slice, endpoints, changed) in kept {
            // One empty slice stays for a service without endpoints.
            if endpoints.is_empty() && (!empty || placeholder) {
                continue;
            }
            placeholder = true;
            left.remove(slice.name());
            let fields = Fields { family: group.family, ports: group.ports.clone(), endpoints, labels: labels.clone() };
            if changed || slice.get("/metadata/labels").and_then(Value::as_object) != Some(labels) {
                changes.push(SliceChange::Replace(slice.name().to_owned(), fields));
            }
        }
        while !new.is_empty() || (empty && !placeholder) {
            placeholder = true;
            let rest = new.split_off(new.len().min(MOST));
            let endpoints = std::mem::replace(&mut new, rest).into();
            let fields = Fields { family: group.family, ports: group.ports.clone(), endpoints, labels: labels.clone() };
            changes.push(SliceChange::Create(fields));
        }
    }
    changes.extend(left.into_iter().map(|name| SliceChange::Delete(name.to_owned())));
    changes
}

fn list<'a>(slice: &'a Object, field: &str) -> &'a [Value] {
    slice.map().get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn address_of(endpoint: &Value) -> &str {
    endpoint.pointer("/addresses/0").and_then(Value::as_str).unwrap_or_default()
}

/// A new slice of a service; `owner` is the Service, or the Endpoints that it mirrors.
pub(super) fn new_slice(kind: &Kind, service: &Id, owner: &Object, fields: &Fields, stamp: &str) -> Object {
    let reference = json!([{
        "apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(),
        "uid": owner.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut slice = Object::new(kind, Some(&service.namespace), "");
    slice.set("/metadata/generateName", format!("{}-", service.name));
    slice.set("/metadata/ownerReferences", reference);
    slice.set("/addressType", fields.family);
    overwrite(&mut slice, fields, stamp);
    slice
}

/// Our part of a slice, written over what is there.
pub(super) fn overwrite(slice: &mut Object, fields: &Fields, stamp: &str) {
    slice.set("/endpoints", fields.endpoints.clone());
    slice.set("/ports", fields.ports.clone());
    slice.set("/metadata/labels", Value::Object(fields.labels.clone()));
    slice.set_annotation(TRIGGERED, stamp);
}
