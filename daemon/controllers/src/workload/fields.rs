//! Reading fields of objects that admission has checked: what is missing has its default.

use chrono::{DateTime, Utc};
use reddwarf_objects::Object;
use reddwarf_objects::object::timestamp;
use serde_json::{Map, Value, json};

/// A whole number, or the default.
pub(crate) fn number(object: &Object, pointer: &str, default: i64) -> i64 {
    object.get(pointer).and_then(Value::as_i64).unwrap_or(default)
}

/// A boolean that is true.
pub(crate) fn is_true(object: &Object, pointer: &str) -> bool {
    object.get(pointer) == Some(&Value::Bool(true))
}

/// A number, or a percentage of `total` (rounded up or down).
pub(crate) fn scaled(value: Option<&Value>, default: &Value, total: i64, up: bool) -> i64 {
    let read = |value: &Value| match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().ok()?;
            let hundredths = percent.saturating_mul(total);
            Some(if up { hundredths.saturating_add(99).div_euclid(100) } else { hundredths.div_euclid(100) })
        }
        other => other.as_i64(),
    };
    value.and_then(read).or_else(|| read(default)).unwrap_or(0)
}

/// A condition of `status.conditions`.
pub(crate) fn condition<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
}

/// A text field; empty when it is not there.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The conditions of an object's status.
pub(crate) fn conditions(object: &Object) -> Vec<Value> {
    object.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// What a condition is to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Sets a condition. Its transition time changes only with its status; other times (`lastUpdateTime`, `lastProbeTime`) as
/// named in `touched` are set when anything of it changes.
pub(crate) fn set_condition(conditions: &mut Vec<Value>, wanted: Wanted<'_>, touched: &[&str], now: DateTime<Utc>) {
    let Wanted { kind, status, reason, message } = wanted;
    let old = condition(conditions, kind);
    let same = |c: &Value| text(c, "status") == status && text(c, "reason") == reason && text(c, "message") == message;
    if old.is_some_and(same) {
        return;
    }
    let now = timestamp(now);
    let since = old.filter(|c| text(c, "status") == status).map(|c| text(c, "lastTransitionTime").to_owned());
    let mut new = Map::new();
    new.insert("type".into(), json!(kind));
    new.insert("status".into(), json!(status));
    for field in touched {
        new.insert((*field).to_owned(), json!(now));
    }
    new.insert("lastTransitionTime".into(), json!(since.filter(|s| !s.is_empty()).unwrap_or(now)));
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            new.insert(field.into(), json!(value));
        }
    }
    match conditions.iter_mut().find(|c| text(c, "type") == kind) {
        Some(place) => *place = Value::Object(new),
        None => conditions.push(Value::Object(new)),
    }
}

/// Sets a condition and its `touched` times even when it says what it said: something moved.
pub(crate) fn touch_condition(conditions: &mut Vec<Value>, wanted: Wanted<'_>, touched: &[&str], now: DateTime<Utc>) {
    let place = conditions.iter().position(|c| text(c, "type") == wanted.kind);
    let since = place.and_then(|at| conditions.get(at)).filter(|c| text(c, "status") == wanted.status).cloned();
    if let Some(old) = place.and_then(|at| conditions.get_mut(at)) {
        old["message"] = Value::Null;
    }
    set_condition(conditions, wanted, touched, now);
    if let (Some(old), Some(new)) = (since, place.and_then(|at| conditions.get_mut(at))) {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
}

/// Takes a condition away.
pub(crate) fn remove_condition(conditions: &mut Vec<Value>, kind: &str) {
    conditions.retain(|c| text(c, "type") != kind);
}

/// A status with the fields of `set` put over the one that is there; null takes a field away.
pub(crate) fn status_with(object: &Object, set: Value) -> Value {
    let mut status = object.status().and_then(Value::as_object).cloned().unwrap_or_default();
    for (field, value) in set.as_object().cloned().unwrap_or_default() {
        match value {
            Value::Null => drop(status.remove(&field)),
            value => drop(status.insert(field, value)),
        }
    }
    Value::Object(status)
}

/// A count as the reference prints it: zeros are left out.
pub(crate) fn count(number: usize) -> Value {
    if number == 0 { Value::Null } else { json!(number) }
}

/// The same for a number that may not be negative.
pub(crate) fn positive(number: i64) -> Value {
    if number <= 0 { Value::Null } else { json!(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        for (value, total, up, expected) in [
            (json!("25%"), 10, true, 3),
            (json!("25%"), 10, false, 2),
            (json!(4), 10, true, 4),
            (json!("100%"), 3, false, 3),
        ] {
            assert_eq!(scaled(Some(&value), &json!(0), total, up), expected, "{value}");
        }
        assert_eq!(scaled(None, &json!("25%"), 4, false), 1);
    }

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let at = |s: i64| DateTime::from_timestamp(s, 0).unwrap();
        let mut all = Vec::new();
        let wanted = |status: &'static str, reason| Wanted { kind: "A", status, reason, message: "" };
        set_condition(&mut all, wanted("True", "x"), &["lastUpdateTime"], at(0));
        set_condition(&mut all, wanted("True", "x"), &["lastUpdateTime"], at(5));
        assert_eq!(text(&all[0], "lastUpdateTime"), "1970-01-01T00:00:00Z", "nothing changed");
        set_condition(&mut all, wanted("True", "y"), &["lastUpdateTime"], at(5));
        assert_eq!(text(&all[0], "lastTransitionTime"), "1970-01-01T00:00:00Z");
        assert_eq!(text(&all[0], "lastUpdateTime"), "1970-01-01T00:00:05Z");
        set_condition(&mut all, wanted("False", "y"), &[], at(9));
        assert_eq!(text(&all[0], "lastTransitionTime"), "1970-01-01T00:00:09Z");
        assert_eq!(all.len(), 1);
    }
}
