//! Cells of rbac, storage, scheduling, coordination and node kinds.

use super::{Cells, NONE, UNSET};
use crate::Quantity;
use serde_json::Value;

pub(super) fn cell(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match cells.kind.kind {
        "RoleBinding" | "ClusterRoleBinding" => binding(cells, column),
        "StorageClass" => storage_class(cells, column),
        "CSIDriver" => driver(cells, column),
        "CSINode" if column == "Drivers" => Some(cells.list("/spec/drivers").len().into()),
        "VolumeAttachment" => attachment(cells, column),
        "VolumeAttributesClass" => volume_attributes_class(cells, column),
        "PriorityClass" => priority_class(cells, column),
        "Lease" if column == "Holder" => Some(cells.text("/spec/holderIdentity").into()),
        "NodeMetrics" | "PodMetrics" => metrics(cells, column),
        "RuntimeClass" if column == "Handler" => Some(cells.text("/handler").into()),
        _ => None,
    }
}

/// As `kubectl get` shows what metrics-server serves.
fn metrics(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let sum = |resource: &str| -> Value {
        let own = cells.object.get("/usage").into_iter();
        let used = own.chain(cells.list("/containers").iter().filter_map(|c| c.get("usage")));
        let quantities = used.filter_map(|u| Quantity::from_value(u.get(resource)?).ok());
        quantities.sum::<Quantity>().to_string().into()
    };
    match column {
        "CPU" => Some(sum("cpu")),
        "Memory" => Some(sum("memory")),
        "Window" => Some(cells.text("/window").into()),
        _ => None,
    }
}

fn flag(cells: &Cells<'_>, pointer: &str) -> Value {
    (cells.object.get(pointer) == Some(&Value::Bool(true))).into()
}

fn binding(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let subjects = |kind: &str| -> Value {
        let of_kind = cells.list("/subjects").iter().filter(|s| s.get("kind").is_some_and(|k| k == kind));
        let text = |subject: &Value| {
            let name = subject.get("name").and_then(Value::as_str).unwrap_or_default();
            match subject.get("namespace").and_then(Value::as_str) {
                Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{name}"),
                _ => name.to_owned(),
            }
        };
        of_kind.map(text).collect::<Vec<_>>().join(", ").into()
    };
    Some(match column {
        "Role" => format!("{}/{}", cells.text("/roleRef/kind"), cells.text("/roleRef/name")).into(),
        "Users" => subjects("User"),
        "Groups" => subjects("Group"),
        "ServiceAccounts" => subjects("ServiceAccount"),
        _ => return None,
    })
}

/// The name of a class, marked where one of the annotations makes it the default.
fn class_name(cells: &Cells<'_>, annotations: &[&str]) -> Value {
    let name = cells.object.name();
    let default = annotations.iter().any(|annotation| cells.object.annotation(annotation) == Some("true"));
    if default { format!("{name} (default)").into() } else { name.into() }
}

fn volume_attributes_class(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Name" => class_name(cells, &["volumeattributesclass.alpha.kubernetes.io/is-default-class"]),
        "DriverName" => cells.text("/driverName").into(),
        _ => return None,
    })
}

fn storage_class(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Name" => class_name(
            cells,
            &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
        ),
        "Provisioner" => cells.text("/provisioner").into(),
        "ReclaimPolicy" => cells.text("/reclaimPolicy").into(),
        "VolumeBindingMode" => cells.text("/volumeBindingMode").into(),
        "AllowVolumeExpansion" => flag(cells, "/allowVolumeExpansion"),
        _ => return None,
    })
}

fn driver(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "AttachRequired" => flag(cells, "/spec/attachRequired"),
        "PodInfoOnMount" => flag(cells, "/spec/podInfoOnMount"),
        "StorageCapacity" => flag(cells, "/spec/storageCapacity"),
        "RequiresRepublish" => flag(cells, "/spec/requiresRepublish"),
        "TokenRequests" => {
            let audiences =
                cells.list("/spec/tokenRequests").iter().filter_map(|request| request.get("audience")?.as_str());
            let audiences: Vec<&str> = audiences.collect();
            (if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") }).into()
        }
        "Modes" => {
            let modes: Vec<&str> = cells.list("/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
            (if modes.is_empty() { NONE.to_owned() } else { modes.join(",") }).into()
        }
        _ => return None,
    })
}

fn attachment(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Attacher" => cells.text("/spec/attacher").into(),
        "PV" => cells.text("/spec/source/persistentVolumeName").into(),
        "Node" => cells.text("/spec/nodeName").into(),
        "Attached" => flag(cells, "/status/attached"),
        _ => return None,
    })
}

fn priority_class(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Value" => cells.number("/value").into(),
        "Global-Default" => flag(cells, "/globalDefault"),
        "PreemptionPolicy" => cells.text("/preemptionPolicy").into(),
        _ => return None,
    })
}
