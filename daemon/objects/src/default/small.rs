//! Defaults of the kinds that need only a few that depend on other fields.

use super::{child, each, existing, put, text};
use crate::kind::Kind;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

pub(super) fn fill(kind: &Kind, map: &mut Map<String, Value>) {
    match (kind.group, kind.kind) {
        ("", "Secret") => fill_secret(map),
        ("", "Namespace") => fill_namespace(map),
        ("", "Node") => fill_node(map),
        ("", "Endpoints") => {
            each(map, "subsets").for_each(|s| each(s, "ports").for_each(|p| put(p, "protocol", "TCP")))
        }
        ("", "LimitRange") => fill_limit_range(map),
        ("discovery.k8s.io", "EndpointSlice") => each(map, "ports").for_each(|port| {
            put(port, "name", "");
            put(port, "protocol", "TCP");
        }),
        ("networking.k8s.io", "NetworkPolicy") => fill_network_policy(map),
        ("networking.k8s.io", "IngressClass") => {
            existing(map, "spec")
                .and_then(|s| existing(s, "parameters"))
                .into_iter()
                .for_each(|p| super::put_unless_set(p, "scope", "Cluster"));
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => fill_binding(map),
        ("autoscaling", "HorizontalPodAutoscaler") if kind.version == "v2" => fill_autoscaler(map),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => fill_definition(map),
        ("admissionregistration.k8s.io", _) => fill_webhooks(map),
        ("apiregistration.k8s.io", "APIService") => {
            existing(map, "spec")
                .and_then(|s| existing(s, "service"))
                .into_iter()
                .for_each(|service| put(service, "port", 443));
        }
        _ => {}
    }
}

/// `stringData` is write-only: its values go into `data` and win there.
fn fill_secret(map: &mut Map<String, Value>) {
    let plain = match map.remove("stringData") {
        Some(Value::Object(plain)) => plain,
        Some(wrong) => {
            map.insert("stringData".to_owned(), wrong);
            return;
        }
        None => return,
    };
    let Some(data) = child(map, "data") else { return };
    for (key, value) in plain {
        if let Value::String(text) = value {
            data.insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

fn fill_namespace(map: &mut Map<String, Value>) {
    let Some(metadata) = child(map, "metadata") else { return };
    let name = text(metadata, "name").to_owned();
    if let Some(labels) = child(metadata, "labels").filter(|_| !name.is_empty()) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

fn fill_node(map: &mut Map<String, Value>) {
    if let Some(status) = existing(map, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        put(status, "allocatable", capacity);
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

fn fill_network_policy(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    for direction in ["ingress", "egress"] {
        each(spec, direction).for_each(|rule| each(rule, "ports").for_each(|port| put(port, "protocol", "TCP")));
    }
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    put(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

fn fill_binding(map: &mut Map<String, Value>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    existing(map, "roleRef").into_iter().for_each(|role| super::put_unless_set(role, "apiGroup", GROUP));
    for subject in each(map, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            put(subject, "apiGroup", GROUP);
        }
    }
}

fn fill_autoscaler(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    let cpu = json!([{"type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    put(spec, "metrics", cpu);
    let Some(behavior) = existing(spec, "behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = child(behavior, "scaleUp") {
        put(up, "stabilizationWindowSeconds", 0);
        put(up, "selectPolicy", "Max");
        put(up, "policies", json!([pods, percent]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        put(down, "selectPolicy", "Max");
        put(down, "policies", json!([percent]));
    }
}

fn fill_definition(map: &mut Map<String, Value>) {
    let Some(spec) = existing(map, "spec") else { return };
    if let Some(names) = existing(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            put(names, "singular", kind.to_lowercase());
            put(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        super::put_unless_set(conversion, "strategy", "None");
    }
}

/// Webhooks and the policies that select requests as they do.
fn fill_webhooks(map: &mut Map<String, Value>) {
    for webhook in each(map, "webhooks") {
        put(webhook, "failurePolicy", "Fail");
        put(webhook, "timeoutSeconds", 10);
        fill_match(webhook);
        if let Some(service) = existing(webhook, "clientConfig").and_then(|config| existing(config, "service")) {
            put(service, "port", 443);
        }
        each(webhook, "rules").for_each(|rule| put(rule, "scope", "*"));
    }
    if let Some(spec) = existing(map, "spec") {
        if spec.contains_key("validations") || spec.contains_key("mutations") {
            put(spec, "failurePolicy", "Fail");
        }
        for constraints in ["matchConstraints", "matchResources"] {
            if let Some(found) = existing(spec, constraints) {
                fill_match(found);
                each(found, "resourceRules").for_each(|rule| put(rule, "scope", "*"));
                each(found, "excludeResourceRules").for_each(|rule| put(rule, "scope", "*"));
            }
        }
    }
}

fn fill_match(map: &mut Map<String, Value>) {
    put(map, "matchPolicy", "Equivalent");
    put(map, "namespaceSelector", json!({}));
    put(map, "objectSelector", json!({}));
}
