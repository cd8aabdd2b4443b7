//! One container of a pod whose sandbox is (or is about to be) up.

use super::pod::Planner;
use super::resize;
use super::step::{Effect, Notice, Op, Resize};
use crate::compare::{self, Cost, Difference};
use crate::desired::PodIntent;
use crate::probe::Start;
use crate::translate::{self, ContainerRef, Identity};
use reddwarf_host::spec::{ContainerRole, ContainerSpec, ProcessView, Signal};
use reddwarf_host::{ContainerObserved, ContainerState, Note, SandboxObserved};
use std::time::Duration;

/// Where a container stands, for those that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It runs and counts as started.
    Started,
    /// It is being started, or stopped to be started anew.
    Starting,
    /// It ended well and stays ended.
    Succeeded,
    /// It ended badly and stays ended.
    Failed,
    /// Neither: it waits.
    Waiting,
}

/// The exit code of an instance that was lost.
const LOST: i32 = 137;

/// One container beside what the host has of it.
pub(super) struct Item<'a> {
    pub(super) intent: &'a PodIntent,
    pub(super) which: &'a ContainerRef<'a>,
    pub(super) identity: &'a Identity,
    /// The sandbox; `None` while it is to be made by this plan.
    pub(super) sandbox: Option<&'a SandboxObserved>,
    /// Why the pod's new version can't be prepared: what runs is kept as it was last applied.
    pub(super) hold: Option<&'a Notice>,
}

/// Why a container should be another one.
pub(super) struct Target {
    /// What it should be now, as its first attempt.
    pub(super) spec: Result<ContainerSpec, Notice>,
    differences: Vec<Difference>,
}

impl Target {
    /// Why it can't be made.
    pub(super) fn problem(&self) -> Option<&Notice> {
        self.spec.as_ref().err()
    }

    pub(super) fn restart(&self) -> Option<&Difference> {
        self.differences.iter().find(|d| d.cost >= Cost::Restart)
    }
}

impl<'a> Item<'a> {
    pub(super) fn instances(&self) -> &'a [ContainerObserved] {
        self.sandbox.and_then(|s| s.containers.get(&self.which.name)).map_or(&[], Vec::as_slice)
    }

    /// An init container that must succeed, as opposed to a sidecar.
    pub(super) fn runs_once(&self) -> bool {
        self.which.role == ContainerRole::Init && !self.which.is_sidecar()
    }

    pub(super) fn latest(&self) -> Option<&'a ContainerObserved> {
        self.instances().last()
    }

    /// Whether its last instance runs.
    pub(super) fn runs(&self) -> bool {
        self.latest().is_some_and(|latest| matches!(latest.state, ContainerState::Running { .. }))
    }

    pub(super) fn previous(&self) -> Option<&'a ContainerObserved> {
        self.instances().iter().rev().nth(1)
    }

    pub(super) fn field(&self, difference: &Difference) -> String {
        difference.path(&self.which.field)
    }
}

impl Planner<'_> {
    /// What a container should be, compared with its last instance.
    pub(super) fn target(&self, item: &Item<'_>) -> Target {
        let running = item.latest().map(|l| &*l.spec);
        let spec = match item.hold {
            Some(notice) => Err(notice.clone()),
            None => translate::container(item.intent, item.which, item.identity, self.view.facts(), running),
        };
        let pending = self.plan.outlook.resize.as_ref().is_some_and(Resize::is_pending);
        let spec = match (spec, running) {
            (Ok(spec), Some(running)) if pending => Ok(ContainerSpec { resources: running.resources, ..spec }),
            (spec, _) => spec,
        };
        let differences = match (&spec, running) {
            // It is what it was when it was added, and nothing starts it again.
            _ if item.which.role == ContainerRole::Ephemeral => Vec::new(),
            (Ok(spec), Some(running)) => {
                let mut found = compare::container(running, spec);
                resize::price(item.which, &running.resources, &spec.resources, &mut found);
                found
            }
            _ => Vec::new(),
        };
        let target = Target { spec, differences };
        // What is to be stopped must be able to start: its references are followed anew.
        match target.restart().and_then(|_| self.next_problem(item, running)) {
            Some(problem) => Target { spec: Err(problem), differences: Vec::new() },
            None => target,
        }
    }

    /// Why the next start of a container that can go on running as it is could not be made: what its variables refer to
    /// is gone.
    pub(super) fn next_problem(&self, item: &Item<'_>, running: Option<&ContainerSpec>) -> Option<Notice> {
        let anew = ContainerSpec { references: None, ..running?.clone() };
        translate::container(item.intent, item.which, item.identity, self.view.facts(), Some(&anew)).err()
    }

    /// Plans one container.
    pub(super) fn container(&mut self, item: &Item<'_>, target: &Target) -> Stage {
        let Some(latest) = item.latest() else { return self.first_start(item) };
        if let (Err(notice), None) = (&target.spec, item.hold) {
            // The new version can't be made: the last good one is kept, and the reason shown.
            let notice = self.fetch(item, Some(&latest.spec)).unwrap_or_else(|| notice.clone());
            self.notice(notice);
        }
        if let Some(ok) = item.settled(target) {
            return if ok { Stage::Succeeded } else { Stage::Failed };
        }
        match &latest.state {
            ContainerState::Running { .. } => self.keep_or_change(item, target, latest),
            ContainerState::Exited { started, finished, .. } => {
                self.start_again(item, target, latest, *finished, started.is_some())
            }
            ContainerState::Creating => self.finish_start(item, target, latest),
            ContainerState::Lost(why) => self.make_sure(item, target, latest, why),
        }
    }

    /// The first instance in this sandbox.
    pub(super) fn first_start(&mut self, item: &Item<'_>) -> Stage {
        let fresh = match item.hold {
            Some(notice) => Err(notice.clone()),
            None => translate::container(item.intent, item.which, item.identity, self.view.facts(), None),
        };
        match fresh {
            Ok(mut spec) => {
                // What the status remembers keeps counts rising and logs apart, after a reboot or a new sandbox.
                spec.attempt =
                    item.intent.history.get(item.which.name.as_str()).map_or(0, |h| h.restarts.saturating_add(1));
                self.start(item, spec, Effect::Create, "it is not there", Some(item.which.field.clone()))
            }
            Err(notice) => self.cannot_start(item, notice),
        }
    }

    /// Nothing can be made of it as it is asked: shows why, and sees to its image if that is what it lacks.
    pub(super) fn cannot_start(&mut self, item: &Item<'_>, notice: Notice) -> Stage {
        let notice = self.fetch(item, None).unwrap_or(notice);
        self.waiting(&item.which.name, notice);
        Stage::Waiting
    }

    /// An ephemeral container: started once, beside whatever else the pod does.
    pub(super) fn ephemeral(&mut self, item: &Item<'_>) {
        // What keeps a new version of the pod from being made is no reason not to look into the one that runs.
        let item = &Item { hold: None, ..*item };
        let target = self.target(item);
        if item.latest().is_some() {
            self.container(item, &target);
            return;
        }
        if item.intent.history.contains_key(item.which.name.as_str()) {
            // It ran in a sandbox that is gone.
            return;
        }
        if let ProcessView::Container(name) = &item.which.processes {
            let instances = item.sandbox.and_then(|s| s.containers.get(name)).map_or(&[][..], Vec::as_slice);
            if !instances.last().is_some_and(|c| matches!(c.state, ContainerState::Running { .. })) {
                let message = format!("target container {name} does not run");
                self.waiting(&item.which.name, Notice::new("ContainerCreating", message));
                return;
            }
        }
        self.first_start(item);
    }

    pub(super) fn start(
        &mut self,
        item: &Item<'_>,
        mut spec: ContainerSpec,
        effect: Effect,
        reason: &str,
        field: Option<String>,
    ) -> Stage {
        spec.log = translate::log(item.identity, &spec.name, spec.attempt, self.view.facts());
        let name = spec.name.clone();
        let op = Op::ContainerStart { sandbox: item.identity.id.clone(), spec: Box::new(spec) };
        let failure = self.view.memory.failure(Some(self.key), &op).map(|f| f.message.clone());
        if let Some(message) = failure {
            self.waiting(&name, Notice::new("CreateContainerError", message).at(&item.which.field));
        }
        if self.push(effect, op, reason, field.as_deref()) { Stage::Starting } else { Stage::Waiting }
    }

    /// A running instance: as asked, changed in place, or stopped to be started anew.
    fn keep_or_change(&mut self, item: &Item<'_>, target: &Target, latest: &ContainerObserved) -> Stage {
        let Some(sandbox) = item.sandbox else { return Stage::Starting };
        if let Some(difference) = target.restart() {
            let field = item.field(difference);
            let reason = difference.reason();
            if difference.field == "resources" {
                self.resizing(None);
            }
            self.stop(sandbox, latest, item.intent.grace(), Effect::Restart, &reason, Some(&field));
            return Stage::Starting;
        }
        if latest.stop.is_some() {
            // Half-way stopped, for a change that was taken back: it is not trusted to serve on.
            let grace = latest.stop.and_then(|s| s.order).map_or_else(|| item.intent.grace(), |order| order.grace);
            self.stop(sandbox, latest, grace, Effect::Restart, "it was asked to stop", None);
            return Stage::Starting;
        }
        let standing = self.plan.outlook.standing.get(&item.which.name).copied().unwrap_or_default();
        if let Some(fault) = standing.fault {
            let again = item.restarts(LOST);
            let reason = fault.message(item.which.name.as_str(), again);
            self.begin_stop(sandbox, latest, fault.grace(), true, Effect::Restart, &reason);
            return Stage::Starting;
        }
        if let (Ok(spec), Some(difference)) = (&target.spec, target.differences.first()) {
            let op = Op::ContainerUpdate {
                sandbox: item.identity.id.clone(),
                container: item.which.name.clone(),
                attempt: latest.spec.attempt,
                resources: spec.resources,
            };
            self.resizing(Some(&op));
            self.push(Effect::Change, op, "limits changed", Some(&item.field(difference)));
        }
        match standing.start {
            Start::Waiting => {
                // The kubelet, too, does not call it running before its hook is done.
                self.waiting(&item.which.name, Notice::new("ContainerCreating", ""));
                return Stage::Waiting;
            }
            Start::Passed => self.note(sandbox, latest, Note::Started, Effect::Change, "its postStart hook is done"),
            Start::Done => true,
        };
        if standing.started || item.which.role == ContainerRole::Ephemeral { Stage::Started } else { Stage::Starting }
    }

    /// What the next instance is made from: what is asked now, or, where that can't be made, what ran last.
    pub(super) fn next_spec(
        &self,
        item: &Item<'_>,
        target: &Target,
        latest: &ContainerObserved,
    ) -> Result<ContainerSpec, Notice> {
        match &target.spec {
            Err(_) => Ok((*latest.spec).clone()),
            // Not pinned: a fresh start takes the image that the name means now.
            Ok(_) => translate::container(item.intent, item.which, item.identity, self.view.facts(), None),
        }
    }

    /// A start that was begun and not finished is asked for again, as it was, unless it should be another one by now.
    fn finish_start(&mut self, item: &Item<'_>, target: &Target, latest: &ContainerObserved) -> Stage {
        if let (Some(difference), Some(sandbox)) = (target.restart(), item.sandbox) {
            let field = item.field(difference);
            let reason = difference.reason();
            self.stop(sandbox, latest, Duration::ZERO, Effect::Restart, &reason, Some(&field));
            return Stage::Waiting;
        }
        self.start_as_it_was(item, (*latest.spec).clone())
    }

    fn start_as_it_was(&mut self, item: &Item<'_>, spec: ContainerSpec) -> Stage {
        let name = spec.name.clone();
        let op = Op::ContainerStart { sandbox: item.identity.id.clone(), spec: Box::new(spec) };
        if let Some(failure) = self.view.memory.failure(Some(self.key), &op) {
            self.waiting(&name, Notice::new("CreateContainerError", failure.message.clone()).at(&item.which.field));
        }
        if self.push(Effect::Create, op, "its start was begun and not finished", None) {
            Stage::Starting
        } else {
            Stage::Waiting
        }
    }

    /// Nobody knows whether a lost instance runs: it is killed, and forgotten when even that leaves no trace.
    fn make_sure(&mut self, item: &Item<'_>, target: &Target, latest: &ContainerObserved, why: &str) -> Stage {
        self.waiting(&item.which.name, Notice::new("ContainerStatusUnknown", format!("its supervisor is gone: {why}")));
        let (sandbox, container, attempt) = (item.identity.id.clone(), item.which.name.clone(), latest.spec.attempt);
        let (to, which) = (sandbox.clone(), container.clone());
        let kill = Op::ContainerSignal { sandbox: to, container: which, attempt, signal: Signal::Sigkill };
        let reason = "its supervisor is gone: whatever is left of it must not run beside the next one";
        if self.push(Effect::Remove, kill, reason, None) {
            return Stage::Waiting;
        }
        if !item.restarts(LOST) {
            return Stage::Failed;
        }
        let remove = Op::ContainerRemove { sandbox, container, attempt };
        if !self.push(Effect::Remove, remove, "its supervisor is gone, and killing it shows no effect", None) {
            return Stage::Waiting;
        }
        // Planned together: afterwards nothing on the host would remember how often it was started.
        match self.next_spec(item, target, latest) {
            Ok(mut spec) => {
                spec.attempt = attempt.saturating_add(1);
                spec.backoff = Duration::ZERO;
                self.start(item, spec, Effect::Create, "its supervisor was gone", None)
            }
            Err(notice) => self.cannot_start(item, notice),
        }
    }

    /// Instances older than the last two are forgotten: the last but one is `lastState` and `logs --previous`.
    pub(super) fn forget_old(&mut self, sandbox: &SandboxObserved) {
        for instances in sandbox.containers.values() {
            let old = instances.len().saturating_sub(2);
            for instance in instances.iter().take(old) {
                if matches!(instance.state, ContainerState::Exited { .. }) {
                    let op = Op::ContainerRemove {
                        sandbox: sandbox.spec.id.clone(),
                        container: instance.spec.name.clone(),
                        attempt: instance.spec.attempt,
                    };
                    self.push(Effect::Change, op, "two newer instances are known", None);
                }
            }
        }
    }
}
