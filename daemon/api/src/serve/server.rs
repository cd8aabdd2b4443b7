//! Listening and connections: who may connect, how many, how long; and ending all of it in time.

use crate::access::authenticate::Origin;
use crate::access::certificates::CertificateError;
use crate::access::principal::{Peer, Role, identify};
use crate::access::state::Access;
use crate::runtime::{Directory, Runtime};
use crate::serve::alone::{Handover, Lent, carry};
use crate::serve::body::{self, Arriving};
use crate::serve::dispatch::{State, handle};
use crate::serve::gather::Turns;
use crate::serve::listeners::{Bound, Listeners};
use crate::serve::stall::Stalling;
use crate::serve::tls;
use crate::wire::error::ApiError;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reddwarf_host::time::in_step;
use reddwarf_registry::{EventTarget, EventType, Registry};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where and for whom the API is served.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The control socket.
    pub socket: PathBuf,
    /// Its group; its members are operators. Without such a group only root connects.
    pub socket_group: Option<String>,
    /// TCP address, spoken to by TLS.
    pub listen: Option<SocketAddr>,
    /// A further TCP address, for pods: the host may get it later. That it can't be had is said and no reason not to serve.
    pub listen_for_pods: Option<SocketAddr>,
    /// Name of this node, for `/version` and messages.
    pub node_name: String,
    /// What a client may ask of us.
    pub limits: Limits,
    /// What a manifest in a request may ask of the parser.
    pub manifest_limits: reddwarf_config::Limits,
}

/// Bounds on clients (F41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time for a request's headers, also between requests of a connection.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// Time for an answer that is no stream.
    pub request_timeout: Duration,
    /// Time for an answer of a daemon route that waits for the host (reload, image import, shutdown).
    pub long_timeout: Duration,
    /// A stream whose reader takes nothing for so long is cut.
    pub stall_timeout: Duration,
    /// Open connections; `reserved` of them only for admins, so that `status` works under load.
    pub connections: usize,
    /// See `connections`.
    pub reserved: usize,
    /// Requests of one principal that are worked on at a time; more wait.
    pub requests: usize,
    /// Watches, followed logs and execs of one principal at a time; more are refused (429).
    pub streams: usize,
    /// Time between bookmarks of a watch that wants them.
    pub bookmarks: Duration,
    /// Time to end everything at shutdown.
    pub shutdown: Duration,
    /// How often the socket's file is looked at (a removed one is made again), and those of certificates.
    pub socket_check: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Requests of one HTTP/2 connection at a time, watches among them.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 3 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            long_timeout: Duration::from_secs(900),
            stall_timeout: Duration::from_secs(60),
            connections: 2048,
            reserved: 64,
            requests: 64,
            streams: 1024,
            bookmarks: Duration::from_secs(60),
            shutdown: Duration::from_millis(4500),
            socket_check: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            http2_streams: 250,
        }
    }
}

/// What the API works on.
#[derive(Clone)]
pub struct ApiDeps {
    /// The write path.
    pub registry: Registry,
    /// The node and the daemon.
    pub runtime: Arc<dyn Runtime>,
    /// The manifest directory.
    pub directory: Arc<dyn Directory>,
    /// Who may use it, and how.
    pub access: Arc<Access>,
}

/// The API, ready to be served: clients that connect now wait until [`Api::serve`].
pub struct Api {
    state: Arc<State>,
    listeners: Arc<Listeners>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Api {
    /// Answers those who come in by `listeners`.
    pub fn new(settings: ApiSettings, deps: ApiDeps, listeners: Arc<Listeners>) -> Self {
        Self { state: Arc::new(State::new(settings, deps)), listeners }
    }

    /// Reaches the API while it is served.
    pub fn handle(&self) -> ApiHandle {
        ApiHandle { state: self.state.clone() }
    }

    /// Serves until `stop`, lets go of the listeners, ends watches and logs cleanly, lets requests finish and returns
    /// within [`Limits::shutdown`].
    pub async fn serve(self, stop: CancellationToken) {
        let Self { state, listeners } = self;
        let mut bound = listeners.lock().await;
        let Some(Bound { socket, unix, tcp, for_pods }) = bound.as_mut() else { return };
        let connections = TaskTracker::new();
        let door = Arc::new(Door::new(&state.settings.limits));
        let mut look = in_step(state.settings.limits.socket_check);
        connections.spawn(record_uses(state.clone()));
        if tcp.is_some() {
            connections.spawn(watch_certificates(ApiHandle { state: state.clone() }));
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = unix.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(unix_connection(state.clone(), door.clone(), stream));
                    }
                    Err(error) => accept_failed(&error).await,
                },
                accepted = accept_tcp(tcp.as_ref()) => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(tcp_connection(state.clone(), door.clone(), stream, peer));
                    }
                    Err(error) => accept_failed(&error).await,
                },
                accepted = accept_tcp(for_pods.as_ref()) => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(tcp_connection(state.clone(), door.clone(), stream, peer));
                    }
                    Err(error) => accept_failed(&error).await,
                },
                _ = look.tick() => if !socket.in_place() {
                    match socket.rebind() {
                        Ok(again) => {
                            tracing::warn!(path = %socket.path.display(), "the control socket was removed or replaced; it is there again");
                            *unix = again;
                        }
                        Err(error) => tracing::error!(%error, "the control socket is gone and can't be bound again"),
                    }
                },
            }
        }
        drop(bound);
        state.stop.cancel();
        connections.close();
        if timeout(state.settings.limits.shutdown, connections.wait()).await.is_err() {
            state.abort.cancel();
            connections.wait().await;
        }
    }
}

/// Reaches the API while it is served.
#[derive(Clone)]
pub struct ApiHandle {
    state: Arc<State>,
}

impl fmt::Debug for ApiHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiHandle").finish_non_exhaustive()
    }
}

impl ApiHandle {
    /// Reads certificates again. Bad ones leave those in force that are; that is logged and recorded as an event.
    ///
    /// # Errors
    /// Why the new ones are not in force.
    pub async fn reload_certificates(&self) -> Result<(), CertificateError> {
        let done = self.refresh(true).await;
        if let Err(error) = &done {
            self.certificates_refused(error).await;
        }
        done
    }

    async fn refresh(&self, always: bool) -> Result<(), CertificateError> {
        let state = self.state.clone();
        // Files may be slow, on a network file system for example.
        let done = tokio::task::spawn_blocking(move || state.deps.access.refresh(always)).await;
        done.unwrap_or_else(|e| Err(CertificateError::Made { what: "certificate", why: e.to_string() }))
    }

    async fn certificates_refused(&self, error: &CertificateError) {
        let text = format!("new certificates were not taken over, those in force stay: {error}");
        tracing::warn!("{text}");
        let target = EventTarget::node(&self.state.settings.node_name);
        let registry = &self.state.deps.registry;
        if let Err(error) =
            registry.record_event(&target, EventType::Warning, "InvalidCertificate", &text, "reddwarfd").await
        {
            tracing::debug!(%error, "an event could not be recorded");
        }
    }
}

/// Looks for changed certificates from time to time, and says once what is wrong with them.
async fn watch_certificates(api: ApiHandle) {
    let mut look = in_step(api.state.settings.limits.socket_check);
    let mut said = String::new();
    loop {
        tokio::select! {
            () = api.state.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        match api.refresh(false).await {
            Ok(()) => said.clear(),
            Err(error) if said == error.to_string() => {}
            Err(error) => {
                api.certificates_refused(&error).await;
                said = error.to_string();
            }
        }
    }
}

/// Puts uses of tokens in Secrets on record, apart from the requests that brought them.
async fn record_uses(state: Arc<State>) {
    let uses = &state.deps.access.service_accounts.uses;
    loop {
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = uses.noted() => {}
        }
        uses.write(&state.deps.registry).await;
    }
}

/// Out of file descriptors or the like: say so and breathe.
async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn accept_tcp(tcp: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match tcp {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Room for connections; the reserved part is for admins at the socket.
struct Door {
    all: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Door {
    fn new(limits: &Limits) -> Self {
        let open = limits.connections.saturating_sub(limits.reserved);
        Self { all: Arc::new(Semaphore::new(limits.connections)), open: Arc::new(Semaphore::new(open)) }
    }

    /// A place, or `None` when it is full for this role.
    fn enter(&self, role: Role) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let open = self.open.clone().try_acquire_owned().ok();
        if open.is_none() && role != Role::Admin {
            return None;
        }
        Some((self.all.clone().try_acquire_owned().ok()?, open))
    }
}

async fn unix_connection(state: Arc<State>, door: Arc<Door>, stream: UnixStream) {
    let peer = match stream.peer_cred() {
        Ok(cred) => Peer::from(cred),
        Err(error) => return tracing::warn!(%error, "the kernel does not say who connects; refused"),
    };
    let group = state.settings.socket_group.clone();
    let found = peer.clone();
    // The user database may be slow or remote.
    let looked = tokio::task::spawn_blocking(move || identify(&found, group.as_deref()));
    let principal = timeout(Duration::from_secs(5), looked).await.ok().and_then(Result::ok).flatten();
    let origin = match principal {
        Some(principal) => Origin::Socket(Arc::new(principal)),
        None => {
            tracing::warn!(
                uid = peer.uid,
                gid = peer.gid,
                pid = peer.pid,
                "a stranger at the control socket was refused"
            );
            let group = state.settings.socket_group.as_deref().unwrap_or("reddwarf");
            Origin::Refused(ApiError::forbidden(format!(
                "uid {} may not use this socket: only root and members of the group {group} may (usermod -aG {group} USER)",
                peer.uid
            )))
        }
    };
    let role = match &origin {
        Origin::Socket(principal) => principal.role,
        _ => Role::User,
    };
    let place = door.enter(role);
    let origin = match &place {
        Some(_) => origin,
        None => Origin::Refused(ApiError::too_many("too many connections are open; try again")),
    };
    serve_http1(state, stream, origin).await;
}

async fn tcp_connection(state: Arc<State>, door: Arc<Door>, stream: TcpStream, peer: SocketAddr) {
    // Who it is will be known with its first request only: the places that are kept for admins are the socket's.
    let Some(_place) = door.enter(Role::User) else {
        return tracing::debug!(%peer, "a connection was closed: too many are open");
    };
    let Some(keyring) = state.deps.access.keyring() else { return };
    let nothing_begun = CancellationToken::new();
    let accepted = tokio::select! {
        accepted = tls::accept(&keyring, stream, state.settings.limits.handshake) => accepted,
        () = ending(&state, &nothing_begun) => return,
    };
    let tls::Accepted { stream, certificate, http2 } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return tracing::debug!(%peer, %error, "no TLS connection came about"),
    };
    let origin = Origin::Tls { peer, certificate };
    if http2 { serve_http2(state, stream, origin).await } else { serve_http1(state, stream, origin).await }
}

/// HTTP/1.1: a client that takes nothing is cut off.
async fn serve_http1<S>(state: Arc<State>, stream: S, origin: Origin)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (cut, begun) = (CancellationToken::new(), CancellationToken::new());
    let origin = Arc::new(origin);
    let (handover, handed_over) = Handover::new();
    let service = {
        let (state, cut, begun) = (state.clone(), cut.clone(), begun.clone());
        service_fn(move |request: Request<Incoming>| {
            begun.cancel();
            let (state, cut, origin, handover) = (state.clone(), cut.clone(), origin.clone(), handover.clone());
            async move {
                let alone = Handover::is_for(&request);
                let request = request.map(Arriving::alone);
                let mut response = handle(state, origin.clone(), cut, request).await;
                if alone {
                    response = handover.pass(response).await;
                }
                if matches!(*origin, Origin::Refused(_)) {
                    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = http1::Builder::new();
    let limits = &state.settings.limits;
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(128 << 10);
    let stream = Stalling::new(stream, limits.stall_timeout);
    let lent = Lent::new(stream);
    let serving = builder.serve_connection(TokioIo::new(lent.clone()), service).with_upgrades();
    let mut driving = Box::pin(drive(&state, serving, (cut, begun), |serving| serving.graceful_shutdown()));
    let response = tokio::select! {
        () = driving.as_mut() => return,
        Ok(response) = handed_over => response,
    };
    drop(driving);
    if let Some(stream) = lent.take() {
        carry(&state, stream, response).await;
    }
}

/// HTTP/2: many requests share the connection, so a client that takes nothing of one answer loses that one only.
async fn serve_http2<S>(state: Arc<State>, stream: S, origin: Origin)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let origin = Arc::new(origin);
    let begun = CancellationToken::new();
    let service = {
        let (state, begun) = (state.clone(), begun.clone());
        service_fn(move |request: Request<Incoming>| {
            begun.cancel();
            let (state, origin, cut) = (state.clone(), origin.clone(), CancellationToken::new());
            async move {
                let stop = state.stop.clone();
                let request = request.map(|body| Arriving::shared(body, stop));
                let response = handle(state, origin, cut.clone(), request).await;
                Ok::<_, Infallible>(response.map(|whole| body::broken_by(whole, cut)))
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(state.settings.limits.http2_streams)
        .max_header_list_size(64 << 10)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let serving = Turns::new(stream, |stream| builder.serve_connection(stream, service));
    let marks = (CancellationToken::new(), begun);
    drive(&state, serving, marks, |mut serving| serving.connection().graceful_shutdown()).await;
}

/// A client that is gone without a word is noticed after twice this time.
const PING: Duration = Duration::from_secs(30);

/// Time for the first request of a connection that was made just before the end.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// The moment from which a connection takes no more requests. One that has had none yet gets a little longer: who
/// connected, and sees the connection closed instead of an answer, has no way to know why.
async fn ending(state: &State, begun: &CancellationToken) {
    state.stop.cancelled().await;
    drop(timeout(FIRST_REQUEST, begun.cancelled()).await);
}

/// Runs a connection to its end, to the daemon's (told by `end` to take no more requests), or until it is cut. `begun`
/// is cancelled by its first request.
async fn drive<C, E>(
    state: &State,
    serving: C,
    (cut, begun): (CancellationToken, CancellationToken),
    end: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    let _counted = state.counters.connection();
    tokio::pin!(serving);
    let mut ends = std::pin::pin!(ending(state, &begun));
    let mut stopping = false;
    loop {
        tokio::select! {
            done = serving.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = cut.cancelled() => return tracing::debug!("a connection was cut: its reader takes nothing"),
            () = state.abort.cancelled() => return,
            () = ends.as_mut(), if !stopping => {
                stopping = true;
                end(serving.as_mut());
            }
        }
    }
}
