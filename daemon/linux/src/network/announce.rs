//! Telling the neighbours that an address has a new hardware address.
//!
//! A pod may get an address that another pod had a moment ago. Whoever talked to that one remembers its hardware
//! address for up to a minute. So a new link is announced on the bridge as RFC 5227 (section 3) says: an ARP request
//! for the address, from the address. It is sent by the host through the bridge, because the pod's own port may not
//! forward yet.

use super::netlink::Mac;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto, socket,
};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// Ethernet, IPv4, request (RFC 826).
const ARP_REQUEST_HEAD: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// Says on the link `index` of this thread's namespace that `ip` is at `mac`.
pub(crate) fn announce(index: u32, ip: Ipv4Addr, mac: Mac) -> nix::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
    let sent = sendto(socket.as_raw_fd(), &arp_announcement(ip, mac), &broadcast(index)?, MsgFlags::MSG_DONTWAIT);
    // Closing a packet socket waits for every processor to have let go of it, which takes longer than the rest of a link.
    drop(tokio::task::spawn_blocking(move || drop(socket)));
    sent.map(drop)
}

/// The same for IPv6: an unsolicited neighbour advertisement to all nodes (RFC 4861, section 7.2.6).
pub(crate) fn announce_v6(index: u32, ip: Ipv6Addr, mac: Mac) -> nix::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
    let to = link_address(index, libc::ETH_P_IPV6, [0x33, 0x33, 0, 0, 0, 1])?;
    let sent = sendto(socket.as_raw_fd(), &neighbour_advertisement(ip, mac), &to, MsgFlags::MSG_DONTWAIT);
    drop(tokio::task::spawn_blocking(move || drop(socket)));
    sent.map(drop)
}

fn neighbour_advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Type 136, no checksum yet, flag "override", target, option "target link-layer address".
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    // RFC 4443, section 2.3: over addresses, length and next header as well.
    let mut covered: Vec<u8> = ip.octets().to_vec();
    covered.extend(ALL_NODES.octets());
    covered.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    covered.extend(&icmp);
    let sum: u32 = covered.chunks(2).map(|pair| pair.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
    icmp.splice(2..4, checksum.to_be_bytes());
    // IPv6: 32 bytes of ICMPv6, hop limit 255.
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    packet.extend(ip.octets());
    packet.extend(ALL_NODES.octets());
    packet.extend(icmp);
    packet
}

fn arp_announcement(ip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut packet = ARP_REQUEST_HEAD.to_vec();
    packet.extend(mac);
    packet.extend(ip.octets());
    packet.extend([0; 6]);
    packet.extend(ip.octets());
    packet
}

/// Everyone on the link.
fn broadcast(index: u32) -> nix::Result<LinkAddr> {
    link_address(index, libc::ETH_P_ARP, [0xff; 6])
}

/// A hardware address on a link (packet(7), struct sockaddr_ll).
fn link_address(index: u32, protocol: i32, to: Mac) -> nix::Result<LinkAddr> {
    let [a, b, c, d, e, f] = to;
    let invalid = nix::errno::Errno::EINVAL;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| invalid)?,
        sll_protocol: u16::try_from(protocol).map_err(|_| invalid)?.to_be(),
        sll_ifindex: i32::try_from(index).map_err(|_| invalid)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| invalid)?;
    // SAFETY: the pointer is to a whole, initialised sockaddr_ll of AF_PACKET that outlives the call, which copies it;
    // `length` is its size.
    #[allow(unsafe_code)]
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    address.ok_or(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_asks_for_its_own_address() {
        assert_eq!(
            arp_announcement(Ipv4Addr::new(10, 88, 0, 5), [2, 1, 2, 3, 4, 5]),
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 1, 2, 3, 4, 5, 10, 88, 0, 5, 0, 0, 0, 0, 0, 0, 10, 88, 0, 5]
        );
    }
}
