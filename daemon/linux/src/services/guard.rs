//! A small table beside ours that nobody else can flush: it keeps translated connections alive, and pods that policies isolate
//! isolated.
//!
//! The kernel translates the packets of a connection that stands by what it remembers of it, not by rules; but it only looks
//! while some chain of type nat and some rule about connections exist in the network namespace. `nft flush ruleset` takes the
//! last of them away: from then on replies reach clients from the pod's own address, are answered by a reset, and the
//! connection is gone, however soon the rules come back. And policies would be open until then.
//!
//! This table belongs to our socket (NFT_TABLE_F_OWNER, Linux 5.12) and outlasts every flush. It goes with the socket: with the
//! daemon, unless the service manager keeps the socket for the next one. One chain of it does nothing, which is enough for connections. Two come right after those of the rules: what begins
//! anew, concerns an isolated pod and was not let pass by its policies ([`mark`]) is dropped. Which of it is allowed only the rules know.

use crate::nfnetlink::{self, NFTABLES, NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
use reddwarf_host::service::{Direction, ServiceTable};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// The bit of a packet's mark by which policies of one direction tell the guard that they let it pass. It is set in our chains and
/// taken away by the guard's, which come next: nobody in between, and nobody after.
///
/// That a packet came by the rules would not do: one that is on its way through them while the kernel takes them away still meets
/// the rules, but maps that are empty already, and so no policy.
pub(super) const fn mark(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0x1000_0000,
        Direction::Egress => 0x2000_0000,
    }
}

const NFPROTO_INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const NLM_F_APPEND: u16 = 0x800;
const TABLE_OWNER: u32 = 2;
/// Verdicts, which are chains' policies too.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// NF_INET_LOCAL_IN and NF_INET_FORWARD.
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
/// NF_IP_PRI_NAT_SRC as chains of nft's own have it at the input.
const PRIORITY_NAT: i32 = 100;
/// Right after the chains of `render.rs`.
const PRIORITY_FILTER: i32 = -4;

/// What isolated pods are told apart by: `ip daddr` in the first set and so on.
struct Isolated {
    set: &'static str,
    direction: Direction,
    v4: bool,
    /// Where in the packet's header the pod's address is.
    offset: u32,
}

const ISOLATED: [Isolated; 4] = [
    Isolated { set: "egress4", direction: Direction::Egress, v4: true, offset: 12 },
    Isolated { set: "egress6", direction: Direction::Egress, v4: false, offset: 8 },
    Isolated { set: "ingress4", direction: Direction::Ingress, v4: true, offset: 16 },
    Isolated { set: "ingress6", direction: Direction::Ingress, v4: false, offset: 24 },
];

impl Isolated {
    fn address_len(&self) -> u32 {
        if self.v4 { 4 } else { 16 }
    }
}

/// Pods by the direction in which a policy isolates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods(BTreeSet<(Direction, IpAddr)>);

impl Pods {
    pub(super) fn of(table: &ServiceTable) -> Self {
        let pods = table.isolations.iter().flat_map(|i| i.pods.iter().map(|pod| (i.direction, *pod)));
        Self(pods.collect())
    }

    /// Those that are in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    fn addresses(&self, of: &Isolated) -> impl Iterator<Item = IpAddr> {
        let ours = self.0.iter().filter(move |(way, pod)| *way == of.direction && pod.is_ipv4() == of.v4);
        ours.map(|(_, pod)| *pod)
    }
}

/// The table, for as long as the socket lives.
pub(crate) struct Guard {
    socket: Socket,
    table: String,
    holds: Holds,
}

/// What is in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// No table yet.
    Nothing,
    /// A table that a former daemon made: with its pods, and its chains.
    Former,
    /// Our table, which isolates these.
    Pods(Pods),
}

impl Guard {
    /// The guard that belongs to a socket. One that a former daemon made with it stands until pods are told.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(super) fn of(socket: Socket, table: &str) -> io::Result<Self> {
        let holds = if owner(table)? == Some(socket.port()?) { Holds::Former } else { Holds::Nothing };
        Ok(Self { socket, table: table.to_owned(), holds })
    }

    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// The pods that are isolated from now on; whether anything had to be changed.
    ///
    /// # Errors
    /// Kernels before 5.12 know no tables with owners.
    pub(super) fn isolate(&mut self, pods: Pods) -> io::Result<bool> {
        let batch = match &self.holds {
            Holds::Pods(now) if *now == pods => return Ok(false),
            Holds::Pods(_) => self.batch(|w| self.replace_pods(w, &pods)),
            Holds::Nothing => self.batch(|w| self.make(w, &pods)),
            Holds::Former => self.batch(|w| {
                self.delete(w, 0);
                self.make(w, &pods);
            }),
        };
        self.socket.transact(&batch)?;
        self.holds = Holds::Pods(pods);
        Ok(true)
    }

    /// Takes the table away; whether there was one.
    pub(super) fn remove(&mut self) -> io::Result<bool> {
        if self.holds == Holds::Nothing {
            return Ok(false);
        }
        let batch = Writer::batch(None, |w| self.delete(w, NLM_F_ACK));
        self.socket.transact(&batch)?;
        self.holds = Holds::Nothing;
        Ok(true)
    }

    /// A transaction that ends with the table, which is there by then: something has to be answered.
    fn batch(&self, body: impl FnOnce(&mut Writer)) -> Writer {
        Writer::batch(None, |w| {
            body(w);
            self.table(w, NLM_F_ACK);
        })
    }

    fn table(&self, w: &mut Writer, flags: u16) {
        w.message((NFTABLES << 8 | NEW_TABLE, flags), (NFPROTO_INET, 0), |w| {
            w.text(1, &self.table);
            w.number(2, TABLE_OWNER);
        });
    }

    fn delete(&self, w: &mut Writer, flags: u16) {
        w.message((NFTABLES << 8 | DELETE_TABLE, flags), (NFPROTO_INET, 0), |w| w.text(1, &self.table));
    }

    fn make(&self, w: &mut Writer, pods: &Pods) {
        let table = self.table.as_str();
        self.table(w, NLM_F_CREATE);
        for (id, of) in (1..).zip(&ISOLATED) {
            set(w, table, of, id);
        }
        for (name, hook) in [("forward", FORWARD), ("input", INPUT)] {
            chain(w, table, (name, "filter"), hook, PRIORITY_FILTER);
            rule(w, table, name, established_passes);
            // What is for the host itself is nobody's ingress.
            for of in ISOLATED.iter().filter(|of| hook == FORWARD || of.direction == Direction::Egress) {
                rule(w, table, name, |w| only_allowed_passes(w, of));
            }
            rule(w, table, name, unmark);
        }
        chain(w, table, ("keep_connections", "nat"), INPUT, PRIORITY_NAT);
        // `ct state`, into a register that nobody reads.
        rule(w, table, "keep_connections", load_state);
        self.add_pods(w, pods);
    }

    fn replace_pods(&self, w: &mut Writer, pods: &Pods) {
        for of in &ISOLATED {
            // Without elements: all of them.
            self.elements(w, of, (DELETE_ELEMENTS, 0), |_| {});
        }
        self.add_pods(w, pods);
    }

    fn add_pods(&self, w: &mut Writer, pods: &Pods) {
        for of in &ISOLATED {
            let addresses: Vec<IpAddr> = pods.addresses(of).collect();
            for some in addresses.chunks(PER_MESSAGE) {
                let list = |w: &mut Writer| w.nest(3, |w| some.iter().for_each(|address| element(w, *address)));
                self.elements(w, of, (NEW_ELEMENTS, NLM_F_CREATE), list);
            }
        }
    }

    fn elements(&self, w: &mut Writer, of: &Isolated, (kind, flags): (u16, u16), body: impl FnOnce(&mut Writer)) {
        w.message((NFTABLES << 8 | kind, flags), (NFPROTO_INET, 0), |w| {
            w.text(1, &self.table);
            w.text(2, of.set);
            body(w);
        });
    }
}

/// The port of the socket that a table belongs to; `None`: there is no such table, or it is nobody's.
fn owner(table: &str) -> io::Result<Option<u32>> {
    /// NFTA_TABLE_OWNER.
    const OWNER: u16 = 7;
    let mut request = Writer::default();
    request.message((NFTABLES << 8 | GET_TABLE, 0), (NFPROTO_INET, 0), |w| w.text(1, table));
    let socket = Socket::connect()?;
    socket.send(&request)?;
    let mut buffer = [0; 4096];
    let answer = nfnetlink::parts(socket.receive(&mut buffer)?);
    Ok(answer.filter(|(kind, _)| *kind == NFTABLES << 8 | NEW_TABLE).and_then(|(_, a)| nfnetlink::number(a, OWNER)))
}

/// Elements of one message: an attribute has 64 KiB at most.
const PER_MESSAGE: usize = 1000;

fn element(w: &mut Writer, address: IpAddr) {
    w.nest(1, |w| {
        w.nest(1, |w| match address {
            IpAddr::V4(v4) => w.attribute(1, &v4.octets()),
            IpAddr::V6(v6) => w.attribute(1, &v6.octets()),
        });
    });
}

fn set(w: &mut Writer, table: &str, of: &Isolated, id: u32) {
    /// How nft numbers types of keys: ipv4_addr, ipv6_addr.
    const TYPES: (u32, u32) = (7, 8);
    w.message((NFTABLES << 8 | NEW_SET, NLM_F_CREATE), (NFPROTO_INET, 0), |w| {
        w.text(1, table);
        w.text(2, of.set);
        w.number(4, if of.v4 { TYPES.0 } else { TYPES.1 });
        w.number(5, of.address_len());
        w.number(10, id);
    });
}

fn chain(w: &mut Writer, table: &str, (name, kind): (&str, &str), hook: u32, priority: i32) {
    w.message((NFTABLES << 8 | NEW_CHAIN, NLM_F_CREATE), (NFPROTO_INET, 0), |w| {
        w.text(1, table);
        w.text(3, name);
        w.nest(4, |w| {
            w.number(1, hook);
            w.attribute(2, &priority.to_be_bytes());
        });
        w.number(5, ACCEPT);
        w.text(7, kind);
    });
}

fn rule(w: &mut Writer, table: &str, chain: &str, expressions: impl FnOnce(&mut Writer)) {
    w.message((NFTABLES << 8 | NEW_RULE, NLM_F_CREATE | NLM_F_APPEND), (NFPROTO_INET, 0), |w| {
        w.text(1, table);
        w.text(2, chain);
        w.nest(4, expressions);
    });
}

/// `ct state established,related accept`
fn established_passes(w: &mut Writer) {
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    load_state(w);
    keep_bits(w, ESTABLISHED_OR_RELATED);
    continue_if(w, NOT_EQUAL, &[0; 4]);
    verdict(w, ACCEPT);
}

/// `meta mark & BITS != 0 meta mark set mark & ~BITS`
fn unmark(w: &mut Writer) {
    const BITS: u32 = mark(Direction::Ingress) | mark(Direction::Egress);
    load_meta(w, META_MARK);
    keep_bits(w, BITS);
    continue_if(w, NOT_EQUAL, &[0; 4]);
    load_meta(w, META_MARK);
    keep_bits(w, !BITS);
    expression(w, "meta", |w| {
        w.number(2, META_MARK);
        w.number(3, REGISTER);
    });
}

/// `meta mark & BIT == 0 ip daddr @ingress4 drop` and the like.
fn only_allowed_passes(w: &mut Writer, of: &Isolated) {
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    const NETWORK_HEADER: u32 = 1;
    load_meta(w, META_MARK);
    keep_bits(w, mark(of.direction));
    continue_if(w, EQUAL, &[0; 4]);
    load_meta(w, META_FAMILY);
    continue_if(w, EQUAL, &[if of.v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]);
    expression(w, "payload", |w| {
        w.number(1, REGISTER);
        w.number(2, NETWORK_HEADER);
        w.number(3, of.offset);
        w.number(4, of.address_len());
    });
    expression(w, "lookup", |w| {
        w.text(1, of.set);
        w.number(2, REGISTER);
    });
    verdict(w, DROP);
}

/// NFT_REG_1, and that of verdicts.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const META_MARK: u32 = 3;
const META_FAMILY: u32 = 15;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

fn expression(w: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    w.nest(1, |w| {
        w.text(1, name);
        w.nest(2, data);
    });
}

fn load_state(w: &mut Writer) {
    const STATE: u32 = 0;
    expression(w, "ct", |w| {
        w.number(1, REGISTER);
        w.number(2, STATE);
    });
}

fn load_meta(w: &mut Writer, key: u32) {
    expression(w, "meta", |w| {
        w.number(1, REGISTER);
        w.number(2, key);
    });
}

/// `&=`: numbers in registers are in the machine's byte order.
fn keep_bits(w: &mut Writer, bits: u32) {
    expression(w, "bitwise", |w| {
        w.number(1, REGISTER);
        w.number(2, REGISTER);
        w.number(3, 4);
        w.nest(4, |w| w.attribute(1, &bits.to_ne_bytes()));
        w.nest(5, |w| w.attribute(1, &[0; 4]));
    });
}

fn continue_if(w: &mut Writer, comparison: u32, value: &[u8]) {
    expression(w, "cmp", |w| {
        w.number(1, REGISTER);
        w.number(2, comparison);
        w.nest(3, |w| w.attribute(1, value));
    });
}

fn verdict(w: &mut Writer, code: u32) {
    expression(w, "immediate", |w| {
        w.number(1, VERDICT_REGISTER);
        w.nest(2, |w| w.nest(2, |w| w.number(1, code)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_apart_by_direction_and_family() {
        let pod = |way, ip: &str| (way, ip.parse().unwrap());
        let some = Pods([pod(Direction::Ingress, "10.0.0.1"), pod(Direction::Egress, "fd00::1")].into());
        let found: Vec<usize> = ISOLATED.iter().map(|of| some.addresses(of).count()).collect();
        assert_eq!(found, [0, 1, 1, 0]);
        let other = Pods([pod(Direction::Ingress, "10.0.0.1"), pod(Direction::Ingress, "fd00::1")].into());
        assert_eq!(some.and(&other), Pods([pod(Direction::Ingress, "10.0.0.1")].into()));
    }
}
