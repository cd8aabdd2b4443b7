//! Bringing values into the one form in which the reference stores them.

use super::{FieldType, Type, of_kind};
use crate::{
    kind::Kind,
    object::{Object, micro_timestamp, timestamp},
    quantity::Quantity,
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// Removes fields that are null (outside status, where null has a meaning for readers), writes quantities in canonical form and times
/// in UTC. What has the wrong type is left alone.
pub fn normalise(kind: &Kind, object: &mut Object) {
    let Some(structure) = of_kind(kind) else { return };
    let status = object.map_mut().remove("status");
    fields(structure, object.map_mut());
    if let Some(mut status) = status {
        if let (Some(field), false) = (structure.field("status"), status.is_null()) {
            value(&field.kind, &mut status, false);
        }
        object.map_mut().insert("status".to_owned(), status);
    }
}

fn fields(structure: &Type, map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for (name, field_value) in map.iter_mut() {
        if let Some(field) = structure.field(name) {
            value(&field.kind, field_value, true);
        }
    }
}

fn value(kind: &FieldType, at: &mut Value, drop_null: bool) {
    match (kind, at) {
        (FieldType::Struct(index), Value::Object(map)) if drop_null => fields(index.get(), map),
        (FieldType::Struct(index), Value::Object(map)) => {
            for (name, field_value) in map.iter_mut() {
                if let Some(field) = index.get().field(name) {
                    value(&field.kind, field_value, false);
                }
            }
        }
        (FieldType::Map(element, _), Value::Object(map)) => {
            for item in map.values_mut() {
                if item.is_null() && matches!(**element, FieldType::String | FieldType::Bytes) {
                    *item = Value::String(String::new());
                }
                value(element, item, drop_null);
            }
        }
        (FieldType::List(element, _), Value::Array(list)) => {
            list.iter_mut().for_each(|item| value(element, item, drop_null))
        }
        (FieldType::Quantity, at) => {
            if let Ok(quantity) = Quantity::from_value(at) {
                *at = Value::String(quantity.to_string());
            }
        }
        (FieldType::Time, Value::String(text)) => rewrite_time(text, timestamp),
        (FieldType::MicroTime, Value::String(text)) => rewrite_time(text, micro_timestamp),
        _ => {}
    }
}

fn rewrite_time(text: &mut String, print: fn(DateTime<Utc>) -> String) {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        *text = print(time.with_timezone(&Utc));
    }
}
