//! Changes of maps' and sets' elements, told to the kernel directly: one transaction without a process, some 30 ms for
//! ten thousand of them where nft(8) takes a second to read their text.

use super::model::{ElementChange, Elements};
use crate::nfnetlink::{NFTABLES, NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
use std::io;
use std::net::IpAddr;

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
    let encoded = change.elements.iter().map(|(key, value)| Encoded::of(change.map, key, value));
    let encoded = encoded.collect::<Option<Vec<_>>>().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("elements of {} are not of its types", change.name))
    })?;
    let mut chunks = encoded.chunks(PER_MESSAGE).peekable();
    while let Some(chunk) = chunks.next() {
        let ack = if last && chunks.peek().is_none() { NLM_F_ACK } else { 0 };
        w.message((NFTABLES << 8 | kind, flags | ack), (NFPROTO_INET, 0), |w| {
            w.text(LIST_TABLE, table);
            w.text(LIST_SET, change.name);
            w.nest(LIST_ELEMENTS, |w| chunk.iter().for_each(|one| one.write(w, change.add)));
        });
    }
    Ok(())
}

/// An element in the kernel's words.
struct Encoded<'a> {
    key: Vec<u8>,
    data: Data<'a>,
}

enum Data<'a> {
    Nothing,
    Value(Vec<u8>),
    Verdict(i32, &'a str),
}

impl<'a> Encoded<'a> {
    /// `None`: it is not what the declaration says.
    fn of(map: &Elements, key: &str, value: &'a str) -> Option<Self> {
        let types = map.declaration.strip_prefix("type ")?.split(';').next()?;
        let (keys, values) = types.split_once(" : ").unwrap_or((types, ""));
        let data = match values {
            "" => Data::Nothing,
            "verdict" => match value.split_once(' ')? {
                ("goto", chain) => Data::Verdict(GOTO, chain),
                ("jump", chain) => Data::Verdict(JUMP, chain),
                _ => return None,
            },
            values => Data::Value(concatenation(values, value)?),
        };
        Some(Self { key: concatenation(keys, key)?, data })
    }

    fn write(&self, w: &mut Writer, with_data: bool) {
        w.nest(ONE, |w| {
            w.nest(KEY, |w| w.attribute(VALUE, &self.key));
            match &self.data {
                _ if !with_data => {}
                Data::Nothing => {}
                Data::Value(value) => w.nest(DATA, |w| w.attribute(VALUE, value)),
                Data::Verdict(code, chain) => w.nest(DATA, |w| {
                    w.nest(VERDICT, |w| {
                        w.attribute(VERDICT_CODE, &code.to_be_bytes());
                        w.text(VERDICT_CHAIN, chain);
                    });
                }),
            }
        });
    }
}

/// `ipv4_addr . inet_service` and `10.0.0.1 . 80`: each part in network order, filled up to four bytes.
fn concatenation(types: &str, values: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(24);
    let mut values = values.split(" . ");
    for kind in types.split(" . ") {
        let value = values.next()?;
        match kind {
            "ipv4_addr" | "ipv6_addr" => match (value.parse().ok()?, kind) {
                (IpAddr::V4(ip), "ipv4_addr") => out.extend(ip.octets()),
                (IpAddr::V6(ip), "ipv6_addr") => out.extend(ip.octets()),
                _ => return None,
            },
            "inet_proto" => out.push(match value {
                "tcp" => 6,
                "udp" => 17,
                "sctp" => 132,
                _ => return None,
            }),
            "inet_service" => out.extend(value.parse::<u16>().ok()?.to_be_bytes()),
            _ => return None,
        }
        out.resize(out.len().next_multiple_of(4), 0);
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
        assert_eq!(bytes, [10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(concatenation("ipv6_addr", "fd00::1").map(|b| b.len()), Some(16));
        for (types, values) in [
            (types, "10.96.0.1 . udp"),
            (types, "10.96.0.1 . udp . 53 . 9"),
            (types, "fd00::1 . udp . 53"),
            (types, "10.96.0.1 . icmp . 53"),
            (types, "10.96.0.1 . udp . 70000"),
            ("ether_addr", "1"),
        ] {
            assert_eq!(concatenation(types, values), None, "{values}");
        }
    }
}
