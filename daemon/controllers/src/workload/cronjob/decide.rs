//! What a CronJob's controller does next. Pure.

use super::schedule::Schedule;
use crate::runtime::{Again, Id};
use crate::workload::claim::Claimant;
use crate::workload::fields::{self, is_true, number, status_with, text};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use reddwarf_objects::Object;
use reddwarf_objects::object::timestamp;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::sync::Arc;

/// Annotation of a Job with the moment it stands for.
const MOMENT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed moments that are looked through one by one; beyond that something is wrong with the clock or the schedule.
const MISSED: usize = 100;

/// A Job, as its CronJob sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) id: Id,
    pub(crate) uid: Arc<str>,
    /// `Complete` or `Failed`, when it ended.
    pub(crate) ended: Option<&'static str>,
    ended_at: Option<String>,
    /// Made by the schedule, not by hand.
    scheduled: bool,
    started: Option<String>,
    leaving: bool,
}

impl Run {
    /// Reads a Job.
    pub(crate) fn of(job: &Object) -> Option<Self> {
        let conditions = fields::conditions(job);
        let is =
            |kind: &str| conditions.iter().find(|c| text(c, "type") == kind && text(c, "status") == "True").cloned();
        let ended = ["Complete", "Failed"].into_iter().find_map(|kind| Some((kind, is(kind)?)));
        let at = |c: &Value| {
            let done = job.get_str("/status/completionTime");
            done.map_or_else(|| text(c, "lastTransitionTime").to_owned(), str::to_owned)
        };
        Some(Self {
            id: Id::of_object(job)?,
            uid: job.uid()?.into(),
            ended_at: ended.as_ref().map(|(_, c)| at(c)),
            ended: ended.map(|(kind, _)| kind),
            scheduled: job.annotation(MOMENT).is_some(),
            started: job
                .get_str("/status/startTime")
                .or_else(|| job.get_str("/metadata/creationTimestamp"))
                .map(str::to_owned),
            leaving: job.deletion_timestamp().is_some(),
        })
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// Jobs that go.
    pub(crate) delete: Vec<(Id, Arc<str>)>,
    /// The Job to make.
    pub(crate) create: Option<Box<Object>>,
    /// The status to write when nothing goes wrong.
    pub(crate) status: Value,
    /// What to say: warning, reason, text.
    pub(crate) said: Vec<(bool, &'static str, String)>,
    /// When to look again.
    pub(crate) again: Again,
}

/// Decides over a CronJob and its Jobs.
pub(crate) fn decide(cron: &Object, owner: &Claimant, runs: &[Run], now: DateTime<Utc>) -> Decision {
    let mut decision = Decision::default();
    sweep(cron, runs, &mut decision);
    let mut active: Vec<Value> = runs.iter().filter(|r| r.ended.is_none() && r.scheduled).map(reference).collect();
    let mut last = cron.get_str("/status/lastScheduleTime").map(str::to_owned);
    let runs_on = !owner.leaving && !is_true(cron, "/spec/suspend");
    if runs_on
        && let Some(moment) = due(cron, now, &mut decision)
        && let Some(job) = start(cron, owner, runs, moment, now, &mut decision)
    {
        if cron.get_str("/spec/concurrencyPolicy") == Some("Replace") {
            active.clear();
        }
        last = Some(timestamp(moment));
        decision.create = Some(Box::new(job));
    }
    let before = cron.get_str("/status/lastSuccessfulTime").map(str::to_owned);
    let success =
        runs.iter().filter(|r| r.ended == Some("Complete")).filter_map(|r| r.ended_at.clone()).max().max(before);
    let set = json!({
        "active": if active.is_empty() { Value::Null } else { Value::Array(active) },
        "lastScheduleTime": last,
        "lastSuccessfulTime": success,
    });
    decision.status = status_with(cron, set);
    decision
}

fn reference(run: &Run) -> Value {
    json!({"kind": "Job", "namespace": &*run.id.namespace, "name": &*run.id.name, "uid": &*run.uid, "apiVersion": "batch/v1"})
}

/// Ended Jobs beyond the history limits go, the oldest first; what ended since the last look is said.
fn sweep(cron: &Object, runs: &[Run], decision: &mut Decision) {
    let known = cron.get("/status/active").and_then(Value::as_array);
    let was_active = |run: &&Run| known.into_iter().flatten().any(|r| text(r, "uid") == &*run.uid);
    for run in runs.iter().filter(was_active) {
        if let Some(how) = run.ended {
            let text = format!("Saw completed job: {}, condition: {how}", run.id.name);
            decision.said.push((false, "SawCompletedJob", text));
        }
    }
    for (how, field, default) in
        [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)]
    {
        let limit = usize::try_from(number(cron, &format!("/spec/{field}"), default)).unwrap_or(0);
        let mut ended: Vec<&Run> = runs.iter().filter(|r| r.ended == Some(how) && !r.leaving).collect();
        ended.sort_by_key(|r| (Reverse(r.started.clone()), r.id.clone()));
        decision.delete.extend(ended.into_iter().skip(limit).map(|r| (r.id.clone(), r.uid.clone())));
    }
}

/// The newest moment that has come and has no Job yet; says when to look again.
fn due(cron: &Object, now: DateTime<Utc>, decision: &mut Decision) -> Option<DateTime<Utc>> {
    let text = cron.get_str("/spec/schedule").unwrap_or_default();
    let schedule = match Schedule::parse(text) {
        Ok(schedule) => schedule,
        Err(why) => {
            decision.said.push((true, "UnparseableSchedule", format!("unparseable schedule: {text:?} : {why}")));
            return None;
        }
    };
    let zone = match cron.get_str("/spec/timeZone").filter(|z| !z.is_empty()).map(str::parse::<Tz>) {
        None => Tz::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(_)) => {
            let name = cron.get_str("/spec/timeZone").unwrap_or_default();
            decision.said.push((
                true,
                "UnknownTimeZone",
                format!("invalid timeZone: {name:?}: unknown time zone {name}"),
            ));
            return None;
        }
    };
    if let Some(next) = schedule.next(now, zone) {
        decision.again = decision.again.at(next, now);
    }
    let mut from = cron.time("/status/lastScheduleTime").or_else(|| cron.creation_timestamp())?;
    if let Some(deadline) = deadline(cron) {
        from = from.max(now - deadline);
    }
    let mut newest = None;
    for count in 0.. {
        let next = schedule.next(from, zone).filter(|next| *next <= now);
        let Some(next) = next else { break };
        if count == MISSED {
            let text = format!(
                "too many missed start times: > {MISSED}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            );
            decision.said.push((true, "TooManyMissedTimes", text));
            // Not one by one: from here the last few are enough.
            from = latest_before(&schedule, zone, now).unwrap_or(next);
            newest = Some(from);
            continue;
        }
        newest = Some(next);
        from = next;
    }
    newest
}

/// The newest moment up to `now`, found by looking back in ever longer steps.
fn latest_before(schedule: &Schedule, zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut back = TimeDelta::minutes(1);
    while back < TimeDelta::days(366 * 9) {
        let mut found = None;
        let mut at = now - back;
        while let Some(next) = schedule.next(at, zone).filter(|n| *n <= now) {
            found = Some(next);
            at = next;
        }
        if found.is_some() {
            return found;
        }
        back = back * 2;
    }
    None
}

fn deadline(cron: &Object) -> Option<TimeDelta> {
    TimeDelta::try_seconds(cron.get("/spec/startingDeadlineSeconds")?.as_i64()?)
}

/// The Job for a moment that has come, if it may start.
fn start(
    cron: &Object,
    owner: &Claimant,
    runs: &[Run],
    moment: DateTime<Utc>,
    now: DateTime<Utc>,
    decision: &mut Decision,
) -> Option<Object> {
    if deadline(cron).is_some_and(|d| moment + d < now) {
        let text = format!("Missed scheduled time to start a job: {}", moment.to_rfc2822());
        decision.said.push((true, "MissSchedule", text));
        return None;
    }
    let running: Vec<&Run> = runs.iter().filter(|r| r.ended.is_none() && r.scheduled).collect();
    match cron.get_str("/spec/concurrencyPolicy") {
        Some("Forbid") if !running.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            decision.said.push((false, "JobAlreadyActive", text.to_owned()));
            return None;
        }
        Some("Replace") => decision.delete.extend(running.iter().map(|r| (r.id.clone(), r.uid.clone()))),
        _ => {}
    }
    let mut job = Object::from_value(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": format!("{}-{}", owner.id.name, moment.timestamp().div_euclid(60)),
            "namespace": &*owner.id.namespace,
            "ownerReferences": [owner.reference()],
        },
        "spec": cron.get("/spec/jobTemplate/spec").cloned().unwrap_or_else(|| json!({})),
    }))
    .ok()?;
    for field in ["labels", "annotations"] {
        if let Some(value) = cron.get(&format!("/spec/jobTemplate/metadata/{field}")).filter(|v| v.is_object()) {
            job.set(&format!("/metadata/{field}"), value.clone());
        }
    }
    let zone = cron.get_str("/spec/timeZone").and_then(|z| z.parse::<Tz>().ok()).unwrap_or(Tz::UTC);
    job.set_annotation(MOMENT, &moment.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, true));
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn cron(spec: Value, last: Option<&str>) -> Object {
        let mut object = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "c", "namespace": "d", "uid": "u", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}, "status": {"lastScheduleTime": last}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Object::from_value(object).unwrap()
    }

    fn run(name: &str, ended: Option<&'static str>, started: &str) -> Run {
        let id = Id::new("batch", "Job", "d", name).unwrap();
        let ended_at = ended.map(|_| started.to_owned());
        Run {
            id,
            uid: name.into(),
            ended,
            ended_at,
            scheduled: true,
            started: Some(started.to_owned()),
            leaving: false,
        }
    }

    fn decided(cron: &Object, runs: &[Run], now: &str) -> Decision {
        decide(cron, &Claimant::of(cron).unwrap(), runs, at(now))
    }

    #[test]
    fn when_a_job_starts() {
        let none = json!({});
        for (spec, last, now, expected) in [
            (none.clone(), None, "2026-01-01T00:09:59Z", None),
            (none.clone(), None, "2026-01-01T00:10:00Z", Some("c-29453770")),
            (none.clone(), Some("2026-01-01T00:10:00Z"), "2026-01-01T00:19:00Z", None),
            // Of several missed ones only the newest.
            (none.clone(), Some("2026-01-01T00:10:00Z"), "2026-01-01T00:45:00Z", Some("c-29453800")),
            (none, Some("2026-01-01T00:10:00Z"), "2026-03-01T00:05:00Z", Some("c-29538720")),
            (json!({"suspend": true}), None, "2026-01-01T00:10:00Z", None),
            (json!({"startingDeadlineSeconds": 60}), None, "2026-01-01T00:12:00Z", None),
            (json!({"schedule": "x"}), None, "2026-01-01T00:10:00Z", None),
            (json!({"timeZone": "Nowhere/City"}), None, "2026-01-01T00:10:00Z", None),
        ] {
            let decision = decided(&cron(spec.clone(), last), &[], now);
            assert_eq!(decision.create.as_ref().map(|j| j.name()), expected, "{spec} {now}");
        }
        let decision = decided(&cron(json!({"timeZone": "Europe/Berlin"}), None), &[], "2026-01-01T00:10:01Z");
        let job = decision.create.unwrap();
        assert_eq!(job.annotation(MOMENT), Some("2026-01-01T01:10:00+01:00"));
        assert_eq!((job.label("a"), &decision.status["lastScheduleTime"]), (Some("b"), &json!("2026-01-01T00:10:00Z")));
        assert!(decision.again.0.is_some());
    }

    #[test]
    fn concurrency() {
        let runs = [run("c-1", None, "2026-01-01T00:00:00Z")];
        for (policy, made, deleted) in [("Allow", true, 0), ("Forbid", false, 0), ("Replace", true, 1)] {
            let decision = decided(&cron(json!({"concurrencyPolicy": policy}), None), &runs, "2026-01-01T00:10:00Z");
            assert_eq!((decision.create.is_some(), decision.delete.len()), (made, deleted), "{policy}");
        }
    }

    #[test]
    fn only_so_many_ended_jobs_are_kept() {
        let runs: Vec<Run> = (0..5)
            .map(|n| run(&format!("c-{n}"), Some("Complete"), &format!("2026-01-01T00:0{n}:00Z")))
            .chain((0..2).map(|n| run(&format!("f-{n}"), Some("Failed"), &format!("2026-01-01T00:0{n}:00Z"))))
            .collect();
        let decision = decided(&cron(json!({}), None), &runs, "2026-01-01T00:05:00Z");
        let mut gone: Vec<_> = decision.delete.iter().map(|(id, _)| id.name.to_string()).collect();
        gone.sort();
        assert_eq!(gone, ["c-0", "c-1", "f-0"]);
        assert_eq!(decision.status["lastSuccessfulTime"], "2026-01-01T00:04:00Z");
    }
}
