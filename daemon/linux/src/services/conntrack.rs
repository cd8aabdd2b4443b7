//! Forgetting flows in connection tracking over netlink: IPCTNL_MSG_CT_GET and _DELETE (linux/nfnetlink_conntrack.h).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADERS: usize = 16 + 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const NESTED: u16 = 1 << 15;
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
    let mut count = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        let mut doomed = Vec::new();
        dump(family, &mut |message| {
            if let Some(original) = doomed_tuple(message, stale) {
                doomed.push(original.to_vec());
            }
        })?;
        for tuple in doomed {
            count += usize::from(delete(family, &tuple)?);
        }
    }
    Ok(count)
}

/// The original direction of a flow that is to go, as the kernel wrote it.
fn doomed_tuple<'a>(message: &'a [u8], stale: &Stale) -> Option<&'a [u8]> {
    let attributes = message.get(HEADERS..)?;
    let original_bytes = attribute(attributes, CTA_TUPLE_ORIG)?;
    let original = tuple(original_bytes)?;
    let reply = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    if original.protocol != UDP {
        return None;
    }
    let at = |place| stale.get(&(place, original.destination_port));
    let backends = at(original.destination).or_else(|| at(None))?;
    let backend = SocketAddr::new(reply.source?, reply.source_port);
    (!backends.contains(&backend)).then_some(original_bytes)
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

/// The value of the first attribute of this kind (netlink(7)).
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADERS + attributes.len());
    out.extend(length.to_ne_bytes());
    out.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence and port; then family, version and resource.
    out.extend([0; 8]);
    out.extend([family, 0, 0, 0]);
    out.extend(attributes);
    out
}

fn connect() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    // The kernel answers within the call; this only bounds what can't be foreseen.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    sendto(socket.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(())
}

/// Shows every flow of a family.
fn dump(family: u8, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let socket = connect()?;
    send(&socket, &message(GET, NLM_F_DUMP, family, &[]))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((size, kind)) = head(rest) {
            let Some(one) = rest.get(..size) else { break };
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return refusal(one),
                _ => each(one),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        if length == 0 {
            return Ok(());
        }
    }
}

/// Forgets one flow; false when it was gone already.
fn delete(family: u8, original: &[u8]) -> io::Result<bool> {
    let socket = connect()?;
    let length = u16::try_from(4 + original.len()).unwrap_or(u16::MAX);
    let mut attributes = length.to_ne_bytes().to_vec();
    attributes.extend((CTA_TUPLE_ORIG | NESTED).to_ne_bytes());
    attributes.extend(original);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    send(&socket, &message(DELETE, NLM_F_ACK, family, &attributes))?;
    let mut buffer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match refusal(buffer.get(..length).unwrap_or_default()) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Size and kind of the first message.
fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let size = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    usize::try_from(size).ok().filter(|size| *size >= 16).map(|size| (size, kind))
}

/// An acknowledgement bears the number 0.
fn refusal(message: &[u8]) -> io::Result<()> {
    let number = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        out.extend((kind).to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn flow(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let ip = [nested(1, &source), nested(2, &destination)].concat();
        let proto = [nested(1, &[UDP]), nested(2, &ports.0.to_be_bytes()), nested(3, &ports.1.to_be_bytes())].concat();
        [nested(1 | NESTED, &ip), nested(2 | NESTED, &proto)].concat()
    }

    #[test]
    fn flows_to_backends_that_are_none_any_more_are_found_and_no_others() {
        let client = [10, 88, 0, 2];
        let message = |backend: [u8; 4]| {
            let original = flow(client, [10, 96, 0, 1], (4000, 53));
            let reply = flow(backend, client, (53, 4000));
            message(GET, 0, 2, &[nested(1 | NESTED, &original), nested(2 | NESTED, &reply)].concat())
        };
        let backends = |list: &[&str]| list.iter().map(|b| b.parse().unwrap()).collect::<BTreeSet<SocketAddr>>();
        let at = |place: Option<&str>| (place.map(|p| p.parse().unwrap()), 53);
        let stale = Stale::from([(at(Some("10.96.0.1")), backends(&["10.88.0.9:53"]))]);
        assert!(doomed_tuple(&message([10, 88, 0, 8]), &stale).is_some());
        assert_eq!(doomed_tuple(&message([10, 88, 0, 9]), &stale), None);
        assert!(doomed_tuple(&message([10, 88, 0, 8]), &Stale::from([(at(None), backends(&[]))])).is_some());
        assert_eq!(
            doomed_tuple(&message([10, 88, 0, 8]), &Stale::from([(at(Some("10.96.0.2")), backends(&[]))])),
            None
        );
        let whole = message([10, 88, 0, 8]);
        (0..whole.len()).for_each(|cut| {
            let _ = doomed_tuple(&whole[..cut], &stale);
        });
    }
}
