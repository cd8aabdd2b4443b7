//! Answers of other servers: which are to be believed, how long they hold, and how they become ours.

use super::{Asked, Outcome};
use crate::dns::answer::Aliases;
use crate::dns::message::{self, Counts, HEADER, Query, Rcode, Record, Reply, rr, u16_at, u32_at};
use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// An answer without its OPT record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    message: Box<[u8]>,
    question_end: usize,
    answers_end: usize,
    counts: Counts,
    /// Where times to live are.
    ttls: Box<[usize]>,
    rcode: Rcode,
    seconds: u32,
}

/// What a packet from a server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The answer.
    Answer(Stored),
    /// The beginning of it: the rest comes by TCP.
    Truncated,
    /// It does not know EDNS.
    WithoutEdns,
    /// Not an answer to this question. It may be forged: the real one may still come.
    Other,
}

impl Stored {
    /// Reads a packet as the answer to the question `sent` (its whole query).
    pub(super) fn read(packet: &[u8], sent: &[u8], asked: &Asked) -> Received {
        let question_end = HEADER + asked.name.len() + 4;
        let (Some(header), Some(question)) = (packet.first_chunk::<HEADER>(), sent.get(HEADER..question_end)) else {
            return Received::Other;
        };
        let is_answer = header[..2] == sent[..2] && header[2] & 0xf8 == 0x80;
        let rcode = match header[3] & 0xf {
            0 => Rcode::NoError,
            1 if is_answer && packet.len() == HEADER => return Received::WithoutEdns,
            3 => Rcode::NxDomain,
            5 => Rcode::Refused,
            1 | 4 => Rcode::FormErr,
            _ => Rcode::ServFail,
        };
        let same = packet.get(HEADER..question_end).is_some_and(|q| q.eq_ignore_ascii_case(question));
        if !is_answer || u16_at(packet, 4) != Some(1) || !same {
            return Received::Other;
        }
        if header[2] & 2 != 0 {
            return Received::Truncated;
        }
        if rcode == Rcode::FormErr {
            return Received::WithoutEdns;
        }
        Self::walk(packet, question_end, rcode).map_or(Received::Other, Received::Answer)
    }

    /// Finds the ends of sections and the times to live. `None`: it is malformed.
    fn walk(packet: &[u8], question_end: usize, mut rcode: Rcode) -> Option<Self> {
        let mut counts = Counts { answers: u16_at(packet, 6)?, authorities: u16_at(packet, 8)?, additionals: 0 };
        let additionals = u16_at(packet, 10)?;
        let (mut at, mut ttls, mut seconds, mut soa) = (question_end, Vec::new(), u32::MAX, false);
        let mut answers_end = at;
        for n in 0..u32::from(counts.answers) + u32::from(counts.authorities) {
            let record = Record::read(packet, at)?;
            ttls.push(record.ttl_at);
            seconds = seconds.min(lifetime(record.ttl));
            if record.kind == rr::SOA {
                // RFC 2308 section 5: the last number of an SOA record bounds how long there is nothing.
                let minimum = u32_at(packet, record.end.checked_sub(4)?)?;
                soa = true;
                if counts.answers == 0 {
                    seconds = seconds.min(lifetime(minimum));
                }
            }
            at = record.end;
            if n + 1 == u32::from(counts.answers) {
                answers_end = at;
            }
        }
        let (rest_at, first_additional) = (at, ttls.len());
        let mut end = at;
        for n in 0..additionals {
            let record = Record::read(packet, at)?;
            if record.kind != rr::OPT {
                ttls.push(record.ttl_at);
                counts.additionals += 1;
                end = record.end;
            } else {
                if record.ttl >> 24 != 0 {
                    rcode = Rcode::ServFail;
                }
                if n + 1 != additionals {
                    // What follows may point over it: nobody needs additional records.
                    ttls.truncate(first_additional);
                    counts.additionals = 0;
                    end = rest_at;
                    break;
                }
            }
            at = record.end;
        }
        let negative = counts.answers == 0 || rcode == Rcode::NxDomain;
        let holds = matches!(rcode, Rcode::NoError | Rcode::NxDomain) && (!negative || soa) && seconds != u32::MAX;
        let mut message: Box<[u8]> = packet.get(..end)?.into();
        message.get_mut(10..HEADER)?.copy_from_slice(&counts.additionals.to_be_bytes());
        Some(Self {
            message,
            question_end,
            answers_end,
            counts,
            ttls: ttls.into(),
            rcode,
            seconds: if holds { seconds } else { 0 },
        })
    }

    /// Seconds that it holds; 0: for those only who asked already.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds
    }

    pub(crate) fn rcode(&self) -> Rcode {
        self.rcode
    }

    pub(crate) fn bytes(&self) -> usize {
        self.message.len() + self.ttls.len() * size_of::<usize>()
    }

    /// The message with times to live as they are `age` seconds later.
    fn aged(&self, age: u32) -> Vec<u8> {
        let mut message = self.message.to_vec();
        for at in &self.ttls {
            if let Some(ttl) = message.get_mut(*at..).and_then(|m| m.first_chunk_mut::<4>()) {
                *ttl = lifetime(u32::from_be_bytes(*ttl)).saturating_sub(age).to_be_bytes();
            }
        }
        message
    }

    #[cfg(test)]
    pub(super) fn for_test(len: usize, seconds: u32) -> Self {
        Self {
            message: vec![0; len].into(),
            question_end: HEADER,
            answers_end: HEADER,
            counts: Counts::default(),
            ttls: Box::default(),
            rcode: Rcode::NoError,
            seconds,
        }
    }
}

/// RFC 2181 section 8: with the highest bit set it means zero.
fn lifetime(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// Writes the answer to `query` that `outcome` makes.
pub(crate) fn compose(query: &Query<'_>, aliases: Option<&Aliases>, outcome: &Outcome, out: &mut Vec<u8>) {
    let Outcome::Answer(stored, age) = outcome else {
        return Reply::to(query, out).rcode(Rcode::ServFail).finish(false);
    };
    let message = stored.aged(*age);
    let limit = query.limit();
    if let Some(aliases) = aliases {
        return match prefixed(query, aliases, &message) {
            Some(encoded) => append(query, &encoded, stored.rcode, limit, out),
            None => Reply::to(query, out).rcode(Rcode::ServFail).finish(false),
        };
    }
    let whole = Encoded {
        body: message.get(stored.question_end..).unwrap_or_default(),
        answers: message.get(stored.question_end..stored.answers_end).unwrap_or_default(),
        counts: stored.counts,
    };
    write(query, &whole, &message, stored, limit, out);
}

/// What follows a question.
struct Encoded<'m> {
    body: &'m [u8],
    answers: &'m [u8],
    counts: Counts,
}

fn write(query: &Query<'_>, whole: &Encoded<'_>, message: &[u8], stored: &Stored, limit: usize, out: &mut Vec<u8>) {
    let mut reply = Reply::to(query, out).rcode(stored.rcode);
    let room = reply.room(limit);
    if whole.body.len() <= room {
        reply.append(whole.body);
        reply.counts = whole.counts;
    } else if !whole.answers.is_empty() && whole.answers.len() <= room {
        reply.append(whole.answers);
        reply.counts.answers = whole.counts.answers;
    } else {
        let mut at = stored.question_end;
        while reply.counts.answers < whole.counts.answers
            && let Some(record) = Record::read(message, at)
            && record.end - stored.question_end <= room
        {
            reply.append(message.get(at..record.end).unwrap_or_default());
            reply.counts.answers += 1;
            at = record.end;
        }
        reply.truncate();
    }
    reply.finish(false);
}

/// The answer to the question for an alias: our CNAME records, then what the other server said.
fn prefixed(query: &Query<'_>, aliases: &Aliases, message: &[u8]) -> Option<Vec<u8>> {
    let theirs = Message::from_vec(message).ok()?;
    let mut ours = Message::response(0, OpCode::Query);
    let question = hickory_proto::op::Query::read(&mut BinDecoder::new(query.question())).ok()?;
    let mut owner = question.name().clone();
    ours.add_query(question);
    for (target, ttl) in &aliases.steps {
        let target = Name::read(&mut BinDecoder::new(target)).ok()?;
        let data = RData::CNAME(CNAME(target.clone()));
        ours.answers.push(hickory_proto::rr::Record::from_rdata(owner, *ttl, data));
        owner = target;
    }
    ours.answers.extend(theirs.answers);
    ours.authorities = theirs.authorities;
    ours.to_vec().ok()
}

/// The records of a message that hickory encoded for the same question.
fn append(query: &Query<'_>, encoded: &[u8], rcode: Rcode, limit: usize, out: &mut Vec<u8>) {
    let mut reply = Reply::to(query, out).rcode(rcode);
    let body = encoded.get(HEADER + query.question().len()..).unwrap_or_default();
    if body.len() <= reply.room(limit) {
        reply.append(body);
        let count = |at| u16_at(encoded, at).unwrap_or_default();
        reply.counts = Counts { answers: count(6), authorities: count(8), additionals: count(10) };
    } else {
        reply.truncate();
    }
    reply.finish(false);
}

/// The query for others.
pub(super) fn query(asked: &Asked, id: u16, edns: bool) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + asked.name.len() + 16);
    packet.extend(id.to_be_bytes());
    packet.extend([1, u8::from(asked.checking_disabled) << 4, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    packet.extend(&*asked.name);
    packet.extend(asked.kind.to_be_bytes());
    packet.extend(rr::IN.to_be_bytes());
    if edns {
        let [p1, p2] = message::UDP_PAYLOAD.to_be_bytes();
        packet.extend([0, 0, rr::OPT as u8, p1, p2, 0, 0, u8::from(asked.dnssec_ok) << 7, 0, 0, 0]);
    }
    packet
}
