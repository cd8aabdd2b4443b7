//! Packet filters of zones (ipf(5), ipf(8)), which the global zone controls (`-G`): a zone's whole set, loaded beside the
//! one in force and exchanged for it in one step.

use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::service::{Allow, Direction, Protocol};
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

impl ZoneFilter {
    /// Whether nothing is filtered.
    pub fn is_open(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }

    /// The whole set, as ipf(5) reads it. Replies pass by state; the pod itself always passes.
    pub fn rules(&self) -> String {
        let mut text = String::from("pass in quick on lo0 all\npass out quick on lo0 all\n");
        if let Some(allow) = &self.ingress {
            for host in &self.host {
                let _ = writeln!(text, "pass in quick from {host} to any keep state");
            }
            for allow in allow {
                rules(&mut text, Direction::Ingress, allow);
            }
            text.push_str("block in quick from any to any\n");
        } else {
            text.push_str("pass in quick from any to any keep state\n");
        }
        if let Some(allow) = &self.egress {
            for resolver in &self.resolvers {
                for protocol in ["udp", "tcp"] {
                    let (ip, port) = (resolver.ip(), resolver.port());
                    let _ = writeln!(text, "pass out quick proto {protocol} from any to {ip} port = {port} keep state");
                }
            }
            for allow in allow {
                rules(&mut text, Direction::Egress, allow);
            }
            text.push_str("block out quick from any to any\n");
        } else {
            text.push_str("pass out quick from any to any keep state\n");
        }
        text
    }

    /// The runs that put it in force: loaded as the inactive set, then exchanged.
    pub fn runs(&self, zone: &str) -> [Invocation; 2] {
        let load = Invocation::change(Tool::Ipf, ["-G", "-I", "-Fa", "-f", "-", zone]).reading(self.rules());
        [load, Invocation::change(Tool::Ipf, ["-G", "-s", zone])]
    }
}

fn rules(text: &mut String, direction: Direction, allow: &Allow) {
    let way = if direction == Direction::Ingress { "in" } else { "out" };
    let peers: Vec<Option<&IpNet>> = match &allow.peers {
        None => vec![None],
        Some(peers) => peers.iter().map(Some).collect(),
    };
    for peer in peers {
        let peer = peer.map_or_else(|| "any".to_owned(), ToString::to_string);
        let (from, to) = if direction == Direction::Ingress { (peer.as_str(), "any") } else { ("any", peer.as_str()) };
        let Some(ports) = &allow.ports else {
            let _ = writeln!(text, "pass {way} quick from {from} to {to} keep state");
            continue;
        };
        for range in ports {
            let protocol = match range.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            // `<>` leaves the bounds themselves out.
            let port = match (range.first, range.last) {
                (first, last) if first == last => format!("port = {first}"),
                (0 | 1, u16::MAX) => "port > 0".to_owned(),
                (first, u16::MAX) => format!("port > {}", first.saturating_sub(1)),
                (first, last) => format!("port {} >< {}", first.saturating_sub(1), last.saturating_add(1)),
            };
            let _ = writeln!(text, "pass {way} quick proto {protocol} from {from} to {to} {port} keep state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::service::PortRange;

    #[test]
    fn a_zones_set_is_whole_and_exchanged_in_one_step() {
        let port = |first, last| PortRange { protocol: Protocol::Tcp, first, last };
        let allow = Allow {
            peers: Some(["10.88.0.5/32".parse().unwrap()].into()),
            ports: Some([port(80, 80), port(8000, 8100)].into()),
        };
        let filter = ZoneFilter {
            ingress: Some([allow].into()),
            egress: None,
            host: vec!["10.88.0.1".parse().unwrap()],
            resolvers: BTreeSet::new(),
        };
        assert_eq!(
            filter.rules(),
            "pass in quick on lo0 all\npass out quick on lo0 all\n\
             pass in quick from 10.88.0.1 to any keep state\n\
             pass in quick proto tcp from 10.88.0.5/32 to any port = 80 keep state\n\
             pass in quick proto tcp from 10.88.0.5/32 to any port 7999 >< 8101 keep state\n\
             block in quick from any to any\npass out quick from any to any keep state\n"
        );
        let shown: Vec<String> = filter.runs("rw-a").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["ipf -G -I -Fa -f - rw-a", "ipf -G -s rw-a"]);
        assert!(ZoneFilter::default().is_open());
    }
}
