//! DaemonSets: a pod on each node that the template fits.
//!
//! `decide.rs` chooses per node what comes and goes. Pods are made with an affinity to their node and placed by the scheduler,
//! as in the reference.

mod decide;

pub use decide::{Decision, Input, NodeState, decide};

use super::claim::{Claimant, claim};
use super::fields::{number, status_with};
use super::managers;
use super::pods::{create_slowly, deletions, from_template};
use super::revision::{self, REVISION_LABEL, Revision, Step};
use crate::runtime::{Action, Again, Change, Context, Controller, Detail, Events, Failure, Id, Slim, View};
use crate::schedule::Constraints;
use async_trait::async_trait;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "daemonset-controller";

/// Taints that a daemon's pods bear with, as in the reference.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The controller.
#[derive(Debug)]
pub struct DaemonSets {
    kind: &'static Kind,
    pods: &'static Kind,
    nodes: &'static Kind,
}

impl DaemonSets {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        let by = |version, kind| kinds().by_gvk(version, kind);
        Some(Self { kind: by("apps/v1", "DaemonSet")?, pods: by("v1", "Pod")?, nodes: by("v1", "Node")? })
    }

    /// Which node each pod is on, or is meant for.
    fn placed(&self, context: &Context, pods: &[Arc<Slim>]) -> Result<BTreeMap<String, Vec<Arc<Slim>>>, Failure> {
        let mut placed: BTreeMap<String, Vec<Arc<Slim>>> = BTreeMap::new();
        for pod in pods {
            let node = match pod.pod().map(|p| p.node.to_string()).filter(|n| !n.is_empty()) {
                Some(node) => Some(node),
                None => context.find(&pod.id)?.as_ref().and_then(meant_for),
            };
            placed.entry(node.unwrap_or_default()).or_default().push(pod.clone());
        }
        Ok(placed)
    }

    fn node_states(
        &self,
        context: &Context,
        template: &Value,
        mut placed: BTreeMap<String, Vec<Arc<Slim>>>,
    ) -> Vec<NodeState> {
        let fits = TOLERATED.iter().fold(Constraints::of(template), |c, (key, effect)| c.tolerating(key, effect));
        let only = template.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty());
        let nodes: Vec<Arc<Slim>> =
            context.view().list(self.nodes, None).filter(|n| n.deleted.is_none()).cloned().collect();
        let mut states: Vec<NodeState> = nodes
            .iter()
            .filter_map(|node| {
                let Detail::Node(detail) = &node.detail else { return None };
                let here = only.is_none_or(|o| o == &*node.id.name) && fits.selects(node);
                Some(NodeState {
                    name: node.id.name.to_string(),
                    should_run: here && fits.tolerates(detail, &["NoSchedule", "NoExecute"]),
                    may_stay: here && fits.tolerates(detail, &["NoExecute"]),
                    pods: placed.remove(&*node.id.name).unwrap_or_default(),
                })
            })
            .collect();
        // Pods for nodes that are gone.
        let gone = placed.into_iter().map(|(name, pods)| NodeState { name, should_run: false, may_stay: false, pods });
        states.extend(gone);
        states
    }
}

/// The node that the affinity of a pod names.
fn meant_for(pod: &Object) -> Option<String> {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    pod.get_str(terms).map(str::to_owned)
}

/// A pod for a node.
fn pod_for(owner: &Claimant, template: &Value, hash: &str, node: &str) -> Result<Object, Failure> {
    let mut pod = from_template(owner, template).map_err(|e| Failure::Wait(e.to_string()))?;
    pod.set_label(REVISION_LABEL, hash);
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    const REQUIRED: &str =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = match pod.get(REQUIRED).and_then(Value::as_array) {
        // Each alternative goes on to hold, on this node only.
        Some(terms) => terms
            .iter()
            .map(|term| {
                let mut term = term.clone();
                term["matchFields"] = field.clone();
                term
            })
            .collect(),
        None => vec![json!({ "matchFields": field })],
    };
    pod.set(REQUIRED, Value::Array(terms));
    let mut tolerations = pod.get("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    for (key, effect) in TOLERATED {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    pod.set("/spec/tolerations", Value::Array(tolerations));
    Ok(pod)
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("apps", "DaemonSet") {
            add(slim.id.clone());
        } else if slim.id.is_pod() || slim.id.is("apps", "ControllerRevision") {
            managers(self.kind, view, change, add);
        } else if slim.id.is("", "Node") {
            let same = change
                .before
                .as_ref()
                .zip(change.after.as_ref())
                .is_some_and(|(b, a)| b.detail == a.detail && b.labels == a.labels);
            if !same {
                view.list(self.kind, None).for_each(|d| add(d.id.clone()));
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else { return Ok(Again::NEVER) };
        let selector = object.get("/spec/selector").and_then(|v| LabelSelector::from_value(v).ok());
        let (Some(owner), Some(selector)) = (Claimant::of(&object), selector.filter(|s| !s.is_empty())) else {
            return Ok(Again::NEVER);
        };
        let known = revision::known(context, NAME, &owner, &selector).await?;
        let template = object.get("/spec/template").cloned().unwrap_or_default();
        let collisions = number(&object, "/status/collisionCount", 0);
        if !owner.leaving {
            match revision::step(&owner, &template, &known, collisions, REVISION_LABEL) {
                None | Some(Step::Ready) => {}
                Some(Step::Renumber(action)) => {
                    context.act(NAME, vec![action]).await?;
                    return Ok(Again::NEVER.after(Duration::ZERO));
                }
                Some(Step::Make(made)) => {
                    match context.act(NAME, vec![Action::Create(made)]).await {
                        Err(Failure::Registry(RegistryError::AlreadyExists(_))) => {
                            let status = status_with(&object, json!({ "collisionCount": collisions + 1 }));
                            let (id, uid) = (id.clone(), owner.uid.clone());
                            context.act(NAME, vec![Action::Status { id, uid, status }]).await?;
                        }
                        other => other?,
                    }
                    return Ok(Again::NEVER.after(Duration::ZERO));
                }
            }
        }
        let Some(update) = known.last() else { return Ok(Again::NEVER) };
        let claimed = {
            let view = context.view();
            let own = view.controlled(&owner.uid, self.pods);
            claim(&owner, &selector, own, view.loose(self.pods, &id.namespace))
        };
        context.act_together(NAME, claimed.actions).await?;
        let nodes = self.node_states(context, &template, self.placed(context, &claimed.own)?);
        let now = context.now();
        let decision =
            decide(&Input { object: &object, leaving: owner.leaving, hash: &update.hash, nodes: &nodes, now });
        let events = Events::about(&object);
        context.act_together(NAME, deletions(&events, decision.delete.iter())).await?;
        let pods: Result<Vec<_>, _> =
            decision.create.iter().map(|node| pod_for(&owner, &update.template, &update.hash, node)).collect();
        let refused = create_slowly(context, NAME, &events, pods?).await?;
        if object.status() != Some(&decision.status) {
            let status = decision.status;
            context.act(NAME, vec![Action::Status { id: id.clone(), uid: owner.uid.clone(), status }]).await?;
        }
        if !owner.leaving {
            let limit = number(&object, "/spec/revisionHistoryLimit", 10);
            let in_use = |r: &Revision| {
                r.name() == update.name()
                    || claimed.own.iter().any(|p| p.label(REVISION_LABEL) == Some(r.hash.as_str()))
            };
            context.act(NAME, revision::surplus(&known, limit, in_use)).await?;
        }
        refused.map_or(Ok(decision.again), |why| Err(Failure::Wait(why)))
    }
}
