//! core/v1 Event and events.k8s.io/v1 Event: one object, two sets of names.

use crate::object::Object;

/// Top-level fields: in core, in events.k8s.io.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn to_core(object: &mut Object) {
    rename(object, "v1", NAMES.map(|(core, events)| (events, core)));
}

pub(super) fn to_events(object: &mut Object) {
    rename(object, "events.k8s.io/v1", NAMES);
}

fn rename(object: &mut Object, api_version: &str, names: [(&str, &str); 7]) {
    let map = object.map_mut();
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), api_version.into());
}
