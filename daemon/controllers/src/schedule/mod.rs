//! Pods that have no node get one: `schedule` is pure and written over a list of nodes, be there one or many.
//!
//! `fit.rs` says what keeps a pod from a node. A pod that fits nowhere stays Pending, says so in its condition PodScheduled and in an
//! event, and is looked at again when a node changes or a pod goes.

mod fit;

pub(crate) use fit::selects_node;
pub use fit::{Constraints, Misfit, Patience};

use crate::runtime::{Again, Change, Context, Controller, Events, Failure, Id, Slim, Usage, View};
use crate::volume;
use async_trait::async_trait;
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, RegistryError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const NAME: &str = "default-scheduler";
/// A pod whose volumes are being made says nothing about it for so long.
const QUIET: Duration = Duration::from_secs(5);

/// A node and what is taken of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: Arc<Slim>,
    /// What its pods ask for.
    pub used: Usage,
}

/// Chooses the node with the fewest pods among those that fit; the error says why none does. Pure.
///
/// # Errors
/// The reference's sentence, `0/1 nodes are available: …`.
pub fn schedule(constraints: &Constraints, wants: Usage, nodes: &[Candidate]) -> Result<Arc<str>, String> {
    let mut misfits: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut best: Option<&Candidate> = None;
    let mut for_lack = 0;
    for candidate in nodes {
        let found = constraints.misfits(&candidate.node, candidate.used, wants);
        if found.is_empty() {
            let fewer = |b: &Candidate| (candidate.used.pods, &candidate.node.id) < (b.used.pods, &b.node.id);
            if best.is_none_or(fewer) {
                best = Some(candidate);
            }
            continue;
        }
        for_lack += usize::from(found.iter().any(|m| *m >= Misfit::Pods));
        for misfit in found {
            *misfits.entry(misfit.text()).or_default() += 1;
        }
    }
    if let Some(best) = best {
        return Ok(best.node.id.name.clone());
    }
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let reasons: Vec<String> = misfits.iter().map(|(text, count)| format!("{count} {text}")).collect();
    let all = nodes.len();
    let mut others = Vec::new();
    if for_lack > 0 {
        others.push(format!("{for_lack} No preemption victims found for incoming pod"));
    }
    if for_lack < all {
        others.push(format!("{} Preemption is not helpful for scheduling", all - for_lack));
    }
    Err(format!(
        "0/{all} nodes are available: {}. preemption: 0/{all} nodes are available: {}.",
        reasons.join(", "),
        others.join(", ")
    ))
}

/// By a pod's uid: its node and what it takes there.
type Assumed = HashMap<Arc<str>, (Arc<str>, Usage)>;

/// The loop.
#[derive(Debug)]
pub struct Scheduler {
    nodes: &'static Kind,
    /// Placed by us, not yet seen so in the view: pod's uid to its node and what it takes.
    assumed: Mutex<Assumed>,
}

impl Scheduler {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self { nodes: kinds().by_gvk("v1", "Node")?, assumed: Mutex::default() })
    }

    fn assumed(&self) -> MutexGuard<'_, Assumed> {
        self.assumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses, and notes the choice before anyone else chooses.
    fn choose(
        &self,
        view: &View,
        slim: &Slim,
        constraints: &Constraints,
        wants: Usage,
        only: Option<&str>,
    ) -> Result<Arc<str>, String> {
        let mut assumed = self.assumed();
        let nodes = view.list(self.nodes, None).filter(|n| n.deleted.is_none());
        let candidates = nodes.filter(|n| only.is_none_or(|only| *n.id.name == *only)).map(|node| {
            let mut used = view.usage(&node.id.name);
            for (_, taken) in assumed.values().filter(|(at, _)| *at == node.id.name) {
                used.add(*taken, 1);
            }
            Candidate { node: node.clone(), used }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let node = schedule(constraints, wants, &candidates)?;
        assumed.insert(slim.uid.clone(), (node.clone(), wants));
        Ok(node)
    }

    async fn place(&self, context: &Context, slim: &Slim, pod: &Object, node: &str) -> Result<Again, Failure> {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": &*slim.id.name, "uid": &*slim.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let binding = Object::from_value(binding).map_err(|e| Failure::Wait(e.to_string()))?;
        match context.registry.bind(&Author::System(NAME), &slim.id.key(), &binding, false).await {
            Ok(()) => {}
            Err(error) => {
                self.assumed().remove(&slim.uid);
                return match error {
                    // Gone, or placed by someone else: nothing left to do.
                    RegistryError::NotFound(_) | RegistryError::Binding { .. } => Ok(Again::NEVER),
                    other => Err(other.into()),
                };
            }
        }
        let said = format!("Successfully assigned {}/{} to {node}", slim.id.namespace, slim.id.name);
        context.act(NAME, vec![Events::about(pod).normal("Scheduled", said)]).await?;
        Ok(Again::NEVER)
    }

    async fn explain(&self, context: &Context, slim: &Slim, pod: &Object, why: &str) -> Result<Again, Failure> {
        let now = timestamp(context.now());
        let (key, uid) = (slim.id.key(), slim.uid.clone());
        let written = context.registry.modify_status(&Author::System(NAME), &key, |live| {
            let placed = live.get_str("/spec/nodeName").is_some_and(|n| !n.is_empty());
            if live.uid() == Some(&*uid) && !placed {
                unschedulable(live, why, &now);
            }
        });
        match written.await {
            Ok(written) if written.changed => {
                context.act(NAME, vec![Events::about(pod).warning("FailedScheduling", why)]).await?;
            }
            Ok(_) | Err(RegistryError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Again::NEVER)
    }
}

/// The reference's sentence for what no node can change.
fn helpless(context: &Context, nodes: &'static Kind, why: &str) -> String {
    let all = context.view().list(nodes, None).count();
    format!(
        "0/{all} nodes are available: {why}. preemption: 0/{all} nodes are available: {all} Preemption is not helpful for scheduling."
    )
}

/// Sets the condition PodScheduled to False for this reason; its time is kept while it stays False.
fn unschedulable(pod: &mut Object, why: &str, now: &str) {
    let mut conditions = pod.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |c: &Value| c.get("type").and_then(Value::as_str) == Some("PodScheduled");
    let old = conditions.iter().find(|c| is(c) && c["status"] == "False");
    let since = old.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(now).to_owned();
    let condition = json!({"type": "PodScheduled", "status": "False", "lastProbeTime": null, "lastTransitionTime": since,
        "reason": "Unschedulable", "message": why});
    match conditions.iter_mut().find(|c| is(c)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
    pod.set("/status/conditions", Value::Array(conditions));
}

#[async_trait]
impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is_pod() {
            let settled = change.after.as_ref().is_none_or(|a| !a.waits_for_a_node());
            if settled {
                self.assumed().remove(&slim.uid);
            }
            // Nowhere yet (`reddwarfd serve`, or the node has not said what it is): its coming brings all of them.
            let somewhere = || view.list(self.nodes, None).next().is_some();
            if !settled && change.before.as_ref().is_none_or(|b| !b.waits_for_a_node()) && somewhere() {
                add(slim.id.clone());
            }
            // A pod that ends or goes leaves room, and a claim that only one pod may use.
            let placed = |s: &Arc<Slim>| s.pod().is_some_and(|p| !p.node.is_empty());
            let leaves =
                change.before.as_ref().is_some_and(placed) && change.after.as_ref().is_none_or(|a| !a.is_active());
            if !leaves {
                return;
            }
        } else if slim.id.is("", "PersistentVolumeClaim") {
            let waits = |id: &&Id| {
                let pod = view.get(id).and_then(|s| s.pod());
                id.namespace == slim.id.namespace && pod.is_some_and(|p| p.claims.iter().any(|c| **c == *slim.id.name))
            };
            view.unplaced().filter(waits).for_each(|id| add(id.clone()));
            return;
        } else if !slim.id.is("", "Node")
            || change
                .before
                .as_ref()
                .zip(change.after.as_ref())
                .is_some_and(|(b, a)| b.detail == a.detail && b.labels == a.labels)
        {
            return;
        }
        view.unplaced().for_each(|id| add(id.clone()));
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let slim = context.view().get(id).cloned();
        let Some(slim) = slim.filter(|s| s.waits_for_a_node()) else {
            return Ok(Again::NEVER);
        };
        // Their coming brings all of them back here.
        if context.view().list(self.nodes, None).next().is_none() {
            return Ok(Again::NEVER);
        }
        let Some(pod) = context.find(id)?.filter(|p| p.uid() == Some(&slim.uid)) else { return Ok(Again::NEVER) };
        let wants =
            slim.pod().map_or(Usage::default(), |p| Usage { pods: 1, cpu_millis: p.cpu_millis, memory: p.memory });
        let placement = match volume::placement(context, &slim, &pod)? {
            Ok(placement) => placement,
            Err(why) => return self.explain(context, &slim, &pod, &helpless(context, self.nodes, &why)).await,
        };
        let constraints = Constraints::of_pod(&pod).with_volumes(&placement.affinities);
        let chosen = self.choose(&context.view(), &slim, &constraints, wants, placement.node.as_deref());
        match chosen {
            Ok(node) if placement.to_bind.is_empty() => self.place(context, &slim, &pod, &node).await,
            Ok(node) => {
                // The claims' volumes come first; their being bound brings the pod back here.
                self.assumed().remove(&slim.uid);
                if placement.node.is_none() {
                    context.act_together(NAME, volume::select(&placement.to_bind, &node)).await?;
                }
                let waited = slim.created.map(|made| (context.now() - made).to_std().unwrap_or_default());
                if waited.is_some_and(|waited| waited < QUIET) {
                    return Ok(Again::NEVER.after(QUIET));
                }
                let names: Vec<&str> = placement.to_bind.iter().map(|(id, _)| &*id.name).collect();
                let why = format!("waiting for the volumes of persistentvolumeclaims {}", names.join(", "));
                self.explain(context, &slim, &pod, &helpless(context, self.nodes, &why)).await
            }
            Err(why) => self.explain(context, &slim, &pod, &why).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Detail, NodeSlim, Taint};
    use crate::workload::testing::{slim, with};

    fn node(name: &str, labels: &[(&str, &str)], change: impl FnOnce(&mut NodeSlim)) -> Candidate {
        let mut detail = NodeSlim { cpu_millis: 1000, memory: 1 << 30, pods: 2, ..NodeSlim::default() };
        change(&mut detail);
        let node = slim("", "Node", name, Detail::Node(Arc::new(detail)));
        let labels = labels.iter().map(|(k, v)| (Box::from(*k), Box::from(*v))).collect();
        Candidate { node: with(&node, |n| n.labels = labels), used: Usage::default() }
    }

    fn taint(key: &str) -> impl FnOnce(&mut NodeSlim) {
        let taint = Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        move |n| n.taints.push(taint)
    }

    #[test]
    fn why_a_pod_finds_no_node() {
        let cpu = |cpu_millis| Usage { pods: 1, cpu_millis, memory: 0 };
        let affinity = |terms: Value| json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}});
        let helpless = |why: &str| {
            format!(
                "0/1 nodes are available: 1 {why}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        };
        let lack = |why: &str| {
            format!(
                "0/1 nodes are available: 1 {why}. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            )
        };
        let plain = |_: &mut NodeSlim| {};
        let mismatch = helpless("node(s) didn't match Pod's node affinity/selector");
        let table: Vec<(Value, Usage, Candidate, Option<String>)> = vec![
            (json!({}), cpu(0), node("n", &[], plain), None),
            (json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), cpu(0), node("n", &[("disk", "ssd")], plain), None),
            (json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), cpu(0), node("n", &[], plain), Some(mismatch.clone())),
            (
                affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}])),
                cpu(0),
                node("n", &[], plain),
                None,
            ),
            (
                affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}])),
                cpu(0),
                node("n", &[], plain),
                Some(mismatch.clone()),
            ),
            (
                affinity(
                    json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}]),
                ),
                cpu(0),
                node("n", &[], plain),
                None,
            ),
            (affinity(json!([{}])), cpu(0), node("n", &[], plain), Some(mismatch)),
            (json!({}), cpu(0), node("n", &[], taint("k")), Some(helpless("node(s) had untolerated taint(s)"))),
            (
                json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}),
                cpu(0),
                node("n", &[], taint("k")),
                None,
            ),
            (
                json!({"spec": {"containers": [{"resources": {"requests": {"memory": "1Mi"}}}]}}),
                cpu(0),
                node("n", &[], taint("node.kubernetes.io/memory-pressure")),
                None,
            ),
            (
                json!({"spec": {"containers": [{"resources": {"requests": {"memory": "0"}}}]}}),
                cpu(0),
                node("n", &[], taint("node.kubernetes.io/memory-pressure")),
                Some(helpless("node(s) had untolerated taint(s)")),
            ),
            (
                json!({"spec": {"tolerations": [{"key": "k", "value": "x"}]}}),
                cpu(0),
                node("n", &[], taint("k")),
                Some(helpless("node(s) had untolerated taint(s)")),
            ),
            (
                json!({}),
                cpu(0),
                node("n", &[], |n| n.unschedulable = true),
                Some(helpless("node(s) were unschedulable")),
            ),
            (json!({}), cpu(1001), node("n", &[], plain), Some(lack("Insufficient cpu"))),
            (json!({}), cpu(0), node("n", &[], |n| n.pods = 0), Some(lack("Too many pods"))),
            (
                json!({"metadata": {"annotations": {"reddwarf.io/zone-brand": "sparse"}}}),
                cpu(0),
                node("n", &[("reddwarf.io/zone-brands", "oci.sparse")], plain),
                None,
            ),
            (
                json!({"metadata": {"annotations": {"reddwarf.io/zone-brand": "lx"}}}),
                cpu(0),
                node("n", &[("reddwarf.io/zone-brands", "oci")], plain),
                Some(helpless("node(s) can't make zones of the pod's brand")),
            ),
        ];
        for (pod, wants, candidate, expected) in table {
            let found = schedule(&Constraints::of(&pod), wants, &[candidate]).err();
            assert_eq!(found, expected, "{pod}");
        }
        let none = schedule(&Constraints::default(), cpu(0), &[]);
        assert_eq!(none.unwrap_err(), "no nodes available to schedule pods");
    }

    #[test]
    fn the_emptiest_node_is_chosen() {
        let mut busy = node("a", &[], |_| {});
        busy.used.pods = 1;
        let nodes = [busy, node("b", &[], |_| {}), node("c", &[], taint("k"))];
        assert_eq!(&*schedule(&Constraints::default(), Usage { pods: 1, ..Usage::default() }, &nodes).unwrap(), "b");
    }
}
