//! Looks at the host's pressure with every heartbeat and does what follows from it.
//!
//! Most of the time this is one cheap question to the host. Only when something is short, or when pods have limits that
//! only their files tell, is more asked.

use super::{Conditions, NodeCondition, PodUse, Shortage, choose, exceeded, has_disk_limits, shortages};
use crate::control_plane::EventText;
use crate::desired::PodIntent;
use crate::key::PodKey;
use crate::plan::{Notice, next_backoff_after};
use crate::run::{Shared, Work};
use crate::state::{State, sandbox_of};
use reddwarf_host::usage::{SandboxDisk, UsageReport};
use reddwarf_host::{BootTime, ContainerState, PodUid, SandboxId, SandboxObserved, SandboxState};
use reddwarf_objects::pod::{Phase, PodStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Looking at disks in order to choose a pod is given up after this.
const LOOK: Duration = Duration::from_secs(5);
/// Looking at the disks of pods with limits may take this part of the time.
const SHARE: u32 = 100;
/// What went this long without being evicted begins anew.
const FORGIVEN: Duration = Duration::from_secs(600);
/// The reason in statuses and events.
const EVICTED: &str = "Evicted";

/// Evictions so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictions {
    pods: BTreeMap<PodUid, Record>,
    /// Not before this is the next look at limits of disk.
    disks_due: BootTime,
    /// Not before this does the next pod go because the host is short.
    next_due: BootTime,
}

/// How often one pod was evicted in a row.
#[derive(Clone, Copy, Debug)]
struct Record {
    count: u32,
    last: BootTime,
}

impl Record {
    /// When it may come back.
    fn due(self) -> BootTime {
        self.last.plus(next_backoff_after(self.count))
    }
}

/// A condition of the node that begins or ends.
pub(crate) type Change = (NodeCondition, bool);

/// Looks once. Gives the conditions that changed, and what is to be reclaimed.
pub(crate) async fn look(shared: &Arc<Shared>) -> (Vec<Change>, Vec<Shortage>) {
    let limit = shared.settings.call_timeout;
    let found = match tokio::time::timeout(limit, shared.host.pressure()).await {
        Ok(Ok(pressure)) => shortages(&pressure, &shared.settings.eviction),
        Ok(Err(error)) => {
            tracing::warn!(error = %error.chain(), "the host's pressure can't be read");
            return (Vec::new(), Vec::new());
        }
        Err(_) => return (Vec::new(), Vec::new()),
    };
    let changes = take_conditions(shared, &found);
    if let Some(shortage) = found.first().copied().filter(|_| !is_evicting(shared)) {
        reclaim(shared, shortage).await;
    }
    enforce_limits(shared).await;
    bring_back(shared).await;
    (changes, found)
}

fn take_conditions(shared: &Shared, found: &[Shortage]) -> Vec<Change> {
    let now = shared.now();
    let mut state = shared.state();
    let before: Conditions = state.memory.pressure.clone();
    state.memory.pressure.update(found, shared.settings.eviction_transition, now);
    let after = &state.memory.pressure;
    let change = |c: NodeCondition| (before.holds(c) != after.holds(c)).then(|| (c, after.holds(c)));
    let changes: Vec<Change> = NodeCondition::ALL.into_iter().filter_map(change).collect();
    drop(state);
    for (condition, holds) in &changes {
        tracing::warn!(condition = condition.name(), holds, "the node's pressure changed");
    }
    if !changes.is_empty() {
        // Pods that were kept out may begin, or may no longer.
        shared.enqueue(Work::Host, now);
    }
    changes
}

/// Whether a pod is on its way out, or went just now: what it gives back is waited for before the next one goes.
fn is_evicting(shared: &Shared) -> bool {
    let now = shared.now();
    let state = shared.state();
    if now < state.evictions.next_due {
        return true;
    }
    let Some(observed) = state.observed.as_ref() else { return true };
    let pods = state.desired.pods.values().filter(|i| state.memory.evicted.contains_key(&i.uid));
    pods.filter_map(|i| sandbox_of(observed, i, &state.reservations)).any(|s| running(s).next().is_some())
}

/// Containers with a process.
fn running(sandbox: &SandboxObserved) -> impl Iterator<Item = &reddwarf_host::ContainerObserved> {
    sandbox.containers.values().flatten().filter(|c| !matches!(c.state, ContainerState::Exited { .. }))
}

/// Pods that run and could be stopped, of those in question.
fn candidates(state: &State, in_question: impl Fn(&PodIntent) -> bool) -> Vec<(Arc<PodIntent>, SandboxId)> {
    let Some(observed) = state.observed.as_ref() else { return Vec::new() };
    let goes = |i: &PodIntent| i.finished || i.deleting.is_some() || state.memory.evicted.contains_key(&i.uid);
    // In question first: the sandbox's name is a digest.
    let stays = state.desired.pods.values().filter(|i| in_question(i) && !goes(i));
    stays
        .filter_map(|intent| {
            let sandbox = sandbox_of(observed, intent, &state.reservations)?;
            (sandbox.state == SandboxState::Running).then(|| (intent.clone(), sandbox.spec.id.clone()))
        })
        .collect()
}

/// Evicts the pod that goes first for want of something.
async fn reclaim(shared: &Arc<Shared>, shortage: Shortage) {
    let pods = candidates(&shared.state(), |_| true);
    if pods.is_empty() {
        return;
    }
    let usage = match shared.host.usage().await {
        Ok(usage) => usage,
        Err(error) => return tracing::warn!(error = %error.chain(), "what pods use can't be read"),
    };
    let disks = if shortage.resource.condition() == NodeCondition::Disk {
        let ids: Vec<SandboxId> = pods.iter().map(|(_, id)| id.clone()).collect();
        shared.host.disk_usage(&ids, LOOK).await.unwrap_or_default()
    } else {
        BTreeMap::new()
    };
    let uses: Vec<PodUse<'_>> = pods.iter().map(|(i, id)| pod_use(i, id, &usage, &disks)).collect();
    match choose(shortage, &uses) {
        Some((pod, message)) => {
            evict(shared, pod.key, pod.uid, message);
            // Until most of a heartbeat has passed: not every beat is a whole one after the last.
            let next = shared.now().plus(shared.settings.heartbeat * 2 / 3);
            shared.state().evictions.next_due = next;
        }
        None => {
            tracing::warn!(resource = shortage.resource.name(), "the node is short of it, and no pod may be evicted")
        }
    }
}

fn pod_use<'a>(
    intent: &'a PodIntent,
    id: &SandboxId,
    usage: &UsageReport,
    disks: &BTreeMap<SandboxId, SandboxDisk>,
) -> PodUse<'a> {
    let (sandbox, disk) = (usage.sandboxes.get(id), disks.get(id));
    let container = |name: &String| {
        let memory = sandbox
            .and_then(|s| s.containers.iter().find(|(n, _)| n.as_str() == name))
            .map_or(0, |(_, (_, used))| used.working_set_bytes);
        let disk = disk.and_then(|d| d.containers.iter().find(|(n, _)| n.as_str() == name)).map(|(_, used)| *used);
        let disk = disk.unwrap_or_default();
        (name.clone(), memory, disk.writable.plus(disk.logs))
    };
    PodUse {
        key: &intent.key,
        uid: &intent.uid,
        pod: &intent.pod,
        memory_bytes: sandbox.map_or(0, |s| s.total.working_set_bytes),
        processes: sandbox.map_or(0, |s| s.total.processes),
        disk: disk.map(SandboxDisk::total).unwrap_or_default(),
        containers: intent.pod.spec.containers.iter().map(|c| container(&c.name)).collect(),
    }
}

/// Speaks the verdict; the planner carries it out.
fn evict(shared: &Arc<Shared>, key: &PodKey, uid: &PodUid, message: String) {
    let now = shared.now();
    tracing::warn!(pod = %key, message, "a pod is evicted");
    let object = {
        let mut state = shared.state();
        let Some(intent) = state.desired.pods.get(key).filter(|i| i.uid == *uid).cloned() else { return };
        let record = state.evictions.pods.entry(uid.clone()).or_insert(Record { count: 0, last: now });
        let again = now.since(record.last) < FORGIVEN;
        *record = Record { count: if again { record.count.saturating_add(1) } else { 1 }, last: now };
        state.memory.evicted.insert(uid.clone(), Notice::new(EVICTED, message.clone()));
        intent.object.clone()
    };
    let event = EventText { warning: true, reason: EVICTED.into(), message, field_path: String::new() };
    shared.event(&object, event);
    shared.enqueue(Work::Pod(key.clone()), now);
}

/// Evicts pods that have more on disk than they may.
async fn enforce_limits(shared: &Arc<Shared>) {
    let began = shared.now();
    let pods = {
        let mut state = shared.state();
        let State { evictions, desired, memory, .. } = &mut *state;
        // Mostly nobody is evicted, and nothing is to be looked up.
        let find = |uid: &PodUid| desired.pods.values().find(|i| i.uid == *uid);
        evictions.pods.retain(|uid, _| find(uid).is_some());
        // A verdict holds until the pod's status says it: should the pod be changed and run again, it is over.
        memory.evicted.retain(|uid, _| find(uid).is_some_and(|i| !i.finished));
        if began < evictions.disks_due {
            return;
        }
        candidates(&state, |intent| has_disk_limits(&intent.pod))
    };
    if pods.is_empty() {
        return;
    }
    let ids: Vec<SandboxId> = pods.iter().map(|(_, id)| id.clone()).collect();
    let disks = match shared.host.disk_usage(&ids, LOOK).await {
        Ok(disks) => disks,
        Err(error) => return tracing::warn!(error = %error.chain(), "what pods have on disk can't be read"),
    };
    let took = shared.now().since(began);
    shared.state().evictions.disks_due = began.plus(took * SHARE);
    for (intent, id) in &pods {
        if let Some(message) = disks.get(id).and_then(|disk| exceeded(&intent.pod, disk)) {
            evict(shared, &intent.key, &intent.uid, message);
        }
    }
}

/// Pods that files declare are wanted, whatever happened to them: they come back when nothing is short any more, later
/// each time. Others are their makers' affair.
async fn bring_back(shared: &Arc<Shared>) {
    let now = shared.now();
    let back: Vec<(PodKey, PodUid, PodStatus)> = {
        let mut state = shared.state();
        let State { evictions, desired, memory, pods, .. } = &mut *state;
        if memory.pressure.all().next().is_some() {
            return;
        }
        let evicted = |i: &&Arc<PodIntent>| {
            i.finished && i.source.is_some() && i.deleting.is_none() && i.status.reason == EVICTED
        };
        let mut back = Vec::new();
        for intent in desired.pods.values().filter(evicted) {
            // After a restart of the daemon nobody remembers when it was.
            let record = evictions.pods.entry(intent.uid.clone()).or_insert(Record { count: 1, last: now });
            if now < record.due() {
                continue;
            }
            let status = begun_anew(&intent.status);
            memory.replaced.insert(intent.uid.clone());
            pods.entry(intent.key.clone()).or_default().written = None;
            back.push((intent.key.clone(), intent.uid.clone(), status));
        }
        back
    };
    for (key, uid, status) in back {
        tracing::info!(pod = %key, "an evicted pod is started again: a file declares it");
        // Through the registry: what it says is what the node goes by.
        if let Err(error) = shared.control.write_pod_status(&key, uid.as_str(), status.to_value()).await {
            tracing::warn!(pod = %key, %error, "an evicted pod could not be brought back");
        }
    }
}

/// Why a pod that was evicted is not here, and when it comes back; `None`: it was not.
pub(crate) fn evicted(state: &State, intent: &PodIntent, now: BootTime) -> Option<Notice> {
    if !intent.finished || intent.status.reason != EVICTED {
        return None;
    }
    let held: Vec<&str> = state.memory.pressure.all().map(NodeCondition::name).collect();
    let due = state.evictions.pods.get(&intent.uid).map(|record| record.due()).filter(|due| now < *due);
    let then = match due {
        _ if intent.source.is_none() => "No file declares it: it does not come back by itself.".to_owned(),
        _ if !held.is_empty() => {
            format!("It is started again when the node's condition is over: [{}].", held.join(" "))
        }
        Some(due) => format!("It is started again in {} s.", due.since(now).as_secs().max(1)),
        None => "It is started again in a moment.".to_owned(),
    };
    Some(Notice::new(EVICTED, format!("{} {then}", intent.status.message.trim_end())))
}

/// The status of a pod that starts over; its containers' counts go on.
fn begun_anew(status: &PodStatus) -> PodStatus {
    let mut status = PodStatus {
        phase: Phase::Pending,
        reason: String::new(),
        message: String::new(),
        observed_generation: None,
        start_time: None,
        ..status.clone()
    };
    status.conditions.retain(|c| c.kind != "DisruptionTarget");
    status
}
