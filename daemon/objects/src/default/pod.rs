//! Defaults of pods and pod templates.

use super::{child, each, existing, put, text, volume};
use crate::quantity::Quantity;
use serde_json::{Map, Value, json};

/// What holds for pods but not for templates, after what holds for both.
pub(super) fn fill_pod(pod: &mut Map<String, Value>) {
    let own_programs = existing(pod, "metadata")
        .and_then(|m| existing(m, "annotations"))
        .and_then(|a| a.get(crate::ZONE_BRAND_ANNOTATION))
        .and_then(Value::as_str)
        .is_some_and(crate::brings_programs);
    let Some(spec) = existing(pod, "spec") else { return };
    fill_spec(spec);
    put(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if own_programs && !container.contains_key("image") {
                container.remove("imagePullPolicy");
            }
            if host_network {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").filter(|n| n.as_i64() != Some(0)).cloned() {
                        put(port, "hostPort", number);
                    }
                }
            }
        }
    }
    fill_pod_resources(spec);
}

/// A pod template's spec: `spec` of something that holds one.
pub(super) fn fill_template(template: &mut Map<String, Value>) {
    if let Some(spec) = existing(template, "spec") {
        fill_spec(spec);
    }
}

fn fill_spec(spec: &mut Map<String, Value>) {
    put(spec, "restartPolicy", "Always");
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "schedulerName", "default-scheduler");
    put(spec, "securityContext", json!({}));
    put(spec, "terminationGracePeriodSeconds", 30);
    mirror_service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list).for_each(fill_container);
    }
    each(spec, "volumes").for_each(volume::fill);
}

/// `serviceAccount` is the old name of `serviceAccountName`; readers expect both.
fn mirror_service_account(spec: &mut Map<String, Value>) {
    let name = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).cloned();
    if let Some(name) = name {
        spec.insert("serviceAccount".to_owned(), name.clone());
        spec.insert("serviceAccountName".to_owned(), name);
    }
}

fn fill_container(container: &mut Map<String, Value>) {
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    put(container, "resources", json!({}));
    let policy = pull_policy(text(container, "image"));
    put(container, "imagePullPolicy", policy);
    each(container, "ports").for_each(|port| put(port, "protocol", "TCP"));
    for variable in each(container, "env") {
        if let Some(source) = existing(variable, "valueFrom") {
            existing(source, "fieldRef").into_iter().for_each(|field| put(field, "apiVersion", "v1"));
            existing(source, "fileKeyRef").into_iter().for_each(|field| put(field, "optional", false));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        existing(container, probe).into_iter().for_each(fill_probe);
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            existing(lifecycle, hook).and_then(|hook| existing(hook, "httpGet")).into_iter().for_each(fill_http_get);
        }
    }
    // Alone among the fields of a container's security context procMount has a default.
    if let Some(context) = existing(container, "securityContext")
        && context.get("procMount").is_some_and(|mount| mount == "")
    {
        context.insert("procMount".to_owned(), "Default".into());
    }
}

/// `Always` for the tag `latest`, written or implied; `IfNotPresent` otherwise, for digests and for what is no image's name.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = if name.contains('@') { Some("") } else { name.split_once(':').map(|(_, tag)| tag) };
    let repository = name.split([':', '@']).next().unwrap_or_default();
    let well_formed = !repository.is_empty() && !repository.contains(|c: char| c.is_ascii_uppercase() || c == ' ');
    if well_formed && tag.unwrap_or("latest") == "latest" { "Always" } else { "IfNotPresent" }
}

fn fill_probe(probe: &mut Map<String, Value>) {
    put(probe, "timeoutSeconds", 1);
    put(probe, "periodSeconds", 10);
    put(probe, "successThreshold", 1);
    put(probe, "failureThreshold", 3);
    existing(probe, "httpGet").into_iter().for_each(fill_http_get);
    if let Some(grpc) = existing(probe, "grpc") {
        put(grpc, "service", "");
    }
}

fn fill_http_get(get: &mut Map<String, Value>) {
    put(get, "path", "/");
    put(get, "scheme", "HTTP");
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").filter(|limits| is_filled(limits)).cloned() else {
        return;
    };
    let Some(requests) = child(resources, "requests") else { return };
    for (name, amount) in limits {
        put(requests, &name, amount);
    }
}

fn is_filled(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty())
}

/// A pod's own requests default to the sum of its containers', else to its own limits.
fn fill_pod_resources(spec: &mut Map<String, Value>) {
    if !spec.get("resources").is_some_and(is_filled) {
        return;
    }
    let sums = container_requests(spec);
    let Some(resources) = existing(spec, "resources") else { return };
    let limits = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut requests = resources.get("requests").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, amount) in sums.into_iter().chain(limits) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            put(&mut requests, &name, amount);
        }
    }
    if !requests.is_empty() {
        resources.insert("requests".to_owned(), Value::Object(requests));
    }
}

fn container_requests(spec: &Map<String, Value>) -> Map<String, Value> {
    let mut sums: std::collections::BTreeMap<&str, Quantity> = std::collections::BTreeMap::new();
    for container in spec.get("containers").and_then(Value::as_array).into_iter().flatten() {
        let requests = container.pointer("/resources/requests").and_then(Value::as_object);
        for (name, amount) in requests.into_iter().flatten() {
            if let Ok(amount) = Quantity::from_value(amount) {
                let sum = sums.entry(name).or_insert(Quantity::from_units(0));
                *sum = *sum + amount;
            }
        }
    }
    sums.into_iter().map(|(name, amount)| (name.to_owned(), amount.to_string().into())).collect()
}
