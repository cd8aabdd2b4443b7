//! JSON values in a third of the memory of [`serde_json::Value`], for what is kept of thousands of files: exact slices
//! instead of B-tree nodes, and field names shared.

use serde_json::{Map, Number, Value};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A JSON value that is only kept and given back.
#[derive(Clone, Debug)]
pub(crate) enum Compact {
    Null,
    Bool(bool),
    Number(Number),
    String(Box<str>),
    Array(Box<[Compact]>),
    Object(Box<[(Arc<str>, Compact)]>),
}

impl From<Value> for Compact {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => Self::Number(n),
            Value::String(text) => Self::String(text.into()),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(map) => Self::Object(map.into_iter().map(|(k, v)| (shared(&k), v.into())).collect()),
        }
    }
}

impl Compact {
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Number(n) => Value::Number(n.clone()),
            Self::String(text) => Value::String(text.to_string()),
            Self::Array(items) => Value::Array(items.iter().map(Self::value).collect()),
            Self::Object(_) => Value::Object(self.map()),
        }
    }

    /// The value as a map; empty when it is none.
    pub(crate) fn map(&self) -> Map<String, Value> {
        match self {
            Self::Object(entries) => entries.iter().map(|(k, v)| (k.to_string(), v.value())).collect(),
            _ => Map::new(),
        }
    }
}

/// Keys that are shared at most: the field names of all kinds are fewer. Others get a text of their own.
const SHARED_KEYS: usize = 4096;
/// Longer keys are not field names.
const SHARED_LENGTH: usize = 40;

/// A key's text, the same one for the same key where that saves memory.
pub(crate) fn shared(key: &str) -> Arc<str> {
    static KEYS: LazyLock<Mutex<HashSet<Arc<str>>>> = LazyLock::new(Mutex::default);
    if key.len() > SHARED_LENGTH {
        return key.into();
    }
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = keys.get(key) {
        return known.clone();
    }
    let new: Arc<str> = key.into();
    if keys.len() < SHARED_KEYS {
        keys.insert(new.clone());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = serde_json::json!({"a": [1, -2.5, "x", null, true, {}, []], "b": {"c": 18446744073709551615u64}});
        assert_eq!(Compact::from(value.clone()).value(), value);
    }
}
