//! Whose claims are: nobody's (they outlive everything), the StatefulSet's (they go with it), or their pod's (they go when it
//! is scaled away), as `persistentVolumeClaimRetentionPolicy` says.

use super::decide::{Input, ordinal, wanted_ordinals};
use super::pod::{claim_name, templates};
use super::{NAME, StatefulSets};
use crate::runtime::{Action, Context, Failure, Id, Slim};
use crate::workload::reference;
use serde_json::{Value, json};

impl StatefulSets {
    /// Ties the claims of all its pods to their owners.
    pub(super) async fn tie_claims(&self, context: &Context, input: &Input<'_>) -> Result<(), Failure> {
        if input.object.get("/spec/persistentVolumeClaimRetentionPolicy").is_none() || input.owner.leaving {
            return Ok(());
        }
        let policy = |field: &str| {
            input.object.get_str(&format!("/spec/persistentVolumeClaimRetentionPolicy/{field}")) == Some("Delete")
        };
        let (when_deleted, when_scaled) = (policy("whenDeleted"), policy("whenScaled"));
        let wanted = wanted_ordinals(input.object);
        let mut actions = Vec::new();
        for pod in input.pods {
            let Some(number) = ordinal(&input.owner.id.name, &pod.id.name) else { continue };
            for template in templates(input.object) {
                let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let id = Id::of(self.claims, &pod.id.namespace, &claim_name(name, &pod.id.name));
                let view = context.view();
                let Some(claim) = view.get(&id).filter(|c| c.deleted.is_none()) else { continue };
                let condemned = when_scaled && !wanted.contains(&number);
                actions.extend(tie(claim, input, pod, when_deleted && !condemned, condemned));
            }
        }
        context.act_together(NAME, actions).await
    }
}

/// The owners a claim is to have: others' are left alone.
fn tie(claim: &Slim, input: &Input<'_>, pod: &Slim, to_set: bool, to_pod: bool) -> Option<Action> {
    let set = input.owner;
    let ours = |uid: &str| uid == &*set.uid || uid == &*pod.uid;
    let mut owners: Vec<Value> = claim.owners.iter().filter(|o| !ours(&o.uid)).map(reference).collect();
    if to_set {
        owners.push(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": &*set.id.name, "uid": &*set.uid}));
    }
    if to_pod {
        owners.push(json!({"apiVersion": "v1", "kind": "Pod", "name": &*pod.id.name, "uid": &*pod.uid}));
    }
    let before = claim.owners.iter().filter(|o| ours(&o.uid)).map(|o| &*o.uid);
    let after = [to_set.then_some(&*set.uid), to_pod.then_some(&*pod.uid)].into_iter().flatten();
    if before.eq(after) {
        return None;
    }
    let value = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
    let patch = json!({"metadata": {"ownerReferences": value}});
    Some(Action::Patch { id: claim.id.clone(), uid: claim.uid.clone(), patch })
}
