//! What reaches the host or switches off what keeps pods from it: nothing of it is *baseline*.

use super::checks::violation;
use super::template::{context, items, name, noun, quoted, set, setters, text, these};
use super::{Template, Version, Violation};
use serde_json::Value;
use std::collections::BTreeSet;

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Capabilities that may be added: those that a container has anyway.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Settings of a pod's own namespaces that may be made, and since which version.
const SYSCTLS: [(&str, u64); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Types of SELinux that may be asked for, and since which version.
const SE_LINUX_TYPES: [(&str, u64); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];

/// A profile of AppArmor is the runtime's or the host's own; `policy/check_appArmorProfile.go`.
pub(super) fn app_armor_profile(pod: Template<'_>, _: Version) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut is_bad = |profile: Option<&Value>| {
        let kind = profile.map(|profile| text(profile, "type"));
        let bad = kind.filter(|kind| !["RuntimeDefault", "Localhost"].contains(kind));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    };
    let of_pod = is_bad(pod.context("appArmorProfile"));
    let mut containers = Vec::new();
    for container in pod.containers() {
        if is_bad(context(container, "appArmorProfile")) {
            containers.push(name(container));
        }
    }
    let allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let annotations: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(of_pod, &containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(noun("annotation", annotations.len()));
    }
    if who.is_empty() {
        return None;
    }
    let many = values.len() + annotations.len() > 1;
    let reason = if many { "forbidden AppArmor profiles" } else { "forbidden AppArmor profile" };
    let what = quoted(values.into_iter().chain(annotations));
    Some(violation(reason, format!("{} must not set AppArmor profile type to {what}", who.join(" and "))))
}

/// No capability is added that containers do not have anyway; `policy/check_capabilities_baseline.go`.
pub(super) fn capabilities(pod: Template<'_>, _: Version) -> Option<Violation> {
    added_beyond(pod, &CAPABILITIES).map(|detail| violation("non-default capabilities", detail))
}

/// Who adds a capability that is none of those allowed.
pub(super) fn added_beyond(pod: Template<'_>, allowed: &[&str]) -> Option<String> {
    let mut found = BTreeSet::new();
    let mut containers = Vec::new();
    for container in pod.containers() {
        let added = context(container, "capabilities").map(|given| items(given, "add")).unwrap_or_default();
        let bad: Vec<&str> = added.iter().filter_map(Value::as_str).filter(|name| !allowed.contains(name)).collect();
        if !bad.is_empty() {
            found.extend(bad);
            containers.push(name(container));
        }
    }
    let who = setters(false, &containers)?;
    Some(format!("{who} must not include {} in securityContext.capabilities.add", quoted(found)))
}

/// None of the host's namespaces; `policy/check_hostNamespaces.go`.
pub(super) fn host_namespaces(pod: Template<'_>, _: Version) -> Option<Violation> {
    let shared: Vec<&str> =
        ["hostIPC", "hostNetwork", "hostPID"].into_iter().filter(|field| pod.is_true(field)).collect();
    (!shared.is_empty()).then(|| violation("host namespaces", shared.join(", ")))
}

/// No directory of the host; `policy/check_hostPathVolumes.go`.
pub(super) fn host_path_volumes(pod: Template<'_>, _: Version) -> Option<Violation> {
    let volumes: Vec<&str> =
        pod.volumes().iter().filter(|volume| set(volume, "hostPath").is_some()).map(name).collect();
    (!volumes.is_empty()).then(|| violation("hostPath volumes", these("volume", &volumes)))
}

/// No port of the host; `policy/check_hostPorts.go`.
pub(super) fn host_ports(pod: Template<'_>, _: Version) -> Option<Violation> {
    let of = |container| items(container, "ports").iter().filter_map(|port| port.get("hostPort")?.as_i64());
    let containers = pod.those(|container| of(container).any(|port| port != 0));
    let who = setters(false, &containers)?;
    // Sorted as texts, as the reference does it.
    let ports: BTreeSet<String> =
        pod.containers().flat_map(of).filter(|port| *port != 0).map(|port| port.to_string()).collect();
    let uses = if containers.len() == 1 { "uses" } else { "use" };
    let ports = format!("{} {}", noun("hostPort", ports.len()), ports.into_iter().collect::<Vec<_>>().join(", "));
    Some(violation("hostPort", format!("{who} {uses} {ports}")))
}

/// Probes and hooks speak to the pod, to no other host; `policy/check_hostProbesAndhostLifecycle.go`.
pub(super) fn probe_hosts(pod: Template<'_>, _: Version) -> Option<Violation> {
    let (mut containers, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| container.get(probe));
        let hooks = ["postStart", "preStop"].map(|hook| container.get("lifecycle")?.get(hook));
        for handler in probes.into_iter().chain(hooks).flatten() {
            let named = ["httpGet", "tcpSocket"].into_iter().filter_map(|way| Some(text(handler.get(way)?, "host")));
            for host in named.filter(|host| !host.is_empty()) {
                hosts.insert(host);
                containers.insert(name(container));
            }
        }
    }
    let containers: Vec<&str> = containers.into_iter().collect();
    let who = setters(false, &containers)?;
    let uses = if containers.len() == 1 { "uses" } else { "use" };
    let what = format!("{} {}", noun("probe or lifecycle host", hosts.len()), quoted(hosts));
    Some(violation("probe or lifecycle host", format!("{who} {uses} {what}")))
}

/// No container is as mighty as the host; `policy/check_privileged.go`.
pub(super) fn privileged(pod: Template<'_>, _: Version) -> Option<Violation> {
    let containers = pod.those(|container| context(container, "privileged").and_then(Value::as_bool) == Some(true));
    let who = setters(false, &containers)?;
    Some(violation("privileged", format!("{who} must not set securityContext.privileged=true")))
}

/// /proc stays masked, but in pods with users of their own; `policy/check_procMount_baseline.go`.
pub(super) fn proc_mount(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users(version) { None } else { unmasked(pod) }
}

/// Containers whose /proc is not masked.
pub(super) fn unmasked(pod: Template<'_>) -> Option<Violation> {
    fn bad(container: &Value) -> Option<&str> {
        context(container, "procMount").and_then(Value::as_str).filter(|mount| *mount != "Default")
    }
    let who = setters(false, &pod.those(|container| bad(container).is_some()))?;
    let mounts: BTreeSet<&str> = pod.containers().filter_map(bad).collect();
    Some(violation("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(mounts))))
}

/// SELinux' user and role are not chosen, and of types only those of containers; `policy/check_seLinuxOptions.go`.
pub(super) fn se_linux_options(pod: Template<'_>, version: Version) -> Option<Violation> {
    let allowed = |kind: &str| SE_LINUX_TYPES.iter().any(|(name, since)| *name == kind && version.has(*since));
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: &Value| {
        let kind = text(options, "type");
        let (has_type, has_user, has_role) =
            (!allowed(kind), !text(options, "user").is_empty(), !text(options, "role").is_empty());
        types.extend(has_type.then(|| kind.to_owned()));
        user |= has_user;
        role |= has_role;
        has_type || has_user || has_role
    };
    let of_pod = pod.context("seLinuxOptions").is_some_and(&mut is_bad);
    let mut containers = Vec::new();
    for container in pod.containers() {
        if context(container, "seLinuxOptions").is_some_and(&mut is_bad) {
            containers.push(name(container));
        }
    }
    let who = setters(of_pod, &containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", noun("type", types.len()), quoted(types)));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(violation("seLinuxOptions", detail))
}

/// The filter of system calls is not switched off; `policy/check_seccompProfile_baseline.go`.
pub(super) fn seccomp_profile(pod: Template<'_>, version: Version) -> Option<Violation> {
    if version.has(19) { unfiltered(pod) } else { unfiltered_by_annotation(pod) }
}

/// Is a profile of seccomp one that may be chosen?
pub(super) fn is_filter(profile: &Value) -> bool {
    ["RuntimeDefault", "Localhost"].contains(&text(profile, "type"))
}

/// Who chooses a profile that may not be chosen.
pub(super) fn unfiltered(pod: Template<'_>) -> Option<Violation> {
    fn bad(profile: Option<&Value>) -> Option<&str> {
        profile.filter(|profile| !is_filter(profile)).map(|profile| text(profile, "type"))
    }
    let of_pod = bad(pod.context("seccompProfile"));
    let of = |container| bad(context(container, "seccompProfile"));
    let who = setters(of_pod.is_some(), &pod.those(|container| of(container).is_some()))?;
    let types: BTreeSet<&str> = pod.containers().filter_map(of).chain(of_pod).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(types));
    Some(violation("seccompProfile", detail))
}

fn unfiltered_by_annotation(pod: Template<'_>) -> Option<Violation> {
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let names: Vec<&str> = pod.containers().map(name).collect();
    let concerns = |key: &str| {
        key == SECCOMP_ANNOTATION
            || key.strip_prefix(SECCOMP_CONTAINER_ANNOTATION).is_some_and(|name| names.contains(&name))
    };
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| concerns(key) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let said = noun("annotation", bad.len());
    let list = bad.into_iter().collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then(|| violation("seccompProfile", format!("forbidden {said} {list}")))
}

/// Settings of the kernel that are the pod's own; `policy/check_sysctls.go`.
pub(super) fn sysctls(pod: Template<'_>, version: Version) -> Option<Violation> {
    let given = pod.context("sysctls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && version.has(*since));
    let bad: Vec<&str> = given.iter().map(name).filter(|name| !allowed(name)).collect();
    (!bad.is_empty()).then(|| violation("forbidden sysctls", bad.join(", ")))
}

/// No process of the host's, on Windows; `policy/check_windowsHostProcess.go`.
pub(super) fn windows_host_process(pod: Template<'_>, _: Version) -> Option<Violation> {
    let asks =
        |options: Option<&Value>| options.and_then(|options| options.get("hostProcess")?.as_bool()) == Some(true);
    let containers = pod.those(|container| asks(context(container, "windowsOptions")));
    let who = setters(asks(pod.context("windowsOptions")), &containers)?;
    Some(violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}
