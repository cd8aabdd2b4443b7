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

    fn has(self, address: IpAddr) -> bool {
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
                for resolver in self.resolvers.iter().filter(|r| family.has(r.ip())) {
                    for protocol in ["udp", "tcp"] {
                        let (to, port) = (IpNet::from(resolver.ip()), resolver.port());
                        rules.say(format!("pass out quick proto {protocol} from any to {to} port = {port} keep state"));
                    }
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

/// What one of [`ZoneFilter::runs`] complained of; `None`: it is done. ipf ends with 0 whatever the kernel says of a rule, of
/// an exchange, of a zone that is not there: only what it prints tells. A rule that is there already is there.
pub fn complaint(stderr: &str) -> Option<String> {
    complaints(stderr, &[": File exists"])
}

/// What a tool of ipfilter printed, but for lines that end in words that are fine.
pub(crate) fn complaints(stderr: &str, fine: &[&str]) -> Option<String> {
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
        assert_eq!(complaint(""), None);
        assert_eq!(complaint("3:ioctl(add/insert rule): File exists\n"), None);
        let said = "Could not find running zone: rw-a\nioctl(SIOCSWAPA): I/O error\n";
        assert_eq!(complaint(said).as_deref(), Some("Could not find running zone: rw-a; ioctl(SIOCSWAPA): I/O error"));
    }
}
