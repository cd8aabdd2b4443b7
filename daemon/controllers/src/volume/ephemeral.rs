//! Generic ephemeral volumes: a claim that is made for a pod, is owned by it and goes with it.

use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, View};
use async_trait::async_trait;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};

const NAME: &str = "ephemeral_volume";

/// Makes pods' own claims.
#[derive(Debug)]
pub struct Ephemerals {
    claims: &'static Kind,
}

impl Ephemerals {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self { claims: kinds().by_gvk("v1", "PersistentVolumeClaim")? })
    }
}

/// The claim of a pod's volume. Pure.
fn claim(pod: &Object, volume: &str, template: &Value) -> Value {
    let mut metadata = json!({
        "name": format!("{}-{volume}", pod.name()),
        "namespace": pod.namespace().unwrap_or("default"),
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid().unwrap_or_default(),
            "controller": true, "blockOwnerDeletion": true}],
    });
    for field in ["labels", "annotations"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| v.is_object()) {
            metadata[field] = value.clone();
        }
    }
    let spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
}

#[async_trait]
impl Controller for Ephemerals {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        let has_claims =
            |s: &crate::runtime::Slim| s.deleted.is_none() && s.pod().is_some_and(|p| !p.claims.is_empty());
        if slim.id.is_pod() {
            if change.before.is_none() && has_claims(slim) {
                add(slim.id.clone());
            }
        } else if slim.id.kind.plural == self.claims.plural && change.after.is_none() {
            // A claim that went while its pod needs it is made again.
            for owner in slim.owners.iter().filter(|o| &*o.kind == "Pod") {
                if let Some(id) = Id::new("", "Pod", &slim.id.namespace, &owner.name)
                    && view.get(&id).is_some()
                {
                    add(id);
                }
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(pod) = context.find(id)?.filter(|p| p.deletion_timestamp().is_none()) else { return Ok(Again::NEVER) };
        let ended = matches!(pod.get_str("/status/phase"), Some("Succeeded" | "Failed"));
        let volumes = pod.get("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        for volume in volumes.iter().filter(|_| !ended) {
            let Some(template) = volume.pointer("/ephemeral/volumeClaimTemplate") else { continue };
            let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            let wanted = claim(&pod, name, template);
            let claim_name = format!("{}-{name}", pod.name());
            let claim_id = Id::of(self.claims, &id.namespace, &claim_name);
            if let Some(present) = context.find(&claim_id)? {
                if !present.owner_references().iter().any(|o| Some(o.uid.as_str()) == pod.uid()) {
                    let message = format!(
                        "PVC {}/{claim_name} was not created for pod {}/{} (pod is not owner)",
                        id.namespace, id.namespace, id.name
                    );
                    let said = Events::about(&pod).warning("EphemeralVolumeCreationFailed", message);
                    context.act(NAME, vec![said]).await?;
                }
                continue;
            }
            let object = Object::from_value(wanted).map_err(|e| Failure::Wait(e.to_string()))?;
            match context.act(NAME, vec![Action::Create(Box::new(object))]).await {
                Ok(()) | Err(Failure::Registry(RegistryError::AlreadyExists(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Again::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_is_the_pods_and_says_what_the_template_says() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u"}});
        let template =
            json!({"metadata": {"labels": {"a": "b"}, "name": "ignored"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let claim = claim(&Object::from_value(pod).unwrap(), "scratch", &template);
        assert_eq!(claim["metadata"]["name"], "p-scratch");
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
    }
}
