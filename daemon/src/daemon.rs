//! The wiring: what is made of what, in which order, and how it ends.

use crate::chain::chain;
use crate::cli::{LONG_VERSION, Mode};
use crate::directory::{About, Directories, Refused};
use crate::dns::{Kept, NameServer};
use crate::node::{self, NodeRuntime};
use crate::signals::Asked;
use crate::storage::Storage;
use crate::supervise::Components;
use crate::tokens::AccountTokens;
use crate::{host, logging, oversize, service, services, signals, workers};
use reddwarf_api::{
    Access, AccessSettings, Api, ApiDeps, ApiHandle, ApiSettings, AuditSettings, Listeners, TlsSettings,
};
use reddwarf_config::directory::Trust;
use reddwarf_config::{Cli, Settings};
use reddwarf_controllers::directory::{DirectoryHandle, DirectoryLoop, DirectoryOptions, directory};
use reddwarf_controllers::guard::PruneGuard;
use reddwarf_host::time::{self, in_step, leisurely};
use reddwarf_host::{Clock, Host, StorageEngine};
use reddwarf_node::registry_plane::RegistryPlane;
use reddwarf_registry::{EventTarget, EventType, Registry};
use reddwarf_store::{Store, StoreOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

/// Time for everything to end after a stop was asked for.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Why the daemon did not start or did not go on. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

fn failed(what: &str, error: impl std::error::Error) -> Failed {
    Failed(format!("{what}: {}", chain(&error)))
}

/// What follows when a round of the daemon ends.
enum Next {
    /// Leave.
    Stop,
    /// Leave nothing running: all pods were stopped.
    Withdraw,
    /// Go on with these settings: the components are made anew, pods and database stay.
    Again(Box<Settings>),
}

/// Runs until a signal or `reddwarfctl shutdown`.
///
/// # Errors
/// [`Failed`] when it can't start, or when a component failed.
pub(crate) fn run(
    cli: Cli,
    mode: Mode,
    settings: Settings,
    mut handed_over: Vec<(String, OwnedFd)>,
) -> Result<(), Failed> {
    host::allow_many_files();
    let signals = signals::catch().map_err(|e| failed("signal handlers can't be installed", e))?;
    time::begin_steps();
    let runtime = workers::runtime().map_err(|e| failed("the async runtime can't be started", e))?;
    let guard = host::guard_socket(&settings, &mut handed_over);
    let result = runtime.block_on(rounds(cli, mode, settings, signals, (Kept::from(handed_over), guard)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn rounds(
    cli: Cli,
    mode: Mode,
    mut settings: Settings,
    mut signals: mpsc::Receiver<Asked>,
    (kept, guard): (Vec<Kept>, Option<OwnedFd>),
) -> Result<(), Failed> {
    settings.keep_gateways(host::gateways(&settings));
    let daemon = Daemon::open(cli, mode, &settings, kept, guard).await?;
    let result = loop {
        match daemon.round(&settings, &mut signals).await {
            Ok(Next::Stop | Next::Withdraw) => break Ok(()),
            Ok(Next::Again(new)) => settings = *new,
            Err(error) => break Err(error),
        }
    };
    if let Some(dns) = &daemon.dns {
        dns.shutdown().await;
    }
    daemon.store.close().await;
    result
}

/// What outlives a change of settings.
struct Daemon {
    cli: Cli,
    mode: Mode,
    store: Store,
    registry: Registry,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    notices: Vec<String>,
    /// What the last reload refused; `None` once one has succeeded.
    refused: Refused,
    started: chrono::DateTime<chrono::Utc>,
    dns: Option<Arc<NameServer>>,
    /// [`host::guard_socket`].
    guard: Option<OwnedFd>,
    /// Bound in the first round; none of them changes at a reload.
    listeners: OnceCell<Arc<Listeners>>,
    /// [`host::claim`].
    _claim: Option<std::fs::File>,
}

impl Daemon {
    async fn open(
        cli: Cli,
        mode: Mode,
        settings: &Settings,
        kept: Vec<Kept>,
        guard: Option<OwnedFd>,
    ) -> Result<Self, Failed> {
        directory_for_us(&settings.state_dir, 0o700)?;
        directory_for_us(&settings.run_dir, 0o750)?;
        let claim = match mode {
            Mode::Agent => host::claim(settings).map_err(|e| failed("the host can't be driven", e))?,
            Mode::Serve => None,
        };
        let clock: Arc<dyn Clock> = Arc::new(time::SystemClock);
        let wall = Arc::clone(&clock);
        let mut options = StoreOptions::new(Arc::new(move || wall.wall()));
        // One host has few objects: a larger cache would only be resident.
        options.cache_bytes = 1 << 20;
        let path = settings.state_dir.join("store.redb");
        let opened = Store::open(&path, options).map_err(|e| failed("the store can't be opened", e))?;
        let mut notices = Vec::new();
        if let Some(recovery) = opened.recovery {
            let notice = format!(
                "the database was corrupt ({}) and was moved to {}; objects made through the API are lost, files are \
                 applied again and what runs is adopted",
                recovery.why,
                recovery.moved_to.display()
            );
            tracing::error!("{notice}");
            notices.push(notice);
        }
        let wall = Arc::clone(&clock);
        let registry = Registry::open(opened.store.clone(), Arc::new(move || wall.wall()))
            .await
            .map_err(|e| failed("the registry can't be opened", e))?;
        registry.make_system_classes().await.map_err(|e| failed("the system's PriorityClasses can't be made", e))?;
        registry.give_addresses(services::ranges(settings));
        registry.settle_services().await.map_err(|e| failed("services' addresses can't be settled", e))?;
        let access = Access::open(access_settings(settings), &settings.state_dir, registry.clone())
            .map_err(|e| failed("keys and tokens can't be used", e))?;
        access.bootstrap().await.map_err(|e| failed("the roles that are there from the start can't be made", e))?;
        let (access, started) = (Arc::new(access), clock.wall());
        let dns = NameServer::start(settings, mode, &registry, kept)
            .map_err(|why| Failed(format!("the name server can't be started: {why}")))?;
        Ok(Self {
            cli,
            mode,
            store: opened.store,
            registry,
            access,
            clock,
            notices,
            refused: Refused::default(),
            started,
            dns,
            guard,
            listeners: OnceCell::new(),
            _claim: claim,
        })
    }

    /// Starts all components, waits for a reason to end, and ends them.
    async fn round(&self, settings: &Settings, signals: &mut mpsc::Receiver<Asked>) -> Result<Next, Failed> {
        let stop = CancellationToken::new();
        let mut components = Components::new(stop.clone());
        let (manifests, directory) = self.directory(settings)?;
        let (leave, mut leaving) = mpsc::channel(1);
        let storage = match self.mode {
            Mode::Serve => None,
            Mode::Agent => {
                Some(Storage::open(settings, Arc::clone(&self.clock)).await.map_err(|e| failed("storage", e))?)
            }
        };
        let host = match &storage {
            Some(storage) => Some(self.host(settings, storage.for_roots().await).await?),
            None => None,
        };
        let wiring = node::Wiring {
            registry: self.registry.clone(),
            directory: directory.clone(),
            access: Arc::clone(&self.access),
            states: components.states(),
            leave,
            dns: self.dns.clone(),
            storage: storage.clone(),
        };
        let (node, plane) = self.node(settings, host.clone(), wiring).await;
        let directories = Arc::new(Directories {
            handle: directory.clone(),
            registry: self.registry.clone(),
            node: Arc::clone(&node),
            layers: settings.manifests.clone(),
            limits: settings.limits,
            scratch: settings.state_dir.join("scratch"),
            about: self.about(settings),
            dns: self.dns.clone(),
            storage: storage.clone(),
        });
        let deps = ApiDeps {
            registry: self.registry.clone(),
            runtime: node.clone(),
            directory: directories,
            access: Arc::clone(&self.access),
        };
        let api = api_settings(settings);
        let bind = || async { Listeners::bind(&api, &self.access).await.map(Arc::new) };
        let listeners = self.listeners.get_or_try_init(bind).await;
        let listeners = Arc::clone(listeners.map_err(|e| failed("the API can't be served", e))?);
        let api = Api::new(api, deps, Arc::clone(&listeners));
        let api_handle = api.handle();

        let token = stop.clone();
        components.spawn("api", async move {
            api.serve(token).await;
            Ok(())
        });
        let token = stop.clone();
        components.spawn("directory", async move {
            manifests.run(token.cancelled_owned()).await;
            Ok(())
        });
        if let Some(task) = node.task(stop.clone()) {
            components.spawn("node", task);
            if let Some(host) = host.clone() {
                components.spawn("services", services::task(settings, self.registry.clone(), host, stop.clone()));
            }
            components.spawn("health", health(plane, settings.node_name.clone(), stop.clone()));
        }
        if let Some(dns) = self.dns.clone() {
            let token = stop.clone();
            components.spawn("dns", async move {
                tokio::select! {
                    () = token.cancelled() => Ok(()),
                    why = dns.failed() => Err(why),
                }
            });
        }
        let root_ca = self.access.root_ca().inspect_err(|error| {
            tracing::error!(%error, "pods that are to get a token wait: there is no certificate to give them");
        });
        let (kubernetes, load_balancer) = (services::kubernetes(settings), settings.load_balancer_cidr.clone());
        if let Some(storage) = storage.clone() {
            components.spawn("oversize", oversize::watch(storage.clone(), self.registry.clone(), stop.clone()));
            components.spawn("storage", storage.watch(self.registry.clone(), stop.clone()));
        }
        let provisioner = storage.map(|storage| storage as Arc<dyn reddwarf_controllers::volume::Provisioner>);
        let options = reddwarf_controllers::Options {
            root_ca: root_ca.ok(),
            tokens: Some(Arc::new(AccountTokens(Arc::clone(&self.access)))),
            kubernetes: Some(kubernetes),
            load_balancer,
            provisioner,
            node: Some(settings.node_name.clone()),
        };
        components.spawn("controllers", controllers(self.registry.clone(), options, stop.clone()));
        components.spawn("memory", memory(stop.clone()));
        components.spawn("housekeeping", housekeeping(self.registry.clone(), stop.clone()));
        if let Some(interval) = service::watchdog_interval() {
            components.spawn("watchdog", watchdog(interval, stop.clone()));
        }
        directory.wait_for(|status| status.passes > 0).await;
        service::ready(&format!("generation {}", directory.status().generation));
        tracing::info!(
            socket = %settings.socket.display(),
            node = %settings.node_name,
            host = settings.host.as_str(),
            "reddwarfd is ready"
        );
        let next = self.wait(settings, signals, &mut leaving, (&directory, &api_handle), &mut components).await;
        if !matches!(next, Ok(Next::Again(_))) {
            service::stopping();
        }
        stop.cancel();
        if !matches!(next, Ok(Next::Again(_))) {
            listeners.close().await;
        }
        if tokio::time::timeout(SHUTDOWN, components.finish()).await.is_err() {
            tracing::warn!("some components did not end in time; leaving without them");
        }
        // Only now nobody makes any of it again.
        if let (Ok(Next::Withdraw), Some(host)) = (&next, host)
            && let Err(error) = host.withdraw().await
        {
            tracing::warn!(error = error.chain(), "some of what pods shared stays");
        }
        next
    }

    async fn wait(
        &self,
        settings: &Settings,
        signals: &mut mpsc::Receiver<Asked>,
        leaving: &mut mpsc::Receiver<bool>,
        (directory, api): (&DirectoryHandle, &ApiHandle),
        components: &mut Components,
    ) -> Result<Next, Failed> {
        loop {
            // Each branch only receives; a message not taken stays in its channel.
            tokio::select! {
                why = components.failed() => return Err(Failed(why)),
                stopped = leaving.recv() => {
                    return Ok(if stopped == Some(true) { Next::Withdraw } else { Next::Stop });
                }
                asked = signals.recv() => match asked {
                    Some(Asked::Stop) | None => return Ok(Next::Stop),
                    Some(Asked::Reload) => {
                        service::reloading();
                        // What is wrong with them was said.
                        drop(api.reload_certificates().await);
                        let new = self.reload(settings).await;
                        if let Some(new) = new {
                            return Ok(Next::Again(Box::new(new)));
                        }
                        if let Err(error) = directory.reload(false).await {
                            tracing::warn!(%error, "the manifests could not be read again");
                        }
                        service::ready(&format!("generation {}", directory.status().generation));
                    }
                },
            }
        }
    }

    /// Reads the settings again; gives new ones when something that can change now did.
    async fn reload(&self, old: &Settings) -> Option<Settings> {
        let new = match Settings::load(&self.cli) {
            Ok((new, _)) => new,
            Err(error) => {
                let text = format!("the settings were not taken over: {error}");
                tracing::warn!("{text}");
                self.event(old, "InvalidSettings", &text).await;
                self.refused.set(Some(format!("{text}; the daemon would not start with them")));
                return None;
            }
        };
        self.refused.set(None);
        let later: Vec<&str> = old
            .changes(&new)
            .iter()
            .filter(|c| c.reload == reddwarf_config::settings::Reload::Restart)
            .map(|c| c.key)
            .collect();
        if !later.is_empty() {
            let text = format!("{} will be taken over at the next start of reddwarfd", later.join(", "));
            tracing::warn!("{text}");
            self.event(old, "SettingsNeedRestart", &text).await;
        }
        let live = old.with_live_of(&new);
        (live != *old).then(|| {
            tracing::info!("settings changed");
            logging::adjust(&live);
            live
        })
    }

    async fn event(&self, settings: &Settings, reason: &str, text: &str) {
        let target = EventTarget::node(&settings.node_name);
        if let Err(error) = self.registry.record_event(&target, EventType::Warning, reason, text, "reddwarfd").await {
            tracing::debug!(%error, "an event could not be recorded");
        }
    }

    fn directory(&self, settings: &Settings) -> Result<(DirectoryLoop, DirectoryHandle), Failed> {
        let options = DirectoryOptions {
            layers: settings.manifests.clone(),
            limits: settings.limits,
            trust: Trust { any_owner_and_mode: settings.allow_untrusted_manifests },
            debounce: Duration::from_millis(settings.debounce_milliseconds),
            resync: Duration::from_secs(settings.resync_seconds.max(1)),
            guard: PruneGuard { percent: settings.prune_guard_percent, ..PruneGuard::default() },
            node_name: settings.node_name.clone(),
            scratch: settings.state_dir.join("scratch/rollback"),
        };
        directory(options, self.registry.clone(), host::file_events())
            .map_err(|e| failed("the last generation can't be read", e))
    }

    async fn node(
        &self,
        settings: &Settings,
        host: Option<Arc<dyn Host>>,
        wiring: node::Wiring,
    ) -> (Arc<NodeRuntime>, Arc<RegistryPlane>) {
        let plane = Arc::new(RegistryPlane::new(self.registry.clone(), Arc::clone(&self.clock)).with_scheduler());
        let (control, sources) = (Arc::clone(&plane), wiring.directory.clone());
        tokio::spawn(async move {
            // Until the files were applied once, a sandbox without a pod may only be waiting for its file.
            sources.wait_for(|status| status.passes > 0 && status.failure.is_none()).await;
            control.sources_read();
        });
        let node = node::start(settings, host, Arc::clone(&plane), Arc::clone(&self.clock), wiring).await;
        (node, plane)
    }

    /// The host to drive, if there is one; services' addresses may not be networks that it uses itself.
    async fn host(&self, settings: &Settings, roots: Option<Arc<dyn StorageEngine>>) -> Result<Arc<dyn Host>, Failed> {
        let host = host::open(settings, Arc::clone(&self.clock), roots, self.guard.as_ref());
        let host = host.map_err(|e| failed("the host can't be driven", e))?;
        services::check_routes(settings, host.as_ref()).await.map_err(Failed)?;
        Ok(host)
    }

    fn about(&self, settings: &Settings) -> About {
        let host = match self.mode {
            Mode::Agent => settings.host.as_str().to_owned(),
            Mode::Serve => "none".to_owned(),
        };
        About {
            version: LONG_VERSION.lines().next().unwrap_or_default().to_owned(),
            node: settings.node_name.clone(),
            host,
            started: self.started,
            notices: self.notices.clone(),
            refused: self.refused.clone(),
            kubernetes: settings.listen.map(|listen| reddwarf_api::types::KubernetesAccess {
                listen: listen.to_string(),
                kubeconfig: settings.kubeconfig.display().to_string(),
            }),
        }
    }
}

fn access_settings(settings: &Settings) -> AccessSettings {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let tls = TlsSettings {
        certificate: settings.tls_cert.clone(),
        key: settings.tls_key.clone(),
        client_ca: settings.client_ca.clone(),
        names: [host, settings.node_name.clone()].into_iter().filter(|name| !name.is_empty()).collect(),
        addresses: services::api_addresses(settings),
        cluster_domain: settings.cluster_domain.clone(),
    };
    let audit = settings.audit_log.clone().map(|path| AuditSettings {
        path,
        bytes: settings.audit_log_bytes,
        files: settings.audit_log_files,
    });
    AccessSettings { tls, kubeconfig: Some(settings.kubeconfig.clone()), audit }
}

fn api_settings(settings: &Settings) -> ApiSettings {
    ApiSettings {
        socket: settings.socket.clone(),
        socket_group: Some(settings.socket_group.clone()).filter(|g| !g.is_empty()),
        listen: settings.listen,
        listen_for_pods: services::pods_api(settings)
            .filter(|a| settings.listen.is_some_and(|l| l.ip().is_loopback()) && a.port() != 0),
        node_name: settings.node_name.clone(),
        limits: reddwarf_api::Limits::default(),
        manifest_limits: settings.limits,
    }
}

/// Deployments, garbage collection and the other loops from objects to objects.
async fn controllers(
    registry: Registry,
    options: reddwarf_controllers::Options,
    stop: CancellationToken,
) -> Result<(), String> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = reddwarf_controllers::run(registry, options) => Err("it ended by itself".into()),
    }
}

/// Old events go; settled history is compacted by the store itself.
async fn housekeeping(registry: Registry, stop: CancellationToken) -> Result<(), String> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(leisurely(Duration::from_secs(600))) => {}
        }
        if let Err(error) = registry.purge_events().await {
            tracing::warn!(%error, "old events could not be removed; trying again later");
        }
    }
}

/// What the start and then each burst of work needed goes back to the system soon after.
async fn memory(stop: CancellationToken) -> Result<(), String> {
    const ROUND: Duration = Duration::from_secs(10);
    let mut thrift = host::Thrift::default();
    let mut rounds = in_step(ROUND);
    let mut settled = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = &mut settled, if !settled.is_elapsed() => {}
            _ = rounds.tick() => {}
        }
        thrift.give_back();
    }
}

/// Says on the Node object when the node no longer says that it is alive.
async fn health(plane: Arc<RegistryPlane>, node: String, stop: CancellationToken) -> Result<(), String> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = plane.as_ref().clone().check_health(node) => Err("it ended by itself".into()),
    }
}

async fn watchdog(interval: Duration, stop: CancellationToken) -> Result<(), String> {
    loop {
        service::alive();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(leisurely(interval)) => {}
        }
    }
}

/// Makes a directory of ours with exactly this mode from the start; one that exists is left as it is.
fn directory_for_us(path: &Path, mode: u32) -> Result<(), Failed> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| failed(&format!("{} can't be made", path.display()), e))
}
