//! Rules of security contexts.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};
use serde_json::Value;

const SYSCTL_MAX: usize = 253;

/// A pod's security context and the fields beside it that belong to it.
pub(super) fn check_pod(spec: &At<'_, '_>, errors: &mut Errors) {
    let context = spec.child("securityContext");
    if context.value.is_null() {
        return;
    }
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.in_range(errors, id, rules::IDS);
    }
    for group in context.child("supplementalGroups").items() {
        group.number_in(errors, group.value.as_i64().unwrap_or(0), rules::IDS);
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.child("shareProcessNamespace").invalid_value(errors, true, message);
    }
    check_sysctls(spec, &context.child("sysctls"), errors);
    context.one_of(errors, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    check_seccomp(&context, errors);
    check_windows_options(&context.child("windowsOptions"), errors);
    check_app_armor(&context, errors);
    context.one_of(errors, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    context.one_of(errors, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
}

fn check_sysctls(spec: &At<'_, '_>, sysctls: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for sysctl in sysctls.items() {
        let name = sysctl.text("name");
        let at = sysctl.child("name");
        if name.is_empty() {
            at.required(errors, "");
        } else if !is_sysctl(name) {
            let message = "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            at.invalid(errors, message);
        } else if seen.contains(&name) {
            at.duplicate(errors, name);
        }
        let dotted = name.replace('/', ".");
        if spec.flag("hostNetwork") && dotted.starts_with("net.") {
            at.invalid_value(errors, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix));
        if spec.flag("hostIPC") && (ipc || dotted == "kernel.sem") {
            at.invalid_value(errors, name, "may not be specified when 'hostIPC' is true");
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || b"-_".contains(b))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(part)
}

/// A container's security context.
pub(super) fn check_container(context: &At<'_, '_>, host_users: bool, errors: &mut Errors) {
    for id in ["runAsUser", "runAsGroup"] {
        context.in_range(errors, id, rules::IDS);
    }
    context.one_of(errors, "procMount", &["Default", "Unmasked"]);
    if host_users && context.text("procMount") == "Unmasked" {
        context.child("procMount").invalid(errors, "`hostUsers` must be false to use `Unmasked`");
    }
    check_seccomp(context, errors);
    if context.value.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid(errors, message);
        }
        for capability in context.child("capabilities").child("add").items() {
            if capability.str() == "CAP_SYS_ADMIN" {
                let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
                context.invalid(errors, message);
            }
        }
    }
    check_windows_options(&context.child("windowsOptions"), errors);
    check_app_armor(context, errors);
}

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn check_seccomp(context: &At<'_, '_>, errors: &mut Errors) {
    let Some(profile) = context.given("seccompProfile") else { return };
    let kind = profile.text("type");
    if kind.is_empty() {
        profile.child("type").required(errors, "type is required when seccompProfile is set");
    } else if !PROFILE_TYPES.contains(&kind) {
        profile.child("type").not_supported(errors, kind, PROFILE_TYPES);
    }
    let at = profile.child("localhostProfile");
    match (kind == "Localhost", profile.has("localhostProfile")) {
        (true, false) => at.required(errors, "must be set when seccomp type is Localhost"),
        (true, true) => rules::relative_path(&at, at.str(), errors),
        (false, true) => {
            at.invalid_value(errors, profile.value.clone(), "can only be set when seccomp type is Localhost");
        }
        (false, false) => {}
    }
}

fn check_app_armor(context: &At<'_, '_>, errors: &mut Errors) {
    let Some(profile) = context.given("appArmorProfile") else { return };
    let at = profile.child("localhostProfile");
    let name = at.str();
    match profile.text("type") {
        "Localhost" => {
            if name.trim() != name {
                at.invalid(errors, "must not be padded with whitespace");
            } else if name.is_empty() {
                at.required(errors, "must be set when AppArmor type is Localhost");
            }
            if name.len() > 4095 {
                at.too_long(errors, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.has("localhostProfile") {
                at.invalid(errors, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => profile.child("type").required(errors, "type is required when appArmorProfile is set"),
        other => profile.child("type").not_supported(errors, other, PROFILE_TYPES),
    }
}

fn check_windows_options(options: &At<'_, '_>, errors: &mut Errors) {
    if let Some(name) = options.given("gmsaCredentialSpecName") {
        name.check_text(errors, names::dns1123_subdomain);
    }
    if let Some(spec) = options.given("gmsaCredentialSpec") {
        if spec.str().is_empty() {
            spec.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.str().len() > 64 << 10 {
            spec.invalid(errors, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(user) = options.given("runAsUserName") {
        let text = user.str();
        if text.is_empty() {
            user.invalid(errors, "runAsUserName cannot be an empty string");
        } else if text.chars().any(char::is_control) {
            user.invalid(errors, "runAsUserName cannot contain control characters");
        } else if text.matches('\\').count() > 1 {
            user.invalid(errors, "runAsUserName cannot contain more than one backslash");
        }
    }
}

/// `os` and what does not go with it.
pub(super) fn check_os(os: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    match os.text("name") {
        "" => os.child("name").required(errors, "cannot be empty"),
        "linux" => {
            let message = "windows options cannot be set for a linux pod";
            visit(spec, &["windowsOptions"], message, errors);
        }
        "windows" => check_windows_pod(spec, errors),
        other => os.not_supported(errors, other, &["linux", "windows"]),
    }
}

/// Forbids fields of every security context.
fn visit(spec: &At<'_, '_>, fields: &[&'static str], message: &str, errors: &mut Errors) {
    let forbid = |context: &At<'_, '_>, errors: &mut Errors| {
        for field in fields.iter().filter(|field| context.has(field)) {
            context.child(field).forbidden(errors, message);
        }
    };
    forbid(&spec.child("securityContext"), errors);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.child(list).items() {
            forbid(&container.child("securityContext"), errors);
        }
    }
}

fn check_windows_pod(spec: &At<'_, '_>, errors: &mut Errors) {
    const MESSAGE: &str = "cannot be set for a windows pod";
    for field in ["hostUsers", "shareProcessNamespace"] {
        if spec.has(field) {
            spec.child(field).forbidden(errors, MESSAGE);
        }
    }
    for field in ["hostPID", "hostIPC"] {
        if spec.flag(field) {
            spec.child(field).forbidden(errors, MESSAGE);
        }
    }
    let fields = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
    ];
    visit(spec, &fields, MESSAGE, errors);
}

/// A seccomp profile in an annotation, as it was before there was a field.
pub(super) fn check_seccomp_annotation(at: &At<'_, '_>, errors: &mut Errors) {
    match at.str() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        other => match other.strip_prefix("localhost/") {
            Some(path) => rules::relative_path(at, path, errors),
            None => at.invalid(errors, "must be a valid seccomp profile"),
        },
    }
}

/// An AppArmor profile of the container `name` in an annotation.
pub(super) fn check_app_armor_annotation(at: &At<'_, '_>, name: &str, spec: &At<'_, '_>, errors: &mut Errors) {
    let named = |list: &'static str| spec.child(list).items().any(|container| container.text("name") == name);
    if !["initContainers", "containers", "ephemeralContainers"].into_iter().any(named) {
        at.invalid_value(errors, name, "container not found");
    }
    let profile = at.str();
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
        at.invalid(errors, format!("invalid AppArmor profile name: {profile:?}"));
    }
}
