//! Cells of networking.k8s.io and discovery.k8s.io, and of Endpoints.

use super::{Cells, NONE, UNSET, balanced, first_few, selector};
use serde_json::Value;

pub(super) fn cell(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match (cells.kind.kind, column) {
        ("EndpointSlice", "AddressType") => Some(cells.text("/addressType").into()),
        ("EndpointSlice", "Ports") => Some(slice_ports(cells).into()),
        ("EndpointSlice", "Endpoints") => Some(slice_endpoints(cells).into()),
        ("Ingress", _) => ingress(cells, column),
        ("IngressClass", "Controller") => Some(cells.text("/spec/controller").into()),
        ("IngressClass", "Parameters") => Some(class_parameters(cells).into()),
        ("NetworkPolicy", "Pod-Selector") => Some(selector(cells.object.get("/spec/podSelector")).into()),
        ("IPAddress", "ParentRef") => Some(parent(cells).into()),
        ("ServiceCIDR", "CIDRs") => {
            let cidrs: Vec<&str> = cells.list("/spec/cidrs").iter().filter_map(Value::as_str).collect();
            Some(cidrs.join(",").into())
        }
        _ => None,
    }
}

/// `10.0.0.1:80,10.0.0.2:80 + 1 more...` of an Endpoints object.
pub(super) fn endpoints(cells: &Cells<'_>) -> String {
    let mut all = Vec::new();
    for subset in cells.list("/subsets") {
        let addresses: Vec<&str> = elements(subset, "addresses").iter().filter_map(|a| a.get("ip")?.as_str()).collect();
        let ports = elements(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for port in ports {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            all.extend(
                addresses
                    .iter()
                    .map(|ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }),
            );
        }
    }
    // Blank where there are addresses, none of them ready.
    if cells.list("/subsets").is_empty() { NONE.to_owned() } else { first_few(&all, 3) }
}

fn elements<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn slice_ports(cells: &Cells<'_>) -> String {
    let port = |port: &Value| match port.get("port").and_then(Value::as_i64) {
        Some(number) => number.to_string(),
        None => port.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    };
    let ports: Vec<String> = cells.list("/ports").iter().map(port).collect();
    match first_few(&ports, 3) {
        empty if empty.is_empty() => UNSET.to_owned(),
        ports => ports,
    }
}

fn slice_endpoints(cells: &Cells<'_>) -> String {
    let addresses = cells.list("/endpoints").iter().flat_map(|endpoint| elements(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect();
    if addresses.is_empty() { UNSET.to_owned() } else { first_few(&addresses, 3) }
}

fn ingress(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Class" => cells.text_or("/spec/ingressClassName", NONE),
        "Hosts" => hosts(cells).into(),
        "Address" => balanced(cells).into_iter().collect::<Vec<_>>().join(",").into(),
        "Ports" => (if cells.list("/spec/tls").is_empty() { "80" } else { "80, 443" }).into(),
        _ => return None,
    })
}

/// The first three hosts. Whatever rules come after them are counted, with a host or without.
fn hosts(cells: &Cells<'_>) -> String {
    let rules = cells.list("/spec/rules");
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= shown.len() == 3;
        let host = rule.get("host").and_then(Value::as_str).unwrap_or_default();
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len().saturating_sub(3)),
    }
}

fn class_parameters(cells: &Cells<'_>) -> String {
    let kind = cells.text("/spec/parameters/kind");
    if kind.is_empty() {
        return NONE.to_owned();
    }
    match cells.text("/spec/parameters/apiGroup") {
        "" => format!("{kind}/{}", cells.text("/spec/parameters/name")),
        group => format!("{kind}.{group}/{}", cells.text("/spec/parameters/name")),
    }
}

fn parent(cells: &Cells<'_>) -> String {
    let part = |name: &str| cells.text(&format!("/spec/parentRef/{name}"));
    let resource = if part("group").is_empty() {
        part("resource").to_owned()
    } else {
        format!("{}.{}", part("resource"), part("group"))
    };
    match part("namespace") {
        "" => format!("{resource}/{}", part("name")),
        namespace => format!("{resource}/{namespace}/{}", part("name")),
    }
}
