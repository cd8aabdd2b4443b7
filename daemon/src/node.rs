//! The API's view of the node: `reddwarf-node` in the API's words. Without a node (`reddwarfd serve`) everything that
//! needs one says so.

use crate::build::{self, Builds};
use crate::dns::NameServer;
use crate::storage::Storage;
use crate::supervise::States;
use crate::tokens::AccountTokens;
use crate::why;
use async_trait::async_trait;
use bytes::Bytes;
use reddwarf_api::runtime::{
    AttachOptions, Connection, ExecExit, ExecOptions, LogOptions, LogOutput, LogStream, MetricsReport, PodName,
    Runtime, RuntimeError, Session, TerminalSize, Used,
};
use reddwarf_api::{Access, types};
use reddwarf_config::Settings;
use reddwarf_config::settings::{EvictionAmount, EvictionSignal};
use reddwarf_controllers::directory::DirectoryHandle;
use reddwarf_host::spec::{NetworkSpec, ResolvConf, Subnet};
use reddwarf_host::{AttachRequest, Change, Clock, ExecRequest, Family, Host, HostErrorKind, ImageInfo};
use reddwarf_node::plan::{Effect, Notice};
use reddwarf_node::pressure::{Amount, Thresholds};
use reddwarf_node::registry_plane::RegistryPlane;
use reddwarf_node::usage::Rate;
use reddwarf_node::{
    ImageCollection, Node, NodeDeps, NodeError, NodeHandle, NodeSettings, PlannedStep, PodKey, Proposal, PruneGuard,
    PullView, TokenSource, logs,
};
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_registry::Registry;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A status is answered without the first look at the host after this long.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What the node's answers need besides the node.
pub(crate) struct Wiring {
    /// Objects.
    pub registry: Registry,
    /// The manifest directories.
    pub directory: DirectoryHandle,
    /// Keys that tokens of pods' accounts are made with.
    pub access: Arc<Access>,
    /// Which components run.
    pub states: States,
    /// Tells the daemon to leave; whether all pods were stopped before.
    pub leave: mpsc::Sender<bool>,
    /// The name server, unless it is off.
    pub dns: Option<Arc<NameServer>>,
    /// Where volumes are kept, if there is a host.
    pub storage: Option<Arc<Storage>>,
}

/// Implements the API's [`Runtime`].
pub(crate) struct NodeRuntime {
    node: Option<NodeHandle>,
    wiring: Wiring,
    builds: Builds,
    clock: Arc<dyn Clock>,
}

/// Starts the node, if there is a host to drive.
pub(crate) async fn start(
    settings: &Settings,
    host: Option<Arc<dyn Host>>,
    control: Arc<RegistryPlane>,
    clock: Arc<dyn Clock>,
    wiring: Wiring,
) -> Arc<NodeRuntime> {
    let node = match host {
        None => None,
        Some(host) => {
            let storage = wiring.storage.as_ref().map(|s| s.for_node());
            let settings = NodeSettings { storage, ..node_settings(settings) };
            let tokens: Arc<dyn TokenSource> = Arc::new(AccountTokens(wiring.access.clone()));
            let clock = clock.clone();
            Some(Node::start(NodeDeps { control, host, clock, tokens: Some(tokens), settings }).await)
        }
    };
    if let (Some(node), Some(storage)) = (node.clone(), &wiring.storage) {
        let mut health = storage.health();
        tokio::spawn(async move {
            loop {
                let now = health.borrow_and_update().clone();
                if let Some(now) = now {
                    node.storage_is(now);
                }
                if health.changed().await.is_err() {
                    return;
                }
            }
        });
    }
    if let Some(node) = node.clone() {
        let registry = wiring.registry.clone();
        tokio::spawn(async move { build::clear(&node, &registry, None).await });
    }
    Arc::new(NodeRuntime { node, wiring, builds: Builds::default(), clock })
}

fn node_settings(settings: &Settings) -> NodeSettings {
    let main = settings.pod_cidr.first().copied().unwrap_or_default();
    let node = NodeSettings::new(&settings.node_name, &settings.bridge, main, &settings.log_dir);
    let mut gateways = settings.bridge_addresses().into_iter();
    let gateway = gateways.next().unwrap_or(node.network.gateway);
    let second = settings.pod_cidr.get(1).zip(gateways.next()).map(|(cidr, gateway)| Subnet { cidr: *cidr, gateway });
    NodeSettings {
        network: NetworkSpec { gateway, second, ..node.network.clone() },
        cluster_domain: settings.cluster_domain.clone(),
        cluster_dns: settings.pods_name_server(),
        host_dns: host_dns(&settings.resolv_conf),
        max_pods: settings.max_pods,
        system_reserved_cpu_millis: settings.system_reserved_cpu_millis,
        system_reserved_memory_bytes: settings.system_reserved_memory_bytes,
        host_path_allow: settings.host_path_allow.clone(),
        log_max_bytes: settings.log_max_bytes,
        log_max_files: settings.log_max_files,
        eviction: thresholds(settings),
        eviction_transition: Duration::from_secs(settings.eviction_transition_seconds),
        images: ImageCollection {
            high_percent: settings.image_gc_high_percent,
            low_percent: settings.image_gc_low_percent,
            min_age: Duration::from_secs(settings.image_gc_min_age_seconds),
            ..ImageCollection::default()
        },
        allowed_unsafe_sysctls: settings.allowed_unsafe_sysctls.clone(),
        resync: Duration::from_secs(settings.resync_seconds.max(1)),
        prune_guard: PruneGuard { percent: settings.prune_guard_percent, ..PruneGuard::default() },
        ..node
    }
}

fn thresholds(settings: &Settings) -> Thresholds {
    let of = |signal| match settings.eviction(signal) {
        EvictionAmount::Off => None,
        EvictionAmount::Absolute(amount) => Some(Amount::Absolute(amount)),
        EvictionAmount::Percent(percent, most) => Some(Amount::Percent(percent, most)),
    };
    Thresholds {
        memory_available: of(EvictionSignal::Memory),
        storage_available: of(EvictionSignal::Storage),
        inodes_free: of(EvictionSignal::Inodes),
        pids_available: of(EvictionSignal::Pids),
    }
}

/// The host's resolv.conf(5). Loopback name servers (a local stub) can't be reached from a pod and are left out.
fn host_dns(path: &Path) -> ResolvConf {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found
                .nameservers
                .extend(words.next().and_then(|a| a.parse::<std::net::IpAddr>().ok()).filter(|a| !a.is_loopback())),
            Some("search") => found.searches = words.map(str::to_owned).collect(),
            Some("options") => found.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    found
}

impl NodeRuntime {
    /// The component to supervise: ends when `stop` is cancelled, or before that when the node fails.
    pub(crate) fn task(
        &self,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = Result<(), String>> + Send + 'static> {
        let node = self.node.clone()?;
        Some(async move {
            tokio::select! {
                () = stop.cancelled() => {
                    node.shutdown(false).await;
                    Ok(())
                }
                why = node.failed() => Err(why),
            }
        })
    }

    /// Waits a moment for the first look at the host: who asks for the status right after the start wants to hear of pods.
    pub(crate) async fn first_look(&self) {
        if let Some(node) = &self.node {
            // Later is said to be so by the checks.
            let _ = tokio::time::timeout(FIRST_LOOK, node.looked()).await;
        }
    }

    /// What keeps the host from being as asked.
    pub(crate) async fn notices(&self) -> Vec<String> {
        self.node.iter().flat_map(|n| n.status().notices).map(|n| n.to_string()).collect()
    }

    /// The plan when the given objects were there too.
    ///
    /// # Errors
    /// `Unavailable` when the host can't be observed.
    pub(crate) async fn plan_with(&self, put: Vec<Object>) -> Result<types::PlanReport, RuntimeError> {
        let Some(node) = &self.node else { return Ok(types::PlanReport::default()) };
        let planned = node.plan(Proposal { put, delete: Vec::new() }).await.map_err(failed)?;
        let mut steps: Vec<types::PlanStep> = planned.steps.iter().map(|step| self.step(step)).collect();
        steps.extend(planned.blocked.iter().map(|(pod, notice)| self.blocked(pod.as_ref(), notice)));
        Ok(types::PlanReport { steps, diagnostics: Vec::new(), unknown: planned.unknown })
    }

    fn node(&self) -> Result<&NodeHandle, RuntimeError> {
        self.node.as_ref().ok_or_else(|| {
            RuntimeError::Unsupported("this reddwarfd was started as `serve`: it has an API and no host".into())
        })
    }

    fn storage(&self) -> Result<&Storage, RuntimeError> {
        self.wiring.storage.as_deref().ok_or_else(|| {
            RuntimeError::Unsupported("this reddwarfd was started as `serve`: it has an API and no host".into())
        })
    }

    fn source(&self, pod: Option<&PodKey>) -> String {
        let Some(pod) = pod else { return String::new() };
        let object = self.wiring.registry.find(&ObjectKey::pod(&pod.namespace, &pod.name)).ok().flatten();
        object.as_ref().and_then(|o| o.annotation(reddwarf_objects::SOURCE_ANNOTATION)).unwrap_or_default().to_owned()
    }

    fn step(&self, step: &PlannedStep) -> types::PlanStep {
        let action = match step.effect {
            Effect::Remove => types::PlanAction::Remove,
            Effect::Replace => types::PlanAction::Recreate,
            Effect::Restart => types::PlanAction::Restart,
            Effect::Change => types::PlanAction::Update,
            Effect::Create => types::PlanAction::Create,
        };
        let field = |path: &String| types::FieldChange { path: path.clone(), old: None, new: None };
        types::PlanStep {
            action,
            object: object_name(step.pod.as_ref()),
            what: step.what.clone(),
            reason: step.reason.clone(),
            source: self.source(step.pod.as_ref()),
            changes: step.field.iter().map(field).collect(),
            interruption_ms: 0,
        }
    }

    fn blocked(&self, pod: Option<&PodKey>, notice: &Notice) -> types::PlanStep {
        types::PlanStep {
            action: types::PlanAction::Blocked,
            object: object_name(pod),
            what: notice.reason.clone(),
            reason: notice.message.clone(),
            source: self.source(pod),
            changes: Vec::new(),
            interruption_ms: 0,
        }
    }
}

pub(crate) fn object_name(pod: Option<&PodKey>) -> String {
    pod.map_or_else(|| "host".to_owned(), |p| format!("pods/{}/{}", p.namespace, p.name))
}

fn pod_key(pod: &PodName) -> PodKey {
    PodKey::new(&pod.namespace, &pod.name)
}

pub(crate) fn failed(error: NodeError) -> RuntimeError {
    match &error {
        NodeError::NotFound(_) => RuntimeError::NotFound(error.to_string()),
        NodeError::BadRequest(_) => RuntimeError::BadRequest(error.to_string()),
        NodeError::Conflict(_) => RuntimeError::Conflict(error.to_string()),
        NodeError::Unavailable(_) => RuntimeError::Unavailable(error.to_string()),
        NodeError::Host(host) => {
            let text = host.chain();
            match (host.kind, host.family()) {
                (HostErrorKind::NotFound, _) => RuntimeError::NotFound(text),
                (HostErrorKind::Busy | HostErrorKind::InvalidState, _) => RuntimeError::Conflict(text),
                (HostErrorKind::Unsupported, _) => RuntimeError::Unsupported(text),
                (_, Family::User) => RuntimeError::BadRequest(text),
                _ => RuntimeError::Internal(text),
            }
        }
        NodeError::ControlPlane(_) => RuntimeError::Internal(error.to_string()),
    }
}

pub(crate) fn image(info: &ImageInfo) -> types::Image {
    types::Image {
        id: info.id.to_string(),
        names: info.names.clone(),
        size_bytes: info.size_bytes,
        command: info.config.entrypoint.iter().chain(&info.config.cmd).cloned().collect(),
        pulled: info.pulled.clone(),
        last_used: info.last_used.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
    }
}

fn pull_status(view: PullView) -> types::ImagePullStatus {
    let PullView {
        image,
        state,
        bytes_done,
        bytes_total,
        layers_done,
        layers_total,
        repo_digest,
        size_bytes,
        fetched,
        took_milliseconds,
        error,
    } = view;
    types::ImagePullStatus {
        image,
        state,
        bytes_done,
        bytes_total,
        layers_done,
        layers_total,
        repo_digest,
        size_bytes,
        fetched,
        took_milliseconds,
        error,
    }
}

/// A connection's failure, without the words of the node around it: clients show it in a sentence of their own.
fn refused(error: NodeError) -> RuntimeError {
    match error {
        NodeError::Host(host) => {
            let text = host.message.clone();
            match host.kind {
                HostErrorKind::NotFound => RuntimeError::NotFound(text),
                HostErrorKind::InvalidState => RuntimeError::Conflict(text),
                HostErrorKind::Exhausted | HostErrorKind::Timeout => RuntimeError::Unavailable(text),
                _ => RuntimeError::Internal(host.chain()),
            }
        }
        other => failed(other),
    }
}

/// The host's session as the API knows it.
fn in_the_apis_words(session: reddwarf_host::Session) -> Session {
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
    let host_sizes = session.resize;
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            let size = reddwarf_host::TerminalSize { width: size.width, height: size.height };
            if host_sizes.send(size).await.is_err() {
                return;
            }
        }
    });
    let (send, exit) = tokio::sync::oneshot::channel();
    let ended = session.exit;
    tokio::spawn(async move {
        // A lost supervisor shows as a dropped sender on our side too.
        if let Ok(end) = ended.await {
            let _ = send.send(ExecExit { code: end.code, message: end.message });
        }
    });
    Session { stdin: session.stdin, stdout: session.stdout, stderr: session.stderr, resize, exit, guard: session.guard }
}

#[async_trait]
impl Runtime for NodeRuntime {
    async fn logs(&self, pod: &PodName, options: LogOptions) -> Result<LogStream, RuntimeError> {
        let wanted = logs::LogOptions {
            follow: options.follow,
            previous: options.previous,
            since: options.since,
            timestamps: options.timestamps,
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
            output: match options.stream {
                LogOutput::All => logs::Output::All,
                LogOutput::Stdout => logs::Output::Stdout,
                LogOutput::Stderr => logs::Output::Stderr,
            },
        };
        let mut lines = self.node()?.logs(&pod_key(pod), &options.container, wanted).await.map_err(failed)?;
        let (send, receive) = mpsc::channel::<Result<Bytes, RuntimeError>>(4);
        tokio::spawn(async move {
            loop {
                // A client that went away ends the reading.
                let next = tokio::select! {
                    next = lines.recv() => next,
                    () = send.closed() => return,
                };
                let Some(next) = next else { return };
                let next = next.map_err(|e| RuntimeError::Internal(format!("the log can't be read: {e}")));
                if send.send(next).await.is_err() {
                    return;
                }
            }
        });
        Ok(receive)
    }

    async fn exec(&self, pod: &PodName, options: ExecOptions) -> Result<Session, RuntimeError> {
        let request = ExecRequest { argv: options.command, tty: options.tty, stdin: options.stdin, contained: false };
        let session = self.node()?.exec(&pod_key(pod), &options.container, request).await.map_err(failed)?;
        Ok(in_the_apis_words(session))
    }

    async fn attach(&self, pod: &PodName, options: AttachOptions) -> Result<Session, RuntimeError> {
        let AttachOptions { container, stdin, stdout, stderr } = options;
        let request = AttachRequest { stdin, stdout, stderr };
        let session = self.node()?.attach(&pod_key(pod), &container, request).await.map_err(failed)?;
        Ok(in_the_apis_words(session))
    }

    async fn connect(&self, pod: &PodName, port: u16) -> Result<Connection, RuntimeError> {
        let connection = self.node()?.connect(&pod_key(pod), port).await.map_err(refused)?;
        Ok(Box::new(connection))
    }

    async fn plan(&self) -> Result<types::PlanReport, RuntimeError> {
        self.plan_with(Vec::new()).await
    }

    async fn why(&self, plural: &str, namespace: Option<&str>, name: &str) -> Result<types::WhyReport, RuntimeError> {
        if plural == "pods"
            && let Some(node) = &self.node
        {
            return why::pod(node, &self.wiring, &PodKey::new(namespace.unwrap_or("default"), name)).await;
        }
        let kind = kinds().by_alias(plural).ok_or_else(|| RuntimeError::NotFound(format!("no kind {plural:?}")))?;
        let key = ObjectKey {
            group: kind.group.into(),
            resource: kind.plural.into(),
            namespace: kind.namespaced.then(|| namespace.unwrap_or("default").to_owned()),
            name: name.into(),
        };
        let object = self.wiring.registry.get(&key).map_err(|e| RuntimeError::NotFound(e.to_string()))?;
        Ok(why::stored(&self.wiring, &object))
    }

    async fn restart(&self, pod: &PodName, container: Option<&str>) -> Result<types::Done, RuntimeError> {
        self.node()?.restart(&pod_key(pod), container).await.map_err(failed)?;
        let what = container.map_or_else(|| "all containers".to_owned(), |c| format!("container {c}"));
        Ok(types::Done { message: format!("{what} of pod {}/{} will restart", pod.namespace, pod.name) })
    }

    async fn images(&self) -> Result<types::ImageList, RuntimeError> {
        let images = self.node()?.images().await.map_err(failed)?;
        Ok(types::ImageList { items: images.iter().map(image).collect() })
    }

    async fn image_import(&self, request: &types::ImageImport) -> Result<types::Image, RuntimeError> {
        let path = PathBuf::from(&request.source);
        if !path.is_absolute() {
            return Err(RuntimeError::BadRequest(format!("{}: give an absolute path", request.source)));
        }
        let info = self.node()?.image_import(&path, &request.name).await.map_err(failed)?;
        Ok(image(&info))
    }

    async fn image_pull(&self, request: &types::ImagePull) -> Result<types::ImagePullStatus, RuntimeError> {
        self.node()?.image_pull(&request.image).map(pull_status).map_err(failed)
    }

    async fn image_pulls(&self) -> Result<types::ImagePullList, RuntimeError> {
        Ok(types::ImagePullList { items: self.node()?.image_pulls().into_iter().map(pull_status).collect() })
    }

    async fn image_build(&self, request: &types::ImageBuild) -> Result<types::ImageBuildStatus, RuntimeError> {
        self.builds.begin(request, self.node()?, &self.wiring.registry, &self.clock)
    }

    async fn image_build_status(&self, id: &str) -> Result<types::ImageBuildStatus, RuntimeError> {
        self.builds.status(id)
    }

    async fn image_prune(&self, all: bool) -> Result<types::ImagesPruned, RuntimeError> {
        let pruned = self.node()?.image_prune(all).await.map_err(failed)?;
        Ok(types::ImagesPruned { removed: pruned.removed, bytes: pruned.bytes })
    }

    async fn image_remove(&self, name: &str) -> Result<types::Done, RuntimeError> {
        match self.node()?.image_remove(name).await.map_err(failed)? {
            Change::Changed(what) => Ok(types::Done { message: what }),
            Change::Unchanged => Err(RuntimeError::NotFound(format!("there is no image {name:?}"))),
        }
    }

    async fn volumes(&self) -> Result<types::VolumeList, RuntimeError> {
        crate::volumes::list(self.storage()?, &self.wiring.registry).await
    }

    async fn volume_action(
        &self,
        action: types::VolumeAction,
        request: &types::VolumeRequest,
    ) -> Result<types::Done, RuntimeError> {
        crate::volumes::act(self.storage()?, &self.wiring.registry, action, request).await
    }

    async fn reconcile(&self, allow_prune: bool) -> Result<types::Done, RuntimeError> {
        let report = self.wiring.directory.reload(allow_prune).await;
        let report = report.map_err(|e| RuntimeError::Internal(e.to_string()))?;
        if let Some(node) = &self.node {
            node.reconcile(allow_prune);
        }
        let status = self.wiring.directory.status();
        match status.notices.first() {
            // What is allowed and was not done all the same: a directory that can't be read.
            Some(notice) if !allow_prune || !status.is_complete() => Err(RuntimeError::Conflict(notice.clone())),
            _ => Ok(types::Done { message: format!("generation {} is in force", report.generation) }),
        }
    }

    async fn shutdown(&self, stop_pods: bool) -> Result<types::Done, RuntimeError> {
        if stop_pods && let Some(node) = &self.node {
            node.stop_pods().await;
        }
        self.wiring
            .leave
            .try_send(stop_pods && self.node.is_some())
            .map_err(|_| RuntimeError::Unavailable("reddwarfd is shutting down already".into()))?;
        let message =
            if stop_pods { "all pods are stopped; reddwarfd leaves" } else { "reddwarfd leaves; pods run on" };
        Ok(types::Done { message: message.into() })
    }

    async fn backup(&self, path: &str) -> Result<types::BackupReport, RuntimeError> {
        if !Path::new(path).is_absolute() {
            return Err(RuntimeError::BadRequest(format!("{path}: give an absolute path")));
        }
        let store = self.wiring.registry.store();
        let revision = store.backup(path).await.map_err(|e| RuntimeError::BadRequest(e.to_string()))?;
        let size_bytes = std::fs::metadata(path).map(|m| m.len()).unwrap_or_default();
        Ok(types::BackupReport { path: path.into(), revision: revision.get(), size_bytes })
    }

    async fn restore(&self, path: &str) -> Result<types::Done, RuntimeError> {
        if !Path::new(path).is_absolute() {
            return Err(RuntimeError::BadRequest(format!("{path}: give an absolute path")));
        }
        let store = self.wiring.registry.store();
        let kept = store.restore_from(path).await.map_err(|e| RuntimeError::BadRequest(e.to_string()))?;
        let reread = self.wiring.directory.reread().await;
        reread.map_err(|e| RuntimeError::Internal(format!("restored, but the files were not applied: {e}")))?;
        if let Some(node) = &self.node {
            node.reconcile(false);
        }
        Ok(types::Done { message: format!("restored; the database before is kept as {}", kept.display()) })
    }

    async fn metrics_report(&self) -> Result<MetricsReport, RuntimeError> {
        let node = self.node()?;
        let rates = node.usage().await.map_err(failed)?;
        let used = |r: Rate| Used { cpu_nanocores: r.cpu_nanocores, memory_bytes: r.working_set_bytes };
        let pod = |(key, containers): (PodKey, BTreeMap<String, Rate>)| {
            let name = PodName { namespace: key.namespace, name: key.name };
            (name, containers.into_iter().map(|(name, rate)| (name, used(rate))).collect())
        };
        Ok(MetricsReport {
            time: rates.time,
            window: rates.window,
            node: node.name().to_owned(),
            used: used(rates.node),
            pods: rates.pods.into_iter().map(pod).collect(),
        })
    }

    async fn stats_summary(&self) -> Result<serde_json::Value, RuntimeError> {
        self.node()?.stats_summary().await.map_err(failed)
    }

    fn checks(&self) -> Vec<types::Check> {
        let mut checks: Vec<types::Check> = self
            .wiring
            .states
            .all()
            .into_iter()
            .map(|(name, state)| types::Check {
                name: name.to_owned(),
                ok: state.is_ok(),
                message: state.err().unwrap_or_default(),
            })
            .collect();
        let applied = self.wiring.directory.status().passes > 0;
        let check = |name: &str, ok: bool, why: &str| types::Check {
            name: name.to_owned(),
            ok,
            message: if ok { String::new() } else { why.to_owned() },
        };
        checks.push(check("manifests", applied, "the manifest directories were not applied yet"));
        if let Some(node) = &self.node {
            checks.push(check("host", node.status().ready, "the host was not observed yet"));
        }
        checks
    }

    fn metrics(&self) -> String {
        let mut text = self.wiring.dns.as_ref().map(|dns| dns.metrics()).unwrap_or_default();
        text.push_str(&reddwarf_command::counts::exposition());
        let Some(node) = &self.node else { return text };
        let status = node.status();
        for (name, help, value) in [
            ("reddwarf_node_pods", "Pods that are wanted on this host.", status.pods as u64),
            ("reddwarf_node_sandboxes", "Sandboxes on this host.", status.sandboxes as u64),
            ("reddwarf_node_pods_degraded", "Pods that are not as asked.", status.degraded.len() as u64),
            ("reddwarf_node_queue", "Pods that wait for work.", status.queued as u64),
        ] {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        let name = "reddwarf_node_passes_total";
        let _ = writeln!(
            text,
            "# HELP {name} Full passes since the start.\n# TYPE {name} counter\n{name} {}",
            status.passes
        );
        text
    }
}
