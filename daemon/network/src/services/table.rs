//! Which frontend leads to which endpoints.

use super::facts::{Cluster, Name, Service, ServicePort, Slice};
use super::policy::isolations;
use ipnet::IpNet;
use reddwarf_host::service::{Backends, Frontend, Place, Protocol, ServiceTable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What the table needs besides objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// Our node's name: its endpoints are local ones.
    pub node: String,
    /// Ranges of cluster IPs.
    pub cluster: Vec<IpNet>,
    /// The pod network.
    pub pods: Vec<IpNet>,
    /// Ranges of load balancers' addresses: those of them that services have are announced.
    pub balancers: Vec<IpNet>,
    /// Where pods ask for names.
    pub resolvers: Vec<SocketAddr>,
}

/// Something in the objects that can't be done. The rest of the table is not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Is it about a pod (else a service)?
    pub pod: bool,
    /// Of what: namespace and name.
    pub about: (String, String),
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The table, and what could not be done.
pub fn table(cluster: &Cluster, settings: &TableSettings) -> (ServiceTable, Vec<Finding>) {
    let mut table = ServiceTable {
        cluster: settings.cluster.iter().copied().collect(),
        pods: settings.pods.iter().copied().collect(),
        isolations: isolations(cluster),
        resolvers: settings.resolvers.iter().copied().collect(),
        ..ServiceTable::default()
    };
    let mut findings = Vec::new();
    let slices = by_service(cluster);
    for (name, service) in &cluster.services {
        let of_service = slices.get(&(name.0.as_str(), name.1.as_str())).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let maker = Maker { service, port, slices: of_service, node: &settings.node };
            let title = title(name, port);
            for (frontend, local) in maker.frontends() {
                let backends = maker.backends(frontend.place, local, &title);
                put(&mut table, &mut findings, (false, name), frontend, backends);
            }
        }
        let ours = |ip: &&IpAddr| settings.balancers.iter().any(|net| net.contains(*ip));
        table.announced.extend(service.balancer_ips.iter().filter(ours));
    }
    host_ports(cluster, settings, &mut table, &mut findings);
    (table, findings)
}

fn title(name: &Name, port: &ServicePort) -> String {
    let tail = if port.name.is_empty() { String::new() } else { format!(":{}", port.name) };
    format!("{}/{}{tail}", name.0, name.1)
}

fn by_service(cluster: &Cluster) -> BTreeMap<(&str, &str), Vec<&Slice>> {
    let mut all: BTreeMap<(&str, &str), Vec<&Slice>> = BTreeMap::new();
    for ((namespace, _), slice) in &cluster.slices {
        all.entry((namespace, &slice.service)).or_default().push(slice);
    }
    all
}

/// Whoever has a frontend first keeps it.
fn put(
    table: &mut ServiceTable,
    findings: &mut Vec<Finding>,
    (pod, about): (bool, &Name),
    frontend: Frontend,
    backends: Backends,
) {
    match table.frontends.get(&frontend) {
        Some(other) if other.name != backends.name => findings.push(Finding {
            pod,
            about: about.clone(),
            reason: "PortAlreadyTaken",
            message: format!("{frontend} leads to {} already; choose another port or address", other.name),
        }),
        _ => drop(table.frontends.insert(frontend, backends)),
    }
}

/// One port of one service.
struct Maker<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    slices: &'a [&'a Slice],
    node: &'a str,
}

impl Maker<'_> {
    /// Where the port is reached, and whether only by endpoints of this node.
    fn frontends(&self) -> Vec<(Frontend, bool)> {
        let Self { service, port, .. } = self;
        let at = |place, number, local| (Frontend { place, protocol: port.protocol, port: number }, local);
        let address = |ip: &IpAddr| Place::Address(*ip);
        let outside = service.external_local;
        let cluster = service.cluster_ips.iter().map(|ip| at(address(ip), port.port, service.internal_local));
        let external = service.external_ips.iter().chain(&service.balancer_ips);
        let mut all: Vec<_> = cluster.chain(external.map(|ip| at(address(ip), port.port, outside))).collect();
        if let Some(number) = port.node_port {
            let has = |v4: bool| service.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4);
            all.extend(
                [(Place::HostV4, true), (Place::HostV6, false)]
                    .into_iter()
                    .filter(|(_, v4)| has(*v4))
                    .map(|(place, _)| at(place, number, outside)),
            );
        }
        all
    }

    fn backends(&self, place: Place, local: bool, title: &str) -> Backends {
        let fits =
            |(name, protocol, _): &&(String, Protocol, u16)| *name == self.port.name && *protocol == self.port.protocol;
        let (mut ready, mut last): (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) = Default::default();
        for slice in self.slices {
            let Some((_, _, number)) = slice.ports.iter().find(fits) else { continue };
            for endpoint in &slice.endpoints {
                let here = !local || endpoint.node == self.node;
                if endpoint.address.is_ipv4() != place.is_ipv4() || !here {
                    continue;
                }
                let address = SocketAddr::new(endpoint.address, *number);
                if endpoint.ready {
                    ready.insert(address);
                } else if endpoint.last_resort {
                    last.insert(address);
                }
            }
        }
        let addresses = if ready.is_empty() { last } else { ready };
        let balancer = matches!(place, Place::Address(ip) if self.service.balancer_ips.contains(&ip));
        let family = |net: &&IpNet| net.addr().is_ipv4() == place.is_ipv4();
        let sources = self.service.sources.iter().filter(|_| balancer).filter(family).copied().collect();
        Backends { name: title.to_owned(), addresses, affinity_seconds: self.service.affinity_seconds, sources }
    }
}

/// Ports of the host that lead to single pods.
fn host_ports(cluster: &Cluster, settings: &TableSettings, table: &mut ServiceTable, findings: &mut Vec<Finding>) {
    for (name, pod) in cluster.pods.iter().filter(|(_, pod)| pod.node == settings.node) {
        for port in &pod.ports {
            let Some(number) = port.host_port else { continue };
            for ip in &pod.ips {
                let place = match port.host_ip {
                    Some(host) if host.is_ipv4() == ip.is_ipv4() => Place::Address(host),
                    Some(_) => continue,
                    None if ip.is_ipv4() => Place::HostV4,
                    None => Place::HostV6,
                };
                let frontend = Frontend { place, protocol: port.protocol, port: number };
                let backends = Backends {
                    name: format!("{}/{} (hostPort)", name.0, name.1),
                    addresses: [SocketAddr::new(*ip, port.port)].into(),
                    ..Backends::default()
                };
                put(table, findings, (true, name), frontend, backends);
            }
        }
    }
}
