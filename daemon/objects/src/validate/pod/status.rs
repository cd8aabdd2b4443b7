//! What may be written into a pod's status.

use crate::{
    names,
    object::Object,
    validate::{
        at::{At, Errors},
        meta, rules,
        update::same,
    },
};
use serde_json::Value;

/// An update of the status.
pub(in crate::validate) fn check(old: &Object, new: &Object, pod: &At<'_, '_>, errors: &mut Errors) {
    meta::check_update(old, new, &pod.child("metadata"), errors);
    let status = pod.child("status");
    let conditions = status.child("conditions");
    for condition in conditions.items() {
        let kind = condition.text("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            condition.child("Type").invalid_all(errors, kind, names::qualified_name(kind));
        }
    }
    let nominated = status.text("nominatedNodeName");
    if !nominated.is_empty() && old.get_str("/status/nominatedNodeName") != Some(nominated) {
        status.child("nominatedNodeName").check_text(errors, names::dns1123_subdomain);
    }
    if old.get("/status/qosClass").is_some() {
        same(old, new, "/status/qosClass", errors);
    }
    check_transitions(old, &status, errors);
    check_ips(&status, errors);
}

/// What has ended for good does not run again.
fn check_transitions(old: &Object, status: &At<'_, '_>, errors: &mut Errors) {
    let policy = old.get_str("/spec/restartPolicy").unwrap_or("Always");
    for (field, policy) in
        [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")]
    {
        if policy == "Always" {
            continue;
        }
        let after = status.child(field);
        let before = old.get(&format!("/status/{field}")).and_then(Value::as_array).into_iter().flatten();
        for (index, before) in before.enumerate() {
            let Some(terminated) = before.pointer("/state/terminated") else { continue };
            let failed = terminated.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0;
            let name = before.get("name").and_then(Value::as_str).unwrap_or_default();
            if failed && policy == "OnFailure" || restarts_by_itself(old, name) {
                continue;
            }
            let revived = after.items().any(|now| now.text("name") == name && !now.child("state").has("terminated"));
            if revived {
                let message = "may not be transitioned to non-terminated state";
                after.index(index).child("state").forbidden(errors, message);
            }
        }
    }
}

/// Has the container a restart policy of its own?
fn restarts_by_itself(pod: &Object, name: &str) -> bool {
    ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .filter_map(|list| pod.get(list)?.as_array())
        .flatten()
        .any(|container| container.get("name").is_some_and(|n| n == name) && container.get("restartPolicy").is_some())
}

fn check_ips(status: &At<'_, '_>, errors: &mut Errors) {
    for field in ["podIPs", "hostIPs"] {
        let list = status.child(field);
        let ips: Vec<&str> = list.items().map(|item| item.text("ip")).collect();
        if field == "hostIPs" && ips.first().is_some_and(|first| *first != status.text("hostIP")) {
            let first = list.index(0);
            first.child("ip").invalid(errors, "must be equal to `hostIP`");
        }
        for item in list.items().filter(|item| rules::parse_ip(item.text("ip")).is_none()) {
            let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            item.invalid_value(errors, item.text("ip"), message);
        }
        if ips.len() > 1 {
            if !rules::is_dual_stack(&ips) || ips.len() > 2 {
                list.invalid(errors, "may specify no more than one IP for each IP family");
            }
            for (index, item) in list.items().enumerate() {
                if ips[..index].contains(&ips[index]) {
                    item.duplicate(errors, item.value.clone());
                }
            }
        }
    }
}
