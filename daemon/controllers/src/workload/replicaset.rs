//! ReplicaSet and ReplicationController: so many pods of one template.

use super::claim::{Claimant, claim};
use super::fields::{self, Wanted, condition, number, remove_condition, set_condition, status_with, text};
use super::managers;
use super::pods::{BURST, Tally, create_slowly, deletions, first_to_go, from_template, next_available};
use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, Slim, View};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a ReplicaSet asks for at this moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// So many pods more.
    pub create: usize,
    /// These go.
    pub delete: Vec<Arc<Slim>>,
}

/// Compares what there is with what is wanted. `pods` are its own. Pure.
pub fn decide(replicas: i64, pods: &[Arc<Slim>]) -> Decision {
    let mut active: Vec<_> = pods.iter().filter(|p| p.is_active()).cloned().collect();
    let wanted = usize::try_from(replicas).unwrap_or(0);
    if active.len() < wanted {
        return Decision { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    active.sort_by(|a, b| first_to_go(a, b));
    let surplus = (active.len() - wanted).min(BURST);
    active.truncate(surplus);
    Decision { create: 0, delete: active }
}

/// The status that these pods come to; `failure` is why pods can't be made. Pure.
pub fn status(object: &Object, pods: &[Arc<Slim>], failure: Option<(&str, &str)>, now: DateTime<Utc>) -> Value {
    let min_ready = number(object, "/spec/minReadySeconds", 0);
    let tally = Tally::of(pods.iter(), min_ready, now);
    let labels = object.get("/spec/template/metadata/labels").and_then(Value::as_object);
    let labelled = pods
        .iter()
        .filter(|p| p.is_active())
        .filter(|pod| labels.into_iter().flatten().all(|(key, value)| pod.label(key) == value.as_str()));
    let mut conditions = fields::conditions(object);
    match failure {
        // As it was first said: the text holds the generated name of a pod, another one at every attempt, and a status that
        // differs each time would bring about the next attempt at once.
        Some(_) if condition(&conditions, "ReplicaFailure").is_some_and(|c| text(c, "status") == "True") => {}
        Some((reason, message)) => {
            let wanted = Wanted { kind: "ReplicaFailure", status: "True", reason, message };
            set_condition(&mut conditions, wanted, &[], now);
        }
        None => remove_condition(&mut conditions, "ReplicaFailure"),
    }
    let mut set = json!({
        // Printed even when it is zero, as in the reference.
        "replicas": tally.active,
        "fullyLabeledReplicas": fields::count(labelled.count()),
        "readyReplicas": fields::count(tally.ready),
        "availableReplicas": fields::count(tally.available),
        "observedGeneration": object.generation(),
        "conditions": if conditions.is_empty() { Value::Null } else { Value::Array(conditions) },
    });
    if object.kind() == "ReplicaSet" {
        set["terminatingReplicas"] = json!(tally.terminating);
    }
    status_with(object, set)
}

/// The controller, for one of the two kinds.
#[derive(Debug)]
pub struct ReplicaSets {
    kind: &'static Kind,
    pods: &'static Kind,
    name: &'static str,
}

impl ReplicaSets {
    /// For apps/v1 ReplicaSets.
    pub fn new() -> Option<Self> {
        let kinds = kinds();
        let (kind, pods) = (kinds.by_gvk("apps/v1", "ReplicaSet")?, kinds.by_gvk("v1", "Pod")?);
        Some(Self { kind, pods, name: "replicaset-controller" })
    }

    /// For core/v1 ReplicationControllers.
    pub fn replication_controllers() -> Option<Self> {
        let kinds = kinds();
        let (kind, pods) = (kinds.by_gvk("v1", "ReplicationController")?, kinds.by_gvk("v1", "Pod")?);
        Some(Self { kind, pods, name: "replication-controller" })
    }

    fn selector(&self, object: &Object) -> Option<LabelSelector> {
        let value = object.get("/spec/selector")?;
        let map = json!({ "matchLabels": value });
        let value = if self.kind.group.is_empty() { &map } else { value };
        LabelSelector::from_value(value).ok().filter(|s| !s.is_empty())
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        self.name
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.kind.plural == self.kind.plural && slim.id.kind.group == self.kind.group {
            add(slim.id.clone());
        } else if slim.id.is_pod() {
            managers(self.kind, view, change, add);
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else { return Ok(Again::NEVER) };
        let (Some(claimant), Some(selector)) = (Claimant::of(&object), self.selector(&object)) else {
            return Ok(Again::NEVER);
        };
        let claimed = {
            let view = context.view();
            let own = view.controlled(&claimant.uid, self.pods);
            claim(&claimant, &selector, own, view.loose(self.pods, &id.namespace))
        };
        context.act_together(self.name, claimed.actions).await?;
        let events = Events::about(&object);
        let now = context.now();
        let mut failure = None;
        if !claimant.leaving {
            let decision = decide(number(&object, "/spec/replicas", 1), &claimed.own);
            let template = object.get("/spec/template").cloned().unwrap_or_default();
            let pod = from_template(&claimant, &template).map_err(|e| Failure::Wait(e.to_string()))?;
            let pods = vec![pod; decision.create];
            failure = create_slowly(context, self.name, &events, pods).await?.map(|why| ("FailedCreate", why));
            context.act_together(self.name, deletions(&events, decision.delete.iter())).await?;
        }
        // What was just made and deleted is seen by the next look, which these writes bring about.
        let said = failure.as_ref().map(|(reason, why)| (*reason, why.as_str()));
        let status = status(&object, &claimed.own, said, now);
        if object.status() != Some(&status) {
            context.act(self.name, vec![Action::Status { id: id.clone(), uid: claimant.uid.clone(), status }]).await?;
        }
        if let Some((_, why)) = failure {
            return Err(Failure::Wait(why));
        }
        let min_ready = number(&object, "/spec/minReadySeconds", 0);
        let next = next_available(claimed.own.iter(), min_ready, now);
        Ok(next.map_or(Again::NEVER, |at| Again::NEVER.at(at, now)))
    }
}

/// Why a ReplicaSet can't make pods, from its status.
pub(crate) fn failure_of(replica_set: &Object) -> Option<Value> {
    let conditions = fields::conditions(replica_set);
    condition(&conditions, "ReplicaFailure").filter(|c| text(c, "status") == "True").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::pod;

    #[test]
    fn pods_are_made_and_deleted_to_the_number_wanted() {
        let ready = |name| pod(name, |p| p.ready_since = Some(DateTime::UNIX_EPOCH));
        let fresh = |name| pod(name, |p| p.ready_since = None);
        for (replicas, pods, create, delete) in [
            (3, vec![], 3, vec![]),
            (3, vec![ready("a")], 2, vec![]),
            (1, vec![ready("a"), fresh("b")], 0, vec!["b"]),
            (0, vec![ready("a"), fresh("b")], 0, vec!["b", "a"]),
            (1000, vec![], 500, vec![]),
            (-1, vec![], 0, vec![]),
        ] {
            let decision = decide(replicas, &pods);
            let deleted: Vec<_> = decision.delete.iter().map(|p| p.id.name.to_string()).collect();
            assert_eq!((decision.create, deleted), (create, delete.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn who_goes_first() {
        let at = |s| DateTime::from_timestamp(s, 0);
        let pods = [
            pod("unplaced", |p| p.node = "".into()),
            pod("pending", |p| p.phase = reddwarf_objects::pod::Phase::Pending),
            pod("unready", |p| p.ready_since = None),
            pod("cheap", |p| {
                p.ready_since = at(0);
                p.deletion_cost = -1;
            }),
            pod("young", |p| p.ready_since = at(9)),
            pod("restarted", |p| {
                p.ready_since = at(0);
                p.restarts = 4;
            }),
            pod("old", |p| p.ready_since = at(0)),
        ];
        let mut shuffled: Vec<_> = pods.iter().rev().cloned().collect();
        shuffled.sort_by(|a, b| first_to_go(a, b));
        let names = |pods: &[Arc<Slim>]| pods.iter().map(|p| p.id.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&shuffled), names(&pods));
    }
}
