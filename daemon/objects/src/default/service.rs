//! Defaults of services.

use super::{child, each, existing, put};
use serde_json::{Map, Value};

pub(super) fn fill(service: &mut Map<String, Value>) {
    let Some(spec) = existing(service, "spec") else { return };
    put(spec, "type", "ClusterIP");
    put(spec, "sessionAffinity", "None");
    for port in each(spec, "ports") {
        put(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            put(port, "targetPort", number);
        }
    }
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if spec.get("sessionAffinity").is_some_and(|affinity| affinity == "ClientIP")
        && let Some(client) = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"))
    {
        put(client, "timeoutSeconds", 10_800);
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        put(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
    }
}
