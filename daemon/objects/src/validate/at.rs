//! A place in an object while its rules are checked: the value and the way to it. Nothing is allocated until something is wrong.

use crate::field::{FieldError, FieldPath, FieldReason, Segment};
use serde_json::{Map, Value};

/// What the rules found.
pub(super) type Errors = Vec<FieldError>;

static NOTHING: Value = Value::Null;

/// A place: its value (null when there is none) and the way to it.
#[derive(Clone, Copy)]
pub(super) struct At<'v, 'p> {
    pub(super) value: &'v Value,
    /// The whole object is a map without a value of its own.
    root: Option<&'v Map<String, Value>>,
    step: Step<'v>,
    parent: Option<&'p At<'v, 'p>>,
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Root,
    Key(&'static str),
    MapKey(&'v str),
    Index(usize),
}

impl<'v, 'p> At<'v, 'p> {
    /// The whole object.
    pub(super) fn root(object: &'v Map<String, Value>) -> Self {
        Self { value: &NOTHING, root: Some(object), step: Step::Root, parent: None }
    }

    fn get(&self, key: &str) -> Option<&'v Value> {
        self.root.map_or_else(|| self.value.get(key), |map| map.get(key))
    }

    /// A field of the object, without an object that holds it.
    pub(super) fn top(key: &'static str, value: &'v Value) -> Self {
        Self { value, root: None, step: Step::Key(key), parent: None }
    }

    /// The path, for an error.
    pub(super) fn path(&self) -> FieldPath {
        let mut segments = Vec::new();
        let mut at = Some(self);
        while let Some(here) = at {
            match here.step {
                Step::Root => {}
                Step::Key(key) => segments.push(Segment::Key(key.to_owned())),
                Step::MapKey(key) => segments.push(Segment::MapKey(key.to_owned())),
                Step::Index(index) => segments.push(Segment::Index(index)),
            }
            at = here.parent;
        }
        segments.reverse();
        FieldPath::from_segments(segments)
    }

    /// A field below this place.
    pub(super) fn child<'q>(&'q self, key: &'static str) -> At<'v, 'q> {
        At { value: self.get(key).unwrap_or(&NOTHING), root: None, step: Step::Key(key), parent: Some(self) }
    }

    /// A field below this place, when it is there.
    pub(super) fn given<'q>(&'q self, key: &'static str) -> Option<At<'v, 'q>> {
        let child = self.child(key);
        (!child.value.is_null()).then_some(child)
    }

    /// A key of this map.
    pub(super) fn map_key<'q>(&'q self, key: &'v str) -> At<'v, 'q> {
        At { value: self.get(key).unwrap_or(&NOTHING), root: None, step: Step::MapKey(key), parent: Some(self) }
    }

    /// An element of this list.
    pub(super) fn index<'q>(&'q self, index: usize) -> At<'v, 'q> {
        At {
            value: self.value.get(index).unwrap_or(&NOTHING),
            root: None,
            step: Step::Index(index),
            parent: Some(self),
        }
    }

    /// The elements of this list.
    pub(super) fn items<'q>(&'q self) -> impl Iterator<Item = At<'v, 'q>> {
        let list = self.list();
        list.iter().enumerate().map(move |(index, value)| At {
            value,
            root: None,
            step: Step::Index(index),
            parent: Some(self),
        })
    }

    /// The entries of this map, in order of their keys.
    pub(super) fn entries<'q>(&'q self) -> impl Iterator<Item = (&'v str, At<'v, 'q>)> {
        let map = self.value.as_object().into_iter().flatten();
        map.map(move |(key, value)| {
            (key.as_str(), At { value, root: None, step: Step::MapKey(key), parent: Some(self) })
        })
    }

    /// This list; empty when it is none.
    pub(super) fn list(&self) -> &'v [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// This text; empty when it is none.
    pub(super) fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The text of a field.
    pub(super) fn text(&self, key: &str) -> &'v str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number of a field.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(Value::as_i64)
    }

    /// Is a field there?
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !value.is_null())
    }

    /// Is a field true?
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    /// Does a list or map of this name hold anything?
    pub(super) fn filled(&self, key: &str) -> bool {
        match self.get(key) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            _ => false,
        }
    }

    pub(super) fn required(&self, errors: &mut Errors, message: &str) {
        errors.push(FieldError::required(&self.path(), message));
    }

    pub(super) fn forbidden(&self, errors: &mut Errors, message: impl Into<String>) {
        errors.push(FieldError::forbidden(&self.path(), message));
    }

    /// This place's own value is invalid.
    pub(super) fn invalid(&self, errors: &mut Errors, message: impl Into<String>) {
        self.invalid_value(errors, self.value.clone(), message);
    }

    /// Another value is shown as the invalid one.
    pub(super) fn invalid_value(&self, errors: &mut Errors, value: impl Into<Value>, message: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path(), value, message));
    }

    /// This place is invalid as a whole: nothing is shown.
    pub(super) fn invalid_whole(&self, errors: &mut Errors, message: &str) {
        let error = FieldError::invalid(&self.path(), Value::Null, message);
        errors.push(FieldError { value: None, ..error });
    }

    /// One error for each of `problems` of `value`.
    pub(super) fn invalid_all(&self, errors: &mut Errors, value: &str, problems: Vec<String>) {
        problems.into_iter().for_each(|problem| self.invalid_value(errors, value, problem));
    }

    /// One error for each of the problems that this text has.
    pub(super) fn check_text(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        self.invalid_all(errors, self.str(), rule(self.str()));
    }

    pub(super) fn not_supported(&self, errors: &mut Errors, value: &str, allowed: &[&str]) {
        errors.push(FieldError::not_supported(&self.path(), value, allowed));
    }

    pub(super) fn duplicate(&self, errors: &mut Errors, value: impl Into<Value>) {
        errors.push(FieldError::duplicate(&self.path(), value));
    }

    pub(super) fn too_long(&self, errors: &mut Errors, max: usize) {
        errors.push(FieldError::too_long(&self.path(), max));
    }

    /// An error whose value is shown as given, not as JSON.
    pub(super) fn raw(&self, errors: &mut Errors, reason: FieldReason, shown: String, message: &str) {
        errors.push(FieldError {
            path: self.path(),
            reason,
            value: Some(shown),
            message: message.to_owned(),
            help: None,
        });
    }

    /// A text that must be there; is it?
    pub(super) fn require(&self, errors: &mut Errors, key: &'static str) -> bool {
        let there = !self.text(key).is_empty();
        if !there {
            self.child(key).required(errors, "");
        }
        there
    }

    /// A text that must be there and follow a rule.
    pub(super) fn require_name(&self, errors: &mut Errors, key: &'static str, rule: fn(&str) -> Vec<String>) {
        if self.require(errors, key) {
            self.child(key).check_text(errors, rule);
        }
    }

    /// A text that follows a rule when it is there.
    pub(super) fn optional_name(&self, errors: &mut Errors, key: &'static str, rule: fn(&str) -> Vec<String>) {
        if !self.text(key).is_empty() {
            self.child(key).check_text(errors, rule);
        }
    }

    /// A text that must be there and be one of `allowed`.
    pub(super) fn require_one_of(&self, errors: &mut Errors, key: &'static str, allowed: &[&str]) {
        if self.require(errors, key) {
            self.one_of(errors, key, allowed);
        }
    }

    /// A text that, when it is there, is one of `allowed`.
    pub(super) fn one_of(&self, errors: &mut Errors, key: &'static str, allowed: &[&str]) {
        if let Some(child) = self.given(key)
            && !allowed.contains(&child.str())
        {
            child.not_supported(errors, child.str(), allowed);
        }
    }

    /// A number that, when it is there, is not negative.
    pub(super) fn not_negative(&self, errors: &mut Errors, key: &'static str) {
        if self.number(key).is_some_and(|number| number < 0) {
            self.child(key).invalid(errors, super::rules::NEGATIVE);
        }
    }

    /// A number that, when it is there, lies in a range.
    pub(super) fn in_range(&self, errors: &mut Errors, key: &'static str, range: std::ops::RangeInclusive<i64>) {
        let child = self.child(key);
        if let Some(number) = child.value.as_i64() {
            child.number_in(errors, number, range);
        }
    }

    /// A number of this place that lies in a range.
    pub(super) fn number_in(&self, errors: &mut Errors, number: i64, range: std::ops::RangeInclusive<i64>) {
        if !range.contains(&number) {
            let message = format!("must be between {} and {}, inclusive", range.start(), range.end());
            self.invalid_value(errors, number, message);
        }
    }
}
