//! Merge patch (RFC 7396).

use super::{
    PatchError,
    json::{decoding, not_a},
};
use serde_json::Value;

/// Applies a merge patch that a client sent.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no map: it would replace the whole object by something that is none.
pub fn merge(doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(_) => {
            merge_patch(doc, patch);
            Ok(())
        }
        Value::Null => Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
        other => Err(decoding(not_a("Go value of type map[string]interface {}", other))),
    }
}

/// Applies an RFC 7396 merge patch: maps merge, null removes, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary::{map, value};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn examples_of_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut value = target.clone();
            merge_patch(&mut value, &patch);
            assert_eq!(value, result, "{target} {patch}");
        }
    }

    /// The merge patch that makes `to` out of `from`, when neither holds nulls.
    fn difference(from: &Value, to: &Value) -> Value {
        let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
        let gone = a.keys().filter(|key| !b.contains_key(*key)).map(|key| (key.clone(), Value::Null));
        let changed = b.iter().filter(|(key, value)| a.get(*key) != Some(value));
        let changed = changed
            .map(|(key, value)| (key.clone(), a.get(key).map_or_else(|| value.clone(), |old| difference(old, value))));
        Value::Object(gone.chain(changed).collect())
    }

    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.into_iter().filter(|(_, value)| !value.is_null());
                Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
            }
            Value::Array(list) => Value::from(list.into_iter().map(without_nulls).collect::<Vec<_>>()),
            other => other,
        }
    }

    #[test]
    fn a_patch_that_is_no_map_is_malformed() {
        let why = |patch: Value| merge(&mut json!({}), &patch).unwrap_err().to_string();
        assert_eq!(
            why(json!([1])),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert_eq!(why(Value::Null), "Invalid JSON Patch");
    }

    proptest! {
        #[test]
        fn the_difference_of_two_documents_makes_one_of_the_other(from in map(), to in map()) {
            let (mut from, to) = (without_nulls(from), without_nulls(to));
            let patch = difference(&from, &to);
            merge_patch(&mut from, &patch);
            prop_assert_eq!(from, to);
        }

        #[test]
        fn patching_twice_is_patching_once(target in value(), patch in value()) {
            let mut once = target;
            merge_patch(&mut once, &patch);
            let mut twice = once.clone();
            merge_patch(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
