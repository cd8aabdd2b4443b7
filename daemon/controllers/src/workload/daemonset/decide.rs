//! What comes and goes on each node. Pure.

use crate::runtime::{Again, Slim};
use crate::workload::fields::{number, positive, scaled, status_with};
use crate::workload::revision::REVISION_LABEL;
use chrono::{DateTime, Utc};
use reddwarf_objects::Object;
use reddwarf_objects::pod::Phase;
use serde_json::{Value, json};
use std::sync::Arc;

/// A node as the DaemonSet sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// A pod is to run there.
    pub should_run: bool,
    /// A pod that runs there may go on.
    pub may_stay: bool,
    /// The DaemonSet's pods there.
    pub pods: Vec<Arc<Slim>>,
}

/// What is decided over.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The DaemonSet.
    pub object: &'a Object,
    /// It is being deleted.
    pub leaving: bool,
    /// The present template's hash, as its pods bear it.
    pub hash: &'a str,
    /// The nodes.
    pub nodes: &'a [NodeState],
    /// The time.
    pub now: DateTime<Utc>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Slim>>,
    /// The status to write.
    pub status: Value,
    /// When to look again.
    pub again: Again,
}

/// A node's pods that matter: at most one of each version.
struct Pair<'a> {
    node: &'a NodeState,
    old: Option<&'a Arc<Slim>>,
    new: Option<&'a Arc<Slim>>,
    going: bool,
}

/// Decides.
pub fn decide(input: &Input<'_>) -> Decision {
    let mut decision = Decision::default();
    let min_ready = number(input.object, "/spec/minReadySeconds", 0);
    if !input.leaving {
        let pairs: Vec<Pair<'_>> = input.nodes.iter().map(|node| tidy(input, node, &mut decision)).collect();
        let rolling = input.object.get_str("/spec/updateStrategy/type") != Some("OnDelete");
        if rolling {
            roll(input, &pairs, min_ready, &mut decision);
        }
    }
    let pods = || input.nodes.iter().flat_map(|n| &n.pods);
    let next =
        pods().filter(|p| p.is_active()).filter_map(|p| p.available_at(min_ready)).filter(|at| *at > input.now).min();
    if let Some(at) = next {
        decision.again = decision.again.at(at, input.now);
    }
    decision.status = status(input, min_ready);
    decision
}

/// Makes the pod that a node lacks, deletes what has ended, what is too much and what may not stay.
fn tidy<'a>(input: &Input<'_>, node: &'a NodeState, decision: &mut Decision) -> Pair<'a> {
    let mut pair = Pair { node, old: None, new: None, going: false };
    let mut pods: Vec<&Arc<Slim>> = node.pods.iter().collect();
    pods.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
    for pod in pods {
        let ended = pod.pod().is_some_and(|p| matches!(p.phase, Phase::Failed | Phase::Succeeded));
        let place = if is_new(input, pod) { &mut pair.new } else { &mut pair.old };
        if pod.deleted.is_some() {
            pair.going = true;
        } else if ended || !node.may_stay || place.is_some() {
            decision.delete.push(pod.clone());
            pair.going = true;
        } else {
            *place = Some(pod);
        }
    }
    if node.should_run && pair.old.is_none() && pair.new.is_none() && !pair.going {
        decision.create.push(node.name.clone());
    }
    pair
}

fn roll(input: &Input<'_>, pairs: &[Pair<'_>], min_ready: i64, decision: &mut Decision) {
    let desired = i64::try_from(input.nodes.iter().filter(|n| n.should_run).count()).unwrap_or(i64::MAX);
    let share = |field: &str, default: Value| {
        let value = input.object.get(&format!("/spec/updateStrategy/rollingUpdate/{field}"));
        scaled(value, &default, desired, true).max(0)
    };
    let (surge, unavailable) = (share("maxSurge", json!(0)), share("maxUnavailable", json!(1)));
    let available = |pod: Option<&Arc<Slim>>| pod.is_some_and(|p| p.is_available(min_ready, input.now));
    let here = || pairs.iter().filter(|p| p.node.should_run);
    if surge == 0 {
        let missing = here().filter(|p| !available(p.old) && !available(p.new)).count();
        let mut room = unavailable.max(1) - i64::try_from(missing).unwrap_or(i64::MAX);
        for pair in pairs {
            let Some(old) = pair.old.filter(|_| pair.node.may_stay) else { continue };
            // A pod that is not available costs nothing.
            if !available(Some(old)) || pair.new.is_some() {
                decision.delete.push(old.clone());
            } else if room > 0 {
                decision.delete.push(old.clone());
                room -= 1;
            }
        }
        return;
    }
    let both = here().filter(|p| p.old.is_some() && (p.new.is_some() || p.going)).count();
    let mut room = surge - i64::try_from(both).unwrap_or(i64::MAX);
    for pair in pairs.iter().filter(|p| p.node.may_stay) {
        match (pair.old, pair.new) {
            (Some(old), Some(_)) if available(pair.new) => decision.delete.push(old.clone()),
            (Some(old), None) if pair.node.should_run && !pair.going && (room > 0 || !available(Some(old))) => {
                room -= i64::from(available(Some(old)));
                decision.create.push(pair.node.name.clone());
            }
            _ => {}
        }
    }
}

fn is_new(input: &Input<'_>, pod: &Slim) -> bool {
    pod.label(REVISION_LABEL) == Some(input.hash)
}

fn status(input: &Input<'_>, min_ready: i64) -> Value {
    let (mut desired, mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    for node in input.nodes {
        let there = || node.pods.iter().filter(|p| p.is_active());
        if !node.should_run {
            misplaced += i64::from(!node.pods.is_empty() && !node.name.is_empty());
            continue;
        }
        desired += 1;
        current += i64::from(!node.pods.is_empty());
        ready += i64::from(there().any(|p| p.is_ready()));
        available += i64::from(there().any(|p| p.is_available(min_ready, input.now)));
        updated += i64::from(there().any(|p| is_new(input, p)));
    }
    let set = json!({
        "observedGeneration": input.object.generation(),
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "numberReady": ready,
        "updatedNumberScheduled": positive(updated),
        "numberAvailable": positive(available),
        "numberUnavailable": positive(desired - available),
    });
    status_with(input.object, set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::{pod, with};

    /// Letters as in the StatefulSet's tests: ready or not, capital: of the present template, `d`: going, `x`: ended.
    fn node(name: &str, should_run: bool, pods: &str) -> NodeState {
        let make = |(n, c): (usize, char)| {
            let pod = pod(&format!("{name}{n}"), |p| {
                p.ready_since = c.eq_ignore_ascii_case(&'r').then_some(DateTime::UNIX_EPOCH);
                if c == 'x' {
                    p.phase = Phase::Failed;
                }
            });
            with(&pod, |p| {
                p.labels =
                    [(Box::from(REVISION_LABEL), Box::from(if c.is_ascii_uppercase() { "new" } else { "old" }))].into();
                p.deleted = (c == 'd').then_some(DateTime::UNIX_EPOCH);
            })
        };
        NodeState {
            name: name.into(),
            should_run,
            may_stay: should_run,
            pods: pods.chars().enumerate().map(make).collect(),
        }
    }

    #[test]
    fn each_node_gets_its_pod_and_a_rollout_replaces_them_one_by_one() {
        let plain = json!({});
        let surge =
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
        let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
        for (spec, nodes, create, delete) in [
            (&plain, vec![node("a", true, ""), node("b", false, "")], vec!["a"], vec![]),
            (&plain, vec![node("a", true, "R"), node("b", false, "R")], vec![], vec!["b0"]),
            (&plain, vec![node("a", true, "d")], vec![], vec![]),
            (&plain, vec![node("a", true, "x")], vec![], vec!["a0"]),
            (&plain, vec![node("a", true, "RR")], vec![], vec!["a1"]),
            (&plain, vec![node("a", true, "r"), node("b", true, "r")], vec![], vec!["a0"]),
            (&plain, vec![node("a", true, "U"), node("b", true, "r")], vec![], vec![]),
            (&plain, vec![node("a", true, "R"), node("b", true, "u")], vec![], vec!["b0"]),
            (&on_delete, vec![node("a", true, "r")], vec![], vec![]),
            (&surge, vec![node("a", true, "r"), node("b", true, "r")], vec!["a"], vec![]),
            (&surge, vec![node("a", true, "rU"), node("b", true, "r")], vec![], vec![]),
            (&surge, vec![node("a", true, "rR")], vec![], vec!["a0"]),
        ] {
            let object = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}, "spec": spec});
            let object = Object::from_value(object).unwrap();
            let now = DateTime::from_timestamp(9, 0).unwrap();
            let decision = decide(&Input { object: &object, leaving: false, hash: "new", nodes: &nodes, now });
            let deleted: Vec<String> = decision.delete.iter().map(|p| p.id.name.to_string()).collect();
            assert_eq!(
                (decision.create, deleted),
                (create.into_iter().map(str::to_owned).collect(), delete.into_iter().map(str::to_owned).collect()),
                "{spec} {nodes:?}"
            );
        }
    }
}
