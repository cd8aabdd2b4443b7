//! Rules of autoscalers.

use super::{
    at::{At, Errors},
    rules,
};
use crate::names;

/// An autoscaler's spec, of either version.
pub(super) fn check(spec: &At<'_, '_>, errors: &mut Errors) {
    let (least, most) = (spec.number("minReplicas"), spec.number("maxReplicas").unwrap_or(0));
    if least.is_some_and(|least| least < 1) {
        spec.child("minReplicas").invalid(errors, "must be greater than or equal to 1");
    }
    let at = spec.child("maxReplicas");
    if most < 1 {
        at.invalid_value(errors, most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        at.invalid_value(errors, most, "must be greater than or equal to `minReplicas`");
    }
    check_reference(&spec.child("scaleTargetRef"), errors);
    if spec.number("targetCPUUtilizationPercentage").is_some_and(|percent| percent < 1) {
        spec.child("targetCPUUtilizationPercentage").invalid(errors, "must be greater than 0");
    }
    for metric in spec.child("metrics").items() {
        check_metric(&metric, errors);
    }
    let behavior = spec.child("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(found) = behavior.given(direction) {
            check_scaling(&found, errors);
        }
    }
}

fn check_reference(reference: &At<'_, '_>, errors: &mut Errors) {
    reference.require_name(errors, "kind", names::path_segment);
    reference.require_name(errors, "name", names::path_segment);
    let version = reference.text("apiVersion");
    if version.matches('/').count() > 1 {
        let message = format!("unexpected GroupVersion string: {version}");
        reference.child("apiVersion").invalid(errors, message);
    }
}

/// In the order in which the reference looks at them.
const METRICS: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn check_metric(metric: &At<'_, '_>, errors: &mut Errors) {
    let kind = metric.text("type");
    if kind.is_empty() {
        metric.child("type").required(errors, "must specify a metric source type");
    }
    let mut kinds: Vec<&str> = METRICS.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    let expected = METRICS.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    if expected.is_none() {
        metric.child("type").not_supported(errors, kind, &kinds);
    }
    let present: Vec<&'static str> =
        METRICS.iter().map(|(_, field)| *field).filter(|field| metric.has(field)).collect();
    if let Some(first) = present.first() {
        check_source(first, &metric.child(first), errors);
    }
    if let Some(expected) = expected
        && !present.contains(&expected)
    {
        let message = "must populate information for the given metric source";
        metric.child(expected).required(errors, message);
    }
    if present.len() > 1 {
        for other in present.iter().filter(|field| Some(**field) != expected) {
            metric.child(other).forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn check_source(kind: &str, source: &At<'_, '_>, errors: &mut Errors) {
    let target = source.child("target");
    match kind {
        "resource" | "containerResource" => {
            required_with(source, "name", "must specify a resource name", errors);
            if kind == "containerResource" {
                required_with(source, "container", "must specify a container", errors);
            }
            check_target(&target, errors);
            match (target.has("averageUtilization"), target.has("averageValue")) {
                (false, false) => {
                    let message = "must set either a target raw value or a target utilization";
                    target.child("averageUtilization").required(errors, message);
                }
                (true, true) => {
                    let message = "may not set both a target raw value and a target utilization";
                    target.child("averageValue").forbidden(errors, message);
                }
                _ => {}
            }
        }
        "pods" => {
            check_identifier(&source.child("metric"), errors);
            check_target(&target, errors);
            let average = target.child("averageValue");
            if rules::quantity(&average).is_none_or(|amount| amount.is_zero() || amount.is_negative()) {
                average.required(errors, "must specify a positive target averageValue");
            }
        }
        "object" => {
            check_reference(&source.child("describedObject"), errors);
            check_identifier(&source.child("metric"), errors);
            check_target(&target, errors);
            if !target.has("value") && !target.has("averageValue") {
                target.child("averageValue").required(errors, "must set either a target value or averageValue");
            }
        }
        "external" => {
            check_identifier(&source.child("metric"), errors);
            check_target(&target, errors);
            match (target.has("value"), target.has("averageValue")) {
                (false, false) => {
                    let message = "must set either a target value for metric or a per-pod target";
                    target.child("averageValue").required(errors, message);
                }
                (true, true) => {
                    let message = "may not set both a target value for metric and a per-pod target";
                    target.child("value").forbidden(errors, message);
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn required_with(at: &At<'_, '_>, key: &'static str, message: &str, errors: &mut Errors) {
    if at.text(key).is_empty() {
        at.child(key).required(errors, message);
    }
}

fn check_identifier(metric: &At<'_, '_>, errors: &mut Errors) {
    required_with(metric, "name", "must specify a metric name", errors);
    metric.optional_name(errors, "name", names::path_segment);
    if let Some(selector) = metric.given("selector") {
        rules::label_selector(&selector, errors);
    }
}

fn check_target(target: &At<'_, '_>, errors: &mut Errors) {
    match target.text("type") {
        "" => target.child("type").required(errors, "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        _ => target.child("type").invalid(errors, "must be either Utilization, Value, or AverageValue"),
    }
    for field in ["value", "averageValue"] {
        let at = target.child(field);
        if let Some(amount) = rules::quantity(&at).filter(|amount| amount.is_zero() || amount.is_negative()) {
            at.invalid_value(errors, amount.to_string(), "must be positive");
        }
    }
    if target.number("averageUtilization").is_some_and(|percent| percent < 1) {
        target.child("averageUtilization").invalid(errors, "must be greater than 0");
    }
}

fn check_scaling(scaling: &At<'_, '_>, errors: &mut Errors) {
    if let Some(seconds) = scaling.number("stabilizationWindowSeconds") {
        let at = scaling.child("stabilizationWindowSeconds");
        if seconds < 0 {
            at.invalid(errors, "must be greater than or equal to zero");
        }
        if seconds > 3600 {
            at.invalid(errors, "must be less than or equal to 3600");
        }
    }
    scaling.one_of(errors, "selectPolicy", &["Disabled", "Max", "Min"]);
    let policies = scaling.child("policies");
    if policies.list().is_empty() {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let kind = policy.text("type");
        if !["Percent", "Pods"].contains(&kind) {
            policy.child("type").not_supported(errors, kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.number(field).unwrap_or(0);
            if number <= 0 {
                policy.child(field).invalid_value(errors, number, rules::NOT_POSITIVE);
            }
        }
        if policy.number("periodSeconds").is_some_and(|seconds| seconds > 1800) {
            policy.child("periodSeconds").invalid(errors, "must be less than or equal to 1800");
        }
    }
    if let Some(tolerance) = scaling.given("tolerance")
        && let Some(amount) = rules::quantity(&tolerance).filter(crate::Quantity::is_negative)
    {
        tolerance.invalid_value(errors, amount.to_string(), rules::NEGATIVE);
    }
}
