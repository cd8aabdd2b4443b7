//! Whether what was applied is up: each kind that has pods as `kubectl rollout status` sees it, and a Job when it is complete.

use crate::context::Context;
use crate::kube::{self, Query, condition, text};
use crate::pod_reason;
use reddwarf_objects::{Kind, kinds};
use serde_json::Value;
use std::time::Duration;

/// Why it is not up is looked for no longer.
const LOOK: Duration = Duration::from_secs(3);

/// How far an object has come.
#[derive(Debug, PartialEq)]
pub(crate) enum Standing {
    /// As it is to be: in words.
    Up(&'static str),
    /// Not yet: why.
    Waiting(String),
    /// It won't be: why.
    Failed(String),
}

/// Is there something to wait for in this kind?
pub(crate) fn has_pods(kind: &Kind) -> bool {
    match kind.group {
        "" => kind.kind == "Pod",
        "apps" => matches!(kind.kind, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"),
        "batch" => kind.kind == "Job",
        _ => false,
    }
}

/// How far an object of such a kind has come.
pub(crate) fn standing(kind: &Kind, object: &Value) -> Standing {
    let status = |field| counter(object, field);
    let seen = status("observedGeneration") >= number(object, "/metadata/generation").unwrap_or(0);
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    match kind.kind {
        "Job" => job(object),
        "Pod" if text(object, "/status/phase") == "Succeeded" || holds(object, "Ready") => Standing::Up("is up"),
        "Pod" => Standing::Waiting(pod_reason::seen(object)),
        _ if !seen => Standing::Waiting("its last change was not taken up yet".into()),
        "Deployment" => {
            let late = condition(object, "Progressing").filter(|c| text(c, "/reason") == "ProgressDeadlineExceeded");
            if let Some(late) = late {
                return Standing::Failed(said("it exceeded its progress deadline", text(late, "/message")));
            }
            let updated = status("updatedReplicas");
            counted(&[
                (updated, wanted, "new pods are made"),
                (updated, status("replicas"), "pods are new, the others are yet to go"),
                (status("availableReplicas"), updated, "pods are available"),
            ])
        }
        "StatefulSet" => stateful(object, wanted),
        "DaemonSet" => {
            let nodes = status("desiredNumberScheduled");
            let updated = if on_delete(object) { nodes } else { status("updatedNumberScheduled") };
            counted(&[(updated, nodes, "new pods are made"), (status("numberAvailable"), nodes, "pods are available")])
        }
        _ => counted(&[
            (status("replicas"), wanted, "pods are made"),
            (status("availableReplicas"), wanted, "pods are available"),
        ]),
    }
}

/// The first of these that has less than it is to have.
fn counted(steps: &[(i64, i64, &str)]) -> Standing {
    let short = steps.iter().find(|(is, wanted, _)| is < wanted);
    short.map_or(Standing::Up("is up"), |(is, wanted, what)| Standing::Waiting(format!("{is} of {wanted} {what}")))
}

fn stateful(object: &Value, wanted: i64) -> Standing {
    let ready = (counter(object, "readyReplicas"), wanted, "pods are ready");
    if on_delete(object) {
        return counted(&[ready]);
    }
    let kept = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let revisions = (text(object, "/status/currentRevision"), text(object, "/status/updateRevision"));
    let all = if kept == 0 && revisions.0 == revisions.1 { 0 } else { wanted.saturating_sub(kept) };
    counted(&[ready, (counter(object, "updatedReplicas"), all, "pods are new")])
}

/// Are its pods left as they are until somebody deletes them?
fn on_delete(object: &Value) -> bool {
    text(object, "/spec/updateStrategy/type") == "OnDelete"
}

fn job(object: &Value) -> Standing {
    if holds(object, "Complete") {
        return Standing::Up("is complete");
    }
    if let Some(failed) = held(object, "Failed") {
        return Standing::Failed(said(text(failed, "/reason"), text(failed, "/message")));
    }
    if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return Standing::Up("is suspended: there is nothing to wait for");
    }
    let (done, failed) = (counter(object, "succeeded"), counter(object, "failed"));
    let wanted = number(object, "/spec/completions").unwrap_or(1);
    let failed = if failed == 0 { String::new() } else { format!(", {failed} have failed") };
    Standing::Waiting(format!("{done} of {wanted} pods have succeeded{failed}"))
}

/// The condition, if what it says is so.
fn held<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    condition(object, kind).filter(|c| text(c, "/status") == "True")
}

fn holds(object: &Value, kind: &str) -> bool {
    held(object, kind).is_some()
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A count in its status; one that isn't there is nought.
fn counter(object: &Value, field: &str) -> i64 {
    object.get("status").and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

fn said(what: &str, more: &str) -> String {
    match (what, more) {
        (what, "") => what.to_owned(),
        ("", more) => more.to_owned(),
        (what, more) => format!("{what}: {more}"),
    }
}

/// What keeps an object's pods, or keeps it from making any: the pod, if it is one, and why.
pub(crate) async fn trouble(context: &Context, namespace: &str, object: &Value) -> Option<(Option<String>, String)> {
    let labels = selector(object.pointer("/spec/selector")?);
    let pods = kinds().by_gvk("v1", "Pod").filter(|_| !labels.is_empty())?;
    let query = Query { labels: &labels, fields: "" };
    let looked = tokio::time::timeout(LOOK, kube::list(&context.daemon, pods, Some(namespace), &query));
    // It is beside the point when this can't be had as well.
    let mut found = looked.await.ok().and_then(Result::ok).unwrap_or_default().items;
    // The newest: an older one may be what is being replaced.
    found.sort_by(|a, b| text(b, "/metadata/creationTimestamp").cmp(text(a, "/metadata/creationTimestamp")));
    let of_pod = found.iter().filter(|pod| !holds(pod, "Ready")).find_map(|pod| {
        let why = pod_reason::reason(pod);
        (!why.is_empty()).then(|| (Some(text(pod, "/metadata/name").to_owned()), why))
    });
    of_pod.or_else(|| {
        let failure = held(object, "ReplicaFailure")?;
        Some((None, text(failure, "/message").to_owned()))
    })
}

/// A selector of objects as a query has it.
fn selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut terms: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    for expression in kube::array(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = kube::array(expression, "/values").iter().filter_map(Value::as_str).collect();
        terms.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(kind: &str, object: Value) -> Standing {
        standing(kinds().by_alias(kind).unwrap(), &object)
    }

    fn waits(kind: &str, object: Value, part: &str) {
        match of(kind, object) {
            Standing::Waiting(why) => assert!(why.contains(part), "{kind}: {why}"),
            other => panic!("{kind}, {part}: {other:?}"),
        }
    }

    /// As an object of two replicas at its third change, with this status.
    fn two(status: Value) -> Value {
        json!({"metadata": {"generation": 3}, "spec": {"replicas": 2}, "status": status})
    }

    #[test]
    fn a_deployment_is_up_when_all_its_pods_are_new_and_available() {
        let with = |seen: i64, all: i64, updated: i64, available: i64| {
            two(
                json!({"observedGeneration": seen, "replicas": all, "updatedReplicas": updated, "availableReplicas": available}),
            )
        };
        assert_eq!(of("deploy", with(3, 2, 2, 2)), Standing::Up("is up"));
        waits("deploy", with(2, 2, 2, 2), "not taken up yet");
        waits("deploy", two(json!({})), "not taken up yet");
        waits("deploy", with(3, 2, 1, 2), "1 of 2 new pods are made");
        waits("deploy", with(3, 3, 2, 2), "2 of 3 pods are new");
        waits("deploy", with(3, 2, 2, 1), "1 of 2 pods are available");
        let mut late = with(3, 2, 2, 1);
        late["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "it took too long"}]);
        assert_eq!(of("deploy", late), Standing::Failed("it exceeded its progress deadline: it took too long".into()));
        let none = json!({"metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {"observedGeneration": 1}});
        assert_eq!(of("deploy", none), Standing::Up("is up"));
    }

    #[test]
    fn sets_are_up_when_their_pods_are() {
        let with = |ready: i64, updated: i64, current: &str| {
            two(
                json!({"observedGeneration": 3, "readyReplicas": ready, "updatedReplicas": updated, "currentRevision": current, "updateRevision": "b"}),
            )
        };
        assert_eq!(of("sts", with(2, 2, "b")), Standing::Up("is up"));
        waits("sts", with(1, 2, "b"), "1 of 2 pods are ready");
        waits("sts", with(2, 1, "a"), "1 of 2 pods are new");
        let mut part = with(2, 1, "a");
        part["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        assert_eq!(of("sts", part.clone()), Standing::Up("is up"));
        part["status"]["updatedReplicas"] = json!(0);
        waits("sts", part.clone(), "0 of 1 pods are new");
        part["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        assert_eq!(of("sts", part), Standing::Up("is up"));

        let daemons = |updated: i64, available: i64| {
            two(
                json!({"observedGeneration": 3, "desiredNumberScheduled": 1, "updatedNumberScheduled": updated, "numberAvailable": available}),
            )
        };
        assert_eq!(of("ds", daemons(1, 1)), Standing::Up("is up"));
        waits("ds", daemons(0, 1), "0 of 1 new pods are made");
        waits("ds", daemons(1, 0), "0 of 1 pods are available");
        let replicas =
            |available: i64| two(json!({"observedGeneration": 3, "replicas": 2, "availableReplicas": available}));
        assert_eq!(of("rs", replicas(2)), Standing::Up("is up"));
        waits("rs", replicas(0), "0 of 2 pods are available");
    }

    #[test]
    fn a_job_is_up_when_it_is_complete_and_its_failure_is_one() {
        let with = |kind: &str| {
            let condition =
                json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"});
            json!({"spec": {"completions": 2}, "status": {"succeeded": 1, "failed": 3, "conditions": [condition]}})
        };
        assert_eq!(of("job", with("Complete")), Standing::Up("is complete"));
        assert_eq!(of("job", with("Failed")), Standing::Failed("BackoffLimitExceeded: too often".into()));
        waits("job", with("FailureTarget"), "1 of 2 pods have succeeded, 3 have failed");
        assert!(
            matches!(of("job", json!({"spec": {"suspend": true}})), Standing::Up(words) if words.contains("suspended"))
        );
    }

    #[test]
    fn only_what_has_pods_is_waited_for() {
        let has = |alias: &str| has_pods(kinds().by_alias(alias).unwrap());
        assert!(["po", "deploy", "rs", "sts", "ds", "job"].into_iter().all(has));
        assert!(!["pvc", "svc", "cronjob", "cm", "no"].into_iter().any(has));
        let expressions = json!([{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]);
        assert_eq!(
            selector(&json!({"matchLabels": {"app": "web"}, "matchExpressions": expressions})),
            "app=web,tier in (a,b),!old"
        );
    }
}
