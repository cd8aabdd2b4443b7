//! One pod: from what its object asks and what the host has of it to the steps in between.

use super::containers::{Item, Target};
use super::earliest;
use super::order::{EVICTED, EVICTION_GRACE};
use super::remove::{DEFAULT_GRACE, FORCED_GRACE};
use super::reservations::Reservations;
use super::step::{Effect, Notice, Op, Outlook, Step};
use super::view::View;
use crate::compare::{self, Cost};
use crate::desired::PodIntent;
use crate::key::PodKey;
use crate::probe::{self, InstanceId, Standing};
use crate::translate::{self, AccountVolume, Identity};
use reddwarf_host::spec::{ContainerRole, PodIdentity, SandboxNetwork, SandboxSpec};
use reddwarf_host::{BootTime, ContainerName, ContainerState, PodUid, SandboxId, SandboxObserved, SandboxState};
use reddwarf_objects::pod::RestartPolicy;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One pod's part of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    /// What to do, in order. When one fails, the rest must not be done.
    pub steps: Vec<Step>,
    /// Steps that would be here had they not failed lately.
    pub held_back: Vec<Op>,
    /// How the pod stands.
    pub outlook: Outlook,
}

/// Plans one pod. Addresses that it chooses are claimed in `claims`.
pub fn plan_pod(view: &View<'_>, claims: &mut Reservations, key: &PodKey, now: BootTime) -> PodPlan {
    let mut planner = Planner { view, claims, key, now, addresses: None, plan: PodPlan::default() };
    planner.run();
    planner.plan
}

/// A pod's plan in the making.
pub(super) struct Planner<'a> {
    pub(super) view: &'a View<'a>,
    claims: &'a mut Reservations,
    pub(super) key: &'a PodKey,
    pub(super) now: BootTime,
    /// The addresses that the pod's own sandbox has or is to have; unset: it has no sandbox.
    addresses: Option<Vec<IpAddr>>,
    pub(super) plan: PodPlan,
}

impl Planner<'_> {
    /// Adds a step, unless it failed and its time has not come again. `false`: what needs it must wait.
    pub(super) fn push(&mut self, effect: Effect, op: Op, reason: &str, field: Option<&str>) -> bool {
        if let Some(failure) = self.view.memory.failure(Some(self.key), &op) {
            let (message, retry) = (failure.message.clone(), failure.retry);
            self.notice(Notice::new("StepFailed", message));
            if let Some(retry) = retry {
                self.wait(retry);
            }
            if retry.is_none_or(|retry| self.now < retry) {
                self.plan.held_back.push(op);
                return false;
            }
        }
        let (pod, reason, field) = (Some(self.key.clone()), reason.to_owned(), field.map(str::to_owned));
        self.plan.steps.push(Step { pod, op, effect, reason, field });
        true
    }

    /// Plan again at this moment.
    pub(super) fn wait(&mut self, until: BootTime) {
        if until > self.now {
            self.plan.outlook.wake = earliest(self.plan.outlook.wake, Some(until));
        }
    }

    /// Shows a reason, once.
    pub(super) fn notice(&mut self, notice: Notice) {
        if !self.plan.outlook.notices.contains(&notice) {
            self.plan.outlook.notices.push(notice);
        }
    }

    /// Shows why a container does not run. The first reason stays.
    pub(super) fn waiting(&mut self, container: &ContainerName, notice: Notice) {
        self.plan.outlook.waiting.entry(container.clone()).or_insert(notice);
    }

    fn run(&mut self) {
        let intent = self.view.intent(self.key).map(AsRef::as_ref);
        let uid = intent.map(|i| i.uid.clone()).or_else(|| self.holder());
        if let Some(notice) = self.view.unknown(self.key, uid.as_ref()) {
            self.notice(notice);
            return;
        }
        let boxes = &self.view.boxes(self.key)[..];
        let own = intent.and_then(|i| self.own(i, boxes));
        if let (Some(intent), Some(own)) = (intent, own) {
            self.plan.outlook.standing = self.standing(intent, own);
        }
        self.note_found(boxes);
        if self.view.desired.halted {
            return self.halt(intent, boxes);
        }
        let deleting = intent.and_then(|i| i.deleting);
        let mut others = false;
        for sandbox in boxes.iter().filter(|b| own.is_none_or(|o| o.spec.id != b.spec.id)) {
            others = true;
            self.unwanted(sandbox, intent, deleting.is_some());
        }
        match intent {
            None => {}
            Some(intent) if deleting.is_some() => match own {
                Some(sandbox) => {
                    self.remove(sandbox, intent.grace(), Effect::Remove, "the pod is being deleted", None);
                }
                None if others => {}
                None => self.finish_delete(intent),
            },
            Some(intent) => match own {
                Some(sandbox) => self.converge(intent, sandbox),
                None if others => {
                    let message = "a sandbox of an earlier pod of this name must be gone first";
                    self.notice(Notice::new("WaitingForPredecessor", message));
                    self.all_waiting(intent, &Notice::new("ContainerCreating", message));
                }
                None => self.create(intent),
            },
        }
        self.release_absent(intent, boxes);
    }

    /// How the running instances stand.
    fn standing(&self, intent: &PodIntent, sandbox: &SandboxObserved) -> BTreeMap<ContainerName, Standing> {
        let latest = sandbox.containers.values().filter_map(|instances| instances.last());
        let running = latest.filter(|c| matches!(c.state, ContainerState::Running { .. }));
        running
            .filter_map(|instance| {
                let container = intent.container(instance.spec.name.as_str())?;
                let id = &sandbox.spec.id;
                let found = self.view.memory.checks.of(self.key, &InstanceId::of(id, instance));
                Some((instance.spec.name.clone(), probe::standing(intent, container, id, instance, found)))
            })
            .collect()
    }

    /// Stops the pod and leaves it there, for a host that goes down.
    fn halt(&mut self, intent: Option<&PodIntent>, boxes: &[&SandboxObserved]) {
        let grace = intent.map_or(DEFAULT_GRACE, PodIntent::grace);
        for sandbox in boxes {
            if self.stop_all(sandbox, grace, Effect::Remove, "all pods are to stop", None)
                && matches!(sandbox.state, SandboxState::Running | SandboxState::Stopping)
            {
                self.push(Effect::Remove, Op::SandboxStop(sandbox.spec.id.clone()), "all pods are to stop", None);
            }
        }
    }

    /// Any uid that holds a promise under this name.
    fn holder(&self) -> Option<PodUid> {
        let boxes = self.view.boxes(self.key).into_iter().map(|b| &b.spec.pod.uid);
        boxes.chain(self.claims.holders_of(self.key)).next().cloned()
    }

    /// The pod's own sandbox: of its uid, or, after the database was lost, of the pod that bore its name.
    fn own<'b>(&self, intent: &PodIntent, boxes: &[&'b SandboxObserved]) -> Option<&'b SandboxObserved> {
        let own = boxes.iter().find(|b| b.spec.pod.uid == intent.uid);
        let forgotten = |b: &&&SandboxObserved| self.claims.holder(&b.spec.pod.uid).is_none_or(|h| h.rebuilt);
        own.or_else(|| boxes.iter().find(forgotten)).copied()
    }

    /// Promises that the database lost are noted again from what is found.
    fn note_found(&mut self, boxes: &[&SandboxObserved]) {
        for sandbox in boxes {
            let (uid, addresses) = (&sandbox.spec.pod.uid, sandbox.spec.network.ips());
            if self.claims.is_durable(uid, &addresses) {
                continue;
            }
            let op = Op::Reserve { pod: self.key.clone(), uid: uid.clone(), addresses, rebuilt: true };
            self.push(Effect::Change, op, "it was found on the host and not in the database", None);
        }
    }

    /// A sandbox that belongs to no pod of now.
    fn unwanted(&mut self, sandbox: &SandboxObserved, intent: Option<&PodIntent>, deleting: bool) {
        let rebuilt = self.claims.holder(&sandbox.spec.pod.uid).is_none_or(|h| h.rebuilt);
        if rebuilt && !deleting && !self.view.memory.allow_prune {
            let message = format!(
                "sandbox {} is not in the database, which was lost: kept; declare the pod, or `reddwarfctl reconcile --allow-prune`",
                sandbox.spec.id
            );
            return self.notice(Notice::new("Unclaimed", message));
        }
        if intent.is_none()
            && !self.view.memory.dismissed.contains(&sandbox.spec.pod.uid)
            && let Some(kept) = self.view.kept(self.claims)
        {
            return self.notice(kept.clone());
        }
        let forced = self.view.memory.forced.contains(&sandbox.spec.pod.uid);
        let grace = if forced { FORCED_GRACE } else { intent.map_or(DEFAULT_GRACE, PodIntent::grace) };
        let reason = if intent.is_some() { "it belongs to an earlier pod of this name" } else { "no pod wants it" };
        self.remove(sandbox, grace, Effect::Remove, reason, None);
    }

    /// Nothing is left on the host of a pod whose deletion was asked for.
    fn finish_delete(&mut self, intent: &PodIntent) {
        let identity = self.identity_of(intent);
        if self.view.memory.unsure.contains(&identity.id) {
            let reason = "making it timed out: it must not appear after its address was given back";
            self.push(Effect::Remove, Op::SandboxDestroy(identity.id), reason, None);
            return;
        }
        self.claims.unclaim(&intent.uid);
        let uids: Vec<_> = self.claims.holders_of(self.key).cloned().collect();
        for uid in uids {
            if !self.push(Effect::Remove, Op::Release { uid, address: None }, "its sandbox is gone", None) {
                return;
            }
        }
        // The registry was told, and waits for someone else's finalizers: it says so by taking the grace away.
        if !intent.object.finalizers().is_empty() && intent.grace().is_zero() {
            return self.notice(Notice::new("WaitingForFinalizers", "nothing is left of it on the host"));
        }
        let op = Op::FinishDelete { pod: self.key.clone(), uid: intent.uid.clone() };
        self.push(Effect::Remove, op, "nothing is left of it on the host", None);
    }

    /// Promises under this name that no sandbox and no pod stands behind any more.
    fn release_absent(&mut self, intent: Option<&PodIntent>, boxes: &[&SandboxObserved]) {
        if intent.is_some_and(|i| i.deleting.is_some()) || (intent.is_none() && !self.view.desired.complete) {
            return;
        }
        // A pod that has run to its end and has no sandbox any more needs no address either.
        let over = self.plan.outlook.failed.is_some() || intent.is_some_and(|i| i.finished);
        let stale: Vec<_> = self
            .claims
            .holders_of(self.key)
            .filter(|uid| over || intent.is_none_or(|i| i.uid != **uid))
            .filter(|uid| !boxes.iter().any(|b| b.spec.pod.uid == **uid))
            .cloned()
            .collect();
        for uid in stale {
            let pod =
                PodIdentity { namespace: self.key.namespace.clone(), name: self.key.name.clone(), uid: uid.clone() };
            let id = SandboxId::for_pod(&pod);
            if self.view.memory.unsure.contains(&id) {
                self.push(Effect::Remove, Op::SandboxDestroy(id), "making it timed out, and no pod wants it", None);
            } else {
                self.push(
                    Effect::Remove,
                    Op::Release { uid, address: None },
                    "no sandbox and no pod stands behind it",
                    None,
                );
            }
        }
        // Addresses that the pod's sandbox neither has nor is to have.
        for sandbox in boxes {
            let (uid, used) = (&sandbox.spec.pod.uid, sandbox.spec.network.ips());
            for address in self.claims.addresses(uid) {
                let idle = |wanted: &Vec<IpAddr>| !used.contains(&address) && !wanted.contains(&address);
                if self.addresses.as_ref().is_some_and(idle) {
                    let op = Op::Release { uid: uid.clone(), address: Some(address) };
                    self.push(Effect::Change, op, "its sandbox has another address", None);
                }
            }
        }
    }

    /// As whom the pod runs when it has no sandbox yet, without an address.
    fn identity_of(&self, intent: &PodIntent) -> Identity {
        let PodKey { namespace, name } = intent.key.clone();
        let pod = PodIdentity { namespace, name, uid: intent.uid.clone() };
        let account_volume = AccountVolume::of(None);
        Identity { id: SandboxId::for_pod(&pod), pod, addresses: Vec::new(), account_volume }
    }

    /// Whether an address, or a place, was promised to it.
    pub(super) fn is_promised(&self, uid: &PodUid) -> bool {
        self.claims.knows(uid)
    }

    pub(super) fn all_waiting(&mut self, intent: &PodIntent, notice: &Notice) {
        for which in translate::containers(intent) {
            self.waiting(&which.name, notice.clone());
        }
    }

    /// A pod without a sandbox.
    fn create(&mut self, intent: &PodIntent) {
        if intent.finished {
            self.plan.outlook.ended = true;
            return;
        }
        if self.is_lost(intent) {
            let message =
                "its sandbox vanished (the host was started anew), and restartPolicy Never forbids another run";
            self.notice(Notice::new("Lost", message));
            return self.fail(Notice::new("Lost", message));
        }
        if let Some(verdict) = self.verdict(intent) {
            return self.fail(verdict);
        }
        if let Some(rejection) = translate::rejection(intent, self.view.facts()) {
            self.plan.outlook.ended = true;
            self.plan.outlook.rejected = Some(rejection);
            return;
        }
        self.plan.outlook.advice = translate::dns_warnings(intent, self.view.facts());
        if self.is_kept_out(intent) {
            return;
        }
        let mut identity = self.identity_of(intent);
        if !self.claims.knows(&identity.pod.uid) && self.claims.len() >= self.view.desired.settings.max_pods as usize {
            let message = format!("the host has its {} pods (max_pods)", self.view.desired.settings.max_pods);
            self.notice(Notice::new("OutOfpods", message));
            return;
        }
        let on_network = !intent.pod.spec.host_network;
        if on_network {
            if let Some(blind) = &self.view.blind {
                return self.blocked(intent, vec![blind.clone()]);
            }
            identity.addresses = self.claims.claim(&identity.pod.uid, self.view.live()).unwrap_or_default();
        }
        let spec = match translate::sandbox(intent, &identity, self.view.facts(), None) {
            Ok(spec) => spec,
            Err(problems) => return self.blocked(intent, problems),
        };
        if on_network && let Err(notice) = &self.view.network {
            return self.blocked(intent, vec![notice.clone()]);
        }
        if !self.make(&spec, &identity, Effect::Create, "it is not there") {
            return;
        }
        self.containers(intent, &identity, None, None);
    }

    /// Whether the pod ran once and must not again.
    fn is_lost(&self, intent: &PodIntent) -> bool {
        intent.pod.spec.restart_policy == RestartPolicy::Never
            && intent.status.observed_generation == intent.pod.metadata.generation
            && intent.pod.spec.containers.iter().any(|c| intent.history.contains_key(&c.name))
            && !self.view.memory.replaced.contains(&intent.uid)
    }

    fn blocked(&mut self, intent: &PodIntent, problems: Vec<Notice>) {
        if let Some(first) = problems.first() {
            self.all_waiting(intent, &Notice::new("ContainerCreating", first.message.clone()));
        }
        for problem in problems {
            self.notice(problem);
        }
    }

    /// Promise, then make.
    fn make(&mut self, spec: &SandboxSpec, identity: &Identity, effect: Effect, reason: &str) -> bool {
        let (uid, addresses) = (&identity.pod.uid, identity.addresses.clone());
        if !self.claims.is_durable(uid, &addresses) {
            let op = Op::Reserve { pod: self.key.clone(), uid: uid.clone(), addresses, rebuilt: false };
            if !self.push(effect, op, "promised before it is made", None) {
                return false;
            }
        }
        self.push(effect, Op::SandboxEnsure(Box::new(spec.clone())), reason, None)
    }

    /// A pod with a sandbox.
    fn converge(&mut self, intent: &PodIntent, sandbox: &SandboxObserved) {
        let identity = self.identity_with(intent, sandbox);
        self.addresses = Some(identity.addresses.clone());
        let wanted = translate::sandbox(intent, &identity, self.view.facts(), Some(&sandbox.spec));
        let hold = wanted.as_ref().err().and_then(|p| p.first()).cloned();
        for problem in wanted.as_ref().err().into_iter().flatten() {
            self.notice(problem.clone());
        }
        let mut wanted = wanted;
        self.plan.outlook.resize = self.held_resize(intent, sandbox, wanted.as_ref().ok());
        if let (Some(_), Ok(spec)) = (&self.plan.outlook.resize, &mut wanted) {
            spec.resources = sandbox.spec.resources;
        }
        let containers = translate::containers(intent);
        let item = |which| Item { intent, which, identity: &identity, sandbox: Some(sandbox), hold: hold.as_ref() };
        let items: Vec<_> = containers.iter().map(item).collect();
        let targets: Vec<Target> = items.iter().map(|item| self.target(item)).collect();
        if intent.finished {
            return match intent.status.reason.as_str() {
                EVICTED => self.clear_away(sandbox),
                _ => self.wind_down(sandbox, intent.grace(), "all of its containers have ended"),
            };
        }
        let ended = Self::has_ended(&items, &targets);
        // What ended because it was told to has not ended by itself.
        let told = sandbox.containers.values().flatten().any(|c| c.stop.is_some());
        if (!ended || told)
            && let Some(verdict) = self.verdict(intent)
        {
            let reason = verdict.message.clone();
            // The host can't wait for long.
            let grace = if verdict.reason == EVICTED { intent.grace().min(EVICTION_GRACE) } else { intent.grace() };
            self.fail(verdict);
            return self.wind_down(sandbox, grace, &reason);
        }
        if let Ok(wanted) = &wanted
            && self.recreate(intent, sandbox, wanted, &identity, &items, &targets)
        {
            return;
        }
        if ended {
            return self.wind_down(sandbox, intent.grace(), "all of its containers have ended");
        }
        let spec = wanted.unwrap_or_else(|_| (*sandbox.spec).clone());
        match &sandbox.state {
            SandboxState::Other(state) => {
                let message = format!(
                    "sandbox {} is in the state {state:?}, which this version does not know: left alone",
                    identity.id
                );
                self.notice(Notice::new("UnknownState", message));
            }
            SandboxState::Stopping => {
                self.push(
                    Effect::Replace,
                    Op::SandboxStop(identity.id.clone()),
                    "it is going down, and must be down before it is started",
                    None,
                );
            }
            SandboxState::Partial(missing) => {
                self.bring_up(sandbox, &identity, &format!("it is there in part: {missing}"))
            }
            SandboxState::Stopped => self.bring_up(sandbox, &identity, "it is stopped"),
            SandboxState::Running => {
                self.change_in_place(sandbox, &spec);
                self.containers(intent, &identity, Some(sandbox), hold.as_ref());
                self.drop_removed(intent, sandbox);
                self.forget_old(sandbox);
            }
        }
    }

    /// Starts a sandbox as it was made; what changes in place is changed once it is up.
    fn bring_up(&mut self, sandbox: &SandboxObserved, identity: &Identity, reason: &str) {
        let spec = &sandbox.spec;
        if matches!(spec.network, SandboxNetwork::Pod { .. })
            && let Err(notice) = &self.view.network
        {
            return self.notice(notice.clone());
        }
        self.make(spec, identity, Effect::Create, reason);
    }

    /// As whom a pod with a sandbox runs: as the sandbox's mark says, at its address while that is in the network.
    fn identity_with(&mut self, intent: &PodIntent, sandbox: &SandboxObserved) -> Identity {
        let pod = sandbox.spec.pod.clone();
        let addresses = match sandbox.spec.network.ips() {
            _ if intent.pod.spec.host_network => Vec::new(),
            // A family that came later is for pods that are made anew.
            old if !old.is_empty() && old.iter().all(|a| self.claims.fits(*a)) => old,
            // Not while some sandbox's address is unknown.
            old if self.view.blind.is_some() => old,
            _ => self.claims.claim(&pod.uid, self.view.live()).unwrap_or_default(),
        };
        let account_volume = AccountVolume::of(Some(&sandbox.spec));
        Identity { id: sandbox.spec.id.clone(), pod, addresses, account_volume }
    }

    /// Makes the sandbox anew when a change demands it and the new one can be made. `true`: it is being done.
    fn recreate(
        &mut self,
        intent: &PodIntent,
        sandbox: &SandboxObserved,
        wanted: &SandboxSpec,
        identity: &Identity,
        items: &[Item<'_>],
        targets: &[Target],
    ) -> bool {
        let of_sandbox = compare::sandbox(&sandbox.spec, wanted).into_iter().find(|d| d.cost == Cost::Recreate);
        let of_init = || items.iter().zip(targets).find_map(|(item, target)| init_changed(item, target));
        let Some(field) = of_sandbox.map(|d| d.field).or_else(of_init) else { return false };
        // Prepare before disrupting: what runs is kept until all of the new version can be made.
        let mut lasting = items.iter().zip(targets).filter(|(item, _)| item.which.role != ContainerRole::Ephemeral);
        let problem = lasting.find_map(|(item, target)| {
            let next = || self.next_problem(item, item.latest().map(|l| &*l.spec));
            target.problem().cloned().or_else(next)
        });
        if let Some(problem) = problem {
            self.notice(problem);
            return false;
        }
        let (uid, addresses) = (&identity.pod.uid, identity.addresses.clone());
        if !self.claims.is_durable(uid, &addresses) {
            let op = Op::Reserve { pod: self.key.clone(), uid: uid.clone(), addresses, rebuilt: false };
            if !self.push(Effect::Replace, op, "promised before the old one is stopped", None) {
                return false;
            }
        }
        let reason = format!("{field} changed, which needs a new sandbox");
        self.remove(sandbox, intent.grace(), Effect::Replace, &reason, Some(&field));
        true
    }

    /// Files and limits, changed while all runs on.
    fn change_in_place(&mut self, sandbox: &SandboxObserved, spec: &SandboxSpec) {
        for (name, volume) in &spec.volumes {
            if sandbox.spec.volumes.get(name).is_some_and(|old| old != volume) {
                let op = Op::VolumeUpdate { sandbox: spec.id.clone(), volume: name.clone(), spec: volume.clone() };
                let field = format!("spec.volumes[{name}]");
                self.push(Effect::Change, op, "its files changed", Some(&field));
            }
        }
        if sandbox.spec.resources != spec.resources {
            let op = Op::SandboxEnsure(Box::new(spec.clone()));
            self.push(Effect::Change, op, "the pod's limits changed", Some("spec.containers"));
        }
    }
}

/// A finished init container that was changed: the pod must go through its start again.
fn init_changed(item: &Item<'_>, target: &Target) -> Option<String> {
    let once = item.which.role == ContainerRole::Init && !item.which.is_sidecar();
    let done = matches!(item.latest()?.state, ContainerState::Exited { code: 0, .. });
    let difference = target.restart()?;
    (once && done).then(|| difference.path(&item.which.field))
}
