//! Defaults of what makes pods, and of the small kinds whose defaults depend on other fields.

use super::{child, each, existing, pod::fill_template, put};
use crate::kind::Kind;
use serde_json::{Map, Value, json};

pub(super) fn fill(kind: &Kind, map: &mut Map<String, Value>) {
    match (kind.group, kind.kind) {
        ("", "PodTemplate") => existing(map, "template").into_iter().for_each(fill_template),
        ("", "ReplicationController") => fill_replication_controller(map),
        ("", "Endpoints") => {
            each(map, "subsets").for_each(|s| each(s, "ports").for_each(|p| put(p, "protocol", "TCP")))
        }
        ("", "LimitRange") => fill_limit_range(map),
        ("apps", _) => fill_apps(kind.kind, map),
        ("batch", "Job") => existing(map, "spec").into_iter().for_each(fill_job_spec),
        ("batch", "CronJob") => fill_cron_job(map),
        ("discovery.k8s.io", "EndpointSlice") => each(map, "ports").for_each(|port| {
            put(port, "name", "");
            put(port, "protocol", "TCP");
        }),
        ("networking.k8s.io", "NetworkPolicy") => fill_network_policy(map),
        ("networking.k8s.io", "IngressClass") => {
            existing(map, "spec")
                .and_then(|s| existing(s, "parameters"))
                .into_iter()
                .for_each(|p| put(p, "scope", "Cluster"));
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => fill_subjects(map),
        ("autoscaling", "HorizontalPodAutoscaler") if kind.version == "v2" => fill_autoscaler(map),
        _ => {}
    }
}

fn fill_apps(kind: &str, map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    existing(spec, "template").into_iter().for_each(fill_template);
    let strategy_field = if kind == "Deployment" { "strategy" } else { "updateStrategy" };
    if let Some(strategy) = existing(spec, strategy_field)
        && strategy.get("type").is_some_and(|t| t == "RollingUpdate")
        && let Some(rolling) = child(strategy, "rollingUpdate")
    {
        match kind {
            "Deployment" => {
                put(rolling, "maxUnavailable", "25%");
                put(rolling, "maxSurge", "25%");
            }
            "DaemonSet" => {
                put(rolling, "maxUnavailable", 1);
                put(rolling, "maxSurge", 0);
            }
            "StatefulSet" => put(rolling, "partition", 0),
            _ => {}
        }
    }
    for claim in each(spec, "volumeClaimTemplates") {
        put(claim, "apiVersion", "v1");
        put(claim, "kind", "PersistentVolumeClaim");
        put(claim, "status", json!({"phase": "Pending"}));
        existing(claim, "spec").into_iter().for_each(|s| put(s, "volumeMode", "Filesystem"));
    }
}

fn fill_replication_controller(map: &mut Map<String, Value>) {
    let labels = map.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels {
        existing(map, "spec").into_iter().for_each(|spec| put(spec, "selector", labels.clone()));
        existing(map, "metadata").into_iter().for_each(|metadata| put(metadata, "labels", labels.clone()));
    }
    existing(map, "spec").and_then(|s| existing(s, "template")).into_iter().for_each(fill_template);
}

fn fill_job_spec(spec: &mut Map<String, Value>) {
    if !spec.contains_key("parallelism") {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    put(spec, "podReplacementPolicy", replacement);
    existing(spec, "template").into_iter().for_each(fill_template);
}

/// The jobs that it makes get their own defaults when they are made; only their pods' are filled in here.
fn fill_cron_job(map: &mut Map<String, Value>) {
    existing(map, "spec")
        .and_then(|spec| existing(spec, "jobTemplate"))
        .and_then(|job| existing(job, "spec"))
        .and_then(|spec| existing(spec, "template"))
        .into_iter()
        .for_each(fill_template);
}

fn fill_network_policy(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    for direction in ["ingress", "egress"] {
        each(spec, direction).for_each(|rule| each(rule, "ports").for_each(|port| put(port, "protocol", "TCP")));
    }
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    put(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

fn fill_subjects(map: &mut Map<String, Value>) {
    for subject in each(map, "subjects") {
        if subject.get("kind").is_some_and(|kind| kind == "User" || kind == "Group") {
            put(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

fn fill_autoscaler(map: &mut Map<String, Value>) {
    if let Some(spec) = existing(map, "spec") {
        let cpu = json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        put(spec, "metrics", cpu);
    }
}

/// Limits of containers default to the maximum, requests to the limit or the minimum.
fn fill_limit_range(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    for item in each(spec, "limits").filter(|item| item.get("type").is_some_and(|t| t == "Container")) {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(Value::Object(amounts)) = item.get(from).cloned() else { continue };
            let Some(target) = child(item, to) else { continue };
            amounts.into_iter().for_each(|(name, amount)| put(target, &name, amount));
        }
    }
}
