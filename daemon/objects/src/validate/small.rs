//! Rules of the kinds that need only a few.

use super::{
    at::{At, Errors},
    meta,
    pod::{resources, scheduling},
    rules,
};
use crate::{admission::SYSTEM_CLASSES, field::FieldReason, kind::Kind, names};
use serde_json::json;

pub(super) fn check(kind: &Kind, object: &At<'_, '_>, errors: &mut Errors) {
    let spec = &object.child("spec");
    match (kind.group, kind.kind) {
        ("", "Namespace") => {
            let finalizers = spec.child("finalizers");
            for finalizer in finalizers.items() {
                finalizers.invalid_all(errors, finalizer.str(), names::qualified_name(finalizer.str()));
                meta::check_standard_finalizer(&finalizer, errors);
            }
        }
        ("", "Node") => check_node(object, spec, errors),
        ("", "Binding") => check_target(&object.child("target"), errors),
        ("policy", "PodDisruptionBudget") => check_budget(spec, errors),
        ("coordination.k8s.io", "Lease") => check_lease(spec, errors),
        ("scheduling.k8s.io", "PriorityClass") => check_priority(object, errors),
        ("node.k8s.io", "RuntimeClass") => check_runtime_class(object, errors),
        ("apiregistration.k8s.io", "APIService") => check_api_service(spec, errors),
        _ => {}
    }
}

fn check_node(node: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let metadata = node.child("metadata");
    check_taints(&spec.child("taints"), &metadata.child("taints"), errors);
    let status = node.child("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status.child(list).entries() {
            rules::resource_amount(name, &amount, errors);
        }
    }
    let networks = spec.child("podCIDRs");
    for network in networks.items() {
        rules::cidr(&network, network.str(), errors);
    }
    let addresses: Vec<&str> = networks.items().filter_map(|network| network.str().split('/').next()).collect();
    if addresses.len() > 1 && (!rules::is_dual_stack(&addresses) || addresses.len() > 2) {
        networks.invalid(errors, "may specify no more than one CIDR for each IP family");
    }
}

/// Taints of a node; the reference shows them below metadata.
fn check_taints(taints: &At<'_, '_>, shown: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in taints.items().enumerate() {
        let at = shown.index(index);
        let (key, effect, value) = (taint.text("key"), taint.text("effect"), taint.text("value"));
        at.child("key").invalid_all(errors, key, names::qualified_name(key));
        let problems = names::label_value(value);
        if !problems.is_empty() {
            at.child("value").invalid_value(errors, value, problems.join(";"));
        }
        const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if effect.is_empty() {
            at.child("effect").required(errors, "");
        } else if !EFFECTS.contains(&effect) {
            at.child("effect").not_supported(errors, effect, EFFECTS);
        }
        if seen.contains(&(key, effect)) {
            // As the reference prints its internal type.
            let added = taint.child("timeAdded").value;
            let (key, value, effect) = (json!(key), json!(value), json!(effect));
            let shown = format!("{{\"Key\":{key},\"Value\":{value},\"Effect\":{effect},\"TimeAdded\":{added}}}");
            at.raw(errors, FieldReason::Duplicate, shown, "taints must be unique by key and effect pair");
        }
        seen.push((key, effect));
    }
}

fn check_target(target: &At<'_, '_>, errors: &mut Errors) {
    let kind = target.text("kind");
    if !kind.is_empty() && kind != "Node" {
        target.child("kind").not_supported(errors, kind, &["Node", "<empty>"]);
    }
    target.require(errors, "name");
}

fn check_budget(spec: &At<'_, '_>, errors: &mut Errors) {
    let (least, most) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
    if !least.value.is_null() && !most.value.is_null() {
        // As the reference prints its internal type.
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            least.value,
            spec.child("selector").value,
            most.value,
            spec.child("unhealthyPodEvictionPolicy").value
        );
        spec.raw(errors, FieldReason::Invalid, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for at in [&least, &most] {
        rules::positive_int_or_percent(at, errors);
        rules::at_most_100_percent(at, errors);
    }
    rules::label_selector(&spec.child("selector"), errors);
    spec.one_of(errors, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
}

fn check_lease(spec: &At<'_, '_>, errors: &mut Errors) {
    if spec.number("leaseDurationSeconds").is_some_and(|seconds| seconds <= 0) {
        spec.child("leaseDurationSeconds").invalid(errors, "must be greater than 0");
    }
    spec.not_negative(errors, "leaseTransitions");
    if let Some(strategy) = spec.given("strategy") {
        strategy.check_text(errors, names::qualified_name);
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        spec.child("preferredHolder").forbidden(errors, "may only be specified when `strategy` is defined");
    }
}

const PRIORITY_MAX: i64 = 1_000_000_000;

fn check_priority(class: &At<'_, '_>, errors: &mut Errors) {
    let (metadata, value) = (class.child("metadata"), class.number("value").unwrap_or(0));
    let name = metadata.text("name");
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.iter().find(|known| known.name == name);
        let problem = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some(known) if known.value != value => {
                Some(format!("value of {name} PriorityClass must be {}", known.value))
            }
            Some(_) if class.flag("globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            let message = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
            );
            metadata.child("name").forbidden(errors, message);
        }
    } else if value > PRIORITY_MAX {
        let message = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        class.child("value").forbidden(errors, message);
    }
    if class.has("preemptionPolicy") {
        class.require_one_of(errors, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    }
}

fn check_runtime_class(class: &At<'_, '_>, errors: &mut Errors) {
    let handler = class.child("handler");
    handler.invalid_all(errors, handler.str(), names::dns1123_label(handler.str()));
    let overhead = class.child("overhead");
    if overhead.filled("podFixed") {
        resources::check_overhead(&At::top("overhead", overhead.child("podFixed").value), errors);
    }
    if let Some(scheduling) = class.given("scheduling") {
        rules::labels(&scheduling, "nodeSelector", errors);
        let tolerations = scheduling.child("tolerations");
        scheduling::check_tolerations(&tolerations, errors);
        for (index, toleration) in tolerations.items().enumerate() {
            if tolerations.list()[..index].contains(toleration.value) {
                toleration.duplicate(errors, toleration.value.clone());
            }
        }
    }
}

fn check_api_service(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.require_name(errors, "version", names::dns1035_label);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let number = spec.number(field).unwrap_or(0);
        if number <= 0 || number > most {
            let message = format!("must be positive and less than {most}");
            spec.child(field).invalid_value(errors, number, message);
        }
    }
    match spec.given("service") {
        None => {
            if spec.has("caBundle") {
                spec.child("caBundle").invalid(errors, "local APIServices may not have a caBundle");
            }
            if spec.flag("insecureSkipTLSVerify") {
                let message = "local APIServices may not have insecureSkipTLSVerify";
                spec.child("insecureSkipTLSVerify").invalid(errors, message);
            }
        }
        Some(service) => {
            service.require(errors, "namespace");
            service.require(errors, "name");
            if service.has("port") {
                let port = service.number("port").unwrap_or(0);
                if !rules::PORTS.contains(&port) {
                    let message = "port is not valid: must be between 1 and 65535, inclusive";
                    service.child("port").invalid_value(errors, port, message);
                }
            }
            if spec.flag("insecureSkipTLSVerify") && spec.has("caBundle") {
                let message = "may not be true if caBundle is present";
                spec.child("insecureSkipTLSVerify").invalid(errors, message);
            }
        }
    }
}
