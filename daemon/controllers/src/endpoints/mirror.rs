//! Slices of Endpoints that people write for services without a selector. Pure.

use super::Wanted;
use reddwarf_objects::Object;
use serde_json::{Map, Value, json};

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Are these Endpoints to be mirrored?
pub(super) fn wants(endpoints: &Object) -> bool {
    endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none()
}

/// The slices that say the same.
pub(super) fn wanted(endpoints: &Object) -> Vec<Wanted> {
    let subsets = endpoints.get("/subsets").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut all: Vec<Wanted> = Vec::new();
    for subset in subsets {
        let items = |field: &str| subset.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let ports = Value::Array(items("ports").iter().map(port).collect());
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in items(field) {
                let Some(ip) = address.get("ip").and_then(Value::as_str) else { continue };
                let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
                let endpoint = endpoint(address, ip, ready);
                match all.iter_mut().find(|w| w.family == family && w.ports == ports) {
                    Some(group) => group.endpoints.push(endpoint),
                    None => all.push(Wanted { family, ports: ports.clone(), endpoints: vec![endpoint] }),
                }
            }
        }
    }
    all
}

fn port(port: &Value) -> Value {
    let mut value = json!({"name": port.get("name").and_then(Value::as_str).unwrap_or_default()});
    for field in ["port", "protocol", "appProtocol"] {
        if let Some(v) = port.get(field) {
            value[field] = v.clone();
        }
    }
    value
}

fn endpoint(address: &Value, ip: &str, ready: bool) -> Value {
    let mut value = Map::new();
    value.insert("addresses".to_owned(), json!([ip]));
    value.insert("conditions".to_owned(), json!({"ready": ready}));
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(v) = address.get(field) {
            value.insert(field.to_owned(), v.clone());
        }
    }
    Value::Object(value)
}
