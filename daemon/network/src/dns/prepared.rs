//! Answers that are encoded once, when the records change. A query then costs a look-up and a copy.
//!
//! hickory encodes the whole answer to a question; what follows the question is kept. Its pointers stay right, because
//! the name that was asked has the length that it had then, and they show the letter case in which it was asked.

use super::message::{HEADER, Record as Raw, rr, u16_at};
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::sync::Arc;

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
            let answers: Vec<Record> = records.iter().filter(|r| r.record_type() == kind).cloned().collect();
            let mut targets: Vec<&Name> = answers.iter().filter_map(target).collect();
            targets.sort_unstable();
            targets.dedup();
            let additionals = targets.into_iter().flat_map(glue).collect();
            Set::encode(name, kind, answers, additionals)
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

/// The name that a record sends its reader to for an address.
fn target(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    }
}

impl Set {
    fn encode(name: &Name, kind: RecordType, answers: Vec<Record>, additionals: Vec<Record>) -> Option<Self> {
        let mut message = Message::response(0, OpCode::Query);
        message.add_query(Query::query(name.clone(), kind));
        message.answers = answers;
        message.additionals = additionals;
        let encoded = message.to_vec().ok()?;
        let body = HEADER + wire(name).len() + 4;
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
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend(label.to_ascii_lowercase());
    }
    wire.push(0);
    wire.into_boxed_slice()
}
