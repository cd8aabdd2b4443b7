//! Bringing values into the one form in which the reference stores them.

use super::{FieldType, Presence, Type, of_kind};
use crate::{
    kind::Kind,
    object::{Object, micro_timestamp, timestamp},
    quantity::Quantity,
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// Leaves out fields that hold nothing, writes those that are always written ([`Presence`]), quantities in canonical form and times
/// in UTC. What has the wrong type is left alone. Doing it twice changes nothing more.
pub fn normalise(kind: &Kind, object: &mut Object) {
    if let Some(structure) = of_kind(kind) {
        fields(structure, object.map_mut());
    }
}

fn fields(structure: &Type, map: &mut Map<String, Value>) {
    // Fields and keys both come in order: one walk along the two finds each key's field.
    let mut rest = structure.fields.iter();
    let mut nothing = false;
    for (name, at) in map.iter_mut() {
        let found = rest.as_slice().iter().position(|f| f.name >= name.as_str());
        let Some(position) = found else {
            nothing |= at.is_null();
            continue;
        };
        rest = rest.as_slice()[position..].iter();
        let Some(field) = rest.as_slice().first().filter(|f| f.name == name) else {
            nothing |= at.is_null();
            continue;
        };
        value(&field.kind, at);
        nothing |= !field.presence.is_always() && is_left_out(field.presence, &field.kind, at);
    }
    if nothing {
        map.retain(|name, at| match structure.field(name) {
            Some(field) if field.presence.is_always() => true,
            Some(field) => !is_left_out(field.presence, &field.kind, at),
            None => !at.is_null(),
        });
    }
    for field in structure.fields.iter().filter(|f| f.presence.is_always()) {
        let missing = || if field.presence == Presence::Null { Value::Null } else { zero(&field.kind) };
        match map.get_mut(field.name) {
            None => {
                map.insert(field.name.to_owned(), missing());
            }
            Some(at) if at.is_null() || is_empty_collection(&field.kind, at) => *at = missing(),
            Some(_) => {}
        }
    }
}

fn is_empty_collection(kind: &FieldType, value: &Value) -> bool {
    match (kind, value) {
        (FieldType::List(..), Value::Array(list)) => list.is_empty(),
        (FieldType::Map(..), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn is_left_out(presence: Presence, kind: &FieldType, value: &Value) -> bool {
    let empty = match (kind, value) {
        (_, Value::Null) => return true,
        (FieldType::Struct(_) | FieldType::Any | FieldType::IntOrString | FieldType::Quantity, _) => false,
        (_, Value::Bool(flag)) => !flag,
        (_, Value::Number(number)) => number.as_i64() == Some(0),
        (_, Value::String(text)) => text.is_empty(),
        _ => is_empty_collection(kind, value),
    };
    empty && presence == Presence::Filled
}

/// What an absent field that is always written is written as.
fn zero(kind: &FieldType) -> Value {
    match kind {
        FieldType::String | FieldType::Bytes => Value::String(String::new()),
        FieldType::Int | FieldType::Int64 | FieldType::Number | FieldType::IntOrString => Value::from(0),
        FieldType::Bool => Value::Bool(false),
        FieldType::Quantity => Value::from("0"),
        FieldType::Struct(index) => {
            let mut map = Map::new();
            fields(index.get(), &mut map);
            Value::Object(map)
        }
        FieldType::Time
        | FieldType::MicroTime
        | FieldType::Any
        | FieldType::SchemaOr(_)
        | FieldType::Map(..)
        | FieldType::List(..) => Value::Null,
    }
}

fn value(kind: &FieldType, at: &mut Value) {
    match (kind, at) {
        (FieldType::Struct(index), Value::Object(map)) => fields(index.get(), map),
        // The only maps of quantities are lists of resources.
        (FieldType::Map(element, _), Value::Object(map)) if matches!(**element, FieldType::Quantity) => {
            map.values_mut().for_each(|item| canonical_quantity(item, Quantity::to_whole_millis));
        }
        (FieldType::Map(element, _), Value::Object(map)) => {
            for item in map.values_mut() {
                if item.is_null() {
                    *item = zero(element);
                }
                value(element, item);
            }
        }
        (FieldType::List(element, _), Value::Array(list)) => list.iter_mut().for_each(|item| value(element, item)),
        (FieldType::Quantity, at) => canonical_quantity(at, |quantity| quantity),
        (FieldType::Time, Value::String(text)) => rewrite_time(text, timestamp),
        (FieldType::MicroTime, Value::String(text)) => rewrite_time(text, micro_timestamp),
        _ => {}
    }
}

fn canonical_quantity(at: &mut Value, round: fn(Quantity) -> Quantity) {
    if let Ok(quantity) = Quantity::from_value(at) {
        let canonical = round(quantity).to_string();
        if at.as_str() != Some(&canonical) {
            *at = Value::String(canonical);
        }
    }
}

fn rewrite_time(text: &mut String, print: fn(DateTime<Utc>) -> String) {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        *text = print(time.with_timezone(&Utc));
    }
}
