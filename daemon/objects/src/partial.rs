//! Some fields of a stored object, read from its JSON without building the rest: what selectors and table rows need of
//! ten thousand objects must not cost ten thousand parses.

use crate::object::{Object, ObjectError};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Which fields to read: apiVersion, kind, the object's names and those asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial(Node);

/// A field and what of it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// All of it.
    whole: bool,
    children: Vec<(String, Node)>,
}

impl Partial {
    /// Fields as JSON pointers without escapes, `/spec/containers/name`. A field below a list is read of each of its elements.
    pub fn new<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = Node::default();
        for pointer in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"].into_iter().chain(pointers) {
            let mut node = &mut root;
            for name in pointer.split('/').skip(1) {
                let at = node.children.iter().position(|(n, _)| n == name).unwrap_or(node.children.len());
                if at == node.children.len() {
                    node.children.push((name.to_owned(), Node::default()));
                }
                let Some((_, next)) = node.children.get_mut(at) else { break };
                node = next;
            }
            node.whole = true;
        }
        Self(root)
    }

    /// Reads the fields of an object.
    ///
    /// # Errors
    /// Text that is no JSON, or no object.
    pub fn read(&self, json: &[u8]) -> Result<Object, PartialError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = self.0.deserialize(&mut deserializer)?;
        Ok(Object::from_value(value)?)
    }
}

/// Why an object's fields could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// The text is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is no object.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl<'de> DeserializeSeed<'de> for &Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.whole { serde::Deserialize::deserialize(deserializer) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for &Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(wanted) = access.next_key_seed(Key(self))? {
            match wanted {
                Some((name, node)) => {
                    let value = access.next_value_seed(node)?;
                    map.insert(name.clone(), value);
                }
                None => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// Finds a field's name among those wanted.
struct Key<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a (String, Node)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, 'a> Visitor<'de> for Key<'a> {
    type Value = Option<&'a (String, Node)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(n, _)| n == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_asked_for_is_read() {
        let pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"a/b": "c\"d"}},
            "spec": {"containers": [{"name": "x", "image": "y"}, {"name": "z"}], "nodeName": "box"},
            "status": {"phase": "Running", "deep": {"x": [1, {"y": null}]}},
        });
        let partial = Partial::new(["/metadata/labels", "/spec/containers/name", "/status/phase"]);
        assert_eq!(
            partial.read(pod.to_string().as_bytes()).unwrap().into_value(),
            json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": "a", "namespace": "n", "labels": {"a/b": "c\"d"}},
                "spec": {"containers": [{"name": "x"}, {"name": "z"}]},
                "status": {"phase": "Running"},
            })
        );
        assert!(partial.read(b"{").is_err() && partial.read(b"[]").is_err());
    }
}
