//! Comparing an object with its structure.

use super::{FieldType, ListKind, Type, of_kind};
use crate::{
    field::{FieldError, FieldPath, Segment},
    kind::Kind,
    object::Object,
    quantity::Quantity,
};
use serde_json::{Map, Value};

/// Every way in which `object` departs from the structure of `kind`: unknown fields ([`crate::FieldReason::Unknown`], with "did you
/// mean"), wrong types, missing required fields, list-map keys that occur twice. Nothing has to be given inside status.
pub fn check(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut walk = Walk::default();
    if let Some(structure) = of_kind(kind) {
        walk.fields(structure, object.map());
    }
    walk.errors
}

/// Removes the fields that the schema does not know and says which: what fieldValidation `Warn` and `Ignore` do.
pub fn prune_unknown(kind: &Kind, object: &mut Object) -> Vec<FieldError> {
    let errors: Vec<_> =
        check(kind, object).into_iter().filter(|e| e.reason == crate::field::FieldReason::Unknown).collect();
    for error in &errors {
        object.remove(&error.path.to_pointer());
    }
    errors
}

/// A walk through an object. The path is kept as borrowed steps and only made into a [`FieldPath`] when there is something to say.
#[derive(Default)]
struct Walk<'a> {
    at: Vec<Step<'a>>,
    errors: Vec<FieldError>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    MapKey(&'a str),
    Index(usize),
}

impl<'a> Walk<'a> {
    fn path(&self) -> FieldPath {
        let segment = |step: &Step<'_>| match *step {
            Step::Key(key) => Segment::Key(key.to_owned()),
            Step::MapKey(key) => Segment::MapKey(key.to_owned()),
            Step::Index(index) => Segment::Index(index),
        };
        FieldPath::from_segments(self.at.iter().map(segment).collect())
    }

    fn fields(&mut self, structure: &Type, map: &'a Map<String, Value>) {
        for (key, value) in map {
            self.at.push(Step::Key(key));
            match structure.field(key) {
                Some(_) if value.is_null() => {}
                Some(field) => self.value(&field.kind, value),
                None => {
                    let known = structure.fields.iter().map(|f| f.name);
                    let error = FieldError::unknown(&self.path(), known);
                    self.errors.push(error);
                }
            }
            self.at.pop();
        }
        if !matches!(self.at.first(), Some(Step::Key("status"))) {
            for field in structure.fields.iter().filter(|f| f.required) {
                if map.get(field.name).is_none_or(Value::is_null) {
                    self.errors.push(FieldError::required(&self.path().child(field.name), ""));
                }
            }
        }
    }

    fn value(&mut self, kind: &FieldType, value: &'a Value) {
        match (kind, value) {
            (FieldType::Struct(index), Value::Object(map)) => self.fields(index.get(), map),
            (FieldType::Map(element, _), Value::Object(map)) => {
                for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                    self.at.push(Step::MapKey(key));
                    self.value(element, value);
                    self.at.pop();
                }
            }
            (FieldType::List(element, list_kind), Value::Array(list)) => self.list(element, list_kind, list),
            _ => {
                if let Some(wanted) = mismatch(kind, value) {
                    let error = FieldError::type_invalid(&self.path(), value, wanted);
                    let error = match advice(kind, value) {
                        Some(help) => error.with_help(help),
                        None => error,
                    };
                    self.errors.push(error);
                }
            }
        }
    }

    fn list(&mut self, element: &FieldType, kind: &ListKind, list: &'a [Value]) {
        for (index, value) in list.iter().enumerate() {
            self.at.push(Step::Index(index));
            self.value(element, value);
            self.at.pop();
        }
        if let ListKind::Keyed(keys, false) = kind {
            self.duplicates(keys, list);
        }
    }

    fn duplicates(&mut self, keys: &[&str], list: &[Value]) {
        let mut seen: Vec<Vec<Option<&Value>>> = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let key: Vec<Option<&Value>> = keys.iter().map(|key| value.get(*key)).collect();
            if key.first().is_none_or(Option::is_none) {
                continue;
            }
            if seen.contains(&key) {
                let at = self.path().index(index);
                self.errors.push(match (keys, key.as_slice()) {
                    ([name], [Some(value)]) => FieldError::duplicate(&at.child(*name), (*value).clone()),
                    _ => {
                        let pairs = keys.iter().zip(key).filter_map(|(k, v)| Some(((*k).to_owned(), v?.clone())));
                        FieldError::duplicate(&at, Value::Object(pairs.collect()))
                    }
                });
            } else {
                seen.push(key);
            }
        }
    }
}

/// What is wanted, when `value` is not it.
fn mismatch(kind: &FieldType, value: &Value) -> Option<&'static str> {
    let in_32_bits = || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok());
    let (fits, wanted) = match kind {
        FieldType::String => (value.is_string(), "a string"),
        FieldType::Int => (in_32_bits(), "a whole number of 32 bits"),
        FieldType::Int64 => (value.is_i64(), "a whole number of 64 bits"),
        FieldType::Bool => (value.is_boolean(), "true or false"),
        FieldType::Number => (value.is_number(), "a number"),
        FieldType::IntOrString => (value.is_string() || in_32_bits(), "a whole number or a string"),
        FieldType::Quantity => (is_quantity(value), "a quantity such as 100m, 2 or 64Mi"),
        FieldType::Time | FieldType::MicroTime => (is_time(value), "a time such as 2026-01-02T03:04:05Z"),
        FieldType::Bytes => (is_base64(value), "text in base64"),
        FieldType::Any | FieldType::SchemaOr(_) => (true, ""),
        FieldType::Struct(_) | FieldType::Map(..) => (false, "a map"),
        FieldType::List(..) => (false, "a list"),
    };
    (!fits).then_some(wanted)
}

fn advice(kind: &FieldType, value: &Value) -> Option<String> {
    match (kind, value) {
        (FieldType::String, Value::Bool(_) | Value::Number(_)) => Some(format!("write it in quotes: \"{value}\"")),
        (FieldType::Int | FieldType::Int64 | FieldType::Bool, Value::String(_)) => {
            Some("write it without quotes".to_owned())
        }
        (FieldType::List(..), Value::Object(_)) => Some("start each element with `- `".to_owned()),
        (FieldType::Bytes, Value::String(_)) => Some("plain text goes into `stringData`".to_owned()),
        _ => None,
    }
}

fn is_quantity(value: &Value) -> bool {
    match value {
        Value::String(text) => text.parse::<Quantity>().is_ok(),
        Value::Number(number) => number.to_string().parse::<Quantity>().is_ok(),
        _ => false,
    }
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| chrono::DateTime::parse_from_rfc3339(text).is_ok())
}

fn is_base64(value: &Value) -> bool {
    use base64::{Engine, prelude::BASE64_STANDARD};
    value.as_str().is_some_and(|text| {
        let text: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        BASE64_STANDARD.decode(text).is_ok()
    })
}
