//! Sets of fields, in the very form in which `fieldsV1` stores them, so that nothing is converted on a write:
//!
//! ```json
//! {"f:data": {".": {}, "f:a": {}}}        .data and .data.a are in the set
//! {"f:data": {"f:a": {}}}                 only .data.a is
//! ```
//!
//! A step ([`super::element`]) leads to a node. A node is in the set when it is empty or holds `.`; its other keys are the steps below
//! it. A node that neither is in the set nor has anything below it does not exist.

use super::element::{self, Sent};
use serde_json::{Map, Value};
use std::sync::LazyLock;

const MEMBER: &str = ".";
/// How deep a set that somebody sends may be: no object is deeper.
const MAX_DEPTH: usize = 128;

/// A set of fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(Map<String, Value>);

/// A node under construction.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Is the place itself in the set?
    pub(super) member: bool,
    /// What is below it.
    pub(super) below: FieldSet,
}

impl Node {
    /// A place with nothing below it.
    pub(super) fn leaf() -> Self {
        Self { member: true, below: FieldSet(Map::new()) }
    }

    /// The node in a value that holds one.
    fn read(value: &Value) -> (bool, Option<&Map<String, Value>>) {
        match value {
            Value::Object(map) if !map.is_empty() => (map.contains_key(MEMBER), Some(map)),
            _ => (true, None),
        }
    }

    fn take(value: &mut Value) -> Self {
        match value.take() {
            Value::Object(mut map) if !map.is_empty() => {
                let member = map.remove(MEMBER).is_some();
                Self { member, below: FieldSet(map) }
            }
            _ => Self::leaf(),
        }
    }

    /// The value that holds the node; none when there is nothing to hold.
    fn write(self) -> Option<Value> {
        let Self { member, below: FieldSet(mut map) } = self;
        if member && !map.is_empty() {
            map.insert(MEMBER.to_owned(), Value::Object(Map::new()));
        }
        (member || !map.is_empty()).then_some(Value::Object(map))
    }
}

/// The steps of a map that stands below some place.
fn steps(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.iter().filter(|(step, _)| *step != MEMBER)
}

impl FieldSet {
    /// Takes `fieldsV1` as we stored it.
    pub(super) fn stored(value: Value) -> Self {
        match value {
            Value::Object(mut map) => {
                map.remove(MEMBER);
                Self(map)
            }
            _ => Self::default(),
        }
    }

    /// Reads `fieldsV1` as somebody sent it: checked, and every step in its canonical text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => parse_below(map, 0),
            other => Err(format!("expected a map: {other}")),
        }
    }

    /// The set as `fieldsV1`.
    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a node at a step where nothing is yet.
    pub(super) fn put(&mut self, step: String, node: Node) {
        if let Some(value) = node.write() {
            self.0.insert(step, value);
        }
    }

    /// Is the place that one step leads to in the set, and what is below it?
    pub(super) fn get(&self, step: &str) -> Option<(bool, FieldSetRef<'_>)> {
        FieldSetRef(&self.0).get(step)
    }

    /// The set, borrowed.
    pub(super) fn as_ref(&self) -> FieldSetRef<'_> {
        FieldSetRef(&self.0)
    }

    /// Removes a place and everything below it.
    pub(super) fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.0.remove(*first);
        } else if let Some(value) = self.0.get_mut(*first) {
            let mut node = Node::take(value);
            node.below.cut(rest);
            match node.write() {
                Some(kept) => *value = kept,
                None => drop(self.0.remove(*first)),
            }
        }
    }

    /// Removes the fields of the object for which `keep` does not hold, and everything below them.
    pub(super) fn retain_fields(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|step, _| element::field_name(step).is_none_or(&keep));
    }

    /// Takes a place out, but nothing below it.
    pub(super) fn remove_member(&mut self, step: &str) {
        if let Some(value) = self.0.get_mut(step) {
            let node = Node { member: false, ..Node::take(value) };
            match node.write() {
                Some(kept) => *value = kept,
                None => drop(self.0.remove(step)),
            }
        }
    }

    /// Adds everything that is in `other`.
    pub(super) fn add(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (step, mut theirs) in other.0 {
            match self.0.get_mut(&step) {
                None => {
                    self.0.insert(step, theirs);
                }
                Some(ours) => {
                    let (mut node, theirs) = (Node::take(ours), Node::take(&mut theirs));
                    node.member |= theirs.member;
                    node.below.add(theirs.below);
                    *ours = node.write().unwrap_or_default();
                }
            }
        }
    }

    /// Takes everything out that is in `other`; what is below a place in `other` stays.
    pub(super) fn subtract(&mut self, other: &Self) {
        if !other.0.is_empty() {
            subtract(&mut self.0, &other.0);
        }
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        intersection(&self.0, &other.0)
    }

    /// Is everything in `other` too?
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        rest.subtract(other);
        rest.is_empty()
    }

    /// All paths in the set, printed: `.spec.containers[name="x"].image`.
    pub(super) fn print(&self) -> Vec<String> {
        let mut out = Vec::new();
        print(&self.0, "", &mut out);
        out
    }
}

/// A borrowed set.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldSetRef<'a>(&'a Map<String, Value>);

impl<'a> FieldSetRef<'a> {
    pub(super) fn empty() -> Self {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        FieldSetRef(&EMPTY)
    }

    pub(super) fn is_empty(self) -> bool {
        steps(self.0).next().is_none()
    }

    /// Is the place that one step leads to in the set, and what is below it?
    pub(super) fn get(self, step: &str) -> Option<(bool, FieldSetRef<'a>)> {
        self.0.get(step).map(node)
    }

    /// Every step, whether it is in the set, and what is below it.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a str, bool, FieldSetRef<'a>)> {
        steps(self.0).map(|(step, value)| {
            let (member, below) = node(value);
            (step.as_str(), member, below)
        })
    }
}

fn node(value: &Value) -> (bool, FieldSetRef<'_>) {
    let (member, below) = Node::read(value);
    (member, below.map_or_else(FieldSetRef::empty, FieldSetRef))
}

fn parse_below(map: &Map<String, Value>, depth: usize) -> Result<FieldSet, String> {
    if depth > MAX_DEPTH {
        return Err("too deep".to_owned());
    }
    let mut set = FieldSet::default();
    for (step, value) in steps(map) {
        let Sent::Known(step) = element::parse(step)? else { continue };
        let Value::Object(below) = value else { return Err(format!("expected a map: {value}")) };
        let member = below.contains_key(MEMBER) || steps(below).next().is_none();
        let node = Node { member, below: parse_below(below, depth + 1)? };
        let mut one = FieldSet::default();
        one.put(step, node);
        set.add(one);
    }
    Ok(set)
}

fn subtract(from: &mut Map<String, Value>, other: &Map<String, Value>) {
    from.retain(|step, ours| {
        let Some(theirs) = other.get(step) else { return true };
        let mut node = Node::take(ours);
        let (member, below) = Node::read(theirs);
        node.member &= !member;
        if let Some(below) = below {
            subtract(&mut node.below.0, below);
        }
        match node.write() {
            Some(kept) => {
                *ours = kept;
                true
            }
            None => false,
        }
    });
}

fn intersection(a: &Map<String, Value>, b: &Map<String, Value>) -> FieldSet {
    let mut both = FieldSet::default();
    for (step, ours) in steps(a) {
        let Some(theirs) = b.get(step) else { continue };
        let ((in_a, below_a), (in_b, below_b)) = (Node::read(ours), Node::read(theirs));
        let below = match (below_a, below_b) {
            (Some(a), Some(b)) => intersection(a, b),
            _ => FieldSet::default(),
        };
        if (in_a && in_b) || !below.is_empty() {
            both.put(step.clone(), Node { member: in_a && in_b, below });
        }
    }
    both
}

fn print(map: &Map<String, Value>, prefix: &str, out: &mut Vec<String>) {
    let members = steps(map).filter(|(_, value)| Node::read(value).0);
    out.extend(members.map(|(step, _)| format!("{prefix}{}", element::print(step))));
    for (step, value) in steps(map) {
        if let Some(below) = Node::read(value).1 {
            print(below, &format!("{prefix}{}", element::print(step)), out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(&value).unwrap()
    }

    #[test]
    fn the_form_is_read_and_written() {
        let text =
            json!({"f:data": {".": {}, "f:a": {}}, "f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:b": {}}, "v:1": {}}});
        assert_eq!(set(text.clone()).into_value(), text);
        assert_eq!(set(text).print(), [".data", ".data.a", ".list[name=\"x\"]", ".list[=1]", ".list[name=\"x\"].b"]);
        assert_eq!(
            set(json!({"f:a": {".": {}}, "x:new": {}, "k:{ \"b\":1,\"a\":2}": {}})).into_value(),
            json!({"f:a": {}, "k:{\"a\":2,\"b\":1}": {}})
        );
        for bad in [json!([]), json!({"a": {}}), json!({"f:a": 1}), json!({"k:x": {}})] {
            assert!(FieldSet::parse(&bad).is_err(), "{bad}");
        }
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"f:a": deep});
        }
        assert!(FieldSet::parse(&deep).is_err());
    }

    #[test]
    fn places_are_cut_with_or_without_what_is_below() {
        let mut cut = set(json!({"f:metadata": {".": {}, "f:labels": {".": {}, "f:a": {}}}, "f:status": {"f:x": {}}}));
        cut.cut(&["f:status"]);
        cut.remove_member("f:metadata");
        assert_eq!(cut.clone().into_value(), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
        cut.cut(&["f:metadata", "f:labels"]);
        assert!(cut.is_empty());
    }

    /// Sets as sets of printed paths: the model.
    fn model(set: &FieldSet) -> BTreeSet<String> {
        set.print().into_iter().collect()
    }

    pub(in super::super) fn any_set() -> impl Strategy<Value = FieldSet> {
        let step = prop::sample::select(vec!["f:a", "f:b", "k:{\"n\":\"x\"}", "v:1", "."]);
        let leaf = Just(json!({})).boxed();
        let node = leaf.prop_recursive(3, 16, 4, move |inner| {
            prop::collection::btree_map(step.clone(), inner, 0..4).prop_map(|map| {
                Value::Object(
                    map.into_iter()
                        .map(|(step, node)| (step.to_owned(), if step == "." { json!({}) } else { node }))
                        .collect(),
                )
            })
        });
        node.prop_map(set)
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in any_set(), b in any_set()) {
            let (model_a, model_b) = (model(&a), model(&b));
            let mut union = a.clone();
            union.add(b.clone());
            prop_assert_eq!(model(&union), model_a.union(&model_b).cloned().collect::<BTreeSet<_>>());
            let mut difference = a.clone();
            difference.subtract(&b);
            prop_assert_eq!(model(&difference), model_a.difference(&model_b).cloned().collect::<BTreeSet<_>>());
            let both = a.intersection(&b);
            prop_assert_eq!(model(&both), model_a.intersection(&model_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.is_within(&b), model_a.is_subset(&model_b));
            difference.add(both);
            prop_assert_eq!(&difference, &a);
            prop_assert_eq!(FieldSet::parse(&a.clone().into_value()), Ok(a));
        }

        #[test]
        fn nothing_panics(value in crate::patch::arbitrary::value(), step in ".{0,6}", keys in "[kvif]:.{0,8}") {
            let _ = FieldSet::parse(&value);
            let _ = FieldSet::parse(&json!({step: {keys: {}}}));
            let _ = FieldSet::stored(value).print();
        }
    }
}
