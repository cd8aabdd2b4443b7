//! Label and field selectors.

use crate::{kind::Kind, object::Object};
use serde_json::Value;

/// A selector that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Which labels an object must have. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<LabelRequirement>);

/// One condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// The condition.
    pub condition: LabelCondition,
}

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelCondition {
    /// It is there with one of these values (`=`, `==`, `in`).
    In(Vec<String>),
    /// It is absent or has none of these values (`!=`, `notin`).
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Reads `app=web,tier!=db,env in (a, b),!old,new`.
    ///
    /// # Errors
    /// [`SelectorError`] with the reference's text (`unable to parse requirement: ...`).
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// Reads the JSON form with matchLabels and matchExpressions.
    ///
    /// # Errors
    /// [`SelectorError`] for an unknown operator.
    pub fn from_value(_value: &Value) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// Does it select everything?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does it select this object?
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_labels(|key| object.label(key))
    }

    /// Does it select something with these labels?
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            match &requirement.condition {
                LabelCondition::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
                LabelCondition::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
                LabelCondition::Exists => value.is_some(),
                LabelCondition::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// Which values an object's fields must have. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, for example `status.phase`.
    pub field: String,
    /// The value to compare with.
    pub value: String,
    /// Must it be equal, or must it differ?
    pub equal: bool,
}

impl FieldSelector {
    /// Reads `metadata.name=web,status.phase!=Failed` for `kind`.
    ///
    /// # Errors
    /// [`SelectorError`] with the reference's text, also for a field that can't be selected by.
    pub fn parse(_kind: &Kind, _text: &str) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// Does it select everything?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Does it select this object?
    pub fn matches(&self, _object: &Object) -> bool {
        true
    }
}
