//! Elements of maps and sets: as the kernel has them, and as nft writes them.

use reddwarf_host::service::Protocol;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// One part of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
}

impl Part {
    /// As declarations call it.
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
        }
    }

    /// Bytes that it fills: whole words.
    fn room(self) -> usize {
        if self == Self::Ipv6 { 16 } else { 4 }
    }
}

/// The names of concatenated parts.
pub(super) fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(" . ")
}

/// What a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// It is a set.
    None,
    /// To a chain.
    Verdicts,
    /// To these.
    Parts(&'static [Part]),
}

/// A map's or set's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) keys: &'static [Part],
    pub(crate) values: Values,
    /// Of a set that packets fill: for how many seconds what they add stays.
    pub(crate) timeout: Option<u32>,
}

impl Types {
    pub(crate) const fn set(keys: &'static [Part]) -> Self {
        Self { keys, values: Values::None, timeout: None }
    }

    pub(crate) const fn map(keys: &'static [Part], values: Values) -> Self {
        Self { keys, values, timeout: None }
    }

    /// `map` or `set`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.values == Values::None { "set" } else { "map" }
    }

    /// The names of what a map leads to; empty for a set.
    pub(crate) fn value_names(&self) -> String {
        match self.values {
            Values::None => String::new(),
            Values::Verdicts => "verdict".to_owned(),
            Values::Parts(parts) => names(parts),
        }
    }

    /// Reads an element in nft's words. `None`: it is not of these types.
    pub(crate) fn read(&self, key: &str, value: &str) -> Option<Element> {
        let value = match self.values {
            Values::None => value.is_empty().then_some(Value::Nothing)?,
            Values::Verdicts => match value.split_once(' ')? {
                ("goto", chain) => Value::Goto(chain.into()),
                ("jump", chain) => Value::Jump(chain.into()),
                _ => return None,
            },
            Values::Parts(parts) => Value::Words(Words::read(parts, value)?),
        };
        Some(Element { key: Words::read(self.keys, key)?, value })
    }

    /// The key in nft's words.
    pub(crate) fn key_text(&self, element: &Element) -> String {
        element.key.text(self.keys)
    }

    /// The value in nft's words; empty for a set.
    pub(crate) fn value_text(&self, element: &Element) -> String {
        match (&element.value, self.values) {
            (Value::Words(words), Values::Parts(parts)) => words.text(parts),
            (Value::Goto(chain), _) => format!("goto {chain}"),
            (Value::Jump(chain), _) => format!("jump {chain}"),
            (Value::Words(_) | Value::Nothing, _) => String::new(),
        }
    }
}

/// `type ipv4_addr . inet_proto . inet_service : verdict;` and what else a declaration says.
impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {}", names(self.keys))?;
        if self.values != Values::None {
            write!(f, " : {}", self.value_names())?;
        }
        f.write_str(";")?;
        match self.timeout {
            Some(seconds) => write!(f, " size 65535; flags dynamic,timeout; timeout {seconds}s;"),
            None => Ok(()),
        }
    }
}

/// An element. In order of their keys, and of one map or set, each key is there once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Words,
    pub(crate) value: Value,
}

impl Element {
    /// Of a set.
    pub(crate) fn of_set(key: Words) -> Self {
        Self { key, value: Value::Nothing }
    }
}

/// Where a key leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nowhere: the element is one of a set.
    Nothing,
    Words(Words),
    /// To a chain, not to come back.
    Goto(Arc<str>),
    /// To a chain, and back.
    Jump(Arc<str>),
}

/// A key or a value in the kernel's words: each part in network order, filled up to four bytes. In place, not on the heap: there are ten
/// thousand of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Words {
    /// Two addresses of IPv6 at most.
    bytes: [u8; 32],
    length: u8,
}

impl Words {
    pub(crate) fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.with(&v4.octets()),
            IpAddr::V6(v6) => self.with(&v6.octets()),
        }
    }

    pub(crate) fn protocol(self, protocol: Protocol) -> Self {
        self.with(&[match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }])
    }

    pub(crate) fn port(self, port: u16) -> Self {
        self.with(&port.to_be_bytes())
    }

    pub(crate) fn socket(self, socket: &SocketAddr) -> Self {
        self.address(socket.ip()).port(socket.port())
    }

    /// What has no room, which nothing of ours is, is left out.
    fn with(mut self, part: &[u8]) -> Self {
        let start = usize::from(self.length);
        if let Some(place) = self.bytes.get_mut(start..start + part.len()) {
            place.copy_from_slice(part);
            self.length = u8::try_from((start + part.len()).next_multiple_of(4)).unwrap_or(self.length);
        }
        self
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Reads `10.0.0.1 . 80`. `None`: it is not of these parts.
    fn read(parts: &[Part], text: &str) -> Option<Self> {
        let mut out = Self::default();
        let mut texts = text.split(" . ");
        for part in parts {
            let text = texts.next()?;
            out = match part {
                Part::Ipv4 => out.address(text.parse::<Ipv4Addr>().ok()?.into()),
                Part::Ipv6 => out.address(text.parse::<Ipv6Addr>().ok()?.into()),
                Part::Port => out.port(text.parse().ok()?),
                Part::Protocol => {
                    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                    out.protocol(all.into_iter().find(|protocol| protocol.as_str() == text)?)
                }
            };
        }
        (texts.next().is_none() && usize::from(out.length) == parts.iter().map(|p| p.room()).sum::<usize>())
            .then_some(out)
    }

    fn text(&self, parts: &[Part]) -> String {
        let mut rest = self.as_slice();
        let one = |part: &Part| {
            let (bytes, behind) = rest.split_at_checked(part.room()).unwrap_or_default();
            rest = behind;
            match (part, bytes) {
                (Part::Ipv4, bytes) => <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).to_string()),
                (Part::Ipv6, bytes) => <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).to_string()),
                (Part::Protocol, bytes) => Ok(match bytes {
                    [6, ..] => "tcp",
                    [17, ..] => "udp",
                    _ => "sctp",
                }
                .to_owned()),
                (Part::Port, bytes) => {
                    <[u8; 4]>::try_from(bytes).map(|[a, b, ..]| u16::from_be_bytes([a, b]).to_string())
                }
            }
            .unwrap_or_default()
        };
        parts.iter().map(one).collect::<Vec<_>>().join(" . ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Part::{Ipv4, Ipv6, Port};

    #[test]
    fn parts_are_filled_up_to_four_bytes_and_read_as_they_are_written() {
        const KEYS: &[Part] = &[Ipv4, Part::Protocol, Port];
        let words = Words::read(KEYS, "10.96.0.1 . udp . 53").unwrap();
        assert_eq!(words.as_slice(), [10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(words, Words::default().address([10, 96, 0, 1].into()).protocol(Protocol::Udp).port(53));
        let written: [(&[Part], &str); 3] = [
            (KEYS, "10.96.0.1 . sctp . 65535"),
            (&[Ipv6, Ipv6], "fd00::1 . ::"),
            (&[Ipv6, Part::Protocol, Port], "fd00::1 . tcp . 80"),
        ];
        for (parts, text) in written {
            assert_eq!(Words::read(parts, text).unwrap().text(parts), text);
        }
        let strange: [(&[Part], &str); 6] = [
            (KEYS, "10.96.0.1 . udp"),
            (KEYS, "10.96.0.1 . udp . 53 . 9"),
            (KEYS, "10.96.0.1 . icmp . 53"),
            (KEYS, "10.96.0.1 . udp . 70000"),
            (KEYS, "fd00::1 . udp . 53"),
            (&[Ipv6, Ipv6, Ipv6], "::1 . ::1 . ::1"),
        ];
        for (parts, text) in strange {
            assert!(Words::read(parts, text).is_none(), "{text}");
        }
    }

    #[test]
    fn declarations_and_values_are_in_nfts_words() {
        const MAP: Types = Types::map(&[Ipv4, Port], Values::Parts(&[Ipv6, Port]));
        assert_eq!(MAP.to_string(), "type ipv4_addr . inet_service : ipv6_addr . inet_service;");
        let element = MAP.read("10.0.0.1 . 80", "fd00::1 . 8080").unwrap();
        assert_eq!(
            (MAP.key_text(&element), MAP.value_text(&element)),
            ("10.0.0.1 . 80".into(), "fd00::1 . 8080".into())
        );
        let verdicts = Types::map(&[Ipv4], Values::Verdicts);
        let element = verdicts.read("10.0.0.1", "goto web").unwrap();
        assert_eq!(verdicts.value_text(&element), "goto web");
        assert!(verdicts.read("10.0.0.1", "drop").is_none());
        let clients = Types { timeout: Some(9), ..Types::set(&[Ipv4]) };
        assert_eq!(clients.to_string(), "type ipv4_addr; size 65535; flags dynamic,timeout; timeout 9s;");
        assert!(clients.read("10.0.0.1", "goto web").is_none());
    }
}
