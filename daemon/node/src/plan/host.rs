//! The host as a whole: the pod network and what was left over.

use super::earliest;
use super::reservations::Reservations;
use super::step::{Effect, Notice, Op, Step};
use super::view::View;
use reddwarf_host::spec::SandboxNetwork;
use reddwarf_host::{BootTime, Observation};
use std::time::Duration;

/// A left-over must have been seen for so long: what a pod's own worker is taking away right now is not ours to touch.
const LEFTOVER_AGE: Duration = Duration::from_secs(2);

/// The host's own part of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPlan {
    /// What to do.
    pub steps: Vec<Step>,
    /// Steps that would be here had they not failed lately.
    pub held_back: Vec<Op>,
    /// What keeps the host from being as asked.
    pub notices: Vec<Notice>,
    /// Plan again at this moment.
    pub wake: Option<BootTime>,
}

impl HostPlan {
    fn push(&mut self, view: &View<'_>, now: BootTime, effect: Effect, op: Op, reason: impl Into<String>) {
        if let Some(failure) = view.memory.failure(None, &op) {
            self.notices.push(Notice::new("HostStepFailed", failure.message.clone()));
            if failure.retry.is_none_or(|retry| now < retry) {
                self.wake = earliest(self.wake, failure.retry);
                self.held_back.push(op);
                return;
            }
        }
        self.steps.push(Step { pod: None, op, effect, reason: reason.into(), field: None });
    }
}

/// Makes or repairs the pod network when a pod needs it, removes it when none does, removes left-overs.
pub fn plan_host(view: &View<'_>, reservations: &Reservations, now: BootTime) -> HostPlan {
    let mut plan = HostPlan::default();
    if view.desired.halted {
        return plan;
    }
    network(view, now, &mut plan);
    for leftover in &view.observed.leftovers {
        let since = view.memory.leftovers.get(leftover).copied().unwrap_or(now);
        if now.since(since) < LEFTOVER_AGE && since <= now {
            plan.wake = earliest(plan.wake, Some(since.plus(LEFTOVER_AGE)));
            continue;
        }
        plan.push(
            view,
            now,
            Effect::Remove,
            Op::LeftoverRemove(leftover.clone()),
            "it bears our mark and belongs to no sandbox",
        );
    }
    if view.unwanted() > 0
        && let Some(notice) = view.kept(reservations)
    {
        plan.notices.push(notice.clone());
    }
    plan
}

fn network(view: &View<'_>, now: BootTime, plan: &mut HostPlan) {
    let wanted = &view.desired.settings.network;
    let on_it = |network: &SandboxNetwork| matches!(network, SandboxNetwork::Pod { .. });
    let sandboxes = view.observed.sandboxes.known();
    let used = sandboxes.is_none_or(|all| all.values().any(|s| s.known().is_none_or(|s| on_it(&s.spec.network))));
    let needed = view.desired.pods.values().any(|p| !p.pod.spec.host_network && p.deleting.is_none() && !p.finished);
    match &view.observed.network {
        Observation::Unknown(why) => {
            plan.notices
                .push(Notice::new("NetworkUnknown", format!("the state of the pod network is not known: {why}")));
        }
        Observation::Known(None) if needed || used => {
            plan.push(view, now, Effect::Create, Op::NetworkEnsure(wanted.clone()), "there is no pod network");
        }
        Observation::Known(None) => {}
        Observation::Known(Some(_)) if !needed && !used => {
            if view.desired.complete {
                plan.push(view, now, Effect::Remove, Op::NetworkRemove, "no pod needs the pod network");
            }
        }
        Observation::Known(Some(found)) if found.spec != *wanted => {
            plan.push(
                view,
                now,
                Effect::Change,
                Op::NetworkEnsure(wanted.clone()),
                "the settings of the pod network changed",
            );
        }
        Observation::Known(Some(found)) if !found.drift.is_empty() => {
            let reason = format!("the pod network was changed by someone: {}", found.drift.join("; "));
            plan.push(view, now, Effect::Change, Op::NetworkEnsure(wanted.clone()), reason);
        }
        Observation::Known(Some(_)) => {}
    }
}
