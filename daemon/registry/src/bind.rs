//! Binding a pod to a node: what schedulers do through `pods/binding`.

use crate::counters::Counting;
use crate::key::store_key;
use crate::stored::{decode, encode};
use crate::write::{ATTEMPTS, transaction};
use crate::{Author, Registry, RegistryError};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{FieldError, FieldPath, Object, ObjectKey};
use reddwarf_store::CommitError;
use serde_json::{Value, json};

impl Registry {
    /// Places a pod on the node that a Binding names, once. Annotations of the Binding go to the pod.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`], [`RegistryError::NotFound`], [`RegistryError::Binding`] when it has a node already or is being
    /// deleted.
    pub async fn bind(
        &self,
        author: &Author,
        key: &ObjectKey,
        binding: &Object,
        dry_run: bool,
    ) -> Result<(), RegistryError> {
        let node = target(binding)?;
        let at = store_key(key)?;
        for _ in 0..ATTEMPTS {
            let entry = self.entry(&at)?.ok_or_else(|| RegistryError::NotFound(key.clone()))?;
            let old = decode(&entry)?;
            check(&old, binding)?;
            let mut new = old;
            new.set("/spec/nodeName", node);
            for (name, value) in binding.annotations() {
                new.set_annotation(name, value);
            }
            let now = timestamp(self.now());
            scheduled(&mut new, &now);
            if dry_run {
                return Ok(());
            }
            let write = transaction(author, &format!("bind {key} to {node}"));
            match self.commit(write.replace(at.clone(), entry.modified, encode(&new))).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => Counting::add(&self.inner.counting.retries),
                Err(e) => return Err(RegistryError::Commit(e)),
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }
}

/// The node that a Binding names.
fn target(binding: &Object) -> Result<&str, RegistryError> {
    let text = |pointer: &str| binding.get_str(pointer).unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(text("/target/kind"), "" | "Node") {
        errors.push(FieldError::not_supported(
            &FieldPath::of("target.kind"),
            text("/target/kind"),
            &["Node", "<empty>"],
        ));
    }
    if text("/target/name").is_empty() {
        errors.push(FieldError::required(&FieldPath::of("target.name"), ""));
    }
    if errors.is_empty() {
        return Ok(text("/target/name"));
    }
    Err(RegistryError::Invalid {
        kind: "Binding".to_owned(),
        group: String::new(),
        name: binding.name().to_owned(),
        errors,
    })
}

fn check(pod: &Object, binding: &Object) -> Result<(), RegistryError> {
    let name = pod.name().to_owned();
    let refuse = |message: String| Err(RegistryError::Binding { name: name.clone(), message });
    if binding.uid().is_some_and(|uid| Some(uid) != pod.uid()) {
        let (wanted, found) = (binding.uid().unwrap_or_default(), pod.uid().unwrap_or_default());
        return refuse(format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"));
    }
    if pod.deletion_timestamp().is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    match pod.get_str("/spec/nodeName").filter(|node| !node.is_empty()) {
        Some(node) => refuse(format!("pod {name} is already assigned to node {node:?}")),
        None => Ok(()),
    }
}

/// Sets the condition PodScheduled.
fn scheduled(pod: &mut Object, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = pod.get("/status/conditions").and_then(Value::as_array).cloned();
    let mut conditions = conditions.unwrap_or_default();
    conditions.retain(|condition| condition.get("type").and_then(Value::as_str) != Some("PodScheduled"));
    conditions.push(condition);
    pod.set("/status/conditions", conditions);
}
