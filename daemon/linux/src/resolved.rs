//! Names of services on this host: systemd-resolved is told to ask our name server for them, and for nothing else
//! (org.freedesktop.resolve1(5)).
//!
//! The settings are the bridge's: they go with it, and systemd-resolved keeps them over its own restarts.

use futures_util::StreamExt;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use zbus::Connection;

/// It is there while systemd-resolved runs. Asking D-Bus would start it.
const RUNNING: &str = "/run/systemd/resolve/io.systemd.Resolve";
const SERVICE: &str = "org.freedesktop.resolve1";
const OBJECT: &str = "/org/freedesktop/resolve1";
const INTERFACE: &str = "org.freedesktop.resolve1.Manager";
/// For all calls together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a call that failed is tried again, when no link changes meanwhile.
const AGAIN: Duration = Duration::from_secs(60);

/// What systemd-resolved is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The link that the settings are put on.
    pub bridge: String,
    /// Our name server.
    pub server: SocketAddr,
    /// Names at and below it are asked of our name server.
    pub domain: String,
}

/// How this host resolves names of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// systemd-resolved does not run: somebody else has to be told.
    NotRunning,
    /// It runs, and the bridge is not there yet.
    Waiting,
    /// It asks us.
    Told,
    /// It could not be told.
    Failed(String),
}

/// Keeps systemd-resolved told for as long as it is polled, whenever the bridge comes. `said` hears how it is.
///
/// # Errors
/// When the kernel does not tell of changed links.
pub async fn keep(wanted: Wanted, mut said: impl FnMut(Resolved)) -> io::Result<()> {
    let (connection, _handle, mut links) = new_multicast_connection(&[MulticastGroup::Link])?;
    let connection = tokio::spawn(connection);
    let mut told = None;
    loop {
        let now = match (Path::new(RUNNING).exists(), index(&wanted.bridge)) {
            (false, _) => Resolved::NotRunning,
            (true, None) => Resolved::Waiting,
            (true, Some(index)) if told == Some(index) => Resolved::Told,
            (true, Some(index)) => match tokio::time::timeout(PATIENCE, tell(index, &wanted)).await {
                Ok(Ok(())) => {
                    told = Some(index);
                    Resolved::Told
                }
                Ok(Err(error)) => Resolved::Failed(error.to_string()),
                Err(_) => Resolved::Failed("it did not answer".to_owned()),
            },
        };
        let failed = matches!(now, Resolved::Failed(_));
        if now != Resolved::Told {
            told = None;
        }
        said(now);
        tokio::select! {
            link = links.next() => if link.is_none() {
                connection.abort();
                return Err(io::Error::other("the kernel tells no more of links"));
            },
            () = tokio::time::sleep(AGAIN), if failed => {}
        }
        // Those that came at the same time.
        while links.try_recv().is_ok() {}
    }
}

/// Takes back what [`keep`] told, if the bridge is there and systemd-resolved runs.
///
/// # Errors
/// What D-Bus or systemd-resolved says.
pub async fn revert(bridge: &str) -> Result<(), zbus::Error> {
    let Some(index) = index(bridge).filter(|_| Path::new(RUNNING).exists()) else { return Ok(()) };
    call(&Connection::system().await?, "RevertLink", &(index,)).await
}

fn index(link: &str) -> Option<i32> {
    nix::net::if_::if_nametoindex(link).ok().and_then(|index| i32::try_from(index).ok())
}

async fn tell(index: i32, wanted: &Wanted) -> Result<(), zbus::Error> {
    let bus = Connection::system().await?;
    let (family, address) = match wanted.server.ip() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // Never for names that nobody else knows: those of other links stay theirs.
    call(&bus, "SetLinkDefaultRoute", &(index, false)).await?;
    call(&bus, "SetLinkDomains", &(index, [(wanted.domain.as_str(), true)].as_slice())).await?;
    // Our names are not signed, and what is asked of us never leaves this host.
    call(&bus, "SetLinkDNSSEC", &(index, "no")).await?;
    call(&bus, "SetLinkDNSOverTLS", &(index, "no")).await?;
    let servers = [(family, address, wanted.server.port(), "")];
    call(&bus, "SetLinkDNSEx", &(index, servers.as_slice())).await
}

async fn call<B>(bus: &Connection, method: &str, body: &B) -> Result<(), zbus::Error>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    bus.call_method(Some(SERVICE), OBJECT, Some(INTERFACE), method, body).await.map(drop)
}
