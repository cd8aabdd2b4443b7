//! Rules of LimitRanges and ResourceQuotas.

use super::{
    at::{At, Errors},
    rules,
};
use crate::{names, quantity::Quantity};
use std::collections::BTreeSet;

/// A limit range's spec.
pub(super) fn check_limit_range(spec: &At<'_, '_>, errors: &mut Errors) {
    let mut kinds: Vec<&str> = Vec::new();
    for limit in spec.child("limits").items() {
        let kind = limit.text("type");
        let at = limit.child("type");
        let problems = names::qualified_name(kind);
        let valid = problems.is_empty();
        at.invalid_all(errors, kind, problems);
        if valid && !kind.contains('/') && !["Container", "PersistentVolumeClaim", "Pod"].contains(&kind) {
            at.invalid(errors, "must be a standard limit type or fully qualified");
        }
        if kinds.contains(&kind) {
            at.duplicate(errors, kind);
        }
        kinds.push(kind);
        check_limit(&limit, kind, errors);
    }
}

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn check_limit(limit: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    let mut resources = BTreeSet::new();
    for list in LISTS {
        if kind == "Pod" && list.starts_with("default") {
            if limit.filled(list) {
                limit.child(list).forbidden(errors, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if list == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let given = |list: &'static str| limit.child(list).has("storage");
            if !given("min") && !given("max") {
                let message = "either minimum or maximum storage value is required, but neither was provided";
                limit.child("limits").required(errors, message);
            }
        }
        for (name, amount) in limit.child(list).entries() {
            if matches!(kind, "Pod" | "Container") {
                rules::container_resource_name(name, &amount, errors);
            } else {
                rules::resource_name(name, &amount, errors);
            }
            resources.insert(name);
        }
    }
    resources.into_iter().for_each(|name| check_amounts(limit, kind, name, errors));
}

fn check_amounts(limit: &At<'_, '_>, kind: &str, name: &str, errors: &mut Errors) {
    let amount = |list: &'static str| {
        let forbidden = kind == "Pod" && list.starts_with("default");
        if forbidden { None } else { rules::quantity(&limit.child(list).map_key(name)) }
    };
    let [max, min, default, request, ratio] = LISTS.map(amount);
    let mut say = |list: &'static str, shown: Quantity, message: String| {
        limit.child(list).map_key(name).invalid_value(errors, shown.to_string(), message);
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        say("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some(request) = request {
        if let Some(min) = min.filter(|min| *min > request) {
            let message = format!("min value {min} is greater than default request value {request}");
            say("defaultRequest", request, message);
        }
        if let Some(max) = max.filter(|max| request > *max) {
            let message = format!("default request value {request} is greater than max value {max}");
            say("defaultRequest", request, message);
        }
        if let Some(default) = default.filter(|default| request > *default) {
            let message = format!("default request value {request} is greater than default limit value {default}");
            say("defaultRequest", request, message);
        }
    }
    if let Some(default) = default {
        if let Some(min) = min.filter(|min| *min > default) {
            say("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some(max) = max.filter(|max| default > *max) {
            say("default", max, format!("default value {default} is greater than max value {max}"));
        }
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_units(1) {
            say("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.ratio(&min);
            if ratio.ratio(&Quantity::from_units(1)) > most {
                let message = format!("ratio {ratio} is greater than max/min = {most:.6}");
                say("maxLimitRequestRatio", ratio, message);
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && !rules::allows_overcommit(name)
        && default != request
    {
        let message = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        say("defaultRequest", request, message);
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
fn is_quota_resource(name: &str) -> bool {
    name != "storage" && rules::is_standard_resource(name)
}

/// A list of amounts that a quota can bound.
pub(super) fn check_amounts_of_quota(list: &At<'_, '_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        rules::resource_name(name, &amount, errors);
        if !name.contains('/') && !is_quota_resource(name) {
            amount.invalid_value(errors, name, "must be a standard resource for quota");
        }
        rules::resource_amount(name, &amount, errors);
    }
}

/// A quota's spec.
pub(super) fn check_quota(spec: &At<'_, '_>, errors: &mut Errors) {
    let hard = spec.child("hard");
    check_amounts_of_quota(&hard, errors);
    let scopes = spec.child("scopes");
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.str()) {
            scopes.invalid(errors, "unsupported scope");
        }
        check_scope_fits(&scopes, scope.str(), &hard, errors);
    }
    check_conflicts(&scopes, scopes.items().map(|scope| scope.str()).collect(), errors);
    let selector = spec.child("scopeSelector");
    let expressions = selector.child("matchExpressions");
    for expression in expressions.items() {
        check_scope_expression(&expression, &expressions, &hard, errors);
    }
    let chosen = expressions.items().map(|expression| expression.text("scopeName")).collect();
    check_conflicts(&expressions, chosen, errors);
}

/// The reference leaves the expression's index out of these paths.
fn check_scope_expression(expression: &At<'_, '_>, list: &At<'_, '_>, hard: &At<'_, '_>, errors: &mut Errors) {
    let (scope, operator) = (expression.text("scopeName"), expression.text("operator"));
    if !SCOPES.contains(&scope) {
        list.child("scopeName").invalid_value(errors, scope, "unsupported scope");
    }
    check_scope_fits(list, scope, hard, errors);
    let only_exists =
        ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"].contains(&scope);
    if only_exists && operator != "Exists" {
        let message = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
             ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        list.child("operator").invalid_value(errors, operator, message);
    }
    let values = expression.child("values");
    match operator {
        "In" | "NotIn" if values.list().is_empty() => {
            let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            list.child("values").required(errors, message);
        }
        "Exists" | "DoesNotExist" if !values.list().is_empty() => {
            let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            list.child("values").invalid_value(errors, values.value.clone(), message);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => list.child("operator").invalid_value(errors, other, "not a valid selector operator"),
    }
}

fn check_scope_fits(shown: &At<'_, '_>, scope: &str, hard: &At<'_, '_>, errors: &mut Errors) {
    for (name, _) in hard.entries().filter(|(name, _)| is_quota_resource(name)) {
        let fits = match scope {
            "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
                is_pod_resource(name)
            }
            "BestEffort" => name == "pods",
            "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
            _ => true,
        };
        if !fits {
            shown.invalid(errors, "unsupported scope applied to resource");
        }
    }
}

fn is_pod_resource(name: &str) -> bool {
    let name = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | "pods") || rules::is_huge_pages(name)
}

fn check_conflicts(shown: &At<'_, '_>, chosen: Vec<&str>, errors: &mut Errors) {
    for pair in [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]] {
        if pair.iter().all(|scope| chosen.contains(scope)) {
            shown.invalid(errors, "conflicting scopes");
        }
    }
}
