//! Connections to TCP ports inside sandboxes, and from the host to anywhere. A socket belongs to the network namespace that it was made in: a thread
//! that enters the sandbox's makes the sockets and ends; connecting and all else happens on the runtime as ever.

use crate::files::io_error;
use crate::host::{LinuxHost, Shared};
use crate::namespaces;
use crate::record::SandboxPhase;
use crate::sandbox;
use async_trait::async_trait;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use reddwarf_host::{Connect, Connection, HostError, HostErrorKind, HostResult, SandboxId};
use reddwarf_supervise::dial;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A port of the same machine answers at once, unless its queue is full.
const PATIENCE: Duration = Duration::from_secs(10);

#[async_trait]
impl Connect for LinuxHost {
    async fn connect(&self, id: &SandboxId, port: u16) -> HostResult<Connection> {
        let wanted = id.clone();
        let netns = self.blocking("connect", move |shared| netns(shared, &wanted)).await?;
        let place = netns.as_deref().unwrap_or(Path::new("the host's network"));
        let [v4, v6] = sockets(netns.clone()).await.map_err(|e| io_error("connect", place, e))?;
        let first = match connect_to(v4, IpAddr::V4(Ipv4Addr::LOCALHOST), port).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let second = match connect_to(v6, IpAddr::V6(Ipv6Addr::LOCALHOST), port).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let kind = match first.kind() {
            io::ErrorKind::TimedOut => HostErrorKind::Timeout,
            io::ErrorKind::ConnectionRefused => HostErrorKind::InvalidState,
            _ => HostErrorKind::Other,
        };
        let message = format!(
            "failed to connect to localhost:{port} inside namespace \"{}\", IPv4: dial tcp4 127.0.0.1:{port}: {} \
             IPv6 dial tcp6: [::1]:{port}: {}",
            place.display(),
            dial::words(&first),
            dial::words(&second)
        );
        Err(HostError::new(kind, "connect", format!("{id}:{port}"), message))
    }

    async fn dial(&self, host: &str, port: u16) -> HostResult<Connection> {
        dial::dial(host, port).await
    }
}

/// The sandbox's network namespace; `None`: the host's own.
fn netns(shared: &Shared, id: &SandboxId) -> HostResult<Option<PathBuf>> {
    let fail = |kind, message: &str| Err(HostError::new(kind, "connect", id.as_str(), message));
    let Some(mark) = sandbox::own_mark(shared, id)? else { return fail(HostErrorKind::NotFound, "no such sandbox") };
    match sandbox::phase(shared, id)? {
        Some(SandboxPhase::Running { .. }) => Ok(namespaces::paths(&shared.paths, &mark.spec).net),
        Some(SandboxPhase::Stopping | SandboxPhase::Stopped) | None => {
            fail(HostErrorKind::InvalidState, "the sandbox is not running")
        }
    }
}

type Made = io::Result<TcpSocket>;

/// A socket of either family in that namespace.
async fn sockets(netns: Option<PathBuf>) -> io::Result<[Made; 2]> {
    let (tell, told) = oneshot::channel();
    let make = move || {
        let entered = netns.map_or(Ok(()), |path| Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?));
        // The caller may have gone.
        let _ = tell.send(entered.map(|()| [make(AddressFamily::Inet), make(AddressFamily::Inet6)]));
    };
    // A thread of its own: one that has been in another namespace must not go back to tokio's pool.
    std::thread::Builder::new().name("enter-network".to_owned()).stack_size(64 << 10).spawn(make)?;
    told.await.map_err(|_| io::Error::other("the thread that enters the network namespace ended early"))?
}

fn make(family: AddressFamily) -> Made {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(family, SockType::Stream, flags, None)?;
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(made)))
}

async fn connect_to(socket: Made, address: IpAddr, port: u16) -> io::Result<Connection> {
    let connecting = timeout(PATIENCE, socket?.connect(SocketAddr::new(address, port)));
    let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // What is typed comes in small pieces.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}
