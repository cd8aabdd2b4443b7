//! Whether and when a container that ended is started again: rules, policies, back-off.

use super::backoff;
use super::containers::{Item, Stage, Target};
use super::pod::Planner;
use super::step::{Effect, Notice};
use reddwarf_host::spec::ContainerRole;
use reddwarf_host::{BootTime, ContainerObserved, ContainerState};
use reddwarf_objects::pod::{ContainerRestartPolicy, RestartPolicy};
use std::time::Duration;

impl Item<'_> {
    /// The policy that counts for it: its own, or the pod's. Init containers are run until they succeed or must not be
    /// run again, ephemeral ones once.
    pub(super) fn policy(&self) -> RestartPolicy {
        let own = self.which.container.restart_policy.map(|own| match own {
            ContainerRestartPolicy::Always => RestartPolicy::Always,
            ContainerRestartPolicy::OnFailure => RestartPolicy::OnFailure,
            ContainerRestartPolicy::Never => RestartPolicy::Never,
        });
        match (self.which.role, own.unwrap_or(self.intent.pod.spec.restart_policy)) {
            (ContainerRole::Ephemeral, _) => RestartPolicy::Never,
            (ContainerRole::Init, RestartPolicy::Always) if self.runs_once() => RestartPolicy::OnFailure,
            (_, policy) => policy,
        }
    }

    /// Whether it is started again after it ended with this code: by the first of its rules that speaks of the code,
    /// else by the policy.
    pub(super) fn restarts(&self, code: i32) -> bool {
        if self.which.role == ContainerRole::Ephemeral || (self.runs_once() && code == 0) {
            return false;
        }
        let mut rules = self.which.container.restart_policy_rules.iter();
        match self.policy() {
            _ if rules.any(|rule| rule.action == "Restart" && rule.matches(code)) => true,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// The field that says so.
    fn policy_field(&self) -> String {
        match self.which.container.restart_policy {
            Some(_) => format!("{}.restartPolicy", self.which.field),
            None => "spec.restartPolicy".to_owned(),
        }
    }

    /// Whether its last instance ended and is not to be followed by another; `Some(true)`: it ended well.
    pub(super) fn settled(&self, target: &Target) -> Option<bool> {
        let latest = self.latest()?;
        let ContainerState::Exited { code, .. } = &latest.state else { return None };
        if target.restart().is_some() || self.restarts(*code) {
            return None;
        }
        // One that the node itself had stopped (all pods, for the host to go down) has not come to an end of its own.
        let interrupted = latest.stop.is_some() && self.policy() == RestartPolicy::OnFailure;
        (!interrupted).then_some(*code == 0)
    }
}

impl Planner<'_> {
    /// An instance that ended and is to be followed by the next one, now or after its back-off.
    pub(super) fn start_again(
        &mut self,
        item: &Item<'_>,
        target: &Target,
        latest: &ContainerObserved,
        finished: BootTime,
        ever_ran: bool,
    ) -> Stage {
        let asked_to_stop = latest.stop.is_some_and(|s| !s.is_fault()) && ever_ran;
        let (wait, reason, field) = match target.restart() {
            Some(difference) => (Duration::ZERO, difference.reason(), Some(item.field(difference))),
            None if asked_to_stop => (Duration::ZERO, "it was stopped by the node".to_owned(), None),
            None => {
                let wait = backoff::next_backoff(latest, item.previous());
                (wait, format!("it ended, and restartPolicy is {:?}", item.policy()), Some(item.policy_field()))
            }
        };
        let due = backoff::due(finished, wait, self.now);
        if self.now < due {
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                backoff::in_words(wait),
                item.which.name,
                self.key.name,
                self.key.namespace,
                item.intent.uid
            );
            self.waiting(&item.which.name, Notice::new("CrashLoopBackOff", message));
            self.wait(due);
            return Stage::Waiting;
        }
        let mut spec = match self.next_spec(item, target, latest) {
            Ok(spec) => spec,
            Err(notice) => return self.cannot_start(item, notice),
        };
        spec.attempt = latest.spec.attempt.saturating_add(1);
        spec.backoff = wait;
        self.start(item, spec, Effect::Create, &reason, field)
    }

    /// An init container that ended before its sandbox was started again: its work may be lost.
    pub(super) fn run_again(&mut self, item: &Item<'_>, target: &Target) -> Stage {
        let Some(latest) = item.latest() else { return self.first_start(item) };
        match self.next_spec(item, target, latest) {
            Ok(mut spec) => {
                spec.attempt = latest.spec.attempt.saturating_add(1);
                spec.backoff = Duration::ZERO;
                self.start(item, spec, Effect::Create, "its sandbox was started again", None)
            }
            Err(notice) => self.cannot_start(item, notice),
        }
    }
}
