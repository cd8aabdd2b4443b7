//! Datagrams: a thread for each socket. It sleeps in poll(2) while there is nothing, and nothing else wakes it.

use super::{Next, Server};
use crate::dns::Transport;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Longer queries are nobody's.
pub(super) const LONGEST_QUERY: usize = 2048;
/// Answers are built on the heap.
const STACK: usize = 128 << 10;

/// A running thread.
#[derive(Debug)]
pub(super) struct Thread {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Thread {
    pub(super) fn start(socket: UdpSocket, server: Arc<Server>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (wake, woken) = UnixStream::pair()?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let work = move || {
            let socket = Arc::new(socket);
            let waiting = Waiting { socket: &socket, woken: &woken, stop: &flag };
            #[cfg(target_os = "linux")]
            super::batch::run(&waiting, &socket, &server);
            #[cfg(not(target_os = "linux"))]
            run(&waiting, &socket, &server);
        };
        let thread = std::thread::Builder::new().name("dns".into()).stack_size(STACK).spawn(work)?;
        Ok(Self { wake, stop, thread })
    }

    /// Ends it after what it is doing.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // The other end's closing wakes it.
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("a thread of the name server panicked: this is a bug, please report it");
        }
    }
}

/// What a thread waits for.
pub(super) struct Waiting<'t> {
    socket: &'t UdpSocket,
    woken: &'t UnixStream,
    stop: &'t AtomicBool,
}

impl Waiting<'_> {
    /// Waits until there is something to read. `false`: the thread is to end.
    pub(super) fn readable(&self) -> bool {
        let mut fds =
            [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        loop {
            if self.stopping() {
                return false;
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return !self.stopping(),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the name server can't wait for queries");
                    return false;
                }
            }
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// One datagram at a time, with nothing that only some systems have.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "Linux takes many at a time"))]
pub(super) fn run(waiting: &Waiting<'_>, socket: &Arc<UdpSocket>, server: &Arc<Server>) {
    let (mut packet, mut out) = (vec![0; LONGEST_QUERY + 1], Vec::new());
    while waiting.readable() {
        let (len, peer) = match socket.recv_from(&mut packet) {
            Ok(received) => received,
            // An ICMP error of an earlier answer, or somebody else was faster.
            Err(_) => continue,
        };
        server.counting.udp.fetch_add(1, Ordering::Relaxed);
        let packet = packet.get(..len.min(LONGEST_QUERY)).unwrap_or_default();
        let snapshot = server.snapshot();
        let sent = match server.respond(&snapshot, packet, Transport::Udp, peer.ip(), &mut out) {
            Next::Reply => socket.send_to(&out, peer).is_ok(),
            Next::Silence => false,
            Next::Later(asked, pending) => {
                let socket = Arc::clone(socket);
                server.later(asked, pending, move |answer| send(&socket, &answer, peer));
                true
            }
        };
        if !sent {
            server.counting.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(answer, peer) {
        tracing::debug!(%error, %peer, "an answer could not be sent");
    }
}
