//! Which fields a write can own at all.

use super::{
    compare::{self, Comparison},
    element,
    set::FieldSet,
};
use crate::{kind::Kind, schema::View};
use serde_json::{Map, Value};

/// Metadata that the server keeps: nobody owns it.
pub(super) const SERVER_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// What a write through the object itself or one of its subresources can't change, so never owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything.
    Whole,
    /// Everything but status: the object of a kind whose status is written apart.
    NoStatus,
    /// Nothing but status and metadata.
    Status,
}

impl Reach {
    pub(super) fn of(kind: &Kind, subresource: Option<&str>) -> Self {
        match subresource {
            Some("status" | "approval") => Self::Status,
            _ if kind.has_status() => Self::NoStatus,
            _ => Self::Whole,
        }
    }

    /// Is a field of the object out of reach? Its type is nobody's in any case.
    pub(super) fn excludes(self, field: &str) -> bool {
        matches!(field, "apiVersion" | "kind")
            || match self {
                Self::Whole => false,
                Self::NoStatus => field == "status",
                Self::Status => !matches!(field, "status" | "metadata"),
            }
    }

    /// The set without what is out of reach and what the server keeps.
    pub(super) fn limit(self, mut set: FieldSet) -> FieldSet {
        set.retain_fields(|field| !self.excludes(field));
        if set.get("f:metadata").is_some() {
            for field in SERVER_METADATA {
                set.cut(&["f:metadata", &element::field(field)]);
            }
            set.remove_member("f:metadata");
        }
        set
    }

    /// What differs between two states of an object, of what is within reach and not the server's.
    pub(super) fn compare(self, view: View<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Comparison {
        let mut comparison = compare::maps(view, old, new, |field| field == "metadata" || self.excludes(field));
        let metadata_view = view.child("metadata").map_or(View::Untyped, |child| child.view);
        let none = Map::new();
        let old = old.get("metadata").and_then(Value::as_object).unwrap_or(&none);
        let new = new.get("metadata").and_then(Value::as_object).unwrap_or(&none);
        let inner = compare::maps(metadata_view, old, new, |field| SERVER_METADATA.contains(&field));
        comparison.put_field("metadata", inner);
        comparison
    }
}
