//! Rules of events, of either version.

use super::{
    at::{At, Errors},
    update::IMMUTABLE,
};
use crate::{field::FieldError, field::FieldPath, kind::Kind, names, object::Object};
use serde_json::Value;

const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

/// What holds for every event, new or changed. The reference shows the fields' older names.
pub(super) fn check(kind: &Kind, event: &At<'_, '_>, errors: &mut Errors) {
    let newer = kind.group == "events.k8s.io";
    let own = event.child("metadata").text("namespace");
    let about = event.child(if newer { "regarding" } else { "involvedObject" }).text("namespace");
    let timed = event.has("eventTime");
    let agrees = match (about.is_empty(), timed) {
        (true, false) => matches!(own, "" | "default"),
        (true, true) => matches!(own, "" | "default" | "kube-system"),
        (false, false) => about == own,
        (false, true) => true,
    };
    if !agrees {
        let at = event.child("involvedObject");
        at.child("namespace").invalid_value(errors, about, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    event.require_name(errors, if newer { "reportingController" } else { "reportingComponent" }, names::qualified_name);
    for field in ["reportingInstance", "action", "reason"] {
        event.require(errors, field);
        too_long(event, field, field, TEXT_MAX, errors);
    }
    too_long(event, if newer { "note" } else { "message" }, "message", MESSAGE_MAX, errors);
}

fn too_long(event: &At<'_, '_>, field: &str, shown: &'static str, most: usize, errors: &mut Errors) {
    if event.text(field).len() > most {
        event.child(shown).invalid_value(errors, "", format!("can have at most {most} characters"));
    }
}

/// What is asked of new events of the newer version besides.
pub(super) fn check_new(event: &At<'_, '_>, errors: &mut Errors) {
    check_series(event, errors);
    if !event.has("eventTime") {
        event.child("eventTime").required(errors, "");
    }
    let kind = event.text("type");
    if !["Normal", "Warning"].contains(&kind) {
        event.child("type").invalid_value(errors, "", format!("has invalid value: {kind}"));
    }
    for (field, shown) in [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")]
    {
        if event.has(field) {
            event.child(shown).invalid_value(errors, "", "needs to be unset");
        }
    }
    if event.number("deprecatedCount").is_some_and(|count| count != 0) {
        event.child("count").invalid_value(errors, "", "needs to be unset");
    }
    let source = event.child("deprecatedSource");
    if !source.text("component").is_empty() || !source.text("host").is_empty() {
        event.child("source").invalid_value(errors, "", "needs to be unset");
    }
}

fn check_series(event: &At<'_, '_>, errors: &mut Errors) {
    let Some(series) = event.given("series") else { return };
    if series.number("count").unwrap_or(0) < 2 {
        series.child("count").invalid_value(errors, "", "should be at least 2");
    }
    if !series.has("lastObservedTime") {
        series.child("lastObservedTime").required(errors, "");
    }
}

/// Fields that stay, and as what the reference shows them.
const FIXED: [(&str, &str); 13] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// An update through the newer version: it is for the series only.
pub(super) fn check_update(old: &Object, new: &Object, event: &At<'_, '_>, errors: &mut Errors) {
    if old.map().get("series") != new.map().get("series") {
        check_series(event, errors);
    }
    for (field, shown) in FIXED {
        let (before, after) = (old.map().get(field), new.map().get(field));
        if before != after {
            let found = after.cloned().unwrap_or_else(|| Value::from(""));
            errors.push(FieldError::invalid(&FieldPath::of(shown), found, IMMUTABLE));
        }
    }
}
