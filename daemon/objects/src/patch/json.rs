//! JSON patch (RFC 6902), with the leniency that clients of kube-apiserver know:
//!
//! * `replace` of a missing map key adds it;
//! * a list index may be negative and counts from the end then (`-1` is the last element, for `add` the place after it);
//! * absent and null are the same to `test` and as `value`;
//! * what stands before the first `/` of a path is ignored, and the whole document can't be addressed.

use super::PatchError;
use serde_json::{Map, Value};

/// As many operations as a patch may have (Kubernetes' limit).
const MAX_OPERATIONS: usize = 10_000;
/// As many bytes of JSON as all `copy` operations of a patch may add (Kubernetes' limit).
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Carries out the operations of `patch`, a JSON array, on `doc` in order. A null patch has no operations.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no list of operations, [`PatchError::Rejected`] when one can't be carried out,
/// [`PatchError::TooLarge`].
pub fn json(doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(decoding(not_a("Go value of type []handlers.jsonPatchOp", other))),
    };
    // Malformed operations are found before any is carried out.
    let operations = operations.iter().map(Operation::parse).collect::<Result<Vec<_>, _>>().map_err(decoding)?;
    if operations.len() > MAX_OPERATIONS {
        let found = operations.len();
        let text = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}");
        return Err(PatchError::TooLarge(text));
    }
    let mut copied = 0;
    operations.iter().try_for_each(|operation| operation.carry_out(doc, &mut copied))
}

/// The fields that no operation has: `unknown field "[0].valeu"`.
pub fn unknown_fields(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    let fields =
        operations.flat_map(|(index, op)| op.as_object().into_iter().flatten().map(move |(name, _)| (index, name)));
    fields
        .filter(|(_, name)| !matches!(name.as_str(), "op" | "path" | "from" | "value"))
        .map(|(index, name)| format!("unknown field \"[{index}].{name}\""))
        .collect()
}

/// One operation, as it was sent.
#[derive(Default)]
struct Operation<'a> {
    op: Option<&'a str>,
    path: Option<&'a str>,
    from: Option<&'a str>,
    value: Option<&'a Value>,
}

impl<'a> Operation<'a> {
    fn parse(value: &'a Value) -> Result<Self, PatchError> {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => return Ok(Self::default()),
            other => return Err(not_a("Go value of type handlers.jsonPatchOp", other)),
        };
        let text = |field: &str| match map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(not_a(&format!("Go struct field jsonPatchOp.{field} of type string"), other)),
        };
        let value = map.get("value").filter(|value| !value.is_null());
        Ok(Self { op: text("op")?, path: text("path")?, from: text("from")?, value })
    }

    fn carry_out(&self, doc: &mut Value, copied: &mut usize) -> Result<(), PatchError> {
        match self.op.unwrap_or("unknown") {
            "add" => self.target(doc)?.add(self.value().clone()),
            "replace" => self.target(doc)?.replace(self.value().clone()),
            "remove" => self.target(doc)?.remove().map(drop),
            "test" => self.test(doc),
            "move" => {
                let value = self.source(doc)?.remove()?;
                self.target(doc)?.add(value)
            }
            "copy" => {
                let value = self.source(doc)?.get()?.cloned().unwrap_or(Value::Null);
                *copied = copied.saturating_add(size(&value));
                if *copied > MAX_COPIED {
                    return Err(rejected(format!("copying more than {MAX_COPIED} bytes")));
                }
                self.target(doc)?.add(value)
            }
            other => Err(rejected(format!("Unexpected kind: {other}"))),
        }
    }

    fn value(&self) -> &'a Value {
        self.value.unwrap_or(&Value::Null)
    }

    fn test(&self, doc: &mut Value) -> Result<(), PatchError> {
        let found = self.target(doc)?.get()?.filter(|value| !value.is_null());
        let equal = match (found, self.value) {
            (Some(found), Some(wanted)) => same(found, wanted),
            (found, wanted) => found.is_none() && wanted.is_none(),
        };
        if equal { Ok(()) } else { Err(rejected(format!("testing path {} failed", self.path.unwrap_or_default()))) }
    }

    fn target<'d>(&self, doc: &'d mut Value) -> Result<Place<'d>, PatchError> {
        Place::find(doc, "path", self.path)
    }

    fn source<'d>(&self, doc: &'d mut Value) -> Result<Place<'d>, PatchError> {
        Place::find(doc, "from", self.from)
    }
}

/// A place in a document: the container, which exists, and what is or would be in it.
enum Place<'d> {
    InMap(&'d mut Map<String, Value>, String),
    InList(&'d mut Vec<Value>, String),
}

impl<'d> Place<'d> {
    fn find(doc: &'d mut Value, field: &str, path: Option<&str>) -> Result<Self, PatchError> {
        let path = path.ok_or_else(|| rejected(format!("{field} is missing")))?;
        let missing = || rejected(format!("doc is missing path: {path:?}"));
        let (_, tokens) = path.split_once('/').ok_or_else(missing)?;
        let (parents, last) = tokens.rsplit_once('/').map_or((None, tokens), |(parents, last)| (Some(parents), last));
        let mut at = doc;
        for token in parents.into_iter().flat_map(|parents| parents.split('/')) {
            at = match at {
                Value::Object(map) => map.get_mut(&unescape(token)).ok_or_else(missing)?,
                Value::Array(list) => {
                    let index = index(&unescape(token), list.len())?;
                    list.get_mut(index).ok_or_else(missing)?
                }
                _ => return Err(missing()),
            };
        }
        match at {
            Value::Object(map) => Ok(Self::InMap(map, unescape(last))),
            Value::Array(list) => Ok(Self::InList(list, unescape(last))),
            _ => Err(missing()),
        }
    }

    fn get(self) -> Result<Option<&'d Value>, PatchError> {
        match self {
            Self::InMap(map, key) => Ok(map.get(&key)),
            Self::InList(list, key) => Ok(list.get(index(&key, list.len())?)),
        }
    }

    fn add(self, value: Value) -> Result<(), PatchError> {
        match self {
            Self::InMap(map, key) => {
                map.insert(key, value);
            }
            Self::InList(list, key) if key == "-" => list.push(value),
            Self::InList(list, key) => {
                let index = index(&key, list.len().saturating_add(1))?;
                list.insert(index, value);
            }
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), PatchError> {
        match self {
            Self::InMap(map, key) => {
                map.insert(key, value);
            }
            Self::InList(list, key) => {
                let index = index(&key, list.len())?;
                if let Some(element) = list.get_mut(index) {
                    *element = value;
                }
            }
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, PatchError> {
        match self {
            Self::InMap(map, key) => {
                map.remove(&key).ok_or_else(|| rejected(format!("Unable to remove nonexistent key: {key}")))
            }
            Self::InList(list, key) => {
                let index = index(&key, list.len())?;
                Ok(list.remove(index))
            }
        }
    }
}

/// The index that `token` means in a list of `length` elements: always less than `length`.
fn index(token: &str, length: usize) -> Result<usize, PatchError> {
    let wanted: i64 = token.parse().map_err(|_| rejected(format!("value was not a proper array index: '{token}'")))?;
    let from_start = match usize::try_from(wanted) {
        Ok(index) => Some(index),
        Err(_) => usize::try_from(wanted.unsigned_abs()).ok().and_then(|back| length.checked_sub(back)),
    };
    from_start
        .filter(|index| *index < length)
        .ok_or_else(|| rejected(format!("Unable to access invalid index: {wanted}")))
}

/// Equal as JSON: numbers by value, null as absent.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// About how many bytes a value takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len().saturating_add(2),
        Value::Array(list) => list.iter().map(size).fold(2, usize::saturating_add),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| key.len().saturating_add(4).saturating_add(size(value)))
            .fold(2, usize::saturating_add),
    }
}

fn unescape(token: &str) -> String {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~") } else { token.to_owned() }
}

fn rejected(why: String) -> PatchError {
    PatchError::Rejected(why)
}

/// The same, as JSON and merge patches have it.
pub(super) fn decoding(error: PatchError) -> PatchError {
    match error {
        PatchError::Malformed(why) => PatchError::Malformed(format!("error decoding patch: {why}")),
        other => other,
    }
}

/// The reference's words for a patch of the wrong JSON type.
pub(super) fn not_a(wanted: &str, found: &Value) -> PatchError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    PatchError::Malformed(format!("json: cannot unmarshal {found} into {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(doc: Value, patch: Value) -> Result<Value, PatchError> {
        let mut doc = doc;
        json(&mut doc, &patch).map(|()| doc)
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        for (doc, patch, result) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), json!({"a": 1, "b": 2})),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/a"}]), json!({"b": 2})),
            (json!({"a": [1, 2, 3]}), json!([{"op": "remove", "path": "/a/1"}]), json!({"a": [1, 3]})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": 2}]), json!({"a": 2})),
            (
                json!({"a": {"b": 1}, "c": {}}),
                json!([{"op": "move", "from": "/a/b", "path": "/c/d"}]),
                json!({"a": {}, "c": {"d": 1}}),
            ),
            (json!({"a": [1, 2, 3]}), json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]), json!({"a": [2, 3, 1]})),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "copy", "from": "/a", "path": "/c"}]),
                json!({"a": {"b": 1}, "c": {"b": 1}}),
            ),
            (
                json!({"a/b": 1, "~": 2}),
                json!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/~0"}]),
                json!({}),
            ),
            (json!({"a": 1.0}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1.0})),
            (json!({"": {"": 1}}), json!([{"op": "replace", "path": "//", "value": 2}]), json!({"": {"": 2}})),
        ] {
            assert_eq!(patched(doc.clone(), patch.clone()), Ok(result), "{doc} {patch}");
        }
    }

    #[test]
    fn what_only_kubernetes_accepts_is_accepted() {
        for (doc, patch, result) in [
            (
                json!({"data": {}}),
                json!([{"op": "replace", "path": "/data/none", "value": "1"}]),
                json!({"data": {"none": "1"}}),
            ),
            (json!({"a": [1, 2]}), json!([{"op": "replace", "path": "/a/-1", "value": 3}]), json!({"a": [1, 3]})),
            (json!({"a": [1, 2]}), json!([{"op": "add", "path": "/a/-1", "value": 3}]), json!({"a": [1, 2, 3]})),
            (json!({}), json!([{"op": "test", "path": "/a", "value": null}]), json!({})),
            (json!({}), json!([{"op": "test", "path": "/a"}]), json!({})),
            (json!({"a": 1}), json!([{"op": "remove", "path": "x/a"}]), json!({})),
            (json!({}), json!([{"op": "add", "path": "/a"}]), json!({"a": null})),
            (json!({}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"b": null})),
            (json!({"a": 1}), Value::Null, json!({"a": 1})),
        ] {
            assert_eq!(patched(doc.clone(), patch.clone()), Ok(result), "{doc} {patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "replace", "path": "/none/deeper", "value": 1}]),
            json!([{"op": "replace", "path": "/list/2", "value": 1}]),
            json!([{"op": "replace", "path": "/list/-3", "value": 1}]),
            json!([{"op": "add", "path": "/list/3", "value": 1}]),
            json!([{"op": "add", "path": "/list/x", "value": 1}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "add", "path": "/a/b", "value": {}}]),
            json!([{"op": "move", "from": "/none", "path": "/b"}]),
            json!([{"op": "copy", "path": "/b"}]),
            json!([{"op": "chmod", "path": "/b"}]),
            json!([{"path": "/b"}]),
            json!([null]),
        ] {
            let result = patched(json!({"a": 1, "list": [1, 2]}), patch.clone());
            assert!(matches!(result, Err(PatchError::Rejected(_))), "{patch} {result:?}");
        }
    }

    #[test]
    fn unknown_fields_are_named() {
        let patch =
            json!([{"op": "add", "path": "/a", "value": {"x": 1}}, {"op": "remove", "path": "/a", "valeu": 1}, 3]);
        assert_eq!(unknown_fields(&patch), ["unknown field \"[1].valeu\""]);
    }

    #[test]
    fn malformed_patches_say_so_in_the_references_words() {
        let why = |patch: Value| patched(json!({}), patch).unwrap_err().to_string();
        assert_eq!(
            why(json!({"x": 1})),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
        assert_eq!(
            why(json!(["x"])),
            "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp"
        );
        assert_eq!(
            why(json!([{"op": "add", "path": 5}])),
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string"
        );
        let many = Value::from(vec![json!({"op": "test", "path": "/a"}); 10_001]);
        assert_eq!(why(many), "The allowed maximum operations in a JSON patch is 10000, got 10001");
        let text = "x".repeat(1024 * 1024);
        let mut doc = json!({"a": text});
        let copies = Value::from(vec![json!({"op": "copy", "from": "/a", "path": "/b"}); 3]);
        assert!(matches!(json(&mut doc, &copies), Err(PatchError::Rejected(_))));
    }

    /// The operations that make `to` out of `from`.
    fn difference(path: &str, from: &Value, to: &Value, out: &mut Vec<Value>) {
        match (from, to) {
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in b {
                    let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                    match a.get(key) {
                        Some(old) => difference(&path, old, value, out),
                        None => out.push(json!({"op": "add", "path": path, "value": value})),
                    }
                }
                for key in a.keys().filter(|key| !b.contains_key(*key)) {
                    let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                    out.push(json!({"op": "remove", "path": path}));
                }
            }
            (Value::Array(a), Value::Array(b)) => {
                for (index, (old, new)) in a.iter().zip(b).enumerate() {
                    difference(&format!("{path}/{index}"), old, new, out);
                }
                out.extend(
                    b.iter().skip(a.len()).map(|new| json!({"op": "add", "path": format!("{path}/-"), "value": new})),
                );
                out.extend((b.len()..a.len()).map(|_| json!({"op": "remove", "path": format!("{path}/-1")})));
            }
            _ if from != to => out.push(json!({"op": "replace", "path": path, "value": to})),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn the_difference_of_two_documents_makes_one_of_the_other(from in super::super::arbitrary::map(), to in super::super::arbitrary::map()) {
            let mut operations = Vec::new();
            difference("", &from, &to, &mut operations);
            prop_assert_eq!(patched(from, Value::from(operations)), Ok(to));
        }

        #[test]
        fn nothing_panics(doc in super::super::arbitrary::value(), patch in super::super::arbitrary::json_patch(), any in super::super::arbitrary::value()) {
            let mut copy = doc.clone();
            let _ = json(&mut copy, &patch);
            let mut copy = doc;
            let _ = json(&mut copy, &any);
        }
    }
}
