//! Rules of containers.

use super::{
    pod::check_seccomp,
    rules::{
        Errors, entries, flag, in_range, invalid_all, items, list, not_negative, one_of, port, port_or_name,
        relative_path, require, require_name, text,
    },
};
use crate::{
    field::{FieldError, FieldPath},
    names,
    quantity::Quantity,
};
use serde_json::Value;
use std::collections::BTreeSet;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
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
const ENV_RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What a container's rules depend on outside it.
pub(super) struct Scope<'a> {
    /// The names of the pod's volumes.
    pub(super) volumes: &'a BTreeSet<String>,
    /// Does the pod's brand do without an image?
    pub(super) image_optional: bool,
    /// Does the pod use the host's network?
    pub(super) host_network: bool,
}

pub(super) fn check(container: &Value, path: &FieldPath, scope: &Scope<'_>, errors: &mut Errors) {
    require_name(container, path, "name", names::dns1123_label, errors);
    check_image(container, path, scope, errors);
    one_of(container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    one_of(container, path, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], errors);
    one_of(container, path, "restartPolicy", &["Always", "Never", "OnFailure"], errors);
    check_ports(container, path, scope, errors);
    items(container, path, "env").for_each(|(at, variable)| check_env(variable, &at, errors));
    items(container, path, "envFrom").for_each(|(at, source)| check_env_from(source, &at, errors));
    check_mounts(container, path, scope, errors);
    if let Some(resources) = container.get("resources") {
        check_resources(resources, &path.child("resources"), errors);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe) {
            check_probe(probe, value, &path.child(probe), errors);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.get("lifecycle").and_then(|lifecycle| lifecycle.get(hook)) {
            check_handler(handler, &path.child("lifecycle").child(hook), errors);
        }
    }
    if let Some(context) = container.get("securityContext") {
        check_security_context(context, &path.child("securityContext"), errors);
    }
}

/// What only init containers must not have, unless they are sidecars.
pub(super) fn check_init(container: &Value, path: &FieldPath, errors: &mut Errors) {
    if text(container, "restartPolicy") == "Always" {
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(field).is_some() {
            let message = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(&path.child(field), message));
        }
    }
}

fn check_image(container: &Value, path: &FieldPath, scope: &Scope<'_>, errors: &mut Errors) {
    let image = text(container, "image");
    if image.is_empty() {
        if !scope.image_optional {
            let help =
                "name an image, or run the host's own programs with the annotation reddwarf.io/zone-brand: sparse";
            errors.push(FieldError::required(&path.child("image"), "").with_help(help));
        }
    } else if image.trim() != image {
        errors.push(FieldError::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}

fn check_ports(container: &Value, path: &FieldPath, scope: &Scope<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, value) in items(container, path, "ports") {
        let name = text(value, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            let valid = problems.is_empty();
            invalid_all(&at.child("name"), name, problems, errors);
            if valid && !seen.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
        port(value, &at, "containerPort", errors);
        if let Some(host_port) = value.get("hostPort").and_then(Value::as_i64).filter(|p| *p != 0) {
            in_range(value, &at, "hostPort", 1..=65535, errors);
            if scope.host_network && value.get("containerPort").and_then(Value::as_i64) != Some(host_port) {
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&at.child("hostPort"), host_port, message));
            }
        }
        one_of(value, &at, "protocol", PROTOCOLS, errors);
    }
}

/// A host's port leads to one container only.
pub(super) fn check_host_ports(container: &Value, path: &FieldPath, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for (at, value) in items(container, path, "ports") {
        let host_port = value.get("hostPort").and_then(Value::as_i64).unwrap_or_default();
        let claim = format!("{}/{}/{host_port}", text(value, "protocol"), text(value, "hostIP"));
        if host_port != 0 && !seen.insert(claim.clone()) {
            errors.push(FieldError::duplicate(&at.child("hostPort"), claim));
        }
    }
}

fn check_env(variable: &Value, path: &FieldPath, errors: &mut Errors) {
    require_name(variable, path, "name", names::env_name, errors);
    let Some(source) = variable.get("valueFrom") else { return };
    let path = &path.child("valueFrom");
    if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
        return;
    }
    match source.as_object().map_or(0, serde_json::Map::len) {
        0 => {
            let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(path, "", message));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(value) = source.get(reference) {
            let at = path.child(reference);
            require(value, &at, "name", errors);
            require_name(value, &at, "key", names::config_key, errors);
        }
    }
    if let Some(field) = source.get("fieldRef") {
        check_field_ref(field, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = source.get("resourceFieldRef") {
        let at = path.child("resourceFieldRef");
        let name = text(resource, "resource");
        if require(resource, &at, "resource", errors) && !ENV_RESOURCES.contains(&name) && !name.contains(".hugepages-")
        {
            errors.push(FieldError::not_supported(&at.child("resource"), name, ENV_RESOURCES));
        }
    }
}

fn check_field_ref(field: &Value, path: &FieldPath, errors: &mut Errors) {
    require(field, path, "apiVersion", errors);
    if !require(field, path, "fieldPath", errors) {
        return;
    }
    let name = text(field, "fieldPath");
    let at = path.child("fieldPath");
    let subscript = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .find_map(|open| name.strip_prefix(open)?.strip_suffix("']"));
    match subscript {
        Some(key) => invalid_all(&at, key, names::qualified_name(&key.to_lowercase()), errors),
        None if !ENV_FIELDS.contains(&name) => errors.push(FieldError::not_supported(&at, name, ENV_FIELDS)),
        None => {}
    }
}

fn check_env_from(source: &Value, path: &FieldPath, errors: &mut Errors) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        invalid_all(&path.child("prefix"), prefix, names::env_name(prefix), errors);
    }
    let sources: Vec<&str> =
        ["configMapRef", "secretRef"].into_iter().filter(|key| source.get(*key).is_some()).collect();
    match sources.as_slice() {
        [] => errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
        [reference] => {
            require_name(&source[*reference], &path.child(*reference), "name", names::dns1123_subdomain, errors);
        }
        _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

fn check_mounts(container: &Value, path: &FieldPath, scope: &Scope<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let privileged = container.pointer("/securityContext/privileged") == Some(&Value::Bool(true));
    for (at, mount) in items(container, path, "volumeMounts") {
        let name = text(mount, "name");
        if require(mount, &at, "name", errors) && !scope.volumes.contains(name) {
            let nearest = names::did_you_mean(name, scope.volumes.iter().map(String::as_str));
            let error = FieldError::not_found(&at.child("name"), name);
            errors.push(match nearest {
                Some(nearest) => error.with_help(format!("did you mean `{nearest}`?")),
                None => error.with_help(format!("add a volume named `{name}` to spec.volumes")),
            });
        }
        let target = text(mount, "mountPath");
        if require(mount, &at, "mountPath", errors) && !seen.insert(target) {
            errors.push(FieldError::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        for part in ["subPath", "subPathExpr"] {
            relative_path(text(mount, part), &at.child(part), errors);
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let found = text(mount, "subPathExpr");
            errors.push(FieldError::invalid(
                &at.child("subPathExpr"),
                found,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        one_of(mount, &at, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], errors);
        if text(mount, "mountPropagation") == "Bidirectional" && !privileged {
            let message = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(&at.child("mountPropagation"), message));
        }
    }
}

pub(super) fn check_resources(resources: &Value, path: &FieldPath, errors: &mut Errors) {
    for field in ["limits", "requests"] {
        for (name, amount) in entries(resources, field) {
            check_amount(name, amount, &path.child(field).map_key(name), errors);
        }
    }
    for (name, amount) in entries(resources, "requests") {
        let limit = resources.get("limits").and_then(|limits| limits.get(name));
        let (Ok(request), Some(Ok(limit))) = (Quantity::from_value(amount), limit.map(Quantity::from_value)) else {
            continue;
        };
        if request > limit {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&path.child("requests"), request.to_string(), message));
        }
    }
}

fn check_amount(name: &str, amount: &Value, path: &FieldPath, errors: &mut Errors) {
    let problems = names::qualified_name(name);
    let valid = problems.is_empty();
    invalid_all(path, name, problems, errors);
    if valid
        && !name.contains('/')
        && !matches!(name, "cpu" | "memory" | "ephemeral-storage")
        && !name.starts_with("hugepages-")
    {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
    if let Ok(quantity) = Quantity::from_value(amount) {
        if quantity.is_negative() {
            errors.push(FieldError::invalid(path, quantity.to_string(), "must be greater than or equal to 0"));
        } else if name.contains('/') && !quantity.is_whole() {
            errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
        }
    }
}

fn check_probe(name: &str, probe: &Value, path: &FieldPath, errors: &mut Errors) {
    check_handler(probe, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(probe, path, field, errors);
    }
    if name != "readinessProbe"
        && let Some(threshold) = probe.get("successThreshold").and_then(Value::as_i64)
        && threshold != 1
    {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

fn check_handler(handler: &Value, path: &FieldPath, errors: &mut Errors) {
    let kinds: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"]
        .into_iter()
        .filter(|key| handler.get(*key).is_some())
        .collect();
    let Some((kind, extra)) = kinds.split_first() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for kind in extra {
        errors.push(FieldError::forbidden(&path.child(*kind), "may not specify more than 1 handler type"));
    }
    let (value, path) = (&handler[*kind], path.child(*kind));
    match *kind {
        "exec" if list(value, "command").is_empty() => errors.push(FieldError::required(&path.child("command"), "")),
        "httpGet" => {
            require(value, &path, "path", errors);
            port_or_name(value, &path, "port", errors);
            one_of(value, &path, "scheme", &["HTTP", "HTTPS"], errors);
        }
        "tcpSocket" => port_or_name(value, &path, "port", errors),
        "grpc" => in_range(value, &path, "port", 1..=65535, errors),
        _ => {}
    }
}

fn check_security_context(context: &Value, path: &FieldPath, errors: &mut Errors) {
    for id in ["runAsUser", "runAsGroup"] {
        in_range(context, path, id, 0..=2_147_483_647, errors);
    }
    one_of(context, path, "procMount", &["Default", "Unmasked"], errors);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if flag(context, "privileged") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context.clone(), message));
        }
        let added = context.get("capabilities").map(|capabilities| list(capabilities, "add")).unwrap_or_default();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context.clone(), message));
        }
    }
    check_seccomp(context, path, errors);
}
