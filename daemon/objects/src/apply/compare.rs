//! Which fields differ between two states of an object, by the schema.

use super::{
    element, extract,
    set::{FieldSet, Node},
};
use crate::schema::{Child, Elements, Shape, View};
use serde_json::{Map, Value};
use std::{collections::HashMap, sync::LazyLock};

/// What differs. No field is in more than one of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Fields that only the old state has.
    pub(super) removed: FieldSet,
    /// Fields that both have, with different values.
    pub(super) modified: FieldSet,
    /// Fields that only the new state has.
    pub(super) added: FieldSet,
}

impl Comparison {
    /// Does nothing differ?
    pub(super) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// The fields that the new state has and the old one has not so.
    pub(super) fn changed(self) -> (FieldSet, FieldSet) {
        let mut changed = self.modified;
        changed.add(self.added);
        (changed, self.removed)
    }

    /// Puts the comparison of a field in.
    pub(super) fn put_field(&mut self, name: &str, comparison: Self) {
        self.put(|| element::field(name), comparison.below());
    }

    fn put(&mut self, step: impl Fn() -> String, nodes: Nodes) {
        for (set, node) in
            [(&mut self.removed, nodes.removed), (&mut self.modified, nodes.modified), (&mut self.added, nodes.added)]
        {
            if node.member || !node.below.is_empty() {
                set.put(step(), node);
            }
        }
    }

    fn below(self) -> Nodes {
        let node = |below| Node { member: false, below };
        Nodes { removed: node(self.removed), modified: node(self.modified), added: node(self.added) }
    }
}

/// A comparison of one place.
#[derive(Default)]
struct Nodes {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Nodes {
    /// Of something that is one value.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut nodes = Self::default();
        match (old, new) {
            (None, Some(_)) => nodes.added.member = true,
            (Some(_), None) => nodes.removed.member = true,
            (old, new) => nodes.modified.member = old != new,
        }
        nodes
    }
}

/// Compares two maps; fields for which `skip` holds are left out.
pub(super) fn maps(
    view: View<'_>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    skip: impl Fn(&str) -> bool,
) -> Comparison {
    let mut comparison = Comparison::default();
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone).filter(|key| !skip(key)) {
        field(view, key, Some(old), Some(new), &mut comparison);
    }
    comparison
}

/// Compares a field of maps; a map may be absent.
fn field(
    view: View<'_>,
    key: &str,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    out: &mut Comparison,
) {
    let unknown = Child { view: View::Untyped, declared: false, zero: None };
    let child = view.child(key).unwrap_or(unknown);
    let (old, new) = (side(child, key, old), side(child, key, new));
    if old.is_some() || new.is_some() {
        out.put(|| element::field(key), values(child.view, old, new));
    }
}

/// The value of a field, or what its absence stands for when the map is there.
fn side<'v>(child: Child<'_>, key: &str, map: Option<&'v Map<String, Value>>) -> Option<&'v Value> {
    let given = map?.get(key);
    match child.zero {
        None => given,
        Some(zero) => given.filter(|value| !value.is_null()).or(Some(zero)),
    }
}

/// Compares two values of which one may be absent.
fn values(view: View<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    let shape = |value: &Value| view.shape(value);
    match (old.map(shape), new.map(shape)) {
        // Null takes any shape.
        (Some(Shape::Map), None | Some(Shape::Map)) | (None, Some(Shape::Map)) => granular_maps(view, old, new),
        (Some(Shape::List(elements)), None | Some(Shape::List(_))) | (None, Some(Shape::List(elements))) => {
            lists(elements, old, new)
        }
        (Some(Shape::Leaf), None | Some(Shape::Leaf)) | (None, Some(Shape::Leaf) | None) => Nodes::leaf(old, new),
        // Another shape than before: what was below is gone, what is below is new.
        (Some(_), Some(_)) => {
            let set = |value: Option<&Value>| value.map(|value| extract::value(view, value).below).unwrap_or_default();
            let node = |member, below| Node { member, below };
            Nodes {
                removed: node(false, set(old)),
                modified: node(true, FieldSet::default()),
                added: node(false, set(new)),
            }
        }
    }
}

fn granular_maps(view: View<'_>, old_value: Option<&Value>, new_value: Option<&Value>) -> Nodes {
    let (old, new) = (old_value.and_then(Value::as_object), new_value.and_then(Value::as_object));
    if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
        return match (view, old_value, new_value) {
            (View::Untyped, ..) | (_, None, _) | (_, _, None) => Nodes::leaf(old_value, new_value),
            // Null is as empty as a map can be.
            _ => Nodes::default(),
        };
    }
    let mut comparison = Comparison::default();
    let gone = old.into_iter().flat_map(Map::keys).filter(|key| new.is_none_or(|new| !new.contains_key(*key)));
    for key in new.into_iter().flat_map(Map::keys).chain(gone) {
        // A map that is null has no fields, but it is there.
        field(view, key, old.or(old_value.map(|_| none())), new.or(new_value.map(|_| none())), &mut comparison);
    }
    // With a map come and go the fields that always are there.
    if let (Some(map), None) | (None, Some(map)) = (old_value.and(old), new_value.and(new)) {
        for key in view.always_there().filter(|key| !map.contains_key(*key)) {
            field(view, key, old, new, &mut comparison);
        }
    }
    with_self(comparison, old_value, new_value)
}

fn none() -> &'static Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    &NONE
}

/// A map or list that comes or goes is itself a field that does.
fn with_self(comparison: Comparison, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    let mut nodes = comparison.below();
    nodes.added.member = old.is_none();
    nodes.removed.member = new.is_none();
    nodes
}

fn lists(elements: Elements<'_>, old_value: Option<&Value>, new_value: Option<&Value>) -> Nodes {
    let (old, new) = (slice(old_value), slice(new_value));
    // Null is as empty as a list can be.
    match (old_value, new_value) {
        (Some(_), Some(_)) if old == new => return Nodes::default(),
        _ if old.is_empty() && new.is_empty() => return Nodes::leaf(old_value, new_value),
        _ => {}
    }
    let (Ok(old), Ok(new)) = (by_step(elements, old), by_step(elements, new)) else {
        // Elements that can't be told apart: the list is one value.
        return Nodes::leaf(old_value, new_value);
    };
    let mut comparison = Comparison::default();
    let gone =
        old.iter().filter(|(step, _)| !new.contains_key(*step)).map(|(step, old)| (step, old.as_slice(), &[] as &[_]));
    let others = new.iter().map(|(step, new)| (step, old.get(step).map_or(&[] as &[_], Vec::as_slice), new.as_slice()));
    for (step, old, new) in others.chain(gone) {
        comparison.put(|| step.clone(), same_step(elements.view, old, new));
    }
    with_self(comparison, old_value, new_value)
}

fn slice(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn by_step<'v>(elements: Elements<'_>, list: &'v [Value]) -> Result<HashMap<String, Vec<&'v Value>>, &'static str> {
    let mut found: HashMap<String, Vec<&Value>> = HashMap::with_capacity(list.len());
    for value in list {
        found.entry(element::element(elements, value)?).or_default().push(value);
    }
    Ok(found)
}

/// Compares the elements of one step. Where a step has several, they are one value.
fn same_step(view: View<'_>, old: &[&Value], new: &[&Value]) -> Nodes {
    match (old, new) {
        ([] | [_], [] | [_]) => values(view, old.first().copied(), new.first().copied()),
        ([_, _, ..], [_, _, ..]) => {
            Nodes { modified: Node { member: old != new, ..Node::default() }, ..Nodes::default() }
        }
        (_, [] | [_]) => {
            let mut nodes = new.first().map(|new| values(view, None, Some(new))).unwrap_or_default();
            nodes.removed.member = true;
            nodes
        }
        (_, _) => {
            let mut nodes = old.first().map(|old| values(view, Some(old), None)).unwrap_or_default();
            nodes.added.member = true;
            nodes
        }
    }
}
