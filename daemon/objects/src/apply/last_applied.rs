//! The annotation in which `kubectl apply` without `--server-side` keeps what it applied, for objects that move from one to the other.
//! Only the manager `kubectl` is treated so.

use super::{compare, extract, set::FieldSet};
use crate::{object::Object, schema::View};
use serde_json::Value;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager for which the annotation counts.
pub(super) const KUBECTL: &str = "kubectl";

/// The fields that `kubectl apply` set and that still are as it set them: a server-side apply by kubectl may take them over.
pub(super) fn still_as_applied(view: View<'_>, live: &Object) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(live.annotation(ANNOTATION)?).ok()?;
    let applied = applied.as_object()?;
    if applied.get("apiVersion")?.as_str()? != live.api_version() {
        return None;
    }
    let mut fields = extract::object(view, applied);
    let (changed, removed) = compare::maps(view, applied, live.map(), |_| false).changed();
    fields.subtract(&changed);
    fields.subtract(&removed);
    Some(fields)
}

/// Keeps the annotation of an object that has one up to date with what kubectl now applied.
pub(super) fn refresh(object: &mut Object, config: &Object) {
    if object.annotation(ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = config.clone();
    applied.remove_annotation(ANNOTATION);
    object.set_annotation(ANNOTATION, &format!("{}\n", applied.to_json()));
}
