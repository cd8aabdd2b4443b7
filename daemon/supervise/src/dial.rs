//! Connections as the host itself makes them, with errors in the words that users of Kubernetes look for.

use reddwarf_host::{Connection, HostError, HostErrorKind, HostResult};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Callers have limits of their own; this one is for those that forgot.
const DIAL_PATIENCE: Duration = Duration::from_secs(120);

/// Connects from the host's own network, names looked up by its own resolver.
///
/// # Errors
/// `NotFound` (no such name), `InvalidState` (nobody listens there), `Exhausted`, `Timeout`, `Other`.
pub async fn dial(host: &str, port: u16) -> HostResult<Connection> {
    let fail = |kind, message| HostError::new(kind, "dial", format!("{host}:{port}"), message);
    let name = host.trim_matches(['[', ']']);
    let found = match name.parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => tokio::net::lookup_host((name, port)).await.map(Iterator::collect),
    };
    let addresses: Vec<_> = found.unwrap_or_default();
    let mut last = None;
    for address in addresses {
        match timeout(DIAL_PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(Box::new(stream));
            }
            Ok(Err(error)) => last = Some((address, error)),
            Err(_) => last = Some((address, io::ErrorKind::TimedOut.into())),
        }
    }
    let Some((address, error)) = last else {
        return Err(fail(HostErrorKind::NotFound, format!("dial tcp: lookup {name}: no such host")));
    };
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => HostErrorKind::InvalidState,
        io::ErrorKind::TimedOut => HostErrorKind::Timeout,
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL)) => {
            HostErrorKind::Exhausted
        }
        _ => HostErrorKind::Other,
    };
    Err(fail(kind, format!("dial tcp {address}: {}", words(&error))))
}

/// As Go's net package says it, which is what clients show and match.
pub fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => format!("connect: {error}"),
    }
}
