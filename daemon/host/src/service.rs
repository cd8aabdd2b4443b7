//! Services and network policies as a host is asked for them: whole tables, so that nft, ipnat or a fake can each make
//! them in its own way and nothing is left to choose.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// In lower case, as nft, ipnat and /etc/protocols have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// As objects write it, in upper case.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// Where connections to a service arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// At this address: a cluster IP, a load balancer's or an external one.
    Address(IpAddr),
    /// At any IPv4 address of the host but loopback ones.
    HostV4,
    /// At any IPv6 address of the host but loopback.
    HostV6,
}

impl Place {
    /// Is it about IPv4?
    pub fn is_ipv4(self) -> bool {
        match self {
            Self::Address(address) => address.is_ipv4(),
            Self::HostV4 => true,
            Self::HostV6 => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::HostV4 => f.write_str("the host (IPv4)"),
            Self::HostV6 => f.write_str("the host (IPv6)"),
        }
    }
}

/// One port that connections arrive at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Where.
    pub place: Place,
    /// Over what.
    pub protocol: Protocol,
    /// At which port.
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}/{}", self.place, self.port, self.protocol.as_str())
    }
}

/// Where connections go from a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// Whose they are, for people: `default/web:http`.
    pub name: String,
    /// Of the frontend's family, each as likely as another. None: connections are refused at once.
    pub addresses: BTreeSet<SocketAddr>,
    /// Seconds for which a client stays with its backend after its last new connection; absent: every connection anew.
    pub affinity_seconds: Option<u32>,
    /// Who may connect; empty: everybody. Others get no answer.
    pub sources: BTreeSet<IpNet>,
}

/// All that a host does for services and policies: one value, applied as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// Cluster IPs: connections to addresses in there that are no frontend are refused at once, and the host itself reaches
    /// them.
    pub cluster: BTreeSet<IpNet>,
    /// Pods: what goes to them keeps its source address, what a service sends elsewhere takes the host's.
    pub pods: BTreeSet<IpNet>,
    /// Who is reached where.
    pub frontends: BTreeMap<Frontend, Backends>,
    /// Addresses that the host takes on and answers for on its links (load balancers').
    pub announced: BTreeSet<IpAddr>,
    /// Which pods are isolated, and what may pass all the same.
    pub isolations: Vec<Isolation>,
    /// Where every pod may ask for names, whatever isolates it.
    pub resolvers: BTreeSet<SocketAddr>,
}

impl ServiceTable {
    /// Is nothing asked for?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is contradictory about it; `None` when nothing is.
    pub fn problem(&self) -> Option<String> {
        for (frontend, backends) in &self.frontends {
            if frontend.port == 0 || backends.addresses.iter().any(|b| b.port() == 0) {
                return Some(format!("{frontend}: port 0 can't be reached"));
            }
            if backends.addresses.iter().any(|b| b.is_ipv4() != frontend.place.is_ipv4()) {
                return Some(format!("{frontend}: a backend is of the other family"));
            }
        }
        let mut seen = BTreeSet::new();
        for isolation in &self.isolations {
            if let Some(pod) = isolation.pods.iter().find(|pod| !seen.insert((isolation.direction, **pod))) {
                return Some(format!("pod {pod} is isolated twice"));
            }
        }
        None
    }
}

/// Which way packets go, seen from the isolated pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Pods that are isolated in the same way. Replies pass, so does what the host itself sends to pods, and what a pod sends
/// to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Which way.
    pub direction: Direction,
    /// Their addresses; a pod is in one isolation of each direction at most.
    pub pods: BTreeSet<IpAddr>,
    /// What may pass; nothing else does.
    pub allow: BTreeSet<Allow>,
}

/// What may pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Allow {
    /// From whom (ingress) or to whom (egress); absent: everybody.
    pub peers: Option<BTreeSet<IpNet>>,
    /// To which ports; absent: everything, whatever the protocol.
    pub ports: Option<BTreeSet<PortRange>>,
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// A port on which a program of the host itself listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}
