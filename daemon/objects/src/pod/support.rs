//! Fields that are accepted and stored but have no effect in this version.

use crate::{field::FieldPath, object::Object};

/// The fields of a pod that are accepted but have no effect in this version, each with a sentence for people. They are shown as
/// warnings wherever the pod is shown: nothing is silently ignored.
pub fn not_yet_supported(_pod: &Object) -> Vec<(FieldPath, String)> {
    Vec::new()
}
