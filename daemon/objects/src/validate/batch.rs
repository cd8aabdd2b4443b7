//! Rules of jobs and cron jobs.

use super::{
    at::{At, Errors},
    cron,
    pod::check_template,
    rules,
    workload::check_match,
    zones,
};
use crate::{field::FieldError, names, selector::LabelSelector};
use serde_json::Value;

/// Most parallel pods of a job that counts them, and most indexes that may fail.
const INDEXED_MAX: i64 = 100_000;
/// The same for one that has more indexes than that and counts the failures of each.
const MANY_INDEXES_MAX: i64 = 10_000;
/// The longest list of indexes.
const INDEXES_MAX: usize = 64 << 10;

/// A job without its metadata's general rules.
pub(super) fn check_job(job: &At<'_, '_>, errors: &mut Errors) {
    let (metadata, spec) = (job.child("metadata"), job.child("spec"));
    if !metadata.text("uid").is_empty() && !spec.flag("manualSelector") {
        check_generated_selector(&metadata, &spec, errors);
    }
    check_spec(&spec, errors);
    let selector = spec.child("selector");
    if !selector.value.is_null() {
        rules::label_selector(&selector, errors);
        check_match(selector.value, &spec.child("template"), errors);
    } else if !metadata.text("uid").is_empty() || spec.flag("manualSelector") {
        selector.required(errors, "");
    }
    let completions = spec.number("completions").unwrap_or(0);
    if spec.text("completionMode") == "Indexed" && completions > 0 {
        let last = format!("{}-{}", metadata.text("name"), completions - 1);
        if !names::dns1123_label(&last).is_empty() {
            let message = format!("will not able to create pod with invalid DNS label: {last}");
            metadata.child("name").invalid(errors, message);
        }
    }
}

/// A job that selects its pods by its uid has its name on them.
fn check_generated_selector(metadata: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let Some(selector) = spec.given("selector") else { return };
    let template = spec.child("template");
    let template = template.child("metadata");
    let labels = template.child("labels");
    let (uid, name) = (metadata.text("uid"), metadata.text("name"));
    let wanted = [
        ("controller-uid", uid),
        ("batch.kubernetes.io/controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in wanted {
        let label = labels.map_key(key);
        match label.value.as_str() {
            None => label.required(errors, &format!("must be '{value}'")),
            Some(found) if found != value => {
                label.invalid_value(errors, labels.value.clone(), format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let expected = |key: &str| wanted.iter().find(|(wanted, _)| *wanted == key).map(|(_, value)| *value);
    if LabelSelector::from_value(selector.value).is_ok_and(|parsed| !parsed.matches_labels(expected)) {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

fn check_spec(spec: &At<'_, '_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.not_negative(errors, field);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.child("backoffLimitPerIndex").required(errors, "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.given("managedBy") {
        super::network::domain_prefixed_path(&manager, errors);
        if manager.str().len() > 63 {
            manager.too_long(errors, 63);
        }
    }
    check_completion_mode(spec, errors);
    check_failure_policy(spec, errors);
    check_success_policy(spec, errors);
    check_replacement(spec, errors);
    let template = spec.child("template");
    check_template(&template, &[], errors);
    check_restart_policy(spec, &template, errors);
}

fn check_completion_mode(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.one_of(errors, "completionMode", &["Indexed", "NonIndexed"]);
    match spec.text("completionMode") {
        "Indexed" => check_indexed(spec, errors),
        "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(found) = spec.given(field) {
                    found.invalid(errors, INDEXED);
                }
            }
        }
        _ => {}
    }
}

const INDEXED: &str = "requires indexed completion mode";

fn check_indexed(spec: &At<'_, '_>, errors: &mut Errors) {
    let (completions, failures) = (spec.number("completions"), spec.number("maxFailedIndexes"));
    let (parallelism, failed) = (spec.child("parallelism"), spec.child("maxFailedIndexes"));
    if completions.is_none() {
        spec.child("completions").required(errors, "when completion mode is Indexed");
    }
    if spec.number("parallelism").is_some_and(|pods| pods > INDEXED_MAX) {
        let message = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        parallelism.invalid(errors, message);
    }
    if completions.is_some_and(|all| failures.is_some_and(|failures| failures > all)) {
        failed.invalid(errors, "must be less than or equal to completions");
    }
    if failures.is_some_and(|failures| failures > INDEXED_MAX) {
        failed.invalid(errors, format!("must be less than or equal to {INDEXED_MAX}"));
    }
    if completions.is_none_or(|all| all <= INDEXED_MAX) || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if failures.is_none() {
        failed.required(errors, &format!("must be specified when completions is above {INDEXED_MAX}"));
    }
    for (at, number) in [(parallelism, spec.number("parallelism")), (failed, failures)] {
        if number.is_some_and(|number| number > MANY_INDEXES_MAX) {
            let message = format!(
                "must be less than or equal to {MANY_INDEXES_MAX} when completions are above {INDEXED_MAX} and used with backoff limit per index"
            );
            at.invalid(errors, message);
        }
    }
}

fn check_restart_policy(spec: &At<'_, '_>, template: &At<'_, '_>, errors: &mut Errors) {
    let pod = template.child("spec");
    let at = pod.child("restartPolicy");
    match at.str() {
        // What the template leaves out has become `Always`.
        "" | "Always" => at.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        other => at.not_supported(errors, other, &["OnFailure", "Never"]),
    }
    if spec.has("podFailurePolicy") && at.str() != "Never" {
        at.invalid(errors, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

fn check_replacement(spec: &At<'_, '_>, errors: &mut Errors) {
    let allowed: &[&str] = if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.one_of(errors, "podReplacementPolicy", allowed);
}

fn check_failure_policy(spec: &At<'_, '_>, errors: &mut Errors) {
    let policy = spec.child("podFailurePolicy");
    let rules = policy.child("rules");
    too_many(&rules, 20, errors);
    for rule in rules.items() {
        one_of_listed(&rule, "action", &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        if rule.text("action") == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            rule.child("action").invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
        match (rule.given("onExitCodes"), rule.filled("onPodConditions")) {
            (Some(_), true) => {
                let message = "specifying both OnExitCodes and OnPodConditions is not supported";
                rule.invalid_whole(errors, message);
            }
            (None, false) => {
                let message = "specifying one of OnExitCodes and OnPodConditions is required";
                rule.invalid_whole(errors, message);
            }
            _ => {}
        }
        if let Some(codes) = rule.given("onExitCodes") {
            check_exit_codes(&codes, spec, errors);
        }
        let conditions = rule.child("onPodConditions");
        too_many(&conditions, 20, errors);
        for condition in conditions.items() {
            condition.child("type").check_text(errors, names::qualified_name);
            one_of_listed(&condition, "status", &["False", "True", "Unknown"], errors);
        }
    }
}

/// A text that must be there and be one of `allowed`, which the error for its absence lists.
fn one_of_listed(at: &At<'_, '_>, key: &'static str, allowed: &[&str], errors: &mut Errors) {
    if at.text(key).is_empty() {
        let quoted: Vec<String> = allowed.iter().map(|value| format!("{value:?}")).collect();
        at.child(key).required(errors, &format!("valid values: [{}]", quoted.join(" ")));
    } else {
        at.one_of(errors, key, allowed);
    }
}

fn too_many(list: &At<'_, '_>, most: usize, errors: &mut Errors) {
    if list.list().len() > most {
        errors.push(FieldError::too_many(&list.path(), list.list().len(), most));
    }
}

fn check_exit_codes(codes: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    one_of_listed(codes, "operator", &["In", "NotIn"], errors);
    let container = codes.child("containerName");
    let pod = spec.child("template");
    let pod = pod.child("spec");
    let known = |list: &'static str| pod.child(list).items().any(|c| c.text("name") == container.str());
    if !container.value.is_null() && !known("containers") && !known("initContainers") {
        let message = "must be one of the container or initContainer names in the pod template";
        container.invalid(errors, message);
    }
    let values = codes.child("values");
    if values.list().is_empty() {
        values.invalid_value(errors, Vec::<Value>::new(), "at least one value is required");
    }
    too_many(&values, 255, errors);
    let mut ordered = true;
    let mut last = i64::MIN;
    for (index, value) in values.items().enumerate() {
        let code = value.value.as_i64().unwrap_or(0);
        if code == 0 && codes.text("operator") == "In" {
            value.invalid_value(errors, code, "must not be 0 for the In operator");
        }
        if values.list()[..index].contains(value.value) {
            value.duplicate(errors, code);
        }
        ordered &= code >= last;
        last = code;
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

fn check_success_policy(spec: &At<'_, '_>, errors: &mut Errors) {
    let Some(policy) = spec.given("successPolicy") else { return };
    if spec.text("completionMode") != "Indexed" {
        policy.invalid(errors, INDEXED);
        return;
    }
    let rules = policy.child("rules");
    if rules.list().is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        rules.required(errors, message);
    }
    too_many(&rules, 20, errors);
    for rule in rules.items() {
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            let message = "at least one of succeededCount or succeededIndexes must be specified";
            rule.required(errors, message);
        }
        check_success_rule(&rule, spec.number("completions").unwrap_or(0), errors);
    }
}

fn check_success_rule(rule: &At<'_, '_>, completions: i64, errors: &mut Errors) {
    let indexes = rule.child("succeededIndexes");
    let mut listed = 0;
    if let Some(text) = indexes.value.as_str() {
        if text.len() > INDEXES_MAX {
            indexes.too_long(errors, INDEXES_MAX);
        }
        match count_indexes(text, completions) {
            Ok(count) => listed = count,
            Err(problem) => indexes.invalid(errors, format!("error parsing succeededIndexes: {problem}")),
        }
    }
    rule.not_negative(errors, "succeededCount");
    let Some(count) = rule.number("succeededCount") else { return };
    let at = rule.child("succeededCount");
    if count > completions {
        let message = format!("must be less than or equal to {completions} (the number of specified completions)");
        at.invalid(errors, message);
    }
    if !indexes.value.is_null() && count > listed {
        let message = format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        );
        at.invalid(errors, message);
    }
}

/// How many indexes a list such as `1,3-5` has, of a job with so many completions.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let (mut last, mut total) = (-1, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = match part.split('-').collect::<Vec<_>>().as_slice() {
            [only] => (number(only)?, None),
            [first, end] => (number(first)?, Some(number(end)?)),
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        for (before, after) in [(Some(first), end), (Some(last), Some(first))] {
            if let (Some(before), Some(after)) = (before, after)
                && before >= after
            {
                return Err(format!("non-increasing order, previous: {before}, current: {after}"));
            }
        }
        last = end.unwrap_or(first);
        total += last - first + 1;
    }
    Ok(total)
}

/// A cron job's spec, without what depends on what it was before.
pub(super) fn check_cron_job(spec: &At<'_, '_>, errors: &mut Errors) {
    let at = spec.child("schedule");
    let schedule = at.str();
    if schedule.is_empty() {
        at.required(errors, "");
    } else {
        if let Err(problem) = cron::check(schedule) {
            at.invalid(errors, problem);
        }
    }
    spec.not_negative(errors, "startingDeadlineSeconds");
    spec.require_one_of(errors, "concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    let template = spec.child("jobTemplate");
    let job = template.child("spec");
    check_spec(&job, errors);
    if let Some(selector) = job.given("selector") {
        selector.invalid(errors, "`selector` will be auto-generated");
    }
    if job.flag("manualSelector") {
        let mut error = FieldError::not_supported(&job.child("manualSelector").path(), "", &["nil", "false"]);
        error.value = Some("true".to_owned());
        errors.push(error);
    }
    spec.not_negative(errors, "successfulJobsHistoryLimit");
    spec.not_negative(errors, "failedJobsHistoryLimit");
}

/// The zone of a cron job's schedule. What was stored before such a rule was made may stay (`before` is the spec as it was).
pub(super) fn check_zone(spec: &At<'_, '_>, before: Option<&Value>, errors: &mut Errors) {
    let (at, schedule) = (spec.child("timeZone"), spec.child("schedule"));
    let old = |field: &str| before.and_then(|spec| spec.get(field)?.as_str());
    if schedule.str().contains("TZ") {
        if old("schedule").is_none_or(|schedule| !schedule.contains("TZ")) {
            schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        } else if !at.value.is_null() {
            schedule.invalid(errors, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
    }
    let Some(name) = at.value.as_str().filter(|name| old("timeZone") != Some(name)) else { return };
    if name.is_empty() {
        at.invalid(errors, "timeZone must be nil or non-empty string");
        return;
    }
    if name.eq_ignore_ascii_case("local") {
        let message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        at.invalid(errors, message);
    }
    if name != "Local" && !zones::is_known(name) {
        at.invalid(errors, format!("unknown time zone {name}"));
    }
}

/// Counters of a job's status.
pub(super) fn check_job_status(status: &At<'_, '_>, errors: &mut Errors) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.not_negative(errors, field);
    }
    let holds = |kind: &str| {
        let conditions = status.value.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let mut of_kind = conditions.filter(|c| c.get("type").is_some_and(|t| t == kind));
        of_kind.any(|c| c.get("status").is_some_and(|s| s == "True"))
    };
    if holds("Complete") && holds("Failed") {
        let at = status.child("conditions");
        at.invalid(errors, "cannot set Complete=True and Failed=true conditions");
    }
}
