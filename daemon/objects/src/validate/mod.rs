//! The rules that a structure alone can't express, with the reference's messages.

use crate::{field::FieldError, kind::Kind, object::Object};

/// All rules that `object`, defaulted, breaks. Empty when it may be stored. Structure is checked by [`crate::schema::check`].
pub fn validate(_kind: &Kind, _object: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// The rules that an update through the API breaks: `new`'s own rules and the fields that may not change.
/// Objects declared by files are replaced freely: for them use [`validate`].
pub fn validate_update(kind: &Kind, _old: &Object, new: &Object) -> Vec<FieldError> {
    validate(kind, new)
}
