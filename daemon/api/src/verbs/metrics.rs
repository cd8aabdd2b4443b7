//! metrics.k8s.io: what nodes and pods use, as metrics-server tells it.
//!
//! Source: kubernetes/metrics, v1beta1. Objects bear the labels of what they are about, so that selectors work.

use crate::runtime::{MetricsReport, Used};
use crate::serve::dispatch::Call;
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};
use std::time::Duration;

/// The group.
pub(super) const GROUP: &str = "metrics.k8s.io";

/// The NodeMetrics or PodMetrics that a request is about.
///
/// # Errors
/// 501, 503 when there is no node to ask; what the registry refuses.
pub(super) async fn objects(call: &Call, resource: &ResourceRequest) -> Result<Vec<Object>, ApiError> {
    let report = call.state.deps.runtime.metrics_report().await?;
    match resource.kind.kind {
        "NodeMetrics" => node(call, resource.kind, &report),
        _ => pods(call, resource, &report),
    }
}

/// What a name that has no metrics is answered.
pub(super) fn not_found(resource: &ResourceRequest, name: &str) -> ApiError {
    // As metrics-server: by the kind, and with the namespace before the name.
    let name = match &resource.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    let key = ObjectKey { resource: resource.kind.singular.to_owned(), ..key_of(resource.kind, None, &name) };
    RegistryError::NotFound(key).into()
}

fn node(call: &Call, kind: &Kind, report: &MetricsReport) -> Result<Vec<Object>, ApiError> {
    let Some(nodes) = kinds().by_group_resource("", "nodes") else { return Ok(Vec::new()) };
    let Some(node) = call.state.deps.registry.find(&key_of(nodes, None, &report.node))? else {
        return Ok(Vec::new());
    };
    let mut object = begun(kind, &node, report);
    object.set("/usage", usage(report.used));
    Ok(vec![object])
}

fn pods(call: &Call, resource: &ResourceRequest, report: &MetricsReport) -> Result<Vec<Object>, ApiError> {
    let Some(pods) = kinds().by_group_resource("", "pods") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (name, containers) in &report.pods {
        let wanted = resource.namespace.as_ref().is_none_or(|n| *n == name.namespace)
            && resource.name.as_ref().is_none_or(|n| *n == name.name);
        if !wanted {
            continue;
        }
        let key = key_of(pods, Some(&name.namespace), &name.name);
        let Some(pod) = call.state.deps.registry.find(&key)? else { continue };
        let mut object = begun(resource.kind, &pod, report);
        let containers = containers.iter().map(|(name, used)| json!({"name": name, "usage": usage(*used)}));
        object.set("/containers", containers.collect::<Value>());
        found.push(object);
    }
    Ok(found)
}

/// Name, labels and times.
fn begun(kind: &Kind, of: &Object, report: &MetricsReport) -> Object {
    let mut object = Object::new(kind, of.namespace(), of.name());
    for (key, value) in of.labels() {
        object.set_label(key, value);
    }
    object.set_creation_timestamp(report.time);
    object.set("/timestamp", report.time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    object.set("/window", window(report.window));
    object
}

fn usage(used: Used) -> Value {
    json!({"cpu": cores(used.cpu_nanocores), "memory": bytes(used.memory_bytes)})
}

/// A time span as Go prints it.
fn window(window: Duration) -> String {
    let millis = window.as_millis();
    let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
    format!("{}s", seconds.trim_end_matches('0').trim_end_matches('.'))
}

/// Billionths of a processor as a quantity in its shortest form.
fn cores(nanos: u64) -> String {
    let units = [(1_000_000_000, ""), (1_000_000, "m"), (1000, "u"), (1, "n")];
    let fits = units.iter().find(|(unit, _)| nanos.is_multiple_of(*unit));
    fits.map_or_else(String::new, |(unit, suffix)| format!("{}{suffix}", nanos / unit))
}

/// Bytes as a quantity: in KiB where they are whole ones, as metrics-server has them.
fn bytes(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1024) { format!("{}Ki", bytes / 1024) } else { bytes.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short_and_exact() {
        let cpu: Vec<String> = [0, 1, 1500, 3_000_000, 250_000_000, 2_000_000_000].map(cores).into();
        assert_eq!(cpu, ["0", "1n", "1500n", "3m", "250m", "2"]);
        assert_eq!([0, 1000, 18_984_960].map(bytes), ["0", "1000", "18540Ki"]);
        let windows = [15_000, 1_003, 20_500].map(|ms| window(Duration::from_millis(ms)));
        assert_eq!(windows, ["15s", "1.003s", "20.5s"]);
    }
}
