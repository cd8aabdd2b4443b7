//! The Node object of this host, in the shape that `kubectl describe node` expects. Pure.

use crate::pressure::{Conditions, NodeCondition};
use crate::settings::{NodeSettings, StorageHealth};
use chrono::{DateTime, Utc};
use reddwarf_host::{Brand, HostInfo, HostObservation, Observation, SandboxState};
use reddwarf_objects::{Object, ZONE_BRANDS_LABEL, ZONE_COUNT_ANNOTATION, ZONE_SUMMARY_ANNOTATION};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A node that has not been heard of for so long is not ready.
pub const STALE_AFTER: Duration = Duration::from_secs(40);
/// How often nodes are looked at.
pub const HEALTH_EVERY: Duration = Duration::from_secs(15);
/// Conditions that do not change are written anew this seldom; the heartbeat in memory says in between that the node is alive.
const CONDITIONS_EVERY: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// What a Node object is made from.
#[derive(Clone, Copy, Debug)]
pub struct NodeInput<'a> {
    /// The node's settings.
    pub settings: &'a NodeSettings,
    /// The host.
    pub info: &'a HostInfo,
    /// The newest observation.
    pub observed: Option<&'a HostObservation>,
    /// Why the node can't do its work; `None`: it can.
    pub trouble: Option<&'a str>,
    /// What the host is short of.
    pub pressure: &'a Conditions,
    /// Whether volumes can be had, once that is known.
    pub storage: Option<&'a StorageHealth>,
    /// The Node object as last written.
    pub previous: Option<&'a Object>,
    /// The time for people.
    pub now: DateTime<Utc>,
}

/// The Node object: metadata (labels, annotations), its part of the spec, and status.
pub fn node_object(input: NodeInput<'_>) -> Option<Object> {
    let NodeInput { settings, info, observed, .. } = input;
    let os = if info.kind == "illumos" { "illumos" } else { "linux" };
    let brands = info.brands.iter().map(Brand::as_str).collect::<Vec<_>>().join(".");
    let (count, summary) = zones(observed);
    let pods = settings.max_pods.to_string();
    let capacity = |cpu: u64, memory: u64| {
        json!({
            "cpu": millis(cpu),
            "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": format!("{}Ki", info.storage_bytes / 1024),
            "pods": pods,
        })
    };
    let mut addresses: Vec<Value> =
        info.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": settings.node_name}));
    let value = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.node_name,
            "labels": {
                "kubernetes.io/hostname": settings.node_name,
                "kubernetes.io/os": os,
                "kubernetes.io/arch": info.architecture,
                ZONE_BRANDS_LABEL: brands,
            },
            "annotations": annotations(settings, &count, &summary),
        },
        "spec": spec(input),
        "status": {
            "capacity": capacity(info.cpu_millis, info.memory_bytes),
            "allocatable": capacity(
                info.cpu_millis.saturating_sub(settings.system_reserved_cpu_millis),
                info.memory_bytes.saturating_sub(settings.system_reserved_memory_bytes),
            ),
            "addresses": addresses,
            "conditions": conditions(input),
            "images": images(observed),
            "nodeInfo": {
                "machineID": info.machine_id,
                "systemUUID": info.machine_id,
                "bootID": info.boot_id,
                "kernelVersion": info.kernel_version,
                "osImage": info.os_image,
                "containerRuntimeVersion": info.runtime_version,
                "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-reddwarf"),
                "kubeProxyVersion": "",
                "operatingSystem": os,
                "architecture": info.architecture,
            },
        },
    });
    Object::from_value(value).ok()
}

/// The condition that says whether volumes can be had.
const STORAGE_READY: &str = "reddwarf.io/StorageReady";
/// Which storage the node's volumes are on, and why.
const STORAGE_ANNOTATION: &str = "reddwarf.io/storage";

fn annotations(settings: &NodeSettings, count: &str, summary: &str) -> Value {
    let mut all = json!({ ZONE_COUNT_ANNOTATION: count, ZONE_SUMMARY_ANNOTATION: summary });
    if let Some(storage) = &settings.storage {
        all[STORAGE_ANNOTATION] = Value::from(storage.about.as_str());
    }
    all
}

/// Whole seconds in UTC, as objects hold times.
fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// CPU as Kubernetes prints it: whole ones plain, parts in thousandths.
fn millis(cpu: u64) -> String {
    if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") }
}

/// How many zones there are, and how many in which state.
fn zones(observed: Option<&HostObservation>) -> (String, String) {
    let Some(all) = observed.and_then(|o| o.sandboxes.known()) else { return ("unknown".into(), "unknown".into()) };
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for sandbox in all.values() {
        let state = match sandbox {
            Observation::Unknown(_) => "unknown",
            Observation::Known(s) => match &s.state {
                SandboxState::Partial(_) => "partial",
                SandboxState::Running => "running",
                SandboxState::Stopping => "stopping",
                SandboxState::Stopped => "stopped",
                SandboxState::Other(_) => "other",
            },
        };
        *states.entry(state).or_default() += 1;
    }
    let summary = states.iter().map(|(state, n)| format!("{state}={n}")).collect::<Vec<_>>().join(",");
    (all.len().to_string(), summary)
}

/// At most 50 images, the largest first, as the kubelet lists them.
fn images(observed: Option<&HostObservation>) -> Value {
    let mut images: Vec<_> = observed.and_then(|o| o.images.known()).into_iter().flat_map(|all| all.values()).collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    images.iter().take(50).map(|i| json!({"names": i.names, "sizeBytes": i.size_bytes})).collect()
}

fn conditions(input: NodeInput<'_>) -> Value {
    let ready = match input.trouble {
        None => ("True", "KubeletReady", "reddwarfd is managing this host".to_owned()),
        Some(trouble) => ("False", "KubeletNotReady", trouble.to_owned()),
    };
    let pressure = NodeCondition::ALL.map(|condition| {
        let holds = input.pressure.holds(condition);
        let (reason, message) = condition.words(holds);
        (condition.name().to_owned(), (if holds { "True" } else { "False" }, reason, message.to_owned()))
    });
    let storage = input.storage.map(|health| {
        let status = if health.ready { "True" } else { "False" };
        (STORAGE_READY.to_owned(), (status, health.reason, health.message.clone()))
    });
    let all: Vec<Value> = pressure
        .into_iter()
        .chain(storage)
        .chain([("Ready".to_owned(), ready)])
        .map(|(kind, (status, reason, message))| {
            let before = input.previous.and_then(|node| node.condition(&kind));
            let text = |field: &str| before.and_then(|b| b.get(field)).and_then(Value::as_str);
            let now = timestamp(input.now);
            let since = text("lastTransitionTime").filter(|_| text("status") == Some(status)).unwrap_or(&now);
            let same =
                text("status") == Some(status) && text("reason") == Some(reason) && text("message") == Some(&message);
            let recent = |t: &&str| {
                DateTime::parse_from_rfc3339(t).is_ok_and(|t| (input.now - t.to_utc()).abs() < CONDITIONS_EVERY)
            };
            let heard = text("lastHeartbeatTime").filter(|_| same).filter(recent).unwrap_or(&now);
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since, "lastHeartbeatTime": heard,
            })
        })
        .collect();
    Value::Array(all)
}

/// Where pods' addresses are from; taints.
fn spec(input: NodeInput<'_>) -> Value {
    let pools: Vec<String> = input.settings.network.subnets().iter().map(|s| s.cidr.trunc().to_string()).collect();
    json!({ "podCIDR": pools.first(), "podCIDRs": pools, "taints": taints(input) })
}

/// Keeps pods away while the host is short of something. Others' taints are not ours to know.
fn taints(input: NodeInput<'_>) -> Value {
    let taint = |condition: NodeCondition| {
        let before = input.previous.and_then(|n| n.get("/spec/taints")).and_then(Value::as_array);
        let before = before.into_iter().flatten().find(|t| t.get("key").is_some_and(|k| k == condition.taint()));
        let since =
            before.and_then(|t| t.get("timeAdded")?.as_str()).map_or_else(|| timestamp(input.now), str::to_owned);
        json!({"key": condition.taint(), "effect": "NoSchedule", "timeAdded": since})
    };
    input.pressure.all().map(taint).collect()
}

/// Judges a node by when it was last heard of (row F17): past [`STALE_AFTER`], the Node object with every condition
/// `Unknown` for the reason `NodeStatusUnknown`. `None`: nothing is to be changed. `silent_for` is monotonic.
pub fn judge(node: &Object, silent_for: Duration, now: DateTime<Utc>) -> Option<Object> {
    if silent_for <= STALE_AFTER {
        return None;
    }
    let mut conditions = node.get("/status/conditions")?.as_array()?.clone();
    let mut changed = false;
    for condition in &mut conditions {
        let Some(condition) = condition.as_object_mut() else { continue };
        if condition.get("status").and_then(Value::as_str) == Some("Unknown") {
            continue;
        }
        changed = true;
        condition.insert("status".into(), "Unknown".into());
        condition.insert("reason".into(), "NodeStatusUnknown".into());
        condition.insert("message".into(), "The node stopped saying that it is alive.".into());
        condition.insert("lastTransitionTime".into(), timestamp(now).into());
    }
    if !changed {
        return None;
    }
    let mut node = node.clone();
    node.set("/status/conditions", Value::Array(conditions));
    Some(node)
}
