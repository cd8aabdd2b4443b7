//! Classes that objects get when they name none.

use super::Refusal;
use crate::object::Object;

/// What named a claim's class before there was a field for it, and still goes before that field.
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A claim without a class gets the default one: of several the newest.
pub(super) fn fill_storage(claim: &mut Object, classes: &[Object]) {
    const DEFAULTS: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let named = claim.get("/spec/storageClassName").is_some() || claim.annotation(BETA_CLASS).is_some();
    if named {
        return;
    }
    let is_default = |class: &&Object| DEFAULTS.iter().any(|annotation| class.annotation(annotation) == Some("true"));
    let newest = |class: &&Object| (class.creation_timestamp(), std::cmp::Reverse(class.name().to_owned()));
    if let Some(class) = classes.iter().filter(is_default).max_by_key(newest) {
        claim.set("/spec/storageClassName", class.name());
    }
}

/// An ingress without a class gets the default one.
pub(super) fn fill_ingress(ingress: &mut Object, classes: &[Object]) -> Result<(), Refusal> {
    let named =
        ingress.get("/spec/ingressClassName").is_some() || ingress.annotation("kubernetes.io/ingress.class").is_some();
    if named {
        return Ok(());
    }
    let is_default = |class: &&Object| class.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true");
    let newest = |class: &&Object| (class.creation_timestamp(), std::cmp::Reverse(class.name().to_owned()));
    if let Some(class) = classes.iter().filter(is_default).max_by_key(newest) {
        ingress.set("/spec/ingressClassName", class.name());
    }
    Ok(())
}
