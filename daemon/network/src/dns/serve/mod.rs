//! Sockets, and what is done with what arrives at them.
//!
//! | to know | look in |
//! |---|---|
//! | binding, before the address exists too | `bind.rs` |
//! | datagrams: one thread a socket that sleeps in poll(2) | `udp.rs`; many in one system call: `batch.rs` (Linux) |
//! | streams | `tcp.rs` |

#[cfg(target_os = "linux")]
mod batch;
mod bind;
mod tcp;
mod udp;

pub use bind::{Bound, bind, bind_tcp};

use super::answer::{Aliases, Verdict, answer};
use super::forward::{Asked, ForwardCounts, Forwarder, Outcome, compose};
use super::message::{Query, Rcode, Reply, Transport};
use super::name::Room;
use super::snapshot::Snapshot;
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Answers queries from the latest snapshot.
#[derive(Debug)]
pub struct Server {
    snapshot: RwLock<Arc<Snapshot>>,
    forwarder: Arc<Forwarder>,
    recursion: Vec<IpNet>,
    counting: Counting,
}

#[derive(Debug, Default)]
struct Counting {
    udp: AtomicU64,
    tcp: AtomicU64,
    dropped: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries by UDP.
    pub udp: u64,
    /// Queries by TCP.
    pub tcp: u64,
    /// Packets that got no answer: they were none that has one, or the answer could not be sent.
    pub dropped: u64,
    /// Questions for the host's servers.
    pub forwarded: ForwardCounts,
}

/// Addresses that are nobody's on the internet: who has one is near (RFC 1918, 6598, 3927, 4193, 4291).
const NEAR: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Server {
    /// A server of the names in `snapshot`. Others are asked through `forwarder`, for pods (`pods`), this host and
    /// private addresses only: never an open resolver.
    pub fn new(snapshot: Arc<Snapshot>, forwarder: Arc<Forwarder>, pods: &[IpNet]) -> Arc<Self> {
        let near = NEAR.iter().filter_map(|net| net.parse().ok());
        let recursion = pods.iter().copied().chain(near).collect();
        Arc::new(Self { snapshot: RwLock::new(snapshot), forwarder, recursion, counting: Counting::default() })
    }

    /// From now on answers come from `snapshot`.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let before = {
            let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot)
        };
        // Freed outside the lock: that may take longer than anybody should wait.
        drop(before);
    }

    /// The names that answers come from.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who asks the host's servers.
    pub fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counting { udp, tcp, dropped } = &self.counting;
        Counts { udp: get(udp), tcp: get(tcp), dropped: get(dropped), forwarded: self.forwarder.counts() }
    }

    fn recursion_for(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.recursion.iter().any(|net| net.contains(&peer))
    }

    /// Answers a packet from `snapshot` into `out`, or says that the answer takes longer.
    fn respond(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        transport: Transport,
        peer: IpAddr,
        out: &mut Vec<u8>,
    ) -> Next {
        let mut room = Room::default();
        match answer(snapshot, packet, transport, || self.recursion_for(peer), &mut room, out) {
            Verdict::Reply => Next::Reply,
            Verdict::Silence => Next::Silence,
            Verdict::Forward(forward) => {
                let asked = Asked::of(&forward);
                if let Some(outcome) = self.forwarder.remembered(&asked) {
                    compose(&forward.query, forward.aliases.as_ref(), &outcome, out);
                    return Next::Reply;
                }
                Next::Later(asked, Box::new(Pending { packet: packet.into(), transport, aliases: forward.aliases }))
            }
        }
    }

    /// Has a question asked elsewhere. `send` gets the answer, at once when too many wait already.
    fn later(&self, asked: Asked, pending: Box<Pending>, send: impl FnOnce(Vec<u8>) + Send + 'static) {
        let done = Box::new(move |outcome: &Outcome| send(pending.finish(outcome)));
        if let Err(done) = self.forwarder.ask(asked, done) {
            done(&Outcome::Nothing);
        }
    }
}

/// What follows from a packet.
enum Next {
    Reply,
    Silence,
    Later(Asked, Box<Pending>),
}

/// A query while others are asked.
struct Pending {
    packet: Box<[u8]>,
    transport: Transport,
    aliases: Option<Aliases>,
}

impl Pending {
    fn finish(&self, outcome: &Outcome) -> Vec<u8> {
        let mut out = Vec::new();
        // It was read before.
        if let Ok(query) = Query::read(&self.packet, self.transport, &mut Room::default()) {
            match outcome {
                Outcome::Nothing => Reply::to(&query, &mut out).rcode(Rcode::ServFail).finish(false),
                outcome => compose(&query, self.aliases.as_ref(), outcome, &mut out),
            }
        }
        out
    }
}

/// Serves one address until it is dropped. Its sockets may have copies elsewhere: what arrived and was not read is then
/// for whoever reads next.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    threads: Vec<udp::Thread>,
    stop: CancellationToken,
}

impl Listener {
    /// Starts serving.
    ///
    /// # Errors
    /// When threads or descriptors are used up.
    pub fn start(bound: Bound, server: &Arc<Server>, runtime: &Handle) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Vec::with_capacity(bound.udp.len());
        for socket in bound.udp {
            threads.push(udp::Thread::start(socket, Arc::clone(server))?);
        }
        for socket in bound.tcp {
            socket.set_nonblocking(true)?;
            let _in_runtime = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(socket)?;
            runtime.spawn(tcp::serve(listener, Arc::clone(server), stop.clone()));
        }
        Ok(Self { address: bound.address, threads, stop })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers what was read, reads nothing more.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            thread.stop();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
    }
}
