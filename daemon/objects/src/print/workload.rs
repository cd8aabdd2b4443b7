//! Cells of what makes pods: apps, batch, autoscaling, policy, ReplicationController.

use super::{Cells, NONE, human_duration, labels, selector, title};
use serde_json::Value;

pub(super) fn cell(cells: &Cells<'_>, column: &str) -> Option<Value> {
    if let Some(cell) = template(cells, column) {
        return Some(cell);
    }
    match cells.kind.kind {
        "Deployment" => deployment(cells, column),
        "ReplicaSet" | "ReplicationController" => replica_set(cells, column),
        "StatefulSet" if column == "Ready" => Some(ready_of_desired(cells)),
        "DaemonSet" => daemon_set(cells, column),
        "ControllerRevision" => revision(cells, column),
        "Job" => job(cells, column),
        "CronJob" => cron_job(cells, column),
        "HorizontalPodAutoscaler" => autoscaler(cells, column),
        "PodDisruptionBudget" => budget(cells, column),
        "Scale" => scale(cells, column),
        _ => None,
    }
}

fn template(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let containers = if cells.kind.kind == "CronJob" {
        "/spec/jobTemplate/spec/template/spec/containers"
    } else {
        "/spec/template/spec/containers"
    };
    match (column, cells.kind.kind) {
        ("Containers", _) => Some(cells.joined(containers, "name")),
        ("Images", _) => Some(cells.joined(containers, "image")),
        ("Selector", "CronJob") => Some(selector(cells.object.get("/spec/jobTemplate/spec/selector")).into()),
        ("Selector", "ReplicationController") => Some(labels(cells.object.get("/spec/selector")).into()),
        ("Selector", _) => Some(selector(cells.object.get("/spec/selector")).into()),
        _ => None,
    }
}

fn ready_of_desired(cells: &Cells<'_>) -> Value {
    format!("{}/{}", cells.number("/status/readyReplicas"), cells.number("/spec/replicas")).into()
}

fn deployment(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Ready" => ready_of_desired(cells),
        "Up-to-date" => cells.number("/status/updatedReplicas").into(),
        "Available" => cells.number("/status/availableReplicas").into(),
        _ => return None,
    })
}

fn replica_set(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Desired" => cells.number("/spec/replicas").into(),
        "Current" => cells.number("/status/replicas").into(),
        "Ready" => cells.number("/status/readyReplicas").into(),
        _ => return None,
    })
}

/// What is there counts as available here, ready or not: a Scale knows no better.
fn scale(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Desired" => cells.number("/spec/replicas").into(),
        "Available" => cells.number("/status/replicas").into(),
        _ => return None,
    })
}

fn daemon_set(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Desired" => cells.number("/status/desiredNumberScheduled").into(),
        "Current" => cells.number("/status/currentNumberScheduled").into(),
        "Ready" => cells.number("/status/numberReady").into(),
        "Up-to-date" => cells.number("/status/updatedNumberScheduled").into(),
        "Available" => cells.number("/status/numberAvailable").into(),
        "Node Selector" => labels(cells.object.get("/spec/template/spec/nodeSelector")).into(),
        _ => return None,
    })
}

fn revision(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match column {
        "Controller" => Some(match cells.object.controller() {
            None => NONE.into(),
            Some(owner) => {
                let kind = owner.kind.to_lowercase();
                match owner.api_version.split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", owner.name).into(),
                    None => format!("{kind}/{}", owner.name).into(),
                }
            }
        }),
        "Revision" => Some(cells.number("/revision").into()),
        _ => None,
    }
}

fn job(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Status" => job_status(cells).into(),
        "Completions" => {
            let succeeded = cells.number("/status/succeeded");
            let parallel = cells.number("/spec/parallelism");
            match cells.object.get("/spec/completions").and_then(Value::as_i64) {
                Some(wanted) => format!("{succeeded}/{wanted}").into(),
                None if parallel > 1 => format!("{succeeded}/1 of {parallel}").into(),
                None => format!("{succeeded}/1").into(),
            }
        }
        "Duration" => match (cells.object.time("/status/startTime"), cells.object.time("/status/completionTime")) {
            (None, _) => "".into(),
            (Some(start), None) => human_duration(cells.now - start).into(),
            (Some(start), Some(end)) => human_duration(end - start).into(),
        },
        _ => return None,
    })
}

fn job_status(cells: &Cells<'_>) -> &'static str {
    let holds = |kind: &str| {
        cells
            .list("/status/conditions")
            .iter()
            .any(|c| c.get("type").is_some_and(|t| t == kind) && c.get("status").is_some_and(|s| s == "True"))
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if cells.object.deletion_timestamp().is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn cron_job(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Schedule" => cells.text("/spec/schedule").into(),
        "Timezone" => cells.text_or("/spec/timeZone", NONE),
        "Suspend" => title(cells.object.get("/spec/suspend") == Some(&Value::Bool(true))),
        "Active" => cells.list("/status/active").len().into(),
        "Last Schedule" => match cells.object.time("/status/lastScheduleTime") {
            Some(time) => human_duration(cells.now - time).into(),
            None => NONE.into(),
        },
        _ => return None,
    })
}

fn autoscaler(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Reference" => {
            format!("{}/{}", cells.text("/spec/scaleTargetRef/kind"), cells.text("/spec/scaleTargetRef/name")).into()
        }
        "Targets" => autoscaler_targets(cells).into(),
        "MinPods" => match cells.object.get("/spec/minReplicas").and_then(Value::as_i64) {
            Some(least) => least.to_string().into(),
            None => super::UNSET.into(),
        },
        "MaxPods" => cells.number("/spec/maxReplicas").into(),
        "Replicas" => cells.number("/status/currentReplicas").into(),
        _ => return None,
    })
}

/// Most metrics that are shown.
const METRICS: usize = 2;

/// `cpu: 12%/80%` of resources; what other metrics are called is not shown.
fn autoscaler_targets(cells: &Cells<'_>) -> String {
    let metrics = cells.list("/spec/metrics");
    let target = cells.object.get("/spec/targetCPUUtilizationPercentage").and_then(Value::as_i64);
    match (metrics.is_empty(), target) {
        (false, _) => {
            let shown: Vec<String> = metrics
                .iter()
                .enumerate()
                .take(METRICS)
                .map(|(index, metric)| autoscaler_metric(cells, index, metric))
                .collect();
            let shown = shown.join(", ");
            match metrics.len().saturating_sub(METRICS) {
                0 => shown,
                more => format!("{shown} + {more} more..."),
            }
        }
        (true, Some(target)) => {
            let current = cells.object.get("/status/currentCPUUtilizationPercentage").and_then(Value::as_i64);
            format!("cpu: {}/{target}%", percent_or(current, super::UNKNOWN))
        }
        (true, None) => NONE.to_owned(),
    }
}

/// One metric: what there is, of what there should be.
fn autoscaler_metric(cells: &Cells<'_>, index: usize, metric: &Value) -> String {
    let (source, is_resource) = match metric.get("type").and_then(Value::as_str) {
        Some("Resource") => ("resource", true),
        Some("ContainerResource") => ("containerResource", true),
        Some("Pods") => ("pods", false),
        Some("Object") => ("object", false),
        Some("External") => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let spec = metric.get(source).unwrap_or(&Value::Null);
    let target = spec.get("target").unwrap_or(&Value::Null);
    let status = cells.object.get(&format!("/status/currentMetrics/{index}/{source}"));
    let current = |field: &str| status.and_then(|status| status.get("current")?.get(field));
    // What is there without the amount that is asked for: as Go prints a quantity that is no quantity.
    let amount = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("<nil>").to_owned();
    let now = |field: &str| if status.is_some() { amount(current(field)) } else { super::UNKNOWN.to_owned() };
    let average = target.get("averageValue");
    match (is_resource, average) {
        (true, Some(_)) => {
            format!("{}: {}/{}", name_of(spec), now("averageValue"), amount(average))
        }
        (true, None) => {
            let utilization = |value: Option<&Value>| value.and_then(Value::as_i64);
            let now = percent_or(utilization(current("averageUtilization")), super::UNKNOWN);
            let wanted = percent_or(utilization(target.get("averageUtilization")), "<auto>");
            format!("{}: {now}/{wanted}", name_of(spec))
        }
        (false, _) if source == "pods" => format!("{}/{}", now("averageValue"), amount(average)),
        (false, Some(_)) => {
            let now = current("averageValue").and_then(Value::as_str).unwrap_or(super::UNKNOWN);
            format!("{now}/{} (avg)", amount(average))
        }
        (false, None) => format!("{}/{}", now("value"), amount(target.get("value"))),
    }
}

fn name_of(resource: &Value) -> &str {
    resource.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn percent_or(percent: Option<i64>, otherwise: &str) -> String {
    percent.map_or_else(|| otherwise.to_owned(), |percent| format!("{percent}%"))
}

fn budget(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let amount = |pointer: &str| match cells.object.get(pointer) {
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(number @ Value::Number(_)) => number.to_string().into(),
        _ => "N/A".into(),
    };
    Some(match column {
        "Min Available" => amount("/spec/minAvailable"),
        "Max Unavailable" => amount("/spec/maxUnavailable"),
        "Allowed Disruptions" => cells.number("/status/disruptionsAllowed").into(),
        _ => return None,
    })
}
