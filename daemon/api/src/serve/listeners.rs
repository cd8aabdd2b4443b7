//! Where clients come in. What listens outlives a round of the daemon: who connects while a change of settings is taken
//! over waits a moment for the next [`Api`](crate::Api) instead of being told that there is no daemon.

use crate::access::state::Access;
use crate::serve::server::ApiSettings;
use crate::serve::socket::{BindError, Socket, io_error};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, MutexGuard};

/// The control socket and the TCP addresses, bound. Whoever serves has them for as long; nobody does once they are
/// closed.
pub struct Listeners {
    bound: Mutex<Option<Bound>>,
    tcp_address: Option<SocketAddr>,
}

/// What clients are accepted from.
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    pub(crate) unix: UnixListener,
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) for_pods: Option<TcpListener>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("tcp_address", &self.tcp_address).finish_non_exhaustive()
    }
}

impl Listeners {
    /// Binds the socket and, if asked for, the TCP addresses; `access` learns the one that the kubeconfig is to name.
    /// Clients that connect from now on wait until they are served. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] saying what is in the way.
    pub async fn bind(settings: &ApiSettings, access: &Access) -> Result<Self, BindError> {
        let tcp = match settings.listen {
            None => None,
            Some(address) => {
                let path = PathBuf::from(address.to_string());
                Some(TcpListener::bind(address).await.map_err(io_error("listen on", &path))?)
            }
        };
        let tcp_address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let (socket, unix) = Socket::bind(&settings.socket, settings.socket_group.as_deref())?;
        if let Some(address) = tcp_address {
            access.listen(address)?;
        }
        let for_pods = settings.listen_for_pods.and_then(|address| match listen_for_pods(address) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(%address, %error, "pods can't reach the API: this address can't be listened on");
                None
            }
        });
        Ok(Self { bound: Mutex::new(Some(Bound { socket, unix, tcp, for_pods })), tcp_address })
    }

    /// The TCP address that was bound, with the port that the system chose.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// Closes all of them, as soon as nobody serves any more, and removes the socket's file: from now on nobody connects.
    pub async fn close(&self) {
        drop(self.bound.lock().await.take());
    }

    pub(crate) async fn lock(&self) -> MutexGuard<'_, Option<Bound>> {
        self.bound.lock().await
    }
}

/// Listens on the pod network's own address, which is there only while there are pods.
fn listen_for_pods(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // ip(7): IP_FREEBIND goes for IPv6 sockets too.
    #[cfg(target_os = "linux")]
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(1024)
}
