//! Defaults of services.

use super::{child, each, existing, put, put_unless_set, text};
use serde_json::{Map, Value};

pub(super) fn fill(service: &mut Map<String, Value>) {
    let Some(spec) = existing(service, "spec") else { return };
    put(spec, "type", "ClusterIP");
    put(spec, "sessionAffinity", "None");
    for port in each(spec, "ports") {
        put(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            put_unless_set(port, "targetPort", number);
        }
    }
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            if let Some(client) = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP")) {
                put(client, "timeoutSeconds", 10_800);
            }
        }
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        _ => {}
    }
    let kind = text(spec, "type").to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        put(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
        let balancer = existing(service, "status").and_then(|status| existing(status, "loadBalancer"));
        for ingress in balancer.into_iter().flat_map(|balancer| each(balancer, "ingress")) {
            if ingress.contains_key("ip") {
                put(ingress, "ipMode", "VIP");
            }
        }
    }
}
