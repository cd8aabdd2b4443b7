//! Rules of volume mounts and devices.

use super::volume::Volumes;
use crate::{
    field::FieldError,
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};

/// `volumeMounts` and `volumeDevices` of a container.
pub(super) fn check(container: &At<'_, '_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    check_mounts(container, volumes, errors);
    check_devices(container, volumes, errors);
}

fn check_mounts(container: &At<'_, '_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let list = container.child("volumeMounts");
    let devices = container.child("volumeDevices");
    let mut seen: Vec<&str> = Vec::new();
    for mount in list.items() {
        let (name, path) = (mount.text("name"), mount.text("mountPath"));
        mount.require(errors, "name");
        if !volumes.has(name) {
            not_found(&mount.child("name"), name, volumes, errors);
        }
        mount.require(errors, "mountPath");
        if seen.contains(&path) {
            mount.child("mountPath").invalid_value(errors, path, "must be unique");
        }
        seen.push(path);
        if devices.items().any(|device| device.text("name") == name) {
            mount.child("name").invalid(errors, "must not already exist in volumeDevices");
        }
        if devices.items().any(|device| device.text("devicePath") == path) {
            mount.child("mountPath").invalid(errors, "must not already exist as a path in volumeDevices");
        }
        check_sub_path(&mount, &list, volumes, errors);
        check_propagation(&mount, &list, container, errors);
    }
}

fn not_found(at: &At<'_, '_>, name: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let error = FieldError::not_found(&at.path(), name);
    let nearest = if name.is_empty() { None } else { names::did_you_mean(name, volumes.names()) };
    errors.push(match nearest {
        Some(nearest) => error.with_help(format!("did you mean `{nearest}`?")),
        None => error.with_help(format!("add a volume named `{name}` to spec.volumes")),
    });
}

/// The reference leaves the mount's index out of some of these paths.
fn check_sub_path(mount: &At<'_, '_>, list: &At<'_, '_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let (plain, expanded) = (mount.text("subPath"), mount.text("subPathExpr"));
    if volumes.is_image(mount.text("name")) {
        for field in ["subPath", "subPathExpr"] {
            if field == "subPathExpr" && !mount.text(field).is_empty() {
                mount.child(field).invalid(errors, "not allowed in image volume sources");
            }
        }
    }
    if !plain.is_empty() {
        rules::relative_path(&list.child("subPath"), plain, errors);
    }
    if !expanded.is_empty() {
        if !plain.is_empty() {
            mount.child("subPathExpr").invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        rules::relative_path(&list.child("subPathExpr"), expanded, errors);
    }
}

fn check_propagation(mount: &At<'_, '_>, list: &At<'_, '_>, container: &At<'_, '_>, errors: &mut Errors) {
    let (at, found) = (list.child("mountPropagation"), mount.text("mountPropagation"));
    if mount.has("mountPropagation") {
        const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
        if !MODES.contains(&found) {
            at.not_supported(errors, found, MODES);
        }
        if found == "Bidirectional" && !container.child("securityContext").flag("privileged") {
            at.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let at = list.child("recursiveReadOnly");
    match mount.text("recursiveReadOnly") {
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                at.forbidden(errors, "may only be specified when readOnly is true");
            }
            if mount.has("mountPropagation") && found != "None" {
                at.forbidden(errors, "may only be specified when mountPropagation is None or not specified");
            }
        }
        "Disabled" => {}
        other if mount.has("recursiveReadOnly") => {
            at.not_supported(errors, other, &["Disabled", "Enabled", "IfPossible"]);
        }
        _ => {}
    }
}

fn check_devices(container: &At<'_, '_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = container.child("volumeMounts");
    let (mut seen_names, mut seen_paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for device in container.child("volumeDevices").items() {
        let (name, path) = (device.text("name"), device.text("devicePath"));
        let (name_at, path_at) = (device.child("name"), device.child("devicePath"));
        device.require(errors, "name");
        if seen_names.contains(&name) {
            name_at.invalid_value(errors, name, "must be unique");
        }
        if !volumes.has(name) {
            not_found(&name_at, name, volumes, errors);
        } else if !volumes.is_claim(name) {
            let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            name_at.invalid(errors, message);
        }
        device.require(errors, "devicePath");
        if seen_paths.contains(&path) {
            path_at.invalid_value(errors, path, "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            path_at.invalid(errors, "can not contain backsteps ('..')");
        } else {
            seen_paths.push(path);
        }
        if mounts.items().any(|mount| mount.text("name") == name) {
            name_at.invalid(errors, "must not already exist in volumeMounts");
        }
        if mounts.items().any(|mount| mount.text("mountPath") == path) {
            path_at.invalid(errors, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            seen_names.push(name);
        }
    }
}
