//! Address translation (ipnat(5), ipnat(8)): rules as values, the file that checks them, and what to add and take away.
//! `ipnat -CF -f` is not atomic and drops sessions, so rules are never flushed: the difference is applied.

use crate::ipf;
use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// Packets to an address and port that come in on a link go to a backend. Several with one front take turns.
    Redirect {
        /// Where they come in.
        link: String,
        /// From where; absent: from everywhere.
        #[serde(default)]
        from: Option<IpNet>,
        /// To which address.
        to: IpAddr,
        /// To which port.
        port: u16,
        /// Who takes them.
        backend: (IpAddr, u16),
        /// TCP or UDP.
        protocol: Protocol,
        /// One client stays with one backend.
        sticky: bool,
    },
    /// What leaves a network by a link, for outside of it, bears the link's address.
    Masquerade {
        /// Where it leaves.
        link: String,
        /// The network behind.
        from: IpNet,
        /// Ports are mapped too: TCP and UDP; without, all other protocols.
        ports: bool,
    },
    /// What pods send to one another by way of us (a service) bears the gateway's address, so that replies come by way
    /// of us too. What they send directly never passes here.
    Hairpin {
        /// The gateway's link.
        link: String,
        /// The pod network.
        pods: IpNet,
        /// The gateway.
        gateway: IpAddr,
    },
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
}

impl fmt::Display for Rule {
    /// As ipnat(5) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect { link, from, to, port, backend: (address, target), protocol, sticky } => {
                let bits = if to.is_ipv4() { 32 } else { 128 };
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                match from {
                    Some(from) => write!(f, "rdr {link} from {} to {to}/{bits} port = {port}", from.trunc())?,
                    None => write!(f, "rdr {link} {to}/{bits} port {port}")?,
                }
                // A rule that names its sources writes the target's port with a sign.
                let sign = if from.is_some() { "= " } else { "" };
                write!(f, " -> {address} port {sign}{target} {protocol} round-robin")?;
                if *sticky { f.write_str(" sticky") } else { Ok(()) }
            }
            Self::Masquerade { link, from, ports } => {
                let (from, zero) = (from.trunc(), if from.addr().is_ipv4() { "0/32" } else { "::/128" });
                write!(f, "map {link} from {from} ! to {from} -> {zero}")?;
                if *ports { f.write_str(" portmap tcp/udp auto") } else { Ok(()) }
            }
            Self::Hairpin { link, pods, gateway } => {
                let (pods, bits) = (pods.trunc(), if gateway.is_ipv4() { 32 } else { 128 });
                write!(f, "map {link} from {pods} to {pods} -> {gateway}/{bits} portmap tcp/udp auto")
            }
        }
    }
}

/// What leads from the rules that we applied to those that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// To be taken away: `ipnat -r -f -`. Sessions of other rules stay.
    pub stale: Vec<Rule>,
    /// To be added: `ipnat -f -`.
    pub fresh: Vec<Rule>,
}

/// Compares what we applied, of which some are `missing` by now, with what is wanted. What is too much is taken away in any
/// case: taking away a rule that is not there does nothing. Rules that map ports come before those that do not, for the
/// first that fits is taken and new ones come last: so the one that does not is made anew with the one that does.
pub fn difference(applied: &BTreeSet<Rule>, missing: &BTreeSet<Rule>, wanted: &BTreeSet<Rule>) -> Difference {
    let loaded: BTreeSet<&Rule> = applied.difference(missing).collect();
    let mut fresh: BTreeSet<&Rule> = wanted.iter().filter(|rule| !loaded.contains(rule)).collect();
    let mut stale: BTreeSet<&Rule> = applied.difference(wanted).collect();
    for rule in wanted {
        let Rule::Masquerade { link, from, ports: false } = rule else { continue };
        let before = Rule::Masquerade { link: link.clone(), from: *from, ports: true };
        if fresh.contains(&before) && fresh.insert(rule) {
            stale.insert(rule);
        }
    }
    let mut fresh: Vec<Rule> = fresh.into_iter().cloned().collect();
    fresh.sort_by_key(|rule| matches!(rule, Rule::Masquerade { ports: false, .. }));
    Difference { stale: stale.into_iter().cloned().collect(), fresh }
}

fn text<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> String {
    rules.into_iter().map(|rule| format!("{rule}\n")).collect()
}

/// Checks the whole wanted set without applying it: a rule that ipnat would not take stops here.
pub fn check(wanted: &BTreeSet<Rule>) -> Invocation {
    Invocation::read(Tool::Ipnat, ["-n", "-f", "-"]).reading(text(wanted))
}

impl Difference {
    /// The runs that apply it, stale rules first; none when there is nothing to do.
    pub fn runs(&self) -> Vec<Invocation> {
        let run = |args: &[&str], rules: &[Rule]| {
            let run = Invocation::change(Tool::Ipnat, args.iter().copied()).reading(text(rules));
            (!rules.is_empty()).then_some(run)
        };
        [run(&["-r", "-f", "-"], &self.stale), run(&["-f", "-"], &self.fresh)].into_iter().flatten().collect()
    }
}

/// Asks for the rules that are loaded, without names for numbers; [`missing`] reads the answer.
pub fn list() -> Invocation {
    Invocation::read(Tool::Ipnat, ["-lR"])
}

/// Those of the rules that a listing does not show: somebody took them away.
pub fn missing(applied: &BTreeSet<Rule>, listing: &str) -> BTreeSet<Rule> {
    let rules = listing.lines().take_while(|line| !line.starts_with("List of active sessions"));
    let loaded: BTreeSet<String> = rules.map(spelt_out).collect();
    applied.iter().filter(|rule| !loaded.contains(&spelt_out(&rule.to_string()))).cloned().collect()
}

/// A rule as ipnat lists it, but for the sign before a port, which some forms have, and blanks.
fn spelt_out(rule: &str) -> String {
    let words = rule.split_ascii_whitespace().filter(|word| *word != "=");
    words.map(|word| if word == "0/32" { "0.0.0.0/32" } else { word }).collect::<Vec<_>>().join(" ")
}

/// What a run complained of; `None`: it is done. ipnat ends with 0 whatever the kernel says of a rule. That one is there, or
/// that one is not, is as it should be.
pub fn complaint(stderr: &str) -> Option<String> {
    ipf::complaint(stderr, &[ipf::THERE, ": No such process"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(backend: &str) -> Rule {
        Rule::Redirect {
            link: "rwgw0".into(),
            from: None,
            to: "10.96.0.5".parse().unwrap(),
            port: 80,
            backend: (backend.parse().unwrap(), 8080),
            protocol: Protocol::Tcp,
            sticky: false,
        }
    }

    fn masquerade(ports: bool) -> Rule {
        Rule::Masquerade { link: "net0".into(), from: "10.88.0.0/24".parse().unwrap(), ports }
    }

    #[test]
    fn rules_are_in_the_grammar_that_the_real_parser_took() {
        assert_eq!(
            redirect("10.88.0.5").to_string(),
            "rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin"
        );
        assert_eq!(
            masquerade(true).to_string(),
            "map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32 portmap tcp/udp auto"
        );
    }

    /// Each form of each family, as the real parser took them.
    #[test]
    fn each_form_has_two_families() {
        let redirect = |from: Option<&str>, to: &str, backend: &str, sticky| Rule::Redirect {
            link: "net0".into(),
            from: from.map(|f| f.parse().unwrap()),
            to: to.parse().unwrap(),
            port: 80,
            backend: (backend.parse().unwrap(), 8080),
            protocol: Protocol::Udp,
            sticky,
        };
        let masquerade =
            |from: &str, ports| Rule::Masquerade { link: "net0".into(), from: from.parse().unwrap(), ports };
        let hairpin = |pods: &str, gateway: &str| Rule::Hairpin {
            link: "rwgw0".into(),
            pods: pods.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
        };
        for (rule, text) in [
            (
                redirect(Some("10.1.2.3/8"), "10.96.0.5", "10.88.0.5", true),
                "rdr net0 from 10.0.0.0/8 to 10.96.0.5/32 port = 80 -> 10.88.0.5 port = 8080 udp round-robin sticky",
            ),
            (
                redirect(None, "fd00:96::5", "fd00::5", false),
                "rdr net0 fd00:96::5/128 port 80 -> fd00::5 port 8080 udp round-robin",
            ),
            (
                redirect(Some("fd01::/64"), "fd00:96::5", "fd00::5", false),
                "rdr net0 from fd01::/64 to fd00:96::5/128 port = 80 -> fd00::5 port = 8080 udp round-robin",
            ),
            (masquerade("10.88.0.64/26", false), "map net0 from 10.88.0.64/26 ! to 10.88.0.64/26 -> 0/32"),
            (masquerade("fd00::/64", true), "map net0 from fd00::/64 ! to fd00::/64 -> ::/128 portmap tcp/udp auto"),
            (
                hairpin("10.88.0.64/26", "10.88.0.65"),
                "map rwgw0 from 10.88.0.64/26 to 10.88.0.64/26 -> 10.88.0.65/32 portmap tcp/udp auto",
            ),
            (
                hairpin("fd00::/64", "fd00::1"),
                "map rwgw0 from fd00::/64 to fd00::/64 -> fd00::1/128 portmap tcp/udp auto",
            ),
        ] {
            assert_eq!(rule.to_string(), text);
        }
    }

    fn shown(difference: &Difference) -> Vec<String> {
        difference.runs().iter().map(|r| format!("{r} < {}", String::from_utf8_lossy(&r.stdin))).collect()
    }

    /// A backend that goes takes one rule away; sessions of the others go on.
    #[test]
    fn only_the_difference_is_applied() {
        let applied = BTreeSet::from([redirect("10.88.0.5"), redirect("10.88.0.6"), masquerade(true)]);
        let wanted =
            BTreeSet::from([redirect("10.88.0.6"), masquerade(false), masquerade(true), redirect("10.88.0.7")]);
        assert_eq!(
            shown(&difference(&applied, &BTreeSet::new(), &wanted)),
            [
                "ipnat -r -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\n",
                "ipnat -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.7 port 8080 tcp round-robin\n\
                 map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32\n",
            ]
        );
        assert_eq!(difference(&wanted, &BTreeSet::new(), &wanted).runs(), []);
        assert_eq!(check(&BTreeSet::from([masquerade(false)])).to_string(), "ipnat -n -f -");
        assert_eq!(list().to_string(), "ipnat -lR");
    }

    /// What is left of what is not wanted any more goes, and what is left of what is wanted stays.
    #[test]
    fn a_part_that_somebody_took_away_comes_back() {
        let applied =
            BTreeSet::from([redirect("10.88.0.5"), redirect("10.88.0.6"), masquerade(true), masquerade(false)]);
        let missing = BTreeSet::from([redirect("10.88.0.6"), masquerade(true)]);
        let wanted = BTreeSet::from([redirect("10.88.0.6"), masquerade(true), masquerade(false)]);
        assert_eq!(
            shown(&difference(&applied, &missing, &wanted)),
            [
                "ipnat -r -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\n\
                 map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32\n",
                "ipnat -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.6 port 8080 tcp round-robin\n\
                 map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32 portmap tcp/udp auto\n\
                 map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32\n",
            ]
        );
    }

    /// As many rules as ours are no sign that they are ours.
    #[test]
    fn rules_are_found_by_what_they_say() {
        let sources = Rule::Redirect {
            link: "net0".into(),
            from: Some("10.0.0.0/8".parse().unwrap()),
            to: "10.96.0.5".parse().unwrap(),
            port: 80,
            backend: ("10.88.0.5".parse().unwrap(), 8080),
            protocol: Protocol::Tcp,
            sticky: false,
        };
        let applied = BTreeSet::from([redirect("10.88.0.5"), redirect("10.88.0.6"), masquerade(false), sources]);
        let listing = "List of active MAP/Redirect filters:\nmap net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0.0.0.0/32\n\
                       rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\n\
                       rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.99 port 8080 tcp round-robin\n\
                       rdr net0 from 10.0.0.0/8 to 10.96.0.5/32 port = 80 -> 10.88.0.5 port = 8080 tcp round-robin\n\
                       \nList of active sessions:\n\
                       rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.6 port 8080 tcp round-robin\n";
        assert_eq!(missing(&applied, listing), BTreeSet::from([redirect("10.88.0.6")]));
        assert_eq!(missing(&applied, "List of active MAP/Redirect filters:\n\nList of active sessions:\n"), applied);
        assert_eq!(complaint("0:ioctl(add/insert rule): File exists\n1:ioctl(remove nat): No such process\n"), None);
        assert!(complaint("0:ioctl(add/insert rule): Not enough space\n").is_some());
    }

    /// The rule that a line is, by the grammar and nothing more lenient.
    fn parsed(line: &str) -> Option<Rule> {
        let words: Vec<&str> = line.split(' ').collect();
        let host = |text: &str| {
            let net: IpNet = text.parse().ok()?;
            (net.prefix_len() == net.max_prefix_len()).then_some(net.addr())
        };
        let protocol =
            |word: &str| [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)].into_iter().find(|(w, _)| *w == word);
        let redirect = |link: &str, from: Option<&str>, to: &str, port: &str, backend: [&str; 3], rest: &[&str]| {
            Some(Rule::Redirect {
                link: link.to_owned(),
                from: match from {
                    Some(from) => Some(from.parse().ok()?),
                    None => None,
                },
                to: host(to)?,
                port: port.parse().ok()?,
                backend: (backend[0].parse().ok()?, backend[1].parse().ok()?),
                protocol: protocol(backend[2])?.1,
                sticky: match rest {
                    ["round-robin"] => false,
                    ["round-robin", "sticky"] => true,
                    _ => return None,
                },
            })
        };
        match words[..] {
            ["rdr", link, to, "port", port, "->", address, "port", target, protocol, ref rest @ ..] => {
                redirect(link, None, to, port, [address, target, protocol], rest)
            }
            [
                "rdr",
                link,
                "from",
                from,
                "to",
                to,
                "port",
                "=",
                port,
                "->",
                address,
                "port",
                "=",
                target,
                protocol,
                ref rest @ ..,
            ] => redirect(link, Some(from), to, port, [address, target, protocol], rest),
            ["map", link, "from", from, "!", "to", to, "->", "0/32" | "::/128", ref rest @ ..] if from == to => {
                let ports = match rest {
                    [] => false,
                    ["portmap", "tcp/udp", "auto"] => true,
                    _ => return None,
                };
                Some(Rule::Masquerade { link: link.to_owned(), from: from.parse().ok()?, ports })
            }
            ["map", link, "from", pods, "to", to, "->", gateway, "portmap", "tcp/udp", "auto"] if pods == to => {
                Some(Rule::Hairpin { link: link.to_owned(), pods: pods.parse().ok()?, gateway: host(gateway)? })
            }
            _ => None,
        }
    }

    use proptest::prelude::*;

    fn address(six: bool) -> impl Strategy<Value = IpAddr> {
        (any::<u32>(), any::<u128>()).prop_map(move |(four, bits)| {
            if six { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from(four.to_be_bytes()) }
        })
    }

    fn network(six: bool) -> impl Strategy<Value = IpNet> {
        (address(six), 0..=if six { 128_u8 } else { 32 })
            .prop_map(|(address, bits)| IpNet::new(address, bits).unwrap().trunc())
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let link = || "[a-z][a-z0-9_.]{0,29}[1-9]";
        any::<bool>().prop_flat_map(move |six| {
            let redirect = (
                (link(), prop::option::of(network(six)), address(six), any::<u16>()),
                (address(six), any::<u16>(), any::<bool>(), any::<bool>()),
            );
            prop_oneof![
                redirect.prop_map(|((link, from, to, port), (backend, target, udp, sticky))| Rule::Redirect {
                    link,
                    from,
                    to,
                    port,
                    backend: (backend, target),
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                    sticky,
                }),
                (link(), network(six), any::<bool>()).prop_map(|(link, from, ports)| Rule::Masquerade {
                    link,
                    from,
                    ports
                }),
                (link(), network(six), address(six)).prop_map(|(link, pods, gateway)| Rule::Hairpin {
                    link,
                    pods,
                    gateway
                }),
            ]
        })
    }

    proptest! {
        /// A rule's line means the rule, and a list of them is as many lines: found again by what it says, too.
        #[test]
        fn a_line_means_its_rule(rules in prop::collection::btree_set(any_rule(), 1..8)) {
            let text = text(&rules);
            let read: Option<BTreeSet<Rule>> = text.lines().map(parsed).collect();
            prop_assert_eq!(read.as_ref(), Some(&rules));
            let listing = format!("List of active MAP/Redirect filters:\n{text}\nList of active sessions:\n");
            prop_assert_eq!(missing(&rules, &listing), BTreeSet::new());
        }

        /// Links' names come from the system or from settings: whatever route(8) says, no line is more than one.
        #[test]
        fn no_name_of_a_link_is_more_than_a_word(said in "[ -~\n]{0,60}") {
            if let Some(link) = crate::route::interface(&format!("  interface: {said}\n")) {
                let rule = Rule::Masquerade { link, from: "10.0.0.0/8".parse().unwrap(), ports: true };
                prop_assert_eq!(parsed(&rule.to_string()), Some(rule));
            }
        }
    }
}
