//! Defaults of what makes pods: apps, batch, ReplicationController, PodTemplate.

use super::{child, each, existing, pod::fill_template, put, text, volume::fill_claim_spec};
use crate::kind::Kind;
use serde_json::{Map, Value, json};

pub(super) fn fill(kind: &Kind, map: &mut Map<String, Value>) {
    match kind.kind {
        "PodTemplate" => existing(map, "template").into_iter().for_each(fill_template),
        "ReplicationController" => fill_replication_controller(map),
        "Job" => fill_job(map),
        "CronJob" => fill_cron_job(map),
        _ => fill_apps(kind.kind, map),
    }
}

fn fill_apps(kind: &str, map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    existing(spec, "template").into_iter().for_each(fill_template);
    let field = if kind == "Deployment" { "strategy" } else { "updateStrategy" };
    if let Some(strategy) = existing(spec, field) {
        fill_strategy(kind, strategy);
    }
    for claim in each(spec, "volumeClaimTemplates") {
        put(claim, "apiVersion", "v1");
        put(claim, "kind", "PersistentVolumeClaim");
        existing(claim, "status").into_iter().for_each(|status| put(status, "phase", "Pending"));
        existing(claim, "spec").into_iter().for_each(fill_claim_spec);
    }
}

fn fill_strategy(kind: &str, strategy: &mut Map<String, Value>) {
    let implied = !strategy.contains_key("type");
    put(strategy, "type", "RollingUpdate");
    if text(strategy, "type") != "RollingUpdate" {
        return;
    }
    // A stateful set that names the strategy itself gets no parameters that it does not ask for.
    let rolling = if kind == "StatefulSet" && !implied {
        existing(strategy, "rollingUpdate")
    } else {
        child(strategy, "rollingUpdate")
    };
    let Some(rolling) = rolling else { return };
    match kind {
        "Deployment" => {
            put(rolling, "maxUnavailable", "25%");
            put(rolling, "maxSurge", "25%");
        }
        "DaemonSet" => {
            put(rolling, "maxUnavailable", 1);
            put(rolling, "maxSurge", 0);
        }
        "StatefulSet" => {
            put(rolling, "partition", 0);
            put(rolling, "maxUnavailable", 1);
        }
        _ => {}
    }
}

fn filled_labels(template: Option<&Value>) -> Option<Value> {
    let labels = template?.pointer("/metadata/labels")?;
    labels.as_object().is_some_and(|map| !map.is_empty()).then(|| labels.clone())
}

fn fill_replication_controller(map: &mut Map<String, Value>) {
    let labels = filled_labels(map.get("spec").and_then(|spec| spec.get("template")));
    if let Some(labels) = labels {
        existing(map, "spec").into_iter().for_each(|spec| put(spec, "selector", labels.clone()));
        existing(map, "metadata").into_iter().for_each(|metadata| put(metadata, "labels", labels.clone()));
    }
    existing(map, "spec").and_then(|s| existing(s, "template")).into_iter().for_each(fill_template);
}

fn fill_job(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    if !spec.contains_key("parallelism") {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    // With a limit for each index the limit of the whole is as good as none.
    let backoff_limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    put(spec, "backoffLimit", backoff_limit);
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    put(spec, "podReplacementPolicy", replacement);
    fill_failure_policy(spec);
    existing(spec, "template").into_iter().for_each(fill_template);
    if let Some(labels) = filled_labels(spec.get("template")) {
        existing(map, "metadata").into_iter().for_each(|metadata| put(metadata, "labels", labels.clone()));
    }
}

fn fill_failure_policy(spec: &mut Map<String, Value>) {
    let Some(policy) = existing(spec, "podFailurePolicy") else { return };
    for rule in each(policy, "rules") {
        for condition in each(rule, "onPodConditions") {
            if text(condition, "status").is_empty() {
                condition.insert("status".to_owned(), json!("True"));
            }
        }
    }
}

/// The jobs that it makes get their own defaults when they are made; only their pods' are filled in here.
fn fill_cron_job(map: &mut Map<String, Value>) {
    let job =
        existing(map, "spec").and_then(|spec| existing(spec, "jobTemplate")).and_then(|job| existing(job, "spec"));
    let Some(spec) = job else { return };
    fill_failure_policy(spec);
    existing(spec, "template").into_iter().for_each(fill_template);
}
