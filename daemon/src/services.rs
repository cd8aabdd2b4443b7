//! What the settings say of services, in the words of the crates that need it.

use ipnet::IpNet;
use reddwarf_config::Settings;
use reddwarf_controllers::endpoints::kubernetes::KubernetesService;
use reddwarf_network::ServiceRanges;
use reddwarf_network::allocate::nth;
use std::net::{IpAddr, SocketAddr};

/// What services are given addresses and ports from.
pub(crate) fn ranges(settings: &Settings) -> ServiceRanges {
    ServiceRanges { cluster: settings.service_cidr.clone(), node_ports: settings.node_port_range.clone() }
}

/// The host's own address in the pod network.
pub(crate) fn gateway(settings: &Settings) -> IpAddr {
    settings.pod_cidr.hosts().next().unwrap_or_else(|| settings.pod_cidr.network())
}

/// The first address of each service range: the service `kubernetes` has them.
fn first_addresses(settings: &Settings) -> Vec<IpAddr> {
    settings.service_cidr.iter().filter_map(|range: &IpNet| nth(range, 1)).collect()
}

/// Where pods reach the API. What listens on a loopback address listens on the pod network's gateway as well.
pub(crate) fn pods_api(settings: &Settings) -> Option<SocketAddr> {
    let listen = settings.listen?;
    let reachable = !listen.ip().is_loopback() && !listen.ip().is_unspecified();
    Some(SocketAddr::new(if reachable { listen.ip() } else { gateway(settings) }, listen.port()))
}

/// The service `kubernetes`.
pub(crate) fn kubernetes(settings: &Settings) -> KubernetesService {
    // Port 0 is for tests: which one it became is nobody's to know here.
    let endpoint = pods_api(settings).filter(|endpoint| endpoint.port() != 0);
    KubernetesService { addresses: first_addresses(settings), endpoint }
}

/// Addresses that the API's certificate names besides those it listens on.
pub(crate) fn api_addresses(settings: &Settings) -> Vec<IpAddr> {
    let mut addresses = first_addresses(settings);
    addresses.push(gateway(settings));
    addresses
}
