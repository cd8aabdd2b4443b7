//! Rules of what makes pods: apps, batch, PodTemplate, ReplicationController.

use super::{
    pod::check_template,
    rules::{Errors, label_selector, not_negative, one_of, text},
};
use crate::{
    field::{FieldError, FieldPath},
    kind::Kind,
    selector::LabelSelector,
};
use serde_json::{Value, json};

pub(super) fn check(kind: &Kind, value: &Value, errors: &mut Errors) {
    let path = &FieldPath::of("spec");
    let spec = value.get("spec").unwrap_or(&Value::Null);
    match kind.kind {
        "PodTemplate" => {
            check_template(value.get("template").unwrap_or(&Value::Null), &FieldPath::of("template"), errors)
        }
        "CronJob" => check_cron_job(spec, path, errors),
        "Job" => check_job(spec, path, errors),
        "ControllerRevision" => not_negative(value, &FieldPath::root(), "revision", errors),
        _ => check_replicated(kind, spec, path, errors),
    }
}

fn check_replicated(kind: &Kind, spec: &Value, path: &FieldPath, errors: &mut Errors) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(spec, path, field, errors);
    }
    check_selector(kind, spec, path, errors);
    let Some(template) = spec.get("template").filter(|template| !template.is_null()) else {
        errors.push(FieldError::required(&path.child("template"), ""));
        return;
    };
    let at = path.child("template");
    check_template(template, &at, errors);
    let policy = template.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    if policy != "Always" {
        errors.push(FieldError::not_supported(&at.child("spec").child("restartPolicy"), policy, &["Always"]));
    }
    let (field, allowed) = match kind.kind {
        "Deployment" => ("strategy", ["Recreate", "RollingUpdate"]),
        _ => ("updateStrategy", ["OnDelete", "RollingUpdate"]),
    };
    if let Some(strategy) = spec.get(field) {
        one_of(strategy, &path.child(field), "type", &allowed, errors);
    }
    one_of(spec, path, "podManagementPolicy", &["OrderedReady", "Parallel"], errors);
}

fn check_selector(kind: &Kind, spec: &Value, path: &FieldPath, errors: &mut Errors) {
    let at = path.child("selector");
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    let selector = match spec.get("selector") {
        None | Some(Value::Null) => return errors.push(FieldError::required(&at, "")),
        // A ReplicationController's selector is a plain map.
        Some(map) if kind.group.is_empty() => json!({"matchLabels": map}),
        Some(selector) => selector.clone(),
    };
    label_selector(&selector, &at, errors);
    let Ok(parsed) = LabelSelector::from_value(&selector) else { return };
    if parsed.is_empty() {
        let message = format!("empty selector is invalid for {}", kind.singular);
        errors.push(FieldError::invalid(&at, selector, message));
    } else if !parsed.matches_labels(|key| labels.get(key).and_then(Value::as_str)) {
        let at = path.child("template").child("metadata").child("labels");
        errors.push(FieldError::invalid(&at, labels, "`selector` does not match template `labels`"));
    }
}

fn check_job(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ] {
        not_negative(spec, path, field, errors);
    }
    one_of(spec, path, "completionMode", &["Indexed", "NonIndexed"], errors);
    one_of(spec, path, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], errors);
    if text(spec, "completionMode") == "Indexed" && spec.get("completions").is_none() {
        let message = "when completion mode is Indexed";
        errors.push(FieldError::required(&path.child("completions"), message));
    }
    let Some(template) = spec.get("template").filter(|template| !template.is_null()) else {
        errors.push(FieldError::required(&path.child("template"), ""));
        return;
    };
    let at = path.child("template");
    check_template(template, &at, errors);
    let policy = template.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    if policy == "Always" {
        let at = at.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(&at, policy, &["OnFailure", "Never"]));
    }
}

fn check_cron_job(spec: &Value, path: &FieldPath, errors: &mut Errors) {
    let schedule = text(spec, "schedule");
    let at = path.child("schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if let Err(problem) = check_schedule(schedule) {
        errors.push(FieldError::invalid(&at, schedule, problem));
    }
    one_of(spec, path, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, path, field, errors);
    }
    let job = spec.pointer("/jobTemplate/spec").unwrap_or(&Value::Null);
    check_job(job, &path.child("jobTemplate").child("spec"), errors);
}

/// A cron schedule: a macro, or five fields of lists of ranges with steps.
fn check_schedule(schedule: &str) -> Result<(), String> {
    if schedule.contains("TZ") {
        return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if schedule.starts_with('@') {
        let known = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
        let every = schedule.strip_prefix("@every ").is_some_and(|rest| !rest.is_empty());
        return if known.contains(&schedule) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let ranges: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 7, DAYS)];
    for (field, (low, high, words)) in fields.iter().zip(ranges) {
        for part in field.split(',') {
            check_cron_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn check_cron_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && !step.parse::<u32>().is_ok_and(|step| step > 0)
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if range == "*" || range == "?" {
        return Ok(());
    }
    let number = |text: &str| -> Result<u32, String> {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text)).and_then(|p| u32::try_from(p).ok());
        let value = match word {
            Some(position) => position + low,
            None => text.parse().map_err(|_| format!("failed to parse int from {text}"))?,
        };
        match value {
            value if value < low => Err(format!("beginning of range ({value}) below minimum ({low}): {part}")),
            value if value > high => Err(format!("end of range ({value}) above maximum ({high}): {part}")),
            value => Ok(value),
        }
    };
    match range.split_once('-') {
        Some((start, end)) if number(start)? > number(end)? => {
            Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"))
        }
        Some(_) => Ok(()),
        None => number(range).map(|_| ()),
    }
}
