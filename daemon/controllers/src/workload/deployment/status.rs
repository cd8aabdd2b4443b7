//! What a Deployment's status says.

use super::{Deployment, Set};
use crate::runtime::Again;
use crate::workload::fields::{
    self, Wanted, condition, number, positive, remove_condition, set_condition, status_with, text, touch_condition,
};
use crate::workload::replicaset::failure_of;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

const TIMES: &[&str] = &["lastUpdateTime"];
/// Pods are all there.
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// What just happened to the ReplicaSet of the present template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewSet {
    /// It does not exist and is not made now.
    None,
    /// It was there.
    Found,
    /// It is made now.
    Made,
}

/// The status, and when a rollout that does not move has to be called stuck.
pub(super) fn status(
    deployment: &Deployment,
    old: &[Set],
    new: Option<&Set>,
    (what, name): (NewSet, &str),
    now: DateTime<Utc>,
) -> (Value, Again) {
    let all = || old.iter().chain(new);
    let sum = |of: fn(&Set) -> i64| all().map(of).sum::<i64>();
    let (total, available) = (sum(|s| s.actual), sum(|s| s.reported_available));
    let (ready, updated) = (sum(|s| s.ready), new.map_or(0, |s| s.actual));
    let terminating = sum(|s| number(&s.object, "/status/terminatingReplicas", 0));
    let mut conditions = fields::conditions(&deployment.object);
    let enough = available >= deployment.replicas - deployment.max_unavailable;
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut conditions, Wanted { kind: "Available", status, reason, message }, TIMES, now);
    let counts = Counts { total, updated, available, ready };
    let again = progress(deployment, counts, old, (what, name), &mut conditions, now);
    match all().filter(|s| s.replicas > 0).find_map(|s| failure_of(&s.object)) {
        Some(failure) => {
            let (reason, message) = (text(&failure, "reason"), text(&failure, "message"));
            let wanted = Wanted { kind: "ReplicaFailure", status: "True", reason, message };
            set_condition(&mut conditions, wanted, TIMES, now);
        }
        None => remove_condition(&mut conditions, "ReplicaFailure"),
    }
    let set = json!({
        "observedGeneration": deployment.object.generation(),
        "replicas": positive(total),
        "updatedReplicas": positive(updated),
        "readyReplicas": positive(ready),
        "availableReplicas": positive(available),
        "unavailableReplicas": positive(sum(|s| s.replicas).max(total) - available),
        "terminatingReplicas": terminating,
        "conditions": conditions,
    });
    (status_with(&deployment.object, set), again)
}

#[derive(Clone, Copy)]
struct Counts {
    total: i64,
    updated: i64,
    available: i64,
    ready: i64,
}

/// Every pod is of the present template and available, and no other is left.
pub(super) fn is_complete(deployment: &Deployment, old: &[Set], new: Option<&Set>) -> bool {
    let total = old.iter().map(|s| s.actual).sum::<i64>();
    new.is_some_and(|n| n.actual == deployment.replicas && n.available == deployment.replicas) && total == 0
}

fn progress(
    deployment: &Deployment,
    counts: Counts,
    old: &[Set],
    (what, name): (NewSet, &str),
    conditions: &mut Vec<Value>,
    now: DateTime<Utc>,
) -> Again {
    const KIND: &str = "Progressing";
    let deadline = deployment.object.get("/spec/progressDeadlineSeconds").and_then(Value::as_i64);
    let Some(deadline) = deadline.filter(|s| *s < i64::from(i32::MAX)) else {
        remove_condition(conditions, KIND);
        return Again::NEVER;
    };
    let reason = condition(conditions, KIND).map(|c| text(c, "reason").to_owned()).unwrap_or_default();
    let wanted = |status, reason, message| Wanted { kind: KIND, status, reason, message };
    if deployment.paused {
        if reason != "DeploymentPaused" && reason != TIMED_OUT {
            set_condition(conditions, wanted("Unknown", "DeploymentPaused", "Deployment is paused"), TIMES, now);
        }
        return Again::NEVER;
    }
    if reason == "DeploymentPaused" {
        let resumed = wanted("Unknown", "DeploymentResumed", "Deployment is resumed");
        set_condition(conditions, resumed, TIMES, now);
    }
    let made = format!("Created new replica set \"{name}\"");
    let found = format!("Found new replica set \"{name}\"");
    match what {
        NewSet::Made => set_condition(conditions, wanted("True", "NewReplicaSetCreated", &made), TIMES, now),
        NewSet::Found if reason.is_empty() => {
            set_condition(conditions, wanted("True", "FoundNewReplicaSet", &found), TIMES, now);
        }
        _ => {}
    }
    let subject = if name.is_empty() {
        format!("Deployment \"{}\"", deployment.name())
    } else {
        format!("ReplicaSet \"{name}\"")
    };
    let before = |field: &str| number(&deployment.object, &format!("/status/{field}"), 0);
    let complete = counts.updated == deployment.replicas
        && counts.total == deployment.replicas
        && counts.available == deployment.replicas
        && what != NewSet::Made;
    let fewer_old = before("replicas") - before("updatedReplicas") > counts.total - counts.updated;
    let moved = counts.updated > before("updatedReplicas")
        || counts.ready > before("readyReplicas")
        || counts.available > before("availableReplicas")
        || fewer_old;
    // A finished rollout stays finished when pods come and go.
    let settled = reason == AVAILABLE && what == NewSet::Found && old.iter().all(|s| s.replicas == 0);
    if complete {
        let message = format!("{subject} has successfully progressed.");
        set_condition(conditions, wanted("True", AVAILABLE, &message), TIMES, now);
    } else if settled {
        return Again::NEVER;
    } else if moved {
        let message = format!("{subject} is progressing.");
        touch_condition(conditions, wanted("True", "ReplicaSetUpdated", &message), TIMES, now);
    } else if let Some(current) = condition(conditions, KIND)
        // A finished rollout that is rolled back has no deadline until something moves.
        .filter(|c| ![TIMED_OUT, AVAILABLE].contains(&text(c, "reason")))
    {
        let since = text(current, "lastUpdateTime").parse::<DateTime<Utc>>().unwrap_or(now);
        let until = since + TimeDelta::try_seconds(deadline).unwrap_or_default();
        if until >= now {
            return Again::NEVER.at(until + TimeDelta::seconds(1), now);
        }
        let message = format!("{subject} has timed out progressing.");
        set_condition(conditions, wanted("False", TIMED_OUT, &message), TIMES, now);
    }
    if complete || condition(conditions, KIND).is_none_or(|c| text(c, "reason") == TIMED_OUT) {
        return Again::NEVER;
    }
    Again::NEVER.after(std::time::Duration::from_secs(u64::try_from(deadline).unwrap_or(0).saturating_add(1)))
}
