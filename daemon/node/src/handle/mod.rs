//! What the rest of the daemon can ask of the node.

mod images;

use crate::control_plane::{ControlPlane, ControlPlaneError, ObjectChange};
use crate::desired::Desired;
use crate::follow;
use crate::key::PodKey;
use crate::logs::{self, LogOptions};
use crate::plan::{Effect, Memory, Notice, Op, Plan, Reservations, Step, plan};
use crate::pressure;
use crate::probe;
use crate::run::{self, Shared, Work};
use crate::settings::{NodeSettings, StorageHealth};
use crate::state::{Record, sandbox_of};
use crate::tokens::TokenSource;
use bytes::Bytes;
use reddwarf_host::spec::ContainerSpec;
use reddwarf_host::{
    AttachRequest, BootTime, Clock, Connection, ContainerName, ContainerState, ExecRequest, Host, HostError,
    HostObservation, Note, Observation, SandboxId, SandboxObserved, SandboxState, Session,
};
use reddwarf_objects::pod::PodStatus;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// How long a person's word lets unwanted sandboxes go.
const PRUNE_FOR: Duration = Duration::from_secs(600);
/// Time to read the promises at start before trying again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a node is made of.
pub struct NodeDeps {
    /// Where pods come from and statuses go.
    pub control: Arc<dyn ControlPlane>,
    /// The host.
    pub host: Arc<dyn Host>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who makes tokens of pods' accounts; without one, volumes that ask for a token can't be made.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// Settings.
    pub settings: NodeSettings,
}

/// The node.
pub struct Node;

/// Why the node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No such pod, container or log.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense as things are; worded as the kubelet words it.
    #[error("{0}")]
    BadRequest(String),
    /// It is not in a state for that.
    #[error("{0}")]
    Conflict(String),
    /// The host can't be asked just now.
    #[error("{0}")]
    Unavailable(String),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control plane failed.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
}

/// The running node. Clones share it.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Why a pod is as it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Which pod.
    pub pod: PodKey,
    /// It is as asked.
    pub ok: bool,
    /// One sentence.
    pub summary: String,
    /// The file that declares it.
    pub source: Option<String>,
    /// Its phase.
    pub phase: String,
    /// What keeps it from being as asked.
    pub notices: Vec<Notice>,
    /// Why containers wait, by name.
    pub waiting: Vec<(String, Notice)>,
    /// How containers ended last, by name: exit code, signal, message.
    pub ended: Vec<(String, String)>,
    /// What would be done next.
    pub next: Vec<String>,
    /// What was done last, errors included.
    pub recent: Vec<Record>,
}

/// How a pod's containers ended last, of those that did.
fn ended(status: &PodStatus) -> Vec<(String, String)> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    all.filter_map(|c| {
        let end = c.state.terminated.as_ref().or(c.last_state.terminated.as_ref())?;
        let mut text = format!("ended with exit code {} ({})", end.exit_code, end.reason);
        if !end.message.is_empty() {
            text = format!("{text}: {}", end.message);
        }
        match c.restart_count {
            0 => {}
            1 => text.push_str(", restarted once"),
            n => text.push_str(&format!(", restarted {n} times")),
        }
        Some((c.name.clone(), text))
    })
    .collect()
}

pub use images::PullView;

/// The node in figures.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Promises were read and the host was seen: pods are being managed.
    pub ready: bool,
    /// What keeps the host as a whole from being as asked.
    pub notices: Vec<Notice>,
    /// Pods that are wanted.
    pub pods: usize,
    /// Pods that are not as asked, with the first reason.
    pub degraded: Vec<(PodKey, Notice)>,
    /// Sandboxes on the host.
    pub sandboxes: usize,
    /// What is being worked on, for how many seconds.
    pub working: Vec<(String, u64)>,
    /// Work that waits.
    pub queued: usize,
    /// Full passes since the start.
    pub passes: u64,
}

/// A step for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// The pod; `None`: the host.
    pub pod: Option<PodKey>,
    /// How it shows.
    pub effect: Effect,
    /// What, in words.
    pub what: String,
    /// Why.
    pub reason: String,
    /// The field that caused it.
    pub field: Option<String>,
    /// It stops something that runs.
    pub disrupts: bool,
}

/// What the node would do.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// In order. Nothing of it was executed.
    pub steps: Vec<PlannedStep>,
    /// What can't proceed, by pod; `None`: the host.
    pub blocked: Vec<(Option<PodKey>, Notice)>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl From<&Step> for PlannedStep {
    fn from(step: &Step) -> Self {
        Self {
            pod: step.pod.clone(),
            effect: step.effect,
            what: step.op.to_string(),
            reason: step.reason.clone(),
            field: step.field.clone(),
            disrupts: matches!(
                step.op,
                Op::ContainerSignal { .. }
                    | Op::ContainerNote { note: Note::Stopping { .. }, .. }
                    | Op::SandboxStop(_)
                    | Op::SandboxDestroy(_)
                    | Op::NetworkRemove
            ),
        }
    }
}

/// Objects as they would be, for a dry run.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// Created or changed.
    pub put: Vec<reddwarf_objects::Object>,
    /// Deleted.
    pub delete: Vec<reddwarf_objects::Object>,
}

/// All that a dry run has: copies of what is known. It holds no host that could be changed.
struct DryRun {
    desired: Desired,
    observed: Arc<HostObservation>,
    reservations: Reservations,
    memory: Memory,
    now: BootTime,
}

impl DryRun {
    async fn of(shared: &Shared) -> Self {
        let observed = shared.observer.fresh().await;
        let (now, complete) = (shared.now(), shared.control.complete());
        let state = shared.state();
        let desired = Desired { complete, ..state.desired.clone() };
        Self { desired, observed, reservations: state.reservations.clone(), memory: state.memory.clone(), now }
    }

    fn plan(mut self, proposal: Proposal) -> (Plan, Arc<HostObservation>) {
        for object in proposal.put {
            let _ = follow::apply(&mut self.desired, ObjectChange::Put(Box::new(object)));
        }
        for object in proposal.delete {
            mark_deleted(&mut self.desired, object);
        }
        let Self { desired, observed, reservations, memory, now } = &self;
        (plan(desired, observed, reservations, memory, *now), self.observed)
    }
}

/// A pod that would be deleted is stopped first; anything else is simply gone.
fn mark_deleted(desired: &mut Desired, object: reddwarf_objects::Object) {
    let key = PodKey::new(object.namespace().unwrap_or_default(), object.name());
    if object.kind() == "Pod"
        && let Some(intent) = desired.pods.get_mut(&key)
    {
        let intent = Arc::make_mut(intent);
        intent.deleting = Some(intent.grace());
        return;
    }
    let _ = follow::apply(desired, ObjectChange::Gone(Box::new(object)));
}

impl Node {
    /// Starts the node's tasks. Pods that run already are found again; nothing is restarted.
    pub async fn start(deps: NodeDeps) -> NodeHandle {
        let NodeDeps { control, host, clock, tokens, settings } = deps;
        let info = tokio::time::timeout(settings.call_timeout, host.info()).await.ok().and_then(Result::ok);
        let (shared, events) = Shared::new(control.clone(), host, clock, tokens, settings, info.as_ref());
        let mut tasks = JoinSet::new();
        tasks.spawn(run::write_events(control, events));
        tasks.spawn(run::write_statuses(shared.clone()));
        tasks.spawn(crate::heartbeat::beat(shared.clone()));
        tasks.spawn(probe::run(shared.clone()));
        tasks.spawn(crate::images::run(shared.clone()));
        let begun = shared.clone();
        tasks.spawn(async move {
            let mut stop = begun.stop.subscribe();
            // Without the promises no address may be given: nothing starts before they are known.
            while !run::reload_promises(&begun).await {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    _ = stop.changed() => return,
                }
            }
            tokio::join!(run::follow_objects(begun.clone()), run::follow_host(begun.clone()), run::dispatch(begun));
        });
        NodeHandle { shared, tasks: Arc::new(Mutex::new(tasks)) }
    }
}

impl NodeHandle {
    /// Has the Node say at once whether the host's storage can be used.
    pub fn storage_is(&self, health: StorageHealth) {
        self.shared.state().storage = Some(health);
        self.shared.beat_now.notify_one();
    }

    /// What would be done now, or after a proposed change. Holds nothing that could change the host.
    ///
    /// # Errors
    /// `Unavailable` when the host can't be observed at all.
    pub async fn plan(&self, proposal: Proposal) -> Result<Planned, NodeError> {
        let (plan, observed) = DryRun::of(&self.shared).await.plan(proposal);
        if let Observation::Unknown(why) = &observed.sandboxes {
            return Err(NodeError::Unavailable(format!("the host can't be observed: {why}")));
        }
        let mut planned = Planned { steps: plan.steps.iter().map(PlannedStep::from).collect(), ..Planned::default() };
        let pods = plan.pods.iter().flat_map(|(key, o)| {
            let waiting = o.waiting.values().filter(|n| !is_routine(n));
            o.notices.iter().chain(waiting).map(move |n| (Some(key.clone()), n.clone()))
        });
        for (pod, notice) in plan.host.into_iter().map(|n| (None, n)).chain(pods) {
            if notice.reason == "HostUnknown" || notice.reason == "NetworkUnknown" {
                planned.unknown.push(notice.message);
            } else {
                planned.blocked.push((pod, notice));
            }
        }
        Ok(planned)
    }

    /// Why a pod is as it is.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn why(&self, pod: &PodKey) -> Result<Why, NodeError> {
        let (plan, _) = DryRun::of(&self.shared).await.plan(Proposal::default());
        let state = self.shared.state();
        let intent = state.desired.pods.get(pod);
        let outlook = plan.pods.get(pod);
        if intent.is_none() && outlook.is_none() {
            return Err(NodeError::NotFound(format!("pod {pod} is neither wanted nor on this host")));
        }
        let slot = state.pods.get(pod);
        let mut outlook = outlook.cloned().unwrap_or_default();
        if let Some(evicted) = intent.and_then(|i| pressure::evicted(&state, i, self.shared.now())) {
            outlook.notices.insert(0, evicted);
        }
        let next: Vec<_> = plan.steps.iter().filter(|s| s.pod.as_ref() == Some(pod)).map(ToString::to_string).collect();
        let waiting: Vec<_> = outlook.waiting.iter().map(|(name, n)| (name.to_string(), n.clone())).collect();
        let first = outlook.notices.first().or_else(|| outlook.waiting.values().find(|n| !is_routine(n)));
        let ok = first.is_none() && next.is_empty() && intent.is_some();
        let summary = match (first, next.first()) {
            (Some(notice), _) => notice.to_string(),
            (None, Some(step)) => format!("being changed: {step}"),
            (None, None) => "as asked".to_owned(),
        };
        let written = slot.and_then(|s| s.written.as_ref()).map(|(_, status)| status);
        let status: Option<&PodStatus> = written.or(intent.map(|i| &i.status));
        Ok(Why {
            pod: pod.clone(),
            ok,
            summary,
            source: intent.and_then(|i| i.source.clone()),
            phase: status.map(|s| format!("{:?}", s.phase)).unwrap_or_default(),
            notices: outlook.notices,
            waiting,
            ended: status.map(ended).unwrap_or_default(),
            next,
            recent: slot.map(|s| s.recent.iter().cloned().collect()).unwrap_or_default(),
        })
    }

    /// Asks for a restart of one container of a pod, or of all. It happens gracefully and at once; the answer only
    /// says that it was asked for.
    ///
    /// # Errors
    /// `NotFound`, `ControlPlane`.
    pub async fn restart(&self, pod: &PodKey, container: Option<&str>) -> Result<(), NodeError> {
        let previous = {
            let state = self.shared.state();
            let intent =
                state.desired.pods.get(pod).ok_or_else(|| NodeError::NotFound(format!("there is no pod {pod}")))?;
            let spec = &intent.pod.spec;
            let mut names = spec.containers.iter().chain(&spec.init_containers).map(|c| c.name.as_str());
            if let Some(container) = container
                && !names.any(|n| n == container)
            {
                return Err(NodeError::NotFound(format!("pod {pod} has no container {container:?}")));
            }
            intent.object.annotation(reddwarf_objects::RESTART_REQUESTED_ANNOTATION).unwrap_or_default().to_owned()
        };
        let token = self.shared.clock.wall().timestamp_millis().to_string();
        let value = restart_value(&previous, container, &token);
        self.shared.control.request_restart(pod, &value).await?;
        Ok(())
    }

    /// A container's log.
    ///
    /// # Errors
    /// `BadRequest` when it never ran (so often), `NotFound` when its name is none.
    pub async fn logs(
        &self,
        pod: &PodKey,
        container: &str,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<io::Result<Bytes>>, NodeError> {
        let observed = self.shared.observer.fresh().await;
        let (path, name, attempt) = match self.instance(&observed, pod, container, options.previous) {
            Ok(spec) => (spec.log.path, spec.name, spec.attempt),
            Err(error) => self.log_of_the_gone(&observed, pod, container, options.previous).ok_or(error)?,
        };
        let (shared, pod) = (Arc::downgrade(&self.shared), pod.clone());
        let follow = options.follow;
        let ended = Box::new(move || {
            let Some(shared) = shared.upgrade() else { return true };
            !follow || !is_running(&shared, &pod, &name, attempt)
        });
        Ok(logs::stream(path, options, ended, self.shared.log_watcher.clone()))
    }

    /// The log of a pod that has ended and of which nothing else is left: it was evicted.
    fn log_of_the_gone(
        &self,
        observed: &HostObservation,
        pod: &PodKey,
        container: &str,
        previous: bool,
    ) -> Option<(PathBuf, ContainerName, u32)> {
        let state = self.shared.state();
        let intent = state.desired.pods.get(pod).filter(|i| i.finished)?;
        if sandbox_of(observed, intent, &state.reservations).is_some() {
            return None;
        }
        let status = &intent.status;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
        let attempt = all.find(|c| c.name == container)?.restart_count.checked_sub(u32::from(previous))?;
        let path = logs::path(&self.shared.settings.log_dir, pod, &intent.uid, container, attempt);
        Some((path, ContainerName::new(container).ok()?, attempt))
    }

    /// The instance whose log is asked for: the last one that has or had a process, or the one before it.
    fn instance(
        &self,
        observed: &HostObservation,
        pod: &PodKey,
        container: &str,
        previous: bool,
    ) -> Result<ContainerSpec, NodeError> {
        let state = self.shared.state();
        let waits = |reason: &str| {
            let name = &pod.name;
            let text =
                format!("container {container:?} in pod {name:?} is waiting to start: {}", waiting_words(reason));
            Err(NodeError::BadRequest(text))
        };
        // One that was made just now, and that the node has not heard of.
        let Some(intent) = state.desired.pods.get(pod) else { return waits("ContainerCreating") };
        let sandbox = sandbox_of(observed, intent, &state.reservations);
        let name = ContainerName::new(container).map_err(|e| NodeError::NotFound(e.to_string()))?;
        let instances = sandbox.and_then(|s| s.containers.get(&name)).map_or(&[][..], Vec::as_slice);
        let begun = instances.iter().filter(|i| !matches!(i.state, ContainerState::Creating));
        let waiting = state.pods.get(pod).and_then(|p| p.outlook.waiting.get(&name));
        let over = begun.clone().next_back().is_some_and(|i| matches!(i.state, ContainerState::Exited { .. }));
        // While a container waits to be started again, the one that ended is the one before.
        let back = usize::from(previous && !(over && (waiting.is_some() || begun.clone().count() < instances.len())));
        match begun.rev().nth(back) {
            Some(instance) => Ok((*instance.spec).clone()),
            None if previous => {
                let text = format!("previous terminated container {container:?} in pod {:?} not found", pod.name);
                Err(NodeError::BadRequest(text))
            }
            None => waits(waiting.map_or("ContainerCreating", |notice| notice.reason.as_str())),
        }
    }

    /// Starts a command in a running container.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it does not run, `Host`.
    pub async fn exec(&self, pod: &PodKey, container: &str, request: ExecRequest) -> Result<Session, NodeError> {
        let (id, name) = self.running(pod, container).await?;
        Ok(self.shared.host.exec(&id, &name, request).await?)
    }

    /// Joins the standard streams of a running container's first process.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it does not run, `Host`.
    pub async fn attach(&self, pod: &PodKey, container: &str, request: AttachRequest) -> Result<Session, NodeError> {
        let (id, name) = self.running(pod, container).await?;
        Ok(self.shared.host.attach(&id, &name, request).await?)
    }

    /// Connects to a TCP port inside a running pod.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when the pod does not run, `Host` when nobody listens there.
    pub async fn connect(&self, pod: &PodKey, port: u16) -> Result<Connection, NodeError> {
        let id = self.on_running_sandbox(pod, |sandbox| Some(sandbox.spec.id.clone())).await?;
        let id = id.ok_or_else(|| NodeError::Conflict(format!("pod {pod} does not run")))?;
        Ok(self.shared.host.connect(&id, port).await?)
    }

    /// Where a container runs.
    async fn running(&self, pod: &PodKey, container: &str) -> Result<(SandboxId, ContainerName), NodeError> {
        let name = ContainerName::new(container).map_err(|e| NodeError::NotFound(e.to_string()))?;
        let found = self.on_running_sandbox(pod, |sandbox| {
            let last = sandbox.containers.get(&name)?.last()?;
            matches!(last.state, ContainerState::Running { .. }).then(|| sandbox.spec.id.clone())
        });
        match found.await? {
            Some(id) => Ok((id, name)),
            None => Err(NodeError::Conflict(format!("container {container:?} of pod {pod} does not run"))),
        }
    }

    /// Looks at a pod's sandbox, when it runs.
    async fn on_running_sandbox<T>(
        &self,
        pod: &PodKey,
        look: impl FnOnce(&SandboxObserved) -> Option<T>,
    ) -> Result<Option<T>, NodeError> {
        let observed = self.shared.observer.fresh().await;
        let state = self.shared.state();
        let intent = state.desired.pods.get(pod);
        let intent = intent.ok_or_else(|| NodeError::NotFound(format!("there is no pod {pod}")))?;
        let sandbox = sandbox_of(&observed, intent, &state.reservations);
        Ok(sandbox.filter(|s| s.state == SandboxState::Running).and_then(look))
    }

    /// A full pass now. With `allow_prune` sandboxes that nobody wants go, however many. Also takes back the
    /// verdict on steps that were not to be tried again.
    pub fn reconcile(&self, allow_prune: bool) {
        let now = self.shared.now();
        {
            let mut state = self.shared.state();
            state.memory.failures.clear();
            if allow_prune {
                state.prune_until = Some(now.plus(PRUNE_FOR));
            }
        }
        self.shared.enqueue(Work::Host, now);
    }

    /// Waits until the host was looked at as a whole since the start.
    pub async fn looked(&self) {
        // The sender lives as long as the node.
        let _ = self.shared.looked.subscribe().wait_for(|looked| *looked).await;
    }

    /// The node in figures.
    pub fn status(&self) -> NodeSummary {
        let (working, queued) = self.shared.load();
        let now = self.shared.now();
        let state = self.shared.state();
        let first = |o: &crate::plan::Outlook| {
            o.notices.first().or_else(|| o.waiting.values().find(|n| !is_routine(n))).cloned()
        };
        let sandboxes =
            state.observed.as_ref().and_then(|o| o.sandboxes.known()).map_or(0, std::collections::BTreeMap::len);
        NodeSummary {
            ready: state.last_pass.is_some(),
            notices: state
                .host_notices
                .iter()
                .cloned()
                .chain(state.memory.pressure.notices().map(|(c, message)| Notice::new(c.name(), message)))
                .collect(),
            pods: state.desired.pods.len(),
            degraded: state.pods.iter().filter_map(|(key, p)| Some((key.clone(), first(&p.outlook)?))).collect(),
            sandboxes,
            working: working.into_iter().map(|(work, since)| (name_of(&work), now.since(since).as_secs())).collect(),
            queued,
            passes: state.passes,
        }
    }

    /// Nothing is due before `within` from now, nothing runs, nothing waits to be written.
    pub fn is_idle(&self, within: Duration) -> bool {
        self.shared.is_idle(self.shared.now().plus(within))
    }

    /// Waits until one of the node's tasks ends although nobody asked, and says how: a node is never half-alive.
    pub async fn failed(&self) -> String {
        let mut stop = self.shared.stop.subscribe();
        let mut tasks = self.tasks.lock().await;
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Err(error)) if error.is_panic() => {
                    return "one of its tasks panicked: this is a bug, please report it".into();
                }
                _ => return "one of its tasks ended by itself".into(),
            },
            () = stopped(&mut stop) => {}
        }
        // Asked to stop: the lock is let go for the one who waits for the tasks.
        drop(tasks);
        std::future::pending().await
    }

    /// Stops managing. Pods run on, unless `stop_pods`: then they are first stopped gracefully, which may take as long
    /// as the longest grace.
    pub async fn shutdown(&self, stop_pods: bool) {
        if stop_pods {
            self.stop_pods().await;
        }
        self.shared.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            // The writer of events ends with the last sender, which this handle holds: it is not waited for.
            while tasks.len() > 1 && tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("some of the node's tasks did not end in time");
        }
        tasks.abort_all();
    }

    /// Stops all pods gracefully and keeps them stopped until the next start of the daemon; may take as long as the
    /// longest grace.
    pub async fn stop_pods(&self) {
        let keys: Vec<PodKey> = {
            let mut state = self.shared.state();
            state.desired.halted = true;
            let grace = state.desired.pods.values().map(|p| p.grace()).max().unwrap_or_default();
            tracing::info!(seconds = grace.as_secs(), "stopping all pods");
            state.desired.pods.keys().cloned().collect()
        };
        for key in keys {
            self.shared.enqueue(Work::Pod(key), self.shared.now());
        }
        let deadline = self.shared.now().plus(Duration::from_secs(24 * 3600));
        while self.shared.now() < deadline {
            let observed = self.shared.observer.fresh().await;
            let up = observed.sandboxes.known().map(|all| {
                all.values()
                    .filter_map(|s| s.known())
                    .any(|s| matches!(s.state, SandboxState::Running | SandboxState::Stopping))
            });
            if up == Some(false) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Waits until the node was told to stop.
async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await.is_ok();
}

/// Waiting that needs nobody.
fn is_routine(notice: &Notice) -> bool {
    matches!(notice.reason.as_str(), "ContainerCreating" | "PodInitializing")
}

fn name_of(work: &Work) -> String {
    match work {
        Work::Host => "host".into(),
        Work::Pod(key) => format!("pod {key}"),
    }
}

fn is_running(shared: &Shared, pod: &PodKey, name: &ContainerName, attempt: u32) -> bool {
    let state = shared.state();
    let (Some(observed), Some(intent)) = (state.observed.as_ref(), state.desired.pods.get(pod)) else { return false };
    let sandbox = sandbox_of(observed, intent, &state.reservations);
    let instance =
        sandbox.and_then(|s| s.containers.get(name)).and_then(|c| c.iter().find(|i| i.spec.attempt == attempt));
    instance.is_some_and(|i| !matches!(i.state, ContainerState::Exited { .. }))
}

/// A waiting container's reason as the kubelet words it in an answer about its log.
fn waiting_words(reason: &str) -> &str {
    match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    }
}

/// The annotation's new value: all containers restart by a bare token, one by `name=token` beside what was there.
fn restart_value(previous: &str, container: Option<&str>, token: &str) -> String {
    let Some(container) = container else { return token.to_owned() };
    let prefix = format!("{container}=");
    let kept = previous.split(',').filter(|p| !p.is_empty() && !p.starts_with(&prefix));
    kept.map(str::to_owned).chain([format!("{prefix}{token}")]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_one_container_leaves_the_others_tokens_alone() {
        assert_eq!(restart_value("", Some("app"), "2"), "app=2");
        assert_eq!(restart_value("1,side=1,app=1", Some("app"), "2"), "1,side=1,app=2");
        assert_eq!(restart_value("1,app=1", None, "3"), "3");
    }
}
