//! From a query and a snapshot to an answer: a pure function.

use super::message::{self, Counts, Query, Rcode, Reply, Transport, Unreadable, rr};
use super::name::{self, Room};
use super::prepared::{Node, Set};
use super::snapshot::Snapshot;
use super::zone;
use std::net::IpAddr;

/// What to do with a packet.
#[derive(Debug)]
pub(crate) enum Verdict<'p> {
    /// Send what was written.
    Reply,
    /// Nothing was written: others have to be asked.
    Forward(Box<Forward<'p>>),
    /// Nothing must be sent.
    Silence,
}

/// A question for others.
pub(crate) struct Forward<'p> {
    /// As it was asked of us.
    pub(crate) query: Query<'p>,
    /// Aliases of ours that lead to another name: that one is to be asked for.
    pub(crate) aliases: Option<Aliases>,
}

impl std::fmt::Debug for Forward<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("kind", &self.query.kind).finish_non_exhaustive()
    }
}

/// CNAME records from the name that was asked to another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aliases {
    /// Each with the name that it points to, in wire form, and its time to live.
    pub(crate) steps: Vec<(Box<[u8]>, u32)>,
}

/// Aliases that are followed at most.
const MOST_ALIASES: usize = 8;

/// Answers `packet` from `snapshot` into `out`. `recursion`: whether the asker may have others asked. `room` is for the name.
pub(crate) fn answer<'p>(
    snapshot: &Snapshot,
    packet: &'p [u8],
    transport: Transport,
    recursion: impl Fn() -> bool,
    room: &'p mut Room,
    out: &mut Vec<u8>,
) -> Verdict<'p> {
    let query = match Query::read(packet, transport, room) {
        Ok(query) => query,
        Err(Unreadable::Silence) => return Verdict::Silence,
        Err(Unreadable::Answer(rcode)) => {
            message::bare(packet, rcode, out);
            return Verdict::Reply;
        }
    };
    let refuse = |rcode, out: &mut Vec<u8>| {
        Reply::to(&query, out).rcode(rcode).finish(false);
        Verdict::Reply
    };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return refuse(Rcode::BadVers, out);
    }
    // Transfers are nobody's; other classes have no names here.
    if matches!(query.kind, rr::AXFR | rr::IXFR) || query.class != rr::IN {
        return refuse(Rcode::Refused, out);
    }
    if matches!(query.kind, 0 | rr::OPT | 249..=254) {
        return refuse(Rcode::NotImp, out);
    }
    let wire = query.name.wire();
    if let Some(node) = snapshot.node(wire) {
        return found(snapshot, query, node, recursion, out);
    }
    match missing(snapshot, wire) {
        Missing::Pod(address) => pod(snapshot, &query, address, out),
        Missing::Absent(apex) => negative(snapshot, &query, apex, Rcode::NxDomain, out),
        Missing::Empty(apex) => negative(snapshot, &query, apex, Rcode::NoError, out),
        Missing::Foreign if query.wants_recursion() && recursion() => {
            return Verdict::Forward(Box::new(Forward { query, aliases: None }));
        }
        Missing::Foreign => return refuse(Rcode::Refused, out),
    }
    Verdict::Reply
}

/// What a name is that has no node. The number is the length of its zone's name.
enum Missing {
    Pod(IpAddr),
    Absent(u8),
    Empty(u8),
    Foreign,
}

fn missing(snapshot: &Snapshot, wire: &[u8]) -> Missing {
    let zones = &snapshot.zones;
    let Some(before) = name::below(wire, zones.apex()) else {
        return match zones.reverse_zone(wire) {
            // Whether a beginning of addresses leads to names is not kept: that it may is never wrong.
            Some((apex, true)) => Missing::Empty(apex),
            Some((apex, false)) => Missing::Absent(apex),
            None => Missing::Foreign,
        };
    };
    let apex = u8::try_from(zones.apex().len()).unwrap_or(u8::MAX);
    let mut labels = name::labels(before);
    let (first, second, third) = (labels.next(), labels.next(), labels.next());
    // The namespace's own name tells whether there is one.
    let of_pod = third == Some(b"pod") && labels.next().is_none();
    let parent = first.and_then(|label| wire.get(label.len() + 1..));
    match first.filter(|_| of_pod && second.is_some()).and_then(zone::undashed) {
        Some(address) if parent.is_some_and(|p| snapshot.node(p).is_some()) => Missing::Pod(address),
        _ => Missing::Absent(apex),
    }
}

/// A name of ours.
fn found<'p>(
    snapshot: &Snapshot,
    query: Query<'p>,
    node: &Node,
    recursion: impl Fn() -> bool,
    out: &mut Vec<u8>,
) -> Verdict<'p> {
    if query.kind == rr::ANY {
        minimal(&query, out);
    } else if let Some(set) = node.set(query.kind) {
        positive(&query, set, out);
    } else if node.alias.is_some() {
        return alias(snapshot, query, node, recursion, out);
    } else {
        negative(snapshot, &query, node.apex, Rcode::NoError, out);
    }
    Verdict::Reply
}

fn positive(query: &Query<'_>, set: &Set, out: &mut Vec<u8>) {
    let limit = query.limit();
    // Ids are random: so is who comes first.
    let first = usize::from(query.id());
    let mut reply = Reply::to(query, out);
    let room = reply.room(limit);
    let body = if set.all().len() <= room {
        reply.counts = Counts { answers: set.answers, authorities: 0, additionals: set.additionals };
        set.all()
    } else {
        reply.counts.answers = set.answers;
        set.answers()
    };
    if body.len() > room {
        cut(&mut reply, body, room);
    } else if let Some(stride) = set.stride() {
        let (late, early) =
            body.split_at_checked(first % usize::from(set.answers.max(1)) * stride).unwrap_or((body, &[]));
        reply.append(early);
        reply.append(late);
    } else {
        reply.append(body);
    }
    reply.finish(true);
}

/// As many whole records as there is room for. Some resolvers use them instead of asking by TCP.
fn cut(reply: &mut Reply<'_>, body: &[u8], room: usize) {
    let (mut at, mut records) = (0, 0);
    // Pointers may lead before what is here: they are to be skipped only.
    while let Some(next) = next_record(body, at).filter(|next| *next <= room) {
        at = next;
        records += 1;
    }
    reply.append(body.get(..at).unwrap_or_default());
    reply.counts = Counts { answers: records, ..Counts::default() };
    reply.truncate();
}

/// Where the record of ours at `at` ends. Our records' names are pointers.
fn next_record(body: &[u8], at: usize) -> Option<usize> {
    let fixed = at + 2;
    let end = fixed + 10 + usize::from(message::u16_at(body, fixed + 8)?);
    (end <= body.len()).then_some(end)
}

fn negative(snapshot: &Snapshot, query: &Query<'_>, apex: u8, rcode: Rcode, out: &mut Vec<u8>) {
    let name = query.name.wire().len();
    let mut reply = Reply::to(query, out).rcode(rcode);
    let at = message::HEADER + name.saturating_sub(usize::from(apex));
    append_record(&mut reply, at, rr::SOA, zone::NEGATIVE_TTL, &snapshot.soa);
    reply.counts.authorities = 1;
    reply.finish(true);
}

/// A record whose name is at `at` in the message.
fn append_record(reply: &mut Reply<'_>, at: usize, kind: u16, ttl: u32, data: &[u8]) {
    let pointer = u16::try_from(at).unwrap_or_default() | 0xc000;
    reply.append(&pointer.to_be_bytes());
    reply.append(&kind.to_be_bytes());
    reply.append(&rr::IN.to_be_bytes());
    reply.append(&ttl.to_be_bytes());
    reply.append(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    reply.append(data);
}

/// RFC 8482: a question for everything gets one small record.
fn minimal(query: &Query<'_>, out: &mut Vec<u8>) {
    let mut reply = Reply::to(query, out);
    append_record(&mut reply, message::HEADER, rr::HINFO, zone::NEGATIVE_TTL, b"\x07RFC8482\0");
    reply.counts.answers = 1;
    reply.finish(true);
}

/// Names of pods are not kept: they say their address.
fn pod(snapshot: &Snapshot, query: &Query<'_>, address: IpAddr, out: &mut Vec<u8>) {
    let mut reply = Reply::to(query, out);
    match (address, query.kind) {
        (IpAddr::V4(v4), rr::A) => append_record(&mut reply, message::HEADER, rr::A, zone::POINTER_TTL, &v4.octets()),
        (IpAddr::V6(v6), rr::AAAA) => {
            append_record(&mut reply, message::HEADER, rr::AAAA, zone::POINTER_TTL, &v6.octets());
        }
        (_, rr::ANY) => return minimal(query, out),
        _ => {
            let apex = u8::try_from(snapshot.zones.apex().len()).unwrap_or(u8::MAX);
            return negative(snapshot, query, apex, Rcode::NoError, out);
        }
    }
    reply.counts.answers = 1;
    reply.finish(true);
}

/// Follows aliases: within our names to the end, else to the first name that is not ours.
fn alias<'p>(
    snapshot: &Snapshot,
    query: Query<'p>,
    node: &Node,
    recursion: impl Fn() -> bool,
    out: &mut Vec<u8>,
) -> Verdict<'p> {
    let mut aliases = Aliases::default();
    let mut at = node;
    let end = loop {
        let Some((target, ttl)) = &at.alias else { break Some(at) };
        aliases.steps.push((target.clone(), *ttl));
        // A circle: the records alone are the answer.
        if aliases.steps.len() > MOST_ALIASES {
            break None;
        }
        match snapshot.node(target) {
            Some(next) => at = next,
            None if matches!(missing(snapshot, target), Missing::Foreign) => {
                if query.wants_recursion() && recursion() {
                    return Verdict::Forward(Box::new(Forward { query, aliases: Some(aliases) }));
                }
                break None;
            }
            None => {
                aliased(&query, &aliases, None, Rcode::NxDomain, out);
                return Verdict::Reply;
            }
        }
    };
    let set = end.and_then(|node| node.set(query.kind)).filter(|set| set.stride().is_some());
    aliased(&query, &aliases, set, Rcode::NoError, out);
    Verdict::Reply
}

/// An answer that begins with aliases and ends with addresses, if the last name has some.
fn aliased(query: &Query<'_>, aliases: &Aliases, set: Option<&Set>, rcode: Rcode, out: &mut Vec<u8>) {
    let limit = query.limit();
    let mut reply = Reply::to(query, out).rcode(rcode);
    let mut owner = message::HEADER;
    for (target, ttl) in &aliases.steps {
        if reply.room(limit) < target.len() + 12 {
            reply.truncate();
            break;
        }
        let here = reply.len() + 12;
        append_record(&mut reply, owner, rr::CNAME, *ttl, target);
        reply.counts.answers += 1;
        owner = here;
    }
    let stride = set.and_then(Set::stride).unwrap_or(usize::MAX);
    for record in set.map(Set::answers).unwrap_or_default().chunks_exact(stride) {
        if reply.room(limit) < stride {
            reply.truncate();
            break;
        }
        // The same record under the last alias' name.
        reply.append(&(u16::try_from(owner).unwrap_or_default() | 0xc000).to_be_bytes());
        reply.append(record.get(message::TO_QUESTION.len()..).unwrap_or_default());
        reply.counts.answers += 1;
    }
    reply.finish(true);
}
