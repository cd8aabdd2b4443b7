//! Pods: made from templates, ranked for deletion, made slowly when making them fails.

use super::claim::Claimant;
use crate::runtime::{Action, Context, Events, Failure, Slim};
use chrono::{DateTime, Utc};
use reddwarf_objects::pod::Phase;
use reddwarf_objects::{Object, ObjectError};
use reddwarf_registry::{Author, RegistryError, WriteOptions};
use serde_json::{Value, json};
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// Pods made or deleted in one look, as in the reference.
pub(crate) const BURST: usize = 500;

/// Events about pods made or deleted in one look: more about one object are not kept anyway.
const SAID: usize = 25;

/// A pod after a template, managed by the claimant, its name still to be generated.
///
/// # Errors
/// When the template is no object.
pub(crate) fn from_template(owner: &Claimant, template: &Value) -> Result<Object, ObjectError> {
    let mut pod = Object::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", owner.id.name),
            "namespace": &*owner.id.namespace,
            "ownerReferences": [owner.reference()],
        },
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    }))?;
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| !v.is_null()) {
            pod.set(&format!("/metadata/{field}"), value.clone());
        }
    }
    Ok(pod)
}

/// Which pods go first: not on a node, then not running, not ready, cheaper (pod-deletion-cost), ready for a shorter time, more
/// restarts, younger (Kubernetes: ReplicaSet, "Scaling a ReplicaSet").
pub(crate) fn first_to_go(one: &Slim, other: &Slim) -> Ordering {
    let key = |slim: &Slim| {
        let pod = slim.pod();
        let phase = pod.map_or(0, |p| match p.phase {
            Phase::Pending => 0,
            Phase::Unknown => 1,
            _ => 2,
        });
        let ready = pod.and_then(|p| p.ready_since);
        (
            pod.is_some_and(|p| !p.node.is_empty()),
            phase,
            ready.is_some(),
            pod.map_or(0, |p| p.deletion_cost),
            Reverse(ready),
            Reverse(pod.map_or(0, |p| p.restarts)),
            Reverse(slim.created),
        )
    };
    key(one).cmp(&key(other)).then_with(|| one.id.cmp(&other.id))
}

/// Deletes pods, all at once, and says so.
pub(crate) fn deletions<'a>(events: &Events, pods: impl Iterator<Item = &'a Arc<Slim>>) -> Vec<Action> {
    let mut actions = Vec::new();
    for (count, pod) in pods.enumerate() {
        actions.push(Action::Delete { id: pod.id.clone(), uid: pod.uid.clone() });
        if count < SAID {
            actions.push(events.normal("SuccessfulDelete", format!("Deleted pod: {}", pod.id.name)));
        }
    }
    actions
}

/// Makes pods in batches of 1, 2, 4, …: when pods can't be made at all (a quota, a bad template) one failure is enough.
/// Gives why it stopped early.
///
/// # Errors
/// When the store fails; what the registry refuses is the result.
pub(crate) async fn create_slowly(
    context: &Context,
    author: &'static str,
    events: &Events,
    pods: Vec<Object>,
) -> Result<Option<String>, Failure> {
    let mut left = pods.into_iter();
    let mut batch = 1;
    loop {
        let these: Vec<Object> = left.by_ref().take(batch).collect();
        if these.is_empty() {
            return Ok(None);
        }
        let results = futures_util::future::join_all(these.into_iter().map(|pod| create(context, author, pod))).await;
        let mut refused = None;
        let mut said = Vec::new();
        for result in results {
            match result {
                Ok(name) => said.push(events.normal("SuccessfulCreate", format!("Created pod: {name}"))),
                Err(RegistryError::Store(e)) => return Err(RegistryError::Store(e).into()),
                // The namespace goes, and with it what would have made pods.
                Err(error) => refused = Some(error.to_string()),
            }
        }
        said.truncate(SAID);
        context.act_together(author, said).await?;
        if let Some(why) = refused {
            context.act(author, vec![events.warning("FailedCreate", format!("Error creating: {why}"))]).await?;
            return Ok(Some(why));
        }
        batch *= 2;
    }
}

async fn create(context: &Context, author: &'static str, pod: Object) -> Result<String, RegistryError> {
    let written = context.registry.create(&Author::System(author), pod, WriteOptions::default()).await?;
    Ok(written.object.name().to_owned())
}

/// Whether a pod of a controller counts, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Neither ended nor going.
    pub(crate) active: usize,
    /// Of these, ready.
    pub(crate) ready: usize,
    /// Of these, ready for long enough.
    pub(crate) available: usize,
    /// Going, but not ended yet.
    pub(crate) terminating: usize,
}

impl Tally {
    /// Counts pods.
    pub(crate) fn of<'a>(pods: impl Iterator<Item = &'a Arc<Slim>>, min_ready: i64, now: DateTime<Utc>) -> Self {
        let mut tally = Self::default();
        for pod in pods {
            let ended = pod.pod().is_some_and(|p| matches!(p.phase, Phase::Succeeded | Phase::Failed));
            match (ended, pod.deleted.is_some()) {
                (true, _) => {}
                (false, true) => tally.terminating += 1,
                (false, false) => {
                    tally.active += 1;
                    tally.ready += usize::from(pod.is_ready());
                    tally.available += usize::from(pod.is_available(min_ready, now));
                }
            }
        }
        tally
    }
}

/// When the next of the ready pods becomes available.
pub(crate) fn next_available<'a>(
    pods: impl Iterator<Item = &'a Arc<Slim>>,
    min_ready: i64,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    pods.filter(|p| p.is_active()).filter_map(|p| p.available_at(min_ready)).filter(|at| *at > now).min()
}
