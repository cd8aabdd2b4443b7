//! From objects to records, as the Kubernetes DNS specification says (version 1.1.0).

use super::name::{self, Wire};
use super::prepared::{Data, Node, Record, wire};
use super::source::{Key, Port, Service, Slice};
use hickory_proto::rr::rdata::{CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Seconds that a Service's own address may be remembered: it never changes while the Service lives.
const SERVICE_TTL: u32 = 30;
/// Seconds that an endpoint's may: pods come and go.
const ENDPOINT_TTL: u32 = 5;
/// Seconds that it may be remembered that there is nothing.
pub(crate) const NEGATIVE_TTL: u32 = 5;
/// Records of one name and type at most: as many AAAA records fill an answer by TCP.
const MOST_RECORDS: usize = 2000;
/// The version of the specification that names follow.
const VERSION: &str = "1.1.0";

/// Where the names of this host end.
#[derive(Clone, Debug)]
pub struct Zones {
    domain: Name,
    apex: Box<[u8]>,
    reverse: Vec<IpNet>,
    servers: Vec<IpAddr>,
}

/// The cluster's domain is no domain.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} can't be the cluster's domain: it must be a domain name shorter than 100 bytes, like cluster.local")]
pub struct BadDomain(String);

/// Longer ones would leave no room for the names in it.
const LONGEST_DOMAIN: usize = 100;

impl Zones {
    /// `domain` (`cluster.local`), the reverse names of `reverse`, and where the name server of the domain is.
    ///
    /// # Errors
    /// [`BadDomain`].
    pub fn new(domain: &str, reverse: Vec<IpNet>, servers: Vec<IpAddr>) -> Result<Self, BadDomain> {
        let bad = || BadDomain(domain.to_owned());
        let plain = domain.trim_end_matches('.');
        if plain.is_empty() || plain.len() > LONGEST_DOMAIN {
            return Err(bad());
        }
        let name = Name::from_ascii(format!("{plain}.")).map_err(|_| bad())?.to_lowercase();
        Ok(Self { apex: wire(&name), domain: name, reverse, servers })
    }

    /// The domain on the wire.
    pub(crate) fn apex(&self) -> &[u8] {
        &self.apex
    }

    /// The bytes at the end of a reverse name that are its zone's, when it is in one of ours; and whether the name is
    /// only the beginning of an address.
    pub(crate) fn reverse_zone(&self, wire: &[u8]) -> Option<(u8, bool)> {
        let reverse = name::Reverse::read(wire)?;
        let net = self.reverse.iter().find(|net| {
            let same_family = net.addr().is_ipv4() == reverse.address.is_ipv4();
            same_family && reverse.bits >= zone_bits(net) && net.contains(&reverse.address)
        })?;
        Some((reverse_apex(net, wire)?, reverse.bits < net.max_prefix_len()))
    }

    /// The data of the zones' SOA records.
    pub(crate) fn soa(&self, serial: u32) -> Option<SOA> {
        let below = |label: &str| self.domain.prepend_label(label).ok();
        let refresh = 7200;
        Some(SOA::new(
            below("dns")?.prepend_label("ns").ok()?,
            below("hostmaster")?,
            serial,
            refresh,
            1800,
            86_400,
            NEGATIVE_TTL,
        ))
    }

    /// Names that are always there: the domain itself, its version, its name server.
    pub(crate) fn fixed(&self, serial: u32) -> Vec<(Wire, Arc<Node>)> {
        let mut names = Names::new(self);
        let at = |before: &[&[u8]]| Wire::below(&self.apex, before);
        let other = |data: RData| Data::Other(Box::new(data));
        let server = at(&[b"ns", b"dns"]);
        if let (Some(domain), Some(server), Some(soa)) = (at(&[]), server, self.soa(serial)) {
            names.add(&domain, SERVICE_TTL, other(RData::SOA(soa)));
            if let Some(name) = server.to_hickory() {
                names.add(&domain, SERVICE_TTL, other(RData::NS(NS(name))));
            }
            for address in &self.servers {
                names.add(&server, SERVICE_TTL, Data::Address(*address));
            }
        }
        if let Some(version) = at(&[b"dns-version"]) {
            names.add(&version, SERVICE_TTL, other(RData::TXT(TXT::new(vec![VERSION.to_owned()]))));
        }
        let mut nodes = names.encode();
        for empty in [b"svc", b"pod"].into_iter().filter_map(|part| at(&[part])) {
            nodes.push((empty, Node::empty(self.apex_len())));
        }
        nodes
    }

    /// A namespace's names without records: services and pods are below them.
    pub(crate) fn namespace(&self, namespace: &str) -> Vec<(Wire, Arc<Node>)> {
        let both = [b"svc", b"pod"].into_iter().filter_map(|part| {
            let name = Wire::below(&self.apex, &[namespace.as_bytes(), part])?;
            Some((name, Node::empty(self.apex_len())))
        });
        both.collect()
    }

    fn apex_len(&self) -> u8 {
        u8::try_from(self.apex.len()).unwrap_or(u8::MAX)
    }

    /// The name that an address has.
    pub(crate) fn pointer(&self, address: IpAddr, targets: &BTreeSet<Wire>, ttl: u32) -> Option<(Wire, Arc<Node>)> {
        let net = self.reverse.iter().find(|net| net.contains(&address))?;
        let name = Wire::reverse(address);
        let apex = reverse_apex(net, name.bytes())?;
        let pointers = targets.iter().take(MOST_RECORDS);
        let records: Vec<Record> = pointers.map(|to| Record { ttl, data: Data::Pointer(Wire::clone(to)) }).collect();
        let node = Node::new(&name, &records, |_| &[], apex);
        Some((name, Arc::new(node)))
    }
}

/// Bits of a network that whole labels of reverse names say: its zones begin there.
fn zone_bits(net: &IpNet) -> u8 {
    net.prefix_len().div_ceil(label_bits(net)) * label_bits(net)
}

/// Bits that a label of a reverse name says.
fn label_bits(net: &IpNet) -> u8 {
    if net.addr().is_ipv4() { 8 } else { 4 }
}

/// The bytes at the end of a reverse name of a network that are its zone's.
fn reverse_apex(net: &IpNet, wire: &[u8]) -> Option<u8> {
    // `in-addr.arpa` or `ip6.arpa`.
    let zone_labels = usize::from(zone_bits(net) / label_bits(net)) + 2;
    let before = name::labels(wire).count().saturating_sub(zone_labels);
    let apex = name::labels(wire).skip(before).map(|label| label.len() + 1).sum::<usize>() + 1;
    u8::try_from(apex).ok()
}

/// All that one Service gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragment {
    /// Names with their answers.
    pub(crate) nodes: Vec<(Wire, Arc<Node>)>,
    /// Addresses with the name that they point back to.
    pub(crate) pointers: Vec<(IpAddr, Wire)>,
}

/// Records by name while they are gathered.
struct Names<'z> {
    zones: &'z Zones,
    records: BTreeMap<Wire, Vec<Record>>,
}

impl<'z> Names<'z> {
    fn new(zones: &'z Zones) -> Self {
        Self { zones, records: BTreeMap::new() }
    }

    /// A record once, and no more of them than an answer can hold.
    fn add(&mut self, name: &Wire, ttl: u32, data: Data) {
        let records = match self.records.get_mut(name) {
            Some(records) => records,
            None => self.records.entry(name.clone()).or_default(),
        };
        if records.len() < MOST_RECORDS {
            records.push(Record { ttl, data });
        }
    }

    /// Answers for all names.
    fn encode(mut self) -> Vec<(Wire, Arc<Node>)> {
        self.records.values_mut().for_each(once_each);
        let glue = |target: &Wire| self.records.get(target).map(Vec::as_slice).unwrap_or_default();
        let apex = self.zones.apex_len();
        let nodes =
            self.records.iter().map(|(name, records)| (name.clone(), Arc::new(Node::new(name, records, glue, apex))));
        nodes.collect()
    }
}

/// Leaves each record once.
fn once_each(records: &mut Vec<Record>) {
    /// As many are compared with each other quicker than they are hashed.
    const FEW: usize = 16;
    if records.len() > FEW {
        let mut seen = HashSet::with_capacity(records.len());
        records.retain(|r| seen.insert(r.data.clone()));
        return;
    }
    let mut at = 1;
    while let Some((before, record)) = records.get(..at).zip(records.get(at)) {
        if before.iter().any(|other| other.data == record.data) { drop(records.remove(at)) } else { at += 1 }
    }
}

/// The names of one Service with its slices.
pub(crate) fn service_names(zones: &Zones, key: &Key, service: &Service, slices: &[&Slice]) -> Fragment {
    let mut fragment = Fragment::default();
    // A name that is too long can't be asked for either.
    let base = Wire::below(&zones.apex, &[key.1.as_bytes(), key.0.as_bytes(), b"svc"]);
    let Some(base) = base else { return fragment };
    let mut names = Names::new(zones);
    if let Some(external) = &service.external_name {
        if let Ok(target) = Name::from_ascii(format!("{}.", external.trim_end_matches('.'))) {
            names.add(&base, SERVICE_TTL, Data::Other(Box::new(RData::CNAME(CNAME(target)))));
        }
    } else if service.headless {
        headless(&mut names, &mut fragment.pointers, &base, service, slices);
    } else {
        for address in &service.addresses {
            names.add(&base, SERVICE_TTL, Data::Address(*address));
            fragment.pointers.push((*address, base.clone()));
        }
        let all: Vec<(&Port, &Wire)> = service.ports.iter().map(|p| (p, &base)).collect();
        if !service.addresses.is_empty() {
            service_ports(&mut names, &base, &all, SERVICE_TTL);
        }
    }
    let apex = zones.apex_len();
    let between = empty_names(&names.records, &base);
    fragment.nodes = names.encode();
    fragment.nodes.extend(between.into_iter().map(|name| (name, Node::empty(apex))));
    fragment
}

/// Each ready endpoint's addresses under the service's name and under its own.
fn headless(
    names: &mut Names<'_>,
    pointers: &mut Vec<(IpAddr, Wire)>,
    base: &Wire,
    service: &Service,
    slices: &[&Slice],
) {
    let mut hosts: Vec<(&Port, Wire)> = Vec::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready || service.publish_not_ready) {
            for address in &endpoint.addresses {
                let label = match &endpoint.hostname {
                    Some(hostname) => hostname.to_string(),
                    None => dashed(*address),
                };
                let Some(host) = Wire::below(base.bytes(), &[label.as_bytes()]) else { continue };
                names.add(base, ENDPOINT_TTL, Data::Address(*address));
                names.add(&host, ENDPOINT_TTL, Data::Address(*address));
                pointers.push((*address, host.clone()));
                hosts.extend(slice.ports.iter().map(|p| (p, host.clone())));
            }
        }
    }
    hosts.sort();
    hosts.dedup();
    let all: Vec<(&Port, &Wire)> = hosts.iter().map(|(p, h)| (*p, h)).collect();
    service_ports(names, base, &all, ENDPOINT_TTL);
}

/// SRV records below `_port._protocol`, and all of them under the service's own name as CoreDNS has them.
fn service_ports(names: &mut Names<'_>, base: &Wire, all: &[(&Port, &Wire)], ttl: u32) {
    // Those of one port stand together.
    let same = |a: &(&Port, &Wire), b: &(&Port, &Wire)| (&a.0.name, &a.0.protocol) == (&b.0.name, &b.0.protocol);
    for of_port in all.chunk_by(same) {
        let weight = u16::try_from((100 / of_port.len()).max(1)).unwrap_or(1);
        for (port, target) in of_port {
            let Some(name) = Wire::port(base.bytes(), &port.name, &port.protocol) else { continue };
            let data = Data::Port { weight, port: port.port, target: Wire::clone(target) };
            names.add(&name, ttl, data.clone());
            names.add(base, ttl, data);
        }
    }
}

/// Names without records between those with records and `base`, itself included when only names below it have some.
fn empty_names(records: &BTreeMap<Wire, Vec<Record>>, base: &Wire) -> BTreeSet<Wire> {
    let mut empty = BTreeSet::new();
    for name in records.keys().filter(|name| *name != base) {
        let mut above = name::parent(name.bytes());
        while let Some(name) = above.filter(|name| name.len() >= base.bytes().len()) {
            above = name::parent(name);
            if !records.contains_key(name) && !empty.contains(name) {
                empty.extend(Wire::below(name, &[]));
            }
        }
    }
    empty
}

/// The name of an endpoint that was given none: unique, and the same for as long as its address is.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a pod's name says, `10-88-0-7` or `fd00--7`.
pub(crate) fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = text.replace('-', ".").parse::<std::net::Ipv4Addr>().map(IpAddr::from);
    v4.or_else(|_| text.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::from)).ok()
}

/// Seconds that a pointer may be remembered.
pub(crate) const POINTER_TTL: u32 = ENDPOINT_TTL;
