//! A place in a schema, as the algorithms that walk objects see it: patches and server-side apply know nothing else of schemas.
//! Where a schema says nothing ([`View::Untyped`]), the value decides: maps are granular, lists are one value.

use super::{Field, FieldType, ListKind, Patch, Presence, Type, of_kind};
use crate::kind::Kind;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub enum View<'s> {
    /// A map with known fields.
    Struct(&'s Type),
    /// The value of a field or an element.
    Field(&'s FieldType),
    /// Anything.
    Untyped,
}

/// What a value at a [`View`] is made of.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'s> {
    /// One value: a scalar, or a map or list that is replaced as a whole. Also what has the wrong type.
    Leaf,
    /// A map whose fields are told apart: see [`View::child`].
    Map,
    /// A list whose elements are told apart.
    List(Elements<'s>),
}

/// The elements of a list that is not atomic.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'s> {
    /// What each is.
    pub view: View<'s>,
    /// The fields that tell maps apart; none when the elements are distinct scalars.
    pub keys: Option<&'s [&'s str]>,
}

/// A field of a map.
#[derive(Clone, Copy, Debug)]
pub struct Child<'s> {
    /// What it holds.
    pub view: View<'s>,
    /// Does the schema name it (as opposed to the key of a free map)?
    pub declared: bool,
    /// What it is when it is absent, if it is always there ([`Presence::Always`]).
    pub zero: Option<&'static Value>,
}

impl<'s> View<'s> {
    /// The objects of a kind.
    pub fn of_kind(kind: &Kind) -> View<'static> {
        of_kind(kind).map_or(View::Untyped, View::Struct)
    }

    /// A field type seen as the map it is, if it is one.
    fn resolved(self) -> Self {
        match self {
            Self::Field(FieldType::Struct(index)) => Self::Struct(index.get()),
            other => other,
        }
    }

    /// What `value` is made of here.
    pub fn shape(self, value: &Value) -> Shape<'s> {
        match (self.resolved(), value) {
            (Self::Struct(structure), Value::Object(_) | Value::Null) if !structure.atomic => Shape::Map,
            (Self::Field(FieldType::Map(_, false)), Value::Object(_) | Value::Null) => Shape::Map,
            (Self::Field(FieldType::List(element, kind)), Value::Array(_) | Value::Null) => {
                let view = View::Field(element);
                match kind {
                    ListKind::Atomic => Shape::Leaf,
                    ListKind::Set => Shape::List(Elements { view, keys: None }),
                    ListKind::Keyed(keys, _) => Shape::List(Elements { view, keys: Some(keys) }),
                }
            }
            (Self::Untyped, Value::Object(_) | Value::Null) => Shape::Map,
            _ => Shape::Leaf,
        }
    }

    /// The field `name` of a map; none when the schema knows no such field.
    pub fn child(self, name: &str) -> Option<Child<'s>> {
        match self.resolved() {
            Self::Struct(structure) => {
                let field = structure.field(name)?;
                let zero = match field.presence {
                    Presence::Always => Some(zero(field)),
                    Presence::Null => Some(&Value::Null),
                    Presence::Filled | Presence::Optional => None,
                };
                Some(Child { view: View::Field(&field.kind), declared: true, zero })
            }
            Self::Field(FieldType::Map(element, _)) => {
                Some(Child { view: View::Field(element), declared: false, zero: None })
            }
            Self::Untyped => Some(Child { view: View::Untyped, declared: false, zero: None }),
            Self::Field(_) => None,
        }
    }

    /// The fields of a map that are always there, empty when nothing is in them.
    pub fn always_there(self) -> impl Iterator<Item = &'s str> {
        let structure = match self.resolved() {
            Self::Struct(structure) => Some(structure),
            _ => None,
        };
        let fields = structure.into_iter().flat_map(|structure| &structure.fields);
        fields.filter(|field| field.presence.is_always()).map(|field| field.name)
    }

    /// What the elements of a list are.
    pub fn element(self) -> Self {
        match self {
            Self::Field(FieldType::List(element, _)) => View::Field(element),
            _ => View::Untyped,
        }
    }

    /// How a strategic merge patch treats the field `name`.
    pub fn patch(self, name: &str) -> Patch {
        match self.resolved() {
            Self::Struct(structure) => structure.field(name).map(|field| field.patch).unwrap_or_default(),
            _ => Patch::default(),
        }
    }

    /// What the key field `key` of a list's element is when it is absent.
    pub fn key_default(self, key: &str) -> Option<Value> {
        let Self::Struct(structure) = self.resolved() else { return None };
        let field = structure.field(key)?;
        match field.default {
            Some(default) => serde_json::from_str(default).ok(),
            None => Some(zero(field).clone()).filter(|zero| !zero.is_null()),
        }
    }

    /// What kind of scalar is wanted here, in the words of the reference's schema; none where it is no scalar.
    pub fn scalar(self) -> Option<Scalar> {
        match self {
            Self::Field(FieldType::String | FieldType::Bytes) => Some(Scalar::String),
            Self::Field(FieldType::Int | FieldType::Int64 | FieldType::Number) => Some(Scalar::Numeric),
            Self::Field(FieldType::Bool) => Some(Scalar::Boolean),
            Self::Field(FieldType::Quantity | FieldType::IntOrString | FieldType::Time | FieldType::MicroTime) => {
                Some(Scalar::Any)
            }
            _ => None,
        }
    }

    /// Must the value be a map, a list, or can it be anything?
    pub fn container(self) -> Option<Container> {
        match self.resolved() {
            Self::Struct(_) | Self::Field(FieldType::Map(..)) => Some(Container::Map),
            Self::Field(FieldType::List(..)) => Some(Container::List),
            _ => None,
        }
    }
}

/// Kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    String,
    /// A number.
    Numeric,
    /// True or false.
    Boolean,
    /// Any of them.
    Any,
}

/// Kinds of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A map.
    Map,
    /// A list.
    List,
}

/// What a field holds when it holds nothing.
fn zero(field: &Field) -> &'static Value {
    static EMPTY: LazyLock<[Value; 4]> =
        LazyLock::new(|| [Value::Object(Map::new()), Value::from(""), Value::from(0), Value::from(false)]);
    let [map, text, number, no] = &*EMPTY;
    match field.kind {
        // Others are there by reference: null.
        FieldType::Struct(_) if field.default == Some("{}") => map,
        FieldType::String => text,
        FieldType::Int | FieldType::Int64 | FieldType::Number => number,
        FieldType::Bool => no,
        _ => &Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::kinds;

    #[test]
    fn a_deployment_is_seen_as_it_is() {
        let kind = kinds().by_gvk("apps/v1", "Deployment").unwrap();
        let spec = View::of_kind(kind).child("spec").unwrap();
        assert_eq!(spec.zero, Some(&serde_json::json!({})));
        let selector = spec.view.child("selector").unwrap();
        assert_eq!(selector.zero, Some(&Value::Null));
        assert_eq!(spec.view.child("paused").unwrap().zero, None);
        assert!(matches!(selector.view.shape(&serde_json::json!({})), Shape::Leaf));
        let pod = spec.view.child("template").unwrap().view.child("spec").unwrap().view;
        let containers = pod.child("containers").unwrap();
        assert_eq!(containers.zero, Some(&Value::Null));
        assert_eq!(pod.patch("containers").key, Some("name"));
        let Shape::List(elements) = containers.view.shape(&serde_json::json!([])) else { panic!("no list") };
        assert_eq!(elements.keys, Some(["name"].as_slice()));
        assert!(elements.view.child("nonsense").is_none());
        let ports = elements.view.child("ports").unwrap().view.element();
        assert_eq!(ports.key_default("protocol"), Some("TCP".into()));
        assert_eq!(ports.key_default("containerPort"), Some(0.into()));
    }
}
