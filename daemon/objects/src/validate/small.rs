//! Rules of the kinds that need only a few.

use super::rules::{Errors, items, label_selector, list, not_negative, one_of, port_or_name, text};
use crate::{
    field::{FieldError, FieldPath},
    kind::Kind,
};
use serde_json::Value;

pub(super) fn check(kind: &Kind, value: &Value, errors: &mut Errors) {
    let root = &FieldPath::root();
    let path = &FieldPath::of("spec");
    let spec = value.get("spec").unwrap_or(&Value::Null);
    match (kind.group, kind.kind) {
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => check_rules(kind, value, errors),
        ("rbac.authorization.k8s.io", _) => check_binding(kind, value, errors),
        ("policy", "PodDisruptionBudget") => check_budget(spec, path, errors),
        ("networking.k8s.io", "NetworkPolicy") => check_network_policy(spec, path, errors),
        ("networking.k8s.io", "Ingress") => check_ingress(spec, path, errors),
        ("discovery.k8s.io", "EndpointSlice") => check_slice(value, errors),
        ("autoscaling", _) => check_autoscaler(spec, path, errors),
        ("storage.k8s.io", "StorageClass") => {
            one_of(value, root, "reclaimPolicy", &["Delete", "Retain"], errors);
            one_of(value, root, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], errors);
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            one_of(value, root, "preemptionPolicy", &["Never", "PreemptLowerPriority"], errors);
        }
        ("coordination.k8s.io", "Lease") => {
            if let Some(seconds) = spec.get("leaseDurationSeconds").and_then(Value::as_i64)
                && seconds <= 0
            {
                errors.push(FieldError::invalid(
                    &path.child("leaseDurationSeconds"),
                    seconds,
                    "must be greater than 0",
                ));
            }
            not_negative(spec, path, "leaseTransitions", errors);
        }
        ("", "PersistentVolumeClaim") => check_claim(spec, path, errors),
        _ => {}
    }
}

fn check_rules(kind: &Kind, value: &Value, errors: &mut Errors) {
    for (at, rule) in items(value, &FieldPath::root(), "rules") {
        if list(rule, "verbs").is_empty() {
            errors.push(FieldError::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        let urls = list(rule, "nonResourceURLs");
        if !urls.is_empty() {
            if kind.namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&at.child("nonResourceURLs"), urls.to_vec(), message));
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            errors.push(FieldError::required(
                &at.child("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if list(rule, "resources").is_empty() {
            errors
                .push(FieldError::required(&at.child("resources"), "resource rules must supply at least one resource"));
        }
    }
}

fn check_binding(kind: &Kind, value: &Value, errors: &mut Errors) {
    let at = FieldPath::of("roleRef");
    let role = value.get("roleRef").unwrap_or(&Value::Null);
    one_of(role, &at, "apiGroup", &["rbac.authorization.k8s.io"], errors);
    let kinds: &[&str] = if kind.kind == "RoleBinding" { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    let found = text(role, "kind");
    if !kinds.contains(&found) {
        errors.push(FieldError::not_supported(&at.child("kind"), found, kinds));
    }
    if text(role, "name").is_empty() {
        errors.push(FieldError::required(&at.child("name"), ""));
    }
    for (at, subject) in items(value, &FieldPath::root(), "subjects") {
        if text(subject, "name").is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        match text(subject, "kind") {
            "ServiceAccount" if text(subject, "namespace").is_empty() => {
                errors.push(FieldError::required(&at.child("namespace"), ""))
            }
            "ServiceAccount" | "User" | "Group" => {}
            other => {
                errors.push(FieldError::not_supported(&at.child("kind"), other, &["Group", "ServiceAccount", "User"]))
            }
        }
    }
}

fn check_budget(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    if let (Some(_), Some(found)) = (spec.get("minAvailable"), spec.get("maxUnavailable")) {
        let message = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(path, found.clone(), message));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        not_negative(spec, path, field, errors);
    }
    if let Some(selector) = spec.get("selector") {
        label_selector(selector, &path.child("selector"), errors);
    }
}

fn check_network_policy(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    if let Some(selector) = spec.get("podSelector") {
        label_selector(selector, &path.child("podSelector"), errors);
    }
    for (at, kind) in items(spec, path, "policyTypes") {
        let kind = kind.as_str().unwrap_or_default();
        if kind != "Ingress" && kind != "Egress" {
            errors.push(FieldError::not_supported(&at, kind, &["Egress", "Ingress"]));
        }
    }
    for direction in ["ingress", "egress"] {
        for (at, rule) in items(spec, path, direction) {
            for (at, port) in items(rule, &at, "ports") {
                port_or_name(port, &at, "port", errors);
                one_of(port, &at, "protocol", &["SCTP", "TCP", "UDP"], errors);
            }
        }
    }
}

fn check_ingress(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    if list(spec, "rules").is_empty() && spec.get("defaultBackend").is_none() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(path, list(spec, "rules").to_vec(), message));
    }
    for (at, rule) in items(spec, path, "rules") {
        let http = rule.get("http").unwrap_or(&Value::Null);
        for (at, item) in items(http, &at.child("http"), "paths") {
            if text(item, "pathType").is_empty() {
                errors.push(FieldError::required(&at.child("pathType"), "pathType must be specified"));
            }
            one_of(item, &at, "pathType", &["Exact", "ImplementationSpecific", "Prefix"], errors);
            let wanted = text(item, "path");
            if matches!(text(item, "pathType"), "Exact" | "Prefix") && !wanted.starts_with('/') {
                errors.push(FieldError::invalid(&at.child("path"), wanted, "must be an absolute path"));
            }
        }
    }
}

fn check_slice(value: &Value, errors: &mut Errors) {
    let root = &FieldPath::root();
    one_of(value, root, "addressType", &["FQDN", "IPv4", "IPv6"], errors);
    for (at, endpoint) in items(value, root, "endpoints") {
        let addresses = list(endpoint, "addresses").len();
        if addresses == 0 {
            errors.push(FieldError::required(&at.child("addresses"), "must contain at least 1 address"));
        } else if addresses > 100 {
            errors.push(FieldError::too_many(&at.child("addresses"), addresses, 100));
        }
    }
    for (at, port) in items(value, root, "ports") {
        one_of(port, &at, "protocol", &["SCTP", "TCP", "UDP"], errors);
    }
}

fn check_autoscaler(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    let number = |key: &str| spec.get(key).and_then(Value::as_i64);
    let (least, most) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or_default());
    if least < 1 {
        errors.push(FieldError::invalid(&path.child("minReplicas"), least, "must be greater than or equal to 1"));
    }
    if most < 1 {
        errors.push(FieldError::invalid(&path.child("maxReplicas"), most, "must be greater than 0"));
    } else if most < least {
        let message = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&path.child("maxReplicas"), most, message));
    }
}

fn check_claim(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    let allowed = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in list(spec, "accessModes").iter().filter_map(Value::as_str).filter(|mode| !allowed.contains(mode)) {
        errors.push(FieldError::not_supported(&path.child("accessModes"), mode, &allowed));
    }
    if spec.pointer("/resources/requests/storage").is_none() {
        let at = path.child("resources").map_key("storage");
        errors.push(FieldError::required(&at, ""));
    }
}
