//! Warnings about pods and pod templates.

use super::{fraction, network, of_claim, paths};
use crate::names;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, field: &str) -> i64 {
    value.get(field).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

pub(super) fn map<'a>(value: Option<&'a Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.and_then(|value| value.get(field)?.as_object()).into_iter().flatten()
}

/// What is to be said of a label of nodes that has another name now.
pub(super) fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
        "beta.kubernetes.io/os" => r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
        "failure-domain.beta.kubernetes.io/region" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#
        }
        "beta.kubernetes.io/instance-type" => {
            r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#
        }
        "node-role.kubernetes.io/master" => r#"use "node-role.kubernetes.io/control-plane" instead"#,
        _ => return None,
    })
}

/// Volumes that are no more: the field, and its name in the warning where that is another.
const VOLUMES: [(&str, &str, &str); 9] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Annotations that did something once.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];

/// About a pod, or about those that are made of a template.
pub(super) fn of_pod(metadata: Option<&Value>, spec: Option<&Value>, at: &str, said: &mut Vec<String>) {
    let Some(spec) = spec else { return };
    of_nodes(spec, at, said);
    for (key, instead) in ANNOTATIONS {
        if map(metadata, "annotations").any(|(given, _)| given == key) {
            said.push(format!("{at}metadata.annotations[{key}]: {instead}"));
        }
    }
    of_volumes(spec, at, said);
    paths::of_volumes(spec, said);
    duplicates(spec, at, "hostAliases", "ip", said);
    duplicates(spec, at, "imagePullSecrets", "name", said);
    for (index, secret) in list(spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            said.push(format!("{at}spec.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    for resource in BYTES {
        let amount = spec.get("overhead").and_then(|overhead| overhead.get(resource));
        fraction(amount, format_args!("{at}spec.overhead[{resource}]"), said);
    }
    of_profiles(metadata, spec, at, said);
    let containers: Vec<(String, &Value)> = ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|field| {
            list(spec, field).map(move |(index, container)| (format!("{at}spec.{field}[{index}]"), container))
        })
        .collect();
    for (at, container) in &containers {
        of_container(metadata, spec, container, at, said);
    }
    of_ports(&containers, said);
    if number(spec, "terminationGracePeriodSeconds") < 0 {
        said.push(format!(
            "{at}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    of_neighbours(spec, at, said);
    of_addresses(spec, at, said);
}

/// Addresses that can be written in a better way.
fn of_addresses(spec: &Value, at: &str, said: &mut Vec<String>) {
    let servers = spec.get("dnsConfig").and_then(|dns| dns.get("nameservers")?.as_array()).into_iter().flatten();
    for (index, server) in servers.enumerate().filter_map(|(index, server)| Some((index, server.as_str()?))) {
        network::address(&format!("{at}spec.dnsConfig.nameservers[{index}]"), server, said);
    }
    for (index, alias) in list(spec, "hostAliases") {
        network::address(&format!("{at}spec.hostAliases[{index}].ip"), text(alias, "ip"), said);
    }
}

/// What names nodes by labels that have other names now.
fn of_nodes(spec: &Value, at: &str, said: &mut Vec<String>) {
    for (key, _) in map(Some(spec), "nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            said.push(format!("{at}spec.nodeSelector[{key}]: {message}"));
        }
    }
    if let Some(affinity) = spec.pointer("/affinity/nodeAffinity") {
        let at = format!("{at}spec.affinity.nodeAffinity");
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in affinity.get(required).into_iter().flat_map(|r| list(r, "nodeSelectorTerms")) {
            of_node_term(term, &format!("{at}.{required}.nodeSelectorTerms[{index}]"), said);
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(affinity, preferred) {
            let preference = term.get("preference").unwrap_or(&Value::Null);
            let at = format!("{at}.{preferred}[{index}].preference");
            of_node_term(preference, &at, said);
            of_node_values(preference, &at, said);
        }
    }
    for (index, spread) in list(spec, "topologySpreadConstraints") {
        let (at, key) = (format!("{at}spec.topologySpreadConstraints[{index}]"), text(spread, "topologyKey"));
        if let Some(message) = deprecated_node_label(key) {
            said.push(format!("{at}.topologyKey: {key} is {message}"));
        }
        matches_something(spread, &at, said);
    }
}

/// One term of a selector of nodes.
pub(super) fn of_node_term(term: &Value, at: &str, said: &mut Vec<String>) {
    for (index, expression) in list(term, "matchExpressions") {
        let key = text(expression, "key");
        if let Some(message) = deprecated_node_label(key) {
            said.push(format!("{at}.matchExpressions[{index}].key: {key} is {message}"));
        }
    }
}

/// Values that no label has. Where they are required they are refused.
fn of_node_values(term: &Value, at: &str, said: &mut Vec<String>) {
    for (index, expression) in list(term, "matchExpressions") {
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        for (place, value) in values.enumerate().filter_map(|(place, value)| Some((place, value.as_str()?))) {
            let problems = names::label_value(value).into_iter();
            let at = format!("{at}.matchExpressions[{index}].values[{place}]");
            said.extend(problems.map(|problem| format!("{at}: {value} is invalid, {problem}")));
        }
    }
}

/// Pods to be near to, or far from.
fn of_neighbours(spec: &Value, at: &str, said: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get("affinity").and_then(|affinity| affinity.get(kind)) else { continue };
        let (required, preferred) =
            ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in list(affinity, required) {
            matches_something(term, &format!("{at}spec.affinity.{kind}.{required}[{index}]"), said);
        }
        for (index, weighted) in list(affinity, preferred) {
            let term = weighted.get("podAffinityTerm").unwrap_or(&Value::Null);
            matches_something(term, &format!("{at}spec.affinity.{kind}.{preferred}[{index}].podAffinityTerm"), said);
        }
    }
}

fn matches_something(term: &Value, at: &str, said: &mut Vec<String>) {
    if term.get("labelSelector").is_none() {
        said.push(format!("{at}.labelSelector: a null labelSelector results in matching no pod"));
    }
}

fn of_volumes(spec: &Value, at: &str, said: &mut Vec<String>) {
    for (index, volume) in list(spec, "volumes") {
        for (source, _) in volume.as_object().into_iter().flatten() {
            if let Some((_, shown, message)) = VOLUMES.iter().find(|(name, ..)| name == source) {
                said.push(format!("{at}spec.volumes[{index}].{shown}: {message}"));
            }
        }
        let template = volume.get("ephemeral").and_then(|ephemeral| ephemeral.get("volumeClaimTemplate"));
        let claim = template.and_then(|template| template.get("spec"));
        of_claim(claim, format_args!("{at}spec.volumes[{index}].ephemeral.volumeClaimTemplate.spec"), said);
    }
}

const NO_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";

/// A profile that is asked for by annotation only.
fn of_profiles(metadata: Option<&Value>, spec: &Value, at: &str, said: &mut Vec<String>) {
    let is_annotated = map(metadata, "annotations").any(|(key, _)| key == SECCOMP_POD);
    if is_annotated && profile(spec, "seccompProfile").is_none() {
        said.push(format!("{at}metadata.annotations[{SECCOMP_POD}]: {NO_SECCOMP}"));
    }
}

/// A profile of a pod or container.
fn profile<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    of.get("securityContext")?.get(name)
}

fn duplicates(spec: &Value, at: &str, field: &str, key: &str, said: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in list(spec, field) {
        let value = text(item, key);
        if !seen.insert(value) {
            said.push(format!("{at}spec.{field}[{index}].{key}: duplicate {key} {value:?}"));
        }
    }
}

/// What is counted in bytes.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

fn of_container(metadata: Option<&Value>, spec: &Value, container: &Value, at: &str, said: &mut Vec<String>) {
    let annotated = |prefix: &str| {
        let is = |key: &str| key.strip_prefix(prefix) == Some(text(container, "name"));
        map(metadata, "annotations").map(|(key, _)| key).find(|key| is(key))
    };
    let mut of_annotation = |key: &str, message: &str| {
        let root = at.rsplit_once("spec.").map_or("", |(root, _)| root);
        said.push(format!("{root}metadata.annotations[{key}]: {message}"));
    };
    if let Some(key) = annotated("container.seccomp.security.alpha.kubernetes.io/")
        && profile(container, "seccompProfile").is_none()
    {
        of_annotation(key, NO_SECCOMP);
    }
    if let Some(key) = annotated("container.apparmor.security.beta.kubernetes.io/")
        && profile(container, "appArmorProfile").or(profile(spec, "appArmorProfile")).is_none()
    {
        of_annotation(key, r#"deprecated since v1.30; use the "appArmorProfile" field instead"#);
    }
    let resources = container.get("resources");
    for resource in BYTES {
        for list in ["limits", "requests"] {
            let amount = resources.and_then(|resources| resources.get(list)?.get(resource));
            fraction(amount, format_args!("{at}.resources.{list}[{resource}]"), said);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, variable) in list(container, "env") {
        let name = text(variable, "name");
        if seen.insert(name) {
            continue;
        }
        let (value, earlier) = (text(variable, "value"), format!("$({name})"));
        // A variable may be made of its own earlier value.
        if variable.get("valueFrom").is_some() || value == earlier || !value.contains(&earlier) {
            said.push(format!(
                "{at}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports of all containers of a pod: they share its addresses.
fn of_ports(containers: &[(String, &Value)], said: &mut Vec<String>) {
    let mut all: Vec<(String, &Value)> = Vec::new();
    for (at, container) in containers {
        all.extend(list(container, "ports").map(|(index, port)| (format!("{at}.ports[{index}]"), port)));
    }
    let mut seen: BTreeMap<(i64, &str), Vec<(&str, &Value)>> = BTreeMap::new();
    for (at, port) in &all {
        let (ip, host) = (text(port, "hostIP"), number(port, "hostPort"));
        if !ip.is_empty() && host == 0 {
            said.push(format!(
                "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                text(port, "name"),
                number(port, "containerPort"),
                text(port, "protocol")
            ));
        }
        let others = seen.entry((number(port, "containerPort"), text(port, "protocol"))).or_default();
        for (other_at, other) in others.iter() {
            let (other_ip, other_host) = (text(other, "hostIP"), number(other, "hostPort"));
            let how = if (ip, host) == (other_ip, other_host) {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            said.push(format!("{at}: {how} port definition with {other_at}"));
        }
        others.push((at, port));
    }
    // An init container that ends has nothing to do with what is found by name later.
    let ends = |at: &str| {
        let init = containers.iter().find(|(of, _)| of.contains(".initContainers[") && at.starts_with(of.as_str()));
        init.is_some_and(|(_, container)| text(container, "restartPolicy") != "Always")
    };
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (at, port) in all.iter().filter(|(at, _)| !ends(at)) {
        let name = text(port, "name");
        match names.get(name) {
            Some(other) => said.push(format!(
                "{at}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
            )),
            None if !name.is_empty() => drop(names.insert(name, at)),
            None => {}
        }
    }
}
