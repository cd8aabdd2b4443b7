//! Forgetting flows in connection tracking over netlink: IPCTNL_MSG_CT_GET and _DELETE (linux/nfnetlink_conntrack.h).

use crate::nfnetlink::{self, CONNTRACK, NLM_F_ACK, NLM_F_DUMP, Socket, Writer, attribute};
use reddwarf_host::service::{Place, Protocol, ServiceTable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

const GET: u16 = 1;
const DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// A packet went the other way too (IPS_SEEN_REPLY).
const SEEN_REPLY: u32 = 1 << 1;
const UDP: u8 = 17;

/// Where a frontend is (`None`: at every address of the host) and its port, with the backends that it has.
pub(super) type Stale = BTreeMap<(Option<IpAddr>, u16), BTreeSet<SocketAddr>>;

/// One direction of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// Forgets UDP flows to these frontends that lead to none of their backends; says how many.
pub(super) fn forget_udp(stale: &Stale) -> io::Result<usize> {
    forget(Asked::All, &|flow| {
        let at = |place| stale.get(&(place, flow.original.destination_port));
        let backends = at(flow.original.destination).or_else(|| at(None));
        let backend = flow.reply.source.map(|ip| SocketAddr::new(ip, flow.reply.source_port));
        flow.original.protocol == UDP && backends.zip(backend).is_some_and(|(all, one)| !all.contains(&one))
    })
}

/// Forgets flows to frontends that began while there were no rules, and lead nowhere: the client's next packet finds the
/// service. Says how many.
pub(super) fn forget_lost(table: &ServiceTable) -> io::Result<usize> {
    let place = |f: &reddwarf_host::service::Frontend| match f.place {
        Place::Address(address) => Some(address),
        Place::HostV4 | Place::HostV6 => None,
    };
    let frontends: BTreeSet<_> = table.frontends.keys().map(|f| (place(f), number(f.protocol), f.port)).collect();
    forget(Asked::Unanswered, &|flow| {
        let Flow { original, reply, answered } = flow;
        let at = |place| frontends.contains(&(place, original.protocol, original.destination_port));
        let straight = original.destination == reply.source && original.destination_port == reply.source_port;
        !answered && straight && (at(original.destination) || at(None))
    })
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

/// Which flows the kernel is asked for. One before 5.18 tells of all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    All,
    Unanswered,
}

fn forget(asked: Asked, doomed: &dyn Fn(&Flow) -> bool) -> io::Result<usize> {
    let socket = Socket::connect()?;
    let mut count = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        let mut found = Vec::new();
        let mut request = Writer::default();
        request.message((CONNTRACK << 8 | GET, NLM_F_DUMP), (family, 0), |w| {
            if asked == Asked::Unanswered {
                w.number(CTA_STATUS, 0);
                w.number(CTA_STATUS_MASK, SEEN_REPLY);
            }
        });
        socket.dump(&request, &mut |message| {
            found.extend(Flow::read(message).filter(|(flow, _)| doomed(flow)).map(|(_, original)| original.to_vec()));
        })?;
        for original in found {
            count += usize::from(delete(&socket, family, &original)?);
        }
    }
    Ok(count)
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    original: Tuple,
    reply: Tuple,
    answered: bool,
}

impl Flow {
    /// With its original direction as the kernel wrote it.
    fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (_, attributes) = nfnetlink::parts(message)?;
        let original = attribute(attributes, CTA_TUPLE_ORIG)?;
        let reply = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
        let answered = nfnetlink::number(attributes, CTA_STATUS).unwrap_or_default() & SEEN_REPLY != 0;
        Some((Self { original: tuple(original)?, reply, answered }, original))
    }
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attribute(bytes, CTA_TUPLE_IP)?, attribute(bytes, CTA_TUPLE_PROTO)?);
    let address = |four: u16, six: u16| {
        let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(attribute(ip, four)?).ok()?));
        v4().or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, six)?).ok()?)))
    };
    let port = |kind: u16| Some(u16::from_be_bytes(attribute(proto, kind)?.try_into().ok()?));
    Some(Tuple {
        source: address(1, 3),
        destination: address(2, 4),
        protocol: *attribute(proto, 1)?.first()?,
        source_port: port(2).unwrap_or_default(),
        destination_port: port(3).unwrap_or_default(),
    })
}

/// Forgets one flow; false when it was gone already.
fn delete(socket: &Socket, family: u8, original: &[u8]) -> io::Result<bool> {
    let mut request = Writer::default();
    request.message((CONNTRACK << 8 | DELETE, NLM_F_ACK), (family, 0), |w| w.nested(CTA_TUPLE_ORIG, original));
    socket.send(&request)?;
    match nfnetlink::refusal(socket.receive(&mut [0; 1024])?) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(w: &mut Writer, kind: u16, source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) {
        w.nest(kind, |w| {
            w.nest(CTA_TUPLE_IP, |w| {
                w.attribute(1, &source);
                w.attribute(2, &destination);
            });
            w.nest(CTA_TUPLE_PROTO, |w| {
                w.attribute(1, &[UDP]);
                w.attribute(2, &ports.0.to_be_bytes());
                w.attribute(3, &ports.1.to_be_bytes());
            });
        });
    }

    fn message(backend: [u8; 4], status: u32) -> Vec<u8> {
        let mut out = Writer::default();
        out.message((CONNTRACK << 8, 0), (2, 0), |w| {
            flow(w, CTA_TUPLE_ORIG, [10, 88, 0, 2], [10, 96, 0, 1], (4000, 53));
            flow(w, CTA_TUPLE_REPLY, backend, [10, 88, 0, 2], (53, 4000));
            w.number(CTA_STATUS, status);
        });
        out.bytes().to_vec()
    }

    #[test]
    fn a_flow_is_read_whole_or_not_at_all() {
        let whole = message([10, 88, 0, 8], SEEN_REPLY);
        let (read, _) = Flow::read(&whole).unwrap();
        let tuple = |source: [u8; 4], destination: [u8; 4], source_port, destination_port| Tuple {
            source: Some(source.into()),
            destination: Some(destination.into()),
            protocol: UDP,
            source_port,
            destination_port,
        };
        assert_eq!(read.original, tuple([10, 88, 0, 2], [10, 96, 0, 1], 4000, 53));
        assert_eq!(read.reply, tuple([10, 88, 0, 8], [10, 88, 0, 2], 53, 4000));
        assert!(read.answered);
        assert!(!Flow::read(&message([10, 88, 0, 8], 0)).unwrap().0.answered);
        (0..whole.len()).for_each(|cut| {
            let _ = Flow::read(&whole[..cut]);
        });
    }
}
