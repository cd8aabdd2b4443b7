//! The name server in the daemon: which sockets it has, which records it answers from, what is said of it.
//!
//! It outlives a change of settings: its sockets stay, and with a service manager that keeps them they stay over a
//! restart too.
//!
//! | to know | look in |
//! |---|---|
//! | how objects become records while they change | `follow.rs` |
//! | binding, ports that are taken, sockets from the service manager | `sockets.rs` |

mod follow;
mod sockets;

use crate::chain::chain;
use crate::cli::Mode;
use crate::host::{self, Told};
use reddwarf_api::types;
use reddwarf_config::Settings;
use reddwarf_config::settings::HostKind;
use reddwarf_network::dns::forward::servers::HostServers;
use reddwarf_network::dns::forward::{Forwarder, Patience};
use reddwarf_network::dns::serve::{Listener, Server};
use reddwarf_network::dns::{Records, Zones};
use reddwarf_registry::{EventTarget, EventType, Registry};
pub(crate) use sockets::Kept;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// For questions that were passed on to be answered when the daemon ends.
const DRAIN: Duration = Duration::from_secs(1);
/// The servers that systemd-resolved asks itself.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// Between attempts to bind: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The running name server.
pub(crate) struct NameServer {
    server: Arc<Server>,
    domain: String,
    state: Mutex<State>,
    failure: tokio::sync::watch::Sender<Option<String>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<SocketAddr, Result<Listener, String>>,
    host: String,
}

impl NameServer {
    /// Starts it where the settings say; `None`: they say nowhere, and nothing was handed over.
    ///
    /// # Errors
    /// When the domain can't be one, or objects can't be read.
    pub(crate) fn start(
        settings: &Settings,
        mode: Mode,
        registry: &Registry,
        kept: Vec<Kept>,
    ) -> Result<Option<Arc<Self>>, String> {
        let mut wanted = settings.dns_addresses();
        if mode == Mode::Serve {
            // Without a host there is no bridge.
            wanted.retain(|address| !settings.bridge_addresses().contains(&address.ip()));
        }
        let activated: Vec<SocketAddr> = kept.iter().filter(|k| !k.is_our_own()).map(Kept::address).collect();
        wanted.extend(activated);
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            sockets::release(&kept);
            if settings.host == HostKind::Linux && mode == Mode::Agent {
                let name = settings.bridge.clone();
                tokio::spawn(async move { host::resolve_no_names_here(&name).await });
            }
            return Ok(None);
        }
        let reverse = settings.pod_cidr.iter().chain(&settings.service_cidr).copied().collect();
        let servers = settings.pods_name_server().into_iter().collect();
        let zones = Zones::new(&settings.cluster_domain, reverse, servers).map_err(|e| e.to_string())?;
        let mut records = Records::new(zones);
        let follower = follow::list(registry, &mut records)?;
        let snapshot = records.snapshot().unwrap_or_else(|| records.current());
        let forwarder = Arc::new(Forwarder::new(
            HostServers::of_files(settings.resolv_conf.clone(), BEHIND_STUB.into()),
            Patience::default(),
            Handle::current(),
        ));
        forwarder.not_ourselves(wanted.clone());
        let server = Server::new(snapshot, forwarder, &settings.pod_cidr);
        let this = Arc::new(Self {
            server: Arc::clone(&server),
            domain: settings.cluster_domain.clone(),
            state: Mutex::default(),
            failure: tokio::sync::watch::Sender::new(None),
            stop: CancellationToken::new(),
        });
        this.state().host = by_hand(&settings.cluster_domain, &wanted);
        let bridge = SocketAddr::new(settings.bridge_address(), 53);
        if settings.host == HostKind::Linux && mode == Mode::Agent {
            if wanted.contains(&bridge) {
                tokio::spawn(Arc::clone(&this).tell_host(settings.bridge.clone(), bridge));
            } else {
                let name = settings.bridge.clone();
                tokio::spawn(async move { host::resolve_no_names_here(&name).await });
            }
        }
        let mut tasks = JoinSet::new();
        let mut kept = sockets::by_address(kept, &wanted);
        for address in wanted {
            let kept = kept.remove(&address).unwrap_or_default();
            tasks.spawn(Arc::clone(&this).listen(address, kept, registry.clone(), settings.node_name.clone()));
        }
        tasks.spawn(follow::run(registry.clone(), records, follower, server));
        tokio::spawn(Arc::clone(&this).watch(tasks));
        Ok(Some(this))
    }

    /// Ends with the reason when it can't go on.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let why = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Answers what has arrived and reads nothing more: what comes now waits in the sockets, if somebody keeps them.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let listeners = std::mem::take(&mut self.state().listeners);
        let stopped = tokio::task::spawn_blocking(move || drop(listeners));
        if stopped.await.is_err() || tokio::time::timeout(DRAIN, self.server.forwarder().idle()).await.is_err() {
            tracing::debug!("some questions to other name servers stay unanswered");
        }
    }

    async fn watch(self: Arc<Self>, mut tasks: JoinSet<()>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                ended = tasks.join_next() => match ended {
                    None => return,
                    Some(Ok(())) => {}
                    Some(Err(join)) => {
                        let why = if join.is_panic() { "it panicked: this is a bug, please report it" } else { "it ended" };
                        self.failure.send_replace(Some(why.to_owned()));
                    }
                },
            }
        }
    }

    /// Has this host's own resolver ask us for our names.
    async fn tell_host(self: Arc<Self>, bridge: String, server: SocketAddr) {
        let by_hand = self.state().host.clone();
        let domain = &self.domain;
        let told = host::resolve_names_here(bridge.clone(), server, domain.clone(), |told| {
            let text = match told {
                Told::Nobody => by_hand.clone(),
                Told::Soon => format!("systemd-resolved will be told once the bridge {bridge} is there"),
                Told::SystemdResolved => format!("systemd-resolved asks {} for names of {domain}", server.ip()),
                Told::Failed(why) => format!("systemd-resolved could not be told: {why}; {by_hand}"),
            };
            let mut state = self.state();
            if state.host != text {
                tracing::info!("names of services on this host: {text}");
                state.host = text;
            }
        });
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = told => {}
        }
    }

    /// Has one address served, if need be later.
    async fn listen(self: Arc<Self>, address: SocketAddr, mut kept: Vec<Kept>, registry: Registry, node: String) {
        let (mut pause, mut said) = (RETRY.0, String::new());
        loop {
            let why = match self.serve(address, std::mem::take(&mut kept)) {
                Ok(()) => return,
                Err(error) => sockets::explain(address, &error),
            };
            if said != why {
                tracing::error!(%address, "{why}");
                self.state().listeners.insert(address, Err(why.clone()));
                event(&registry, &node, &why).await;
                said = why;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn serve(&self, address: SocketAddr, kept: Vec<Kept>) -> std::io::Result<()> {
        let bound = sockets::open(address, kept)?;
        let listener = Listener::start(bound, &self.server, &Handle::current())?;
        tracing::info!(address = %listener.address(), "the name server listens");
        let mut state = self.state();
        // Between the two a stop may have been asked for.
        if !self.stop.is_cancelled() {
            state.listeners.insert(address, Ok(listener));
        }
        Ok(())
    }

    /// For `status`.
    pub(crate) fn status(&self) -> types::DnsStatus {
        let upstreams = self.server.forwarder().servers();
        let state = self.state();
        let listeners = state.listeners.iter().map(|(address, listener)| match listener {
            Ok(listener) => {
                types::DnsListener { address: listener.address().to_string(), ok: true, message: String::new() }
            }
            Err(why) => types::DnsListener { address: address.to_string(), ok: false, message: why.clone() },
        });
        types::DnsStatus {
            domain: self.domain.clone(),
            listeners: listeners.collect(),
            names: self.server.snapshot().names() as u64,
            upstreams: upstreams.iter().map(|s| shown(*s)).collect(),
            host: state.host.clone(),
        }
    }

    /// What needs a person.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.state().listeners.values().filter_map(|l| l.as_ref().err().cloned()).collect()
    }

    /// For `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let counts = self.server.counts();
        let mut text = String::new();
        let name = "reddwarf_dns_names";
        let help = "Names that the name server knows.";
        let names = self.server.snapshot().names();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {names}");
        let name = "reddwarf_dns_queries_total";
        let _ = writeln!(text, "# HELP {name} Queries that arrived.\n# TYPE {name} counter");
        let _ = writeln!(text, "{name}{{protocol=\"udp\"}} {}\n{name}{{protocol=\"tcp\"}} {}", counts.udp, counts.tcp);
        for (name, help, value) in [
            ("reddwarf_dns_dropped_total", "Packets that got no answer.", counts.dropped),
            ("reddwarf_dns_forwarded_total", "Questions to the host's name servers.", counts.forwarded.asked),
            ("reddwarf_dns_cached_total", "Questions that the cache answered.", counts.forwarded.cached),
            ("reddwarf_dns_failed_total", "Questions that no name server answered.", counts.forwarded.failed),
        ] {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Port 53 goes without saying.
fn shown(server: SocketAddr) -> String {
    if server.port() == 53 { server.ip().to_string() } else { server.to_string() }
}

/// What to do on a host where nothing does it for us.
fn by_hand(domain: &str, listeners: &[SocketAddr]) -> String {
    let usable = listeners.iter().find(|l| l.port() == 53).or(listeners.first());
    match usable {
        Some(at) if at.port() == 53 => {
            let ip = if at.ip().is_unspecified() { "127.0.0.1".to_owned() } else { at.ip().to_string() };
            format!(
                "to resolve names of {domain} here, put `nameserver {ip}` first into /etc/resolv.conf (the servers after it \
                 are asked for all other names), or give your resolver a rule, for dnsmasq `server=/{domain}/{ip}`"
            )
        }
        Some(at) => {
            let ip = if at.ip().is_unspecified() { "127.0.0.1".to_owned() } else { at.ip().to_string() };
            format!(
                "to resolve names of {domain} here, give your resolver a rule, for dnsmasq `server=/{domain}/{ip}#{}`",
                at.port()
            )
        }
        None => String::new(),
    }
}

async fn event(registry: &Registry, node: &str, why: &str) {
    let target = EventTarget::node(node);
    if let Err(error) = registry.record_event(&target, EventType::Warning, "DNSUnavailable", why, "reddwarfd").await {
        tracing::debug!(error = chain(&error), "an event could not be recorded");
    }
}
