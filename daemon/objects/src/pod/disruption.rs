//! The mark of a pod that goes for no fault of its own.

use crate::object::{Object, timestamp};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

const KIND: &str = "DisruptionTarget";

/// Says on a pod why it is about to go, for whoever counts failures: a disruption is none. The time stays that of the first word.
pub fn set_disruption_target(pod: &mut Object, reason: &str, message: &str, now: DateTime<Utc>) {
    let mut conditions = pod.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |condition: &Value, field: &str, text: &str| condition.get(field).and_then(Value::as_str) == Some(text);
    let place = conditions.iter().position(|condition| is(condition, "type", KIND));
    let old = place.and_then(|at| conditions.get(at));
    let says = |condition: &&Value| is(condition, "reason", reason) && is(condition, "message", message);
    let holds = old.filter(|condition| is(condition, "status", "True"));
    if holds.filter(says).is_some() {
        return;
    }
    let since = holds.and_then(|condition| condition.get("lastTransitionTime")).filter(|time| !time.is_null()).cloned();
    let mut new = Map::new();
    for (field, text) in [("type", KIND), ("status", "True"), ("reason", reason), ("message", message)] {
        new.insert(field.to_owned(), text.into());
    }
    new.insert("lastTransitionTime".to_owned(), since.unwrap_or_else(|| json!(timestamp(now))));
    match place.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = Value::Object(new),
        None => conditions.push(Value::Object(new)),
    }
    pod.set("/status/conditions", Value::Array(conditions));
}
