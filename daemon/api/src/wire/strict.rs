//! Reading a value with the schema beside it: unknown fields are dropped, and they and duplicate ones are named with their paths in
//! the order in which they occur, which plain JSON reading can't do.

use reddwarf_objects::schema::{FieldType, Type, types};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Problems named at most, as in the reference.
const MAX_PROBLEMS: usize = 100;

/// A value that was read.
#[derive(Debug)]
pub(crate) struct Read {
    /// Without unknown fields; of duplicate ones the last.
    pub(crate) value: Value,
    /// `unknown field "spec.bogus"`, `duplicate field "data.a"`, in the order of the text.
    pub(crate) problems: Vec<String>,
}

/// Reads a JSON text.
///
/// # Errors
/// When it is no JSON.
pub(crate) fn from_json(structure: Option<&'static Type>, bytes: &[u8]) -> Result<Read, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut problems = Vec::new();
    let value = Seed::root(structure, &mut problems).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Read { value, problems })
}

/// Looks through a value that was read otherwise. Its maps hold no field twice.
pub(crate) fn from_value(structure: Option<&'static Type>, value: Value) -> Read {
    let mut problems = Vec::new();
    // A value that is there reads as a value.
    let value = Seed::root(structure, &mut problems).deserialize(value).unwrap_or(Value::Null);
    Read { value, problems }
}

/// What the schema says of a place.
#[derive(Clone, Copy)]
enum Place {
    Struct(&'static Type),
    Map(&'static FieldType),
    List(&'static FieldType),
    Free,
}

impl Place {
    fn of(kind: &'static FieldType) -> Self {
        match kind {
            FieldType::Struct(index) => Self::Struct(index.get()),
            FieldType::Map(element, _) => Self::Map(element),
            FieldType::List(element, _) => Self::List(element),
            // Where it is a map, it is a schema.
            FieldType::SchemaOr(_) => types().by_name("apiextensions.JSONSchemaProps").map_or(Self::Free, Self::Struct),
            _ => Self::Free,
        }
    }

    fn child(self, key: &str) -> Option<Self> {
        match self {
            Self::Struct(structure) => structure.field(key).map(|field| Self::of(&field.kind)),
            Self::Map(element) => Some(Self::of(element)),
            Self::List(_) | Self::Free => Some(Self::Free),
        }
    }
}

/// The way to a place; made into text only when there is something to say.
#[derive(Clone, Copy)]
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if self.parent.is_none_or(|p| matches!(p.step, Step::Root)) => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

struct Seed<'p> {
    place: Place,
    path: Path<'p>,
    problems: &'p mut Vec<String>,
}

impl<'p> Seed<'p> {
    fn root(structure: Option<&'static Type>, problems: &'p mut Vec<String>) -> Self {
        let place = structure.map_or(Place::Free, Place::Struct);
        Self { place, path: Path { parent: None, step: Step::Root }, problems }
    }
}

fn note(problems: &mut Vec<String>, what: &str, path: Path<'_>) {
    if problems.len() < MAX_PROBLEMS {
        let text = format!("{what} field \"{path}\"");
        if !problems.contains(&text) {
            problems.push(text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let place = match self.place {
            Place::List(element) => Place::of(element),
            // A list where a single schema may stand holds schemas.
            Place::Struct(structure) if structure.name == "apiextensions.JSONSchemaProps" => self.place,
            _ => Place::Free,
        };
        let mut list = Vec::new();
        loop {
            let path = Path { parent: Some(&self.path), step: Step::Index(list.len()) };
            match seq.next_element_seed(Seed { place, path, problems: &mut *self.problems })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path { parent: Some(&self.path), step: Step::Key(&key) };
            let Some(place) = self.place.child(&key) else {
                note(self.problems, "unknown", path);
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            if map.contains_key(&key) {
                note(self.problems, "duplicate", path);
            }
            let value = access.next_value_seed(Seed { place, path, problems: &mut *self.problems })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Option<&'static Type> {
        types().by_name("core.Pod")
    }

    #[test]
    fn problems_are_named_in_the_order_of_the_text() {
        let text = br#"{"zzz":1,"metadata":{"labels":{"a":"1","a":"2"}},
            "spec":{"containers":[{"name":"x"},{"image":"i","foo":{"bar":1},"name":"y","name":"z"}]},"aaa":2,"zzz":3}"#;
        let read = from_json(pod(), text).unwrap();
        assert_eq!(
            read.problems,
            [
                "unknown field \"zzz\"",
                "duplicate field \"metadata.labels.a\"",
                "unknown field \"spec.containers[1].foo\"",
                "duplicate field \"spec.containers[1].name\"",
                "unknown field \"aaa\"",
            ]
        );
        assert_eq!(read.value["metadata"]["labels"]["a"], "2");
        assert_eq!(read.value["spec"]["containers"][1], serde_json::json!({"image": "i", "name": "z"}));
        assert!(read.value.get("zzz").is_none());
        assert!(from_json(pod(), b"{").is_err() && from_json(pod(), b"{} x").is_err());
    }

    #[test]
    fn what_has_no_schema_is_kept() {
        let text = br#"{"l":[{"x":1,"x":[]}],"n":1.5,"z":null}"#;
        let read = from_json(None, text).unwrap();
        assert_eq!(read.problems, ["duplicate field \"l[0].x\""]);
        assert_eq!(read.value, serde_json::json!({"l": [{"x": []}], "n": 1.5, "z": null}));
        let revision = types().by_name("apps.ControllerRevision");
        let value = serde_json::json!({"data": {"any": {"thing": 1}}, "revision": 3});
        assert_eq!(from_value(revision, value.clone()).value, value);
    }

    #[test]
    fn schemas_inside_definitions_are_schemas() {
        let crd = types().by_name("apiextensions.JSONSchemaProps");
        let text = br#"{"additionalProperties":{"tipe":"x"},"items":[{"bogus":1}],"default":{"free":1},"x-kubernetes-int-or-string":true}"#;
        let read = from_json(crd, text).unwrap();
        assert_eq!(read.problems, ["unknown field \"additionalProperties.tipe\"", "unknown field \"items[0].bogus\""]);
    }

    proptest::proptest! {
        #[test]
        fn it_reads_what_serde_reads(text in "[\\[\\]{}:,\"a-c0-9. ]{0,40}") {
            let plain = serde_json::from_str::<Value>(&text).ok();
            let ours = from_json(None, text.as_bytes()).ok().map(|r| r.value);
            proptest::prop_assert_eq!(ours, plain);
        }
    }
}
