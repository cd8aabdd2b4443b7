//! Why an object is as it is. Of a pod the node knows; of anything else its own status, the pods that it stands for and the
//! newest event tell.

use crate::node::{Wiring, failed, object_name};
use crate::pods::{self, said};
use chrono::{DateTime, Utc};
use reddwarf_api::runtime::RuntimeError;
use reddwarf_api::types::{WhyLink, WhyReport};
use reddwarf_node::{NodeError, NodeHandle, PodKey, Record};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_registry::{EventTarget, ListQuery, Registry};

/// So many of a workload's pods are told of.
const SHOWN: usize = 5;
/// Conditions of any kind that tell of trouble while they are false.
const EXPECTED: [&str; 4] = ["Ready", "Available", "Established", "reddwarf.io/PortsAvailable"];

/// Of a pod: what the node knows of it, or why none has it.
///
/// # Errors
/// `NotFound`; whatever the node says.
pub(crate) async fn pod(node: &NodeHandle, wiring: &Wiring, key: &PodKey) -> Result<WhyReport, RuntimeError> {
    let registry = &wiring.registry;
    let object = registry.find(&ObjectKey::pod(&key.namespace, &key.name)).ok().flatten();
    let why = match (node.why(key).await, &object) {
        (Err(NodeError::NotFound(_)), Some(object)) => {
            let mut report = stored(wiring, object);
            report.chain.extend(node.status().notices.iter().map(|n| link("condition", n.to_string(), None)));
            return Ok(WhyReport { object: object_name(Some(key)), ..report });
        }
        (why, _) => why.map_err(failed)?,
    };
    let mut chain = declared(wiring, why.source.as_deref());
    chain.push(link("condition", format!("phase {}", why.phase), None));
    chain.extend(why.notices.iter().map(|n| link("condition", n.to_string(), None)));
    chain.extend(why.waiting.iter().map(|(c, n)| link("container", format!("{c}: {n}"), None)));
    chain.extend(why.ended.iter().map(|(c, text)| link("container", format!("{c}: {text}"), None)));
    chain.extend(why.next.iter().map(|step| link("plan", step.clone(), None)));
    chain.extend(why.recent.iter().map(done));
    // Nothing is left to do for a pod that has failed; as asked it is not.
    let reason = object.as_ref().filter(|_| why.ok).map(|o| pods::reason(o, registry.now()));
    let (ok, summary) = match reason.filter(|reason| !reason.is_empty()) {
        Some(reason) => (false, reason),
        None => (why.ok, why.summary),
    };
    // What a probe said, or a mount.
    chain.extend(object.filter(|_| !ok).and_then(|o| newest_event(registry, &o, false)));
    Ok(WhyReport { object: object_name(Some(key)), ok, summary, chain })
}

/// A step that was taken, or failed.
fn done(record: &Record) -> WhyLink {
    let text = format!("{} ({})", record.step, record.reason);
    match &record.error {
        Some(error) => link("error", format!("{text}: {error}"), Some(record.at)),
        None => link("done", text, Some(record.at)),
    }
}

/// Of anything else, as far as the registry tells.
pub(crate) fn stored(wiring: &Wiring, object: &Object) -> WhyReport {
    let Some(kind) = object.known_kind() else { return WhyReport::default() };
    let registry = &wiring.registry;
    let mut chain = declared(wiring, object.annotation(reddwarf_objects::SOURCE_ANNOTATION));
    let problem = if kind.is_core("Pod") { unplaced(object, registry.now()) } else { problem(object) };
    chain.extend(problem.iter().map(|text| link("condition", text.clone(), None)));
    let troubled = if problem.is_some() { troubled_pods(registry, object) } else { Vec::new() };
    // What a claim waits for may be no fault: its first consumer.
    let any = problem.is_some() && kind.is_core("PersistentVolumeClaim");
    let event = newest_event(registry, object, any);
    let cause = troubled.first().cloned().or_else(|| event.as_ref().map(|e| e.text.clone()));
    chain.extend(troubled.into_iter().map(|text| link("container", text, None)));
    chain.extend(event);
    let ok = problem.is_none();
    let summary = match (problem, cause.filter(|_| !kind.is_core("Pod"))) {
        (Some(problem), Some(cause)) if !problem.contains(&cause) => format!("{problem}; {cause}"),
        (Some(problem), _) => problem,
        (None, Some(warning)) => format!("stored as declared; its last warning: {warning}"),
        (None, None) => "stored as declared".to_owned(),
    };
    WhyReport { object: object.key(kind).to_string(), ok, summary, chain }
}

/// The file that declares an object, and what is wrong with it.
fn declared(wiring: &Wiring, source: Option<&str>) -> Vec<WhyLink> {
    let status = wiring.directory.status();
    let file = source.and_then(|s| status.files.iter().find(|f| f.path == s));
    let findings = file.into_iter().flat_map(|f| &f.diagnostics).map(|d| d.one_line());
    let declared = source.map(|s| format!("declared in {s}"));
    declared.into_iter().chain(findings).map(|text| link("source", text, None)).collect()
}

fn link(kind: &str, text: String, since: Option<DateTime<Utc>>) -> WhyLink {
    WhyLink { kind: kind.into(), text, since }
}

/// Why a pod has no node; `None`: it has one, or asked for none yet.
fn unplaced(pod: &Object, now: DateTime<Utc>) -> Option<String> {
    let reason = pods::reason(pod, now);
    let placed = pod.get_str("/spec/nodeName").is_some_and(|n| !n.is_empty());
    let scheduled = pod.condition("PodScheduled");
    if !reason.is_empty() {
        return Some(reason);
    }
    if placed || scheduled.is_some_and(|c| c["reason"] == "SchedulingGated") {
        return None;
    }
    let text = |key: &str| scheduled.and_then(|c| c[key].as_str()).unwrap_or_default();
    Some(said(text("reason"), text("message")))
        .filter(|t| !t.is_empty())
        .or_else(|| Some("it has no node yet".to_owned()))
}

/// Why an object is not as asked; `None`: it is, as far as it says.
fn problem(object: &Object) -> Option<String> {
    if object.deletion_timestamp().is_some() {
        return Some(match object.finalizers() {
            none if none.is_empty() => "being deleted".to_owned(),
            finalizers => format!("being deleted, and waits for {}", finalizers.join(", ")),
        });
    }
    let holds = |kind: &str, status: &str| object.condition(kind).filter(|c| c["status"] == status);
    let told = |c: &serde_json::Value| {
        let text = |key: &str| c[key].as_str().unwrap_or_default();
        match (text("reason"), text("message")) {
            ("", "") => format!("{} is {}", text("type"), text("status")),
            (reason, message) => said(reason, message),
        }
    };
    let group = object.api_version().rsplit_once('/').map_or("", |(group, _)| group);
    match (group, object.kind()) {
        ("apps", "Deployment") => {
            let short = short(object, "/status/availableReplicas", "/spec/replicas", 1);
            let failed = holds("ReplicaFailure", "True").or_else(|| holds("Progressing", "False"));
            match (failed.map(told), short) {
                (Some(failed), Some(short)) => Some(format!("{failed}; {short}")),
                (failed, short) => failed.or(short),
            }
        }
        ("apps", "ReplicaSet" | "StatefulSet") | ("", "ReplicationController") => {
            let short = short(object, "/status/availableReplicas", "/spec/replicas", 1);
            holds("ReplicaFailure", "True").map(told).or(short)
        }
        ("apps", "DaemonSet") => short(object, "/status/numberAvailable", "/status/desiredNumberScheduled", 0),
        ("batch", "Job") => {
            let failed = holds("Failed", "True").or_else(|| holds("FailureTarget", "True"));
            failed.map(told).or_else(|| failing(object).filter(|_| holds("Complete", "True").is_none()))
        }
        ("", "PersistentVolumeClaim") => {
            let phase = object.get_str("/status/phase").unwrap_or("Pending");
            let why = holds("reddwarf.io/Provisioned", "False").map(told);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            (phase != "Bound").then(|| format!("phase {phase}{why}"))
        }
        ("", "PersistentVolume") => {
            let text = |pointer: &str| object.get_str(pointer).unwrap_or_default();
            (text("/status/phase") == "Failed").then(|| said("phase Failed", text("/status/message")))
        }
        _ => EXPECTED.iter().find_map(|kind| holds(kind, "False")).map(told),
    }
}

/// `1 of 2 replicas are available`, where there are fewer than wanted.
fn short(object: &Object, is: &str, wanted: &str, default: u64) -> Option<String> {
    let number = |pointer: &str| object.get(pointer).and_then(serde_json::Value::as_u64);
    let (is, wanted) = (number(is).unwrap_or(0), number(wanted).unwrap_or(default));
    (is < wanted).then(|| format!("{is} of {wanted} replicas are available"))
}

/// A Job that has not given up.
fn failing(job: &Object) -> Option<String> {
    match job.get("/status/failed").and_then(serde_json::Value::as_u64) {
        None | Some(0) => None,
        Some(1) => Some("1 pod has failed so far".to_owned()),
        Some(n) => Some(format!("{n} pods have failed so far")),
    }
}

/// The pods that an object selects and that are not as asked, each with its reason.
fn troubled_pods(registry: &Registry, object: &Object) -> Vec<String> {
    let workload = matches!(object.api_version(), "apps/v1" | "batch/v1");
    let selector = object.get("/spec/selector").filter(|_| workload).and_then(|s| LabelSelector::from_value(s).ok());
    let Some(labels) = selector.filter(|s| !s.is_empty()) else { return Vec::new() };
    let Some(kind) = kinds().by_group_resource("", "pods") else { return Vec::new() };
    let query = ListQuery { labels, ..ListQuery::all(kind).in_namespace(object.namespace().unwrap_or_default()) };
    let found = registry.list(&query).map(|l| l.items).unwrap_or_default();
    let now = registry.now();
    let told = found.iter().map(|pod| (pod.name(), pods::reason(pod, now))).filter(|(_, reason)| !reason.is_empty());
    told.take(SHOWN).map(|(name, reason)| format!("pod {name}: {reason}")).collect()
}

/// The newest warning about an object; with `any`, the newest event.
fn newest_event(registry: &Registry, object: &Object, any: bool) -> Option<WhyLink> {
    let kind = kinds().by_group_resource("", "events")?;
    let uid = Some(EventTarget::of(object).uid).filter(|uid| !uid.is_empty())?;
    let fields = FieldSelector::parse(kind, &format!("involvedObject.uid={uid}")).ok()?;
    let namespace = object.namespace().filter(|n| !n.is_empty()).unwrap_or("default");
    let query = ListQuery { fields, ..ListQuery::all(kind).in_namespace(namespace) };
    let events = registry.list(&query).ok()?.items;
    let time = |event: &Object| event.time("/lastTimestamp").or_else(|| event.time("/eventTime"));
    let told = events.iter().filter(|e| any || e.get_str("/type") == Some("Warning"));
    let newest = told.max_by_key(|event| time(event))?;
    let text = |pointer: &str| newest.get_str(pointer).unwrap_or_default();
    Some(link("event", said(text("/reason"), text("/message")), time(newest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(api: &str, kind: &str, spec: Value, status: Value) -> Object {
        let metadata = json!({"name": "it", "namespace": "default"});
        let object = json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec, "status": status});
        Object::from_value(object).unwrap()
    }

    #[test]
    fn what_an_object_says_of_itself() {
        let failed = |kind: &str, status: &str| json!({"conditions": [{"type": kind, "status": status, "reason": "R", "message": "m"}]});
        for (api, kind, spec, status, expected) in [
            ("apps/v1", "Deployment", json!({"replicas": 2}), json!({}), Some("0 of 2 replicas are available")),
            ("apps/v1", "Deployment", json!({}), json!({"availableReplicas": 1}), None),
            ("apps/v1", "Deployment", json!({"replicas": 0}), failed("Progressing", "False"), Some("R: m")),
            ("apps/v1", "Deployment", json!({"replicas": 0}), failed("Available", "False"), None),
            ("apps/v1", "ReplicaSet", json!({"replicas": 1}), failed("ReplicaFailure", "True"), Some("R: m")),
            (
                "apps/v1",
                "StatefulSet",
                json!({"replicas": 3}),
                json!({"availableReplicas": 1}),
                Some("1 of 3 replicas are available"),
            ),
            (
                "apps/v1",
                "DaemonSet",
                json!({}),
                json!({"desiredNumberScheduled": 1}),
                Some("0 of 1 replicas are available"),
            ),
            ("apps/v1", "DaemonSet", json!({}), json!({"desiredNumberScheduled": 1, "numberAvailable": 1}), None),
            ("batch/v1", "Job", json!({}), failed("Failed", "True"), Some("R: m")),
            ("batch/v1", "Job", json!({}), json!({"failed": 2}), Some("2 pods have failed so far")),
            (
                "batch/v1",
                "Job",
                json!({}),
                json!({"failed": 2, "conditions": [{"type": "Complete", "status": "True"}]}),
                None,
            ),
            ("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"}), Some("phase Pending")),
            ("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Bound"}), None),
            ("v1", "PersistentVolume", json!({}), json!({"phase": "Failed", "message": "m"}), Some("phase Failed: m")),
            ("v1", "Service", json!({}), failed("reddwarf.io/PortsAvailable", "False"), Some("R: m")),
            ("v1", "ConfigMap", json!({}), json!({}), None),
        ] {
            let found = problem(&object(api, kind, spec, status.clone()));
            assert_eq!(found.as_deref(), expected, "{kind} {status}");
        }
    }
}
