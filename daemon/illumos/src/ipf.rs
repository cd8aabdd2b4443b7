//! Packet filters of zones (ipf(5), ipf(8)), which the global zone controls (`-G`): a zone's whole set, loaded beside the
//! one in force and exchanged for it in one step.
//!
//! The kernel has a list for each family, and ipf reads rules of one family at a time: without `-6` every rule is about
//! IPv4, and what has no rules lets everything pass. So each set is two texts. A zone's filter does nothing, and takes no
//! rules, until it was enabled since the zone's boot.

use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::service::{Allow, Direction, PortRange, Protocol};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// What of a service table concerns one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneFilter {
    /// What may come in; `None`: everything.
    pub ingress: Option<BTreeSet<Allow>>,
    /// What may go out; `None`: everything.
    pub egress: Option<BTreeSet<Allow>>,
    /// Who may always come in: the host itself, by its gateways.
    pub host: Vec<IpAddr>,
    /// Where names may always be asked for.
    pub resolvers: BTreeSet<SocketAddr>,
    /// Services that may be reached because of who is behind them.
    pub services: BTreeSet<(Protocol, SocketAddr)>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What IPv6 can't do without on a link, by its numbers in ICMPv6: who listens to which group (switches look at that), and
/// who has which address (RFC 4890, 4.4.1).
const LINK: [u8; 8] = [130, 131, 132, 133, 134, 135, 136, 143];

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The option that rules of this family, and questions for them, need.
    pub(crate) fn option(self) -> Option<&'static str> {
        (self == Self::V6).then_some("-6")
    }

    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// A network of this family as ipf(5) reads it: in one spelling alone, for the kernel refuses a rule that it has. Of
    /// IPv6 ipf does not cut off what is beyond the prefix, and the rule would fit nothing.
    fn network(self, net: &IpNet) -> Option<String> {
        let text = if net.prefix_len() == 0 { "any".to_owned() } else { net.trunc().to_string() };
        self.has(net.addr()).then_some(text)
    }
}

/// Rules in their order, each once.
#[derive(Default)]
struct Rules {
    text: String,
    said: BTreeSet<String>,
}

impl Rules {
    fn say(&mut self, rule: String) {
        if self.said.insert(rule.clone()) {
            let _ = writeln!(self.text, "{rule}");
        }
    }

    /// What a policy lets pass.
    fn allow(&mut self, family: Family, direction: Direction, allow: &Allow) {
        let way = if direction == Direction::Ingress { "in" } else { "out" };
        let peers: Vec<String> = match &allow.peers {
            None => vec!["any".to_owned()],
            Some(peers) => peers.iter().filter_map(|peer| family.network(peer)).collect(),
        };
        for peer in &peers {
            let (from, to) =
                if direction == Direction::Ingress { (peer.as_str(), "any") } else { ("any", peer.as_str()) };
            let Some(ports) = &allow.ports else {
                self.say(format!("pass {way} quick from {from} to {to} keep state"));
                continue;
            };
            for (protocol, port) in ports.iter().filter_map(at) {
                self.say(format!("pass {way} quick proto {protocol} from {from} to {to}{port} keep state"));
            }
        }
    }
}

/// A protocol and its ports; `None`: ipf has no rule for that. Of SCTP it knows no ports.
fn at(range: &PortRange) -> Option<(&'static str, String)> {
    let whole = matches!((range.first, range.last), (0 | 1, u16::MAX));
    let protocol = match range.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return whole.then(|| ("132", String::new())),
    };
    // `<>` leaves the bounds themselves out.
    let port = match (range.first, range.last) {
        (first, last) if first == last => format!(" port = {first}"),
        _ if whole => " port > 0".to_owned(),
        (first, u16::MAX) => format!(" port > {}", first.saturating_sub(1)),
        (first, last) => format!(" port {} >< {}", first.saturating_sub(1), last.saturating_add(1)),
    };
    Some((protocol, port))
}

impl ZoneFilter {
    /// Whether nothing is filtered.
    pub fn is_open(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }

    /// The whole set of one family, as ipf(5) reads it; nothing where nothing is filtered. Replies pass by state; the pod
    /// itself always passes.
    pub fn rules(&self, family: Family) -> String {
        if self.is_open() {
            return String::new();
        }
        let mut rules = Rules::default();
        for way in ["in", "out"] {
            rules.say(format!("pass {way} quick on lo0 all"));
        }
        if family == Family::V6 {
            for (kind, way) in LINK.iter().flat_map(|kind| [(kind, "in"), (kind, "out")]) {
                rules.say(format!("pass {way} quick proto 58 from any to any icmp-type {kind}"));
            }
        }
        match &self.ingress {
            Some(allowed) => {
                for host in self.host.iter().filter_map(|host| family.network(&IpNet::from(*host))) {
                    rules.say(format!("pass in quick from {host} to any keep state"));
                }
                allowed.iter().for_each(|allow| rules.allow(family, Direction::Ingress, allow));
                rules.say("block in quick from any to any".to_owned());
            }
            None => rules.say("pass in quick from any to any keep state".to_owned()),
        }
        match &self.egress {
            Some(allowed) => {
                let resolvers = self.resolvers.iter().flat_map(|at| ["udp", "tcp"].map(|protocol| (protocol, at)));
                let services = self.services.iter().map(|(protocol, at)| (protocol.as_str(), at));
                for (protocol, at) in resolvers.chain(services).filter(|(_, at)| family.has(at.ip())) {
                    let (to, port) = (IpNet::from(at.ip()), at.port());
                    rules.say(format!("pass out quick proto {protocol} from any to {to} port = {port} keep state"));
                }
                allowed.iter().for_each(|allow| rules.allow(family, Direction::Egress, allow));
                rules.say("block out quick from any to any".to_owned());
            }
            None => rules.say("pass out quick from any to any keep state".to_owned()),
        }
        rules.text
    }

    /// The runs that put it in force: enabled (which changes nothing where it is), loaded as the inactive set, one family
    /// after the other, then exchanged, both families at once; last of all the rules find their interfaces.
    pub fn runs(&self, zone: &str) -> [Invocation; 5] {
        let run = |args: &[&str]| Invocation::change(Tool::Ipf, args.iter().copied().chain([zone]));
        [
            run(&["-G", "-E"]),
            run(&["-G", "-I", "-Fa", "-f", "-"]).reading(self.rules(Family::V4)),
            run(&["-6", "-G", "-I", "-Fa", "-f", "-"]).reading(self.rules(Family::V6)),
            run(&["-G", "-s"]),
            run(&["-G", "-y"]),
        ]
    }
}

/// Has the global zone's rules of translation find their interfaces: one that was made anew is another one.
pub fn find_interfaces() -> Invocation {
    Invocation::change(Tool::Ipf, ["-y"])
}

/// Asks whether the global zone's filter is enabled; [`is_enabled`] reads the answer.
pub fn version() -> Invocation {
    Invocation::read(Tool::Ipf, ["-V"])
}

/// Whether it is: without it there is no translation either.
pub fn is_enabled(version: &str) -> bool {
    version.lines().any(|line| line.trim() == "Running: yes")
}

/// What ipf says of a rule that is there already.
pub(crate) const THERE: &str = ": File exists";

/// What ipf complained of, but for lines that end in words that are fine; `None`: it is done. It ends with 0 whatever the kernel says
/// of a rule, of an exchange, of a zone that is not there: only what it prints tells.
pub(crate) fn complaint(stderr: &str, fine: &[&str]) -> Option<String> {
    let is_fine = |line: &&str| line.is_empty() || fine.iter().any(|words| line.ends_with(words));
    let all: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !is_fine(line)).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
        PortRange { protocol, first, last }
    }

    fn allow(peers: Option<&[&str]>, ports: Option<&[PortRange]>) -> Allow {
        let peers = peers.map(|all| all.iter().map(|p| p.parse().unwrap()).collect());
        Allow { peers, ports: ports.map(|all| all.iter().copied().collect()) }
    }

    /// Of two families; peers whose bits reach beyond their prefix, and rules that two policies say.
    fn dual() -> ZoneFilter {
        let web = [range(Protocol::Tcp, 80, 80), range(Protocol::Tcp, 8000, 8100)];
        ZoneFilter {
            ingress: Some(
                [
                    allow(Some(&["10.88.0.5/32", "fd00::5/128", "fd01::5/64"]), Some(&web)),
                    allow(Some(&["10.88.0.5/32"]), Some(&web[..1])),
                    allow(Some(&["10.88.0.1/32"]), None),
                ]
                .into(),
            ),
            egress: Some([allow(Some(&["0.0.0.0/0"]), Some(&[range(Protocol::Udp, 1, u16::MAX)]))].into()),
            host: vec!["10.88.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            resolvers: ["10.88.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()].into(),
            services: [(Protocol::Tcp, "10.96.0.5:80".parse().unwrap())].into(),
        }
    }

    #[test]
    fn each_family_has_its_rules_each_of_them_once() {
        assert_eq!(
            dual().rules(Family::V4),
            "pass in quick on lo0 all\npass out quick on lo0 all\n\
             pass in quick from 10.88.0.1/32 to any keep state\n\
             pass in quick proto tcp from 10.88.0.5/32 to any port = 80 keep state\n\
             pass in quick proto tcp from 10.88.0.5/32 to any port 7999 >< 8101 keep state\n\
             block in quick from any to any\n\
             pass out quick proto udp from any to 10.88.0.1/32 port = 53 keep state\n\
             pass out quick proto tcp from any to 10.88.0.1/32 port = 53 keep state\n\
             pass out quick proto tcp from any to 10.96.0.5/32 port = 80 keep state\n\
             pass out quick proto udp from any to any port > 0 keep state\n\
             block out quick from any to any\n"
        );
        let six = dual().rules(Family::V6);
        let (link, rest): (Vec<&str>, Vec<&str>) = six.lines().partition(|l| l.contains(" proto 58 "));
        assert_eq!(link.len(), 16);
        assert_eq!(
            link[..2],
            [
                "pass in quick proto 58 from any to any icmp-type 130",
                "pass out quick proto 58 from any to any icmp-type 130"
            ]
        );
        assert_eq!(
            rest,
            [
                "pass in quick on lo0 all",
                "pass out quick on lo0 all",
                "pass in quick from fd00::1/128 to any keep state",
                "pass in quick proto tcp from fd00::5/128 to any port = 80 keep state",
                "pass in quick proto tcp from fd00::5/128 to any port 7999 >< 8101 keep state",
                "pass in quick proto tcp from fd01::/64 to any port = 80 keep state",
                "pass in quick proto tcp from fd01::/64 to any port 7999 >< 8101 keep state",
                "block in quick from any to any",
                "pass out quick proto udp from any to fd00::1/128 port = 53 keep state",
                "pass out quick proto tcp from any to fd00::1/128 port = 53 keep state",
                "block out quick from any to any",
            ]
        );
    }

    /// A pod of one family is closed in the other as well: its link has both.
    #[test]
    fn what_is_closed_is_closed_in_both_families() {
        let closed = ZoneFilter { ingress: Some(BTreeSet::new()), ..ZoneFilter::default() };
        for family in Family::ALL {
            let rules = closed.rules(family);
            assert!(
                rules.contains("block in quick from any to any\npass out quick from any to any keep state\n"),
                "{rules}"
            );
        }
        let open = ZoneFilter { host: vec!["10.88.0.1".parse().unwrap()], ..ZoneFilter::default() };
        assert!(open.is_open() && Family::ALL.map(|f| open.rules(f)) == ["", ""]);
    }

    /// ipf(8) takes the zone last, and `-6` before what it is about.
    #[test]
    fn a_set_is_loaded_beside_the_one_in_force() {
        let runs = dual().runs("rw-a");
        assert_eq!(
            runs.each_ref().map(ToString::to_string),
            [
                "ipf -G -E rw-a",
                "ipf -G -I -Fa -f - rw-a",
                "ipf -6 -G -I -Fa -f - rw-a",
                "ipf -G -s rw-a",
                "ipf -G -y rw-a",
            ]
        );
        let read: Vec<usize> = runs.iter().map(|r| r.stdin.len()).collect();
        assert_eq!(read, [0, dual().rules(Family::V4).len(), dual().rules(Family::V6).len(), 0, 0]);
    }

    #[test]
    fn sctp_has_no_ports_here() {
        let of = |first, last| at(&range(Protocol::Sctp, first, last));
        assert_eq!((of(1, u16::MAX), of(80, 80)), (Some(("132", String::new())), None));
        assert_eq!(at(&range(Protocol::Tcp, 9000, u16::MAX)), Some(("tcp", " port > 8999".to_owned())));
    }

    #[test]
    fn the_global_zones_own_filter_is_asked_and_told() {
        assert_eq!([find_interfaces(), version()].map(|r| r.to_string()), ["ipf -y", "ipf -V"]);
        let said = |running| {
            format!("ipf: IP Filter: v4.1.9 (592)\nKernel: IP Filter: v4.1.9\nRunning: {running}\nLog Flags: 0\n")
        };
        assert!(is_enabled(&said("yes")) && !is_enabled(&said("no")));
    }

    #[test]
    fn what_ipf_says_is_what_counts() {
        assert_eq!(complaint("", &[THERE]), None);
        assert_eq!(complaint("3:ioctl(add/insert rule): File exists\n", &[THERE]), None);
        let said = "Could not find running zone: rw-a\nioctl(SIOCSWAPA): I/O error\n";
        assert_eq!(
            complaint(said, &[THERE]).as_deref(),
            Some("Could not find running zone: rw-a; ioctl(SIOCSWAPA): I/O error")
        );
    }

    use proptest::prelude::*;

    /// What one line says, read strictly: which way, block or pass, the protocol, the peer, its ports.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Line {
        way: String,
        pass: bool,
        protocol: Option<String>,
        peer: Option<IpNet>,
        ports: Option<(u16, u16)>,
    }

    /// `None`: not in the grammar. The two rules of loopback and those of ICMPv6 are no lines of a policy.
    fn parsed(line: &str) -> Option<Line> {
        let mut words = line.split(' ').peekable();
        let pass = match words.next()? {
            "pass" => true,
            "block" => false,
            _ => return None,
        };
        let way = words.next().filter(|way| matches!(*way, "in" | "out"))?.to_owned();
        words.next().filter(|word| *word == "quick")?;
        let protocol = match words.next_if(|word| *word == "proto") {
            Some(_) => Some(words.next()?.to_owned()),
            None => None,
        };
        let net = |word: &str| match word {
            "any" => Some(None),
            net => Some(Some(net.parse::<IpNet>().ok().filter(|n| n.trunc() == *n)?)),
        };
        words.next().filter(|word| *word == "from")?;
        let from = net(words.next()?)?;
        words.next().filter(|word| *word == "to")?;
        let to = net(words.next()?)?;
        let number = |word: Option<&str>| word?.parse::<u16>().ok();
        let ports = match words.next_if(|word| *word == "port") {
            None => None,
            Some(_) => Some(match words.next()? {
                "=" => number(words.next()).map(|port| (port, port))?,
                ">" => (number(words.next())?.checked_add(1)?, u16::MAX),
                first => {
                    words.next().filter(|word| *word == "><")?;
                    (first.parse::<u16>().ok()?.checked_add(1)?, number(words.next())?.checked_sub(1)?)
                }
            }),
        };
        if pass {
            (words.next()?, words.next()?).eq(&("keep", "state")).then_some(())?;
        }
        let (peer, other) = if way == "in" { (from, to) } else { (to, from) };
        (words.next().is_none() && other.is_none()).then_some(Line { way, pass, protocol, peer, ports })
    }

    fn any_allow() -> impl Strategy<Value = Allow> {
        let net = (any::<bool>(), any::<u128>(), 0..=128_u8).prop_map(|(six, bits, prefix)| {
            let four = std::net::Ipv4Addr::from(u32::try_from(bits >> 96).unwrap());
            match six {
                true => IpNet::new(std::net::Ipv6Addr::from(bits).into(), prefix).unwrap(),
                false => IpNet::new(four.into(), prefix.min(32)).unwrap(),
            }
        });
        let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        let ports = (protocols, 1..=u16::MAX, 1..=u16::MAX).prop_map(|(p, a, b)| range(p, a.min(b), a.max(b)));
        let peers = prop::option::of(prop::collection::btree_set(net, 0..4));
        let ports = prop::option::of(prop::collection::btree_set(ports, 0..4));
        (peers, ports).prop_map(|(peers, ports)| Allow { peers, ports })
    }

    /// A protocol and its ports, where they are named.
    type Ports = (Option<String>, Option<(u16, u16)>);

    /// The same in no words at all.
    fn meant(family: Family, way: &str, allowed: &BTreeSet<Allow>) -> BTreeSet<Line> {
        let mut lines = BTreeSet::new();
        for Allow { peers, ports } in allowed {
            let peers: Vec<Option<IpNet>> = match peers {
                None => vec![None],
                Some(all) => all
                    .iter()
                    .filter(|net| family.has(net.addr()))
                    .map(|net| (net.prefix_len() > 0).then(|| net.trunc()))
                    .collect(),
            };
            let ports: Vec<Ports> = match ports {
                None => vec![(None, None)],
                Some(all) => all
                    .iter()
                    .filter(|r| r.protocol != Protocol::Sctp || (r.first, r.last) == (1, u16::MAX))
                    .map(|r| match r.protocol {
                        Protocol::Sctp => (Some("132".to_owned()), None),
                        other => (Some(other.as_str().to_owned()), Some((r.first, r.last))),
                    })
                    .collect(),
            };
            for (peer, (protocol, ports)) in peers.iter().flat_map(|peer| ports.iter().map(move |p| (peer, p))) {
                let (protocol, ports) = (protocol.clone(), *ports);
                lines.insert(Line { way: way.to_owned(), pass: true, protocol, peer: *peer, ports });
            }
        }
        lines.insert(Line { way: way.to_owned(), pass: false, protocol: None, peer: None, ports: None });
        lines
    }

    proptest! {
        /// The text of a pod's filter means the filter: each line is one rule, and together they say what the policies say,
        /// blocking last.
        #[test]
        fn the_text_of_a_filter_means_the_filter(
            ingress in prop::collection::btree_set(any_allow(), 0..4),
            egress in prop::collection::btree_set(any_allow(), 0..4),
        ) {
            let filter = ZoneFilter { ingress: Some(ingress.clone()), egress: Some(egress.clone()), ..ZoneFilter::default() };
            for family in Family::ALL {
                let rules = filter.rules(family);
                let own = |line: &&str| !line.contains(" on lo0 ") && !line.contains(" proto 58 ");
                let lines: Option<Vec<Line>> = rules.lines().filter(own).map(parsed).collect();
                prop_assert!(lines.is_some(), "{}", rules);
                let lines = lines.unwrap_or_default();
                for (way, allowed) in [("in", &ingress), ("out", &egress)] {
                    let of: Vec<Line> = lines.iter().filter(|l| l.way == way).cloned().collect();
                    prop_assert!(of.last().is_some_and(|last| !last.pass), "{}", rules);
                    prop_assert_eq!(of.into_iter().collect::<BTreeSet<_>>(), meant(family, way, allowed));
                }
            }
        }
    }
}
