//! Kinds that are served in more than one version and stored in one.
//!
//! | stored | also served as | |
//! |---|---|---|
//! | core/v1 Event | events.k8s.io/v1 Event | `event.rs`: the same fields by other names |
//! | autoscaling/v2 HorizontalPodAutoscaler | autoscaling/v1 | `autoscaler.rs`: what v1 has no field for is in annotations |
//!
//! Nothing is lost on the way there and back. Source: Kubernetes' API conventions on versions, and the two APIs' references.

mod autoscaler;
mod event;
#[cfg(test)]
mod tests;

use crate::kind::{Kind, kinds};
use crate::object::Object;

/// The version of a kind in which its objects are stored: itself for most.
pub fn stored_kind(kind: &'static Kind) -> &'static Kind {
    if is_stored(kind) {
        return kind;
    }
    let api_version = if kind.kind == "Event" { "v1" } else { "autoscaling/v2" };
    kinds().by_gvk(api_version, kind.kind).unwrap_or(kind)
}

/// The group under which a resource of a group is stored.
pub fn stored_group<'a>(group: &'a str, plural: &str) -> &'a str {
    match (group, plural) {
        ("events.k8s.io", "events") => "",
        _ => group,
    }
}

/// Is this the version in which the kind's objects are stored?
pub fn is_stored(kind: &Kind) -> bool {
    !matches!(
        (kind.group, kind.version, kind.kind),
        ("events.k8s.io", "v1", "Event") | ("autoscaling", "v1", "HorizontalPodAutoscaler")
    )
}

/// An object in the version in which it is stored. Objects of other kinds stay as they are.
pub fn to_stored(mut object: Object) -> Object {
    match (object.api_version(), object.kind()) {
        ("events.k8s.io/v1", "Event") => event::to_core(&mut object),
        ("autoscaling/v1", "HorizontalPodAutoscaler") => autoscaler::to_v2(&mut object),
        _ => {}
    }
    object
}

/// A stored object in the version `kind`; one that is in it already stays as it is.
pub fn to_version(kind: &Kind, mut object: Object) -> Object {
    let from = (object.api_version(), object.kind());
    match (kind.group, kind.version, kind.kind) {
        ("events.k8s.io", "v1", "Event") if from == ("v1", "Event") => event::to_events(&mut object),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") if from.0 == "autoscaling/v2" => {
            autoscaler::to_v1(&mut object)
        }
        _ => {}
    }
    object
}
