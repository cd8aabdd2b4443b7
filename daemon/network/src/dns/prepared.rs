//! Answers that are encoded once, when the records change. A query then costs a look-up and a copy.
//!
//! The whole answer to a question is encoded; what follows the question is kept. Its pointers stay right, because
//! the name that was asked has the length that it had then, and they show the letter case in which it was asked.

use super::message::{HEADER, Record as Raw, TO_QUESTION, rr, u16_at};
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Room for header, question and OPT record in the longest message.
const MOST_BYTES: usize = 65_000;

/// Everything about one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Answers by type. A name without any exists nevertheless.
    sets: Box<[Set]>,
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
    answers_len: usize,
    /// What follows the question.
    bytes: Box<[u8]>,
}

impl Node {
    /// A name with these records, and those that answers may name besides.
    ///
    /// A set that can't be encoded is left out: nothing that the API accepts is like that.
    pub(crate) fn new(name: &Name, records: &[Record], glue: &dyn Fn(&Name) -> Vec<Record>, apex: u8) -> Self {
        let mut kinds: Vec<RecordType> = records.iter().map(Record::record_type).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let sets = kinds.into_iter().filter_map(|kind| {
            let answers: Vec<&Record> = records.iter().filter(|r| r.record_type() == kind).collect();
            Set::plain(name, kind, &answers, glue).or_else(|| Set::encode(name, kind, &answers))
        });
        let alias = records.iter().find_map(|r| match &r.data {
            RData::CNAME(to) => Some((wire(&to.0), r.ttl)),
            _ => None,
        });
        Self { sets: sets.collect(), alias, apex }
    }

    /// A name that only has names below it.
    pub(crate) fn empty(apex: u8) -> Arc<Self> {
        Arc::new(Self { sets: Box::default(), alias: None, apex })
    }

    pub(crate) fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|s| s.kind == kind)
    }
}

/// A record as it is in messages (RFC 1035 section 4.1.3). `None`: it is of a type that is left to hickory.
fn write(bytes: &mut Vec<u8>, owner: &[u8], record: &Record) -> Option<()> {
    bytes.extend_from_slice(owner);
    bytes.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
    bytes.extend_from_slice(&rr::IN.to_be_bytes());
    bytes.extend_from_slice(&record.ttl.to_be_bytes());
    let len_at = bytes.len();
    bytes.extend_from_slice(&[0, 0]);
    match &record.data {
        RData::A(a) => bytes.extend_from_slice(&a.0.octets()),
        RData::AAAA(aaaa) => bytes.extend_from_slice(&aaaa.0.octets()),
        RData::PTR(ptr) => write_name(bytes, &ptr.0),
        RData::SRV(srv) => {
            for number in [srv.priority, srv.weight, srv.port] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            // RFC 2782: never compressed.
            write_name(bytes, &srv.target);
        }
        _ => return None,
    }
    let len = u16::try_from(bytes.len() - len_at - 2).ok()?;
    bytes.get_mut(len_at..len_at + 2)?.copy_from_slice(&len.to_be_bytes());
    Some(())
}

impl Set {
    /// Addresses, pointers and ports: nearly all that there is, and simple enough to be written down at once, ten times as
    /// fast. `None`: there is another type among them, or too much of it.
    fn plain(name: &Name, kind: RecordType, answers: &[&Record], glue: &dyn Fn(&Name) -> Vec<Record>) -> Option<Self> {
        let body = HEADER + wire_len(name) + 4;
        let mut bytes = Vec::with_capacity(answers.len() * 28);
        // Where in the message each target is, for the names of its addresses.
        let mut targets: BTreeMap<&Name, usize> = BTreeMap::new();
        for record in answers {
            write(&mut bytes, &TO_QUESTION, record)?;
            if let RData::SRV(srv) = &record.data {
                targets.entry(&srv.target).or_insert(body + bytes.len() - wire_len(&srv.target));
            }
        }
        let answers_len = bytes.len();
        let mut additionals = 0;
        for (target, at) in targets {
            for record in glue(target) {
                match u16::try_from(at).ok().filter(|at| *at < 0x4000) {
                    Some(at) => write(&mut bytes, &(at | 0xc000).to_be_bytes(), &record)?,
                    None => write(&mut bytes, &wire(target), &record)?,
                }
                additionals += 1;
            }
        }
        let answers = u16::try_from(answers.len()).ok()?;
        let fits = body + bytes.len() < MOST_BYTES;
        fits.then(|| Self { kind: kind.into(), answers, additionals, answers_len, bytes: bytes.into() })
    }

    fn encode(name: &Name, kind: RecordType, answers: &[&Record]) -> Option<Self> {
        let mut message = Message::response(0, OpCode::Query);
        message.add_query(Query::query(name.clone(), kind));
        message.answers = answers.iter().copied().cloned().collect();
        let encoded = message.to_vec().ok()?;
        let body = HEADER + wire_len(name) + 4;
        let answers = u16_at(&encoded, 6)?;
        let mut at = body;
        for _ in 0..answers {
            at = Raw::read(&encoded, at)?.end;
        }
        let additionals = u16_at(&encoded, 10)?;
        let bytes = encoded.get(body..)?.into();
        Some(Self { kind: kind.into(), answers, additionals, answers_len: at - body, bytes })
    }

    /// Answers and additional records.
    pub(crate) fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Answers alone.
    pub(crate) fn answers(&self) -> &[u8] {
        self.bytes.get(..self.answers_len).unwrap_or_default()
    }

    /// Bytes of each answer, where all are alike and may be turned round.
    pub(crate) fn stride(&self) -> Option<usize> {
        let stride = match self.kind {
            rr::A => 16,
            rr::AAAA => 28,
            _ => return None,
        };
        (self.answers_len == stride * usize::from(self.answers)).then_some(stride)
    }
}

/// A name of hickory's on the wire, in lower case.
pub(crate) fn wire(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(wire_len(name));
    write_name(&mut wire, name);
    wire.make_ascii_lowercase();
    wire.into_boxed_slice()
}

fn write_name(bytes: &mut Vec<u8>, name: &Name) {
    for label in name.iter() {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
}

fn wire_len(name: &Name) -> usize {
    if name.is_root() { 1 } else { name.len() + 1 }
}
