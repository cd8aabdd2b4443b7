//! What hardened pods say of themselves; all that *baseline* forbids, *restricted* does too.

use super::baseline::{added_beyond, is_filter, unfiltered, unmasked};
use super::checks::violation;
use super::template::{context, items, name, noun, quoted, set, setters, these};
use super::{Template, Version, Violation};
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds of volumes that may be used.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Kinds of volumes that are called by their names; any other is unknown.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// Programs get no more rights than who starts them; `policy/check_allowPrivilegeEscalation.go`.
pub(super) fn allow_privilege_escalation(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.is_windows(version) {
        return None;
    }
    let set_so = |container| context(container, "allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false);
    let who = setters(false, &pod.those(|container| !set_so(container)))?;
    let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
    Some(violation("allowPrivilegeEscalation != false", detail))
}

/// All capabilities are dropped, and one may be added; `policy/check_capabilities_restricted.go`.
pub(super) fn capabilities(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.is_windows(version) {
        return None;
    }
    let drops_all = |container| {
        let dropped = context(container, "capabilities").map(|given| items(given, "drop")).unwrap_or_default();
        dropped.iter().any(|name| name == "ALL")
    };
    let missing = setters(false, &pod.those(|container| !drops_all(container)))
        .map(|who| format!(r#"{who} must set securityContext.capabilities.drop=["ALL"]"#));
    let said: Vec<String> = missing.into_iter().chain(added_beyond(pod, &["NET_BIND_SERVICE"])).collect();
    (!said.is_empty()).then(|| violation("unrestricted capabilities", said.join("; ")))
}

/// /proc stays masked, whoever's users there are; `policy/check_procMount_restricted.go`.
pub(super) fn proc_mount(pod: Template<'_>, _: Version) -> Option<Violation> {
    unmasked(pod)
}

/// Only volumes of the cluster's own making; `policy/check_restrictedVolumes.go`.
pub(super) fn volumes(pod: Template<'_>, _: Version) -> Option<Violation> {
    let has = |volume: &Value, kinds: &[&'static str]| kinds.iter().copied().find(|kind| set(volume, kind).is_some());
    let bad: Vec<&Value> = pod.volumes().iter().filter(|volume| has(volume, &VOLUMES).is_none()).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|volume| has(volume, &OTHER_VOLUMES).unwrap_or("unknown")).collect();
    let names: Vec<&str> = bad.into_iter().map(name).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let what = format!("{} {}", noun("restricted volume type", kinds.len()), quoted(kinds));
    Some(violation("restricted volume types", format!("{} {uses} {what}", these("volume", &names))))
}

/// It is said that nobody is root, unless the pod has users of its own; `policy/check_runAsNonRoot.go`.
pub(super) fn run_as_non_root(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users(version) {
        return None;
    }
    let of_pod = pod.context("runAsNonRoot").and_then(Value::as_bool);
    let of = |container| context(container, "runAsNonRoot").and_then(Value::as_bool);
    let said = |detail| Some(violation("runAsNonRoot != true", detail));
    if let Some(who) = setters(of_pod == Some(false), &pod.those(|container| of(container) == Some(false))) {
        return said(format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.those(|container| of_pod.is_none() && of(container).is_none());
    setters(false, &silent).and_then(|who| said(format!("pod or {who} must set securityContext.runAsNonRoot=true")))
}

/// Nobody is root by number, unless the pod has users of its own; `policy/check_runAsUser.go`.
pub(super) fn run_as_user(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users(version) {
        return None;
    }
    let is_root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    let containers = pod.those(|container| is_root(context(container, "runAsUser")));
    let who = setters(is_root(pod.context("runAsUser")), &containers)?;
    Some(violation("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

/// A filter of system calls is asked for; `policy/check_seccompProfile_restricted.go`.
pub(super) fn seccomp_profile(pod: Template<'_>, version: Version) -> Option<Violation> {
    if pod.is_windows(version) {
        return None;
    }
    if let Some(found) = unfiltered(pod) {
        return Some(found);
    }
    let of_pod = pod.context("seccompProfile").is_some_and(is_filter);
    let silent = pod.those(|container| !of_pod && context(container, "seccompProfile").is_none());
    let who = setters(false, &silent)?;
    let detail =
        format!(r#"pod or {who} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#);
    Some(violation("seccompProfile", detail))
}
