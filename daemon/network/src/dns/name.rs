//! Names as they are on the wire: length-prefixed labels, the root at the end, lower-cased for comparing (RFC 1035
//! section 3.1, RFC 4343).

use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::borrow::Borrow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Bytes of the longest name, its root included (RFC 1035 section 3.1).
pub(crate) const LONGEST: usize = 255;
const LONGEST_LABEL: u8 = 63;

/// Room for one name.
pub(crate) struct Room([u8; LONGEST]);

impl Default for Room {
    fn default() -> Self {
        Self([0; LONGEST])
    }
}

/// A name in lower case, without allocation.
#[derive(Clone, Copy)]
pub(crate) struct Lower<'r>(&'r [u8]);

impl<'r> Lower<'r> {
    /// The uncompressed name at `at` in a packet, and where it ends.
    pub(crate) fn read(packet: &[u8], at: usize, Room(bytes): &'r mut Room) -> Option<(Self, usize)> {
        let mut len = 0_usize;
        let rest = packet.get(at..)?;
        loop {
            let label = *rest.get(len)?;
            // A pointer (or a label type that nobody uses) has nothing to point to in a question.
            if label > LONGEST_LABEL {
                return None;
            }
            let end = len + 1 + usize::from(label);
            let from = rest.get(len..end)?;
            for (to, from) in bytes.get_mut(len..end)?.iter_mut().zip(from) {
                *to = from.to_ascii_lowercase();
            }
            len = end;
            if label == 0 {
                return Some((Self(bytes.get(..len)?), at + len));
            }
        }
    }

    /// The whole name.
    pub(crate) fn wire(self) -> &'r [u8] {
        self.0
    }
}

/// A whole name on the wire, in lower case. Cheap to clone; in no order that means anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wire(Arc<[u8]>);

impl Wire {
    /// Labels before a name, in lower case; `None` when it is no name.
    pub(crate) fn below(parent: &[u8], before: &[&[u8]]) -> Option<Self> {
        let mut wire = Writer::default();
        for label in before {
            wire.label(&[label])?;
        }
        wire.end(parent)
    }

    /// `_http._tcp` before a name.
    pub(crate) fn port(parent: &[u8], name: &str, protocol: &str) -> Option<Self> {
        let mut wire = Writer::default();
        for label in [name, protocol] {
            wire.label(&[b"_", label.as_bytes()])?;
        }
        wire.end(parent)
    }

    /// The name of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
    pub(crate) fn reverse(address: IpAddr) -> Self {
        let mut wire = Writer::default();
        let written = match address {
            IpAddr::V4(v4) => {
                let octets = v4.octets().into_iter().rev().try_for_each(|octet| {
                    let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
                    let zeros = digits.iter().take(2).take_while(|digit| **digit == b'0').count();
                    wire.label(&[digits.get(zeros..)?])
                });
                octets.and_then(|()| wire.end(IN_ADDR))
            }
            IpAddr::V6(v6) => {
                let mut nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
                let digits = nibbles.try_for_each(|nibble| {
                    wire.label(&[&[if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }]])
                });
                digits.and_then(|()| wire.end(IP6))
            }
        };
        // None is too long.
        written.unwrap_or_else(|| Self(Arc::from([0_u8])))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As hickory has it.
    pub(crate) fn to_hickory(&self) -> Option<hickory_proto::rr::Name> {
        hickory_proto::rr::Name::read(&mut BinDecoder::new(&self.0)).ok()
    }
}

/// A name in the making, without allocation.
struct Writer {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }
}

impl Writer {
    /// One label, of parts, in lower case.
    fn label(&mut self, parts: &[&[u8]]) -> Option<()> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u8::try_from(len).ok().filter(|len| (1..=LONGEST_LABEL).contains(len))?;
        self.push(&[len])?;
        parts.iter().try_for_each(|part| {
            self.push(part)?;
            let start = self.len - part.len();
            self.bytes.get_mut(start..self.len)?.make_ascii_lowercase();
            Some(())
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn end(mut self, parent: &[u8]) -> Option<Wire> {
        self.push(parent)?;
        self.bytes.get(..self.len).map(|bytes| Wire(bytes.into()))
    }
}

/// The name without its first label; `None`: it is the root.
pub(crate) fn parent(wire: &[u8]) -> Option<&[u8]> {
    let label = wire.first().copied().filter(|len| *len > 0)?;
    wire.get(1 + usize::from(label)..)
}

/// Looked up by what comes in packets.
impl Borrow<[u8]> for Wire {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The labels of a name on the wire, without the root.
pub(crate) fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(*len)).filter(|(label, _)| !label.is_empty())?;
        rest = tail;
        Some(label)
    })
}

/// What stands before `apex` in a name at or below it.
pub(crate) fn below<'n>(wire: &'n [u8], apex: &[u8]) -> Option<&'n [u8]> {
    let at = wire.len().checked_sub(apex.len())?;
    let (before, rest) = wire.split_at_checked(at)?;
    // The bytes may match in the middle of a label.
    (rest == apex && starts_label(wire, at)).then_some(before)
}

fn starts_label(wire: &[u8], wanted: usize) -> bool {
    let mut at = 0;
    while at < wanted {
        let Some(len) = wire.get(at).filter(|len| **len > 0) else { return false };
        at += 1 + usize::from(*len);
    }
    at == wanted
}

/// A dotted name on the wire, in lower case; `None` when it is none.
#[cfg(test)]
pub(crate) fn from_text(text: &str) -> Option<Box<[u8]>> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.trim_end_matches('.').split('.').filter(|_| !text.trim_end_matches('.').is_empty()) {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=LONGEST_LABEL).contains(len))?;
        wire.push(len);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= LONGEST).then(|| wire.into_boxed_slice())
}

const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa\0";
const IP6: &[u8] = b"\x03ip6\x04arpa\0";

/// An address, or the beginning of one, as reverse names say it (RFC 1035 section 3.5, RFC 3596 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reverse {
    /// What is not said is zero.
    pub(crate) address: IpAddr,
    /// How much is said.
    pub(crate) bits: u8,
}

impl Reverse {
    /// Reads `4.3.2.1.in-addr.arpa.` and the like. Further labels before a whole address are ignored.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        if let Some(before) = below(wire, IN_ADDR) {
            let all: Vec<&[u8]> = labels(before).collect();
            let mut octets = [0; 4];
            let mut bits = 0;
            for (octet, label) in octets.iter_mut().zip(all.iter().rev()) {
                *octet = std::str::from_utf8(label).ok().filter(|t| canonical(t))?.parse().ok()?;
                bits += 8;
            }
            return Some(Self { address: Ipv4Addr::from(octets).into(), bits });
        }
        let all: Vec<&[u8]> = labels(below(wire, IP6)?).collect();
        let (mut address, mut bits) = (0_u128, 0);
        for label in all.iter().rev().take(32) {
            let [digit] = label else { return None };
            let nibble = char::from(*digit).to_digit(16)?;
            address |= u128::from(nibble) << (124 - u32::from(bits));
            bits += 4;
        }
        Some(Self { address: Ipv6Addr::from(address).into(), bits })
    }
}

/// `1`, never `01`: one address has one name.
fn canonical(number: &str) -> bool {
    number.bytes().all(|b| b.is_ascii_digit()) && (number.len() == 1 || !number.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_suffix_counts_only_at_a_label() {
        let apex = from_text("cluster.local").unwrap();
        let name = from_text("web.cluster.local.").unwrap();
        assert_eq!(below(&name, &apex), Some(&b"\x03web"[..]));
        assert_eq!(below(&apex, &apex), Some(&b""[..]));
        assert_eq!(below(&from_text("xcluster.local").unwrap(), &apex), None);
        // A label that holds the apex's bytes, lengths and all.
        let mut odd = vec![16];
        odd.extend(&*apex);
        odd.extend(b"\0");
        assert_eq!(below(&odd[..16], &apex), None);
    }

    #[test]
    fn names_are_put_together_and_taken_apart() {
        let apex = from_text("cluster.local").unwrap();
        let web = Wire::below(&apex, &[b"Web", b"svc"]).unwrap();
        assert_eq!(web.bytes(), &*from_text("web.svc.cluster.local").unwrap());
        assert_eq!(parent(web.bytes()), from_text("svc.cluster.local").as_deref());
        assert_eq!(web.to_hickory().unwrap().to_string(), "web.svc.cluster.local.");
        assert_eq!(parent(b"\0"), None);
        assert_eq!(Wire::port(&apex, "Http", "TCP").unwrap().bytes(), &*from_text("_http._tcp.cluster.local").unwrap());
        let long = [b'a'; 64];
        assert_eq!(Wire::below(&apex, &[&long]), None);
        assert_eq!(Wire::below(&apex, &[&long[..63]; 4]), None);
        assert_eq!(Wire::below(&apex, &[b""]), None);
        assert_eq!(
            Wire::reverse("10.96.0.205".parse().unwrap()).bytes(),
            &*from_text("205.0.96.10.in-addr.arpa").unwrap()
        );
    }

    #[test]
    fn texts_that_are_no_names_are_refused() {
        assert_eq!(&*from_text(".").unwrap(), b"\0");
        for bad in ["a..b", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn reverse_names_may_be_partial() {
        let read = |text: &str| Reverse::read(&from_text(text).unwrap());
        let v4 = |a: &str, bits| Some(Reverse { address: a.parse().unwrap(), bits });
        assert_eq!(read("7.0.96.10.in-addr.arpa"), v4("10.96.0.7", 32));
        assert_eq!(read("96.10.in-addr.arpa"), v4("10.96.0.0", 16));
        assert_eq!(read("in-addr.arpa"), v4("0.0.0.0", 0));
        assert_eq!(read("x.7.0.96.10.in-addr.arpa"), v4("10.96.0.7", 32));
        assert_eq!(read("07.0.96.10.in-addr.arpa"), None);
        assert_eq!(read("d.f.ip6.arpa"), v4("fd00::", 8));
        assert_eq!(read("example.com"), None);
    }

    proptest! {
        #[test]
        fn reverse_names_give_their_address(v4 in any::<u32>(), v6 in any::<u128>()) {
            for address in [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))] {
                let wire = Wire::reverse(address);
                let bits = if address.is_ipv4() { 32 } else { 128 };
                prop_assert_eq!(Reverse::read(wire.bytes()), Some(Reverse { address, bits }));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(packet in prop::collection::vec(any::<u8>(), 0..300), at in 0..300_usize) {
            if let Some((name, end)) = Lower::read(&packet, at, &mut Room::default()) {
                prop_assert_eq!(name.wire(), packet[at..end].to_ascii_lowercase());
                let _ = Reverse::read(name.wire());
                let joined: usize = labels(name.wire()).map(|l| l.len() + 1).sum();
                prop_assert_eq!(joined + 1, name.wire().len());
            }
        }
    }
}
