//! What may not change once it is written.

use super::{
    at::{At, Errors},
    difference::difference,
    meta, pod, service, storage,
};
use crate::{
    admission::pod_security::check_labels,
    field::{FieldError, FieldPath},
    kind::Kind,
    object::Object,
    quantity::Quantity,
};
use serde_json::{Map, Value};

pub(super) const IMMUTABLE: &str = "field is immutable";

/// The rules that an update through the API breaks: `new`'s own rules and the fields that may not change.
/// Both are defaulted. Objects declared by files are replaced freely: for them use [`crate::validate()`].
pub fn validate_update(kind: &Kind, old: &Object, new: &Object) -> Errors {
    let mut errors = Vec::new();
    let at = At::root(new.map());
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::update::check(old, new, &at, &mut errors),
        ("", "Service") => service::check_update(old, new, &at, &mut errors),
        _ => {
            meta::check_update(old, new, &at.child("metadata"), &mut errors);
            check_kind(kind, old, new, &at, &mut errors);
            super::check_kind(kind, &at, &mut errors);
        }
    }
    if kind.is_core("Namespace") && errors.is_empty() {
        let wrong = check_labels(new);
        // What was wrong before is nobody's fault who changes something else.
        if wrong != check_labels(old) {
            errors = wrong;
        }
    }
    errors
}

/// The rules that an update of a pod's ephemeral containers breaks.
pub fn validate_ephemeral_containers(old: &Object, new: &Object) -> Errors {
    let mut errors = Vec::new();
    pod::update::check_ephemeral(old, new, &At::root(new.map()), &mut errors);
    errors
}

/// The rules that an update of a pod's resources breaks.
pub fn validate_resize(old: &Object, new: &Object) -> Errors {
    let mut errors = Vec::new();
    pod::update::check_resize(old, new, &At::root(new.map()), &mut errors);
    errors
}

/// An error when the field at `pointer` differs.
pub(super) fn same(old: &Object, new: &Object, pointer: &str, errors: &mut Errors) {
    let (before, after) = (old.get(pointer), new.get(pointer));
    if before != after {
        let found = after.cloned().unwrap_or_else(absent);
        errors.push(FieldError::invalid(&FieldPath::from_pointer(pointer), found, IMMUTABLE));
    }
}

/// What the reference shows of an optional field that is not there: a text.
fn absent() -> Value {
    Value::from("null")
}

fn check_kind(kind: &Kind, old: &Object, new: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let mut fixed = |pointers: &[&str]| pointers.iter().for_each(|pointer| same(old, new, pointer, errors));
    match (kind.group, kind.kind) {
        ("", "ConfigMap") => check_frozen(old, new, &["data", "binaryData"], errors),
        ("", "Secret") => {
            fixed(&["/type"]);
            check_frozen(old, new, &["data"], errors);
        }
        ("", "PersistentVolumeClaim") => check_claim(old, new, errors),
        ("", "PersistentVolume") => check_volume(old, new, errors),
        ("", "ResourceQuota") => check_scopes(old, at, errors),
        ("", "Node") => check_node(old, at, errors),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => fixed(&["/spec/selector"]),
        ("apps", "StatefulSet") => check_stateful_set(old, new, errors),
        ("apps", "ControllerRevision") => fixed(&["/data"]),
        ("batch", "Job") => check_job(old, new, errors),
        ("batch", "CronJob") => super::batch::check_zone(&at.child("spec"), old.spec(), errors),
        ("events.k8s.io", "Event") => super::event::check_update(old, new, at, errors),
        ("networking.k8s.io", "ServiceCIDR") => {
            let before = old.get("/spec/cidrs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            super::network::check_service_cidr_update(before, &at.child("spec"), errors);
        }
        ("discovery.k8s.io", "EndpointSlice") => fixed(&["/addressType"]),
        ("node.k8s.io", "RuntimeClass") => fixed(&["/handler"]),
        ("networking.k8s.io", "IngressClass") => fixed(&["/spec/controller"]),
        ("networking.k8s.io", "IPAddress") => fixed(&["/spec/parentRef"]),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => check_role_ref(old, at, errors),
        ("scheduling.k8s.io", "PriorityClass") => {
            forbid(old, new, "value", "may not be changed in an update.", errors);
            same(old, new, "/preemptionPolicy", errors);
        }
        ("storage.k8s.io", "StorageClass") => {
            forbid(old, new, "parameters", "updates to parameters are forbidden.", errors);
            forbid(old, new, "provisioner", "updates to provisioner are forbidden.", errors);
            forbid(old, new, "reclaimPolicy", "updates to reclaimPolicy are forbidden.", errors);
            same(old, new, "/volumeBindingMode", errors);
        }
        ("storage.k8s.io", "VolumeAttributesClass") => {
            forbid(old, new, "driverName", "updates to driverName are forbidden.", errors);
            forbid(old, new, "parameters", "updates to parameters are forbidden.", errors);
        }
        ("storage.k8s.io", "CSIDriver") => {
            // Misspelt in the reference.
            if old.get("/spec/attachRequired") != new.get("/spec/attachRequired") {
                let found = new.get("/spec/attachRequired").cloned().unwrap_or_else(absent);
                errors.push(FieldError::invalid(&FieldPath::of("spec.attachedRequired"), found, IMMUTABLE));
            }
            same(old, new, "/spec/volumeLifecycleModes", errors);
        }
        ("storage.k8s.io", "CSINode") => check_node_drivers(old, at, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => fixed(&["/nodeTopology", "/storageClassName"]),
        ("storage.k8s.io", "VolumeAttachment") => fixed(&["/spec"]),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            fixed(&["/spec/group", "/spec/names/plural", "/spec/scope", "/spec/names/kind"]);
        }
        _ => {}
    }
}

/// A driver stays what it is on a node, but for how much it can hold.
fn check_node_drivers(old: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let spec = at.child("spec");
    let drivers = spec.child("drivers");
    let kept = |driver: &Value| {
        let mut driver = driver.clone();
        driver.as_object_mut().map(|map| map.remove("allocatable"));
        driver
    };
    for before in old.get("/spec/drivers").and_then(Value::as_array).into_iter().flatten() {
        let same_name = |driver: &At<'_, '_>| before.get("name") == Some(driver.child("name").value);
        for driver in drivers.items().filter(same_name) {
            if kept(before) != kept(driver.value) {
                drivers.invalid_value(errors, kept(driver.value), IMMUTABLE);
            }
        }
    }
}

fn forbid(old: &Object, new: &Object, field: &str, message: &str, errors: &mut Errors) {
    if old.map().get(field) != new.map().get(field) {
        errors.push(FieldError::forbidden(&FieldPath::of(field), message));
    }
}

fn check_frozen(old: &Object, new: &Object, fields: &[&str], errors: &mut Errors) {
    let frozen = |object: &Object| object.map().get("immutable") == Some(&Value::Bool(true));
    if !frozen(old) {
        return;
    }
    let message = "field is immutable when `immutable` is set";
    if !frozen(new) {
        errors.push(FieldError::forbidden(&FieldPath::of("immutable"), message));
    }
    fields.iter().for_each(|field| forbid(old, new, field, message, errors));
}

/// As the reference prints its internal type.
fn check_role_ref(old: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let role = at.child("roleRef");
    if old.get("/roleRef") != Some(role.value) {
        let text = |field| Value::from(role.text(field));
        let shown =
            format!("{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}", text("apiGroup"), text("kind"), text("name"));
        role.raw(errors, crate::FieldReason::Invalid, shown, "cannot change roleRef");
    }
}

fn check_scopes(old: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let spec = at.child("spec");
    let scopes = spec.child("scopes");
    let sorted = |list: &[Value]| {
        let mut texts: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        texts.sort();
        texts
    };
    let before = old.get("/spec/scopes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if sorted(before) != sorted(scopes.list()) {
        scopes.invalid(errors, IMMUTABLE);
    }
}

fn check_node(old: &Object, at: &At<'_, '_>, errors: &mut Errors) {
    let spec = at.child("spec");
    let networks = old.get("/spec/podCIDRs").filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
    if networks.is_some_and(|list| list != spec.child("podCIDRs").value) {
        let message = "node updates may not change podCIDR except from \"\" to valid";
        spec.child("podCIDRs").forbidden(errors, message);
    }
    let provider = old.get_str("/spec/providerID").unwrap_or_default();
    if !provider.is_empty() && provider != spec.text("providerID") {
        let message = "node updates may not change providerID except from \"\" to valid";
        spec.child("providerID").forbidden(errors, message);
    }
    let status = at.child("status");
    let addresses = status.child("addresses");
    for (index, address) in addresses.items().enumerate() {
        if addresses.list()[..index].contains(address.value) {
            address.duplicate(errors, address.value.clone());
        }
    }
}

fn spec_map(object: &Object) -> Map<String, Value> {
    object.spec().and_then(Value::as_object).cloned().unwrap_or_default()
}

fn check_stateful_set(old: &Object, new: &Object, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Object| {
        let mut map = spec_map(object);
        MUTABLE.iter().for_each(|field| drop(map.remove(*field)));
        map
    };
    if fixed(old) != fixed(new) {
        let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&FieldPath::of("spec"), message));
    }
}

fn check_job(old: &Object, new: &Object, errors: &mut Errors) {
    let path = FieldPath::of("spec");
    let indexed = new.get_str("/spec/completionMode") == Some("Indexed");
    if !indexed {
        same(old, new, "/spec/completions", errors);
    } else if old.get("/spec/completions") != new.get("/spec/completions")
        && new.get("/spec/completions") != new.get("/spec/parallelism")
    {
        let found = new.get("/spec/completions").cloned().unwrap_or_else(absent);
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(&path.child("completions"), found, message));
    }
    same(old, new, "/spec/selector", errors);
    let mut template = new.get("/spec/template").cloned().unwrap_or_default();
    // A job that has not started may still be told where and as what its pods run.
    let waiting = old.get("/spec/suspend") == Some(&Value::Bool(true)) && old.get("/status/startTime").is_none();
    if waiting {
        for pointer in [
            "/metadata/labels",
            "/metadata/annotations",
            "/spec/nodeSelector",
            "/spec/tolerations",
            "/spec/schedulingGates",
        ] {
            restore(old.get(&format!("/spec/template{pointer}")), &mut template, pointer);
        }
        restore_node_affinity(old.get("/spec/template/spec/affinity"), &mut template);
    }
    if old.get("/spec/template") != Some(&template) {
        errors.push(FieldError::invalid(&path.child("template"), template, IMMUTABLE));
    }
    for pointer in [
        "/spec/completionMode",
        "/spec/podFailurePolicy",
        "/spec/backoffLimitPerIndex",
        "/spec/managedBy",
        "/spec/successPolicy",
    ] {
        same(old, new, pointer, errors);
    }
}

/// Of a template's affinity only that to nodes may change: puts it back.
fn restore_node_affinity(old: Option<&Value>, template: &mut Value) {
    const NODES: &str = "nodeAffinity";
    let others = |affinity: Option<&Value>| {
        affinity.and_then(Value::as_object).is_some_and(|map| map.keys().any(|kind| kind != NODES))
    };
    if !others(old) && !others(template.pointer("/spec/affinity")) {
        restore(old, template, "/spec/affinity");
    } else {
        restore(old.and_then(|affinity| affinity.get(NODES)), template, "/spec/affinity/nodeAffinity");
    }
}

/// Puts what was at `pointer` back into `new`.
fn restore(old: Option<&Value>, new: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    if let Some(map) = new.pointer_mut(parent).and_then(Value::as_object_mut) {
        match old {
            Some(value) => drop(map.insert(last.to_owned(), value.clone())),
            None => drop(map.remove(last)),
        }
    }
}

fn check_claim(old: &Object, new: &Object, errors: &mut Errors) {
    let (before, mut after) = (spec_map(old), spec_map(new));
    let mut restore_field = |field: &str| match before.get(field) {
        Some(value) => drop(after.insert(field.to_owned(), value.clone())),
        None => drop(after.remove(field)),
    };
    // Filled in once by whoever binds the claim.
    if old.get_str("/spec/volumeName").is_none_or(str::is_empty) {
        restore_field("volumeName");
    }
    if !before.contains_key("storageClassName") {
        restore_field("storageClassName");
    }
    if new.get_str("/status/phase") == Some("Bound") {
        restore_field("volumeAttributesClassName");
        let storage = before.get("resources").and_then(|r| r.pointer("/requests/storage"));
        if let (Some(storage), Some(requests)) =
            (storage, after.get_mut("resources").and_then(|r| r.get_mut("requests")).and_then(Value::as_object_mut))
        {
            requests.insert("storage".to_owned(), storage.clone());
        }
    }
    if before != after {
        let changes = difference("core.PersistentVolumeClaimSpec", &Value::Object(before), &Value::Object(after));
        let message = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{changes}"
        );
        errors.push(FieldError::forbidden(&FieldPath::of("spec"), message));
    }
    let amount = |object: &Object, pointer: &str| object.get(pointer).and_then(|v| Quantity::from_value(v).ok());
    let (was, is) = (amount(old, "/spec/resources/requests/storage"), amount(new, "/spec/resources/requests/storage"));
    let has = amount(old, "/status/capacity/storage").unwrap_or(Quantity::from_units(0));
    if is < was && is.is_some_and(|is| is <= has) {
        let path = FieldPath::of("spec.resources.requests.storage");
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
    if old.get("/spec/volumeMode") != new.get("/spec/volumeMode") {
        let found = new.get("/spec/volumeMode").cloned().unwrap_or_else(absent);
        errors.push(FieldError::invalid(&FieldPath::of("volumeMode"), found, IMMUTABLE));
    }
}

fn check_volume(old: &Object, new: &Object, errors: &mut Errors) {
    let sources = |object: &Object| -> Value {
        let spec = spec_map(object);
        Value::Object(spec.into_iter().filter(|(field, _)| storage::is_source(field)).collect())
    };
    let (before, mut after) = (sources(old), sources(new));
    const EXPAND: &str = "controllerExpandSecretRef";
    if before.pointer("/csi").is_some_and(|csi| csi.get(EXPAND).is_none())
        && let Some(csi) = after.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.remove(EXPAND);
    }
    if before != after {
        let changes = difference("core.PersistentVolumeSource", &before, &after);
        let message = format!("spec.persistentvolumesource is immutable after creation\n{changes}");
        errors.push(FieldError::forbidden(&FieldPath::of("spec.persistentvolumesource"), message));
    }
    if old.get("/spec/volumeMode") != new.get("/spec/volumeMode") {
        let found = new.get("/spec/volumeMode").cloned().unwrap_or_else(absent);
        errors.push(FieldError::invalid(&FieldPath::of("volumeMode"), found, IMMUTABLE));
    }
    let affinity = |object: &Object| object.get("/spec/nodeAffinity").cloned();
    if affinity(old).is_some() && affinity(old) != affinity(new) {
        let message = format!("{IMMUTABLE}, except for updating from beta label to GA");
        let found = affinity(new).unwrap_or_else(absent);
        errors.push(FieldError::invalid(&FieldPath::of("nodeAffinity"), found, message));
    }
}
