//! Rules of what makes pods and keeps them: apps, ReplicationController, PodTemplate.

use super::{
    at::{At, Errors},
    pod::check_template,
    rules, storage,
};
use crate::{field::FieldError, field::FieldReason, kind::Kind, names, selector::LabelSelector};
use serde_json::{Value, json};

pub(super) fn check(kind: &Kind, object: &At<'_, '_>, errors: &mut Errors) {
    let spec = &object.child("spec");
    match kind.kind {
        "PodTemplate" => check_template(&object.child("template"), &[], errors),
        "ReplicationController" => check_replication_controller(spec, errors),
        "Deployment" => check_deployment(spec, errors),
        "ReplicaSet" => check_replica_set(spec, errors),
        "DaemonSet" => check_daemon_set(spec, errors),
        "StatefulSet" => check_stateful_set(spec, errors),
        "ControllerRevision" => {
            if !object.has("data") {
                object.child("data").required(errors, "data is mandatory");
            }
            object.not_negative(errors, "revision");
        }
        _ => {}
    }
}

/// The template's labels fall under the selector.
pub(super) fn check_match(selector: &Value, template: &At<'_, '_>, errors: &mut Errors) {
    let Ok(parsed) = LabelSelector::from_value(selector) else { return };
    let labels = template.value.pointer("/metadata/labels");
    if !parsed.matches_labels(|key| labels?.get(key)?.as_str()) {
        mismatch(template, errors);
    }
}

fn mismatch(template: &At<'_, '_>, errors: &mut Errors) {
    let metadata = template.child("metadata");
    metadata.child("labels").invalid(errors, "`selector` does not match template `labels`");
}

/// What every kind but jobs asks of its template's pods.
fn check_always(template: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    let spec = template.child("spec");
    let policy = spec.text("restartPolicy");
    if policy != "Always" {
        spec.child("restartPolicy").not_supported(errors, policy, &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        spec.child("activeDeadlineSeconds").forbidden(errors, message);
    }
}

/// A selector that must be there and select something; is it usable?
fn check_selector(spec: &At<'_, '_>, named: &str, errors: &mut Errors) -> bool {
    let selector = spec.child("selector");
    if selector.value.is_null() {
        selector.required(errors, "");
        // Nothing is selected, so the template's labels are not either.
        mismatch(&spec.child("template"), errors);
        return false;
    }
    let before = errors.len();
    rules::label_selector(&selector, errors);
    let wrong = errors.len() > before || LabelSelector::from_value(selector.value).is_err();
    if rules::is_empty_selector(selector.value) {
        selector.invalid(errors, format!("empty selector is invalid for {named}"));
        return false;
    }
    if wrong {
        selector.invalid(errors, if named == "statefulset" { "" } else { "invalid label selector" });
    }
    !wrong
}

fn check_replication_controller(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.not_negative(errors, "minReadySeconds");
    let selector = spec.child("selector");
    if !spec.filled("selector") {
        selector.required(errors, "");
    }
    spec.not_negative(errors, "replicas");
    let template = spec.child("template");
    if template.value.is_null() {
        template.required(errors, "");
        return;
    }
    if spec.filled("selector") {
        check_match(&json!({"matchLabels": selector.value}), &template, errors);
    }
    check_template(&template, &[], errors);
    check_always(&template, "ReplicationController", errors);
}

fn check_deployment(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.not_negative(errors, "replicas");
    let template = spec.child("template");
    let usable = check_selector(spec, "deployment", errors);
    if usable {
        check_match(spec.child("selector").value, &template, errors);
    }
    check_template(&template, &[], errors);
    check_always(&template, "ReplicaSet", errors);
    check_deployment_strategy(&spec.child("strategy"), errors);
    spec.not_negative(errors, "minReadySeconds");
    spec.not_negative(errors, "revisionHistoryLimit");
    spec.not_negative(errors, "progressDeadlineSeconds");
    let ready = spec.number("minReadySeconds").unwrap_or(0);
    if spec.number("progressDeadlineSeconds").is_some_and(|deadline| deadline <= ready) {
        spec.child("progressDeadlineSeconds").invalid(errors, "must be greater than minReadySeconds");
    }
}

fn check_deployment_strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" if !rolling.value.is_null() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            rules::positive_int_or_percent(&unavailable, errors);
            rules::positive_int_or_percent(&surge, errors);
            if rules::int_or_percent(unavailable.value) == 0 && rules::int_or_percent(surge.value) == 0 {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            rules::at_most_100_percent(&unavailable, errors);
        }
        _ => unknown_strategy(strategy, &["Recreate", "RollingUpdate"], errors),
    }
}

/// As the reference prints its internal type.
fn shown_strategy(strategy: &At<'_, '_>) -> String {
    let rolling = strategy.child("rollingUpdate").value;
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", json!(strategy.text("type")))
}

fn unknown_strategy(strategy: &At<'_, '_>, allowed: &[&str], errors: &mut Errors) {
    let mut error = FieldError::not_supported(&strategy.path(), strategy.text("type"), allowed);
    error.value = Some(shown_strategy(strategy));
    errors.push(error);
}

fn check_replica_set(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.not_negative(errors, "replicas");
    spec.not_negative(errors, "minReadySeconds");
    let template = spec.child("template");
    // The reference says deployment here too.
    if check_selector(spec, "deployment", errors) {
        check_match(spec.child("selector").value, &template, errors);
    }
    check_template(&template, &[], errors);
    check_always(&template, "ReplicaSet", errors);
}

fn check_daemon_set(spec: &At<'_, '_>, errors: &mut Errors) {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    rules::label_selector(&selector, errors);
    if selector.value.is_null() {
        let metadata = template.child("metadata");
        metadata.child("labels").invalid(errors, "`selector` does not match template `labels`");
    } else {
        check_match(selector.value, &template, errors);
        if rules::is_empty_selector(selector.value) {
            selector.invalid(errors, "empty selector is invalid for daemonset");
        }
    }
    check_template(&template, &[], errors);
    check_always(&template, "DaemonSet", errors);
    spec.not_negative(errors, "minReadySeconds");
    check_daemon_set_strategy(&spec.child("updateStrategy"), errors);
    spec.not_negative(errors, "revisionHistoryLimit");
}

fn check_daemon_set_strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if rolling.value.is_null() => rolling.required(errors, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            rules::positive_int_or_percent(&unavailable, errors);
            rules::positive_int_or_percent(&surge, errors);
            rules::at_most_100_percent(&unavailable, errors);
            rules::at_most_100_percent(&surge, errors);
            match (rules::int_or_percent(unavailable.value) > 0, rules::int_or_percent(surge.value) > 0) {
                (true, true) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => unknown_strategy(strategy, &["RollingUpdate", "OnDelete"], errors),
    }
}

fn check_stateful_set(spec: &At<'_, '_>, errors: &mut Errors) {
    let policy = spec.child("podManagementPolicy");
    match policy.str() {
        "" => policy.required(errors, ""),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid(errors, "must be 'OrderedReady' or 'Parallel'"),
    }
    check_stateful_set_strategy(&spec.child("updateStrategy"), errors);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.one_of(errors, field, &["Retain", "Delete"]);
    }
    spec.not_negative(errors, "replicas");
    spec.not_negative(errors, "minReadySeconds");
    spec.child("ordinals").not_negative(errors, "start");
    let template = spec.child("template");
    if check_selector(spec, "statefulset", errors) {
        check_match(spec.child("selector").value, &template, errors);
    }
    let claims = spec.child("volumeClaimTemplates");
    let names: Vec<&str> = claims.items().map(|claim| claim.child("metadata").text("name")).collect();
    check_template(&template, &names, errors);
    check_always(&template, "StatefulSet", errors);
    for claim in claims.items() {
        storage::check_claim(&claim.child("spec"), errors);
    }
    spec.optional_name(errors, "serviceName", names::dns1123_label);
    spec.not_negative(errors, "revisionHistoryLimit");
}

fn check_stateful_set_strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "" => strategy.required(errors, ""),
        "OnDelete" => {
            if !rolling.value.is_null() {
                rolling.invalid(errors, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            rolling.not_negative(errors, "partition");
            if let Some(unavailable) = rolling.given("maxUnavailable") {
                rules::positive_int_or_percent(&unavailable, errors);
                if rules::int_or_percent(unavailable.value) == 0 {
                    unavailable.invalid(errors, "cannot be 0");
                }
                rules::at_most_100_percent(&unavailable, errors);
            }
        }
        _ => {
            let shown = shown_strategy(strategy);
            strategy.raw(errors, FieldReason::Invalid, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// Counters of a status are not negative and not more than all.
pub(super) fn check_status(kind: &Kind, status: &At<'_, '_>, errors: &mut Errors) {
    let (counters, bounded): (&[&'static str], &[&'static str]) = match kind.kind {
        "Deployment" => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ],
            &["updatedReplicas", "readyReplicas", "availableReplicas"],
        ),
        "ReplicaSet" | "ReplicationController" => (
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        ),
        "StatefulSet" => (
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        ),
        "DaemonSet" => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
        ),
        _ => return,
    };
    counters.iter().for_each(|field| status.not_negative(errors, field));
    let number = |field: &str| status.number(field).unwrap_or(0);
    for field in bounded.iter().filter(|field| number(field) > number("replicas")) {
        status.child(field).invalid_value(errors, number(field), "cannot be greater than status.replicas");
    }
    if !bounded.is_empty() && number("availableReplicas") > number("readyReplicas") {
        let message = if kind.kind == "StatefulSet" {
            "cannot be greater than status.readyReplicas"
        } else {
            "cannot be greater than readyReplicas"
        };
        status.child("availableReplicas").invalid_value(errors, number("availableReplicas"), message);
    }
}
