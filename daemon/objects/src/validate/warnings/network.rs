//! Warnings about Services and Ingresses.

use crate::object::Object;
use serde_json::Value;
use std::net::IpAddr;

const OLD_CLASS: &str = "kubernetes.io/ingress.class";
const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

pub(super) fn of_ingress(ingress: &Object, said: &mut Vec<String>) {
    if ingress.annotation(OLD_CLASS).is_some() && ingress.get("/spec/ingressClassName").is_none() {
        said.push(format!("annotation {OLD_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
    }
}

pub(super) fn of_service(service: &Object, said: &mut Vec<String>) {
    let text = |field: &str| service.get_str(&format!("/spec/{field}")).unwrap_or_default();
    let texts = |field: &str| {
        let list = service.get(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).enumerate()
    };
    let is_external = texts("externalIPs").next().is_some();
    let is_name = text("type") == "ExternalName";
    let is_headless = text("type") == "ClusterIP" && text("clusterIP") == "None";
    if service.annotation(OLD_HINTS).is_some() {
        said.push(format!(
            "annotation {OLD_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    if !["", "None"].contains(&text("clusterIP")) {
        texts("clusterIPs").for_each(|(index, ip)| address(&format!("spec.clusterIPs[{index}]"), ip, said));
    }
    if is_headless {
        let ignored = [
            ("loadBalancerIP", !text("loadBalancerIP").is_empty()),
            ("externalIPs", is_external),
            ("SessionAffinity", text("sessionAffinity") != "None"),
        ];
        let ignored = ignored.iter().filter(|(_, is_set)| *is_set);
        said.extend(ignored.map(|(field, _)| format!("spec.{field} is ignored for headless services")));
    }
    texts("externalIPs").for_each(|(index, ip)| address(&format!("spec.externalIPs[{index}]"), ip, said));
    if is_external && !is_headless && !is_name {
        said.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if !text("loadBalancerIP").is_empty() {
        address("spec.loadBalancerIP", text("loadBalancerIP"), said);
    }
    texts("loadBalancerSourceRanges")
        .for_each(|(index, range)| block(&format!("spec.loadBalancerSourceRanges[{index}]"), range, said));
    if is_name && is_external {
        said.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && !text("externalName").is_empty() {
        said.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text("trafficDistribution") == "PreferClose" {
        said.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
}

/// An address that can be written in a better way. What is no address is refused elsewhere.
pub(super) fn address(at: &str, text: &str, said: &mut Vec<String>) {
    let Ok(IpAddr::V6(ip)) = text.parse() else { return };
    match ip.to_ipv4_mapped() {
        Some(inner) => said.push(format!(
            "{at}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \"{inner}\""
        )),
        None if ip.to_string() != text => {
            said.push(format!("{at}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{ip}\")"));
        }
        None => {}
    }
}

/// The same for addresses with the length of a prefix.
fn block(at: &str, text: &str, said: &mut Vec<String>) {
    let parts = text.split_once('/').and_then(|(ip, length)| Some((ip.parse().ok()?, length.parse::<u32>().ok()?)));
    let Some((ip, length)) = parts else { return };
    let first = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    };
    if first != ip {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        said.push(format!(
            "{at}: CIDR value {text:?} is ambiguous in this context (should be \"{first}/{length}\" or \"{ip}/{whole}\"?)"
        ));
    } else if ip.is_ipv6() && format!("{ip}/{length}") != text {
        said.push(format!("{at}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{ip}/{length}\")"));
    }
}
