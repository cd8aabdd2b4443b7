//! May a pod be placed, as far as its claims tell? Asked by the scheduler before it chooses a node.

use super::SELECTED_NODE;
use super::read::{Claim, Volume};
use crate::runtime::{Action, Context, Failure, Id, Slim, View};
use reddwarf_objects::Object;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a pod's claims mean for its placement.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Placement {
    /// Node selectors of the volumes that it has (`nodeAffinity.required`), all of which count.
    pub(crate) affinities: Vec<Value>,
    /// Claims that get a volume once the node is known: id and uid.
    pub(crate) to_bind: Vec<(Id, Arc<str>)>,
    /// The node that was chosen before, for such claims.
    pub(crate) node: Option<String>,
}

/// What one claim means.
enum Verdict {
    Bound(Option<Value>),
    /// Waits for a node, or has been given this one.
    ToBind(Option<String>),
}

/// Looks at all claims of a pod that has no node yet; the error is the sentence of its condition.
pub(crate) fn placement(context: &Context, slim: &Slim, pod: &Object) -> Result<Result<Placement, String>, Failure> {
    let mut placement = Placement::default();
    let names = slim.pod().map(|p| p.claims.clone()).unwrap_or_default();
    for name in names.iter() {
        let Some(id) = Id::new("", "PersistentVolumeClaim", &slim.id.namespace, name) else { continue };
        let claim = context.find(&id)?;
        match one(context, slim, pod, name, claim.as_ref())? {
            Err(why) => return Ok(Err(why)),
            Ok(Verdict::Bound(affinity)) => placement.affinities.extend(affinity),
            Ok(Verdict::ToBind(node)) => {
                let uid = claim.as_ref().and_then(Object::uid).unwrap_or_default().into();
                placement.to_bind.push((id, uid));
                placement.node = placement.node.or(node);
            }
        }
    }
    Ok(Ok(placement))
}

fn one(
    context: &Context,
    slim: &Slim,
    pod: &Object,
    name: &str,
    object: Option<&Object>,
) -> Result<Result<Verdict, String>, Failure> {
    let refuse = |why: String| Ok(Err(why));
    let Some(object) = object else { return refuse(format!("persistentvolumeclaim {name:?} not found")) };
    if object.deletion_timestamp().is_some() {
        return refuse(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let own = |v: &Value| {
        v.get("ephemeral").is_some()
            && v.get("name").and_then(Value::as_str).is_some_and(|v| format!("{}-{v}", pod.name()) == name)
    };
    let ephemeral = pod.get("/spec/volumes").and_then(Value::as_array).is_some_and(|all| all.iter().any(own));
    if ephemeral && !object.owner_references().iter().any(|o| Some(o.uid.as_str()) == pod.uid()) {
        let (namespace, pod) = (&slim.id.namespace, pod.name());
        return refuse(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    let claim = Claim::of(object);
    if claim.modes.iter().any(|m| m == "ReadWriteOncePod") && is_used(&context.view(), slim, name) {
        return refuse(
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode".into(),
        );
    }
    match object.get_str("/status/phase") {
        Some("Lost") => {
            return refuse(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                claim.volume
            ));
        }
        Some("Bound") if claim.bound => {
            let Some(id) = Id::new("", "PersistentVolume", "", &claim.volume) else {
                return Ok(Ok(Verdict::Bound(None)));
            };
            let Some(volume) = context.find(&id)? else {
                return refuse(format!("persistentvolume {:?} not found", claim.volume));
            };
            if !Volume::of(&volume).is_for(&claim) {
                return refuse("pod has unbound immediate PersistentVolumeClaims".into());
            }
            return Ok(Ok(Verdict::Bound(volume.get("/spec/nodeAffinity/required").cloned())));
        }
        _ => {}
    }
    let class = match claim.class.as_deref().and_then(|class| Id::new("storage.k8s.io", "StorageClass", "", class)) {
        None => None,
        Some(id) => context.find(&id)?,
    };
    let waits = class.is_some_and(|c| c.get_str("/volumeBindingMode") == Some("WaitForFirstConsumer"));
    if waits && claim.volume.is_empty() {
        return Ok(Ok(Verdict::ToBind(claim.node)));
    }
    refuse("pod has unbound immediate PersistentVolumeClaims".into())
}

/// Whether another pod that has not ended was placed with this claim.
fn is_used(view: &View, slim: &Slim, claim: &str) -> bool {
    view.list(slim.id.kind, Some(&slim.id.namespace)).any(|other| {
        other.uid != slim.uid
            && other.is_active()
            && other.pod().is_some_and(|p| !p.node.is_empty() && p.claims.iter().any(|c| &**c == claim))
    })
}

/// Tells claims where their pod is to run.
pub(crate) fn select(to_bind: &[(Id, Arc<str>)], node: &str) -> Vec<Action> {
    let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
    let one = |(id, uid): &(Id, Arc<str>)| Action::Patch { id: id.clone(), uid: uid.clone(), patch: patch.clone() };
    to_bind.iter().map(one).collect()
}
