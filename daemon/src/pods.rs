//! Pods in a line each: how they stand, and why they are not as asked.

use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_api::types::PodSummary;
use reddwarf_objects::{Kind, Object, print};
use serde_json::Value;

/// What the node says of a pod that is not as asked (docs/pod-lifecycle.md).
const UP_TO_DATE: &str = "reddwarf.io/UpToDate";
/// A condition that holds for less than this may be a step on the way: a pod and what it refers to come one after the other.
const SETTLED: TimeDelta = TimeDelta::seconds(2);
/// A program that runs may need so long to be ready, and one failed probe is none.
const STARTING: TimeDelta = TimeDelta::seconds(10);
/// What needs only time: an image that comes, a predecessor that goes, the node's network while it is made.
const ROUTINE: [&str; 5] =
    ["ContainerCreating", "PodInitializing", "WaitingForPredecessor", "WaitingForFinalizers", "NetworkNotReady"];

/// A pod's line in `status`.
pub(crate) fn summary(kind: &Kind, pod: &Object, now: DateTime<Utc>) -> PodSummary {
    let cells: Vec<String> = print::row(kind, pod, now).iter().map(print::cell_text).collect();
    let cell = |name: &str| {
        let index = kind.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        index.and_then(|i| cells.get(i)).cloned().unwrap_or_default()
    };
    PodSummary {
        namespace: pod.namespace().unwrap_or_default().to_owned(),
        name: pod.name().to_owned(),
        status: print::status_word(pod),
        ready: cell("ready"),
        restarts: u32::try_from(print::restarts(pod)).unwrap_or(u32::MAX),
        ip: pod.get_str("/status/podIP").unwrap_or_default().to_owned(),
        source: pod.annotation(reddwarf_objects::SOURCE_ANNOTATION).unwrap_or_default().to_owned(),
        reason: reason(pod, now),
        created: pod.creation_timestamp(),
    }
}

/// Why a pod is not as asked, in one line; empty when it is, or when it needs only time.
pub(crate) fn reason(pod: &Object, now: DateTime<Utc>) -> String {
    let word = pod.get_str("/status/reason").unwrap_or_default();
    if !word.is_empty() {
        return said(word, pod.get_str("/status/message").unwrap_or_default());
    }
    let of_container = of_container(pod);
    if !of_container.is_empty() {
        return of_container;
    }
    if pod.get_str("/status/phase") == Some("Failed") {
        return "Failed".to_owned();
    }
    of_conditions(pod, now)
}

fn of_container(pod: &Object) -> String {
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let statuses = containers.iter().filter_map(|p| pod.get(p)?.as_array()).flatten();
    for status in statuses {
        let name = status["name"].as_str().unwrap_or_default();
        let waiting = &status["state"]["waiting"];
        let word = waiting["reason"].as_str().unwrap_or_default();
        if !matches!(word, "" | "ContainerCreating" | "PodInitializing") {
            return format!("{name}: {word}: {}", waiting["message"].as_str().unwrap_or_default());
        }
        let ended = &status["state"]["terminated"];
        if let Some(code) = ended["exitCode"].as_i64().filter(|code| *code != 0) {
            return format!("{name}: {}: exit code {code}", ended["reason"].as_str().unwrap_or("Error"));
        }
    }
    String::new()
}

/// Of a pod that has no place, or whose spec can't be carried out.
fn of_conditions(pod: &Object, now: DateTime<Utc>) -> String {
    if pod.deletion_timestamp().is_some() {
        return String::new();
    }
    let unmet_for = |kind: &str, least: TimeDelta| {
        let since = |c: &Value| DateTime::parse_from_rfc3339(c["lastTransitionTime"].as_str()?).ok();
        let settled = |c: &&Value| since(c).is_none_or(|since| now.signed_duration_since(since) >= least);
        pod.condition(kind).filter(|c| c["status"] != "True").filter(settled)
    };
    let unmet = |kind: &str| unmet_for(kind, SETTLED);
    let text = |c: &Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
    // A pod with scheduling gates waits because it asks for that.
    let unplaced = unmet("PodScheduled").filter(|c| c["reason"] != "SchedulingGated");
    let outdated = || unmet(UP_TO_DATE).filter(|c| !ROUTINE.contains(&c["reason"].as_str().unwrap_or_default()));
    let unready = || unmet_for("Ready", STARTING).filter(|c| c["reason"] != "ContainersNotReady" || fails_probes(pod));
    let found = unplaced.or_else(outdated).or_else(unready);
    found.map(|c| said(&text(c, "reason"), &text(c, "message"))).unwrap_or_default()
}

/// Does a container run and is not ready? One that has ended well is not either, and may be as asked.
fn fails_probes(pod: &Object) -> bool {
    let statuses = pod.get("/status/containerStatuses").and_then(Value::as_array);
    statuses.into_iter().flatten().any(|status| status["ready"] == false && !status["state"]["running"].is_null())
}

/// `Reason: message`, or whichever of the two there is.
pub(crate) fn said(reason: &str, message: &str) -> String {
    match (reason, message.trim_end()) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: Value) -> Object {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "side", "restartPolicy": "Always"}]},
            "status": status});
        Object::from_value(pod).unwrap()
    }

    fn condition(kind: &str, reason: &str, since: &str) -> Value {
        json!([{"type": kind, "status": "False", "reason": reason, "message": "it says why", "lastTransitionTime": since}])
    }

    #[test]
    fn why_a_pod_is_not_as_asked() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let (long_ago, just_now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:59Z");
        let waiting = json!([{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]);
        let killed = json!([{"name": "main", "state": {"terminated": {"reason": "Error", "exitCode": 137}}}]);
        let running = json!([{"name": "main", "state": {"running": {}}}]);
        let unready = json!([{"name": "main", "ready": false, "state": {"running": {}}}]);
        let ended = json!([{"name": "main", "ready": false, "state": {"terminated": {"exitCode": 0}}}]);
        for (status, expected) in [
            (json!({"phase": "Running", "containerStatuses": running}), ""),
            (json!({"phase": "Pending", "containerStatuses": waiting}), ""),
            (
                json!({"phase": "Pending", "conditions": condition("PodScheduled", "Unschedulable", long_ago)}),
                "Unschedulable: it says why",
            ),
            (json!({"phase": "Pending", "conditions": condition("PodScheduled", "Unschedulable", just_now)}), ""),
            (json!({"phase": "Pending", "conditions": condition("PodScheduled", "SchedulingGated", long_ago)}), ""),
            (
                json!({"phase": "Running", "containerStatuses": running, "conditions": condition(UP_TO_DATE, "CreateContainerConfigError", long_ago)}),
                "CreateContainerConfigError: it says why",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": waiting, "conditions": condition(UP_TO_DATE, "FailedMount", long_ago)}),
                "FailedMount: it says why",
            ),
            (
                json!({"phase": "Running", "containerStatuses": running, "conditions": condition(UP_TO_DATE, "ContainerCreating", long_ago)}),
                "",
            ),
            (
                json!({"phase": "Running", "containerStatuses": unready, "conditions": condition("Ready", "ContainersNotReady", long_ago)}),
                "ContainersNotReady: it says why",
            ),
            (
                json!({"phase": "Running", "containerStatuses": unready, "conditions": condition("Ready", "ContainersNotReady", "2026-01-01T00:00:55Z")}),
                "",
            ),
            (
                json!({"phase": "Running", "containerStatuses": ended, "conditions": condition("Ready", "ContainersNotReady", long_ago)}),
                "",
            ),
            (
                json!({"phase": "Running", "containerStatuses": running, "conditions": condition("Ready", "ReadinessGatesNotReady", long_ago)}),
                "ReadinessGatesNotReady: it says why",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory. ", "containerStatuses": killed}),
                "Evicted: The node was low on memory.",
            ),
            (json!({"phase": "Failed", "containerStatuses": killed}), "main: Error: exit code 137"),
            (json!({"phase": "Failed"}), "Failed"),
        ] {
            assert_eq!(reason(&pod(status.clone()), now), expected, "{status}");
        }
    }

    #[test]
    fn restarts_are_counted_as_get_counts_them() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let kind = reddwarf_objects::kinds().by_group_resource("", "pods").unwrap();
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "side", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 5, "state": {"running": {}}}]});
        let line = summary(kind, &pod(status), now);
        assert_eq!((line.restarts, line.ready.as_str(), line.reason.as_str()), (6, "2/2", ""));
    }
}
