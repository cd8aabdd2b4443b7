//! All links at once, read as the kernel tells them (rtnetlink(7), linux/if_link.h): what the library makes of one is twenty kilobytes, and
//! an idle daemon with a hundred pods would hold a hundred of those twice a minute.

use super::netlink::{Link, NetlinkError};
use crate::nfnetlink::{NLM_F_DUMP, Socket, Writer, attribute};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use std::io;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// The links changed while they were told: some may be missing.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `nlmsghdr` and `ifinfomsg`.
const HEADERS: usize = 16 + 16;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// Without counters, which are half of what the kernel would tell.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// A list that others keep changing is taken as it is in the end.
const TRIES: usize = 5;

/// All links of the daemon's namespace.
///
/// # Errors
/// The kernel refuses, or does not answer.
pub(crate) async fn list() -> Result<Vec<Link>, NetlinkError> {
    match tokio::task::spawn_blocking(list_here).await {
        Ok(listed) => listed,
        Err(e) => Err(NetlinkError::from_io("list links", io::Error::other(e))),
    }
}

/// All links of this thread's namespace.
pub(crate) fn list_here() -> Result<Vec<Link>, NetlinkError> {
    dump().map_err(|e| match e.raw_os_error() {
        Some(number) => NetlinkError::Refused { what: "list links".to_owned(), errno: Errno::from_raw(number) },
        None => NetlinkError::from_io("list links", e),
    })
}

fn dump() -> io::Result<Vec<Link>> {
    let mut request = Writer::default();
    request.message((RTM_GETLINK, NLM_F_DUMP), (0, 0), |w| {
        w.header(&[0; 12]);
        w.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    });
    let mut links = Vec::new();
    for _ in 0..TRIES {
        links.clear();
        let mut changed = false;
        // A conversation for each: what is left of one that was broken off does not get into the next.
        Socket::with(SockProtocol::NetlinkRoute)?.dump(&request, &mut |message| {
            changed |= half(message, 6).is_some_and(|flags| flags & NLM_F_DUMP_INTR != 0);
            links.extend(link(message));
        })?;
        if !changed {
            break;
        }
    }
    Ok(links)
}

/// What one message says of a link; `None` for others, and for what is cut off.
fn link(message: &[u8]) -> Option<Link> {
    if half(message, 4)? != RTM_NEWLINK {
        return None;
    }
    let attributes = message.get(HEADERS..)?;
    let number = |kind| word(attribute(attributes, kind)?, 0);
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    let is_port = attribute(info, IFLA_INFO_SLAVE_KIND).and_then(text).as_deref() == Some("bridge");
    let port = attribute(info, IFLA_INFO_SLAVE_DATA).filter(|_| is_port).unwrap_or_default();
    let is_set = |kind| attribute(port, kind).is_some_and(|value| value.first().is_some_and(|&byte| byte != 0));
    Some(Link {
        index: word(message, 20)?,
        name: attribute(attributes, IFLA_IFNAME).and_then(text).unwrap_or_default(),
        alias: attribute(attributes, IFLA_IFALIAS).and_then(text),
        is_bridge: attribute(info, IFLA_INFO_KIND).and_then(text).as_deref() == Some("bridge"),
        controller: number(IFLA_MASTER).filter(|&index| index != 0),
        peer: number(IFLA_LINK),
        mac: attribute(attributes, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
        mtu: number(IFLA_MTU).unwrap_or_default(),
        up: word(message, 24)? & IFF_UP != 0,
        hairpin: is_set(IFLA_BRPORT_MODE),
        isolated: is_set(IFLA_BRPORT_ISOLATED),
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text, ended as C does.
fn text(value: &[u8]) -> Option<String> {
    String::from_utf8(value.split(|&byte| byte == 0).next()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Writer {
        let mut out = Writer::default();
        out.message((RTM_NEWLINK, 0), (0, 0), |w| {
            w.header(&[7_u32, IFF_UP, 0].map(u32::to_ne_bytes).concat());
            w.text(IFLA_IFNAME, "rdv1");
            w.text(IFLA_IFALIAS, "reddwarf:a");
            w.attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]);
            w.attribute(IFLA_MTU, &1400_u32.to_ne_bytes());
            w.attribute(IFLA_MASTER, &3_u32.to_ne_bytes());
            w.attribute(IFLA_LINK, &2_u32.to_ne_bytes());
            w.nest(IFLA_LINKINFO, |w| {
                w.text(IFLA_INFO_KIND, "veth");
                w.text(IFLA_INFO_SLAVE_KIND, "bridge");
                w.nest(IFLA_INFO_SLAVE_DATA, |w| {
                    w.attribute(IFLA_BRPORT_MODE, &[1]);
                    w.attribute(IFLA_BRPORT_ISOLATED, &[0]);
                });
            });
        });
        out
    }

    #[test]
    fn a_port_of_a_bridge_is_read() {
        let expected = Link {
            index: 7,
            name: "rdv1".to_owned(),
            alias: Some("reddwarf:a".to_owned()),
            is_bridge: false,
            controller: Some(3),
            peer: Some(2),
            mac: Some([2, 0, 0, 0, 0, 9]),
            mtu: 1400,
            up: true,
            hairpin: true,
            isolated: false,
        };
        assert_eq!(link(port().bytes()), Some(expected));
    }

    #[test]
    fn what_is_cut_off_anywhere_does_no_harm() {
        let whole = port();
        for length in 0..whole.bytes().len() {
            assert!(link(&whole.bytes()[..length]).is_none_or(|link| link.index == 7));
        }
    }
}
