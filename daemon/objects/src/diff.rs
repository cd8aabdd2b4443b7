//! What differs between two objects, field by field.

use crate::{
    field::{FieldPath, Segment},
    kind::Kind,
    object::Object,
    schema::{self, FieldType, ListKind, Type},
};
use serde_json::{Map, Value};
use std::fmt;

/// One difference. Absent on a side is `None`. Displays as `spec.replicas: 1 → 2`.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where, in the new object where the field is there, else in the old one.
    pub path: FieldPath,
    /// What was.
    pub old: Option<Value>,
    /// What is.
    pub new: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{}: {old} → {new}", self.path),
            (None, Some(new)) => write!(f, "{}: + {new}", self.path),
            (Some(old), None) => write!(f, "{}: - {old}", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// What stands for a Secret's value.
pub const REDACTED: &str = "<redacted>";

/// What the server keeps for itself.
const SERVER_FIELDS: [&str; 5] = ["uid", "resourceVersion", "generation", "managedFields", "creationTimestamp"];

/// What differs between `old` and `new`. Elements of lists that have keys (containers by name) are matched by key, not place.
/// What the server keeps for itself is left out: metadata's uid, resourceVersion, generation, managedFields, creationTimestamp.
/// Values of Secrets are redacted, so a change may show as `"<redacted>"` on both sides.
pub fn diff(kind: &Kind, old: &Object, new: &Object) -> Vec<Change> {
    let (old, new) = (without_server_fields(old), without_server_fields(new));
    let mut walk = Walk { at: Vec::new(), changes: Vec::new() };
    walk.maps(schema::of_kind(kind), &old, &new);
    if kind.is_core("Secret") {
        walk.changes.iter_mut().for_each(redact);
    }
    walk.changes
}

/// `object` with the values of a Secret's data replaced, for showing it to people. Other kinds are as they were.
#[must_use]
pub fn redacted(object: &Object) -> Object {
    let mut object = object.clone();
    if object.kind() == "Secret" && object.api_version() == "v1" {
        for field in ["data", "stringData"] {
            if let Some(Value::Object(data)) = object.map_mut().get_mut(field) {
                data.values_mut().for_each(|value| *value = REDACTED.into());
            }
        }
        // kubectl keeps a copy of everything it applied here.
        let last_applied = "kubectl.kubernetes.io/last-applied-configuration";
        if object.annotation(last_applied).is_some() {
            object.set_annotation(last_applied, REDACTED);
        }
    }
    object
}

fn redact(change: &mut Change) {
    let first = change.path.segments().first().and_then(Segment::key);
    let last_applied =
        change.path.segments().last().and_then(Segment::key).is_some_and(|key| key.contains("last-applied"));
    if matches!(first, Some("data" | "stringData")) || last_applied || change.path.to_string() == "metadata.annotations"
    {
        change.old = change.old.as_ref().map(hide);
        change.new = change.new.as_ref().map(hide);
    }
}

/// Keys stay, values go.
fn hide(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.keys().map(|key| (key.clone(), REDACTED.into())).collect()),
        _ => REDACTED.into(),
    }
}

fn without_server_fields(object: &Object) -> Map<String, Value> {
    let mut map = object.map().clone();
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        SERVER_FIELDS.iter().for_each(|field| {
            metadata.remove(*field);
        });
    }
    map
}

struct Walk {
    at: Vec<Segment>,
    changes: Vec<Change>,
}

impl Walk {
    fn change(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let path = FieldPath::from_segments(self.at.clone());
        self.changes.push(Change { path, old: old.cloned(), new: new.cloned() });
    }

    fn within(&mut self, segment: Segment, f: impl FnOnce(&mut Self)) {
        self.at.push(segment);
        f(self);
        self.at.pop();
    }

    fn maps(&mut self, structure: Option<&Type>, old: &Map<String, Value>, new: &Map<String, Value>) {
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        for key in new.keys().chain(gone) {
            let field = structure.and_then(|s| s.field(key)).map(|field| &field.kind);
            let segment = if structure.is_some() { Segment::Key(key.clone()) } else { Segment::MapKey(key.clone()) };
            self.within(segment, |walk| walk.values(field, old.get(key), new.get(key)));
        }
    }

    fn values(&mut self, kind: Option<&FieldType>, old: Option<&Value>, new: Option<&Value>) {
        // Null is what absent is.
        let (old, new) = (old.filter(|value| !value.is_null()), new.filter(|value| !value.is_null()));
        if old == new {
            return;
        }
        match (kind, old, new) {
            (Some(FieldType::Quantity), Some(a), Some(b)) if same_quantity(a, b) => {}
            (Some(FieldType::Struct(index)), Some(Value::Object(a)), Some(Value::Object(b))) => {
                self.maps(Some(index.get()), a, b)
            }
            (_, Some(Value::Object(a)), Some(Value::Object(b))) => self.free_maps(kind, a, b),
            (
                Some(FieldType::List(element, ListKind::Keyed(keys, _))),
                Some(Value::Array(a)),
                Some(Value::Array(b)),
            ) => {
                self.keyed_lists(element, keys, a, b);
            }
            _ => self.change(old, new),
        }
    }

    fn free_maps(&mut self, kind: Option<&FieldType>, old: &Map<String, Value>, new: &Map<String, Value>) {
        let element = match kind {
            Some(FieldType::Map(element, _)) => Some(&**element),
            _ => None,
        };
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        for key in new.keys().chain(gone) {
            self.within(Segment::MapKey(key.clone()), |walk| walk.values(element, old.get(key), new.get(key)));
        }
    }

    /// Elements are matched by their keys; the n-th of equal keys with the n-th. A mere change of order is shown as one change of
    /// the whole list, since order has a meaning (init containers, variables).
    fn keyed_lists(&mut self, element: &FieldType, keys: &[&str], old: &[Value], new: &[Value]) {
        let before = self.changes.len();
        let old_keys = with_turns(keys, old);
        let new_keys = with_turns(keys, new);
        for (index, (key, value)) in new_keys.iter().zip(new).enumerate() {
            let was = old_keys.iter().position(|k| k == key).and_then(|position| old.get(position));
            self.within(Segment::Index(index), |walk| walk.values(Some(element), was, Some(value)));
        }
        for (index, (key, value)) in old_keys.iter().zip(old).enumerate() {
            if !new_keys.contains(key) {
                self.within(Segment::Index(index), |walk| walk.change(Some(value), None));
            }
        }
        if self.changes.len() == before && old_keys != new_keys {
            let (old, new) = (Value::from(old.to_vec()), Value::from(new.to_vec()));
            self.change(Some(&old), Some(&new));
        }
    }
}

/// A part of an element's key.
#[derive(Clone, Copy, PartialEq)]
enum Key<'a> {
    Absent,
    /// A port without a protocol is a TCP port.
    Tcp,
    Value(&'a Value),
}

impl<'a> Key<'a> {
    fn of(element: &'a Value, key: &str) -> Self {
        match element.get(key) {
            Some(value) if key == "protocol" && value == "TCP" => Self::Tcp,
            Some(value) => Self::Value(value),
            None if key == "protocol" => Self::Tcp,
            None => Self::Absent,
        }
    }
}

/// Each element's key, and which of the elements with this key it is.
fn with_turns<'a>(keys: &[&str], list: &'a [Value]) -> Vec<(Vec<Key<'a>>, usize)> {
    let mut seen: Vec<(Vec<Key<'_>>, usize)> = Vec::with_capacity(list.len());
    for value in list {
        let key: Vec<Key<'_>> = keys.iter().map(|key| Key::of(value, key)).collect();
        let turn = seen.iter().filter(|(known, _)| *known == key).count();
        seen.push((key, turn));
    }
    seen
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    match (crate::Quantity::from_value(a), crate::Quantity::from_value(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changes(old: Value, new: Value) -> Vec<String> {
        let (old, new) = (Object::from_value(old).unwrap(), Object::from_value(new).unwrap());
        diff(old.known_kind().unwrap(), &old, &new).iter().map(Change::to_string).collect()
    }

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn containers_are_matched_by_name() {
        let old = pod(json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}));
        let new = pod(json!({"containers": [{"name": "c", "image": "z"}, {"name": "a", "image": "x:2"}]}));
        assert_eq!(
            changes(old, new),
            [
                "spec.containers[0]: + {\"image\":\"z\",\"name\":\"c\"}",
                "spec.containers[1].image: \"x:1\" → \"x:2\"",
                "spec.containers[1]: - {\"image\":\"y\",\"name\":\"b\"}",
            ]
        );
    }

    #[test]
    fn order_is_a_change_and_spelling_is_none() {
        let one = |list: Value| pod(json!({"initContainers": list}));
        assert_eq!(
            changes(one(json!([{"name": "a"}, {"name": "b"}])), one(json!([{"name": "b"}, {"name": "a"}]))).len(),
            1
        );
        let ports = |port: Value| pod(json!({"containers": [{"name": "a", "ports": [port]}]}));
        let (bare, full) = (json!({"containerPort": 80}), json!({"containerPort": 80, "protocol": "TCP"}));
        assert_eq!(changes(ports(bare), ports(full)), ["spec.containers[0].ports[0].protocol: + \"TCP\""]);
        let limits = |cpu: &str| {
            pod(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": cpu}}}], "nodeName": null}))
        };
        assert!(changes(limits("1000m"), limits("1")).is_empty());
        assert_eq!(changes(limits("1"), limits("2")), ["spec.containers[0].resources.limits[cpu]: \"1\" → \"2\""]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "resourceVersion": data["a"]}, "data": data});
        assert_eq!(
            changes(secret(json!({"a": "aHVudGVyMg=="})), secret(json!({"a": "c2Vzc2Ft", "b": "eA=="}))),
            ["data[a]: \"<redacted>\" → \"<redacted>\"", "data[b]: + \"<redacted>\""]
        );
        let shown = redacted(&Object::from_value(secret(json!({"a": "aHVudGVyMg=="}))).unwrap());
        assert_eq!(shown.get_str("/data/a"), Some(REDACTED));
    }

    #[test]
    fn the_servers_fields_are_no_difference() {
        let one = |rv: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "resourceVersion": rv}});
        assert!(changes(one("1"), one("2")).is_empty());
    }
}
