//! Rules of ingresses, network policies, endpoints and endpoint slices.

use super::{
    at::{At, Errors},
    rules, service,
};
use crate::{field::FieldError, kind::Kind, names};
use serde_json::{Value, json};

pub(super) fn check(kind: &Kind, object: &At<'_, '_>, errors: &mut Errors) {
    let spec = &object.child("spec");
    match kind.kind {
        "Ingress" => check_ingress(spec, errors),
        "IngressClass" => check_class(spec, errors),
        "NetworkPolicy" => check_policy(spec, errors),
        "EndpointSlice" => check_slice(object, errors),
        "IPAddress" => check_ip_address(spec, errors),
        "ServiceCIDR" => check_service_cidr(spec, errors),
        _ => {}
    }
}

fn check_ingress(spec: &At<'_, '_>, errors: &mut Errors) {
    if !spec.filled("rules") && !spec.has("defaultBackend") {
        let message = "either `defaultBackend` or `rules` must be specified";
        let shown = spec.child("rules").value.clone();
        spec.invalid_value(errors, shown, message);
    }
    if let Some(backend) = spec.given("defaultBackend") {
        check_backend(&backend, errors);
    }
    for rule in spec.child("rules").items() {
        check_host(&rule.child("host"), errors);
        if let Some(http) = rule.given("http") {
            check_paths(&http.child("paths"), errors);
        }
    }
    for tls in spec.child("tls").items() {
        for host in tls.child("hosts").items() {
            let wildcard = host.str().contains('*');
            let rule = if wildcard { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
            host.check_text(errors, rule);
        }
        tls.optional_name(errors, "secretName", names::dns1123_subdomain);
    }
    if let Some(class) = spec.given("ingressClassName") {
        class.check_text(errors, names::dns1123_subdomain);
    }
}

/// What is asked of new ingresses only: others may be changed whatever they say.
pub(super) fn check_new_ingress(ingress: &At<'_, '_>, errors: &mut Errors) {
    const ANNOTATION: &str = "kubernetes.io/ingress.class";
    let (metadata, spec) = (ingress.child("metadata"), ingress.child("spec"));
    let old = metadata.child("annotations").value.get(ANNOTATION).and_then(Value::as_str);
    if let (Some(old), Some(class)) = (old, spec.given("ingressClassName"))
        && old != class.str()
    {
        let message = "must match `ingressClassName` when both are specified";
        At::top("annotations", &Value::Null).child(ANNOTATION).invalid_value(errors, old, message);
    }
}

fn check_host(host: &At<'_, '_>, errors: &mut Errors) {
    if host.str().is_empty() {
        return;
    }
    if rules::parse_ip(host.str()).is_some() {
        host.invalid(errors, "must be a DNS name, not an IP address");
    }
    let wildcard = host.str().contains('*');
    host.check_text(errors, if wildcard { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain });
}

fn check_paths(paths: &At<'_, '_>, errors: &mut Errors) {
    if paths.list().is_empty() {
        paths.required(errors, "");
    }
    for item in paths.items() {
        if !item.has("pathType") {
            item.child("pathType").required(errors, "pathType must be specified");
            continue;
        }
        let (at, path) = (item.child("path"), item.text("path"));
        match item.text("pathType") {
            "Exact" | "Prefix" => {
                if !path.starts_with('/') {
                    at.invalid_value(errors, path, "must be an absolute path");
                }
                for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| path.contains(bad)) {
                    at.invalid(errors, format!("must not contain '{bad}'"));
                }
                for bad in ["/..", "/."].into_iter().filter(|bad| path.ends_with(bad)) {
                    at.invalid(errors, format!("cannot end with '{bad}'"));
                }
            }
            "ImplementationSpecific" => {
                if !path.is_empty() && !path.starts_with('/') {
                    at.invalid(errors, "must be an absolute path");
                }
            }
            other => {
                let allowed = ["Exact", "ImplementationSpecific", "Prefix"];
                item.child("pathType").not_supported(errors, other, &allowed);
            }
        }
        check_backend(&item.child("backend"), errors);
    }
}

fn check_backend(backend: &At<'_, '_>, errors: &mut Errors) {
    match (backend.given("resource"), backend.given("service")) {
        (Some(_), Some(_)) => {
            backend.invalid_value(errors, "", "cannot set both resource and service backends");
        }
        (Some(resource), None) => check_typed_reference(&resource, errors),
        (None, Some(service)) => {
            service.require_name(errors, "name", names::dns1035_label);
            let port = service.child("port");
            match (port.text("name"), port.number("number").unwrap_or(0)) {
                ("", 0) => backend.required(errors, "port name or number is required"),
                ("", _) => rules::port(&port.child("number"), errors),
                (_, 0) => port.child("name").check_text(errors, names::port_name),
                _ => backend.invalid_value(errors, "", "cannot set both port name & port number"),
            }
        }
        (None, None) => backend.invalid_value(errors, "", "resource or service backend is required"),
    }
}

fn check_typed_reference(reference: &At<'_, '_>, errors: &mut Errors) {
    if let Some(group) = reference.given("apiGroup") {
        group.check_text(errors, names::dns1123_subdomain);
    }
    for (field, message) in [("kind", "kind is required"), ("name", "name is required")] {
        let at = reference.child(field);
        if at.str().is_empty() {
            at.required(errors, message);
        } else {
            at.check_text(errors, names::path_segment);
        }
    }
}

fn check_class(spec: &At<'_, '_>, errors: &mut Errors) {
    let controller = spec.child("controller");
    if spec.require(errors, "controller") {
        if controller.str().len() > 250 {
            controller.too_long(errors, 250);
        }
        domain_prefixed_path(&controller, errors);
    }
    let Some(parameters) = spec.given("parameters") else { return };
    check_typed_reference(&parameters, errors);
    spec_scope(&parameters, errors);
}

fn spec_scope(parameters: &At<'_, '_>, errors: &mut Errors) {
    let namespace = parameters.child("namespace");
    match parameters.text("scope") {
        "" => parameters.child("scope").required(errors, ""),
        "Namespace" if namespace.value.is_null() => {
            namespace.required(errors, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => namespace.check_text(errors, names::dns1123_label),
        "Cluster" if !namespace.value.is_null() => {
            namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        other => parameters.child("scope").not_supported(errors, other, &["Cluster", "Namespace"]),
    }
}

/// A path that begins with a domain: `acme.io/foo`.
pub(super) fn domain_prefixed_path(at: &At<'_, '_>, errors: &mut Errors) {
    let Some((host, path)) = at.str().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return at.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    at.invalid_all(errors, host, names::dns1123_subdomain(host));
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let message = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        at.invalid_value(errors, path, message);
    }
}

fn check_policy(spec: &At<'_, '_>, errors: &mut Errors) {
    rules::label_selector(&spec.child("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.child(direction).items() {
            rule.child("ports").items().for_each(|port| check_policy_port(&port, errors));
            rule.child(peers).items().for_each(|peer| check_peer(&peer, errors));
        }
    }
    let kinds = spec.child("policyTypes");
    if kinds.list().len() > 2 {
        kinds.invalid(errors, "may not specify more than two policyTypes");
        return;
    }
    for kind in kinds.items().filter(|kind| !["Ingress", "Egress"].contains(&kind.str())) {
        kind.not_supported(errors, kind.str(), &["Ingress", "Egress"]);
    }
}

fn check_policy_port(port: &At<'_, '_>, errors: &mut Errors) {
    port.one_of(errors, "protocol", &["TCP", "UDP", "SCTP"]);
    let (first, last) = (port.child("port"), port.child("endPort"));
    match (first.value, last.value.as_i64()) {
        (Value::Null, Some(_)) => last.invalid(errors, "may not be specified when `port` is not specified"),
        (Value::String(_), end) => {
            if end.is_some() {
                last.invalid(errors, "may not be specified when `port` is non-numeric");
            }
            first.check_text(errors, names::port_name);
        }
        (number, end) if number.is_number() => {
            rules::port(&first, errors);
            if let Some(end) = end {
                if end < number.as_i64().unwrap_or(0) {
                    // The reference shows the other end.
                    last.invalid_value(errors, number.clone(), "must be greater than or equal to `port`");
                }
                rules::port(&last, errors);
            }
        }
        _ => {}
    }
}

fn check_peer(peer: &At<'_, '_>, errors: &mut Errors) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.given(field) {
            selectors += 1;
            rules::label_selector(&selector, errors);
        }
    }
    match peer.given("ipBlock") {
        Some(block) => {
            check_block(&block, errors);
            if selectors > 0 {
                peer.forbidden(errors, "may not specify both ipBlock and another peer");
            }
        }
        None if selectors == 0 => peer.required(errors, "must specify a peer"),
        None => {}
    }
}

fn check_block(block: &At<'_, '_>, errors: &mut Errors) {
    let at = block.child("cidr");
    if !block.require(errors, "cidr") || !rules::cidr(&at, at.str(), errors) {
        return;
    }
    let Some((network, length)) = rules::parse_cidr(at.str()) else { return };
    for except in block.child("except").items() {
        if !rules::cidr(&except, except.str(), errors) {
            continue;
        }
        let Some((address, inner)) = rules::parse_cidr(except.str()) else { continue };
        if !contains(network, length, address) || length >= inner {
            except.invalid(errors, "must be a strict subset of `cidr`");
        }
    }
}

fn contains(network: std::net::IpAddr, length: u8, address: std::net::IpAddr) -> bool {
    use std::net::IpAddr::{V4, V6};
    let shift = |bits: u32| bits.saturating_sub(u32::from(length));
    match (network, address) {
        (V4(network), V4(address)) => (network.to_bits() ^ address.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0,
        (V6(network), V6(address)) => (network.to_bits() ^ address.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
        _ => false,
    }
}

fn too_many(list: &At<'_, '_>, most: usize, errors: &mut Errors) -> bool {
    let over = list.list().len() > most;
    if over {
        errors.push(FieldError::too_many(&list.path(), list.list().len(), most));
    }
    over
}

fn check_slice(slice: &At<'_, '_>, errors: &mut Errors) {
    slice.require_one_of(errors, "addressType", &["FQDN", "IPv4", "IPv6"]);
    let family = slice.text("addressType");
    let endpoints = slice.child("endpoints");
    if !too_many(&endpoints, 1000, errors) {
        for endpoint in endpoints.items() {
            let addresses = endpoint.child("addresses");
            if addresses.list().is_empty() {
                addresses.required(errors, "must contain at least 1 address");
            }
            too_many(&addresses, 100, errors);
            addresses.items().for_each(|address| check_slice_address(&address, family, errors));
            if let Some(node) = endpoint.given("nodeName") {
                node.check_text(errors, names::dns1123_subdomain);
            }
            too_many_labels(&endpoint.child("deprecatedTopology"), errors);
            rules::labels(&endpoint, "deprecatedTopology", errors);
            if let Some(name) = endpoint.given("hostname") {
                name.check_text(errors, names::dns1123_label);
            }
            if let Some(hints) = endpoint.given("hints") {
                check_hints(&hints, errors);
            }
        }
    }
    let ports = slice.child("ports");
    if too_many(&ports, 20_000, errors) {
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.text("name");
        if !name.is_empty() {
            port.child("name").check_text(errors, names::dns1123_label);
        }
        if seen.contains(&name) {
            port.child("name").duplicate(errors, name);
        } else {
            seen.push(name);
        }
        port.require_one_of(errors, "protocol", rules::PROTOCOLS);
        if let Some(protocol) = port.given("appProtocol") {
            protocol.check_text(errors, names::qualified_name);
        }
    }
}

fn too_many_labels(labels: &At<'_, '_>, errors: &mut Errors) {
    let found = labels.entries().count();
    if found > 16 {
        errors.push(FieldError::too_many(&labels.path(), found, 16));
    }
}

/// Which zones and nodes an endpoint is meant for.
fn check_hints(hints: &At<'_, '_>, errors: &mut Errors) {
    for field in ["forZones", "forNodes"] {
        let list = hints.child(field);
        if too_many(&list, 8, errors) {
            continue;
        }
        let mut seen: Vec<&str> = Vec::new();
        for item in list.items() {
            let name = item.child("name");
            if seen.contains(&name.str()) {
                name.duplicate(errors, name.str());
            }
            seen.push(name.str());
            name.check_text(errors, if field == "forZones" { names::label_value } else { names::dns1123_subdomain });
        }
    }
}

fn check_slice_address(address: &At<'_, '_>, family: &str, errors: &mut Errors) {
    let ip = rules::parse_ip(address.str());
    match family {
        "IPv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => address.invalid(errors, "must be an IPv4 address"),
        "IPv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => address.invalid(errors, "must be an IPv6 address"),
        "IPv4" | "IPv6" => rules::non_special_ip(address, errors),
        "FQDN" => {
            let name = address.str().strip_suffix('.').unwrap_or(address.str());
            let problems = names::dns1123_subdomain(name);
            if !problems.is_empty() {
                address.invalid_value(errors, name, problems.join(","));
            } else if !name.contains('.') {
                let message = "should be a domain with at least two segments separated by dots";
                address.invalid_value(errors, name, message);
            }
        }
        _ => {}
    }
}

/// Endpoints, as they were before there were slices.
pub(super) fn check_endpoints(endpoints: &At<'_, '_>, errors: &mut Errors) {
    for subset in endpoints.child("subsets").items() {
        if !subset.filled("addresses") && !subset.filled("notReadyAddresses") {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.child(list).items() {
                rules::ip(&address.child("ip"), errors);
                address.optional_name(errors, "hostname", names::dns1123_label);
                if let Some(node) = address.given("nodeName") {
                    node.check_text(errors, names::dns1123_subdomain);
                }
                rules::non_special_ip(&address.child("ip"), errors);
            }
        }
        let ports = subset.child("ports");
        let many = ports.list().len() > 1;
        for port in ports.items() {
            if many && port.text("name").is_empty() {
                port.child("name").required(errors, "");
            }
            port.optional_name(errors, "name", names::dns1123_label);
            let number = port.child("port");
            number.number_in(errors, number.value.as_i64().unwrap_or(0), rules::PORTS);
            port.require_one_of(errors, "protocol", rules::PROTOCOLS);
            if let Some(protocol) = port.given("appProtocol") {
                protocol.check_text(errors, names::qualified_name);
            }
        }
    }
}

fn check_ip_address(spec: &At<'_, '_>, errors: &mut Errors) {
    let parent = spec.child("parentRef");
    if parent.value.is_null() {
        parent.required(errors, "");
        return;
    }
    parent.optional_name(errors, "group", names::dns1123_subdomain);
    parent.require_name(errors, "resource", names::path_segment);
    parent.require_name(errors, "name", names::path_segment);
    parent.optional_name(errors, "namespace", names::path_segment);
}

fn check_service_cidr(spec: &At<'_, '_>, errors: &mut Errors) {
    let list = spec.child("cidrs");
    if list.list().is_empty() {
        list.required(errors, "at least one CIDR required");
        return;
    }
    // As the reference prints its internal type.
    let shown = || json!({"CIDRs": list.value});
    if list.list().len() > 2 {
        list.invalid_value(errors, shown(), "may only hold up to 2 values");
        return;
    }
    let addresses: Vec<&str> = list.items().filter_map(|cidr| cidr.str().split('/').next()).collect();
    if addresses.len() == 2 && !rules::is_dual_stack(&addresses) {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        list.invalid_value(errors, shown(), message);
        return;
    }
    for cidr in list.items() {
        rules::cidr(&cidr, cidr.str(), errors);
    }
}

/// The networks of services stay, but one of the other family may join.
pub(super) fn check_service_cidr_update(old: &[Value], spec: &At<'_, '_>, errors: &mut Errors) {
    let list = spec.child("cidrs");
    let now = list.list();
    if now.len() != old.len() && (old.len(), now.len()) != (1, 2) {
        list.invalid(errors, super::update::IMMUTABLE);
        return;
    }
    for (_, new) in old.iter().zip(now).filter(|(old, new)| old != new) {
        list.index(0).invalid_value(errors, new.clone(), super::update::IMMUTABLE);
    }
}

/// A load balancer's addresses in the status of an ingress.
pub(super) fn check_ingress_status(ingress: &At<'_, '_>, errors: &mut Errors) {
    let status = ingress.child("status");
    let balancer = status.child("loadBalancer");
    for item in balancer.child("ingress").items() {
        if !item.text("ip").is_empty() {
            rules::ip(&item.child("ip"), errors);
        }
        service::check_host_name(&item.child("hostname"), errors);
    }
}
