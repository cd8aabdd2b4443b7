//! Rules of services.

use super::rules::{Errors, in_range, invalid_all, ip, items, labels, list, one_of, port, port_or_name, text};
use crate::{
    field::{FieldError, FieldPath},
    names,
};
use serde_json::{Value, json};

pub(super) fn check(value: &Value, errors: &mut Errors) {
    let path = &FieldPath::of("spec");
    let spec = value.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, "type");
    one_of(spec, path, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    one_of(spec, path, "sessionAffinity", &["ClientIP", "None"], errors);
    one_of(spec, path, "externalTrafficPolicy", &["Cluster", "Local"], errors);
    one_of(spec, path, "internalTrafficPolicy", &["Cluster", "Local"], errors);
    one_of(spec, path, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    labels(spec, path, "selector", errors);
    let cluster_ip = text(spec, "clusterIP");
    if kind == "ExternalName" {
        check_external_name(spec, path, errors);
    } else if list(spec, "ports").is_empty() && cluster_ip != "None" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    if !cluster_ip.is_empty() && cluster_ip != "None" {
        ip(cluster_ip, &path.child("clusterIPs").index(0), errors);
    }
    if kind != "ClusterIP" && kind != "ExternalName" && cluster_ip == "None" {
        let message = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", message));
    }
    for (at, address) in items(spec, path, "externalIPs") {
        ip(address.as_str().unwrap_or_default(), &at, errors);
    }
    check_ports(spec, path, kind, errors);
}

fn check_external_name(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    let name = text(spec, "externalName");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("externalName"), ""));
    } else {
        let plain = name.strip_suffix('.').unwrap_or(name);
        invalid_all(&path.child("externalName"), name, names::dns1123_subdomain(plain), errors);
    }
    if !text(spec, "clusterIP").is_empty() {
        errors.push(FieldError::forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services"));
    }
}

fn check_ports(spec: &Value, path: &FieldPath, kind: &str, errors: &mut Errors) {
    let many = list(spec, "ports").len() > 1;
    let (mut seen_names, mut seen_ports) = (Vec::new(), Vec::new());
    for (at, value) in items(spec, path, "ports") {
        let name = text(value, "name");
        if name.is_empty() {
            if many {
                errors.push(FieldError::required(&at.child("name"), ""));
            }
        } else {
            invalid_all(&at.child("name"), name, names::dns1123_label(name), errors);
            if seen_names.contains(&name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            seen_names.push(name);
        }
        match value.get("port").and_then(Value::as_i64) {
            None => port(value, &at, "port", errors),
            Some(_) => in_range(value, &at, "port", 1..=65535, errors),
        }
        port_or_name(value, &at, "targetPort", errors);
        one_of(value, &at, "protocol", &["SCTP", "TCP", "UDP"], errors);
        let claim = (text(value, "protocol"), value.get("port"));
        if seen_ports.contains(&claim) {
            errors.push(FieldError::duplicate(&at, json!({"protocol": claim.0, "port": claim.1})));
        }
        seen_ports.push(claim);
        let node_port = value.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
        if node_port != 0 && kind == "ClusterIP" {
            errors.push(FieldError::forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        } else if node_port != 0 {
            in_range(value, &at, "nodePort", 1..=65535, errors);
        }
    }
}
