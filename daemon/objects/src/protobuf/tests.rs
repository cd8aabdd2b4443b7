use super::*;
use crate::kind::kinds;
use crate::schema::{Field, FieldType, of_kind, types};
use proptest::prelude::*;
use serde_json::json;

/// Writes a varint.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    varint(out, u64::from(tag) << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn number(out: &mut Vec<u8>, tag: u8, value: i64) {
    varint(out, u64::from(tag) << 3);
    varint(out, value as u64);
}

/// A field with a value, wrapped into the messages that JSON flattens.
fn field(out: &mut Vec<u8>, field: &Field, value: &Value) {
    let path: Vec<u8> = field.number.path.iter().copied().take_while(|n| *n != 0).collect();
    let (tag, around) = path.split_last().unwrap();
    let mut own = Vec::new();
    match (&field.kind, value) {
        (FieldType::List(element, _), Value::Array(list)) => {
            list.iter().for_each(|item| one(&mut own, *tag, element, item))
        }
        (FieldType::Map(element, _), Value::Object(map)) => {
            for (key, item) in map {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, key.as_bytes());
                one(&mut entry, 2, element, item);
                bytes(&mut own, *tag, &entry);
            }
        }
        (kind, value) => one(&mut own, *tag, kind, value),
    }
    for tag in around.iter().rev() {
        let inner = std::mem::take(&mut own);
        bytes(&mut own, *tag, &inner);
    }
    out.extend(own);
}

fn one(out: &mut Vec<u8>, tag: u8, kind: &FieldType, value: &Value) {
    let mut inner = Vec::new();
    match (kind, value) {
        (FieldType::Int | FieldType::Int64, value) => return number(out, tag, value.as_i64().unwrap()),
        (FieldType::Bool, value) => return number(out, tag, i64::from(value.as_bool().unwrap())),
        (FieldType::String, value) => inner.extend(value.as_str().unwrap().bytes()),
        (FieldType::Quantity, value) => bytes(&mut inner, 1, value.as_str().unwrap().as_bytes()),
        (FieldType::IntOrString, Value::String(text)) => {
            number(&mut inner, 1, 1);
            bytes(&mut inner, 3, text.as_bytes());
        }
        (FieldType::IntOrString, value) => number(&mut inner, 2, value.as_i64().unwrap()),
        (FieldType::Struct(index), Value::Object(map)) => inner = message(index.get(), map),
        (FieldType::List(element, _), Value::Array(list)) => {
            list.iter().for_each(|item| one(&mut inner, 1, element, item))
        }
        (FieldType::Any, value) => bytes(&mut inner, 1, value.to_string().as_bytes()),
        other => panic!("no test value is like this: {other:?}"),
    }
    bytes(out, tag, &inner);
}

fn message(structure: &Type, map: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map {
        field(&mut out, structure.field(name).unwrap(), value);
    }
    out
}

fn type_of(name: &str) -> &'static Type {
    types().by_name(name).unwrap()
}

fn read(name: &str, message: &[u8]) -> Value {
    Value::Object(decode(type_of(name), message).unwrap().fields)
}

#[test]
fn every_field_of_every_message_is_found_by_its_number() {
    for structure in types().iter() {
        for f in structure.fields.iter().filter(|f| f.number.path[0] != 0) {
            let value = match sample(&f.kind) {
                Some(value) => value,
                None => continue,
            };
            let map = Map::from_iter([(f.name.to_owned(), value)]);
            let back = decode(structure, &message(structure, &map)).unwrap();
            assert_eq!(back.fields, map, "{} {}", structure.name, f.name);
        }
    }
}

/// A value of a type that is not its zero.
fn sample(kind: &FieldType) -> Option<Value> {
    Some(match kind {
        FieldType::String => json!("a"),
        FieldType::Int | FieldType::Int64 => json!(-7),
        FieldType::Bool => json!(true),
        FieldType::Quantity => json!("100m"),
        FieldType::IntOrString => json!("http"),
        FieldType::Any => json!({"a": [1, null]}),
        FieldType::Struct(_) => json!({}),
        FieldType::Map(element, _) => json!({"k": sample(element)?}),
        FieldType::List(element, _) => json!([sample(element)?]),
        FieldType::Time | FieldType::MicroTime | FieldType::Bytes | FieldType::Number | FieldType::SchemaOr(_) => {
            return None;
        }
    })
}

#[test]
fn times_keep_what_their_type_keeps() {
    let mut time = Vec::new();
    number(&mut time, 1, 1_767_323_045);
    number(&mut time, 2, 123_456_789);
    let mut event = Vec::new();
    for name in ["lastTimestamp", "eventTime"] {
        let tag = type_of("core.Event").field(name).unwrap().number.path[0];
        bytes(&mut event, tag, &time);
    }
    assert_eq!(
        read("core.Event", &event),
        json!({"lastTimestamp": "2026-01-02T03:04:05Z", "eventTime": "2026-01-02T03:04:05.123456Z"})
    );
}

#[test]
fn schemas_stand_beside_simpler_things() {
    let mut allows = Vec::new();
    number(&mut allows, 1, 1);
    let mut schema = Vec::new();
    bytes(
        &mut schema,
        2,
        &message(type_of("apiextensions.JSONSchemaProps"), json!({"type": "string"}).as_object().unwrap()),
    );
    let mut outer = Vec::new();
    bytes(&mut outer, 30, &allows);
    assert_eq!(read("apiextensions.JSONSchemaProps", &outer), json!({"additionalProperties": true}));
    let mut outer = Vec::new();
    bytes(&mut outer, 30, &schema);
    assert_eq!(read("apiextensions.JSONSchemaProps", &outer), json!({"additionalProperties": {"type": "string"}}));
}

#[test]
fn unknown_fields_are_named_and_wrong_forms_refused() {
    let mut spec = Vec::new();
    number(&mut spec, 99, 1);
    let mut pod = Vec::new();
    bytes(&mut pod, 2, &spec);
    assert_eq!(decode(type_of("core.Pod"), &pod).unwrap().unknown, ["spec.#99"]);

    let mut spec = Vec::new();
    bytes(&mut spec, 11, b"yes");
    let mut pod = Vec::new();
    bytes(&mut pod, 2, &spec);
    let error = decode(type_of("core.Pod"), &pod).unwrap_err();
    assert_eq!(error.to_string(), "proto: wrong wireType = 2 for field spec.hostNetwork");

    let mut name = Vec::new();
    bytes(&mut name, 1, b"\xff");
    let mut pod = Vec::new();
    bytes(&mut pod, 1, &name);
    let error = decode(type_of("core.Pod"), &pod).unwrap_err();
    assert_eq!(error.to_string(), "proto: field metadata.name contains invalid UTF-8");
}

#[test]
fn nesting_has_an_end() {
    let mut schema = Vec::new();
    for _ in 0..1000 {
        let inner = std::mem::take(&mut schema);
        bytes(&mut schema, 28, &inner);
    }
    assert_eq!(decode(type_of("apiextensions.JSONSchemaProps"), &schema).unwrap_err(), ProtobufError::TooDeep);
}

#[test]
fn envelopes_say_what_is_wrong_with_them() {
    assert_eq!(envelope(b"{}").unwrap_err(), ProtobufError::NoMagic);
    assert_eq!(envelope(b"k8s\0\x12\x05a").unwrap_err(), ProtobufError::Truncated);
    assert_eq!(envelope(b"k8s\0\x03").unwrap_err(), ProtobufError::Tag { tag: 0, wire_type: 3 });
    let mut gzip = MAGIC.to_vec();
    bytes(&mut gzip, 3, b"gzip");
    assert!(matches!(envelope(&gzip), Err(ProtobufError::Content(c)) if c == "gzip"));
    assert_eq!(envelope(&MAGIC).unwrap().kind, "");
}

fn text() -> impl Strategy<Value = Value> {
    "[a-zäß/]{1,6}".prop_map(Value::from)
}

prop_compose! {
    /// Something like a pod: most forms that values take.
    fn pod()(
        name in text(),
        labels in prop::collection::btree_map("[a-z]{1,4}", text(), 0..3),
        grace in any::<i64>(),
        host in any::<bool>(),
        ports in prop::collection::vec((1..i32::MAX, prop::option::of(text())), 0..3),
        limits in prop::collection::btree_map("[a-z]{1,4}", "[1-9]{1,3}m", 0..3),
    ) -> Value {
        let ports: Vec<Value> = ports
            .into_iter()
            .map(|(port, name)| match name {
                Some(name) => json!({"containerPort": port, "name": name}),
                None => json!({"containerPort": port}),
            })
            .collect();
        let mut container = json!({"name": "c", "resources": {}});
        if !ports.is_empty() {
            container["ports"] = json!(ports);
        }
        if !limits.is_empty() {
            container["resources"]["limits"] = json!(limits);
        }
        let mut pod = json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": grace, "containers": [container]}});
        if host {
            pod["spec"]["hostNetwork"] = true.into();
        }
        if !labels.is_empty() {
            pod["metadata"]["labels"] = json!(labels);
        }
        pod
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(pod in pod()) {
        let written = message(type_of("core.Pod"), pod.as_object().unwrap());
        prop_assert_eq!(read("core.Pod", &written), pod);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..60_usize) {
        drop(envelope(&bytes));
        let kind = kinds().iter().nth(kind).unwrap();
        drop(decode(of_kind(kind).unwrap(), &bytes));
    }

    #[test]
    fn no_damage_panics(pod in pod(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()) {
        let mut written = message(type_of("core.Pod"), pod.as_object().unwrap());
        drop(decode(type_of("core.Pod"), &written[..cut.index(written.len())]));
        let at = flip.0.index(written.len());
        written[at] ^= flip.1;
        drop(decode(type_of("core.Pod"), &written));
    }
}
