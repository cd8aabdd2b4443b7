//! Changes of maps' and sets' elements, told to the kernel directly: one transaction without a process, some 30 ms for
//! ten thousand of them where nft(8) takes a second to read their text.

use super::model::{ElementChange, Elements};
use crate::nfnetlink::{NFTABLES, NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

const NFPROTO_INET: u8 = 1;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// NFTA_LIST_ELEM.
const ONE: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
/// Elements of one message: an attribute has 64 KiB at most, and an element some 100 bytes.
const PER_MESSAGE: usize = 300;

/// Makes all changes or none; with a number only if the rule set still has that one (else `ERESTART`).
pub(super) fn apply(table: &str, changes: &[ElementChange<'_>], generation: Option<u32>) -> io::Result<()> {
    let mut problem = None;
    let batch = Writer::batch(generation, |w| {
        for (index, change) in changes.iter().enumerate() {
            if let Err(error) = write(w, table, change, index + 1 == changes.len()) {
                problem = Some(error);
            }
        }
    });
    match problem {
        Some(problem) => Err(problem),
        None => Socket::connect()?.transact(&batch),
    }
}

fn write(w: &mut Writer, table: &str, change: &ElementChange<'_>, last: bool) -> io::Result<()> {
    let (kind, flags) = if change.add { (NEW_ELEMENTS, NLM_F_CREATE) } else { (DELETE_ELEMENTS, 0) };
    let Some(types) = Types::of(change.map) else { return Err(misfit(change)) };
    let mut chunks = change.elements.chunks(PER_MESSAGE).peekable();
    while let Some(chunk) = chunks.next() {
        let ack = if last && chunks.peek().is_none() { NLM_F_ACK } else { 0 };
        let mut fits = true;
        w.message((NFTABLES << 8 | kind, flags | ack), (NFPROTO_INET, 0), |w| {
            w.text(LIST_TABLE, table);
            w.text(LIST_SET, change.name);
            w.nest(LIST_ELEMENTS, |w| fits = chunk.iter().all(|one| element(w, &types, one, change.add).is_some()));
        });
        if !fits {
            return Err(misfit(change));
        }
    }
    Ok(())
}

fn misfit(change: &ElementChange<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("elements of {} are not of its types", change.name))
}

/// Of a map's or set's declaration: `type ipv4_addr . inet_service : verdict;`.
struct Types<'a> {
    keys: &'a str,
    /// Empty: it is a set.
    values: &'a str,
}

impl<'a> Types<'a> {
    fn of(map: &'a Elements) -> Option<Self> {
        let types = map.declaration.strip_prefix("type ")?.split(';').next()?;
        let (keys, values) = types.split_once(" : ").unwrap_or((types, ""));
        Some(Self { keys, values })
    }
}

/// Writes one. `None`: it is not what the declaration says.
fn element(w: &mut Writer, types: &Types<'_>, (key, value): &(&str, &str), with_data: bool) -> Option<()> {
    let key = concatenation(types.keys, key)?;
    let data = match types.values {
        _ if !with_data => None,
        "" | "verdict" => None,
        values => Some(concatenation(values, value)?),
    };
    let verdict = match (types.values == "verdict" && with_data).then(|| value.split_once(' ')) {
        None => None,
        Some(Some(("goto", chain))) => Some((GOTO, chain)),
        Some(Some(("jump", chain))) => Some((JUMP, chain)),
        Some(_) => return None,
    };
    w.nest(ONE, |w| {
        w.nest(KEY, |w| w.attribute(VALUE, key.as_slice()));
        if let Some(data) = data {
            w.nest(DATA, |w| w.attribute(VALUE, data.as_slice()));
        }
        if let Some((code, chain)) = verdict {
            w.nest(DATA, |w| {
                w.nest(VERDICT, |w| {
                    w.attribute(VERDICT_CODE, &code.to_be_bytes());
                    w.text(VERDICT_CHAIN, chain);
                });
            });
        }
    });
    Some(())
}

/// A key or a value in the kernel's words. On the stack: there are ten thousands of them.
#[derive(Clone, Copy, Default)]
struct Words {
    bytes: [u8; 32],
    length: usize,
}

impl Words {
    /// One part, filled up to four bytes.
    fn push(&mut self, part: &[u8]) -> Option<()> {
        self.bytes.get_mut(self.length..self.length + part.len())?.copy_from_slice(part);
        self.length = (self.length + part.len()).next_multiple_of(4);
        Some(())
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `ipv4_addr . inet_service` and `10.0.0.1 . 80`: each part in network order, filled up to four bytes.
fn concatenation(types: &str, values: &str) -> Option<Words> {
    let mut out = Words::default();
    let mut values = values.split(" . ");
    for kind in types.split(" . ") {
        let value = values.next()?;
        match kind {
            "ipv4_addr" => out.push(&value.parse::<Ipv4Addr>().ok()?.octets())?,
            "ipv6_addr" => out.push(&value.parse::<Ipv6Addr>().ok()?.octets())?,
            "inet_proto" => out.push(match value {
                "tcp" => &[6],
                "udp" => &[17],
                "sctp" => &[132],
                _ => return None,
            })?,
            "inet_service" => out.push(&value.parse::<u16>().ok()?.to_be_bytes())?,
            _ => return None,
        }
    }
    values.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_up_to_four_bytes() {
        let types = "ipv4_addr . inet_proto . inet_service";
        let bytes = concatenation(types, "10.96.0.1 . udp . 53").unwrap();
        assert_eq!(bytes.as_slice(), [10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(concatenation("ipv6_addr", "fd00::1").map(|b| b.as_slice().len()), Some(16));
        for (types, values) in [
            (types, "10.96.0.1 . udp"),
            (types, "10.96.0.1 . udp . 53 . 9"),
            (types, "10.96.0.1 . icmp . 53"),
            (types, "10.96.0.1 . udp . 70000"),
            (types, "fd00::1 . udp . 53"),
            ("ipv6_addr . ipv6_addr . ipv6_addr", "::1 . ::1 . ::1"),
            ("ether_addr", "1"),
        ] {
            assert!(concatenation(types, values).is_none(), "{values}");
        }
    }
}
