//! PodDisruptionBudgets: how many pods may be evicted now. Evictions (registry/src/evict.rs) read and count down
//! `status.disruptionsAllowed`.

use crate::runtime::{Again, Change, Context, Controller, Events, Failure, Id, Slim, View, owner_id};
use crate::workload::{Wanted, conditions_of, scaled, set_condition};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::pod::Phase;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "disruption-controller";
/// An eviction that did not come to pass is forgotten after this.
const FORGET: TimeDelta = TimeDelta::minutes(2);

/// What is decided over.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The budget.
    pub budget: &'a Object,
    /// The pods that it selects.
    pub pods: &'a [Arc<Slim>],
    /// How many there should be by what manages them; the error says why that is not known.
    pub expected: &'a Result<i64, String>,
    /// The time.
    pub now: DateTime<Utc>,
}

/// The status of a budget, and when to look again. Pure.
pub fn status(input: Input<'_>) -> (Value, Again) {
    let Input { budget, pods, expected, now } = input;
    let mut again = Again::NEVER;
    let disrupted = disrupted(budget, pods, now, &mut again);
    let mut conditions = conditions_of(budget);
    let generation = budget.generation();
    let healthy = |p: &&Arc<Slim>| p.deleted.is_none() && p.is_ready() && !disrupted.contains_key(&*p.id.name);
    let current = i64::try_from(pods.iter().filter(healthy).count()).unwrap_or(i64::MAX);
    let expected = match expected {
        Ok(expected) => *expected,
        Err(why) => {
            let wanted = Wanted { kind: "DisruptionAllowed", status: "False", reason: "SyncFailed", message: why };
            set_condition(&mut conditions, wanted, &[], now);
            observed(&mut conditions, generation);
            let mut status = budget.status().cloned().unwrap_or_else(|| json!({}));
            for field in ["currentHealthy", "desiredHealthy", "expectedPods"] {
                if status.get(field).is_none() {
                    status[field] = json!(0);
                }
            }
            status["disruptionsAllowed"] = json!(0);
            status["conditions"] = Value::Array(conditions);
            return (status, again);
        }
    };
    let share = |field: &str| budget.get(&format!("/spec/{field}")).filter(|v| !v.is_null());
    let desired = match (share("minAvailable"), share("maxUnavailable")) {
        (Some(least), _) => scaled(Some(least), &json!(0), expected, true),
        (None, Some(most)) => (expected - scaled(Some(most), &json!(0), expected, true)).max(0),
        (None, None) => expected,
    };
    let allowed = if expected <= 0 { 0 } else { (current - desired).max(0) };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let wanted = Wanted { kind: "DisruptionAllowed", status, reason, message: "" };
    set_condition(&mut conditions, wanted, &[], now);
    observed(&mut conditions, generation);
    let mut status = json!({
        "currentHealthy": current,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": generation,
        "conditions": conditions,
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = Value::Object(disrupted);
    }
    (status, again)
}

/// The condition is about this generation; the reference always prints a message.
fn observed(conditions: &mut [Value], generation: Option<i64>) {
    for condition in conditions.iter_mut().filter(|c| c["type"] == "DisruptionAllowed") {
        condition["observedGeneration"] = json!(generation);
        if condition.get("message").is_none() {
            condition["message"] = json!("");
        }
    }
}

/// Evictions under way: of pods that are still there and not going yet, for a while.
fn disrupted(budget: &Object, pods: &[Arc<Slim>], now: DateTime<Utc>, again: &mut Again) -> Map<String, Value> {
    let mut left = Map::new();
    for (name, since) in budget.get("/status/disruptedPods").and_then(Value::as_object).into_iter().flatten() {
        let waits = pods.iter().any(|p| *p.id.name == **name && p.deleted.is_none());
        let until = since.as_str().and_then(|s| s.parse::<DateTime<Utc>>().ok()).map(|s| s + FORGET);
        if let Some(until) = until.filter(|until| waits && *until > now) {
            *again = again.at(until, now);
            left.insert(name.clone(), since.clone());
        }
    }
    left
}

/// The controller.
#[derive(Debug)]
pub struct Budgets {
    kind: &'static Kind,
    pods: &'static Kind,
}

impl Budgets {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self { kind: kinds().by_gvk("policy/v1", "PodDisruptionBudget")?, pods: kinds().by_gvk("v1", "Pod")? })
    }

    /// How many pods there should be: what manages them says so. With a plain number for `minAvailable` it does not matter.
    fn expected(&self, context: &Context, budget: &Object, pods: &[Arc<Slim>]) -> Result<Result<i64, String>, Failure> {
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let least = budget.get("/spec/minAvailable").filter(|v| !v.is_null());
        let most = budget.get("/spec/maxUnavailable").filter(|v| !v.is_null());
        if least.is_some_and(Value::is_number) || (least.is_none() && most.is_none()) {
            return Ok(Ok(count));
        }
        let mut scales: BTreeMap<Id, i64> = BTreeMap::new();
        for pod in pods {
            let Some(mut owner) = pod.controller().cloned() else {
                return Ok(Err(format!("found no controllers for pod {:?}", pod.id.name)));
            };
            // A Deployment's ReplicaSets may be in the middle of a rollout: the Deployment knows the number.
            let mut managing = owner_id(&owner.api_version, &owner.kind, &owner.name, &pod.id.namespace);
            if let Some(next) = managing.as_ref().and_then(|id| context.view().get(id)?.controller().cloned())
                && &*owner.kind == "ReplicaSet"
            {
                owner = next;
                managing = owner_id(&owner.api_version, &owner.kind, &owner.name, &pod.id.namespace);
            }
            let found = match &managing {
                Some(id) if !scales.contains_key(id) => context.find(id)?,
                Some(_) => continue,
                None => None,
            };
            let replicas = found.as_ref().and_then(|o| o.get("/spec/replicas")).and_then(Value::as_i64);
            match (managing, replicas) {
                (Some(id), Some(replicas)) => drop(scales.insert(id, replicas)),
                _ => {
                    let kind = owner.kind.to_ascii_lowercase();
                    return Ok(Err(format!("{kind}s.{} does not implement the scale subresource", owner.api_version)));
                }
            }
        }
        Ok(Ok(scales.values().sum()))
    }
}

#[async_trait]
impl Controller for Budgets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("policy", "PodDisruptionBudget") {
            add(slim.id.clone());
        } else if slim.id.is_pod() {
            let states = || [&change.before, &change.after].into_iter().flatten();
            let concerned = view
                .list(self.kind, Some(&slim.id.namespace))
                .filter(|b| b.selector().is_some_and(|s| states().any(|p| p.matches(s))));
            concerned.for_each(|b| add(b.id.clone()));
        } else if matches!(slim.id.kind.kind, "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController") {
            view.list(self.kind, Some(&slim.id.namespace)).for_each(|b| add(b.id.clone()));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(budget) = context.find(id)? else { return Ok(Again::NEVER) };
        let selector = budget.get("/spec/selector").filter(|s| !s.is_null());
        let selector = selector.and_then(|s| LabelSelector::from_value(s).ok());
        let counts = |p: &&Arc<Slim>| !p.pod().is_some_and(|p| matches!(p.phase, Phase::Succeeded | Phase::Failed));
        let pods: Vec<Arc<Slim>> = match &selector {
            Some(selector) => {
                let view = context.view();
                view.list(self.pods, Some(&id.namespace))
                    .filter(|p| p.matches(selector))
                    .filter(counts)
                    .cloned()
                    .collect()
            }
            None => Vec::new(),
        };
        let expected = self.expected(context, &budget, &pods)?;
        let (status, again) = status(Input { budget: &budget, pods: &pods, expected: &expected, now: context.now() });
        if budget.status() == Some(&status) {
            return Ok(again);
        }
        // Counted down by an eviction in between: then this is stale, and the eviction's write brings us back here.
        let key = id.key();
        let version = budget.resource_version();
        let author = reddwarf_registry::Author::System(NAME);
        let written = context.registry.modify_status(&author, &key, |live| {
            if live.resource_version() == version {
                live.set_status(Some(status.clone()));
            }
        });
        match written.await {
            Ok(_) | Err(reddwarf_registry::RegistryError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Err(why) = &expected {
            let said = Events::about(&budget).warning(
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {why}"),
            );
            context.act(NAME, vec![said]).await?;
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::pod;

    #[test]
    fn how_many_may_go() {
        let at = DateTime::from_timestamp(100, 0).unwrap();
        let ready = |n: usize| pod(&format!("r{n}"), |p| p.ready_since = Some(DateTime::UNIX_EPOCH));
        let unready = |n: usize| pod(&format!("u{n}"), |_| {});
        let none = json!({});
        let going = |since: &str| json!({"disruptedPods": {"r0": since}});
        for (spec, old, healthy, ill, expected, allowed, desired) in [
            (json!({"minAvailable": 2}), &none, 3, 0, 3, 1, 2),
            (json!({"minAvailable": 2}), &none, 2, 1, 3, 0, 2),
            (json!({"minAvailable": "50%"}), &none, 5, 0, 5, 2, 3),
            (json!({"maxUnavailable": 1}), &none, 3, 0, 3, 1, 2),
            (json!({"maxUnavailable": 1}), &none, 2, 1, 3, 0, 2),
            (json!({"maxUnavailable": "100%"}), &none, 2, 0, 2, 2, 0),
            (json!({"minAvailable": 0}), &none, 0, 0, 0, 0, 0),
            // An eviction under way counts, until it is forgotten.
            (json!({"minAvailable": 1}), &going("1970-01-01T00:01:30Z"), 2, 0, 2, 0, 1),
            (json!({"minAvailable": 1}), &going("1969-12-31T23:59:30Z"), 2, 0, 2, 1, 1),
        ] {
            let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "generation": 1}, "spec": spec, "status": old});
            let budget = Object::from_value(budget).unwrap();
            let pods: Vec<_> = (0..healthy).map(ready).chain((0..ill).map(unready)).collect();
            let (status, _) = status(Input { budget: &budget, pods: &pods, expected: &Ok(expected), now: at });
            let found = ["disruptionsAllowed", "desiredHealthy"].map(|f| status[f].as_i64().unwrap());
            assert_eq!(found, [allowed, desired], "{spec}");
        }
    }
}
