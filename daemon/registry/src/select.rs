//! Which stored objects a list or watch wants, decided from as little of their text as the selectors need.

use crate::stored::{damaged, metadata_end};
use crate::{ListQuery, RegistryError};
use reddwarf_objects::partial::Partial;
use reddwarf_objects::selector::{FieldSelector, LabelSelector};

/// A query's selectors, ready to look at stored text.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// What the selectors look at; absent when they want everything.
    partial: Option<Partial>,
    /// All of that is in the metadata, which stored text begins with.
    metadata_only: bool,
}

impl Selection {
    pub(crate) fn of(query: &ListQuery) -> Self {
        let (labels, fields) = (query.labels.clone(), query.fields.clone());
        let pointers = fields.pointers();
        let metadata_only = pointers.iter().all(|p| p.starts_with("/metadata/"));
        let partial = (!labels.is_empty() || !fields.is_empty()).then(|| {
            let of_labels = (!labels.is_empty()).then_some("/metadata/labels");
            Partial::new(pointers.iter().map(String::as_str).chain(of_labels))
        });
        Self { labels, fields, partial, metadata_only }
    }

    /// Does it want the object with this key and text?
    pub(crate) fn wants(&self, key: &str, json: &[u8]) -> Result<bool, RegistryError> {
        let Some(partial) = &self.partial else { return Ok(true) };
        // A look at the name alone needs no text: it is the key's end.
        if self.fields.exact_name().is_some_and(|name| key.rsplit('/').next() != Some(name)) {
            return Ok(false);
        }
        let head = metadata_end(json).filter(|_| self.metadata_only).and_then(|end| json.get(..end));
        let object = match head {
            Some(head) => partial.read(&[head, b"}"].concat()),
            None => partial.read(json),
        };
        let object = object.map_err(|e| damaged(key, e))?;
        Ok(self.labels.matches(&object) && self.fields.matches(&object))
    }
}
