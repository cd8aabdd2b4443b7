//! Random documents and patches for property tests.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON value over few keys, so that documents and patches meet.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3i64).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]", 1 => Just("a/b~".to_owned()), 1 => Just(String::new())]
}

/// Any map.
pub(crate) fn map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), value(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// A list of operations that mostly are well-formed.
pub(crate) fn json_patch() -> impl Strategy<Value = Value> {
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "x"]);
    let path = prop_oneof![4 => "(/([abc]|0|1|-1|-|~1|)){0,3}", 1 => ".{0,4}"];
    let operation = (op, path.clone(), path, value())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
    prop::collection::vec(prop_oneof![8 => operation, 1 => value()], 0..5).prop_map(Value::from)
}
