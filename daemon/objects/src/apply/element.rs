//! The steps of a field path as managedFields write them:
//!
//! | text | means | printed |
//! |---|---|---|
//! | `f:name` | a field of a map | `.name` |
//! | `k:{"name":"x"}` | the element of a list that has these fields | `[name="x"]` |
//! | `v:"x"` | the element of a list that is this scalar | `[="x"]` |
//! | `i:3` | an element by place (nobody writes these) | `[3]` |
//!
//! The texts are the keys of [`super::set::FieldSet`]. Ours are canonical: one text for one step.

use crate::{json, schema::Elements};
use serde_json::Value;

/// `f:name`
pub(super) fn field(name: &str) -> String {
    ["f:", name].concat()
}

/// The name in `f:name`.
pub(super) fn field_name(step: &str) -> Option<&str> {
    step.strip_prefix("f:")
}

/// The step to an element of a list.
///
/// # Errors
/// The element has nothing that tells it apart; the text is the reference's.
pub(super) fn element(elements: Elements<'_>, value: &Value) -> Result<String, &'static str> {
    match (elements.keys, value) {
        (None, Value::Object(_)) => Err("associative list without keys has an element that's a map type"),
        (None, Value::Array(_)) => Err("not supported: associative list with lists as elements"),
        (None, Value::Null) => Err("associative list without keys has an element that's an explicit null"),
        (None, scalar) => Ok(text_of("v:", scalar)),
        (Some(_), Value::Null) => Err("associative list with keys may not have a null element"),
        (Some(keys), Value::Object(map)) => {
            let mut fields: Vec<(&str, Value)> = Vec::new();
            let mut step = String::with_capacity(32);
            step.push_str("k:{");
            if keys.is_sorted() {
                for key in keys {
                    push_key(&mut step, key, map.get(*key), || elements.view.key_default(key));
                }
            } else {
                let given = |key: &str| map.get(key).cloned().or_else(|| elements.view.key_default(key));
                fields.extend(keys.iter().filter_map(|key| Some((*key, given(key)?))));
                fields.sort_unstable_by_key(|(key, _)| *key);
                fields.iter().for_each(|(key, value)| push_key(&mut step, key, Some(value), || None));
            }
            if step.len() == "k:{".len() {
                return Err("associative list with keys has an element that omits all key fields");
            }
            step.push('}');
            Ok(step)
        }
        (Some(_), _) => Err("associative list with keys may not have non-map elements"),
    }
}

fn push_key(step: &mut String, key: &str, value: Option<&Value>, default: impl FnOnce() -> Option<Value>) {
    let owned;
    let value = match value {
        Some(value) => value,
        None => {
            let Some(value) = default() else { return };
            owned = value;
            &owned
        }
    };
    if !step.ends_with('{') {
        step.push(',');
    }
    push_text(step, key);
    step.push(':');
    push_json(step, value);
}

fn text_of(prefix: &str, value: &Value) -> String {
    let mut step = prefix.to_owned();
    push_json(&mut step, value);
    step
}

fn push_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => push_text(out, text),
        other => out.push_str(&other.to_string()),
    }
}

/// JSON text; most needs no escapes.
fn push_text(out: &mut String, text: &str) {
    if json::is_plain(text) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// A step that somebody sent.
pub(super) enum Sent {
    /// In its canonical text.
    Known(String),
    /// A kind of step that we don't know: left out, as the reference does.
    Unknown,
}

/// Reads a step that somebody sent.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(step: &str) -> Result<Sent, String> {
    let Some((kind, rest)) = step.split_at_checked(2) else {
        return Err("key must be 2 characters long:".to_owned());
    };
    let json = || serde_json::from_str::<Value>(rest).map_err(|e| e.to_string());
    Ok(match kind {
        "f:" => Sent::Known(step.to_owned()),
        "v:" => Sent::Known(text_of("v:", &json()?)),
        // The keys of a map are sorted when it is printed.
        "k:" if json()?.is_object() => Sent::Known(text_of("k:", &json()?)),
        "k:" => return Err(format!("expected a map: {step}")),
        "i:" => Sent::Known(format!("i:{}", rest.parse::<i64>().map_err(|e| e.to_string())?)),
        _ if kind.ends_with(':') => Sent::Unknown,
        _ => return Err(format!("missing colon: {step}")),
    })
}

/// A step as people read it.
pub(super) fn print(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        Some(("k:", keys)) => match serde_json::from_str::<Value>(keys) {
            Ok(Value::Object(map)) => {
                let fields: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", fields.join(","))
            }
            _ => format!("[{keys}]"),
        },
        _ => step.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kind::kinds,
        schema::{Shape, View},
    };
    use serde_json::json;

    fn ports() -> Elements<'static> {
        let pod = View::of_kind(kinds().by_gvk("v1", "Pod").unwrap());
        let container = pod.child("spec").unwrap().view.child("containers").unwrap().view.element();
        let Shape::List(elements) = container.child("ports").unwrap().view.shape(&json!([])) else { panic!("no list") };
        elements
    }

    #[test]
    fn elements_are_named_by_their_keys_and_the_keys_defaults() {
        let step = |value: Value| element(ports(), &value).unwrap();
        assert_eq!(step(json!({"containerPort": 80})), r#"k:{"containerPort":80,"protocol":"TCP"}"#);
        assert_eq!(step(json!({"containerPort": 80, "protocol": "UDP"})), r#"k:{"containerPort":80,"protocol":"UDP"}"#);
        assert_eq!(step(json!({})), r#"k:{"containerPort":0,"protocol":"TCP"}"#);
        let scalars = Elements { view: View::Untyped, keys: None };
        assert_eq!(element(scalars, &json!("a\"b")).unwrap(), r#"v:"a\"b""#);
        let keyed = Elements { view: View::Untyped, keys: Some(&["b", "a"]) };
        assert_eq!(element(keyed, &json!({"a": 1, "b": null})).unwrap(), r#"k:{"a":1,"b":null}"#);
        assert!(element(keyed, &json!({"c": 1})).is_err());
        assert!(element(keyed, &json!(null)).is_err());
    }

    #[test]
    fn steps_are_read_in_any_spelling() {
        for (sent, canonical) in [
            (r#"k:{ "protocol":"TCP", "containerPort":80 }"#, r#"k:{"containerPort":80,"protocol":"TCP"}"#),
            (r#"v:"\u0061""#, r#"v:"a""#),
            ("f:a.b", "f:a.b"),
            ("i:03", "i:3"),
        ] {
            assert!(matches!(parse(sent), Ok(Sent::Known(step)) if step == canonical), "{sent}");
        }
        assert!(matches!(parse("x:1"), Ok(Sent::Unknown)));
        for bad in ["", "f", "ab", "k:1", "k:{", "v:", "i:x", "é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_are_printed_as_the_reference_prints_them() {
        assert_eq!(print("f:data"), ".data");
        assert_eq!(print(r#"k:{"containerPort":80,"protocol":"TCP"}"#), r#"[containerPort=80,protocol="TCP"]"#);
        assert_eq!(print(r#"v:"x.io/y""#), r#"[="x.io/y"]"#);
        assert_eq!(print("i:3"), "[3]");
    }
}
