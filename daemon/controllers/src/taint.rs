//! Pods leave nodes whose `NoExecute` taints they do not tolerate (Kubernetes: "Taint based Evictions"), at once or when their
//! patience is over (`tolerationSeconds`). A taint that is taken away in time keeps nobody from staying.
//!
//! The time counts from when the taint was put there, or from when the pod came there, if that was later. A taint that does not
//! say when (`kubectl taint` doesn't) counts from when it is first seen here: a restart of the daemon begins its time anew, as in
//! the reference. What a file declares stays, and so does what has ended.

use crate::runtime::{Again, Change, Context, Controller, Events, Failure, Id, Slim, Taint, View};
use crate::schedule::{Constraints, Patience};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::pod::set_disruption_target;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, DeleteOptions, Preconditions, RegistryError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "taint-eviction-controller";
const EFFECT: &str = "NoExecute";
const MESSAGE: &str = "Taint manager: deleting due to NoExecute taint";

/// A taint that drives pods out, and since when.
#[derive(Clone, Debug, PartialEq)]
pub struct Since(pub Taint, pub DateTime<Utc>);

/// When a pod that came to its node at `placed` has to leave it for these taints; `None`: never. Pure.
pub fn leaves_at(
    constraints: &Constraints,
    taints: &[Since],
    placed: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let due = |Since(taint, since): &Since| {
        // Nothing begins in the future, whatever clocks say.
        let begun = (*since).max(placed).min(now);
        match constraints.patience(taint) {
            Patience::No => Some(begun),
            Patience::Seconds(seconds) => begun.checked_add_signed(TimeDelta::try_seconds(seconds.max(0))?),
            Patience::Endless => None,
        }
    };
    taints.iter().filter_map(due).min()
}

/// When the pod came to its node, as far as it says.
fn placed_at(pod: &Object, slim: &Slim, now: DateTime<Utc>) -> DateTime<Utc> {
    let placed = pod.condition("PodScheduled").filter(|_| pod.condition_holds("PodScheduled"));
    let time = placed.and_then(|c| c.get("lastTransitionTime")?.as_str()?.parse().ok());
    time.or(slim.created).unwrap_or(now)
}

/// The taints of a node that drive pods out.
fn driving(node: &Slim) -> impl Iterator<Item = &Taint> {
    node.node().into_iter().flat_map(|n| &n.taints).filter(|taint| taint.effect == EFFECT)
}

/// May this pod be driven out at all?
fn may_go(pod: &Slim) -> bool {
    !pod.declared && pod.is_active() && pod.pod().is_some_and(|p| !p.node.is_empty())
}

/// The controller.
#[derive(Debug)]
pub struct TaintEvictions {
    pods: &'static Kind,
    nodes: &'static Kind,
    /// By node: since when its taints are known here.
    seen: Mutex<BTreeMap<Box<str>, Vec<Since>>>,
}

impl TaintEvictions {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        let by = |kind| kinds().by_gvk("v1", kind);
        Some(Self { pods: by("Pod")?, nodes: by("Node")?, seen: Mutex::default() })
    }

    /// The node of a pod, if that has taints that drive pods out.
    fn tainted<'v>(&self, view: &'v View, pod: &Slim) -> Option<&'v Arc<Slim>> {
        let node = view.get(&Id::of(self.nodes, "", &pod.pod()?.node))?;
        driving(node).next().is_some().then_some(node)
    }

    /// Forgets the taints that a node has no more.
    fn forget(&self, name: &str, node: Option<&Slim>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = seen.get_mut(name) else { return };
        known.retain(|Since(taint, _)| node.is_some_and(|node| driving(node).any(|t| t == taint)));
        if known.is_empty() {
            seen.remove(name);
        }
    }

    /// The taints of a node that drive pods out, with their times.
    fn taints(&self, node: &Slim, now: DateTime<Utc>) -> Vec<Since> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry((*node.id.name).into()).or_default();
        for taint in driving(node) {
            if !known.iter().any(|Since(t, _)| t == taint) {
                known.push(Since(taint.clone(), taint.added.unwrap_or(now)));
            }
        }
        // One that was taken away since the view was read is none of ours.
        known.iter().filter(|Since(taint, _)| driving(node).any(|t| t == taint)).cloned().collect()
    }

    /// Says why on the pod and in an event, and deletes it with its own grace period. Killed in between, it is all done once more.
    async fn evict(context: &Context, slim: &Slim, pod: &Object) -> Result<(), Failure> {
        let (author, key, now) = (Author::System(NAME), slim.id.key(), context.now());
        let written = context.registry.modify_status(&author, &key, |live| {
            if live.uid() != Some(&*slim.uid) {
                return;
            }
            set_disruption_target(live, "DeletionByTaintManager", MESSAGE, now);
        });
        if written.await?.changed {
            let said = format!("Marking for deletion Pod {}/{}", slim.id.namespace, slim.id.name);
            context.act(NAME, vec![Events::about(pod).normal("TaintManagerEviction", said)]).await?;
        }
        let preconditions = Preconditions { uid: Some(slim.uid.to_string()), ..Preconditions::default() };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        Ok(context.registry.delete(&author, &key, &options).await.map(drop)?)
    }
}

#[async_trait]
impl Controller for TaintEvictions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is_pod() {
            if change.after.as_ref().is_some_and(|pod| may_go(pod) && self.tainted(view, pod).is_some()) {
                add(slim.id.clone());
            }
        } else if slim.id.is("", "Node") {
            let after = change.after.as_deref();
            self.forget(&slim.id.name, after);
            let before = change.before.as_deref().into_iter().flat_map(driving);
            if after.is_none_or(|after| driving(after).next().is_none() || driving(after).eq(before)) {
                return;
            }
            let here = |pod: &&Arc<Slim>| may_go(pod) && pod.pod().is_some_and(|p| *p.node == *slim.id.name);
            view.list(self.pods, None).filter(here).for_each(|pod| add(pod.id.clone()));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let now = context.now();
        let (slim, taints) = {
            let view = context.view();
            let Some(slim) = view.get(id).filter(|pod| may_go(pod)).cloned() else { return Ok(Again::NEVER) };
            let Some(node) = self.tainted(&view, &slim) else { return Ok(Again::NEVER) };
            (slim, self.taints(node, now))
        };
        let Some(pod) = context.find(id)?.filter(|pod| pod.uid() == Some(&*slim.uid)) else {
            return Ok(Again::NEVER);
        };
        match leaves_at(&Constraints::of_pod(&pod), &taints, placed_at(&pod, &slim, now), now) {
            None => return Ok(Again::NEVER),
            Some(due) if due > now => return Ok(Again::NEVER.at(due, now)),
            Some(_) => {}
        }
        match Self::evict(context, &slim, &pod).await {
            Ok(()) | Err(Failure::Registry(RegistryError::NotFound(_) | RegistryError::Precondition { .. })) => {
                Ok(Again::NEVER)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn when_a_pod_has_to_leave() {
        let at = |second: i64| DateTime::from_timestamp(1_000_000 + second, 0).unwrap();
        let taint = |key: &str, value: &str, since: i64| {
            let (key, value, effect) = (key.to_owned(), value.to_owned(), EFFECT.to_owned());
            Since(Taint { key, value, effect, added: None }, at(since))
        };
        let bears = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let no = Value::Null;
        let to_come = vec![taint("a", "", 9999)];
        let (one, both) = (vec![taint("a", "1", 100)], vec![taint("a", "1", 100), taint("b", "", 110)]);
        let table: Vec<(Value, &[Since], i64, Option<i64>)> = vec![
            (json!([]), &[], 0, None),
            (json!([]), &one, 0, Some(100)),
            (json!([]), &one, 150, Some(150)),
            (json!([bears("a", no.clone())]), &one, 0, None),
            (json!([bears("a", no.clone())]), &both, 0, Some(110)),
            (json!([{"operator": "Exists"}]), &both, 0, None),
            (json!([{"key": "a", "value": "1"}]), &one, 0, None),
            (json!([{"key": "a", "value": "2"}]), &one, 0, Some(100)),
            (json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]), &one, 0, Some(100)),
            (json!([bears("a", json!(300))]), &one, 0, Some(400)),
            (json!([bears("a", json!(300))]), &one, 160, Some(460)),
            (json!([bears("a", json!(300)), bears("b", json!(30))]), &both, 0, Some(140)),
            (json!([bears("a", json!(300)), bears("b", no.clone())]), &both, 0, Some(400)),
            (json!([bears("a", json!(300))]), &both, 0, Some(110)),
            (json!([bears("a", json!(-5))]), &one, 0, Some(100)),
            (json!([bears("a", json!(i64::MAX))]), &one, 0, None),
            // The first that matches counts.
            (json!([bears("a", no), bears("a", json!(1))]), &one, 0, None),
            // Times to come.
            (json!([]), &to_come, 0, Some(200)),
            (json!([bears("a", json!(7))]), &to_come, 0, Some(207)),
        ];
        for (tolerations, taints, placed, expected) in table {
            let pod = Constraints::of(&json!({"spec": {"tolerations": tolerations}}));
            assert_eq!(leaves_at(&pod, taints, at(placed), at(200)), expected.map(at), "{tolerations} {taints:?}");
        }
    }
}
