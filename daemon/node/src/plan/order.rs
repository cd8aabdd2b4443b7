//! Which containers of a pod come first and which wait for others, and when all of it has come to its end.
//!
//! Init containers run one after another. One of them with restartPolicy Always, a sidecar, is waited for only until it
//! has started and then runs beside whatever follows; it is started again whatever the pod's policy, its exit codes
//! count for nothing, and it is stopped after the main containers, the last one first (`remove.rs`).

use super::containers::{Item, Stage, Target};
use super::pod::Planner;
use super::step::{Effect, Notice, Op, Outlook};
use crate::desired::PodIntent;
use crate::probe::Start;
use crate::translate::{self, Identity};
use reddwarf_host::spec::ContainerRole;
use reddwarf_host::{BootTime, ContainerState, SandboxObserved, SandboxState};
use std::time::Duration;

/// The reason of an eviction.
pub(super) const EVICTED: &str = "Evicted";
/// What an evicted pod's processes have between TERM and KILL.
pub(super) const EVICTION_GRACE: Duration = Duration::from_secs(1);

impl Planner<'_> {
    /// Whether the pod has come to its end: every main container, or one init container that is not tried again.
    pub(super) fn has_ended(items: &[Item<'_>], targets: &[Target]) -> bool {
        let settled: Vec<_> = items.iter().zip(targets).map(|(i, t)| (i, i.settled(t))).collect();
        let init_failed = settled.iter().any(|(i, s)| i.runs_once() && *s == Some(false));
        let mut main = settled.iter().filter(|(i, _)| i.which.role == ContainerRole::Main).peekable();
        init_failed || (main.peek().is_some() && main.all(|(_, s)| s.is_some()))
    }

    /// Why the pod as a whole is to end, whatever its containers do: it must go for the host's sake, or its time is over.
    pub(super) fn verdict(&mut self, intent: &PodIntent) -> Option<Notice> {
        if let Some(evicted) = self.view.memory.evicted.get(&intent.uid) {
            return Some(evicted.clone());
        }
        let deadline = self.view.memory.deadlines.get(&intent.uid)?;
        if self.now < deadline.at {
            self.wait(deadline.at);
            return None;
        }
        Some(Notice::new("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
    }

    /// The pod has failed as a whole.
    pub(super) fn fail(&mut self, verdict: Notice) {
        self.plan.outlook.ended = true;
        self.plan.outlook.failed = Some(verdict);
    }

    /// The pod has ended: what still runs is stopped, sidecars last, then the sandbox. Its records stay until it is
    /// deleted.
    pub(super) fn wind_down(&mut self, sandbox: &SandboxObserved, grace: Duration, reason: &str) {
        self.plan.outlook.ended = true;
        if self.stop_all(sandbox, grace, Effect::Remove, reason, None)
            && matches!(sandbox.state, SandboxState::Running | SandboxState::Stopping)
        {
            self.push(Effect::Remove, Op::SandboxStop(sandbox.spec.id.clone()), reason, None);
        }
    }

    /// An evicted pod was to give room: nothing of it stays but its logs.
    pub(super) fn clear_away(&mut self, sandbox: &SandboxObserved) {
        self.plan.outlook.ended = true;
        self.remove(sandbox, EVICTION_GRACE, Effect::Remove, "it was evicted, and what it has must not stay", None);
    }

    /// Whether the host is too short of something for a pod that has not begun. One that a file declares waits, others
    /// fail, as the kubelet has it: whoever made them makes another one, or asks a scheduler. Who has begun has a promise; one
    /// that ran once, was evicted and was edited since has none any more.
    pub(super) fn is_kept_out(&mut self, intent: &PodIntent) -> bool {
        if self.is_promised(&intent.uid) {
            return false;
        }
        let Some(message) = self.view.memory.pressure.refuse(&intent.pod) else { return false };
        if intent.source.is_some() {
            let notice = Notice::new("NodePressure", format!("{message}It is started when that is over."));
            self.all_waiting(intent, &notice);
            self.notice(notice);
        } else {
            self.fail(Notice::new(EVICTED, message));
        }
        true
    }

    /// Init containers one after another, then all others side by side; ephemeral ones wait for nothing.
    pub(super) fn containers(
        &mut self,
        intent: &PodIntent,
        identity: &Identity,
        sandbox: Option<&SandboxObserved>,
        hold: Option<&Notice>,
    ) {
        let all = translate::containers(intent);
        let items: Vec<_> = all.iter().map(|which| Item { intent, which, identity, sandbox, hold }).collect();
        let (ephemeral, items): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.which.role == ContainerRole::Ephemeral);
        ephemeral.iter().for_each(|item| self.ephemeral(item));
        let initialized = sandbox.is_some_and(|s| self.is_initialized(s));
        let mut held_up = false;
        for (at, item) in items.iter().enumerate() {
            let once = item.runs_once();
            if once && initialized {
                continue;
            }
            if held_up && !item.runs() {
                self.waiting(&item.which.name, Notice::new("ContainerCreating", ""));
                continue;
            }
            let target = self.target(item);
            let stale = once && sandbox.is_some_and(|s| !self.of_this_run(s, item));
            let stage = if stale { self.run_again(item, &target) } else { self.container(item, &target) };
            // As the kubelet: containers are started one after another, each with its postStart hook.
            held_up |= initialized_or_main(item, initialized) && is_starting(item, stage, &self.plan.outlook);
            let go_on = item.which.role == ContainerRole::Main
                || initialized
                || if once { stage == Stage::Succeeded } else { stage == Stage::Started };
            if !go_on {
                let notice = Notice::new("PodInitializing", format!("init container {} comes first", item.which.name));
                for later in items.iter().skip(at + 1) {
                    self.waiting(&later.which.name, notice.clone());
                }
                return;
            }
        }
    }

    /// Whether the main containers were started since the sandbox came up: then its init containers are done.
    fn is_initialized(&self, sandbox: &SandboxObserved) -> bool {
        let main = sandbox.containers.values().flatten().filter(|c| c.spec.role == ContainerRole::Main);
        main.clone().any(|c| {
            matches!(c.state, ContainerState::Running { .. } | ContainerState::Creating | ContainerState::Lost(_))
        }) || main.filter_map(|c| started(&c.state)).any(|at| self.since_up(sandbox, at))
    }

    fn of_this_run(&self, sandbox: &SandboxObserved, item: &Item<'_>) -> bool {
        item.latest().is_none_or(|latest| match &latest.state {
            ContainerState::Exited { started: Some(at), .. } => self.since_up(sandbox, *at),
            _ => true,
        })
    }

    fn since_up(&self, sandbox: &SandboxObserved, at: BootTime) -> bool {
        sandbox.started.is_none_or(|up| at >= up) && at <= self.now
    }

    /// Containers that the pod no longer has are stopped and forgotten.
    pub(super) fn drop_removed(&mut self, intent: &PodIntent, sandbox: &SandboxObserved) {
        let wanted = translate::containers(intent);
        for (name, instances) in &sandbox.containers {
            if wanted.iter().any(|w| w.name == *name) {
                continue;
            }
            let reason = "the pod no longer has this container";
            for instance in instances {
                if self.stop(sandbox, instance, intent.grace(), Effect::Replace, reason, Some("spec.containers")) {
                    let (container, attempt) = (name.clone(), instance.spec.attempt);
                    let op = Op::ContainerRemove { sandbox: sandbox.spec.id.clone(), container, attempt };
                    self.push(Effect::Replace, op, reason, Some("spec.containers"));
                }
            }
        }
    }
}

/// Nothing waits for it to have started but the next one's start.
fn initialized_or_main(item: &Item<'_>, initialized: bool) -> bool {
    item.which.role == ContainerRole::Main || initialized
}

/// Whether its postStart hook is not done.
fn is_starting(item: &Item<'_>, stage: Stage, outlook: &Outlook) -> bool {
    match outlook.standing.get(&item.which.name).filter(|_| item.runs()) {
        Some(standing) => standing.start == Start::Waiting,
        None => stage == Stage::Starting && item.which.container.lifecycle.post_start.is_some(),
    }
}

fn started(state: &ContainerState) -> Option<BootTime> {
    match state {
        ContainerState::Running { started, .. } => Some(*started),
        ContainerState::Exited { started, .. } => *started,
        ContainerState::Creating | ContainerState::Lost(_) => None,
    }
}
