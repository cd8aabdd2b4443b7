//! `metadata.managedFields`: one entry for each manager, operation, apiVersion and subresource, with the fields that it owns.

use super::{FieldManager, set::FieldSet};
use crate::{
    json,
    object::{Object, timestamp},
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// As many managers of updates as an object keeps; the oldest others are one.
const MAX_UPDATERS: usize = 10;
/// The manager that stands for the oldest.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By server-side apply: it owns what it last applied.
    Apply,
    /// By any other write: it owns what it last changed.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns something. An applying manager is one whatever the apiVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) operation: Operation,
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Owner {
    pub(super) fn new(operation: Operation, manager: &FieldManager<'_>, api_version: &str) -> Self {
        let name = if manager.name.is_empty() { "unknown" } else { manager.name };
        Self {
            operation,
            manager: name.to_owned(),
            api_version: api_version.to_owned(),
            subresource: manager.subresource.unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// RFC 3339 in UTC, to the second: sorts as the time does.
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Entry {
    fn stored(value: Value) -> Option<Self> {
        let Value::Object(mut map) = value else { return None };
        let owner = owner(&map)?;
        let time = match map.remove("time") {
            Some(Value::String(time)) => Some(time),
            _ => None,
        };
        let fields = FieldSet::stored(map.remove("fieldsV1").unwrap_or_default());
        Some(Self { owner, time, fields })
    }

    fn sent(value: &Value) -> Option<Self> {
        let Value::Object(map) = value else { return None };
        if map.get("fieldsType").and_then(Value::as_str) != Some("FieldsV1") {
            return None;
        }
        let time = match map.get("time") {
            None | Some(Value::Null) => None,
            Some(time) => Some(timestamp(DateTime::parse_from_rfc3339(time.as_str()?).ok()?.with_timezone(&Utc))),
        };
        let fields = FieldSet::parse(map.get("fieldsV1").unwrap_or(&Value::Null)).ok()?;
        Some(Self { owner: owner(map)?, time, fields })
    }

    fn into_value(self) -> Value {
        let mut map = Map::new();
        let mut text = |field: &str, text: String| map.insert(field.to_owned(), Value::String(text));
        text("manager", self.owner.manager);
        text("operation", self.owner.operation.name().to_owned());
        text("apiVersion", self.owner.api_version);
        text("fieldsType", "FieldsV1".to_owned());
        if !self.owner.subresource.is_empty() {
            text("subresource", self.owner.subresource);
        }
        if let Some(time) = self.time {
            text("time", time);
        }
        map.insert("fieldsV1".to_owned(), self.fields.into_value());
        Value::Object(map)
    }
}

fn owner(map: &Map<String, Value>) -> Option<Owner> {
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    let operation = match map.get("operation")?.as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let api_version = text("apiVersion").filter(|version| !version.is_empty())?;
    Some(Owner { operation, manager: text("manager")?, api_version, subresource: text("subresource")? })
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managed(pub(super) Vec<Entry>);

impl Managed {
    /// The list as we stored it. What is damaged is left out.
    pub(super) fn stored(list: Option<Value>) -> Self {
        match list {
            Some(Value::Array(list)) => Self(list.into_iter().filter_map(Entry::stored).collect()),
            _ => Self::default(),
        }
    }

    /// The list as somebody sent it; none when any of it makes no sense.
    pub(super) fn sent(list: &Value) -> Option<Self> {
        list.as_array()?.iter().map(Entry::sent).collect::<Option<_>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the entry of an owner out.
    pub(super) fn take(&mut self, owner: &Owner) -> Option<Entry> {
        let place = self.0.iter().position(|entry| entry.owner.is(owner))?;
        Some(self.0.swap_remove(place))
    }

    /// Takes fields away from everybody.
    pub(super) fn disown(&mut self, fields: &[&FieldSet]) {
        for entry in &mut self.0 {
            fields.iter().for_each(|fields| entry.fields.subtract(fields));
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Notes that `owner` changed `fields`.
    pub(super) fn update(&mut self, owner: Owner, fields: FieldSet, now: DateTime<Utc>) {
        if fields.is_empty() {
            return;
        }
        let mut entry = self.take(&owner).unwrap_or(Entry { owner, time: None, fields: FieldSet::default() });
        entry.fields.add(fields);
        entry.time = Some(timestamp(now));
        self.0.push(entry);
        self.limit_updaters();
    }

    /// Keeps at most [`MAX_UPDATERS`] managers of updates: the oldest of one apiVersion become one.
    fn limit_updaters(&mut self) {
        let updaters = self.0.iter().filter(|entry| entry.owner.operation == Operation::Update).count();
        let Some(mut surplus) = updaters.checked_sub(MAX_UPDATERS).filter(|surplus| *surplus > 0) else { return };
        self.sort();
        let mut kept: Vec<Entry> = Vec::with_capacity(self.0.len());
        // Where the oldest updater of an apiVersion is, and the one that already stands for several.
        let (mut oldest, mut ancient) = (HashMap::<String, usize>::new(), HashMap::<String, usize>::new());
        for entry in self.0.drain(..) {
            if entry.owner.operation == Operation::Apply {
                kept.push(entry);
                continue;
            }
            let version = entry.owner.api_version.clone();
            let is_ancient = entry.owner.manager == ANCIENT && entry.owner.subresource.is_empty();
            let into = match ancient.get(&version) {
                Some(place) if is_ancient || surplus > 0 => Some(*place),
                _ => oldest.get(&version).copied().filter(|_| surplus > 0),
            };
            match into.and_then(|place| Some((place, kept.get_mut(place)?))) {
                Some((place, bucket)) => {
                    bucket.owner.manager = ANCIENT.to_owned();
                    bucket.owner.subresource.clear();
                    bucket.time = entry.time;
                    bucket.fields.add(entry.fields);
                    ancient.insert(version, place);
                    surplus = surplus.saturating_sub(1);
                }
                None => {
                    if is_ancient {
                        ancient.insert(version.clone(), kept.len());
                    }
                    oldest.entry(version).or_insert(kept.len());
                    kept.push(entry);
                }
            }
        }
        self.0 = kept;
    }

    /// In the order in which they are stored: applied before updated, then the oldest first.
    fn sort(&mut self) {
        fn order(entry: &Entry) -> (Operation, Option<&str>, &str, &str, &str) {
            let owner = &entry.owner;
            (owner.operation, entry.time.as_deref(), &owner.manager, &owner.api_version, &owner.subresource)
        }
        self.0.sort_by(|a, b| order(a).cmp(&order(b)));
    }

    /// Writes the entries into an object; without any there is no list.
    pub(super) fn write(mut self, object: &mut Object) {
        self.sort();
        let list: Vec<Value> = self.0.into_iter().map(Entry::into_value).collect();
        put(object, (!list.is_empty()).then_some(Value::Array(list)));
    }
}

/// The list of an object of which `owner` owns everything: JSON, fields in order of their names.
pub(super) fn one(owner: &Owner, fields: &[u8], now: DateTime<Utc>) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.len() + 256);
    let text = |out: &mut Vec<u8>, name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        json::write_text(value, out);
    };
    text(&mut out, "[{\"apiVersion\":", &owner.api_version);
    out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
    out.extend_from_slice(fields);
    text(&mut out, ",\"manager\":", &owner.manager);
    text(&mut out, ",\"operation\":", owner.operation.name());
    if !owner.subresource.is_empty() {
        text(&mut out, ",\"subresource\":", &owner.subresource);
    }
    text(&mut out, ",\"time\":", &timestamp(now));
    out.extend_from_slice(b"}]");
    out
}

/// An object's list.
pub(super) fn list(object: &Object) -> Option<&Value> {
    object.map().get("metadata")?.get("managedFields").filter(|list| !list.is_null())
}

/// Takes an object's list out.
pub(super) fn take_list(object: &mut Object) -> Option<Value> {
    object.map_mut().get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|list| !list.is_null())
}

/// Puts a list into an object, or none.
pub(super) fn put(object: &mut Object, list: Option<Value>) {
    match list {
        Some(list) => object.set("/metadata/managedFields", list),
        None => drop(take_list(object)),
    }
}

/// Is this list how a client asks for all ownership to be forgotten: `[]` or `[{}]`?
pub(super) fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.values().all(|value| value.is_null() || value.as_str() == Some("")),
        _ => false,
    }
}
