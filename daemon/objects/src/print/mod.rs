//! Tables for people: pure functions from an object to the cells that the reference prints.
//!
//! Source: columns and cells as recorded from kube-apiserver 1.36. Every kind's columns stand in `schema/kinds.txt`; here is what they show.

mod column;
mod core;
mod duration;
mod machinery;
mod network;
mod pod;
mod rest;
mod workload;

pub use column::{ColumnAbout, column};
pub use duration::human_duration;
pub use pod::{Completed, restarts, status_word};

use crate::{kind::Kind, object::Object, partial::Partial};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::LazyLock;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// The cells of an object's row, one for each of `kind.columns`, wide ones included. Texts, or numbers where the reference has numbers.
pub fn row(kind: &Kind, object: &Object, now: DateTime<Utc>) -> Vec<Value> {
    if kind.is_core("Pod") {
        return pod::row(object, now);
    }
    let special: fn(&Cells<'_>, &str) -> Option<Value> = match kind.group {
        "" if kind.kind == "ComponentStatus" => machinery::cell,
        "" => core::cell,
        "apps" | "batch" | "autoscaling" | "policy" => workload::cell,
        "networking.k8s.io" | "discovery.k8s.io" => network::cell,
        "events.k8s.io" => core::cell,
        "admissionregistration.k8s.io"
        | "apiregistration.k8s.io"
        | "certificates.k8s.io"
        | "flowcontrol.apiserver.k8s.io" => machinery::cell,
        _ => rest::cell,
    };
    let cells = Cells { kind, object, now };
    kind.columns
        .iter()
        .map(|column| special(&cells, column.name).unwrap_or_else(|| cells.common(column.name)))
        .collect()
}

/// What [`row`] reads of a kind's objects, where that is little of them; all of it for other kinds.
pub fn reads(kind: &Kind) -> Option<&'static Partial> {
    static POD: LazyLock<Partial> = LazyLock::new(|| Partial::new(pod::READS));
    kind.is_core("Pod").then(|| &*POD)
}

/// Why a row is of something that is over, where it is: clients may leave such rows out.
pub fn completed(kind: &Kind, object: &Object) -> Option<Completed> {
    if kind.is_core("Pod") { pod::completed(object) } else { None }
}

/// The header of a column: its name in capitals.
pub fn header(name: &str) -> String {
    name.to_uppercase()
}

/// A cell as text.
pub fn cell_text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The time since `then` as kubectl shows it; `<unknown>` without a time.
pub fn age(then: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    then.map_or_else(|| UNKNOWN.to_owned(), |then| human_duration(now - then))
}

/// An object on its way into cells.
struct Cells<'a> {
    kind: &'a Kind,
    object: &'a Object,
    now: DateTime<Utc>,
}

impl<'a> Cells<'a> {
    /// Columns that mean the same for every kind; nothing for those that this version does not fill.
    fn common(&self, column: &str) -> Value {
        match column {
            "Name" => self.object.name().into(),
            "Age" => age(self.object.creation_timestamp(), self.now).into(),
            "Created At" => self.object.get_str("/metadata/creationTimestamp").unwrap_or_default().into(),
            _ => Value::String(String::new()),
        }
    }

    fn text(&self, pointer: &str) -> &'a str {
        self.object.get_str(pointer).unwrap_or_default()
    }

    /// The text at a pointer, or `otherwise` when it is empty.
    fn text_or(&self, pointer: &str, otherwise: &str) -> Value {
        match self.text(pointer) {
            "" => otherwise.into(),
            text => text.into(),
        }
    }

    fn number(&self, pointer: &str) -> i64 {
        self.object.get(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    fn list(&self, pointer: &str) -> &'a [Value] {
        self.object.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn count(&self, pointer: &str) -> usize {
        self.object.get(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
    }

    fn since(&self, pointer: &str) -> String {
        age(self.object.time(pointer), self.now)
    }

    /// A field of each element of a list, with commas between.
    fn joined(&self, pointer: &str, field: &str) -> Value {
        let texts: Vec<&str> = self.list(pointer).iter().filter_map(|item| item.get(field)?.as_str()).collect();
        texts.join(",").into()
    }
}

/// A flag as the reference prints it in text columns.
fn title(flag: bool) -> Value {
    if flag { "True".into() } else { "False".into() }
}

/// A map of labels as `a=b,c=d`; `<none>` when empty.
fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A label selector as `a=b,c in (d,e),!f`, in the order of the keys; `<none>` when empty.
fn selector(value: Option<&Value>) -> String {
    let Some(value) = value else { return NONE.to_owned() };
    let pairs = value.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut parts: Vec<(&str, String)> =
        pairs.map(|(key, value)| (key.as_str(), format!("{key}={}", value.as_str().unwrap_or_default()))).collect();
    for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let mut values: Vec<&str> = values.filter_map(Value::as_str).collect();
        values.sort_unstable();
        let (key, values) = (text("key"), values.join(","));
        let part = match text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key, part));
    }
    parts.sort_by_key(|(key, _)| *key);
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(",") }
}

/// Where a load balancer answers: addresses, or names where there is none, each once and in order.
fn balanced<'a>(cells: &Cells<'a>) -> BTreeSet<&'a str> {
    let text = |at: &'a Value, field: &str| at.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let given = cells.list("/status/loadBalancer/ingress").iter();
    given.filter_map(|at| text(at, "ip").or_else(|| text(at, "hostname"))).collect()
}

/// The first few of many, and how many more there are.
fn first_few(items: &[String], most: usize) -> String {
    let shown = items.iter().take(most).cloned().collect::<Vec<_>>().join(",");
    match items.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests;
