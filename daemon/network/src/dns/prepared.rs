//! Answers that are encoded once, when the records change. A query then costs a look-up and a copy.
//!
//! The whole answer to a question is encoded; what follows the question is kept. Its pointers stay right, because
//! the name that was asked has the length that it had then, and they show the letter case in which it was asked.

use super::message::{HEADER, Record as Raw, TO_QUESTION, rr, u16_at};
use super::name::Wire;
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record as HickoryRecord, RecordType};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;

/// Room for header, question and OPT record in the longest message.
const MOST_BYTES: usize = 65_000;
/// Bytes of an answer with one address (28, or 16).
const ONE_ADDRESS: usize = 32;

/// Everything about one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Answers by type. A name without any exists nevertheless. Most have one, of a few bytes: they lie in here, as each step
    /// to another place in memory would cost more than all else that a query needs of the records.
    sets: SmallVec<[Set; 1]>,
    /// Where the name is another's alias: that other in wire form and lower case, and the record's time to live.
    pub(crate) alias: Option<(Box<[u8]>, u32)>,
    /// Bytes at the name's end that are its zone's name.
    pub(crate) apex: u8,
}

/// The answer to one type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set {
    kind: u16,
    pub(crate) answers: u16,
    pub(crate) additionals: u16,
    answers_len: u16,
    /// What follows the question.
    bytes: SmallVec<[u8; ONE_ADDRESS]>,
}

/// A record without the name that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Seconds that it may be remembered.
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

/// What a record says. Addresses, pointers and ports are nearly all that there is, and are written down as they are; the rest is
/// left to hickory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    Address(IpAddr),
    Pointer(Wire),
    Port { weight: u16, port: u16, target: Wire },
    Other(Box<RData>),
}

impl Data {
    fn kind(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => rr::A,
            Self::Address(IpAddr::V6(_)) => rr::AAAA,
            Self::Pointer(_) => RecordType::PTR.into(),
            Self::Port { .. } => RecordType::SRV.into(),
            Self::Other(data) => data.record_type().into(),
        }
    }

    /// Bytes in a message, but for what hickory writes.
    fn len(&self) -> usize {
        match self {
            Self::Address(IpAddr::V4(_)) => 4,
            Self::Address(IpAddr::V6(_)) => 16,
            Self::Pointer(to) => to.bytes().len(),
            Self::Port { target, .. } => 6 + target.bytes().len(),
            Self::Other(_) => 0,
        }
    }

    /// In a message (RFC 1035 section 4.1.3). `None`: hickory knows.
    fn write(&self, bytes: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Address(IpAddr::V4(v4)) => bytes.extend_from_slice(&v4.octets()),
            Self::Address(IpAddr::V6(v6)) => bytes.extend_from_slice(&v6.octets()),
            Self::Pointer(to) => bytes.extend_from_slice(to.bytes()),
            Self::Port { weight, port, target } => {
                for number in [0, *weight, *port] {
                    bytes.extend_from_slice(&number.to_be_bytes());
                }
                // RFC 2782: never compressed.
                bytes.extend_from_slice(target.bytes());
            }
            Self::Other(_) => return None,
        }
        Some(())
    }
}

impl Node {
    /// A name with these records, and those that answers may name besides.
    ///
    /// A set that can't be encoded is left out: nothing that the API accepts is like that.
    pub(crate) fn new<'r>(
        name: &Wire,
        records: &[Record],
        glue: impl Fn(&Wire) -> &'r [Record] + Copy,
        apex: u8,
    ) -> Self {
        // From the least kind to the greatest: there are few.
        let next = |last: u16| records.iter().map(|r| r.data.kind()).filter(|kind| *kind > last).min();
        let kinds = || std::iter::successors(next(0), |last| next(*last));
        let mut sets = SmallVec::with_capacity(kinds().count());
        sets.extend(kinds().filter_map(|kind| {
            let answers = || records.iter().filter(move |r| r.data.kind() == kind);
            Set::plain(name, kind, answers(), glue).or_else(|| Set::encode(name, kind, answers()))
        }));
        let alias = records.iter().find_map(|r| match &r.data {
            Data::Other(data) => match &**data {
                RData::CNAME(to) => Some((wire(&to.0), r.ttl)),
                _ => None,
            },
            _ => None,
        });
        Self { sets, alias, apex }
    }

    /// A name that only has names below it.
    pub(crate) fn empty(apex: u8) -> Arc<Self> {
        Arc::new(Self { sets: SmallVec::new(), alias: None, apex })
    }

    pub(crate) fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|s| s.kind == kind)
    }
}

/// A record as it is in messages. `None`: it is of a type that is left to hickory.
fn write(bytes: &mut Vec<u8>, owner: &[u8], record: &Record) -> Option<()> {
    bytes.extend_from_slice(owner);
    bytes.extend_from_slice(&record.data.kind().to_be_bytes());
    bytes.extend_from_slice(&rr::IN.to_be_bytes());
    bytes.extend_from_slice(&record.ttl.to_be_bytes());
    let len_at = bytes.len();
    bytes.extend_from_slice(&[0, 0]);
    record.data.write(bytes)?;
    let len = u16::try_from(bytes.len() - len_at - 2).ok()?;
    bytes.get_mut(len_at..len_at + 2)?.copy_from_slice(&len.to_be_bytes());
    Some(())
}

/// Bytes of a name that is a pointer, and of what else stands before a record's data.
const BEFORE_DATA: usize = 2 + 10;

/// Bytes of these records with their glue; more where several lead to one target.
fn expected<'a, 'r>(records: impl Iterator<Item = &'a Record>, glue: &impl Fn(&Wire) -> &'r [Record]) -> usize {
    let bytes = |record: &Record| BEFORE_DATA + record.data.len();
    let addresses = |record: &&Record| matches!(record.data, Data::Address(_));
    let one = |record: &Record| match &record.data {
        Data::Port { target, .. } => bytes(record) + glue(target).iter().filter(addresses).map(bytes).sum::<usize>(),
        _ => bytes(record),
    };
    records.map(one).sum()
}

/// In place where there is room.
fn kept(bytes: Vec<u8>) -> SmallVec<[u8; ONE_ADDRESS]> {
    if bytes.len() > ONE_ADDRESS { SmallVec::from_vec(bytes) } else { SmallVec::from_slice(&bytes) }
}

impl Set {
    /// As many answers as there is room for, and the addresses of what they name. `None`: hickory has to.
    fn plain<'a, 'r>(
        name: &Wire,
        kind: u16,
        records: impl Iterator<Item = &'a Record> + Clone,
        glue: impl Fn(&Wire) -> &'r [Record],
    ) -> Option<Self> {
        let body = HEADER + name.bytes().len() + 4;
        let room = MOST_BYTES.saturating_sub(body);
        let mut bytes = Vec::with_capacity(expected(records.clone(), &glue).min(room));
        let mut answers: u16 = 0;
        // Where in the message each target is, for the names of its addresses.
        let mut targets: Vec<(&Wire, usize)> = Vec::new();
        for record in records {
            let before = bytes.len();
            write(&mut bytes, &TO_QUESTION, record)?;
            if bytes.len() > room {
                bytes.truncate(before);
                break;
            }
            answers = answers.checked_add(1)?;
            if let Data::Port { target, .. } = &record.data {
                targets.push((target, body + bytes.len() - target.bytes().len()));
            }
        }
        // Each where it comes first.
        targets.sort_unstable();
        targets.dedup_by_key(|(target, _)| *target);
        let answers_len = u16::try_from(bytes.len()).ok()?;
        let mut additionals = 0;
        for (target, at) in targets {
            let addresses = glue(target).iter().filter(|r| matches!(r.data, Data::Address(_)));
            for record in addresses {
                let before = bytes.len();
                match u16::try_from(at).ok().filter(|at| *at < 0x4000) {
                    Some(at) => write(&mut bytes, &(at | 0xc000).to_be_bytes(), record)?,
                    None => write(&mut bytes, target.bytes(), record)?,
                }
                if bytes.len() > room {
                    bytes.truncate(before);
                    break;
                }
                additionals += 1;
            }
        }
        Some(Self { kind, answers, additionals, answers_len, bytes: kept(bytes) })
    }

    fn encode<'a>(name: &Wire, kind: u16, records: impl Iterator<Item = &'a Record>) -> Option<Self> {
        let owner = name.to_hickory()?;
        let mut message = Message::response(0, OpCode::Query);
        message.add_query(Query::query(owner.clone(), kind.into()));
        message.answers = records
            .filter_map(|r| match &r.data {
                Data::Other(data) => Some(HickoryRecord::from_rdata(owner.clone(), r.ttl, RData::clone(data))),
                _ => None,
            })
            .collect();
        let encoded = message.to_vec().ok()?;
        let body = HEADER + name.bytes().len() + 4;
        let answers = u16_at(&encoded, 6)?;
        let mut at = body;
        for _ in 0..answers {
            at = Raw::read(&encoded, at)?.end;
        }
        let additionals = u16_at(&encoded, 10)?;
        let bytes = SmallVec::from_slice(encoded.get(body..)?);
        Some(Self { kind, answers, additionals, answers_len: u16::try_from(at - body).ok()?, bytes })
    }

    /// Answers and additional records.
    pub(crate) fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Answers alone.
    pub(crate) fn answers(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.answers_len)).unwrap_or_default()
    }

    /// Bytes of each answer, where all are alike and may be turned round.
    pub(crate) fn stride(&self) -> Option<usize> {
        let stride = match self.kind {
            rr::A => 16,
            rr::AAAA => 28,
            _ => return None,
        };
        (usize::from(self.answers_len) == stride * usize::from(self.answers)).then_some(stride)
    }
}

/// A name of hickory's on the wire, in lower case.
pub(crate) fn wire(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire.make_ascii_lowercase();
    wire.into_boxed_slice()
}
