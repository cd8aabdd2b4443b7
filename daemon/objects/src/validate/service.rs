//! Rules of services.

use super::{
    at::{At, Errors},
    meta, rules,
};
use crate::{field::FieldReason, names, object::Object};
use serde_json::{Value, json};

const ONLY_FOR_LOAD_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

/// A service without its metadata's general rules.
pub(super) fn check(service: &At<'_, '_>, errors: &mut Errors) {
    let spec = &service.child("spec");
    check_topology_annotations(&service.child("metadata").child("annotations"), errors);
    let kind = spec.text("type");
    let headless = is_headless(spec);
    if !spec.filled("ports") && !headless && kind != "ExternalName" {
        spec.child("ports").required(errors, "");
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let message = format!("may not be set to 'None' for {kind} services");
        spec.child("clusterIPs").index(0).invalid_value(errors, "None", message);
    }
    if kind == "ExternalName" {
        check_external_name(spec, errors);
    }
    check_ports(spec, errors);
    rules::labels(spec, "selector", errors);
    check_affinity(spec, errors);
    if kind != "ExternalName" {
        check_addresses(spec, errors);
    }
    for address in spec.child("externalIPs").items() {
        if rules::ip(&address, errors) {
            rules::non_special_ip(&address, errors);
        }
    }
    spec.require_one_of(errors, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    check_port_claims(spec, kind, errors);
    check_load_balancer(service, spec, kind, errors);
    check_traffic(spec, kind, errors);
}

fn is_headless(spec: &At<'_, '_>) -> bool {
    match spec.child("clusterIPs").list() {
        [] => spec.text("clusterIP") == "None",
        [only] => only == "None",
        _ => false,
    }
}

fn check_topology_annotations(annotations: &At<'_, '_>, errors: &mut Errors) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let (hints, mode) = (annotations.map_key(HINTS), annotations.map_key(MODE));
    if !hints.value.is_null() && !mode.value.is_null() && hints.value != mode.value {
        mode.invalid(errors, format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn check_external_name(spec: &At<'_, '_>, errors: &mut Errors) {
    if spec.filled("clusterIPs") || !spec.text("clusterIP").is_empty() {
        spec.child("clusterIPs").forbidden(errors, "may not be set for ExternalName services");
    }
    if spec.filled("ipFamilies") {
        spec.child("ipFamilies").forbidden(errors, "may not be set for ExternalName services");
    }
    if spec.has("ipFamilyPolicy") {
        spec.child("ipFamilyPolicy").forbidden(errors, "may not be set for ExternalName services");
    }
    let at = spec.child("externalName");
    match at.str().strip_suffix('.').unwrap_or(at.str()) {
        "" => at.required(errors, ""),
        name => at.invalid_all(errors, name, names::dns1123_subdomain(name)),
    }
}

fn check_ports(spec: &At<'_, '_>, errors: &mut Errors) {
    let list = spec.child("ports");
    let many = list.list().len() > 1;
    let mut seen: Vec<&str> = Vec::new();
    for port in list.items() {
        let name = port.text("name");
        if !name.is_empty() {
            port.child("name").check_text(errors, names::dns1123_label);
            if seen.contains(&name) {
                port.child("name").duplicate(errors, name);
            } else {
                seen.push(name);
            }
        } else if many {
            port.child("name").required(errors, "");
        }
        let number = port.child("port");
        number.number_in(errors, number.value.as_i64().unwrap_or(0), rules::PORTS);
        port.require_one_of(errors, "protocol", rules::PROTOCOLS);
        rules::port_or_name(&port.child("targetPort"), errors);
        if let Some(protocol) = port.given("appProtocol") {
            protocol.check_text(errors, names::qualified_name);
        }
    }
}

fn check_affinity(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.require_one_of(errors, "sessionAffinity", &["ClientIP", "None"]);
    let config = spec.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let timeout = config.child("clientIP");
            let timeout = timeout.child("timeoutSeconds");
            match timeout.value.as_i64() {
                None => timeout.required(errors, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=86_400).contains(&seconds) => {
                    timeout.invalid(errors, "must be greater than 0 and less than 86400");
                }
                Some(_) => {}
            }
        }
        "None" if !config.value.is_null() => {
            config.forbidden(errors, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn check_addresses(spec: &At<'_, '_>, errors: &mut Errors) {
    let ips = spec.child("clusterIPs");
    let texts: Vec<&str> = ips.items().map(|ip| ip.str()).collect();
    match (spec.text("clusterIP"), texts.first()) {
        // Whoever stores the service fills in the list.
        ("", None) | (_, None) => {}
        ("", Some(_)) => ips.invalid(errors, "must be empty when `clusterIP` is not specified"),
        (first, Some(other)) if first != *other => ips.invalid(errors, "first value must match `clusterIP`"),
        _ => {}
    }
    check_families(spec, errors);
    let mut invalid = false;
    if texts.is_empty() && !matches!(spec.text("clusterIP"), "" | "None") {
        let only = ips.index(0);
        invalid |= rules::parse_ip(spec.text("clusterIP")).is_none();
        if invalid {
            let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            only.invalid_value(errors, spec.text("clusterIP"), message);
        }
    }
    for (index, ip) in ips.items().enumerate() {
        if index == 0 && ip.str() == "None" {
            if texts.len() > 1 {
                invalid = true;
                ips.invalid(errors, "'None' must be the first and only value");
            }
            continue;
        }
        invalid |= !rules::ip(&ip, errors);
    }
    if texts.len() > 2 {
        ips.invalid(errors, "may only hold up to 2 values");
    }
    if invalid {
        return;
    }
    if texts.len() > 1 && !rules::is_dual_stack(&texts) {
        ips.invalid(errors, "may specify no more than one IP for each IP family");
    }
    if !is_headless(spec) {
        for (index, (ip, family)) in ips.items().zip(spec.child("ipFamilies").items()).enumerate() {
            let six = ip.str().contains(':');
            if (family.str() == "IPv4" && six) || (family.str() == "IPv6" && !six) {
                let message = format!("expected an {} value as indicated by `ipFamilies[{index}]`", family.str());
                ip.invalid(errors, message);
            }
        }
    }
}

fn check_families(spec: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for family in spec.child("ipFamilies").items() {
        if !["IPv4", "IPv6"].contains(&family.str()) {
            family.not_supported(errors, family.str(), &["IPv4", "IPv6"]);
        }
        if seen.contains(&family.str()) {
            family.duplicate(errors, family.str());
        }
        seen.push(family.str());
    }
    spec.one_of(errors, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]);
}

fn check_port_claims(spec: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    let ports = spec.child("ports");
    if kind == "ClusterIP" {
        for port in ports.items().filter(|port| port.number("nodePort").unwrap_or(0) != 0) {
            port.child("nodePort").forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut node_ports = Vec::new();
    for port in ports.items() {
        let number = port.number("nodePort").unwrap_or(0);
        let claim = (port.text("protocol"), number);
        if number == 0 {
            continue;
        }
        if kind != "ClusterIP" {
            rules::port(&port.child("nodePort"), errors);
        }
        if node_ports.contains(&claim) {
            port.child("nodePort").duplicate(errors, number);
        }
        node_ports.push(claim);
    }
    let mut seen = Vec::new();
    for port in ports.items() {
        let claim = (port.text("protocol"), port.number("port").unwrap_or(0));
        if seen.contains(&claim) {
            // As the reference prints its internal type.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                json!(claim.0),
                claim.1
            );
            port.raw(errors, FieldReason::Duplicate, shown, "");
        }
        seen.push(claim);
    }
}

fn check_load_balancer(service: &At<'_, '_>, spec: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let balances = kind == "LoadBalancer";
    let annotations = service.child("metadata");
    let annotations = annotations.child("annotations");
    let annotation = annotations.map_key(RANGES);
    if spec.filled("loadBalancerSourceRanges") {
        let shown = spec.child("LoadBalancerSourceRanges");
        if !balances {
            shown.forbidden(errors, ONLY_FOR_LOAD_BALANCERS);
        }
        for (index, range) in spec.child("loadBalancerSourceRanges").items().enumerate() {
            rules::cidr(&shown.index(index), range.str().trim(), errors);
        }
    } else if !annotation.value.is_null() {
        if !balances {
            annotation.forbidden(errors, ONLY_FOR_LOAD_BALANCERS);
        }
        for range in annotation.str().split(',').map(str::trim).filter(|_| !annotation.str().trim().is_empty()) {
            rules::cidr(&annotation, range, errors);
        }
    }
    if spec.has("allocateLoadBalancerNodePorts") && !balances {
        spec.child("allocateLoadBalancerNodePorts").forbidden(errors, ONLY_FOR_LOAD_BALANCERS);
    }
    if let Some(class) = spec.given("loadBalancerClass") {
        if balances {
            class.check_text(errors, names::qualified_name);
        } else {
            class.forbidden(errors, ONLY_FOR_LOAD_BALANCERS);
        }
    }
}

fn check_traffic(spec: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    let external = matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && spec.filled("externalIPs");
    let policy = spec.child("externalTrafficPolicy");
    if external {
        spec.require_one_of(errors, "externalTrafficPolicy", &["Cluster", "Local"]);
    } else if !policy.str().is_empty() {
        policy.invalid(errors, "may only be set for externally-accessible services");
    }
    let health = spec.child("healthCheckNodePort");
    let number = health.value.as_i64().unwrap_or(0);
    if kind == "LoadBalancer" && policy.str() == "Local" {
        // The port is given by whoever allocates ports; until then there is none.
        if number != 0 {
            rules::port(&health, errors);
        }
    } else if number != 0 {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, message);
    }
    let internal = spec.child("internalTrafficPolicy");
    if internal.value.is_null() && matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") {
        internal.required(errors, "");
    }
    spec.one_of(errors, "internalTrafficPolicy", &["Cluster", "Local"]);
    spec.one_of(errors, "trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// An update: addresses stay.
pub(super) fn check_update(old: &Object, new: &Object, service: &At<'_, '_>, errors: &mut Errors) {
    meta::check_update(old, new, &service.child("metadata"), errors);
    let nothing = Value::Null;
    let before = At::top("spec", old.spec().unwrap_or(&nothing));
    let after = service.child("spec");
    if before.text("type") != "ExternalName" && after.text("type") != "ExternalName" {
        let (was, is) = (is_headless(&before), is_headless(&after));
        if !(was && is) {
            check_kept(&before, &after, "clusterIPs", errors);
        }
        if was == is && !is {
            check_kept(&before, &after, "ipFamilies", errors);
        }
    }
    let class = after.child("loadBalancerClass");
    let both = before.text("type") == "LoadBalancer" && after.text("type") == "LoadBalancer";
    if both && before.child("loadBalancerClass").value != class.value {
        class.invalid(errors, "may not change once set");
    }
    let checked =
        |spec: &At<'_, '_>| spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    const HEALTH: &str = "healthCheckNodePort";
    if checked(&before) && checked(&after) && before.child(HEALTH).value != after.child(HEALTH).value {
        after.child(HEALTH).forbidden(errors, super::update::IMMUTABLE);
    }
    check(service, errors);
}

/// The first of a list of addresses or families stays; the second may be added, and released on purpose.
fn check_kept(old: &At<'_, '_>, new: &At<'_, '_>, field: &'static str, errors: &mut Errors) {
    let (before, after) = (old.child(field), new.child(field));
    let first_changed =
        !before.list().is_empty() && !after.list().is_empty() && before.list().first() != after.list().first();
    let shown = after.value.clone();
    if before.list().len() == after.list().len() {
        for (index, (was, is)) in before.list().iter().zip(after.list()).enumerate() {
            if was != is {
                let at = if field == "ipFamilies" { 0 } else { index };
                after.index(at).invalid_value(errors, shown.clone(), "may not change once set");
            }
        }
        return;
    }
    let name = if field == "clusterIPs" { "clusterIP" } else { "ipFamily" };
    let released = before.list().len() > after.list().len();
    if released && after.list().is_empty() {
        after.index(0).invalid_value(errors, shown.clone(), format!("primary {name} can not be unset"));
    }
    if first_changed {
        after.index(0).invalid_value(errors, shown, "may not change once set");
    }
    if released && after.list().len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" {
        let message = format!("must be set to 'SingleStack' when releasing the secondary {name}");
        new.child("ipFamilyPolicy").invalid(errors, message);
    }
}

/// A load balancer's addresses in the status of `service`.
pub(super) fn check_status(service: &At<'_, '_>, errors: &mut Errors) {
    let ingress = service.child("status");
    let ingress = ingress.child("loadBalancer");
    let ingress = ingress.child("ingress");
    if service.child("spec").text("type") != "LoadBalancer" && !ingress.list().is_empty() {
        ingress.forbidden(errors, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for item in ingress.items() {
        let (ip, mode) = (item.text("ip"), item.child("ipMode"));
        if !ip.is_empty() {
            rules::ip(&item.child("ip"), errors);
        }
        match (mode.value.is_null(), ip.is_empty()) {
            (true, false) => mode.required(errors, "must be specified when `ip` is set"),
            (false, true) => mode.forbidden(errors, "may not be specified when `ip` is not set"),
            (false, false) => item.one_of(errors, "ipMode", &["Proxy", "VIP"]),
            (true, true) => {}
        }
        check_host_name(&item.child("hostname"), errors);
    }
}

/// A host name that is not an address.
pub(super) fn check_host_name(at: &At<'_, '_>, errors: &mut Errors) {
    if at.str().is_empty() {
        return;
    }
    at.check_text(errors, names::dns1123_subdomain);
    if rules::parse_ip(at.str()).is_some() {
        at.invalid(errors, "must be a DNS name, not an IP address");
    }
}
