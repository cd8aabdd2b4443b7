//! The name server's sockets: bound here, kept by the service manager over a restart, or opened by it beforehand.

use crate::service;
use reddwarf_network::dns::serve::{Bound, bind, bind_tcp};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Names that we give to sockets in the service manager's store begin so.
const OUR_OWN: &str = "reddwarf-dns-";
/// Names of sockets that a socket unit has for us begin so (FileDescriptorName=).
const ACTIVATED: &str = "dns";
/// Sockets for datagrams of one address at most: more threads than these only wait for each other.
const MOST_SOCKETS: usize = 4;

/// A socket that was handed over.
#[derive(Debug)]
pub(crate) struct Kept {
    name: String,
    address: SocketAddr,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Kept {
    /// Takes those that are the name server's out of everything that was handed over.
    pub(crate) fn from(all: Vec<(String, OwnedFd)>) -> Vec<Self> {
        let ours = all.into_iter().filter(|(name, _)| name.starts_with(OUR_OWN) || name.starts_with(ACTIVATED));
        ours.filter_map(|(name, fd)| {
            let kind = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType).ok()?;
            let (socket, address) = match kind {
                nix::sys::socket::SockType::Datagram => {
                    let socket = UdpSocket::from(fd);
                    let address = socket.local_addr().ok()?;
                    (Socket::Udp(socket), address)
                }
                nix::sys::socket::SockType::Stream => {
                    let socket = TcpListener::from(fd);
                    let address = socket.local_addr().ok()?;
                    (Socket::Tcp(socket), address)
                }
                _ => return None,
            };
            Some(Self { name, address, socket })
        })
        .collect()
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An earlier daemon bound it, not a socket unit.
    pub(crate) fn is_our_own(&self) -> bool {
        self.name.starts_with(OUR_OWN)
    }
}

/// Those of wanted addresses; others are let go.
pub(super) fn by_address(kept: Vec<Kept>, wanted: &[SocketAddr]) -> HashMap<SocketAddr, Vec<Kept>> {
    let (used, unused): (Vec<_>, Vec<_>) = kept.into_iter().partition(|k| wanted.contains(&k.address));
    release(&unused);
    let mut by_address: HashMap<SocketAddr, Vec<Kept>> = HashMap::new();
    for kept in used {
        by_address.entry(kept.address).or_default().push(kept);
    }
    by_address
}

/// Has the service manager let go of sockets that nobody wants any more.
pub(super) fn release(kept: &[Kept]) {
    for kept in kept.iter().filter(|k| k.is_our_own()) {
        service::forget_sockets(&kept.name);
    }
}

/// The sockets of an address: those that were handed over, and new ones for what is missing.
///
/// # Errors
/// As [`bind`].
pub(super) fn open(address: SocketAddr, kept: Vec<Kept>) -> io::Result<Bound> {
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for kept in kept {
        match kept.socket {
            Socket::Udp(socket) => udp.push(socket),
            Socket::Tcp(socket) => tcp.push(socket),
        }
    }
    let bound = if udp.is_empty() {
        drop(tcp);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        bind(address, cores.min(MOST_SOCKETS))?
    } else {
        if tcp.is_empty() {
            tcp.push(bind_tcp(address)?);
        }
        Bound { address, udp, tcp }
    };
    let all: Vec<BorrowedFd<'_>> = bound.udp.iter().map(AsFd::as_fd).chain(bound.tcp.iter().map(AsFd::as_fd)).collect();
    // What it has already it does not keep twice.
    service::keep_sockets(&store_name(address), &all);
    Ok(bound)
}

/// No colon may be in it (sd_pid_notify_with_fds(3)).
fn store_name(address: SocketAddr) -> String {
    format!("{OUR_OWN}{}", address.to_string().replace(':', "_"))
}

/// What is wrong with an address, and what to do.
pub(super) fn explain(address: SocketAddr, error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens on port {}: see `ss -lnptu 'sport = {}'`; stop it, restrict it to its own addresses \
             (dnsmasq: bind-interfaces; unbound: interface), or set dns_listen and cluster_dns",
            address.port(),
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            "only root may use this port: run reddwarfd as root or set dns_listen".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have the address yet".to_owned(),
        _ => "set dns_listen to another address, or off".to_owned(),
    };
    format!("the name server can't listen on {address}: {error}; {what}")
}
