//! Rules of persistent volumes and claims, and of the storage group.

use super::{
    at::{At, Errors},
    meta,
    pod::{scheduling, source},
    rules,
};
use crate::{field::FieldReason, names};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 << 10;

/// The sources of a persistent volume in the order in which the reference looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Is this field of a persistent volume's spec its source?
pub(super) fn is_source(field: &str) -> bool {
    SOURCES.contains(&field)
}

/// A persistent volume's spec.
pub(super) fn check_volume(volume: &At<'_, '_>, errors: &mut Errors) {
    let spec = volume.child("spec");
    let modes = spec.child("accessModes");
    if modes.list().is_empty() {
        modes.required(errors, "");
    }
    check_modes(&modes, errors);
    check_capacity(&spec.child("capacity"), errors);
    spec.one_of(errors, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]);
    let affinity = spec.child("nodeAffinity");
    if !affinity.value.is_null() {
        match affinity.given("required") {
            Some(required) => scheduling::check_node_selector(&required, errors),
            None => affinity.child("required").required(errors, "must specify required node constraints"),
        }
    }
    check_volume_source(&spec, volume.child("metadata").text("name"), errors);
    spec.optional_name(errors, "storageClassName", names::dns1123_subdomain);
    spec.one_of(errors, "volumeMode", VOLUME_MODES);
    if let Some(class) = spec.given("volumeAttributesClassName") {
        if class.str().is_empty() {
            class.required(errors, "an empty string is disallowed");
        } else {
            class.check_text(errors, names::dns1123_subdomain);
        }
        if !spec.has("csi") {
            spec.child("csi").required(errors, "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn check_volume_source(spec: &At<'_, '_>, name: &str, errors: &mut Errors) {
    let mut found = false;
    for kind in SOURCES {
        let Some(at) = spec.given(kind) else { continue };
        if found {
            at.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        source::check(kind, &at, name, true, errors);
        if kind == "local" && !spec.has("nodeAffinity") {
            spec.child("nodeAffinity").required(errors, "Local volume requires node affinity");
        }
    }
    if !found {
        spec.required(errors, "must specify a volume type");
    }
    let path = spec.child("hostPath").text("path");
    let is_root = !path.is_empty() && path.split('/').all(|part| part.is_empty() || part == ".");
    if is_root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let message = "may not be 'recycle' for a hostPath mount of '/'";
        spec.child("persistentVolumeReclaimPolicy").forbidden(errors, message);
    }
}

fn check_modes(modes: &At<'_, '_>, errors: &mut Errors) {
    let (mut alone, mut others) = (false, false);
    for mode in modes.items() {
        let known = ACCESS_MODES.contains(&mode.str());
        if !known {
            modes.not_supported(errors, mode.str(), ACCESS_MODES);
        }
        alone |= mode.str() == "ReadWriteOncePod";
        others |= known && mode.str() != "ReadWriteOncePod";
    }
    if alone && others {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

fn check_capacity(capacity: &At<'_, '_>, errors: &mut Errors) {
    let amounts = capacity.entries().count();
    if amounts == 0 {
        capacity.required(errors, "");
    }
    if amounts != 1 || !capacity.has("storage") {
        let message = "supported values: \"storage\"";
        capacity.raw(errors, FieldReason::NotSupported, capacity.value.to_string(), message);
    }
    for (_, amount) in capacity.entries() {
        if let Some(found) = rules::quantity(&amount) {
            if found.is_negative() {
                amount.invalid_value(errors, found.units(), "must be a valid resource quantity");
            }
            if found.is_negative() || found.is_zero() {
                amount.invalid_value(errors, found.to_string(), rules::NOT_POSITIVE);
            }
        }
    }
}

/// The template of a claim that is made for a pod.
pub(super) fn check_claim_template(template: &At<'_, '_>, errors: &mut Errors) {
    let metadata = template.child("metadata");
    meta::check_annotations(&metadata, errors);
    rules::labels(&metadata, "labels", errors);
    for (field, _) in metadata.value.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "labels" | "annotations") {
            errors.push(crate::field::FieldError::forbidden(&metadata.path().child(field.as_str()), "cannot be set"));
        }
    }
    check_claim(&template.child("spec"), errors);
}

/// A claim's spec.
pub(super) fn check_claim(spec: &At<'_, '_>, errors: &mut Errors) {
    let modes = spec.child("accessModes");
    if modes.list().is_empty() {
        modes.required(errors, "at least 1 access mode is required");
    }
    if let Some(selector) = spec.given("selector") {
        rules::label_selector(&selector, errors);
    }
    check_modes(&modes, errors);
    let resources = spec.child("resources");
    let requests = resources.child("requests");
    let (asked, shown) = (requests.map_key("storage"), resources.map_key("storage"));
    match rules::quantity(&asked) {
        None => shown.required(errors, ""),
        Some(amount) if amount.is_zero() || amount.is_negative() => {
            shown.invalid_value(errors, amount.to_string(), rules::NOT_POSITIVE);
        }
        Some(_) => {}
    }
    spec.optional_name(errors, "storageClassName", names::dns1123_subdomain);
    spec.one_of(errors, "volumeMode", VOLUME_MODES);
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.given(field) {
            check_data_source(&source, errors);
        }
    }
    check_both_sources(spec, errors);
    spec.optional_name(errors, "volumeAttributesClassName", names::dns1123_subdomain);
}

fn check_data_source(source: &At<'_, '_>, errors: &mut Errors) {
    source.require(errors, "name");
    source.require(errors, "kind");
    let group = source.text("apiGroup");
    if group.is_empty() && source.text("kind") != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.invalid_value(errors, source.text("kind"), message);
    }
    source.optional_name(errors, "apiGroup", names::dns1123_subdomain);
    source.optional_name(errors, "namespace", names::dns1123_label);
}

fn check_both_sources(spec: &At<'_, '_>, errors: &mut Errors) {
    let (source, reference) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    if source.value.is_null() || reference.value.is_null() {
        return;
    }
    let same = ["apiGroup", "kind", "name"].iter().all(|field| source.text(field) == reference.text(field));
    let message = if !reference.text("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if !same {
        "must match dataSourceRef"
    } else {
        return;
    };
    // The reference shows the path where the value should be.
    spec.raw(errors, FieldReason::Invalid, source.path().to_string(), message);
}

/// A storage class.
pub(super) fn check_class(class: &At<'_, '_>, errors: &mut Errors) {
    check_provisioner(class, "provisioner", errors);
    check_parameters(&class.child("parameters"), errors);
    class.one_of(errors, "reclaimPolicy", &["Delete", "Retain"]);
    class.require_one_of(errors, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    for term in class.child("allowedTopologies").items() {
        let mut seen: Vec<&str> = Vec::new();
        for expression in term.child("matchLabelExpressions").items() {
            let values = expression.child("values");
            if values.list().is_empty() {
                values.required(errors, "");
            }
            for (index, value) in values.items().enumerate() {
                if values.list()[..index].contains(value.value) {
                    value.duplicate(errors, value.str());
                }
            }
            let key = expression.child("key");
            rules::label_key(&key, errors);
            if seen.contains(&key.str()) {
                key.duplicate(errors, key.str());
            }
            seen.push(key.str());
        }
    }
}

fn check_provisioner(class: &At<'_, '_>, field: &'static str, errors: &mut Errors) {
    if class.require(errors, field) {
        // The reference shows the name as it compares it.
        let lower = class.text(field).to_lowercase();
        class.child(field).invalid_all(errors, &lower, names::qualified_name(&lower));
    }
}

fn check_parameters(parameters: &At<'_, '_>, errors: &mut Errors) {
    let count = parameters.entries().count();
    if count > PARAMETERS_MAX {
        parameters.too_long(errors, PARAMETERS_MAX);
        return;
    }
    let mut size = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            parameters.invalid_value(errors, "", "field can not be empty.");
        }
        size += key.len() + value.str().len();
    }
    if size > PARAMETERS_SIZE_MAX {
        parameters.too_long(errors, PARAMETERS_SIZE_MAX);
    }
}

/// A class of volume attributes.
pub(super) fn check_attributes_class(class: &At<'_, '_>, errors: &mut Errors) {
    check_provisioner(class, "driverName", errors);
    check_parameters(&class.child("parameters"), errors);
    if !class.filled("parameters") {
        class.child("parameters").required(errors, "must contain at least one key/value pair");
    }
}

/// A driver.
pub(super) fn check_driver(driver: &At<'_, '_>, errors: &mut Errors) {
    let name = driver.child("metadata");
    rules::driver_name(&name.child("name"), errors);
    let spec = driver.child("spec");
    // The first is misspelt in the reference.
    let needed = [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ];
    for (_, shown) in needed.into_iter().filter(|(field, _)| !spec.has(field)) {
        spec.child(shown).required(errors, "");
    }
    spec.one_of(errors, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences: Vec<&str> = Vec::new();
    for request in spec.child("tokenRequests").items() {
        let audience = request.text("audience");
        if audiences.contains(&audience) {
            request.child("audience").duplicate(errors, audience);
            continue;
        }
        audiences.push(audience);
        if let Some(seconds) = request.number("expirationSeconds") {
            let at = request.child("expirationSeconds");
            if seconds < 600 {
                at.invalid(errors, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                at.invalid(errors, "may not specify a duration larger than 2^32 seconds");
            }
        }
    }
    let modes = spec.child("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !["Persistent", "Ephemeral"].contains(&mode.str())) {
        modes.not_supported(errors, mode.str(), &["Persistent", "Ephemeral"]);
    }
    const PERIOD: &str = "nodeAllocatableUpdatePeriodSeconds";
    if spec.number(PERIOD).is_some_and(|seconds| seconds < 10) {
        spec.child(PERIOD).invalid(errors, "must be greater than or equal to 10 seconds");
    }
}

/// The drivers of a node.
pub(super) fn check_node_drivers(node: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for driver in node.child("spec").child("drivers").items() {
        let name = driver.child("name");
        rules::driver_name(&name, errors);
        if driver.require(errors, "nodeID") && driver.text("nodeID").len() > 192 {
            driver.child("nodeID").invalid(errors, "must be 192 characters or less");
        }
        driver.child("allocatable").not_negative(errors, "count");
        if seen.contains(&name.str()) {
            name.duplicate(errors, name.str());
        }
        seen.push(name.str());
        // The reference shows these at the driver.
        let keys = driver.child("topologyKeys");
        for (index, key) in keys.items().enumerate() {
            if key.str().is_empty() {
                driver.required(errors, "");
            }
            if keys.list()[..index].contains(key.value) {
                driver.duplicate(errors, key.str());
            }
            driver.invalid_all(errors, key.str(), names::qualified_name(key.str()));
        }
    }
}

/// A volume that a node is given.
pub(super) fn check_attachment(attachment: &At<'_, '_>, errors: &mut Errors) {
    let spec = attachment.child("spec");
    let attacher = spec.child("attacher");
    rules::driver_name(&attacher, errors);
    let source = spec.child("source");
    match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (false, false) => {
            source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, true) => {
            source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (_, true) => {
            let name = source.child("persistentVolumeName");
            if name.str().is_empty() {
                name.required(errors, "must specify non empty persistentVolumeName");
            }
            name.check_text(errors, names::dns1123_subdomain);
        }
        (true, false) => {}
    }
    spec.child("nodeName").check_text(errors, names::dns1123_subdomain);
}

/// How much can be made of a class.
pub(super) fn check_storage_capacity(capacity: &At<'_, '_>, errors: &mut Errors) {
    capacity.child("storageClassName").check_text(errors, names::dns1123_subdomain);
    if let Some(topology) = capacity.given("nodeTopology") {
        rules::label_selector(&topology, errors);
    }
    for field in ["capacity", "maximumVolumeSize"] {
        let at = capacity.child(field);
        if let Some(amount) = rules::quantity(&at).filter(crate::Quantity::is_negative) {
            at.invalid_value(errors, amount.to_string(), rules::NEGATIVE);
        }
    }
}
