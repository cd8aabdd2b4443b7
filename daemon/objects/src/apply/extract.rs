//! The set of fields that a configuration names.

use super::{
    element,
    set::{FieldSet, FieldSetRef, Node},
};
use crate::schema::{Elements, Shape, View};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields of an object.
pub(super) fn object(view: View<'_>, map: &Map<String, Value>) -> FieldSet {
    let mut set = FieldSet::default();
    for (key, field) in map {
        let child = view.child(key);
        let mut node = value(child.map_or(View::Untyped, |child| child.view), field);
        // The reference owns no empty list; but then what was applied could go with the fields around it.
        let empty = field.is_null()
            || field.as_object().is_some_and(Map::is_empty)
            || field.as_array().is_some_and(Vec::is_empty);
        // A field that the schema names is in the set through what is in it; a key of a free map is itself in it.
        node.member |= empty || !child.is_some_and(|child| child.declared);
        set.put(element::field(key), node);
    }
    set
}

/// The fields of a value, whatever it is.
pub(super) fn value(view: View<'_>, value: &Value) -> Node {
    match (view.shape(value), value) {
        (Shape::Map, Value::Object(map)) => Node { member: false, below: object(view, map) },
        (Shape::List(elements), Value::Array(list)) => Node { member: false, below: list_of(elements, list) },
        (Shape::Map | Shape::List(_), _) => Node::default(),
        (Shape::Leaf, _) => Node::leaf(),
    }
}

fn list_of(elements: Elements<'_>, list: &[Value]) -> FieldSet {
    let mut steps: HashMap<String, (&Value, bool)> = HashMap::with_capacity(list.len());
    for value in list {
        // An element that can't be told apart is in no set.
        if let Ok(step) = element::element(elements, value) {
            steps.entry(step).and_modify(|(_, several)| *several = true).or_insert((value, false));
        }
    }
    let mut set = FieldSet::default();
    for (step, (element, several)) in steps {
        let below = if several { FieldSet::default() } else { value(elements.view, element).below };
        set.put(step, Node { member: true, below });
    }
    set
}

/// The set, and every field named by the schema that leads to something in it.
pub(super) fn with_named_fields(view: View<'_>, set: FieldSetRef<'_>) -> FieldSet {
    let mut out = FieldSet::default();
    for (step, member, below) in set.iter() {
        let child = element::field_name(step).and_then(|name| view.child(name));
        let below_view = match child {
            Some(child) => child.view,
            None if step.starts_with("k:") => view.element(),
            None => View::Untyped,
        };
        let named = !below.is_empty() && child.is_some_and(|child| child.declared);
        out.put(step.to_owned(), Node { member: member || named, below: with_named_fields(below_view, below) });
    }
    out
}
