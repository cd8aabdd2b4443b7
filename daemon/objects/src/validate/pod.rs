//! Rules of pods and pod templates.

use super::{
    container, meta,
    rules::{
        Errors, flag, in_range, invalid_all, ip, items, label_selector, labels, list, one_of, optional_name, require,
        text,
    },
    volume,
};
use crate::{
    BRAND_SPARSE, ZONE_BRAND_ANNOTATION,
    field::{FieldError, FieldPath},
    names,
    object::Object,
};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn check_pod(object: &Object, value: &Value, errors: &mut Errors) {
    let brand = object.annotation(ZONE_BRAND_ANNOTATION);
    if let Some(brand) = brand {
        // Which brands there are is the host's to say; here the name has to be one.
        let at = FieldPath::of("metadata.annotations").map_key(ZONE_BRAND_ANNOTATION);
        invalid_all(&at, brand, names::dns1123_label(brand), errors);
    }
    let spec = value.get("spec").unwrap_or(&Value::Null);
    check_spec(spec, &FieldPath::of("spec"), brand == Some(BRAND_SPARSE), errors);
}

/// `path` is that of the template.
pub(super) fn check_template(template: &Value, path: &FieldPath, errors: &mut Errors) {
    let metadata = template.get("metadata").unwrap_or(&Value::Null);
    let meta_path = path.child("metadata");
    labels(metadata, &meta_path, "labels", errors);
    meta::check_annotations(metadata, &meta_path, errors);
    let sparse = metadata.pointer("/annotations/reddwarf.io~1zone-brand").is_some_and(|brand| brand == BRAND_SPARSE);
    check_spec(template.get("spec").unwrap_or(&Value::Null), &path.child("spec"), sparse, errors);
}

fn check_spec(spec: &Value, path: &FieldPath, image_optional: bool, errors: &mut Errors) {
    let volumes = volume::check_all(spec, path, errors);
    check_containers(spec, path, &volumes, image_optional, errors);
    one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], errors);
    check_dns(spec, path, errors);
    in_range(spec, path, "activeDeadlineSeconds", 1..=2_147_483_647, errors);
    labels(spec, path, "nodeSelector", errors);
    check_identity(spec, path, errors);
    for (at, alias) in items(spec, path, "hostAliases") {
        ip(text(alias, "ip"), &at.child("ip"), errors);
        for hostname in list(alias, "hostnames").iter().filter_map(Value::as_str) {
            invalid_all(&at.child("hostnames"), hostname, names::dns1123_subdomain(hostname), errors);
        }
    }
    items(spec, path, "tolerations").for_each(|(at, toleration)| check_toleration(toleration, &at, errors));
    items(spec, path, "topologySpreadConstraints").for_each(|(at, spread)| check_spread(spread, &at, errors));
    one_of(spec, path, "preemptionPolicy", &["Never", "PreemptLowerPriority"], errors);
    if let Some(context) = spec.get("securityContext") {
        check_security_context(spec, context, &path.child("securityContext"), errors);
    }
}

fn check_containers(
    spec: &Value,
    path: &FieldPath,
    volumes: &BTreeSet<String>,
    image_optional: bool,
    errors: &mut Errors,
) {
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let scope = container::Scope { volumes, image_optional, host_network: flag(spec, "hostNetwork") };
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, container) in items(spec, path, field) {
            container::check(container, &at, &scope, errors);
            let name = text(container, "name");
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            if field == "initContainers" {
                container::check_init(container, &at, errors);
            } else {
                container::check_host_ports(container, &at, &mut host_ports, errors);
            }
        }
    }
}

fn check_dns(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    one_of(spec, path, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    let path = &path.child("dnsConfig");
    let nameservers = list(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" && nameservers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        let at = if config.is_null() { path.clone() } else { path.child("nameservers") };
        errors.push(FieldError::required(&at, message));
    }
    if nameservers.len() > 3 {
        let at = path.child("nameservers");
        errors.push(FieldError::invalid(&at, nameservers.to_vec(), "must not have more than 3 nameservers"));
    }
    for (at, server) in items(config, path, "nameservers") {
        ip(server.as_str().unwrap_or_default(), &at, errors);
    }
    if list(config, "searches").len() > 32 {
        let at = path.child("searches");
        errors.push(FieldError::invalid(
            &at,
            list(config, "searches").to_vec(),
            "must not have more than 32 search paths",
        ));
    }
    for (at, search) in items(config, path, "searches") {
        let domain = search.as_str().unwrap_or_default();
        // A search path may end in a dot, may be one, and may have underscores.
        let plain = domain.strip_suffix('.').unwrap_or(domain).replace('_', "-");
        if domain != "." {
            invalid_all(&at, domain, names::dns1123_subdomain(&plain), errors);
        }
    }
    for (at, option) in items(config, path, "options") {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(&at, "must not be empty"));
        }
    }
}

fn check_identity(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    optional_name(spec, path, "hostname", names::dns1123_label, errors);
    optional_name(spec, path, "subdomain", names::dns1123_label, errors);
    optional_name(spec, path, "serviceAccountName", names::dns1123_subdomain, errors);
    optional_name(spec, path, "nodeName", names::dns1123_subdomain, errors);
    optional_name(spec, path, "priorityClassName", names::dns1123_subdomain, errors);
    optional_name(spec, path, "runtimeClassName", names::dns1123_subdomain, errors);
}

fn check_toleration(toleration: &Value, path: &FieldPath, errors: &mut Errors) {
    let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
    if !key.is_empty() {
        invalid_all(&path.child("key"), key, names::qualified_name(key), errors);
    } else if operator != "Exists" {
        let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&path.child("operator"), operator, message));
    }
    if toleration.get("tolerationSeconds").is_some() && text(toleration, "effect") != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(&path.child("effect"), text(toleration, "effect"), message));
    }
    match operator {
        "" | "Equal" => invalid_all(&path.child("operator"), value, names::label_value(value), errors),
        "Exists" if !value.is_empty() => {
            let found = toleration.clone();
            errors.push(FieldError::invalid(
                &path.child("operator"),
                found,
                "value must be empty when `operator` is 'Exists'",
            ));
        }
        _ => one_of(toleration, path, "operator", &["Equal", "Exists"], errors),
    }
    one_of(toleration, path, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], errors);
}

fn check_spread(spread: &Value, path: &FieldPath, errors: &mut Errors) {
    if let Some(skew) = spread.get("maxSkew").and_then(Value::as_i64)
        && skew <= 0
    {
        errors.push(FieldError::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
    }
    if text(spread, "topologyKey").is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    one_of(spread, path, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], errors);
    if let Some(selector) = spread.get("labelSelector") {
        label_selector(selector, &path.child("labelSelector"), errors);
    }
}

fn check_security_context(spec: &Value, context: &Value, path: &FieldPath, errors: &mut Errors) {
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        in_range(context, path, id, 0..=2_147_483_647, errors);
    }
    for (at, group) in items(context, path, "supplementalGroups") {
        if group.as_i64().is_some_and(|id| !(0..=2_147_483_647).contains(&id)) {
            errors.push(FieldError::invalid(&at, group.clone(), "must be between 0 and 2147483647, inclusive"));
        }
    }
    one_of(context, path, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    let mut names = BTreeSet::new();
    for (at, sysctl) in items(context, path, "sysctls") {
        if require(sysctl, &at, "name", errors) && !names.insert(text(sysctl, "name")) {
            errors.push(FieldError::duplicate(&at.child("name"), text(sysctl, "name")));
        }
    }
    check_seccomp(context, path, errors);
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, message));
    }
}

pub(super) fn check_seccomp(context: &Value, path: &FieldPath, errors: &mut Errors) {
    let Some(profile) = context.get("seccompProfile") else { return };
    let path = &path.child("seccompProfile");
    one_of(profile, path, "type", &["Localhost", "RuntimeDefault", "Unconfined"], errors);
    match (text(profile, "type"), profile.get("localhostProfile")) {
        ("Localhost", None) => {
            errors.push(FieldError::required(
                &path.child("localhostProfile"),
                "must be set when seccomp type is Localhost",
            ));
        }
        ("Localhost", Some(_)) => {
            super::rules::relative_path(text(profile, "localhostProfile"), &path.child("localhostProfile"), errors);
        }
        (_, Some(found)) => {
            let message = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path.child("localhostProfile"), found.clone(), message));
        }
        (_, None) => {}
    }
}
