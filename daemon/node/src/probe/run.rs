//! The tasks of probes and hooks: one each, with its own timer.

use super::checks::Found;
use super::hook;
use super::jobs::{Job, Jobs, TaskKey, What, Work};
use super::shot::{Outcome, Target, shoot};
use super::spec::{Kind, ProbeSpec};
use super::tally::Tally;
use crate::control_plane::EventText;
use crate::events::field_path;
use crate::key::PodKey;
use crate::run::{Shared, Work as QueueWork};
use reddwarf_host::BootTime;
use reddwarf_host::spec::Hook;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// Events of one probe that are recorded at once; further ones come one a minute.
const BURST: f64 = 10.0;
const REFILL: Duration = Duration::from_secs(60);

/// What should be at work, as pods' workers last said.
#[derive(Default)]
pub(crate) struct Probes {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Default)]
struct Wanted {
    pods: BTreeMap<PodKey, Jobs>,
    /// Pods whose jobs changed since they were last looked at.
    changed: BTreeSet<PodKey>,
}

impl Probes {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what should be at work for a pod.
    pub(crate) fn set(&self, pod: &PodKey, jobs: Jobs) {
        let mut wanted = self.wanted();
        if wanted.pods.get(pod).is_some_and(|known| *known == jobs)
            || (jobs.is_empty() && !wanted.pods.contains_key(pod))
        {
            return;
        }
        if jobs.is_empty() {
            wanted.pods.remove(pod);
        } else {
            wanted.pods.insert(pod.clone(), jobs);
        }
        wanted.changed.insert(pod.clone());
        drop(wanted);
        self.changed.notify_one();
    }

    /// Nothing is at work for any pod but these.
    pub(crate) fn retain(&self, keep: impl Fn(&PodKey) -> bool) {
        let gone: Vec<_> = self.wanted().pods.keys().filter(|key| !keep(key)).cloned().collect();
        for pod in gone {
            self.set(&pod, Jobs::new());
        }
    }

    /// Jobs of pods that changed.
    fn take(&self) -> Vec<(PodKey, Jobs)> {
        let mut wanted = self.wanted();
        let changed = std::mem::take(&mut wanted.changed);
        changed.into_iter().map(|pod| (pod.clone(), wanted.pods.get(&pod).cloned().unwrap_or_default())).collect()
    }
}

/// A task at work, or done: it stays known until it is no longer wanted, so that it is done once.
struct Task {
    job: Job,
    handle: AbortHandle,
}

/// Keeps the tasks that should be at work at work, until the node stops. All of them end with it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut known: BTreeMap<PodKey, BTreeMap<TaskKey, Task>> = BTreeMap::new();
    let mut stop = shared.stop.subscribe();
    let begun = shared.now();
    loop {
        for (pod, jobs) in shared.probes.take() {
            let of = known.entry(pod.clone()).or_default();
            of.retain(|key, task| {
                let same = jobs.get(key) == Some(&task.job);
                if !same {
                    task.handle.abort();
                }
                same
            });
            for (key, job) in jobs {
                if let Entry::Vacant(free) = of.entry(key) {
                    let worker = Worker { shared: shared.clone(), pod: pod.clone(), key: free.key().clone(), begun };
                    let handle = tasks.spawn(worker.work(job.clone()));
                    free.insert(Task { job, handle });
                }
            }
            if of.is_empty() {
                known.remove(&pod);
            }
        }
        tokio::select! {
            () = shared.probes.changed.notified() => {}
            // Cancel safe: an end is taken whole or not at all.
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a probe died");
                }
            }
            _ = stop.changed() => return,
        }
    }
}

/// One task.
struct Worker {
    shared: Arc<Shared>,
    pod: PodKey,
    key: TaskKey,
    /// When the node was started.
    begun: BootTime,
}

impl Worker {
    async fn work(self, job: Job) {
        let target = Target {
            sandbox: self.key.instance.sandbox.clone(),
            container: self.key.instance.container.clone(),
            address: job.address,
        };
        match &job.work {
            Work::Probe(spec) => self.probe(spec, &job, &target).await,
            Work::Hook(hook, due) => self.hook(hook, *due, &job, &target).await,
        }
    }

    /// Shots, one after another, never two at a time; a late one costs those that it is in the way of.
    async fn probe(&self, spec: &ProbeSpec, job: &Job, target: &Target) {
        let mut wait = job.started.plus(spec.delay).since(self.shared.now());
        if job.started < self.begun {
            // Found running: all such are found at once, and are not to be asked at once for ever.
            wait += spec.period.mul_f64(fastrand::f64());
        }
        tokio::time::sleep(wait).await;
        let mut ticks = tokio::time::interval(spec.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tally = Tally::new(spec.success, spec.failure);
        let mut throttle = Throttle { left: BURST, since: self.shared.now() };
        loop {
            ticks.tick().await;
            let outcome = shoot(&*self.shared.host, spec, target).await;
            if let Some(event) = describe(spec.kind, &outcome)
                && throttle.lets_pass(self.shared.now())
            {
                self.event(job, event);
            }
            let verdict = match outcome {
                Outcome::Good | Outcome::Warning(_) => tally.add(true),
                Outcome::Bad(_) => tally.add(false),
                Outcome::NotAsked(_) | Outcome::Gone => None,
            };
            match (spec.kind, verdict) {
                (_, None) => {}
                (Kind::Readiness, Some(ready)) => self.found(|f| f.ready = Some(ready)),
                (Kind::Liveness, Some(live)) => self.found(|f| f.live = Some(live)),
                // Either way it has had its say.
                (Kind::Startup, Some(started)) => return self.found(|f| f.started = Some(started)),
            }
        }
    }

    async fn hook(&self, hook: &Hook, due: BootTime, job: &Job, target: &Target) {
        let done = hook::carry_out(&*self.shared.host, &*self.shared.clock, hook, target, due).await;
        if let Err(why) = &done {
            let (reason, message) = match self.key.what {
                What::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
                What::PostStart | What::Probe(_) => ("FailedPostStartHook", "PostStartHook failed"),
            };
            // What a hook prints may be anything: it is for the log only, as in the reference.
            tracing::warn!(pod = %self.pod, container = %target.container, reason, why, "a lifecycle hook failed");
            self.event(job, (true, reason, message.to_owned()));
        }
        self.found(|f| match self.key.what {
            What::PreStop => f.pre_stopped = true,
            What::PostStart | What::Probe(_) => f.post_start = Some(done.is_ok()),
        });
    }

    /// Notes something; news wake the pod's worker.
    fn found(&self, change: impl FnOnce(&mut Found)) {
        let news = self.shared.state().memory.checks.note(&self.pod, &self.key.instance, change);
        if news {
            self.shared.enqueue(QueueWork::Pod(self.pod.clone()), self.shared.now());
        }
    }

    fn event(&self, job: &Job, (warning, reason, message): (bool, &str, String)) {
        let object = self.shared.state().desired.pods.get(&self.pod).map(|i| i.object.clone());
        let Some(object) = object else { return };
        let field_path = field_path(job.role, &self.key.instance.container);
        self.shared.event(&object, EventText { warning, reason: reason.into(), message, field_path });
    }
}

/// What an answer is worth saying.
fn describe(kind: Kind, outcome: &Outcome) -> Option<(bool, &'static str, String)> {
    match outcome {
        Outcome::Good | Outcome::Gone => None,
        Outcome::Warning(text) => Some((true, "ProbeWarning", format!("{kind} probe warning: {text}"))),
        Outcome::Bad(text) => Some((true, "Unhealthy", format!("{kind} probe failed: {text}"))),
        Outcome::NotAsked(text) => {
            Some((true, "Unhealthy", format!("{kind} probe errored and resulted in unknown state: {text}")))
        }
    }
}

/// A bucket of events: a probe that fails each second must not fill the database.
struct Throttle {
    left: f64,
    since: BootTime,
}

impl Throttle {
    fn lets_pass(&mut self, now: BootTime) -> bool {
        self.left = BURST.min(self.left + now.since(self.since).as_secs_f64() / REFILL.as_secs_f64());
        self.since = now;
        let passes = self.left >= 1.0;
        if passes {
            self.left -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_fails_for_ever_is_told_of_now_and_then() {
        let start = BootTime::from_duration(Duration::from_secs(100));
        let mut throttle = Throttle { left: BURST, since: start };
        let told = (0..3600).filter(|s| throttle.lets_pass(start.plus(Duration::from_secs(*s)))).count();
        assert!((65..=71).contains(&told), "{told} events in an hour");
    }
}
