//! Tables for people: pure functions from an object to the cells that the reference prints.

use crate::{kind::Kind, object::Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// The cells of an object's row, one for each of `kind.columns`, wide ones included. Texts, or numbers where the reference has numbers.
pub fn row(_kind: &Kind, _object: &Object, _now: DateTime<Utc>) -> Vec<Value> {
    Vec::new()
}

/// A cell as text.
pub fn cell_text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
