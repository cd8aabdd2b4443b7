//! Datagrams on Linux: as many as wait are read with one system call and answered with another.

use super::udp::{LONGEST_QUERY, Waiting};
use super::{Next, Server};
use crate::dns::{Snapshot, Transport};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg,
    sendmmsg, sendmsg, setsockopt, sockopt,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Datagrams in one system call. More bring nothing: the calls' cost is spread thin already.
const BATCH: usize = 32;

/// From one packet's memory to the next. Were it a power of two, the beginnings of all, which is all that most have, would share a
/// few lines of the processor's cache.
const STRIDE: usize = LONGEST_QUERY + 64;

/// What arrived: its length, from where, and to which address of ours where that is not clear.
struct Arrived<P> {
    len: usize,
    peer: P,
    local: Option<IpAddr>,
}

/// Who asks, in no more bytes than the socket's family has: an address of any family has 128, which are copied four times
/// on the way from question to answer.
trait Peer: SockaddrLike + Copy + Send + Sync + 'static {
    fn ip(&self) -> IpAddr;
}

impl Peer for SockaddrIn {
    fn ip(&self) -> IpAddr {
        SockaddrIn::ip(self).into()
    }
}

impl Peer for SockaddrIn6 {
    fn ip(&self) -> IpAddr {
        SockaddrIn6::ip(self).into()
    }
}

/// The memory of one thread, used again and again.
struct Buffers<P> {
    packets: Vec<u8>,
    receive: MultiHeaders<P>,
    send: MultiHeaders<P>,
    arrived: Vec<Arrived<P>>,
    answers: Vec<Vec<u8>>,
}

/// Serves until it is told to end.
pub(super) fn run(waiting: &Waiting<'_>, socket: &Arc<UdpSocket>, server: &Arc<Server>) {
    match socket.local_addr() {
        Ok(address) if address.is_ipv4() => serve::<SockaddrIn>(waiting, socket, server),
        _ => serve::<SockaddrIn6>(waiting, socket, server),
    }
}

fn serve<P: Peer>(waiting: &Waiting<'_>, socket: &Arc<UdpSocket>, server: &Arc<Server>) {
    let wildcard = socket.local_addr().is_ok_and(|a| a.ip().is_unspecified());
    if wildcard {
        tell_destination(socket);
    }
    let mut buffers = Buffers::<P> {
        packets: vec![0; BATCH * STRIDE],
        receive: MultiHeaders::preallocate(BATCH, wildcard.then(|| cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo))),
        send: MultiHeaders::preallocate(BATCH, None),
        arrived: Vec::with_capacity(BATCH),
        answers: std::iter::repeat_with(Vec::new).take(BATCH).collect(),
    };
    let mut more = false;
    // A full batch means that more wait.
    while if more { !waiting.stopping() } else { waiting.readable() } {
        buffers.receive(socket);
        more = buffers.arrived.len() == BATCH;
        if !buffers.arrived.is_empty() {
            let snapshot = server.snapshot();
            buffers.respond(socket, server, &snapshot, wildcard);
        }
    }
}

/// Has the kernel say to which address a datagram was sent: the answer must come from there.
fn tell_destination(socket: &UdpSocket) {
    let told = match socket.local_addr() {
        Ok(address) if address.is_ipv4() => setsockopt(socket, sockopt::Ipv4PacketInfo, &true),
        _ => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "answers may leave from another address than was asked");
    }
}

impl<P: Peer> Buffers<P> {
    fn receive(&mut self, socket: &UdpSocket) {
        self.arrived.clear();
        let memory = self.packets.chunks_exact_mut(STRIDE).filter_map(|packet| packet.get_mut(..LONGEST_QUERY));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = memory.map(|packet| [IoSliceMut::new(packet)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        // Errors are those of earlier answers (ICMP), or nothing is there after all.
        let Ok(received) = recvmmsg(socket.as_raw_fd(), &mut self.receive, slices.iter_mut(), flags, None) else {
            return;
        };
        for message in received {
            let local = message.cmsgs().into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
                _ => None,
            });
            if let Some(peer) = message.address {
                self.arrived.push(Arrived { len: message.bytes, peer, local });
            }
        }
    }

    fn respond(&mut self, socket: &Arc<UdpSocket>, server: &Arc<Server>, snapshot: &Snapshot, wildcard: bool) {
        let mut ready: Vec<usize> = Vec::with_capacity(self.arrived.len());
        let mut dropped = 0;
        let packets = self.packets.chunks_exact(STRIDE);
        for (n, ((arrived, packet), out)) in self.arrived.iter().zip(packets).zip(&mut self.answers).enumerate() {
            let packet = packet.get(..arrived.len).unwrap_or_default();
            match server.respond(snapshot, packet, Transport::Udp, arrived.peer.ip(), out) {
                Next::Reply => ready.push(n),
                Next::Silence => dropped += 1,
                Next::Later(asked, pending) => {
                    let (socket, peer, local) = (Arc::clone(socket), arrived.peer, arrived.local);
                    server.later(asked, pending, move |answer| {
                        let _ = send(&socket, &answer, &peer, local);
                    });
                }
            }
        }
        server.counting.udp.fetch_add(self.arrived.len() as u64, Ordering::Relaxed);
        dropped += if wildcard { self.send_each(socket, &ready) } else { self.send_all(socket, &ready) };
        if dropped > 0 {
            server.counting.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
    }

    /// Each from the address that was asked.
    fn send_each(&self, socket: &UdpSocket, ready: &[usize]) -> usize {
        let sent = ready.iter().filter_map(|n| Some((self.arrived.get(*n)?, self.answers.get(*n)?)));
        sent.filter(|(arrived, answer)| send(socket, answer, &arrived.peer, arrived.local).is_err()).count()
    }

    /// All with one system call. Returns how many could not be sent.
    fn send_all(&mut self, socket: &UdpSocket, ready: &[usize]) -> usize {
        let Self { send: headers, arrived, answers, .. } = self;
        let mut rest = ready;
        let mut failed = 0;
        while !rest.is_empty() {
            let chosen = rest.iter().filter_map(|n| Some((arrived.get(*n)?, answers.get(*n)?)));
            let (peers, slices): (Vec<Option<P>>, Vec<[IoSlice<'_>; 1]>) =
                chosen.map(|(arrived, answer)| (Some(arrived.peer), [IoSlice::new(answer)])).unzip();
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = match sendmmsg(socket.as_raw_fd(), headers, slices.iter(), &peers, [], flags) {
                Ok(results) => results.count(),
                Err(Errno::EINTR) => continue,
                Err(_) => 0,
            };
            // The first that was not sent is why the call ended: the others get their own.
            failed += usize::from(sent < rest.len());
            rest = rest.get(sent + 1..).unwrap_or_default();
        }
        failed
    }
}

fn send(socket: &UdpSocket, answer: &[u8], peer: &impl Peer, local: Option<IpAddr>) -> nix::Result<()> {
    let (mut v4, mut v6) = (None, None);
    match local {
        Some(IpAddr::V4(address)) => {
            let address = libc::in_addr { s_addr: u32::from(address).to_be() };
            let any = libc::in_addr { s_addr: 0 };
            v4 = Some(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: any });
        }
        Some(IpAddr::V6(address)) => {
            let address = libc::in6_addr { s6_addr: address.octets() };
            v6 = Some(libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 });
        }
        None => {}
    }
    let from = v4.as_ref().map(ControlMessage::Ipv4PacketInfo).or(v6.as_ref().map(ControlMessage::Ipv6PacketInfo));
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(answer)], from.as_slice(), flags, Some(peer)).map(drop)
}
