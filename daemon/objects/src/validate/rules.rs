//! Rules that many kinds share.

use crate::field::{FieldError, FieldPath};
use serde_json::Value;

pub(super) type Errors = Vec<FieldError>;

/// The text at `key`; empty when absent.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `key`; empty when absent.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The list at `key` with each element's path.
pub(super) fn items<'a>(value: &'a Value, path: &FieldPath, key: &str) -> impl Iterator<Item = (FieldPath, &'a Value)> {
    let path = path.child(key);
    list(value, key).iter().enumerate().map(move |(index, item)| (path.index(index), item))
}

/// The map at `key`; empty when absent.
pub(super) fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    value.get(key).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key) == Some(&Value::Bool(true))
}

/// One error for each of `problems`.
pub(super) fn invalid_all(path: &FieldPath, value: &str, problems: Vec<String>, errors: &mut Errors) {
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(path, value, problem)));
}

/// A text that must be there; is it?
pub(super) fn require(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) -> bool {
    let there = !text(value, key).is_empty();
    if !there {
        errors.push(FieldError::required(&path.child(key), ""));
    }
    there
}

/// A name that must be there and follow a rule.
pub(super) fn require_name(
    value: &Value,
    path: &FieldPath,
    key: &str,
    rule: fn(&str) -> Vec<String>,
    errors: &mut Errors,
) {
    if require(value, path, key, errors) {
        invalid_all(&path.child(key), text(value, key), rule(text(value, key)), errors);
    }
}

/// A name that follows a rule when it is there.
pub(super) fn optional_name(
    value: &Value,
    path: &FieldPath,
    key: &str,
    rule: fn(&str) -> Vec<String>,
    errors: &mut Errors,
) {
    let name = text(value, key);
    if !name.is_empty() {
        invalid_all(&path.child(key), name, rule(name), errors);
    }
}

/// A text that, when it is there, is one of `allowed` (in the reference's alphabetical order).
pub(super) fn one_of(value: &Value, path: &FieldPath, key: &str, allowed: &[&str], errors: &mut Errors) {
    let found = text(value, key);
    if !found.is_empty() && !allowed.contains(&found) {
        errors.push(FieldError::not_supported(&path.child(key), found, allowed));
    }
}

/// A number that, when it is there, lies in a range.
pub(super) fn in_range(
    value: &Value,
    path: &FieldPath,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
    errors: &mut Errors,
) {
    if let Some(number) = value.get(key).and_then(Value::as_i64)
        && !range.contains(&number)
    {
        let message = format!("must be between {} and {}, inclusive", range.start(), range.end());
        errors.push(FieldError::invalid(&path.child(key), number, message));
    }
}

/// A number that, when it is there, is not negative.
pub(super) fn not_negative(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) {
    if let Some(number) = value.get(key).and_then(Value::as_i64)
        && number < 0
    {
        errors.push(FieldError::invalid(&path.child(key), number, "must be greater than or equal to 0"));
    }
}

/// A port number that must be there.
pub(super) fn port(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) {
    match value.get(key).and_then(Value::as_i64) {
        None | Some(0) => errors.push(FieldError::required(&path.child(key), "")),
        Some(_) => in_range(value, path, key, 1..=65535, errors),
    }
}

/// A port number or the name of one.
pub(super) fn port_or_name(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) {
    match value.get(key) {
        Some(Value::String(name)) => invalid_all(&path.child(key), name, crate::names::port_name(name), errors),
        Some(Value::Number(_)) => in_range(value, path, key, 1..=65535, errors),
        _ => {}
    }
}

/// An IP address that, when it is there, is one.
pub(super) fn ip(address: &str, path: &FieldPath, errors: &mut Errors) {
    if address.parse::<std::net::IpAddr>().is_err() {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, address, message));
    }
}

/// A map of labels (or a node selector).
pub(super) fn labels(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) {
    let path = path.child(key);
    for (key, value) in entries(value, key) {
        invalid_all(&path, key, crate::names::qualified_name(key), errors);
        let value = value.as_str().unwrap_or_default();
        invalid_all(&path, value, crate::names::label_value(value), errors);
    }
}

/// A path inside a volume: relative, and not leading out of it.
pub(super) fn relative_path(path_text: &str, path: &FieldPath, errors: &mut Errors) {
    if path_text.starts_with('/') {
        errors.push(FieldError::invalid(path, path_text, "must be a relative path"));
    }
    no_backsteps(path_text, path, errors);
}

/// No `..` among the parts of a path.
pub(super) fn no_backsteps(path_text: &str, path: &FieldPath, errors: &mut Errors) {
    if path_text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, path_text, "must not contain '..'"));
    }
}

/// A label selector with matchLabels and matchExpressions.
pub(super) fn label_selector(selector: &Value, path: &FieldPath, errors: &mut Errors) {
    labels(selector, path, "matchLabels", errors);
    for (at, expression) in items(selector, path, "matchExpressions") {
        let values = list(expression, "values").len();
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => {
                errors.push(FieldError::required(
                    &at.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
        let key = text(expression, "key");
        invalid_all(&at.child("key"), key, crate::names::qualified_name(key), errors);
    }
}
