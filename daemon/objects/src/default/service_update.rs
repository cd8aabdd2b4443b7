//! What happens to a service once, when it is made or replaced: addresses and ports that an update may leave out, and those that
//! its new type does not have.

use super::{each, existing, put, text};
use crate::object::Object;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

type Spec = Map<String, Value>;

/// `clusterIP` and `clusterIPs` say the same; the families follow from them. No address is allocated here.
pub(super) fn prepare_service(object: &mut Object) {
    let Some(spec) = existing(object.map_mut(), "spec") else { return };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    mirror_cluster_ips(spec);
    let headless = text(spec, "clusterIP") == "None";
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
    if headless && !selects {
        // Who brings the endpoints is unknown: they may be of either family.
        put(spec, "ipFamilyPolicy", "RequireDualStack");
        let single = text(spec, "ipFamilyPolicy") == "SingleStack";
        put(spec, "ipFamilies", if single { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) });
        return;
    }
    put(spec, "ipFamilyPolicy", "SingleStack");
    let six = text(spec, "clusterIP").contains(':');
    put(spec, "ipFamilies", if six { json!(["IPv6"]) } else { json!(["IPv4"]) });
}

fn mirror_cluster_ips(spec: &mut Spec) {
    let first = text(spec, "clusterIP").to_owned();
    let ips = spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if !first.is_empty() && !ips {
        spec.insert("clusterIPs".to_owned(), json!([first]));
    }
}

/// A replaced service: what was allocated stays while the type has it, and goes with a type that has not.
pub(super) fn prepare_service_update(old: &Object, new: &mut Object) {
    let before = old.get("/spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(spec) = existing(new.map_mut(), "spec") else { return };
    keep_allocated(&before, spec);
    drop_of_former_type(&before, spec);
    if text(spec, "type") != "LoadBalancer" && new.get("/status/loadBalancer/ingress").is_some() {
        new.set("/status/loadBalancer", json!({}));
    }
}

fn has_cluster_ip(spec: &Spec) -> bool {
    text(spec, "type") != "ExternalName"
}

fn has_node_ports(spec: &Spec) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn has_health_check_port(spec: &Spec) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn is_reached_from_outside(spec: &Spec) -> bool {
    let addresses = || spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    has_node_ports(spec) || has_cluster_ip(spec) && addresses()
}

/// An update that says nothing about addresses and ports keeps those that were allocated, as long as its type has them.
fn keep_allocated(before: &Spec, spec: &mut Spec) {
    if !has_cluster_ip(before) {
        return;
    }
    if before.get("clusterIP") != spec.get("clusterIP") && before.get("clusterIPs") == spec.get("clusterIPs") {
        // A patch of clusterIP alone means both.
        spec.remove("clusterIPs");
    }
    if !has_cluster_ip(spec) {
        return;
    }
    if text(spec, "clusterIP").is_empty() && !spec.contains_key("clusterIPs") {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = before.get(field) {
                spec.insert(field.to_owned(), value.clone());
            }
        }
    }
    mirror_cluster_ips(spec);
    for field in ["ipFamilyPolicy", "ipFamilies"] {
        if let Some(value) = before.get(field) {
            put(spec, field, value.clone());
        }
    }
    if has_node_ports(spec) && has_node_ports(before) {
        keep_node_ports(before, spec);
    }
    if has_health_check_port(spec)
        && has_health_check_port(before)
        && let Some(port) = before.get("healthCheckNodePort")
    {
        put(spec, "healthCheckNodePort", port.clone());
    }
}

fn keep_node_ports(before: &Spec, spec: &mut Spec) {
    let old_ports = before.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    for port in each(spec, "ports") {
        let same = old_ports
            .iter()
            .find(|old| old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol"));
        if let Some(number) = same.and_then(|old| old.get("nodePort")) {
            put(port, "nodePort", number.clone());
        }
    }
}

/// What the old type had and the new one can't have goes with it, unless the client says something of its own: that is for
/// the rules to refuse. As the reference's dropTypeDependentFields.
fn drop_of_former_type(before: &Spec, spec: &mut Spec) {
    let drop_same = |spec: &mut Spec, field: &str| {
        if before.get(field) == spec.get(field) {
            spec.remove(field);
        }
    };
    if !has_cluster_ip(before) && has_cluster_ip(spec) {
        drop_same(spec, "externalName");
    }
    if has_cluster_ip(before) && !has_cluster_ip(spec) {
        if ["clusterIP", "clusterIPs"].iter().all(|field| before.get(*field) == spec.get(*field)) {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        drop_same(spec, "ipFamilies");
        drop_same(spec, "ipFamilyPolicy");
    }
    if has_node_ports(before) && !has_node_ports(spec) && node_ports(before).is_superset(&node_ports(spec)) {
        for port in each(spec, "ports") {
            port.remove("nodePort");
        }
    }
    if has_health_check_port(before) && !has_health_check_port(spec) {
        drop_same(spec, "healthCheckNodePort");
    }
    if text(before, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        drop_same(spec, "allocateLoadBalancerNodePorts");
        drop_same(spec, "loadBalancerClass");
    }
    if is_reached_from_outside(before) && !is_reached_from_outside(spec) {
        drop_same(spec, "externalTrafficPolicy");
    }
}

fn node_ports(spec: &Spec) -> BTreeSet<u64> {
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    ports.filter_map(|port| port.get("nodePort")?.as_u64()).filter(|number| *number != 0).collect()
}
