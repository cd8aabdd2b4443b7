//! What a Job's controller does next. Pure.
//!
//! Pods that ended are counted exactly once: their uids are first noted in `status.uncountedTerminatedPods`, then their finalizer
//! is taken away, and only when it is gone the uids become part of the counts.

use super::index;
use super::policy::{self, Failed};
use super::retry::{self, Tries};
use crate::runtime::{Again, Slim};
use crate::workload::fields::{self, Wanted, condition, is_true, number, positive, set_condition, status_with, text};
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::Object;
use reddwarf_objects::object::timestamp;
use reddwarf_objects::pod::Phase;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finalizer of pods that have not been counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of a pod with its index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const TIMES: &[&str] = &["lastProbeTime"];

/// One of its pods.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPod {
    /// The pod.
    pub slim: Arc<Slim>,
    /// What its failure means, if it failed and was not counted.
    pub failed: Option<Failed>,
    /// How often its index had failed before it was made; read for failed pods that were not counted.
    pub tries: Tries,
}

impl JobPod {
    fn phase(&self) -> Phase {
        self.slim.pod().map_or(Phase::Pending, |p| p.phase)
    }

    fn tracked(&self) -> bool {
        self.slim.has_finalizer(TRACKING)
    }

    fn index(&self) -> Option<i64> {
        self.slim.label(INDEX)?.parse().ok()
    }

    /// How often its index has failed, with its own failure.
    fn tries_after(&self) -> Tries {
        self.tries.and(self.failed.as_ref())
    }

    fn ended(&self) -> bool {
        matches!(self.phase(), Phase::Succeeded | Phase::Failed)
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Pods to make, with their index in an Indexed Job.
    pub create: Vec<Option<i64>>,
    /// How often indexes that get another pod have failed, where each has a limit of its own.
    pub tries: BTreeMap<i64, Tries>,
    /// Pods that go.
    pub delete: Vec<Arc<Slim>>,
    /// Pods that lose their finalizer once the status is written.
    pub release: Vec<Arc<Slim>>,
    /// The status to write.
    pub status: Value,
    /// The Job goes: it ended long enough ago.
    pub expired: bool,
    /// What to say: warning, reason, text.
    pub said: Vec<(bool, &'static str, String)>,
    /// When to look again.
    pub again: Again,
}

/// Decides over a Job and its pods.
pub fn decide(job: &Object, pods: &[JobPod], now: DateTime<Utc>) -> Decision {
    let mut planner = Planner::new(job, pods, now);
    if planner.is_over() {
        planner.after_the_end();
    } else {
        planner.count();
        planner.judge();
        planner.finish_or_go_on();
        planner.decision.status = planner.status();
    }
    planner.decision
}

struct Planner<'a> {
    job: &'a Object,
    pods: &'a [JobPod],
    now: DateTime<Utc>,
    leaving: bool,
    suspended: bool,
    indexed: bool,
    completions: Option<i64>,
    parallelism: i64,
    conditions: Vec<Value>,
    /// Counted for good, and noted only.
    succeeded: i64,
    failed: i64,
    noted_succeeded: Vec<String>,
    noted_failed: Vec<String>,
    completed: BTreeSet<i64>,
    failed_indexes: BTreeSet<i64>,
    started: Option<String>,
    ended: Option<String>,
    decision: Decision,
}

impl<'a> Planner<'a> {
    fn new(job: &'a Object, pods: &'a [JobPod], now: DateTime<Utc>) -> Self {
        let uids = |field: &str| {
            let all = job.get(&format!("/status/uncountedTerminatedPods/{field}")).and_then(Value::as_array);
            all.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let owned = |pointer: &str| job.get_str(pointer).map(str::to_owned);
        let indexes = |field: &str| index::parse(job.get_str(&format!("/status/{field}")).unwrap_or_default());
        Self {
            leaving: job.deletion_timestamp().is_some(),
            suspended: is_true(job, "/spec/suspend"),
            indexed: job.get_str("/spec/completionMode") == Some("Indexed"),
            completions: job.get("/spec/completions").and_then(Value::as_i64),
            parallelism: number(job, "/spec/parallelism", 1).max(0),
            conditions: fields::conditions(job),
            succeeded: number(job, "/status/succeeded", 0),
            failed: number(job, "/status/failed", 0),
            noted_succeeded: uids("succeeded"),
            noted_failed: uids("failed"),
            completed: indexes("completedIndexes"),
            failed_indexes: indexes("failedIndexes"),
            started: owned("/status/startTime"),
            ended: owned("/status/completionTime"),
            decision: Decision::default(),
            job,
            pods,
            now,
        }
    }

    fn holds(&self, kind: &str) -> bool {
        condition(&self.conditions, kind).is_some_and(|c| text(c, "status") == "True")
    }

    fn is_over(&self) -> bool {
        self.holds("Complete") || self.holds("Failed")
    }

    /// Nothing of it is to run any more, and after a time it goes itself.
    fn after_the_end(&mut self) {
        self.decision.status = self.job.status().cloned().unwrap_or_default();
        self.decision.delete = self.active().map(|p| p.slim.clone()).collect();
        self.decision.release = self.pods.iter().filter(|p| p.tracked()).map(|p| p.slim.clone()).collect();
        let Some(seconds) = self.job.get("/spec/ttlSecondsAfterFinished").and_then(Value::as_i64) else { return };
        let ended = ["Complete", "Failed"].into_iter().filter(|k| self.holds(k)).find_map(|kind| {
            text(condition(&self.conditions, kind)?, "lastTransitionTime").parse::<DateTime<Utc>>().ok()
        });
        let until = ended.unwrap_or(self.now) + TimeDelta::try_seconds(seconds).unwrap_or_default();
        if until <= self.now {
            self.decision.expired = !self.leaving;
        } else {
            self.decision.again = self.decision.again.at(until, self.now);
        }
    }

    fn active(&self) -> impl Iterator<Item = &'a JobPod> + use<'a> {
        self.pods.iter().filter(|p| p.slim.is_active())
    }

    /// The limit of each index's failures, where the Job has one.
    fn index_limit(&self) -> Option<u64> {
        self.job.get("/spec/backoffLimitPerIndex").and_then(Value::as_u64).filter(|_| self.indexed)
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|p| p.slim.deleted.is_some() && !p.ended()).count()
    }

    /// Pods that are going count as failed at once, unless only ended ones are replaced.
    fn replaces_terminating(&self) -> bool {
        self.job.get_str("/spec/podReplacementPolicy") != Some("Failed")
            && self.job.get("/spec/podFailurePolicy").is_none()
    }

    /// Counts as failed although it has not ended.
    fn is_going(&self, pod: &JobPod) -> bool {
        pod.slim.deleted.is_some() && !pod.ended() && (self.replaces_terminating() || self.leaving)
    }

    /// Takes pods that ended into the counts.
    fn count(&mut self) {
        let still_tracked = |uid: &String| self.pods.iter().any(|p| *p.slim.uid == **uid && p.tracked());
        let (kept, counted): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.noted_succeeded).into_iter().partition(still_tracked);
        self.succeeded += i64::try_from(counted.len()).unwrap_or(0);
        self.noted_succeeded = kept;
        let still_tracked = |uid: &String| self.pods.iter().any(|p| *p.slim.uid == **uid && p.tracked());
        let (kept, counted): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.noted_failed).into_iter().partition(still_tracked);
        self.failed += i64::try_from(counted.len()).unwrap_or(0);
        self.noted_failed = kept;
        for pod in self.pods.iter().filter(|p| p.tracked()) {
            let uid = pod.slim.uid.to_string();
            let going = self.is_going(pod);
            match pod.phase() {
                Phase::Succeeded if self.indexed => {
                    let within = |i: &i64| self.completions.is_none_or(|c| *i < c);
                    self.completed.extend(pod.index().filter(within));
                }
                Phase::Succeeded if !self.noted_succeeded.contains(&uid) => self.noted_succeeded.push(uid),
                Phase::Succeeded => {}
                Phase::Failed => match pod.failed.as_ref().unwrap_or(&Failed::Count) {
                    Failed::Ignore => {}
                    verdict => {
                        if *verdict == Failed::Index {
                            self.failed_indexes.extend(pod.index());
                        }
                        if !self.noted_failed.contains(&uid) {
                            self.noted_failed.push(uid);
                        }
                    }
                },
                _ if going => {
                    if !self.noted_failed.contains(&uid) {
                        self.noted_failed.push(uid);
                    }
                }
                _ => continue,
            }
            self.decision.release.push(pod.slim.clone());
        }
        if self.indexed {
            self.succeeded = i64::try_from(self.completed.len()).unwrap_or(i64::MAX);
            self.count_indexes();
        }
    }

    /// Indexes that failed more often than `backoffLimitPerIndex`.
    fn count_indexes(&mut self) {
        let Some(limit) = self.index_limit() else { return };
        let over = |p: &&JobPod| p.failed != Some(Failed::Ignore) && u64::from(p.tries_after().failures) > limit;
        let over: Vec<i64> = self.uncounted_failures().filter(over).filter_map(JobPod::index).collect();
        self.failed_indexes.extend(over);
        self.failed_indexes.retain(|i| !self.completed.contains(i));
    }

    /// Pods whose failure is their index's; who suspends a Job means no harm.
    fn uncounted_failures(&self) -> impl Iterator<Item = &'a JobPod> {
        let failed = |p: &&JobPod| p.tracked() && (p.phase() == Phase::Failed || self.is_going(p));
        self.pods.iter().filter(move |p| !self.suspended && failed(p))
    }

    /// Of each index with a limit of its own that waits for another pod: the one that failed last.
    fn last_failures(&self) -> BTreeMap<i64, &'a JobPod> {
        let mut last = BTreeMap::<i64, &JobPod>::new();
        if self.index_limit().is_none() {
            return last;
        }
        let busy: BTreeSet<i64> = self.active().filter_map(JobPod::index).collect();
        let over = |i: &i64| busy.contains(i) || self.completed.contains(i) || self.failed_indexes.contains(i);
        for pod in self.uncounted_failures() {
            let Some(index) = pod.index().filter(|i| !over(i)) else { continue };
            let known = last.entry(index).or_insert(pod);
            if known.tries.all() < pod.tries.all() {
                *known = pod;
            }
        }
        last
    }

    fn all_succeeded(&self) -> i64 {
        self.succeeded + i64::try_from(self.noted_succeeded.len()).unwrap_or(0)
    }

    fn all_failed(&self) -> i64 {
        self.failed + i64::try_from(self.noted_failed.len()).unwrap_or(0)
    }

    /// Has it succeeded or failed? Said by a condition first, so that nothing turns it round while pods are still going.
    fn judge(&mut self) {
        if self.holds("SuccessCriteriaMet") || self.holds("FailureTarget") || self.leaving {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.set("FailureTarget", "True", reason, &message);
        } else if let Some(rule) = policy::met(self.job.get("/spec/successPolicy"), &self.completed) {
            self.set("SuccessCriteriaMet", "True", "SuccessPolicy", &rule);
        } else if self.is_complete() {
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods");
        }
    }

    fn is_complete(&self) -> bool {
        match self.completions {
            Some(wanted) => self.all_succeeded() >= wanted && self.failed_indexes.is_empty(),
            // A queue of work: done when one has found it empty and none is at it any more.
            None => self.all_succeeded() > 0 && self.active().next().is_none() && self.terminating() == 0,
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        let by_policy = self.pods.iter().filter(|p| p.tracked()).find_map(|p| match &p.failed {
            Some(Failed::Job(why)) => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = by_policy {
            return Some(("PodFailurePolicy", why));
        }
        let per_index = self.job.get("/spec/backoffLimitPerIndex").is_some();
        let limit = number(self.job, "/spec/backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
        let on_failure = self.job.get_str("/spec/template/spec/restartPolicy") == Some("OnFailure");
        let restarts = self.active().filter_map(|p| p.slim.pod()).map(|p| i64::from(p.restarts)).sum::<i64>();
        let restarted = on_failure && restarts > 0 && restarts >= limit;
        if self.all_failed() > limit || restarted {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        if let Some(seconds) = self.job.get("/spec/activeDeadlineSeconds").and_then(Value::as_i64)
            && !self.suspended
            && let Some(started) = self.started.as_ref().and_then(|s| s.parse::<DateTime<Utc>>().ok())
        {
            let until = started + TimeDelta::try_seconds(seconds).unwrap_or_default();
            if until <= self.now {
                return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
            }
            self.decision.again = self.decision.again.at(until, self.now);
        }
        let failed = i64::try_from(self.failed_indexes.len()).unwrap_or(0);
        let most = self.job.get("/spec/maxFailedIndexes").and_then(Value::as_i64);
        if most.is_some_and(|most| failed > most) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", text.to_owned()));
        }
        let all_ended = self.completions.is_some_and(|c| failed > 0 && failed + self.succeeded >= c);
        all_ended.then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        set_condition(&mut self.conditions, Wanted { kind, status, reason, message }, TIMES, self.now);
    }

    fn finish_or_go_on(&mut self) {
        let target = ["SuccessCriteriaMet", "FailureTarget"].into_iter().find(|k| self.holds(k));
        match target {
            Some(target) => {
                self.decision.delete = self.active().map(|p| p.slim.clone()).collect();
                let left = self.active().next().is_some() || self.terminating() > 0;
                let uncounted = self.pods.iter().any(JobPod::tracked);
                if !left && !uncounted {
                    self.conclude(target == "SuccessCriteriaMet");
                }
            }
            None if self.leaving => {}
            None => {
                if self.suspended {
                    self.suspend();
                } else {
                    self.resume();
                    self.manage();
                }
                let kept = self.last_failures();
                self.decision.release.retain(|slim| kept.values().all(|p| p.slim.uid != slim.uid));
            }
        }
    }

    fn conclude(&mut self, well: bool) {
        let target = if well { "SuccessCriteriaMet" } else { "FailureTarget" };
        let Some(why) = condition(&self.conditions, target).cloned() else { return };
        let (reason, message) = (text(&why, "reason"), text(&why, "message"));
        self.set(if well { "Complete" } else { "Failed" }, "True", reason, message);
        if well {
            self.ended = Some(timestamp(self.now));
            self.decision.said.push((false, "Completed", "Job completed".to_owned()));
        } else {
            let reason = [
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "PodFailurePolicy",
                "MaxFailedIndexesExceeded",
                "FailedIndexes",
            ]
            .into_iter()
            .find(|r| *r == reason);
            self.decision.said.push((true, reason.unwrap_or("Failed"), message.to_owned()));
        }
        // The next look sees that it is over: its time to live begins.
        self.decision.again = self.decision.again.after(std::time::Duration::ZERO);
    }

    fn suspend(&mut self) {
        self.decision.delete = self.active().map(|p| p.slim.clone()).collect();
        if !self.holds("Suspended") {
            self.set("Suspended", "True", "JobSuspended", "Job suspended");
            self.decision.said.push((false, "Suspended", "Job suspended".to_owned()));
        }
        self.started = None;
    }

    fn resume(&mut self) {
        if self.holds("Suspended") {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            self.decision.said.push((false, "Resumed", "Job resumed".to_owned()));
            self.started = None;
        }
        if self.started.is_none() {
            self.started = Some(timestamp(self.now));
            if let Some(seconds) = self.job.get("/spec/activeDeadlineSeconds").and_then(Value::as_i64) {
                let until = self.now + TimeDelta::try_seconds(seconds).unwrap_or_default();
                self.decision.again = self.decision.again.at(until, self.now);
            }
        }
    }

    /// Makes and deletes pods.
    fn manage(&mut self) {
        let mut active: Vec<&JobPod> = self.active().collect();
        if self.indexed {
            // Of two for one index the younger goes, and with it what is beyond the last index.
            active.sort_by(|a, b| (a.slim.created, &a.slim.id).cmp(&(b.slim.created, &b.slim.id)));
            let mut seen = BTreeSet::new();
            let beyond = |i: i64| self.completions.is_some_and(|c| i >= c) || self.failed_indexes.contains(&i);
            let (fine, surplus): (Vec<_>, Vec<_>) =
                active.into_iter().partition(|p| p.index().is_some_and(|i| !beyond(i) && seen.insert(i)));
            self.decision.delete.extend(surplus.iter().map(|p| p.slim.clone()));
            active = fine;
        }
        let count = i64::try_from(active.len()).unwrap_or(i64::MAX);
        let wanted = self.wanted(count);
        if count > wanted {
            let mut pods: Vec<_> = active.iter().map(|p| p.slim.clone()).collect();
            pods.sort_by(|a, b| crate::workload::pods::first_to_go(a, b));
            let surplus = usize::try_from(count - wanted).unwrap_or(0);
            self.decision.delete.extend(pods.into_iter().take(surplus));
            return;
        }
        let blocked = if self.replaces_terminating() { 0 } else { i64::try_from(self.terminating()).unwrap_or(0) };
        let more = (wanted - count - blocked).clamp(0, 500);
        if more == 0 {
            return;
        }
        let more = usize::try_from(more).unwrap_or(0);
        if self.index_limit().is_some() {
            return self.retry_indexes(more);
        }
        if let Some(until) = self.held_back_until().filter(|until| *until > self.now) {
            self.decision.again = self.decision.again.at(until, self.now);
            return;
        }
        self.decision.create = if self.indexed { self.free_indexes(more) } else { vec![None; more] };
    }

    /// Each index waits for itself. One that waits keeps its place among those at work, as in the reference.
    fn retry_indexes(&mut self, most: usize) {
        let last = self.last_failures();
        for index in self.free_indexes(most).into_iter().flatten() {
            let tries = last.get(&index).map_or_else(Tries::default, |pod| pod.tries_after());
            let ended = last.get(&index).and_then(|pod| pod.slim.pod()?.finished.or(pod.slim.deleted));
            match ended.map(|at| at + retry::pause(tries.all())).filter(|until| *until > self.now) {
                Some(until) => self.decision.again = self.decision.again.at(until, self.now),
                None => {
                    self.decision.create.push(Some(index));
                    self.decision.tries.insert(index, tries);
                }
            }
        }
    }

    fn wanted(&self, active: i64) -> i64 {
        match self.completions {
            Some(all) if self.indexed => {
                let failed = i64::try_from(self.failed_indexes.len()).unwrap_or(0);
                self.parallelism.min((all - self.succeeded - failed).max(0))
            }
            Some(all) => self.parallelism.min((all - self.all_succeeded()).max(0)),
            // Once one has succeeded, those at work finish and no more are made.
            None if self.all_succeeded() > 0 => active.min(self.parallelism),
            None => self.parallelism,
        }
    }

    fn free_indexes(&self, most: usize) -> Vec<Option<i64>> {
        let waits = |p: &&JobPod| p.slim.is_active() || (!self.replaces_terminating() && !p.ended());
        let taken: BTreeSet<i64> = self.pods.iter().filter(waits).filter_map(JobPod::index).collect();
        let free = (0..self.completions.unwrap_or(0))
            .filter(|i| !taken.contains(i) && !self.completed.contains(i) && !self.failed_indexes.contains(i));
        free.take(most).map(Some).collect()
    }

    /// When the next pod may be made after failures.
    fn held_back_until(&self) -> Option<DateTime<Utc>> {
        let ended = |phase: Phase| {
            let of = self.pods.iter().filter(move |p| p.phase() == phase);
            of.filter_map(|p| p.slim.pod()?.finished)
        };
        let success = ended(Phase::Succeeded).max();
        let failures: Vec<_> = ended(Phase::Failed).filter(|at| success.is_none_or(|s| *at > s)).collect();
        let last = failures.iter().max()?;
        Some(*last + retry::pause(u32::try_from(failures.len()).unwrap_or(u32::MAX)))
    }

    fn status(&self) -> Value {
        let active = self.active().count();
        let ready = self.active().filter(|p| p.slim.is_ready()).count();
        let over = self.is_over();
        let mut uncounted = json!({});
        for (field, uids) in [("succeeded", &self.noted_succeeded), ("failed", &self.noted_failed)] {
            if !uids.is_empty() {
                uncounted[field] = json!(uids);
            }
        }
        let indexes = |set: &BTreeSet<i64>| if set.is_empty() { Value::Null } else { json!(index::print(set)) };
        let set = json!({
            "active": fields::count(active),
            "ready": if over { json!(0) } else { json!(ready) },
            "terminating": self.terminating(),
            "succeeded": positive(self.succeeded),
            "failed": positive(self.failed),
            "completedIndexes": if self.indexed { indexes(&self.completed) } else { Value::Null },
            "failedIndexes": indexes(&self.failed_indexes),
            "uncountedTerminatedPods": uncounted,
            "startTime": self.started,
            "completionTime": self.ended,
            "conditions": if self.conditions.is_empty() { Value::Null } else { json!(self.conditions) },
        });
        status_with(self.job, set)
    }
}
