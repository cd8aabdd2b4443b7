//! DNS messages (RFC 1035 section 4): reading queries without allocation, and writing the parts of answers.

use super::name::{Lower, Room};

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 12;
/// UDP answers are no longer than this, whatever the asker takes: larger ones are fragmented on the way (DNS flag day
/// 2020).
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// What every asker takes by UDP (RFC 1035 section 4.2.1).
pub(crate) const UDP_LEAST: u16 = 512;
/// A pointer to the question's name: offset 12.
pub(crate) const TO_QUESTION: [u8; 2] = [0xc0, 12];

/// Response codes that we give (RFC 1035, RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// Needs EDNS for its upper bits.
    BadVers = 16,
}

/// Types and classes that are treated in a way of their own.
pub(crate) mod rr {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const IN: u16 = 1;
}

/// What an OPT record says (RFC 6891 section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram; so must the answer.
    Udp,
    /// Over a stream.
    Tcp,
}

/// A question that may be answered.
#[derive(Clone, Copy)]
pub(crate) struct Query<'p> {
    packet: &'p [u8],
    pub(crate) name: Lower<'p>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    question_end: usize,
    pub(crate) edns: Option<Edns>,
    pub(crate) transport: Transport,
}

/// Why a packet is no such question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Answering would be wrong: it is too short or an answer itself.
    Silence,
    /// The asker hears of it.
    Answer(Rcode),
}

impl<'p> Query<'p> {
    /// `room` is for its name.
    pub(crate) fn read(packet: &'p [u8], transport: Transport, room: &'p mut Room) -> Result<Self, Unreadable> {
        let formerr = Unreadable::Answer(Rcode::FormErr);
        let header: &[u8; HEADER] = packet.first_chunk().ok_or(Unreadable::Silence)?;
        if header[2] & 0x80 != 0 {
            return Err(Unreadable::Silence);
        }
        if header[2] & 0x78 != 0 {
            return Err(Unreadable::Answer(Rcode::NotImp));
        }
        let count = |at: usize| u16_at(header, at).unwrap_or_default();
        if count(4) != 1 {
            return Err(formerr);
        }
        let (name, end) = Lower::read(packet, HEADER, room).ok_or(formerr)?;
        let kind = u16_at(packet, end).ok_or(formerr)?;
        let class = u16_at(packet, end + 2).ok_or(formerr)?;
        let mut query = Self { packet, name, kind, class, question_end: end + 4, edns: None, transport };
        let mut at = end + 4;
        let others = u32::from(count(6)) + u32::from(count(8));
        for n in 0..others + u32::from(count(10)) {
            let record = Record::read(packet, at).ok_or(formerr)?;
            if record.kind == rr::OPT {
                let root = packet.get(at) == Some(&0);
                if n < others || query.edns.is_some() || !root || !options_are_whole(record.data(packet)) {
                    return Err(formerr);
                }
                query.edns = Some(Edns {
                    payload: record.class,
                    version: record.ttl.to_be_bytes()[1],
                    dnssec_ok: record.ttl & 0x8000 != 0,
                });
            }
            at = record.end;
        }
        if at == packet.len() { Ok(query) } else { Err(formerr) }
    }

    pub(crate) fn wants_recursion(&self) -> bool {
        self.packet.get(2).is_some_and(|b| b & 1 != 0)
    }

    pub(crate) fn checking_disabled(&self) -> bool {
        self.packet.get(3).is_some_and(|b| b & 0x10 != 0)
    }

    pub(crate) fn id(&self) -> u16 {
        u16_at(self.packet, 0).unwrap_or_default()
    }

    /// The question as it was asked, letter case and all.
    pub(crate) fn question(&self) -> &'p [u8] {
        self.packet.get(HEADER..self.question_end).unwrap_or_default()
    }

    /// Bytes of an answer at most.
    pub(crate) fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.clamp(UDP_LEAST, UDP_PAYLOAD)),
            (Transport::Udp, None) => usize::from(UDP_LEAST),
        }
    }
}

/// An option's code and length, and as many bytes, again and again.
fn options_are_whole(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some(len) = u16_at(data, 2) else { return false };
        let Some(rest) = data.get(4 + usize::from(len)..) else { return false };
        data = rest;
    }
    true
}

/// One resource record in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where its time to live is.
    pub(crate) ttl_at: usize,
    pub(crate) data_at: usize,
    pub(crate) end: usize,
}

impl Record {
    pub(crate) fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(message, at)?;
        let data_at = fixed + 10;
        let len = usize::from(u16_at(message, fixed + 8)?);
        message.get(data_at..data_at + len)?;
        Some(Self {
            kind: u16_at(message, fixed)?,
            class: u16_at(message, fixed + 2)?,
            ttl: u32_at(message, fixed + 4)?,
            ttl_at: fixed + 4,
            data_at,
            end: data_at + len,
        })
    }

    pub(crate) fn data<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        message.get(self.data_at..self.end).unwrap_or_default()
    }
}

/// Where the name at `at`, compressed or not, ends.
pub(crate) fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            // A pointer is the end; it may only go back.
            0xc0..=0xff => {
                let to = usize::from(u16_at(message, at)? & 0x3fff);
                return (to < start && to >= HEADER).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > super::name::LONGEST {
            return None;
        }
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Counts of an answer's sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) answers: u16,
    pub(crate) authorities: u16,
    pub(crate) additionals: u16,
}

/// An answer while it is written into a buffer that is used again and again.
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
    edns: Option<Edns>,
    rcode: Rcode,
    truncated: bool,
    pub(crate) counts: Counts,
}

impl<'o> Reply<'o> {
    /// Header and question.
    pub(crate) fn to(query: &Query<'_>, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(query.packet.get(..HEADER).unwrap_or(&[0; HEADER]));
        out.extend_from_slice(query.question());
        Self { out, edns: query.edns, rcode: Rcode::NoError, truncated: false, counts: Counts::default() }
    }

    pub(crate) fn rcode(mut self, rcode: Rcode) -> Self {
        self.rcode = rcode;
        self
    }

    /// Bytes that are left below `limit`, the OPT record put aside.
    pub(crate) fn room(&self, limit: usize) -> usize {
        let opt = if self.edns.is_some() { OPT_BYTES } else { 0 };
        limit.saturating_sub(self.out.len() + opt)
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// OPT record, flags and counts. `authoritative`: the name is in a zone of ours.
    pub(crate) fn finish(mut self, authoritative: bool) {
        if self.edns.is_some() {
            let high = ((self.rcode as u16) >> 4) as u8;
            let [p1, p2] = UDP_PAYLOAD.to_be_bytes();
            self.out.extend_from_slice(&[0, 0, rr::OPT as u8, p1, p2, high, 0, 0, 0, 0, 0]);
            self.counts.additionals += 1;
        }
        let Some(header) = self.out.first_chunk_mut::<HEADER>() else { return };
        // Answer, opcode as asked (QUERY), authoritative, truncated, recursion desired as asked.
        header[2] = 0x80 | u8::from(authoritative) << 2 | u8::from(self.truncated) << 1 | header[2] & 0x79;
        // Recursion available, checking disabled as asked.
        header[3] = 0x80 | header[3] & 0x10 | (self.rcode as u8) & 0xf;
        let counts = [1, self.counts.answers, self.counts.authorities, self.counts.additionals];
        for (to, count) in header[4..].chunks_exact_mut(2).zip(counts) {
            to.copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// Root, type, class, TTL, length.
const OPT_BYTES: usize = 11;

/// An answer without question for a packet that can't be understood. Opcode and recursion desired are as asked.
pub(crate) fn bare(packet: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = packet.first_chunk::<HEADER>() else { return };
    out.extend_from_slice(header);
    if let Some([flags, low, counts @ ..]) = out.get_mut(2..) {
        *flags = 0x80 | *flags & 0x79;
        *low = 0x80 | (rcode as u8) & 0xf;
        counts.fill(0);
    }
}
