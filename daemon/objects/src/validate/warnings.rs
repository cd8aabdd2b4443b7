//! What is accepted, yet most likely not meant: the reference's warnings about new objects.
//!
//! Texts as in Kubernetes `pkg/api/pod` and `pkg/api/service`.

use crate::{kind::Kind, names, object::Object, pod};
use serde_json::Value;
use std::collections::BTreeMap;

/// Warnings about an object as it is to be stored.
pub fn warnings(kind: &Kind, object: &Object) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(pointer) = pod::template_pointer(kind) {
        let part = |field| object.get(&format!("{pointer}/{field}"));
        let at = pointer.trim_start_matches('/').replace('/', ".");
        let at = if at.is_empty() { at } else { at + "." };
        of_pod(part("metadata"), part("spec"), &at, &mut said);
    }
    if kind.is_core("Pod") {
        let problems = names::dns1123_label(object.name());
        if !problems.is_empty() {
            said.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                problems.join(" ")
            ));
        }
    }
    if kind.is_core("Secret") && object.get_str("/type") == Some("kubernetes.io/service-account-token") {
        said.extend(of_account_token(object));
    }
    said
}

/// In this version nobody fills such a Secret: who waits for its token must not wait in silence.
fn of_account_token(secret: &Object) -> Option<String> {
    if secret.get("/data/token").is_some() {
        return None;
    }
    let account = secret.annotation("kubernetes.io/service-account.name").unwrap_or("NAME");
    let namespace = secret.namespace().unwrap_or("default");
    Some(format!(
        "data: this version fills in no token, ca.crt and namespace; ask for a token with `kubectl -n {namespace} create token {account}`"
    ))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn map<'a>(value: Option<&'a Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.and_then(|value| value.get(field)?.as_object()).into_iter().flatten()
}

fn deprecated_node_label(key: &str) -> Option<&'static str> {
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
        _ => return None,
    })
}

const VOLUMES: [(&str, &str); 9] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

fn of_pod(metadata: Option<&Value>, spec: Option<&Value>, at: &str, said: &mut Vec<String>) {
    let Some(spec) = spec else { return };
    for (key, _) in map(Some(spec), "nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            said.push(format!("{at}spec.nodeSelector[{key}]: {message}"));
        }
    }
    for (index, spread) in list(spec, "topologySpreadConstraints") {
        if let Some(message) = deprecated_node_label(text(spread, "topologyKey")) {
            said.push(format!("{at}spec.topologySpreadConstraints[{index}].topologyKey: {message}"));
        }
    }
    for (key, _) in map(metadata, "annotations") {
        let instead = match key.as_str() {
            "scheduler.alpha.kubernetes.io/critical-pod" => {
                r#"non-functional in v1.16+; use the "priorityClassName" field instead"#
            }
            "seccomp.security.alpha.kubernetes.io/pod" => {
                r#"non-functional in v1.27+; use the "seccompProfile" field instead"#
            }
            key if key.starts_with("container.seccomp.security.alpha.kubernetes.io/") => {
                r#"non-functional in v1.27+; use the "seccompProfile" field instead"#
            }
            key if key.starts_with("container.apparmor.security.beta.kubernetes.io/") => {
                r#"deprecated since v1.30; use the "appArmorProfile" field instead"#
            }
            _ => continue,
        };
        said.push(format!("{at}metadata.annotations[{key}]: {instead}"));
    }
    duplicates(spec, at, "hostAliases", "ip", said);
    duplicates(spec, at, "imagePullSecrets", "name", said);
    for (index, secret) in list(spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            said.push(format!("{at}spec.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    for (index, volume) in list(spec, "volumes") {
        for (source, _) in volume.as_object().into_iter().flatten() {
            if let Some((_, message)) = VOLUMES.iter().find(|(name, _)| name == source) {
                said.push(format!("{at}spec.volumes[{index}].{source}: {message}"));
            }
        }
    }
    for field in ["initContainers", "containers"] {
        for (index, container) in list(spec, field) {
            of_container(container, &format!("{at}spec.{field}[{index}]"), said);
        }
    }
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        said.push(format!(
            "{at}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
}

fn duplicates(spec: &Value, at: &str, field: &str, key: &str, said: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in list(spec, field) {
        let value = text(item, key);
        if !value.is_empty() && !seen.insert(value) {
            said.push(format!("{at}spec.{field}[{index}].{key}: duplicate {key} {value:?}"));
        }
    }
}

fn of_container(container: &Value, at: &str, said: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        for (name, amount) in map(container.get("resources"), list) {
            let bytes = matches!(name.as_str(), "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            if bytes && amount.as_str().is_some_and(|amount| amount.ends_with('m')) {
                let amount = amount.as_str().unwrap_or_default();
                said.push(format!(
                    "{at}.resources.{list}[{name}]: fractional byte value {amount:?} is invalid, must be an integer"
                ));
            }
        }
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (index, variable) in list(container, "env") {
        let name = text(variable, "name");
        if seen.insert(name, "").is_some() {
            said.push(format!(
                "{at}.env[{index}].name: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    let ports: Vec<&Value> = list(container, "ports").map(|(_, port)| port).collect();
    for (index, port) in ports.iter().enumerate() {
        let number = |port: &Value, field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
        let Some(earlier) = ports.get(..index) else { continue };
        let name = text(port, "name");
        if let Some(first) = earlier.iter().position(|other| !name.is_empty() && text(other, "name") == name) {
            said.push(format!(
                "{at}.ports[{index}].name: duplicate port name {name:?} with {at}.ports[{first}], services and probes that select \
                 ports by name will use {at}.ports[{first}]"
            ));
        }
        let is_same = |other: &&Value| {
            number(other, "containerPort") == number(port, "containerPort")
                && text(other, "protocol") == text(port, "protocol")
                && number(other, "hostPort") == number(port, "hostPort")
                && text(other, "hostIP") == text(port, "hostIP")
        };
        if let Some(first) = earlier.iter().position(is_same) {
            said.push(format!("{at}.ports[{index}]: duplicate port definition with {at}.ports[{first}]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_the_references() {
        let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [{"name": "a", "image": "a",
            "env": [{"name": "A"}, {"name": "A"}], "ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 80, "name": "x"}],
            "resources": {"limits": {"memory": "100m"}}}]});
        let said = |value: Value| {
            let object = Object::from_value(value).unwrap();
            warnings(object.known_kind().unwrap(), &object)
        };
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"spec": spec}}});
        assert_eq!(
            said(deployment),
            [
                "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.template.spec.containers[0].env[1].name: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.template.spec.containers[0].ports[1].name: duplicate port name \"x\" with spec.template.spec.containers[0].ports[0], services and probes that select ports by name will use spec.template.spec.containers[0].ports[0]",
                "spec.template.spec.containers[0].ports[1]: duplicate port definition with spec.template.spec.containers[0].ports[0]",
            ]
        );
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a.b"}, "spec": {"containers": []}});
        assert_eq!(
            said(pod),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
            ]
        );
    }
}
