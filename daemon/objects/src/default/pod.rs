//! Defaults of pods and pod templates.

use super::{child, each, existing, put};
use serde_json::{Map, Value, json};

/// What holds for pods but not for templates, after what holds for both.
pub(super) fn fill_pod(pod: &mut Map<String, Value>) {
    let sparse = existing(pod, "metadata")
        .and_then(|m| existing(m, "annotations"))
        .and_then(|a| a.get(crate::ZONE_BRAND_ANNOTATION))
        .is_some_and(|brand| brand == crate::BRAND_SPARSE);
    let Some(spec) = existing(pod, "spec") else { return };
    fill_spec(spec);
    put(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if sparse && !container.contains_key("image") {
                container.remove("imagePullPolicy");
            }
            if host_network {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        put(port, "hostPort", number);
                    }
                }
            }
        }
    }
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
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    mirror_service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list).for_each(fill_container);
    }
    each(spec, "volumes").for_each(fill_volume);
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
    let policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    put(container, "imagePullPolicy", policy);
    each(container, "ports").for_each(|port| put(port, "protocol", "TCP"));
    for variable in each(container, "env") {
        if let Some(field) = existing(variable, "valueFrom").and_then(|source| existing(source, "fieldRef")) {
            put(field, "apiVersion", "v1");
        }
        if let Some(field) = existing(variable, "valueFrom").and_then(|source| existing(source, "resourceFieldRef")) {
            put(field, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, probe) {
            fill_probe(probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            existing(lifecycle, hook).and_then(|hook| existing(hook, "httpGet")).into_iter().for_each(fill_http_get);
        }
    }
}

/// `Always` for the tag `latest`, written or implied; `IfNotPresent` otherwise and for digests.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let always = !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if always { "Always" } else { "IfNotPresent" }
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
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let Some(requests) = child(resources, "requests") else { return };
    for (name, amount) in limits {
        put(requests, &name, amount);
    }
}

fn fill_volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        put(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            put(source, "defaultMode", 420);
            each(source, "items").for_each(fill_downward_item);
            for part in each(source, "sources") {
                if let Some(token) = existing(part, "serviceAccountToken") {
                    put(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = existing(part, "downwardAPI") {
                    each(downward, "items").for_each(fill_downward_item);
                }
            }
        }
    }
    if let Some(host_path) = existing(volume, "hostPath") {
        put(host_path, "type", "");
    }
    if let Some(image) = existing(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        put(image, "pullPolicy", policy);
    }
    if let Some(spec) = existing(volume, "ephemeral")
        .and_then(|e| existing(e, "volumeClaimTemplate"))
        .and_then(|template| existing(template, "spec"))
    {
        put(spec, "volumeMode", "Filesystem");
    }
}

fn fill_downward_item(item: &mut Map<String, Value>) {
    if let Some(field) = existing(item, "fieldRef") {
        put(field, "apiVersion", "v1");
    }
    if let Some(field) = existing(item, "resourceFieldRef") {
        put(field, "divisor", "0");
    }
}
