//! Listening and connections: who may connect, how many, how long; and ending all of it in time.

use crate::access::authenticate::Origin;
use crate::access::principal::{Peer, Role, identify};
use crate::runtime::{Directory, Runtime};
use crate::serve::dispatch::{State, handle};
use crate::serve::socket::{BindError, Socket, io_error, token};
use crate::wire::error::ApiError;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use reddwarf_registry::Registry;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
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
    /// TCP address: loopback only, with the token in `<state_dir>/api-token`.
    pub listen: Option<SocketAddr>,
    /// For the token.
    pub state_dir: PathBuf,
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
    /// How often the socket's file is looked at: a removed one is made again.
    pub socket_check: Duration,
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
}

/// The API, bound and ready to be served: clients that connect now wait until [`Api::serve`].
pub struct Api {
    state: Arc<State>,
    socket: Socket,
    unix: UnixListener,
    tcp: Option<(TcpListener, Arc<str>)>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("socket", &self.socket.path).finish_non_exhaustive()
    }
}

impl Api {
    /// Binds the socket and, if asked for, the TCP address. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] saying what is in the way.
    pub async fn bind(settings: ApiSettings, deps: ApiDeps) -> Result<Self, BindError> {
        let tcp = match settings.listen {
            None => None,
            Some(address) if !address.ip().is_loopback() => return Err(BindError::NotLoopback(address)),
            Some(address) => {
                let token = token(&settings.state_dir)?;
                let path = PathBuf::from(address.to_string());
                let listener = TcpListener::bind(address).await.map_err(io_error("listen on", &path))?;
                Some((listener, Arc::from(token)))
            }
        };
        let (socket, unix) = Socket::bind(&settings.socket, settings.socket_group.as_deref())?;
        Ok(Self { state: Arc::new(State::new(settings, deps)), socket, unix, tcp })
    }

    /// The TCP address that was bound, with the port that the system chose.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until `stop`, then ends watches and logs cleanly, lets requests finish and returns within
    /// [`Limits::shutdown`].
    pub async fn serve(self, stop: CancellationToken) {
        let Self { state, mut socket, mut unix, tcp } = self;
        let connections = TaskTracker::new();
        let door = Arc::new(Door::new(&state.settings.limits));
        let mut look = tokio::time::interval(state.settings.limits.socket_check);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
                    Ok((stream, token)) => {
                        connections.spawn(tcp_connection(state.clone(), door.clone(), stream, token));
                    }
                    Err(error) => accept_failed(&error).await,
                },
                _ = look.tick() => if !socket.in_place() {
                    match socket.rebind() {
                        Ok(again) => {
                            tracing::warn!(path = %socket.path.display(), "the control socket was removed or replaced; it is there again");
                            unix = again;
                        }
                        Err(error) => tracing::error!(%error, "the control socket is gone and can't be bound again"),
                    }
                },
            }
        }
        drop((unix, socket));
        state.stop.cancel();
        connections.close();
        if timeout(state.settings.limits.shutdown, connections.wait()).await.is_err() {
            state.abort.cancel();
            connections.wait().await;
        }
    }
}

/// Out of file descriptors or the like: say so and breathe.
async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn accept_tcp(tcp: Option<&(TcpListener, Arc<str>)>) -> std::io::Result<(tokio::net::TcpStream, Arc<str>)> {
    match tcp {
        Some((listener, token)) => listener.accept().await.map(|(stream, _)| (stream, token.clone())),
        None => std::future::pending().await,
    }
}

/// Room for connections; the reserved part is for admins.
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
        Some(principal) => Origin::Socket(principal),
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
    connection(state, door, stream, origin).await;
}

async fn tcp_connection(state: Arc<State>, door: Arc<Door>, stream: tokio::net::TcpStream, token: Arc<str>) {
    drop(stream.set_nodelay(true));
    connection(state, door, stream, Origin::Tcp(token)).await;
}

async fn connection<S>(state: Arc<State>, door: Arc<Door>, stream: S, origin: Origin)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let role = match &origin {
        Origin::Socket(principal) => principal.role,
        _ => Role::Operator,
    };
    let place = door.enter(role);
    let origin = match &place {
        Some(_) => origin,
        None => Origin::Refused(ApiError::too_many("too many connections are open; try again")),
    };
    let _counted = state.counters.connection();
    // Ends this connection when its reader stalls.
    let cut = CancellationToken::new();
    let limits = state.settings.limits;
    let service = {
        let (state, cut, origin) = (state.clone(), cut.clone(), origin.clone());
        service_fn(move |request: Request<Incoming>| {
            let (state, cut, origin) = (state.clone(), cut.clone(), origin.clone());
            async move {
                let refused = matches!(origin, Origin::Refused(_));
                let mut response = handle(state, &origin, cut, request).await;
                if refused {
                    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(128 << 10);
    let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(serving);
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
            () = state.stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
