//! Rules of environment variables, and of the fields that they and volumes take from the pod.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a pod's label may have, whatever the place they go to supports.
const KNOWN_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const MEMORY_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// `env` and `envFrom` of a container.
pub(super) fn check(container: &At<'_, '_>, errors: &mut Errors) {
    for variable in container.child("env").items() {
        variable.require_name(errors, "name", names::env_name);
        if let Some(source) = variable.given("valueFrom") {
            check_source(&source, variable.text("value"), errors);
        }
    }
    let list = container.child("envFrom");
    list.items().for_each(|source| check_env_from(&source, &list, errors));
}

fn check_source(source: &At<'_, '_>, value: &str, errors: &mut Errors) {
    if let Some(field) = source.given("fieldRef") {
        check_field_ref(&field, ENV_FIELDS, errors);
    }
    if let Some(resource) = source.given("resourceFieldRef") {
        check_resource_ref(&resource, false, errors);
    }
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = source.given(reference) {
            let name = reference.child("name");
            name.invalid_all(errors, name.str(), names::dns1123_subdomain(name.str()));
            reference.require_name(errors, "key", names::config_key);
        }
    }
    if let Some(file) = source.given("fileKeyRef") {
        file.require_name(errors, "volumeName", names::dns1123_label);
        file.require_name(errors, "key", names::env_name);
        if file.require(errors, "path") {
            rules::local_path(&file.child("path"), file.text("path"), errors);
        }
    }
    match SOURCES.iter().filter(|name| source.has(name)).count() {
        0 => {
            let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            source.invalid_value(errors, "", message);
        }
        _ if !value.is_empty() => {
            source.invalid_value(errors, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => source.invalid_value(errors, "", "may not have more than one field specified at a time"),
    }
}

/// A field of the pod, one of `allowed` or a label or annotation.
pub(super) fn check_field_ref(field: &At<'_, '_>, allowed: &[&str], errors: &mut Errors) {
    if !field.require(errors, "apiVersion") || !field.require(errors, "fieldPath") {
        return;
    }
    let path = field.text("fieldPath");
    let at = field.child("fieldPath");
    if let Some((base, subscript)) = path.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        match base {
            "metadata.annotations" => {
                let lower = subscript.to_lowercase();
                field.invalid_all(errors, &lower, names::qualified_name(&lower));
            }
            "metadata.labels" => field.invalid_all(errors, subscript, names::qualified_name(subscript)),
            _ => unconvertible(&at, path, errors),
        }
    } else if !ENV_FIELDS.contains(&path) && !KNOWN_FIELDS.contains(&path) {
        unconvertible(&at, path, errors);
    } else if !allowed.contains(&path) {
        at.not_supported(errors, path, allowed);
    }
}

fn unconvertible(at: &At<'_, '_>, path: &str, errors: &mut Errors) {
    at.invalid_value(errors, path, format!("error converting fieldPath: field label not supported: {path}"));
}

/// A resource of a container; in a volume the container must be named.
pub(super) fn check_resource_ref(reference: &At<'_, '_>, in_volume: bool, errors: &mut Errors) {
    let resource = reference.text("resource");
    let huge_pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && reference.text("containerName").is_empty() {
        reference.child("containerName").required(errors, "");
    } else if reference.require(errors, "resource") && !RESOURCES.contains(&resource) && !huge_pages {
        reference.child("resource").not_supported(errors, resource, RESOURCES);
    }
    let divisor = reference.child("divisor");
    let Some(amount) = rules::quantity(&divisor).filter(|amount| !amount.is_zero()) else { return };
    let amount = amount.to_string();
    let of = resource.split_once('.').map_or("", |(_, name)| name);
    let (fits, message) = match of {
        "cpu" => (
            ["1", "1m"].contains(&amount.as_str()),
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "memory" | "ephemeral-storage" => {
            let name = if of == "memory" { "memory" } else { "local ephemeral storage" };
            (MEMORY_DIVISORS.contains(&amount.as_str()), only_divisors(name))
        }
        _ if huge_pages => (MEMORY_DIVISORS.contains(&amount.as_str()), only_divisors("hugepages")),
        _ => return,
    };
    if !fits {
        divisor.invalid_value(errors, resource, message);
    }
}

fn only_divisors(resource: &str) -> String {
    format!("only divisor's values {} are supported with the {resource} resource", MEMORY_DIVISORS.join(", "))
}

fn check_env_from(source: &At<'_, '_>, list: &At<'_, '_>, errors: &mut Errors) {
    source.optional_name(errors, "prefix", names::env_name);
    for reference in ["configMapRef", "secretRef"] {
        if let Some(reference) = source.given(reference)
            && reference.require(errors, "name")
        {
            let name = reference.child("name");
            let whole = name.str().strip_suffix('-').map_or_else(|| name.str().to_owned(), |rest| format!("{rest}a"));
            name.invalid_all(errors, name.str(), names::dns1123_subdomain(&whole));
        }
    }
    match (source.has("configMapRef"), source.has("secretRef")) {
        (false, false) => list.invalid_value(errors, "", "must specify one of: `configMapRef` or `secretRef`"),
        (true, true) => list.invalid_value(errors, "", "may not have more than one field specified at a time"),
        _ => {}
    }
}
