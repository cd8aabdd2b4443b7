//! What the running node knows, behind one lock that is never held while anything is awaited.

use crate::desired::{Desired, PodIntent};
use crate::key::PodKey;
use crate::perform::StepError;
use crate::plan::{
    Deadline, Failure, HostPlan, Index, Memory, Notice, Op, Outlook, Plan, PodPlan, Reservations, View, plan_host,
    plan_pod, plan_with,
};
use crate::probe::{InstanceId, Jobs, jobs};
use crate::settings::StorageHealth;
use crate::status::{StatusInput, status};
use crate::tokens::{self, TokenRequest};
use crate::translate::token_files;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_host::{BootTime, Family, HostObservation, PodUid, SandboxId, SandboxObserved};
use reddwarf_objects::pod::PodStatus;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Steps and errors kept per pod, for `why`.
const RECENT: usize = 16;
/// Back-off of failed steps.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// What needs a person is tried again rarely.
const RETRY_PERMANENT: Duration = Duration::from_secs(300);

/// A step that was carried out, or was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub step: String,
    /// Why.
    pub reason: String,
    /// The field that caused it.
    pub field: Option<String>,
    /// What went wrong; `None`: it was done.
    pub error: Option<String>,
}

/// What is known of one pod besides its object and its sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodState {
    pub(crate) outlook: Outlook,
    /// The status as last handed to the control plane, and of which uid.
    pub(crate) written: Option<(String, PodStatus)>,
    pub(crate) recent: VecDeque<Record>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) desired: Desired,
    pub(crate) reservations: Reservations,
    pub(crate) memory: Memory,
    pub(crate) pods: BTreeMap<PodKey, PodState>,
    /// Pods that were evicted, and how often.
    pub(crate) evictions: crate::pressure::Evictions,
    /// Whether the host's storage can be used, as it was said last.
    pub(crate) storage: Option<StorageHealth>,
    /// Notices about the host as a whole.
    pub(crate) host_notices: Vec<Notice>,
    pub(crate) host_recent: VecDeque<Record>,
    /// The index of the observation that was planned against last.
    index: Option<(Arc<HostObservation>, Arc<Index>)>,
    /// The newest observation.
    pub(crate) observed: Option<Arc<HostObservation>>,
    /// A person lets unwanted sandboxes go until then.
    pub(crate) prune_until: Option<BootTime>,
    /// When a full pass was last finished.
    pub(crate) last_pass: Option<BootTime>,
    pub(crate) passes: u64,
}

/// A status to be written.
pub(crate) struct NewStatus {
    pub(crate) uid: String,
    pub(crate) status: PodStatus,
}

impl State {
    pub(crate) fn new(desired: Desired) -> Self {
        let network = &desired.settings.network;
        let reservations = Reservations::new(&network.subnets());
        Self {
            desired,
            reservations,
            memory: Memory::default(),
            pods: BTreeMap::new(),
            evictions: crate::pressure::Evictions::default(),
            storage: None,
            host_notices: Vec::new(),
            host_recent: VecDeque::new(),
            index: None,
            observed: None,
            prune_until: None,
            last_pass: None,
            passes: 0,
        }
    }

    /// Takes up an observation and what else a plan must know of this moment.
    fn prepare(&mut self, observed: &Arc<HostObservation>, complete: bool, now: BootTime) {
        self.desired.complete = complete;
        self.memory.allow_prune = self.prune_until.is_some_and(|until| now < until);
        if self.observed.as_ref().is_none_or(|o| o.at <= observed.at) {
            self.observed = Some(observed.clone());
        }
    }

    /// Works out when the time of pods with an activeDeadlineSeconds is over. It is counted from the status's startTime by
    /// the wall clock once, when the pod (or another limit) is first seen, and by monotonic time from then on.
    pub(crate) fn note_deadlines<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k PodKey>,
        now: BootTime,
        wall: DateTime<Utc>,
    ) {
        for intent in keys.filter_map(|key| self.desired.pods.get(key)) {
            let Some(seconds) = intent.pod.spec.active_deadline_seconds else {
                self.memory.deadlines.remove(&intent.uid);
                continue;
            };
            if self.memory.deadlines.get(&intent.uid).is_some_and(|d| d.seconds == seconds) {
                continue;
            }
            let active = intent.status.start_time.map_or(TimeDelta::zero(), |since| wall - since);
            let active = active.to_std().unwrap_or_default();
            let left = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_sub(active);
            self.memory.deadlines.insert(intent.uid.clone(), Deadline { seconds, at: now.plus(left) });
        }
        if self.memory.deadlines.len() > self.desired.pods.len() || !self.memory.pulls.is_empty() {
            let wanted: BTreeSet<_> = self.desired.pods.values().map(|i| i.uid.clone()).collect();
            self.memory.deadlines.retain(|uid, _| wanted.contains(uid));
            self.memory.pulls.retain(|(uid, _), _| wanted.contains(uid));
        }
    }

    /// Plans one pod. `done` are the steps of it that were just carried out: one that is planned again had no effect.
    pub(crate) fn plan_pod(
        &mut self,
        key: &PodKey,
        observed: &Arc<HostObservation>,
        complete: bool,
        done: &mut Vec<Op>,
        now: BootTime,
    ) -> PodPlan {
        self.prepare(observed, complete, now);
        let mut planned = self.plan_once(key, observed, now);
        let without_effect: Vec<Op> =
            done.iter().filter(|op| planned.steps.iter().any(|s| s.op == **op)).cloned().collect();
        for op in done.drain(..) {
            if without_effect.contains(&op) {
                let error = StepError::NoEffect { op: op.to_string() };
                self.failed(Some(key), op, &error, now);
            } else {
                self.memory.succeeded(Some(key), &op);
            }
        }
        if !without_effect.is_empty() {
            planned = self.plan_once(key, observed, now);
        }
        let unknown = planned.outlook.notices.iter().any(|n| n.reason == "HostUnknown");
        if !unknown && !self.memory.failures.is_empty() {
            // A failure of a step that nobody wants any more is forgotten: should it be wanted again, it is new.
            let wanted = |op: &Op| planned.held_back.contains(op) || planned.steps.iter().any(|s| s.op == *op);
            let key = Some(key.clone());
            if let Some(failures) = self.memory.failures.get_mut(&key) {
                failures.retain(|f| wanted(&f.op));
                if failures.is_empty() {
                    self.memory.failures.remove(&key);
                }
            }
        }
        self.pods.entry(key.clone()).or_default().outlook = planned.outlook.clone();
        planned
    }

    /// Which probes and hooks should be at work for a pod; `None` while that can't be known. What was found out of
    /// instances that are gone is forgotten.
    pub(crate) fn jobs(&mut self, key: &PodKey, observed: &Arc<HostObservation>) -> Option<Jobs> {
        observed.sandboxes.known()?;
        let index = self.index(observed);
        let Self { desired, reservations, memory, .. } = self;
        let boxes = index.boxes(observed, key);
        let there = boxes.iter().flat_map(|s| {
            let instances = s.containers.values().flatten();
            instances.map(|instance| InstanceId::of(&s.spec.id, instance))
        });
        memory.checks.retain(key, &there.collect());
        let intent = desired.pods.get(key).map(AsRef::as_ref);
        let own = intent.and_then(|i| sandbox_of(observed, i, reservations));
        Some(jobs(intent, own, &boxes, &memory.checks, desired.host.ip))
    }

    /// The tokens that a pod's next plan needs and that are not at hand, or are to be renewed.
    pub(crate) fn tokens_due(
        &mut self,
        key: &PodKey,
        observed: &HostObservation,
        now: DateTime<Utc>,
    ) -> Vec<TokenRequest> {
        let Some(intent) = self.desired.pods.get(key).filter(|i| i.deleting.is_none() && !i.finished).cloned() else {
            return Vec::new();
        };
        let sandbox = sandbox_of(observed, &intent, &self.reservations);
        tokens::due(&mut self.desired, &intent, sandbox, now)
    }

    /// When the next token of a pod is to be asked for.
    pub(crate) fn next_token(&self, key: &PodKey, observed: &HostObservation) -> Option<DateTime<Utc>> {
        let intent = self.desired.pods.get(key).filter(|i| i.deleting.is_none() && !i.finished)?;
        let sandbox = sandbox_of(observed, intent, &self.reservations).map(|s| &*s.spec);
        let Desired { config, tokens, .. } = &self.desired;
        tokens.next(&token_files(intent, config, tokens, sandbox))
    }

    /// The index of an observation, made once.
    fn index(&mut self, observed: &Arc<HostObservation>) -> Arc<Index> {
        match &self.index {
            Some((of, index)) if Arc::ptr_eq(of, observed) => index.clone(),
            _ => {
                let index = Arc::new(Index::of(observed));
                self.index = Some((observed.clone(), index.clone()));
                index
            }
        }
    }

    fn plan_once(&mut self, key: &PodKey, observed: &Arc<HostObservation>, now: BootTime) -> PodPlan {
        let index = self.index(observed);
        let Self { desired, reservations, memory, .. } = self;
        let view = View::new(desired, observed, &index, reservations, memory);
        plan_pod(&view, reservations, key, now)
    }

    /// Plans everything, for a full pass: the host's own steps, and every pod's.
    pub(crate) fn plan_all(&mut self, observed: &Arc<HostObservation>, complete: bool, now: BootTime) -> Plan {
        self.prepare(observed, complete, now);
        self.memory.leftovers.retain(|l, _| observed.leftovers.contains(l));
        for leftover in &observed.leftovers {
            self.memory.leftovers.entry(leftover.clone()).or_insert(now);
        }
        if let Some(sandboxes) = observed.sandboxes.known() {
            let is_there = |uid: &PodUid| sandboxes.values().any(|s| s.known().is_none_or(|s| s.spec.pod.uid == *uid));
            self.memory.forced.retain(is_there);
            self.memory.dismissed.retain(is_there);
        }
        let index = self.index(observed);
        plan_with(&self.desired, observed, &index, &self.reservations, &self.memory, now)
    }

    /// Plans the host's own steps.
    pub(crate) fn plan_host(
        &mut self,
        observed: &Arc<HostObservation>,
        complete: bool,
        done: &mut Vec<Op>,
        now: BootTime,
    ) -> HostPlan {
        self.prepare(observed, complete, now);
        let index = self.index(observed);
        let once = |state: &Self| {
            let view = View::new(&state.desired, observed, &index, &state.reservations, &state.memory);
            plan_host(&view, &state.reservations, now)
        };
        let mut planned = once(self);
        let mut again = false;
        for op in done.drain(..) {
            if planned.steps.iter().any(|s| s.op == op) {
                let error = StepError::NoEffect { op: op.to_string() };
                self.failed(None, op, &error, now);
                again = true;
            } else {
                self.memory.succeeded(None, &op);
            }
        }
        if again {
            planned = once(self);
        }
        planned
    }

    /// Notes that a step failed, and when to try again.
    pub(crate) fn failed(&mut self, key: Option<&PodKey>, op: Op, error: &StepError, now: BootTime) {
        let count = self.memory.failure(key, &op).map_or(1, |f| f.count.saturating_add(1));
        let family = error.family();
        let retry = match family {
            Family::User => None,
            Family::Permanent => Some(now.plus(jittered(RETRY_PERMANENT))),
            Family::Transient => Some(now.plus(jittered(transient_backoff(count)))),
        };
        if error.is_unsure()
            && let Op::SandboxEnsure(spec) = &op
        {
            self.memory.unsure.insert(spec.id.clone());
        }
        self.memory.failed(key, Failure { op, family, message: error.text(), at: now, count, retry });
    }

    /// A start uses up its container's ticket: the next start asks the registry anew where the policy wants it.
    pub(crate) fn use_ticket(&mut self, key: Option<&PodKey>, op: &Op) -> bool {
        let (Op::ContainerStart { spec, .. }, Some(intent)) = (op, key.and_then(|k| self.desired.pods.get(k))) else {
            return false;
        };
        self.memory.pulls.remove(&(intent.uid.clone(), spec.name.clone())).is_some()
    }

    /// Notes what a step that was carried out changed.
    pub(crate) fn done(&mut self, key: Option<&PodKey>, op: &Op) {
        let wanted =
            || key.and_then(|k| self.desired.pods.get(k)).filter(|i| i.deleting.is_none()).map(|i| i.uid.clone());
        match op {
            Op::Reserve { pod, uid, addresses, rebuilt } => self.reservations.promise(crate::control_plane::Promise {
                uid: uid.clone(),
                pod: pod.clone(),
                addresses: addresses.iter().copied().collect(),
                rebuilt: *rebuilt,
            }),
            Op::Release { uid, address } => self.reservations.release(uid, *address),
            Op::SandboxDestroy(id) => {
                self.memory.replaced.extend(wanted());
                self.memory.unsure.remove(id);
            }
            Op::ContainerStart { .. } => {
                if let Some(uid) = wanted() {
                    self.memory.replaced.remove(&uid);
                }
            }
            Op::FinishDelete { pod, uid } => {
                self.pods.remove(pod);
                self.memory.failures.remove(&Some(pod.clone()));
                self.memory.replaced.remove(uid);
                self.reservations.unclaim(uid);
            }
            _ => {}
        }
    }

    /// Adds to what `why` shows.
    pub(crate) fn record(&mut self, key: Option<&PodKey>, record: Record) {
        let recent = match key {
            Some(key) => &mut self.pods.entry(key.clone()).or_default().recent,
            None => &mut self.host_recent,
        };
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(record);
    }

    /// A pod's status, if it is not the one that was written last.
    pub(crate) fn new_status(
        &mut self,
        key: &PodKey,
        observed: &HostObservation,
        outlook: &Outlook,
        now: DateTime<Utc>,
    ) -> Option<NewStatus> {
        let intent = self.desired.pods.get(key)?.clone();
        let uid = intent.uid.to_string();
        let slot = self.pods.entry(key.clone()).or_default();
        let previous = slot.written.as_ref().filter(|(of, _)| *of == uid).map_or(&intent.status, |(_, status)| status);
        let sandbox = sandbox_of(observed, &intent, &self.reservations);
        let host = &self.desired.host;
        let images = observed.images.known();
        let status = status(StatusInput { intent: &intent, sandbox, outlook, host, images, previous, now });
        if slot.written.as_ref().is_some_and(|(of, written)| *of == uid && *written == status)
            && intent.status == status
        {
            return None;
        }
        if *previous == status && intent.status == status {
            return None;
        }
        slot.written = Some((uid.clone(), status.clone()));
        Some(NewStatus { uid, status })
    }
}

/// The sandbox that counts as the pod's: of its uid, else one of its name that was found after the database was lost.
pub(crate) fn sandbox_of<'o>(
    observed: &'o HostObservation,
    intent: &PodIntent,
    reservations: &Reservations,
) -> Option<&'o SandboxObserved> {
    let all = observed.sandboxes.known()?;
    let pod = reddwarf_host::spec::PodIdentity {
        namespace: intent.key.namespace.clone(),
        name: intent.key.name.clone(),
        uid: intent.uid.clone(),
    };
    if let Some(own) = all.get(&SandboxId::for_pod(&pod)).and_then(|s| s.known()) {
        return Some(own);
    }
    let adopted =
        reservations.holders_of(&intent.key).filter(|uid| reservations.holder(uid).is_some_and(|h| h.rebuilt));
    let mut ids =
        adopted.map(|uid| SandboxId::for_pod(&reddwarf_host::spec::PodIdentity { uid: uid.clone(), ..pod.clone() }));
    ids.find_map(|id| all.get(&id).and_then(|s| s.known()))
}

fn transient_backoff(count: u32) -> Duration {
    let doublings = count.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MOST)
}

/// Up to a fifth longer, so that pods that failed together are not tried together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() * 0.2)
}
