//! Rules of the sources that volumes of pods and persistent volumes have in common.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks the source `kind` of the volume `name`; `persistent` for that of a persistent volume.
pub(in crate::validate) fn check(kind: &str, at: &At<'_, '_>, name: &str, persistent: bool, errors: &mut Errors) {
    match kind {
        "hostPath" => check_host_path(at, errors),
        "local" => check_path(at, errors),
        "gcePersistentDisk" => check_disk(at, "pdName", errors),
        "awsElasticBlockStore" => check_disk(at, "volumeID", errors),
        "nfs" => {
            at.require(errors, "server");
            at.require(errors, "path");
            if !at.text("path").starts_with('/') {
                at.child("path").invalid_value(errors, at.text("path"), "must be an absolute path");
            }
        }
        "iscsi" => check_iscsi(at, name, persistent, errors),
        "glusterfs" => {
            require_all(at, &["endpoints", "path"], errors);
            if let Some(namespace) = at.given("endpointsNamespace") {
                namespace.check_text(errors, names::dns1123_label);
            }
        }
        "flocker" => check_flocker(at, errors),
        "rbd" => {
            require_list(at, "monitors", errors);
            at.require(errors, "image");
        }
        "cinder" => {
            at.require(errors, "volumeID");
            check_secret(at, persistent, errors);
        }
        "cephfs" => require_list(at, "monitors", errors),
        "quobyte" => check_quobyte(at, errors),
        "fc" => check_fibre_channel(at, errors),
        "flexVolume" => check_flex(at, errors),
        "azureFile" => {
            require_all(at, &["secretName", "shareName"], errors);
            if at.has("secretNamespace") {
                at.require(errors, "secretNamespace");
            }
        }
        "azureDisk" => check_azure_disk(at, errors),
        "vsphereVolume" => require_all(at, &["volumePath"], errors),
        "photonPersistentDisk" => require_all(at, &["pdID"], errors),
        "portworxVolume" => require_all(at, &["volumeID"], errors),
        "scaleIO" => require_all(at, &["gateway", "system", "volumeName"], errors),
        "storageos" => {
            at.require_name(errors, "volumeName", names::dns1123_label);
            at.optional_name(errors, "volumeNamespace", names::dns1123_label);
            check_secret(at, persistent, errors);
        }
        "csi" => check_persistent_csi(at, errors),
        _ => {}
    }
}

fn require_all(at: &At<'_, '_>, fields: &[&'static str], errors: &mut Errors) {
    for field in fields {
        at.require(errors, field);
    }
}

fn require_list(at: &At<'_, '_>, field: &'static str, errors: &mut Errors) {
    if !at.filled(field) {
        at.child(field).required(errors, "");
    }
}

fn check_host_path(at: &At<'_, '_>, errors: &mut Errors) {
    check_path(at, errors);
    if !at.text("path").is_empty() {
        at.one_of(errors, "type", HOST_PATH_TYPES);
    }
}

fn check_path(at: &At<'_, '_>, errors: &mut Errors) {
    if at.require(errors, "path") {
        rules::no_backsteps(&at.child("path"), at.text("path"), errors);
    }
}

fn check_disk(at: &At<'_, '_>, name: &'static str, errors: &mut Errors) {
    at.require(errors, name);
    if at.number("partition").is_some_and(|partition| !(0..=255).contains(&partition)) {
        at.child("partition").invalid(errors, "must be between 1 and 255, inclusive");
    }
}

fn check_secret(at: &At<'_, '_>, with_namespace: bool, errors: &mut Errors) {
    if let Some(secret) = at.given("secretRef") {
        secret.require(errors, "name");
        if with_namespace {
            secret.require(errors, "namespace");
        }
    }
}

fn check_iscsi(at: &At<'_, '_>, name: &str, persistent: bool, errors: &mut Errors) {
    at.require(errors, "targetPortal");
    if at.require(errors, "iqn") && !is_iscsi_name(at.text("iqn")) {
        at.child("iqn").invalid(errors, "must be valid format");
    }
    at.in_range(errors, "lun", 0..=255);
    if (at.flag("chapAuthDiscovery") || at.flag("chapAuthSession")) && !at.has("secretRef") {
        at.child("secretRef").required(errors, "");
    }
    if let Some(initiator) = at.given("initiatorName") {
        if !is_iscsi_name(initiator.str()) {
            at.child("initiatorname").invalid_value(errors, initiator.str(), "must be valid format");
        }
        if name.len() + 1 + at.text("targetPortal").len() > 64 {
            let message = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                 specified.";
            at.child("targetportal").invalid_value(errors, at.text("targetPortal"), message);
        }
    }
    if persistent {
        check_secret(at, false, errors);
    }
}

fn is_iscsi_name(text: &str) -> bool {
    let alphanumeric =
        |rest: &str, length: usize| rest.len() == length && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    if let Some(rest) = text.strip_prefix("eui.") {
        return alphanumeric(rest, 16);
    }
    if let Some(rest) = text.strip_prefix("naa.") {
        return alphanumeric(rest, 32);
    }
    let Some(rest) = text.strip_prefix("iqn.") else { return false };
    let date = rest.as_bytes();
    let dated = date.len() > 8 && date[4] == b'-' && date[7] == b'.' && rest[..4].bytes().all(|b| b.is_ascii_digit());
    let Some((_, target)) = rest.split_once(':') else { return false };
    dated && !target.is_empty() && !target.contains([',', ';', '*', '&', '$', '|', ' '])
}

fn check_flocker(at: &At<'_, '_>, errors: &mut Errors) {
    let (name, uuid) = (at.text("datasetName"), at.text("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => at.required(errors, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let message = "datasetName and datasetUUID can not be specified simultaneously";
            at.invalid_value(errors, "resource", message);
        }
        _ => {}
    }
    if name.contains('/') {
        at.child("datasetName").invalid(errors, "must not contain '/'");
    }
}

fn check_quobyte(at: &At<'_, '_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = at.text("registry");
    if registry.is_empty() {
        at.child("registry").required(errors, PAIRS);
    } else if at.text("tenant").len() >= 65 {
        at.child("tenant").required(errors, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        let wrong = registry.split(',').filter(|pair| !pair.contains(':'));
        wrong.for_each(|_| at.child("registry").invalid(errors, PAIRS));
    }
    at.require(errors, "volume");
}

fn check_fibre_channel(at: &At<'_, '_>, errors: &mut Errors) {
    let (targets, ids) = (at.filled("targetWWNs"), at.filled("wwids"));
    if !targets && !ids {
        at.child("targetWWNs").required(errors, "must specify either targetWWNs or wwids, but not both");
    }
    if targets && ids {
        at.child("targetWWNs").invalid(errors, "targetWWNs and wwids can not be specified simultaneously");
    }
    if targets {
        if !at.has("lun") {
            at.child("lun").required(errors, "lun is required if targetWWNs is specified");
        }
        at.in_range(errors, "lun", 0..=255);
    }
}

fn check_flex(at: &At<'_, '_>, errors: &mut Errors) {
    at.require(errors, "driver");
    for (key, option) in at.child("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let normalised = format!(".{}", namespace.to_lowercase());
        if normalised.ends_with(".kubernetes.io") || normalised.ends_with(".k8s.io") {
            option.invalid_value(errors, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn check_azure_disk(at: &At<'_, '_>, errors: &mut Errors) {
    require_all(at, &["diskName", "diskURI"], errors);
    at.one_of(errors, "cachingMode", &["None", "ReadOnly", "ReadWrite"]);
    at.one_of(errors, "kind", &["Dedicated", "Managed", "Shared"]);
    let uri = at.text("diskURI");
    let (prefix, supported) = match at.text("kind") {
        "" => return,
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !uri.starts_with(prefix) {
        at.child("diskURI").not_supported(errors, uri, &[supported]);
    }
}

fn check_persistent_csi(at: &At<'_, '_>, errors: &mut Errors) {
    rules::driver_name(&at.child("driver"), errors);
    at.require(errors, "volumeHandle");
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        if let Some(secret) = at.given(field) {
            secret.require_name(errors, "name", names::dns1123_subdomain);
            secret.require_name(errors, "namespace", names::dns1123_label);
        }
    }
}
