//! Drop-ins: documents of `web.d/*.yaml` that change documents of `web.yaml` by merge patch (RFC 7396).

use crate::diagnostic::{Diagnostic, codes};
use crate::document::{Document, Origin};
use crate::node::{Children, KeySpans, Spans};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Which object a document is about, as far as a drop-in has to say.
fn identity(value: &Value) -> (Option<&str>, Option<&str>, &str) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty());
    (text("/kind"), text("/metadata/name"), text("/metadata/namespace").unwrap_or("default"))
}

/// Merges a drop-in's documents, in order, into those of its base. A document that fits none is an error.
pub(super) fn apply(base: &mut [Document], patches: Vec<Document>, findings: &mut Vec<Diagnostic>) {
    for patch in patches {
        let wanted = identity(&patch.value);
        match base.iter_mut().find(|d| identity(&d.value) == wanted) {
            Some(document) if wanted.0.is_some() && wanted.1.is_some() => merge_document(document, patch),
            _ => findings.extend(no_target(base, &patch)),
        }
    }
}

fn no_target(base: &[Document], patch: &Document) -> Option<Diagnostic> {
    let (kind, name, namespace) = identity(&patch.value);
    let place = patch.origin.value_at("/metadata/name").or_else(|| patch.origin.nearest(""))?;
    let shown = |(kind, name, namespace): (Option<&str>, Option<&str>, &str)| {
        format!("{} {namespace}/{}", kind.unwrap_or("(no kind)"), name.unwrap_or("(no name)"))
    };
    let there: Vec<String> = base.iter().take(5).map(|d| shown(identity(&d.value))).collect();
    let (message, help) = match (kind, name) {
        (Some(_), Some(_)) => (
            format!("the drop-in changes {}, which its file doesn't declare", shown((kind, name, namespace))),
            format!("the file declares {}", there.join(", ")),
        ),
        _ => ("the drop-in doesn't say which object it changes".to_owned(), "give kind and metadata.name".to_owned()),
    };
    let why = "a drop-in changes the objects of the file that its directory is named after";
    Some(Diagnostic::error(codes::DROP_IN_WITHOUT_BASE, place.source, place.at, message, why, help))
}

fn merge_document(document: &mut Document, patch: Document) {
    let mut sources = document.origin.sources.clone();
    let offset = sources.len() as u32;
    sources.extend(patch.origin.sources.iter().cloned());
    let mut spans = document.origin.spans.clone();
    let mut patch_spans = patch.origin.spans.clone();
    patch_spans.set_source(offset);
    merge(&mut document.value, &mut spans, patch.value, patch_spans);
    document.origin = Arc::new(Origin { sources, spans, index: document.origin.index });
}

/// RFC 7396 on a value and the places of its parts alike.
fn merge(target: &mut Value, spans: &mut Spans, patch: Value, patch_spans: Spans) {
    let (Value::Object(patch), Children::Mapping(patch_keys)) = (patch, patch_spans.children) else {
        return;
    };
    if !target.is_object() || !matches!(spans.children, Children::Mapping(_)) {
        *target = Value::Object(Map::new());
        *spans = Spans { at: patch_spans.at, children: Children::Mapping(Vec::new()) };
    }
    let (Value::Object(map), Children::Mapping(keys)) = (target, &mut spans.children) else { return };
    let mut patch = patch;
    for entry in patch_keys {
        let Some(value) = patch.remove(&*entry.key) else { continue };
        let known = keys.iter().position(|k| k.key == entry.key);
        if value.is_null() {
            map.remove(&*entry.key);
            if let Some(index) = known {
                keys.remove(index);
            }
            continue;
        }
        let slot = map.entry(&*entry.key).or_insert(Value::Null);
        let index = known.unwrap_or_else(|| {
            let spans = Spans { at: entry.at, children: Children::None };
            keys.push(KeySpans { key: entry.key.clone(), at: entry.at, spans });
            keys.len() - 1
        });
        if value.is_object() {
            merge(slot, &mut keys[index].spans, value, entry.spans);
        } else {
            *slot = value;
            keys[index].at = entry.at;
            keys[index].spans = entry.spans;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, parse_file};
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn document(name: &str, spec: &Value) -> Document {
        let value = serde_json::json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
        let (mut documents, findings) = parse_file(name, value.to_string().as_bytes(), &Limits::default());
        assert!(findings.is_empty(), "{findings:?}");
        documents.remove(0)
    }

    /// Every value has a place, and no place is without a value.
    fn agree(value: &Value, spans: &Spans) -> bool {
        match (value, &spans.children) {
            (Value::Object(map), Children::Mapping(keys)) => {
                map.len() == keys.len() && keys.iter().all(|k| map.get(&*k.key).is_some_and(|v| agree(v, &k.spans)))
            }
            (Value::Array(items), Children::Sequence(spans)) => {
                items.len() == spans.len() && items.iter().zip(spans).all(|(v, s)| agree(v, s))
            }
            (Value::Object(_) | Value::Array(_), _) => false,
            (_, Children::None) => true,
            _ => false,
        }
    }

    fn map() -> impl Strategy<Value = Value> {
        value().prop_map(|v| if v.is_object() { v } else { serde_json::json!({ "a": v }) })
    }

    proptest! {
        #[test]
        fn merging_is_rfc_7396_and_keeps_places(base in map(), patch in map()) {
            let mut documents = vec![document("web.json", &base)];
            let mut findings = Vec::new();
            apply(&mut documents, vec![document("web.d/10.json", &patch)], &mut findings);
            prop_assert!(findings.is_empty());
            let mut expected = base;
            reddwarf_objects::patch::merge_patch(&mut expected, &patch);
            prop_assert_eq!(&documents[0].value["spec"], &expected);
            prop_assert!(agree(&documents[0].value, &documents[0].origin.spans));
        }
    }
}
