//! Who may write what. Files own the objects that they declare: API clients may still write status, finalizers, owner
//! references and the labels and annotations that the file does not set.

use crate::admit::differing_fields;
use crate::{Author, RegistryError};
use reddwarf_objects::diff::diff;
use reddwarf_objects::{FieldError, FieldPath, Kind, Object, SOURCE_ANNOTATION};

/// The file that declares an object; `None` when it belongs to the API.
pub fn source_of(object: &Object) -> Option<&str> {
    object.annotation(SOURCE_ANNOTATION)
}

/// Refuses an API write that changes what the file decides. `applied` is the object as the file last declared it.
pub(crate) fn check_update(
    author: &Author,
    kind: &Kind,
    old: &Object,
    new: &Object,
    applied: Option<&Object>,
) -> Result<(), RegistryError> {
    let Some(source) = source_of(old).filter(|_| author.is_api()) else { return Ok(()) };
    let mut fields: Vec<String> = diff(kind, old, new)
        .into_iter()
        .filter(|change| !matches!(change.path.segments().first().and_then(|s| s.key()), Some("metadata" | "status")))
        .map(|change| change.path.to_string())
        .collect();
    if fields.is_empty() {
        // What the differ holds for equal but is written otherwise is refused too: the file says how it is written.
        fields = differing_fields(old, new);
    }
    fields.extend(changed_metadata(old, new, applied.unwrap_or(old)));
    if fields.is_empty() {
        return Ok(());
    }
    Err(RegistryError::FileOwned { key: Box::new(old.key(kind)), source_file: source.to_owned(), line: None, fields })
}

/// Refuses an API delete of an object that a file declares.
pub(crate) fn check_delete(author: &Author, kind: &Kind, old: &Object) -> Result<(), RegistryError> {
    match source_of(old).filter(|_| author.is_api()) {
        Some(source) => Err(RegistryError::FileOwned {
            key: Box::new(old.key(kind)),
            source_file: source.to_owned(),
            line: None,
            fields: Vec::new(),
        }),
        None => Ok(()),
    }
}

/// Refuses an API client's attempt to claim a file as the source. `old` is what is stored, if anything.
pub(crate) fn check_claim(
    author: &Author,
    kind: &Kind,
    old: Option<&Object>,
    new: &Object,
) -> Result<(), RegistryError> {
    let claimed = source_of(new);
    if !author.is_api() || claimed.is_none() || claimed == old.and_then(source_of) {
        return Ok(());
    }
    let path = FieldPath::of("metadata.annotations").map_key(SOURCE_ANNOTATION);
    let error = FieldError::forbidden(&path, "only the daemon sets it, to the file that declares the object");
    Err(invalid(kind, new, vec![error]))
}

/// Labels and annotations that the file sets and the write changes.
fn changed_metadata(old: &Object, new: &Object, applied: &Object) -> Vec<String> {
    let path = |map: &str, key: &str| FieldPath::of(map).map_key(key).to_string();
    let labels = applied
        .labels()
        .filter(|(key, _)| old.label(key) != new.label(key))
        .map(|(key, _)| path("metadata.labels", key));
    let annotations = applied
        .annotations()
        .filter(|(key, _)| *key != SOURCE_ANNOTATION && old.annotation(key) != new.annotation(key))
        .map(|(key, _)| path("metadata.annotations", key));
    labels.chain(annotations).collect()
}

/// [`RegistryError::Invalid`] for an object.
pub(crate) fn invalid(kind: &Kind, object: &Object, errors: Vec<FieldError>) -> RegistryError {
    RegistryError::Invalid {
        kind: kind.kind.to_owned(),
        group: kind.group.to_owned(),
        name: object.name().to_owned(),
        errors,
    }
}
