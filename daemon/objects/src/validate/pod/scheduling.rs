//! Rules of where pods may run. This host has one node: they are checked and kept for its clients' sake.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};
use serde_json::Value;

/// `affinity` of a pod.
pub(super) fn check_affinity(affinity: &At<'_, '_>, errors: &mut Errors) {
    let node = affinity.child("nodeAffinity");
    if let Some(required) = node.given("requiredDuringSchedulingIgnoredDuringExecution") {
        check_node_selector(&required, errors);
    }
    for term in node.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
        check_weight(&term, errors);
        check_node_term(&term.child("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.child(kind);
        for term in pods.child("requiredDuringSchedulingIgnoredDuringExecution").items() {
            check_pod_term(&term, errors);
        }
        for term in pods.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
            check_weight(&term, errors);
            check_pod_term(&term.child("podAffinityTerm"), errors);
        }
    }
}

fn check_weight(term: &At<'_, '_>, errors: &mut Errors) {
    let weight = term.number("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        term.child("weight").invalid_value(errors, weight, "must be in the range 1-100");
    }
}

/// Terms that nodes are chosen by.
pub(in crate::validate) fn check_node_selector(selector: &At<'_, '_>, errors: &mut Errors) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.list().is_empty() {
        terms.required(errors, "must have at least one node selector term");
    }
    terms.items().for_each(|term| check_node_term(&term, true, errors));
}

fn check_node_term(term: &At<'_, '_>, check_values: bool, errors: &mut Errors) {
    for expression in term.child("matchExpressions").items() {
        let values = expression.child("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.list().is_empty() => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.list().is_empty() => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.list().len() != 1 => {
                values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => expression.child("operator").invalid_value(errors, other, "not a valid selector operator"),
        }
        rules::label_key(&expression.child("key"), errors);
        if check_values {
            values.items().for_each(|value| value.check_text(errors, names::label_value));
        }
    }
    for field in term.child("matchFields").items() {
        let values = field.child("values");
        match field.text("operator") {
            "In" | "NotIn" if values.list().len() != 1 => values
                .required(errors, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            "In" | "NotIn" => {}
            other => field.child("operator").invalid_value(errors, other, "not a valid selector operator"),
        }
        match field.text("key") {
            "metadata.name" => values.items().for_each(|name| name.check_text(errors, names::dns1123_subdomain)),
            other => field.child("key").invalid_value(errors, other, "not a valid field selector key"),
        }
    }
}

fn check_pod_term(term: &At<'_, '_>, errors: &mut Errors) {
    for selector in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.given(selector) {
            rules::label_selector(&selector, errors);
        }
    }
    for namespace in term.child("namespaces").items() {
        term.child("namespace").invalid_all(errors, namespace.str(), names::dns1123_label(namespace.str()));
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.child(field);
        if keys.list().is_empty() {
            continue;
        }
        if !term.has("labelSelector") {
            keys.forbidden(errors, "must not be specified when labelSelector is not set");
            continue;
        }
        keys.items().for_each(|key| rules::label_key(&key, errors));
    }
    for key in term.child("matchLabelKeys").items() {
        if term.child("mismatchLabelKeys").list().contains(key.value) {
            key.invalid(errors, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
    let topology = term.child("topologyKey");
    if topology.str().is_empty() {
        topology.required(errors, "can not be empty");
    }
    topology.invalid_all(errors, topology.str(), names::qualified_name(topology.str()));
}

/// Gates that a pod waits behind.
pub(super) fn check_gates(gates: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for gate in gates.items() {
        let name = gate.text("name");
        gate.invalid_all(errors, name, names::qualified_name(name));
        if seen.contains(&name) {
            gate.duplicate(errors, name);
        }
        seen.push(name);
    }
}

/// `tolerations` of a pod or a runtime class.
pub(in crate::validate) fn check_tolerations(tolerations: &At<'_, '_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, value) = (toleration.text("key"), toleration.text("operator"), toleration.text("value"));
        if !key.is_empty() {
            rules::label_key(&toleration.child("key"), errors);
        } else if operator != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            toleration.child("operator").invalid_value(errors, operator, message);
        }
        let effect = toleration.text("effect");
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            toleration.child("effect").invalid_value(errors, effect, message);
        }
        let at = toleration.child("operator");
        match operator {
            "" | "Equal" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    at.invalid_value(errors, value, problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                at.invalid_value(errors, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => at.not_supported(errors, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            check_effect(&toleration.child("effect"), errors);
        }
    }
}

/// What a taint does.
pub(in crate::validate) fn check_effect(at: &At<'_, '_>, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !EFFECTS.contains(&at.str()) {
        at.not_supported(errors, at.str(), EFFECTS);
    }
}

/// `topologySpreadConstraints` of a pod.
pub(super) fn check_spread(constraints: &At<'_, '_>, errors: &mut Errors) {
    for (index, spread) in constraints.items().enumerate() {
        let skew = spread.number("maxSkew").unwrap_or(0);
        if skew <= 0 {
            spread.child("maxSkew").invalid_value(errors, skew, rules::NOT_POSITIVE);
        }
        if spread.text("topologyKey").is_empty() {
            spread.child("topologyKey").required(errors, "can not be empty");
        }
        let action = spread.text("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            spread.child("whenUnsatisfiable").not_supported(errors, action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let same = |other: &At<'_, '_>| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|field| other.text(field) == spread.text(field))
        };
        if constraints.items().skip(index + 1).any(|other| same(&other)) {
            let pair = format!("{{{}, {action}}}", spread.text("topologyKey"));
            spread.child("{topologyKey, whenUnsatisfiable}").duplicate(errors, pair);
        }
        if let Some(domains) = spread.number("minDomains") {
            let at = spread.child("minDomains");
            if domains <= 0 {
                at.invalid(errors, rules::NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                at.invalid(errors, message);
            }
        }
        spread.one_of(errors, "nodeAffinityPolicy", &["Honor", "Ignore"]);
        spread.one_of(errors, "nodeTaintsPolicy", &["Honor", "Ignore"]);
        check_match_keys(&spread, errors);
        if let Some(selector) = spread.given("labelSelector") {
            rules::label_selector(&selector, errors);
        }
    }
}

fn check_match_keys(spread: &At<'_, '_>, errors: &mut Errors) {
    let keys = spread.child("matchLabelKeys");
    if keys.list().is_empty() {
        return;
    }
    let selector = spread.child("labelSelector");
    if selector.value.is_null() {
        keys.forbidden(errors, "must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        rules::label_key(&key, errors);
        let by_label = selector.child("matchLabels").has(key.str());
        let expressions = selector.value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
        if by_label || expressions.filter_map(|e| e.get("key")?.as_str()).any(|other| other == key.str()) {
            key.invalid(errors, "exists in both matchLabelKeys and labelSelector");
        }
    }
}
