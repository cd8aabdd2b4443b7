//! The node at work: one dispatcher, one worker per pod at a time, one writer of statuses, one of events.

use crate::control_plane::{ControlPlane, EventText};
use crate::desired::{Desired, HostFacts};
use crate::follow;
use crate::key::PodKey;
use crate::observe::Observer;
use crate::perform::{StepError, perform};
use crate::plan::{NETWORK_NOT_READY, Op, Outlook, Step, earliest};
use crate::probe::Probes;
use crate::queue::Queue;
use crate::state::{Record, State, sandbox_of};
use crate::tokens::{self, TokenSource, Tokens};
use crate::{NodeSettings, events, pulls};
use reddwarf_host::time::leisurely;
use reddwarf_host::{
    BootTime, Change, Clock, Host, HostErrorKind, HostEvent, HostInfo, HostObservation, Observation, SandboxObserved,
};
use reddwarf_objects::Object;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;

/// Rounds of plan and execution in one go; what needs more comes again later, after others.
const ROUNDS: usize = 12;
/// Events that wait to be written; more are dropped, as the reference does.
const EVENTS: usize = 512;
/// Full passes that are asked for come at most this often.
const PASS_APART: Duration = Duration::from_secs(1);
/// Time for running workers to end when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What is worked on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// The host as a whole, and with it a full pass over all pods.
    Host,
    /// One pod.
    Pod(PodKey),
}

/// Everything that the node's tasks share.
pub(crate) struct Shared {
    pub(crate) control: Arc<dyn ControlPlane>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Arc<dyn Clock>,
    tokens: Option<Arc<dyn TokenSource>>,
    pub(crate) settings: Arc<NodeSettings>,
    pub(crate) observer: Observer,
    state: Mutex<State>,
    queue: Mutex<Queue<Work>>,
    /// The queue changed.
    wake: Notify,
    statuses: Mutex<BTreeMap<PodKey, Publication>>,
    publish: Notify,
    events: mpsc::Sender<(Arc<Object>, EventText)>,
    /// Tells of changes to logs that are followed.
    pub(crate) log_watcher: crate::logs::LogWatcher,
    /// What was used lately, for those who ask.
    pub(crate) samples: tokio::sync::Mutex<crate::usage::Samples>,
    pub(crate) probes: Probes,
    /// Images being fetched.
    pub(crate) pulls: crate::pulls::Pulls,
    /// Something changed that the Node object says.
    pub(crate) beat_now: Notify,
    /// Ends all tasks.
    pub(crate) stop: watch::Sender<bool>,
    /// Whether the host was looked at as a whole since the start.
    pub(crate) looked: watch::Sender<bool>,
}

/// What is to be written about a pod.
struct Publication {
    uid: String,
    bind: bool,
    status: serde_json::Value,
}

impl Shared {
    pub(crate) fn new(
        control: Arc<dyn ControlPlane>,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
        tokens: Option<Arc<dyn TokenSource>>,
        settings: NodeSettings,
        info: Option<&HostInfo>,
    ) -> (Arc<Self>, mpsc::Receiver<(Arc<Object>, EventText)>) {
        let settings = Arc::new(settings);
        let desired = Desired {
            complete: false,
            halted: false,
            pods: BTreeMap::new(),
            config: crate::desired::ConfigData::default(),
            tokens: Tokens::new(tokens.is_some()),
            settings: settings.clone(),
            host: info.map(|info| host_facts(info, &settings)).unwrap_or_default(),
        };
        let observer = Observer::start(host.clone(), clock.clone(), settings.observe_timeout);
        let (events, event_queue) = mpsc::channel(EVENTS);
        let shared = Arc::new(Self {
            control,
            host,
            clock,
            tokens,
            observer,
            state: Mutex::new(State::new(desired)),
            queue: Mutex::new(Queue::new(settings.concurrency)),
            wake: Notify::new(),
            statuses: Mutex::new(BTreeMap::new()),
            publish: Notify::new(),
            events,
            log_watcher: crate::logs::LogWatcher::default(),
            samples: tokio::sync::Mutex::default(),
            probes: Probes::default(),
            pulls: crate::pulls::Pulls::new(),
            stop: watch::Sender::new(false),
            looked: watch::Sender::new(false),
            beat_now: Notify::new(),
            settings,
        });
        (shared, event_queue)
    }

    /// The state; the guard is never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Work>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statuses(&self) -> MutexGuard<'_, BTreeMap<PodKey, Publication>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> BootTime {
        self.clock.boot()
    }

    /// Puts work into the queue.
    pub(crate) fn enqueue(&self, work: Work, at: BootTime) {
        self.queue().add(work, at);
        self.wake.notify_one();
    }

    /// What is being worked on and since when, and how much waits.
    pub(crate) fn load(&self) -> (Vec<(Work, BootTime)>, usize) {
        let queue = self.queue();
        (queue.running().iter().map(|(k, since)| (k.clone(), *since)).collect(), queue.len())
    }

    /// Nothing is due before `until`, nothing runs, nothing waits to be written.
    pub(crate) fn is_idle(&self, until: BootTime) -> bool {
        self.queue().is_idle(until) && self.statuses().is_empty()
    }

    pub(crate) fn event(&self, object: &Arc<Object>, event: EventText) {
        // A full queue means that events come faster than they can be written: the newest are dropped.
        let _ = self.events.try_send((object.clone(), event));
    }

    /// Hands a pod's status, if it is a new one, to the writer.
    fn publish(&self, key: &PodKey, observed: &HostObservation, outlook: &Outlook) {
        let now = self.clock.wall();
        let mut state = self.state();
        let Some(new) = state.new_status(key, observed, outlook, now) else { return };
        let bind = state.desired.pods.get(key).is_some_and(|i| i.pod.spec.node_name.is_empty());
        drop(state);
        self.statuses().insert(key.clone(), Publication { uid: new.uid, bind, status: new.status.to_value() });
        self.publish.notify_one();
    }
}

/// The host as pods see it.
pub(crate) fn host_facts(info: &HostInfo, settings: &NodeSettings) -> HostFacts {
    HostFacts {
        ip: info.addresses.first().copied(),
        cpu_millis: info.cpu_millis.saturating_sub(settings.system_reserved_cpu_millis),
        memory_bytes: info.memory_bytes.saturating_sub(settings.system_reserved_memory_bytes),
        storage_bytes: info.storage_bytes,
        brands: info.brands.clone(),
    }
}

/// Follows the control plane's objects until it or the node ends.
pub(crate) async fn follow_objects(shared: Arc<Shared>) {
    let mut changes = shared.control.follow();
    let mut stop = shared.stop.subscribe();
    loop {
        let change = tokio::select! {
            // Cancel safe: a message is taken whole or not at all.
            change = changes.recv() => change,
            _ = stop.changed() => return,
        };
        let Some(change) = change else { return };
        let now = shared.now();
        let affected = {
            let mut state = shared.state();
            let affected = follow::apply(&mut state.desired, change);
            for (key, uid) in &affected.gone {
                if let Ok(uid) = reddwarf_host::PodUid::new(uid.as_str()) {
                    state.reservations.unclaim(&uid);
                    // What a new list merely lacks may have been lost with its store.
                    if !affected.all {
                        state.memory.dismissed.insert(uid.clone());
                    }
                    // Had it not been, its sandbox would be gone: forgotten with the next full pass.
                    state.memory.forced.insert(uid);
                }
                if !state.desired.pods.contains_key(key) {
                    state.pods.remove(key);
                }
            }
            let all = if affected.all { state.desired.pods.keys().cloned().collect() } else { Vec::new() };
            state.note_deadlines(all.iter().chain(&affected.pods), now, shared.clock.wall());
            affected
        };
        for key in affected.pods {
            shared.enqueue(Work::Pod(key), now);
        }
        if affected.all || !affected.gone.is_empty() {
            // Also when a pod went: the last one takes the pod network with it.
            shared.enqueue(Work::Host, now);
        }
    }
}

/// Turns the host's own notices into work.
pub(crate) async fn follow_host(shared: Arc<Shared>) {
    let mut notices = shared.host.events();
    let mut stop = shared.stop.subscribe();
    loop {
        let notice = tokio::select! {
            // Cancel safe: a message is taken whole or not at all.
            notice = notices.recv() => notice,
            _ = stop.changed() => return,
        };
        let work = match notice {
            Ok(HostEvent::Container(id, _) | HostEvent::Sandbox(id)) => {
                let state = shared.state();
                let sandboxes = state.observed.as_ref().and_then(|o| o.sandboxes.known());
                let sandbox = sandboxes.and_then(|all| all.get(&id)).and_then(|s| s.known());
                sandbox.map_or(Work::Host, |s| Work::Pod(PodKey::from(&s.spec.pod)))
            }
            Ok(HostEvent::Network | HostEvent::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => Work::Host,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        shared.enqueue(work, shared.now());
    }
}

/// Writes statuses: the newest of each pod, many at a time so that they share a commit.
pub(crate) async fn write_statuses(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    loop {
        let batch = std::mem::take(&mut *shared.statuses());
        if batch.is_empty() {
            tokio::select! {
                () = shared.publish.notified() => continue,
                _ = stop.changed() => return,
            }
        }
        let mut writes = JoinSet::new();
        for (key, publication) in batch {
            let shared = shared.clone();
            writes.spawn(async move { write_one(&shared, &key, publication).await });
        }
        while writes.join_next().await.is_some() {}
    }
}

async fn write_one(shared: &Shared, key: &PodKey, publication: Publication) {
    let Publication { uid, bind, status } = publication;
    if bind && let Err(error) = shared.control.bind_pod(key, &uid, &shared.settings.node_name).await {
        tracing::warn!(pod = %key, %error, "a pod could not be bound to this node");
    }
    if let Err(error) = shared.control.write_pod_status(key, &uid, status).await {
        tracing::warn!(pod = %key, %error, "a pod's status could not be written");
        // Written again by the next full pass.
        if let Some(slot) = shared.state().pods.get_mut(key) {
            slot.written = None;
        }
    }
}

/// Writes events one after another.
pub(crate) async fn write_events(control: Arc<dyn ControlPlane>, mut queue: mpsc::Receiver<(Arc<Object>, EventText)>) {
    while let Some((object, event)) = queue.recv().await {
        control.record_event(&object, event).await;
    }
}

/// Hands out work until the node stops; then gives what runs a moment to end.
pub(crate) async fn dispatch(shared: Arc<Shared>) {
    let mut workers: JoinSet<Option<BootTime>> = JoinSet::new();
    let mut keys = std::collections::HashMap::new();
    let mut stop = shared.stop.subscribe();
    while !*stop.borrow_and_update() {
        let now = shared.now();
        loop {
            let Some(work) = shared.queue().take(now) else { break };
            let task = workers.spawn(worker(shared.clone(), work.clone()));
            keys.insert(task.id(), work);
        }
        let next = shared.queue().next(now).map(|at| at.since(now));
        tokio::select! {
            () = shared.wake.notified() => {}
            _ = stop.changed() => {}
            // Cancel safe: a worker's end is taken whole or not at all.
            Some(ended) = workers.join_next_with_id() => {
                let (id, again) = match ended {
                    Ok((id, again)) => (id, again),
                    // A worker that panicked is a defect; its pod comes again with the next full pass.
                    Err(error) => {
                        tracing::error!(%error, "a worker died");
                        (error.id(), None)
                    }
                };
                if let Some(work) = keys.remove(&id) {
                    let mut queue = shared.queue();
                    queue.finish(&work);
                    if let Some(at) = again {
                        queue.add(work, at);
                    }
                }
            }
            () = tokio::time::sleep(next.unwrap_or(Duration::MAX)), if next.is_some() => {}
        }
    }
    let drained = tokio::time::timeout(DRAIN, async { while workers.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some host calls did not end in time; what they did will be observed at the next start");
    }
}

/// Works on one key; says when to come back.
async fn worker(shared: Arc<Shared>, work: Work) -> Option<BootTime> {
    match work {
        Work::Host => host_pass(&shared).await,
        Work::Pod(key) => pod(&shared, &key).await,
    }
}

/// One pod: observe, plan, execute, until there is nothing to do but wait.
async fn pod(shared: &Arc<Shared>, key: &PodKey) -> Option<BootTime> {
    let mut done = Vec::new();
    for _ in 0..ROUNDS {
        let observed = shared.observer.fresh().await;
        renew_tokens(shared, key, &observed).await;
        let (now, complete) = (shared.now(), shared.control.complete());
        let (planned, before, intent, started) = {
            let mut state = shared.state();
            if !state.tokens_due(key, &observed, shared.clock.wall()).is_empty() {
                // The pod changed meanwhile: no plan of ours is made without its tokens.
                continue;
            }
            let before = state.pods.get(key).map(|p| p.outlook.clone()).unwrap_or_default();
            let intent = state.desired.pods.get(key).cloned();
            let sandbox = intent.as_ref().and_then(|i| sandbox_of(&observed, i, &state.reservations));
            let started = sandbox.map(|s| events::started(&done, s)).unwrap_or_default();
            let planned = state.plan_pod(key, &observed, complete, &mut done, now);
            if let Some(jobs) = state.jobs(key, &observed) {
                shared.probes.set(key, jobs);
            }
            (planned, before, intent, started)
        };
        if let Some(intent) = &intent {
            for event in started.into_iter().chain(events::outlook(intent, &before, &planned.outlook)) {
                shared.event(&intent.object, event);
            }
        }
        shared.publish(key, &observed, &planned.outlook);
        if planned.outlook.notices.iter().any(|n| n.reason == NETWORK_NOT_READY) {
            shared.enqueue(Work::Host, now);
        }
        if planned.steps.is_empty() {
            return earliest(planned.outlook.wake, next_token(shared, key, &observed));
        }
        let sandbox = intent.as_ref().and_then(|i| sandbox_of(&observed, i, &shared.state().reservations).cloned());
        for step in planned.steps {
            let last = matches!(step.op, Op::FinishDelete { .. });
            let object = intent.as_ref().map(|i| &i.object);
            if !execute(shared, Some(key), &step, object, sandbox.as_ref()).await {
                break;
            }
            if last {
                return None;
            }
            done.push(step.op);
        }
    }
    Some(shared.now().plus(Duration::from_secs(1)))
}

/// Asks for the tokens that the pod's volumes lack, or that are to be renewed.
async fn renew_tokens(shared: &Shared, key: &PodKey, observed: &HostObservation) {
    let due = shared.state().tokens_due(key, observed, shared.clock.wall());
    for request in due {
        let answer = match &shared.tokens {
            Some(source) => {
                let asked = tokio::time::timeout(shared.settings.call_timeout, source.token(&request)).await;
                asked.unwrap_or_else(|_| Err("no answer in time".to_owned()))
            }
            None => Err("nobody makes tokens here".to_owned()),
        };
        let now = shared.clock.wall();
        tokens::answered(&mut shared.state().desired.tokens, request, answer, now);
    }
}

/// When the pod's next token is to be asked for.
fn next_token(shared: &Shared, key: &PodKey, observed: &HostObservation) -> Option<BootTime> {
    let (now, wall) = (shared.now(), shared.clock.wall());
    let next = shared.state().next_token(key, observed)?;
    Some(now.plus((next - wall).to_std().unwrap_or_default()))
}

/// Carries out one step and notes what came of it.
async fn execute(
    shared: &Arc<Shared>,
    key: Option<&PodKey>,
    step: &Step,
    object: Option<&Arc<Object>>,
    sandbox: Option<&SandboxObserved>,
) -> bool {
    crate::logs::tidy(shared, &step.op).await;
    let result = if matches!(step.op, Op::ImagePull { .. }) {
        // Begun, not waited for: it holds neither this worker nor the pod's other containers.
        pulls::begin_for_container(shared, &step.op);
        Ok(Change::Changed("begun".into()))
    } else {
        perform(&*shared.host, &*shared.control, &step.op, shared.settings.call_timeout).await
    };
    let record = |error: Option<String>| Record {
        at: shared.clock.wall(),
        step: step.op.to_string(),
        reason: step.reason.clone(),
        field: step.field.clone(),
        error,
    };
    match result {
        Ok(_) => {
            tracing::debug!(step = %step, "done");
            let mut state = shared.state();
            let pulled = state.use_ticket(key, &step.op);
            state.done(key, &step.op);
            if !matches!(step.op, Op::FinishDelete { .. }) {
                state.record(key, record(None));
            }
            drop(state);
            for event in events::done(step, sandbox, pulled) {
                if let Some(object) = object {
                    shared.event(object, event);
                }
            }
            true
        }
        Err(error) => {
            tracing::warn!(step = %step.op, error = %error.text(), "a step failed");
            let conflict = matches!(&error, StepError::ControlPlane(e) if e.conflict);
            let gone = matches!(&error, StepError::Host(e) if e.kind == HostErrorKind::NotFound);
            {
                let mut state = shared.state();
                state.failed(key, step.op.clone(), &error, shared.now());
                state.record(key, record(Some(error.text())));
            }
            if conflict {
                reload_promises(shared).await;
            }
            if let Some(object) = object
                && !gone
            {
                shared.event(object, events::failed(step, &error));
            }
            false
        }
    }
}

/// Reads all promises anew.
pub(crate) async fn reload_promises(shared: &Shared) -> bool {
    match shared.control.promises().await {
        Ok(promises) => {
            shared.state().reservations.replace(promises);
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the promises of addresses could not be read");
            false
        }
    }
}

/// A full pass: the host's own steps, and work for every pod that has some.
async fn host_pass(shared: &Arc<Shared>) -> Option<BootTime> {
    let mut done = Vec::new();
    let mut last = shared.now();
    for _ in 0..ROUNDS {
        let observed = shared.observer.fresh().await;
        last = shared.now();
        let complete = shared.control.complete();
        let (host, since) = {
            let mut state = shared.state();
            (state.plan_host(&observed, complete, &mut done, last), state.last_pass)
        };
        if host.steps.is_empty() {
            wake_for_network(shared, &observed, last);
            // Changes have woken their own pods; what is left for a full pass can wait for others to join it.
            return match since.map(|since| since.plus(PASS_APART)).filter(|at| last < *at) {
                Some(at) => earliest(Some(at), host.wake),
                None => pods_pass(shared, &observed, complete, host.wake, last),
            };
        }
        for step in host.steps {
            if !execute(shared, None, &step, None, None).await {
                break;
            }
            done.push(step.op);
        }
    }
    Some(last.plus(Duration::from_secs(1)))
}

/// Wakes the pods that waited for the pod network, once it is there.
fn wake_for_network(shared: &Shared, observed: &HostObservation, now: BootTime) {
    let wanted = &shared.settings.network;
    if !observed.network.known().is_some_and(|n| n.as_ref().is_some_and(|n| n.spec == *wanted)) {
        return;
    }
    let state = shared.state();
    let waits = |o: &Outlook| o.notices.iter().any(|n| n.reason == NETWORK_NOT_READY);
    let keys: Vec<_> = state.pods.iter().filter(|(_, p)| waits(&p.outlook)).map(|(key, _)| key.clone()).collect();
    drop(state);
    for key in keys {
        shared.enqueue(Work::Pod(key), now);
    }
}

/// Every pod beside one observation.
fn pods_pass(
    shared: &Shared,
    observed: &Arc<HostObservation>,
    complete: bool,
    wake: Option<BootTime>,
    now: BootTime,
) -> Option<BootTime> {
    let (plan, busy) = {
        let mut state = shared.state();
        let plan = state.plan_all(observed, complete, now);
        state.host_notices.clone_from(&plan.host);
        state.last_pass = Some(now);
        shared.looked.send_replace(true);
        state.pods.retain(|key, _| plan.pods.contains_key(key));
        state.memory.checks.retain_pods(|key| plan.pods.contains_key(key));
        shared.probes.retain(|key| plan.pods.contains_key(key));
        state.passes += 1;
        // A person's word holds until nothing unwanted is left.
        let wanted = |s: &Observation<SandboxObserved>| {
            s.known().is_some_and(|s| state.desired.pods.contains_key(&PodKey::from(&s.spec.pod)))
        };
        let clean = observed.sandboxes.known().is_some_and(|all| all.values().all(wanted));
        if clean && plan.steps.is_empty() {
            state.prune_until = None;
        }
        drop(state);
        let running: Vec<_> = shared.load().0.into_iter().map(|(work, _)| work).collect();
        (plan, running)
    };
    let mut with_steps: Vec<&PodKey> = plan.steps.iter().filter_map(|s| s.pod.as_ref()).collect();
    with_steps.sort();
    with_steps.dedup();
    for key in &with_steps {
        shared.enqueue(Work::Pod((*key).clone()), now);
    }
    for (key, outlook) in &plan.pods {
        let being_worked_on = || busy.contains(&Work::Pod(key.clone()));
        if with_steps.binary_search(&key).is_ok() || being_worked_on() {
            continue;
        }
        let known = shared.state().pods.get(key).is_some_and(|p| p.outlook == *outlook);
        if !known {
            // Something else is waited for than was known: its worker says so and comes back in time.
            shared.enqueue(Work::Pod(key.clone()), now);
            continue;
        }
        shared.publish(key, observed, outlook);
        if let Some(at) = outlook.wake {
            shared.enqueue(Work::Pod(key.clone()), at);
        }
    }
    // Also when the wall clock jumped, of which no timer hears.
    let due: Vec<PodKey> = shared.state().desired.tokens.due(shared.clock.wall()).cloned().collect();
    for key in due {
        shared.enqueue(Work::Pod(key), now);
    }
    let resync = Some(now.plus(leisurely(shared.settings.resync)));
    earliest(resync, wake)
}
