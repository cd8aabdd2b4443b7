//! Cells of core/v1 kinds other than pods, and of events in both their groups.

use super::{Cells, NONE, UNKNOWN, UNSET, age, balanced, labels};
use crate::admission::BETA_CLASS;
use serde_json::Value;

pub(super) fn cell(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match cells.kind.kind {
        "ConfigMap" if column == "Data" => Some((cells.count("/data") + cells.count("/binaryData")).into()),
        "Secret" => secret(cells, column),
        "Namespace" if column == "Status" => Some(cells.text("/status/phase").into()),
        "Node" => node(cells, column),
        "Service" => service(cells, column),
        "Event" => event(cells, column),
        "Endpoints" if column == "Endpoints" => Some(super::network::endpoints(cells).into()),
        "ReplicationController" => super::workload::cell(cells, column),
        "PodTemplate" => pod_template(cells, column),
        "PersistentVolumeClaim" => claim(cells, column),
        "PersistentVolume" => volume(cells, column),
        "ResourceQuota" => quota(cells, column),
        _ => None,
    }
}

fn secret(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match column {
        "Type" => Some(cells.text("/type").into()),
        "Data" => Some(cells.count("/data").into()),
        _ => None,
    }
}

fn node(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let address = |kind: &str| -> Value {
        let found = cells.list("/status/addresses").iter().find(|a| a.get("type").is_some_and(|t| t == kind));
        found.and_then(|a| a.get("address")?.as_str()).unwrap_or(NONE).into()
    };
    Some(match column {
        "Status" => node_status(cells).into(),
        "Roles" => node_roles(cells).into(),
        "Version" => cells.text("/status/nodeInfo/kubeletVersion").into(),
        "Internal-IP" => address("InternalIP"),
        "External-IP" => address("ExternalIP"),
        "OS-Image" => cells.text_or("/status/nodeInfo/osImage", UNKNOWN),
        "Kernel-Version" => cells.text_or("/status/nodeInfo/kernelVersion", UNKNOWN),
        "Container-Runtime" => cells.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
        _ => return None,
    })
}

fn node_status(cells: &Cells<'_>) -> String {
    let ready = cells.list("/status/conditions").iter().find(|c| c.get("type").is_some_and(|t| t == "Ready"));
    let word = match ready.and_then(|c| c.get("status")?.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = cells.object.get("/spec/unschedulable") == Some(&Value::Bool(true));
    if unschedulable { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn node_roles(cells: &Cells<'_>) -> String {
    let role = |(key, value): (&str, &str)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        None if key == "kubernetes.io/role" && !value.is_empty() => Some(value.to_owned()),
        _ => None,
    };
    let mut roles: Vec<String> = cells.object.labels().filter_map(role).collect();
    roles.sort();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn service(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Type" => cells.text("/spec/type").into(),
        "Cluster-IP" => cells.text_or("/spec/clusterIP", NONE),
        "External-IP" => external_address(cells).into(),
        "Port(s)" => service_ports(cells).into(),
        "Selector" => labels(cells.object.get("/spec/selector")).into(),
        _ => return None,
    })
}

fn external_address(cells: &Cells<'_>) -> String {
    let external = cells.list("/spec/externalIPs").iter().filter_map(Value::as_str);
    let mut addresses: Vec<&str> = Vec::new();
    match cells.text("/spec/type") {
        "ExternalName" => return cells.text("/spec/externalName").to_owned(),
        "LoadBalancer" => addresses.extend(balanced(cells)),
        _ => {}
    }
    addresses.extend(external);
    match (addresses.is_empty(), cells.text("/spec/type")) {
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => NONE.to_owned(),
        _ => addresses.join(","),
    }
}

fn service_ports(cells: &Cells<'_>) -> String {
    let port = |port: &Value| {
        let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or_default();
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        match number("nodePort") {
            0 => format!("{}/{protocol}", number("port")),
            node_port => format!("{}:{node_port}/{protocol}", number("port")),
        }
    };
    let ports: Vec<String> = cells.list("/spec/ports").iter().map(port).collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

fn event(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let either = |a: &str, b: &str| match cells.text(a) {
        "" => cells.text(b).to_owned(),
        text => text.to_owned(),
    };
    let series = cells.object.get("/series").filter(|series| series.is_object());
    let first = || {
        let time =
            ["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"].iter().find_map(|p| cells.object.time(p));
        age(time, cells.now)
    };
    Some(match column {
        "Last Seen" if series.is_some() => cells.since("/series/lastObservedTime").into(),
        "Last Seen" => {
            let last = cells.object.time("/lastTimestamp").or_else(|| cells.object.time("/deprecatedLastTimestamp"));
            last.map_or_else(first, |last| age(Some(last), cells.now)).into()
        }
        "First Seen" => first().into(),
        "Type" => cells.text("/type").into(),
        "Reason" => cells.text("/reason").into(),
        "Object" => {
            let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
            match either("/involvedObject/name", "/regarding/name").as_str() {
                "" => kind.into(),
                name => format!("{kind}/{name}").into(),
            }
        }
        "Subobject" => either("/involvedObject/fieldPath", "/regarding/fieldPath").into(),
        "Source" => event_source(cells).into(),
        "Message" => either("/message", "/note").trim().into(),
        "Count" => match series.map(|_| cells.number("/series/count")) {
            Some(count) => count.into(),
            None => cells.number("/count").max(cells.number("/deprecatedCount")).max(1).into(),
        },
        _ => return None,
    })
}

fn event_source(cells: &Cells<'_>) -> String {
    let first =
        |pointers: &[&str]| pointers.iter().map(|p| cells.text(p)).find(|text| !text.is_empty()).unwrap_or_default();
    let component =
        first(&["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"]);
    match first(&["/source/host", "/deprecatedSource/host", "/reportingInstance"]) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

fn pod_template(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Containers" => cells.joined("/template/spec/containers", "name"),
        "Images" => cells.joined("/template/spec/containers", "image"),
        "Pod Labels" => labels(cells.object.get("/template/metadata/labels")).into(),
        _ => return None,
    })
}

/// Access modes in the order in which they are shown, however they were given.
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

fn storage_class(cells: &Cells<'_>) -> Value {
    cells.object.annotation(BETA_CLASS).unwrap_or_else(|| cells.text("/spec/storageClassName")).into()
}

fn access_modes(cells: &Cells<'_>, pointer: &str) -> String {
    let given = cells.list(pointer);
    let short = ACCESS_MODES.iter().filter(|(mode, _)| given.iter().any(|g| g == mode)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

fn phase(cells: &Cells<'_>) -> Value {
    if cells.object.deletion_timestamp().is_some() { "Terminating".into() } else { cells.text("/status/phase").into() }
}

fn claim(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let bound = !cells.text("/spec/volumeName").is_empty();
    Some(match column {
        "Status" => phase(cells),
        "Volume" => cells.text("/spec/volumeName").into(),
        "Capacity" if bound => cells.text_or("/status/capacity/storage", "0"),
        "Access Modes" if bound => access_modes(cells, "/status/accessModes").into(),
        "Capacity" | "Access Modes" => "".into(),
        "StorageClass" => storage_class(cells),
        "VolumeAttributesClass" => cells.text_or("/spec/volumeAttributesClassName", UNSET),
        "VolumeMode" => cells.text_or("/spec/volumeMode", UNSET),
        _ => return None,
    })
}

fn volume(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Capacity" => cells.text_or("/spec/capacity/storage", "0"),
        "Access Modes" => access_modes(cells, "/spec/accessModes").into(),
        "Reclaim Policy" => cells.text("/spec/persistentVolumeReclaimPolicy").into(),
        "Status" => phase(cells),
        "Claim" => match (cells.text("/spec/claimRef/namespace"), cells.text("/spec/claimRef/name")) {
            ("", "") => "".into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        },
        "StorageClass" => storage_class(cells),
        "VolumeAttributesClass" => cells.text_or("/spec/volumeAttributesClassName", UNSET),
        "Reason" => cells.text("/status/reason").into(),
        "VolumeMode" => cells.text_or("/spec/volumeMode", UNSET),
        _ => return None,
    })
}

/// Limits go into one column, everything else into the other.
fn quota(cells: &Cells<'_>, column: &str) -> Option<Value> {
    if column != "Request" && column != "Limit" {
        return None;
    }
    let hard = cells.object.get("/status/hard").and_then(Value::as_object).into_iter().flatten();
    let entry = |(name, amount): (&String, &Value)| {
        let used = cells.object.get("/status/used").and_then(|used| used.get(name)?.as_str()).unwrap_or("0");
        format!("{name}: {used}/{}", amount.as_str().unwrap_or_default())
    };
    let wanted = hard.filter(|(name, _)| name.starts_with("limits") == (column == "Limit"));
    Some(wanted.map(entry).collect::<Vec<_>>().join(", ").into())
}
