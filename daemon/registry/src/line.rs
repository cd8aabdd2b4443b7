//! Where in its file an object, or a field of it, is declared. Looked up only when somebody has to be told: in the texts of the
//! generation in force, so that the line is the one that the daemon read.

use crate::ownership::check_update;
use crate::{Author, Registry, RegistryError};
use reddwarf_config::{Limits, parse_file};
use reddwarf_objects::{Kind, Object, ObjectKey};
use serde_json::Value;

impl Registry {
    /// An ownership refusal with the line of the first field, or of the object; other errors as they are.
    pub(crate) fn with_line(&self, error: RegistryError) -> RegistryError {
        let RegistryError::FileOwned { key, source_file, line: None, fields } = error else { return error };
        let field = fields.first().map(String::as_str).unwrap_or_default();
        let line = self.declared_line(&source_file, &key, field);
        RegistryError::FileOwned { key, source_file, line, fields }
    }

    /// What a rehearsed write has to be told: the file would refuse the real one.
    pub(crate) fn rehearsed(
        &self,
        author: &Author,
        kind: &Kind,
        old: &Object,
        new: &Object,
        declared: Option<&Object>,
    ) -> Option<String> {
        let refusal = check_update(author, kind, old, new, declared).err()?;
        Some(format!("dry run only: {}", self.with_line(refusal)))
    }

    /// The line (from 1) that declares a field, or what is nearest above it, or the object. None when the file of the generation
    /// in force does not say: its text is newer than what is in force, or no longer kept.
    pub fn declared_line(&self, source: &str, key: &ObjectKey, field: &str) -> Option<u32> {
        let store = self.store();
        let generation = store.latest_generation().ok().flatten()?;
        let file = generation.files.iter().find(|file| file.name == source)?;
        let text = store.content(&file.digest).ok().flatten()?;
        let (documents, _) = parse_file(source, &text, &Limits::default());
        let document = documents.iter().find(|document| is_about(&document.value, key))?;
        let place = document.origin.nearest(&pointer(field));
        Some(place.map_or(document.origin.start(), |place| place.position).line)
    }
}

fn is_about(document: &Value, key: &ObjectKey) -> bool {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let Some(kind) = text("/apiVersion").zip(text("/kind")).and_then(|(v, k)| reddwarf_objects::kinds().by_gvk(v, k))
    else {
        return false;
    };
    let namespace = kind.namespaced.then(|| text("/metadata/namespace").unwrap_or("default"));
    kind.group == key.group
        && kind.plural == key.resource
        && namespace == key.namespace.as_deref()
        && text("/metadata/name") == Some(&key.name)
}

/// `spec.containers[0].image`, `data[k.x]` as a JSON pointer.
fn pointer(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while !rest.is_empty() {
        let (segment, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => {
                let name = rest.strip_prefix('.').unwrap_or(rest);
                let end = name.find(['.', '[']).unwrap_or(name.len());
                name.split_at(end)
            }
        };
        out.push('/');
        out.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_as_pointers() {
        for (field, pointer) in [
            ("", ""),
            ("data[k.x/y]", "/data/k.x~1y"),
            ("spec.containers[0].image", "/spec/containers/0/image"),
            ("spec", "/spec"),
        ] {
            assert_eq!(super::pointer(field), pointer);
        }
    }
}
