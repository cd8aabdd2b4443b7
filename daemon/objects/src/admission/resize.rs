//! Claims grow only where their class lets them.

use super::{BETA_CLASS, Refusal};
use crate::object::Object;
use crate::quantity::Quantity;

/// The class of a claim; empty for none.
fn class_of(claim: &Object) -> &str {
    let named = claim.annotation(BETA_CLASS).or_else(|| claim.get_str("/spec/storageClassName"));
    named.unwrap_or_default()
}

/// The class that decides whether a claim may become as large as `new` wants it; none when it does not grow.
pub fn class_to_grow<'a>(old: &Object, new: &'a Object) -> Option<&'a str> {
    let size = |claim: &Object| {
        let asked = claim.get("/spec/resources/requests/storage");
        asked.and_then(|asked| Quantity::from_value(asked).ok())
    };
    (size(new) > size(old)).then(|| class_of(new))
}

/// May a claim grow? `class` is that of [`class_to_grow`], if it is there.
///
/// # Errors
/// [`Refusal`] of a claim that is not bound yet, or whose class does not say that its volumes can grow.
pub fn check_growth(old: &Object, new: &Object, class: Option<&Object>) -> Result<(), Refusal> {
    if old.get_str("/status/phase") != Some("Bound") {
        return Err(Refusal("Only bound persistent volume claims can be expanded".to_owned()));
    }
    let grows = class.is_some_and(|class| class.map().get("allowVolumeExpansion").is_some_and(|grows| grows == true));
    if grows && class_of(old) == class_of(new) {
        return Ok(());
    }
    Err(Refusal(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            .to_owned(),
    ))
}
