//! What of the services ILB balances, and what stays with ipnat.

use crate::ilbadm::{Balanced, Name, Prefix, Protocol, RULES, SERVERS};
use reddwarf_host::service::{Backends, Frontend, Place, Protocol as Transport, ServiceTable};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// The two parts of a table's frontends; each frontend is in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) ilb: BTreeMap<Name, Balanced>,
    pub(crate) ipnat: BTreeMap<Frontend, Backends>,
}

impl Split {
    /// All of it with ipnat.
    pub(crate) fn without_ilb(table: &ServiceTable) -> Self {
        Self { ilb: BTreeMap::new(), ipnat: table.frontends.clone() }
    }
}

/// Gives ILB what it can do as the table promises it. `own` are the host's addresses.
pub(crate) fn split(table: &ServiceTable, own: &[IpAddr], prefix: &Prefix) -> Split {
    let mut split = Split::default();
    for (frontend, backends) in &table.frontends {
        let fits = balanced(table, own, frontend, backends).and_then(|rule| {
            let name = prefix.name(rule.vip, rule.protocol, rule.port);
            (split.ilb.len() < RULES && !split.ilb.contains_key(&name)).then_some((name, rule))
        });
        match fits {
            Some((name, rule)) => drop(split.ilb.insert(name, rule)),
            None => drop(split.ipnat.insert(*frontend, backends.clone())),
        }
    }
    split
}

/// The frontend as a rule of ILB; `None`: it is ipnat's.
fn balanced(table: &ServiceTable, own: &[IpAddr], frontend: &Frontend, backends: &Backends) -> Option<Balanced> {
    let Frontend { place, protocol, port } = *frontend;
    let Backends { name: _, addresses, affinity_seconds, sources } = backends;
    let protocol = match protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => return None,
    };
    // A rule has one address, and what else comes for that address is treated too: pings are answered, other ICMP messages
    // and all fragments dropped. No address of the host itself may fare so.
    let Place::Address(vip) = place else { return None };
    let taken = match vip {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some())
        }
    };
    if !taken || own.contains(&vip) {
        return None;
    }
    // It asks nobody where he comes from.
    if !sources.is_empty() {
        return None;
    }
    // Half NAT leaves pods the client's address, as promised, and lives of replies that come by way of us, which those of
    // pods do. Full NAT, for servers elsewhere, would need addresses that nobody else has: its ports are given out without
    // asking the host which ones it uses.
    if addresses.is_empty() || addresses.len() > SERVERS {
        return None;
    }
    if !addresses.iter().all(|a| table.pods.iter().any(|net| net.contains(&a.ip()))) {
        return None;
    }
    // A group has each address once.
    let servers: BTreeMap<IpAddr, u16> = addresses.iter().map(|a| (a.ip(), a.port())).collect();
    if servers.len() < addresses.len() {
        return None;
    }
    let affinity_seconds = match affinity_seconds {
        None => None,
        // A time of 0 is refused.
        Some(seconds) => Some(NonZeroU32::new(*seconds)?),
    };
    Some(Balanced { vip, protocol, port, affinity_seconds, servers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn table(place: &str, backends: &[&str]) -> ServiceTable {
        let place = place.parse().map_or(Place::HostV4, Place::Address);
        let backends = Backends {
            name: "default/web".into(),
            addresses: backends.iter().map(|b| b.parse().unwrap()).collect(),
            ..Backends::default()
        };
        let frontend = Frontend { place, protocol: Transport::Tcp, port: 80 };
        let pods = ["10.88.0.0/16", "fd88::/64"].map(|net| net.parse().unwrap()).into();
        ServiceTable { frontends: [(frontend, backends)].into(), pods, ..ServiceTable::default() }
    }

    fn parts(table: &ServiceTable) -> (usize, usize) {
        let split = split(table, &["192.0.2.2".parse().unwrap()], &Prefix::of("reddwarf"));
        (split.ilb.len(), split.ipnat.len())
    }

    fn with(change: impl FnOnce(&mut Backends)) -> ServiceTable {
        let mut table = table("10.96.0.5", &["10.88.0.5:8080"]);
        change(table.frontends.values_mut().next().unwrap());
        table
    }

    #[test]
    fn ilb_gets_what_it_can_do_as_promised() {
        let (ilb, ipnat) = ((1, 0), (0, 1));
        let many: Vec<String> = (0..=SERVERS).map(|n| format!("10.88.{}.{}:80", n / 250, 1 + n % 250)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (what, table, expected) in [
            ("a cluster address", table("10.96.0.5", &["10.88.0.5:8080", "10.88.0.6:80"]), ilb),
            ("one of IPv6", table("fd96::5", &["[fd88::5]:8080"]), ilb),
            ("a load balancer's", table("198.51.100.9", &["10.88.0.5:8080"]), ilb),
            ("as many backends as a group holds", table("10.96.0.5", &many[..SERVERS]), ilb),
            ("affinity", with(|b| b.affinity_seconds = Some(10)), ilb),
            ("every address of the host", table("host", &["10.88.0.5:8080"]), ipnat),
            ("one address of the host", table("192.0.2.2", &["10.88.0.5:8080"]), ipnat),
            ("an address that the kernel refuses", table("127.0.0.1", &["10.88.0.5:8080"]), ipnat),
            ("nobody behind it", table("10.96.0.5", &[]), ipnat),
            ("more than a group holds", table("10.96.0.5", &many), ipnat),
            ("two ports of one pod", table("10.96.0.5", &["10.88.0.5:80", "10.88.0.5:81"]), ipnat),
            ("a backend that is no pod", table("10.96.0.5", &["10.88.0.5:80", "203.0.113.7:80"]), ipnat),
            ("sources", with(|b| b.sources = ["10.0.0.0/8".parse().unwrap()].into()), ipnat),
            ("affinity of no time", with(|b| b.affinity_seconds = Some(0)), ipnat),
        ] {
            assert_eq!(parts(&table), expected, "{what}");
        }
    }

    /// More than ilbd lists would never be seen again.
    #[test]
    fn there_are_never_more_rules_than_ilbd_lists() {
        let mut table = table("10.96.0.5", &["10.88.0.5:8080"]);
        let (frontend, backends) = table.frontends.iter().next().map(|(f, b)| (*f, b.clone())).unwrap();
        table.frontends.extend((1..=5000).map(|port| (Frontend { port, ..frontend }, backends.clone())));
        assert_eq!(parts(&table), (RULES, 1000));
        let split = split(&table, &[], &Prefix::of("reddwarf"));
        let places: BTreeSet<_> =
            split.ilb.values().map(|r| r.port).chain(split.ipnat.keys().map(|f| f.port)).collect();
        assert_eq!(places.len(), 5000, "each is in one part");
    }
}
