//! Binding the sockets of one address.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Bytes that may wait to be read: at a restart what arrives waits for the next daemon.
const RECEIVE_BUFFER: usize = 1 << 20;
const BACKLOG: i32 = 256;

/// Sockets of one address.
#[derive(Debug)]
pub struct Bound {
    /// The address.
    pub address: SocketAddr,
    /// For datagrams: the kernel spreads askers over them.
    pub udp: Vec<UdpSocket>,
    /// For streams.
    pub tcp: Vec<TcpListener>,
}

/// Binds `address` for UDP, `sockets` times where the platform can share a port, and for TCP. On Linux the address need
/// not be there yet.
///
/// # Errors
/// `AddrInUse` when another program is there, `PermissionDenied` below port 1024 without root,
/// `AddrNotAvailable` when it is nobody's here and the platform minds.
pub fn bind(address: SocketAddr, sockets: usize) -> io::Result<Bound> {
    // Sharing a port is for sockets of ours only: whether another program has it shows without.
    let first = udp(address, false)?;
    let address = local(&first)?;
    let shared = if cfg!(target_os = "linux") && sockets > 1 {
        drop(first);
        (0..sockets).map(|_| udp(address, true)).collect::<io::Result<Vec<_>>>()?
    } else {
        vec![first]
    };
    Ok(Bound { address, udp: shared.into_iter().map(Into::into).collect(), tcp: vec![bind_tcp(address)?] })
}

/// Binds `address` for TCP alone.
///
/// # Errors
/// As [`bind`].
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(BACKLOG)?;
    Ok(tcp.into())
}

fn udp(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    if shared {
        #[cfg(target_os = "linux")]
        socket.set_reuse_port(true)?;
    }
    receive_buffer(&socket);
    socket.bind(&address.into())?;
    Ok(socket)
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(target_os = "linux")]
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    Ok(socket)
}

/// As much as the system gives; without is slower at worst.
fn receive_buffer(socket: &Socket) {
    #[cfg(target_os = "linux")]
    if nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER).is_ok() {
        return;
    }
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%error, "a receive buffer stays as it is");
    }
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
