//! Namespaces that are being deleted: what is in them goes, and the namespace says how far that is.
//!
//! The registry empties a namespace when its deletion is asked for and removes it with its last object (registry/src/namespace.rs).
//! Here what is left is seen to: content that came or stayed in between, and the conditions that `kubectl describe` shows.

use crate::runtime::{Action, Again, Change, Context, Controller, Failure, Id, View};
use crate::workload::{Wanted, conditions_of, set_condition};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, DeleteOptions, ListQuery, RegistryError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const NAME: &str = "namespace-controller";
/// Content that is held by others is looked at again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What is left in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Objects by resource (`pods`, `deployments.apps`).
    pub objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Why something could not be deleted.
    pub failures: Vec<String>,
}

/// The conditions of a namespace with this left in it. Pure.
pub fn conditions(namespace: &Object, left: &Left, now: DateTime<Utc>) -> Vec<Value> {
    let mut all = conditions_of(namespace);
    let listed = |map: &BTreeMap<String, usize>, text: fn(&str, usize) -> String| {
        map.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let objects = listed(&left.objects, |name, count| format!("{name} has {count} resource instances"));
    let finalizers = listed(&left.finalizers, |name, count| format!("{name} in {count} resource instances"));
    let remain = format!("Some resources are remaining: {objects}");
    let held = format!("Some content in the namespace has finalizers remaining: {finalizers}");
    let failed =
        format!("Failed to delete all resource types, {} remaining: {}", left.failures.len(), left.failures.join(", "));
    let table = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "",
            "",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            !left.failures.is_empty(),
            "ContentDeletionFailed",
            failed.as_str(),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !left.objects.is_empty(),
            "SomeResourcesRemain",
            remain.as_str(),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !left.finalizers.is_empty(),
            "SomeFinalizersRemain",
            held.as_str(),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    for (kind, bad, bad_reason, bad_text, reason, text) in table {
        let (status, reason, message) = if bad { ("True", bad_reason, bad_text) } else { ("False", reason, text) };
        set_condition(&mut all, Wanted { kind, status, reason, message }, &[], now);
    }
    all
}

/// The controller.
#[derive(Debug)]
pub struct Namespaces {
    kind: &'static Kind,
}

impl Namespaces {
    /// `None` only if the table of kinds lacks namespaces.
    pub fn new() -> Option<Self> {
        Some(Self { kind: kinds().by_gvk("v1", "Namespace")? })
    }

    /// Deletes what nobody deletes yet; gives what is left.
    async fn empty(context: &Context, namespace: &str) -> Result<Left, Failure> {
        let mut left = Left::default();
        let mut seen = std::collections::BTreeSet::new();
        for kind in kinds().iter().filter(|k| k.namespaced && !k.is_virtual) {
            if !seen.insert((kind.group, kind.plural)) {
                continue;
            }
            for object in context.registry.list(&ListQuery::all(kind).in_namespace(namespace))?.items {
                let deleting = object.deletion_timestamp().is_some();
                let key = object.key(kind);
                if !deleting {
                    match context.registry.delete(&Author::System(NAME), &key, &DeleteOptions::default()).await {
                        Ok(_) | Err(RegistryError::NotFound(_)) => {}
                        Err(error) => left.failures.push(error.to_string()),
                    }
                    if context.registry.find(&key)?.is_none() {
                        continue;
                    }
                }
                *left.objects.entry(kind.group_resource()).or_default() += 1;
                for finalizer in object.finalizers() {
                    *left.finalizers.entry(finalizer.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(left)
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        let name = if slim.id.is("", "Namespace") { &slim.id.name } else { &slim.id.namespace };
        let id = Id::of(self.kind, "", name);
        if view.get(&id).is_some_and(|n| n.deleted.is_some()) {
            add(id);
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(namespace) = context.find(id)?.filter(|n| n.deletion_timestamp().is_some()) else {
            return Ok(Again::NEVER);
        };
        let left = Self::empty(context, &id.name).await?;
        let mut status = namespace.status().cloned().unwrap_or_else(|| json!({}));
        status["phase"] = json!("Terminating");
        status["conditions"] = Value::Array(conditions(&namespace, &left, context.now()));
        let uid = namespace.uid().unwrap_or_default().into();
        // Also the word that lets the registry remove a namespace in which nothing is left.
        context.act(NAME, vec![Action::Status { id: id.clone(), uid, status }]).await?;
        Ok(if context.find(id)?.is_some() { Again::NEVER.after(LOOK_AGAIN) } else { Again::NEVER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
        let namespace = Object::from_value(namespace).unwrap();
        let left = Left {
            objects: [("pods".to_owned(), 2)].into(),
            finalizers: [("example.com/x".to_owned(), 1)].into(),
            failures: Vec::new(),
        };
        let all = conditions(&namespace, &left, DateTime::UNIX_EPOCH);
        let said: Vec<_> =
            all.iter().map(|c| format!("{}={} {}", c["type"], c["status"], c["message"]).replace('"', "")).collect();
        assert_eq!(said.len(), 5);
        assert_eq!(
            said[3],
            "NamespaceContentRemaining=True Some resources are remaining: pods has 2 resource instances"
        );
        assert_eq!(
            said[4],
            "NamespaceFinalizersRemaining=True Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances"
        );
        assert_eq!(
            said[2],
            "NamespaceDeletionContentFailure=False All content successfully deleted, may be waiting on finalization"
        );
    }
}
