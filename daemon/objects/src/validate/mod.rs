//! The rules that a structure alone can't express, with the reference's messages.
//!
//! A rule never panics on a value of the wrong type: that is [`crate::schema::check`]'s to report.

mod config;
mod container;
mod meta;
mod pod;
mod rules;
mod service;
mod small;
mod update;
mod volume;
mod workload;

pub use update::validate_update;

use crate::{field::FieldError, field::FieldReason, kind::Kind, object::Object};

/// All rules that `object`, defaulted, breaks. Empty when it may be stored. Structure is checked by [`crate::schema::check`].
pub fn validate(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::check(kind, object, &mut errors);
    let value = &object.value();
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::check_pod(object, value, &mut errors),
        ("", "ConfigMap") => config::check_config_map(value, &mut errors),
        ("", "Secret") => config::check_secret(value, &mut errors),
        ("", "Service") => service::check(value, &mut errors),
        ("", "PodTemplate" | "ReplicationController") | ("apps" | "batch", _) => {
            workload::check(kind, value, &mut errors)
        }
        _ => small::check(kind, value, &mut errors),
    }
    errors
}

/// Everything that happens to an object before it is stored, in order: structure, defaults, rules. `object` is defaulted in place
/// unless its structure is wrong. Each problem is reported once.
pub fn admit(kind: &Kind, object: &mut Object) -> Vec<FieldError> {
    let mut errors = crate::schema::check(kind, object);
    if errors.iter().any(|error| error.reason == FieldReason::TypeInvalid) {
        return errors;
    }
    crate::default(kind, object);
    for error in validate(kind, object) {
        if !errors.iter().any(|known| known.path == error.path && known.reason == error.reason) {
            errors.push(error);
        }
    }
    errors
}

#[cfg(test)]
mod tests;
