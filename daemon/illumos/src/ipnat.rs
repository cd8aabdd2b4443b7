//! Address translation (ipnat(5), ipnat(8)): rules as values, the file that checks them, and what to add and take away.
//! `ipnat -CF -f` is not atomic and drops sessions, so rules are never flushed: the difference is applied.

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
                    Some(from) => write!(f, "rdr {link} from {from} to {to}/{bits} port = {port}")?,
                    None => write!(f, "rdr {link} {to}/{bits} port {port}")?,
                }
                // A rule that names its sources writes the target's port with a sign.
                let sign = if from.is_some() { "= " } else { "" };
                write!(f, " -> {address} port {sign}{target} {protocol} round-robin")?;
                if *sticky { f.write_str(" sticky") } else { Ok(()) }
            }
            Self::Masquerade { link, from, ports } => {
                let zero = if from.addr().is_ipv4() { "0/32" } else { "::/128" };
                write!(f, "map {link} from {from} ! to {from} -> {zero}")?;
                if *ports { f.write_str(" portmap tcp/udp auto") } else { Ok(()) }
            }
            Self::Hairpin { link, pods, gateway } => {
                let bits = if gateway.is_ipv4() { 32 } else { 128 };
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

/// Compares what we applied with what is wanted. Rules that map ports come before those that do not: the first that
/// fits is taken.
pub fn difference(applied: &BTreeSet<Rule>, wanted: &BTreeSet<Rule>) -> Difference {
    let mut fresh: Vec<_> = wanted.difference(applied).cloned().collect();
    fresh.sort_by_key(|rule| matches!(rule, Rule::Masquerade { ports: false, .. }));
    Difference { stale: applied.difference(wanted).cloned().collect(), fresh }
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

/// Asks for the rules that are loaded, without names for numbers: fewer than we applied means that someone flushed.
pub fn list() -> Invocation {
    Invocation::read(Tool::Ipnat, ["-lR"])
}

/// How many rules of each kind a listing shows: maps and redirects.
pub fn count(listing: &str) -> (usize, usize) {
    let rules = listing.lines().take_while(|line| !line.starts_with("List of active sessions"));
    rules.fold((0, 0), |(maps, redirects), line| match line.split(' ').next() {
        Some("map") => (maps + 1, redirects),
        Some("rdr") => (maps, redirects + 1),
        _ => (maps, redirects),
    })
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

    /// A backend that goes takes one rule away; sessions of the others go on.
    #[test]
    fn only_the_difference_is_applied() {
        let applied = BTreeSet::from([redirect("10.88.0.5"), redirect("10.88.0.6"), masquerade(true)]);
        let wanted =
            BTreeSet::from([redirect("10.88.0.6"), masquerade(false), masquerade(true), redirect("10.88.0.7")]);
        let runs = difference(&applied, &wanted).runs();
        let shown: Vec<_> = runs.iter().map(|r| format!("{r} < {}", String::from_utf8_lossy(&r.stdin))).collect();
        assert_eq!(
            shown,
            [
                "ipnat -r -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\n",
                "ipnat -f - < rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.7 port 8080 tcp round-robin\n\
                 map net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0/32\n",
            ]
        );
        assert_eq!(difference(&wanted, &wanted).runs(), []);
    }

    #[test]
    fn a_flush_by_someone_else_shows() {
        let listing = "List of active MAP/Redirect filters:\nmap net0 from 10.88.0.0/24 ! to 10.88.0.0/24 -> 0.0.0.0/32\n\
                       rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\n\nList of active sessions:\n\
                       map 1.2.3.4 5 <- -> 6.7.8.9 10\n";
        assert_eq!(count(listing), (1, 1));
        assert_eq!(count("List of active MAP/Redirect filters:\n\nList of active sessions:\n"), (0, 0));
    }
}
