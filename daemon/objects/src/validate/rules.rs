//! Rules that many kinds share.

use super::at::{At, Errors};
use crate::{names, quantity::Quantity};
use serde_json::Value;
use std::net::IpAddr;

pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const NOT_POSITIVE: &str = "must be greater than zero";
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
pub(super) const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;
/// User and group ids.
pub(super) const IDS: std::ops::RangeInclusive<i64> = 0..=2_147_483_647;

/// A map of labels (or a node selector) at `key`.
pub(super) fn labels(at: &At<'_, '_>, key: &'static str, errors: &mut Errors) {
    let at = at.child(key);
    for (key, value) in at.entries() {
        at.invalid_all(errors, key, names::qualified_name(key));
        at.invalid_all(errors, value.str(), names::label_value(value.str()));
    }
}

/// A label selector with matchLabels and matchExpressions.
pub(super) fn label_selector(at: &At<'_, '_>, errors: &mut Errors) {
    labels(at, "matchLabels", errors);
    for expression in at.child("matchExpressions").items() {
        let values = expression.child("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.list().is_empty() => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.list().is_empty() => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => expression.child("operator").invalid_value(errors, other, "not a valid selector operator"),
        }
        label_key(&expression.child("key"), errors);
        values.items().for_each(|value| value.check_text(errors, names::label_value));
    }
}

/// A label's key.
pub(super) fn label_key(at: &At<'_, '_>, errors: &mut Errors) {
    at.check_text(errors, names::qualified_name);
}

/// Does a label selector select nothing in particular?
pub(super) fn is_empty_selector(selector: &Value) -> bool {
    let empty = |key: &str| match selector.get(key) {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}

/// A port number or the name of one.
pub(super) fn port_or_name(at: &At<'_, '_>, errors: &mut Errors) {
    match at.value {
        Value::String(name) => at.invalid_all(errors, name, names::port_name(name)),
        Value::Number(_) => at.number_in(errors, at.value.as_i64().unwrap_or_default(), PORTS),
        _ => {}
    }
}

/// A port number.
pub(super) fn port(at: &At<'_, '_>, errors: &mut Errors) {
    at.number_in(errors, at.value.as_i64().unwrap_or_default(), PORTS);
}

/// An IP address, leading zeros allowed as the reference does in older fields.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let parts: Vec<&str> = text.split('.').collect();
        let plain = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if parts.len() != 4 || !parts.iter().all(plain) {
            return None;
        }
        let stripped: Vec<String> = parts
            .iter()
            .map(|p| p.trim_start_matches('0'))
            .map(|p| if p.is_empty() { "0" } else { p }.to_owned())
            .collect();
        stripped.join(".").parse().ok()
    })
}

/// An IP address; is it one?
pub(super) fn ip(at: &At<'_, '_>, errors: &mut Errors) -> bool {
    let valid = parse_ip(at.str()).is_some();
    if !valid {
        at.invalid_value(errors, at.str(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    valid
}

/// An address of something that can be reached from elsewhere.
pub(super) fn non_special_ip(at: &At<'_, '_>, errors: &mut Errors) {
    let text = at.str();
    let Some(ip) = parse_ip(text) else {
        return at.invalid_value(errors, text, "must be a valid IP address");
    };
    if ip.is_unspecified() {
        at.invalid_value(errors, text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        at.invalid_value(errors, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        at.invalid_value(errors, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        at.invalid_value(errors, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// An address and the length of its network's prefix.
pub(super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length) = (parse_ip(address)?, length.parse::<u8>().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// A network in CIDR notation; is it one?
pub(super) fn cidr(at: &At<'_, '_>, text: &str, errors: &mut Errors) -> bool {
    let valid = parse_cidr(text).is_some();
    if !valid {
        at.invalid_value(errors, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    valid
}

/// Are these addresses one of each family?
pub(super) fn is_dual_stack(ips: &[&str]) -> bool {
    let families: Vec<bool> = ips.iter().filter_map(|ip| parse_ip(ip)).map(|ip| ip.is_ipv4()).collect();
    families.contains(&true) && families.contains(&false)
}

/// A path inside a volume: relative, and not leading out of it.
pub(super) fn relative_path(at: &At<'_, '_>, path: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        at.invalid_value(errors, path, "must be a relative path");
    }
    no_backsteps(at, path, errors);
}

/// No `..` among the parts of a path.
pub(super) fn no_backsteps(at: &At<'_, '_>, path: &str, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        at.invalid_value(errors, path, "must not contain '..'");
    }
}

/// A relative path that does not begin with `..` either.
pub(super) fn local_path(at: &At<'_, '_>, path: &str, errors: &mut Errors) {
    relative_path(at, path, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        at.invalid_value(errors, path, "must not start with '..'");
    }
}

/// A whole number that is not negative, or a percentage.
pub(super) fn positive_int_or_percent(at: &At<'_, '_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) if percent(text).is_none() => {
            let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used \
                 for validation is '[0-9]+%')";
            at.invalid(errors, message);
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => at.invalid(errors, NEGATIVE),
        _ => {}
    }
}

/// No more than all.
pub(super) fn at_most_100_percent(at: &At<'_, '_>, errors: &mut Errors) {
    if at.value.as_str().and_then(percent).is_some_and(|value| value > 100) {
        at.invalid(errors, "must not be greater than 100%");
    }
}

/// The number before the percent sign.
pub(super) fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    whole.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The number or percentage as a number; 0 when it is neither.
pub(super) fn int_or_percent(value: &Value) -> u64 {
    match value {
        Value::String(text) => percent(text).unwrap_or(0),
        _ => value.as_u64().unwrap_or(0),
    }
}

/// The quantity at this place.
pub(super) fn quantity(at: &At<'_, '_>) -> Option<Quantity> {
    if at.value.is_null() { None } else { Quantity::from_value(at.value).ok() }
}

/// A quantity that is not negative, and whole where only whole ones make sense.
pub(super) fn resource_amount(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    let Some(amount) = quantity(at) else { return };
    if amount.is_negative() {
        at.invalid_value(errors, amount.to_string(), NEGATIVE);
    }
    if is_counted(name) && !amount.is_whole() {
        at.invalid_value(errors, amount.to_string(), "must be an integer");
    }
}

/// Resources of which there are only whole ones.
fn is_counted(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || name.starts_with("count/")
        || is_extended_resource(name)
}

/// A resource of the reference itself: without a domain, or in its own.
pub(super) fn is_native_resource(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource of somebody else's, counted in whole ones.
pub(super) fn is_extended_resource(name: &str) -> bool {
    !is_native_resource(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// May more be promised than there is?
pub(super) fn allows_overcommit(name: &str) -> bool {
    is_native_resource(name) && !is_huge_pages(name)
}

const STANDARD_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Is it one of the resources that are called by a short name?
pub(super) fn is_standard_resource(name: &str) -> bool {
    STANDARD_RESOURCES.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// The name of a resource of any kind; is it well-formed?
pub(super) fn resource_name(name: &str, at: &At<'_, '_>, errors: &mut Errors) -> bool {
    let problems = names::qualified_name(name);
    let mut valid = problems.is_empty();
    at.invalid_all(errors, name, problems);
    if valid && !name.contains('/') && !is_standard_resource(name) {
        at.invalid_value(errors, name, "must be a standard resource type or fully qualified");
        valid = false;
    }
    valid
}

/// The name of a resource that a container can ask for.
pub(super) fn container_resource_name(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    resource_name(name, at, errors);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name);
    if !name.contains('/') {
        if !standard {
            at.invalid_value(errors, name, "must be a standard resource for containers");
        }
    } else if !is_native_resource(name) && !is_extended_resource(name) {
        at.invalid_value(errors, name, "doesn't follow extended resource name standard");
    }
}

/// A name of a driver: up to 63 bytes, any case.
pub(super) fn driver_name(at: &At<'_, '_>, errors: &mut Errors) {
    let name = at.str();
    if name.is_empty() {
        at.required(errors, "");
    }
    if name.len() > 63 {
        at.too_long(errors, 63);
    }
    at.invalid_all(errors, name, names::dns1123_subdomain(&name.to_lowercase()));
}
