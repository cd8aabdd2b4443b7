//! What the settings say of services, in the words of the crates that need it.

use ipnet::IpNet;
use reddwarf_config::Settings;
use reddwarf_config::settings::ClusterDns;
use reddwarf_controllers::endpoints::kubernetes::KubernetesService;
use reddwarf_host::Host;
use reddwarf_network::ServiceRanges;
use reddwarf_network::allocate::nth;
use reddwarf_network::services::TableSettings;
use reddwarf_node::services::{ServicesDeps, run};
use reddwarf_registry::Registry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What services are given addresses and ports from.
pub(crate) fn ranges(settings: &Settings) -> ServiceRanges {
    ServiceRanges { cluster: settings.service_cidr.clone(), node_ports: settings.node_port_range.clone() }
}

/// The first address of each service range: the service `kubernetes` has them.
fn first_addresses(settings: &Settings) -> Vec<IpAddr> {
    settings.service_cidr.iter().filter_map(|range: &IpNet| nth(range, 1)).collect()
}

/// Where pods reach the API. What listens on a loopback address listens on the pod network's gateway as well.
pub(crate) fn pods_api(settings: &Settings) -> Option<SocketAddr> {
    let listen = settings.listen?;
    let reachable = !listen.ip().is_loopback() && !listen.ip().is_unspecified();
    Some(SocketAddr::new(if reachable { listen.ip() } else { settings.bridge_address() }, listen.port()))
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
    addresses.extend(settings.bridge_addresses());
    addresses
}

/// Refuses service addresses that the host reaches elsewhere.
///
/// # Errors
/// What overlaps and how to mend it. That the host's routes can't be read is no reason not to start.
pub(crate) async fn check_routes(settings: &Settings, host: &dyn Host) -> Result<(), String> {
    let routes = match host.routes().await {
        Ok(routes) => routes,
        Err(error) => {
            tracing::warn!(error = error.chain(), "the host's routes can't be compared with services' addresses");
            return Ok(());
        }
    };
    let overlap = |net: &IpNet, other: &IpNet| net.contains(other) || other.contains(net);
    for net in &settings.service_cidr {
        if let Some((link, other)) = routes.iter().find(|(_, other)| overlap(net, other)) {
            return Err(format!(
                "services' addresses {net} (setting `service_cidr`) overlap with the host's network {other} on {link}, which \
                 could not be reached any more: choose another network"
            ));
        }
    }
    Ok(())
}

/// The component that keeps the host's table of services.
pub(crate) fn task(
    settings: &Settings,
    registry: Registry,
    host: Arc<dyn Host>,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let mut resolvers: Vec<_> = settings.bridge_addresses().into_iter().map(|ip| SocketAddr::new(ip, 53)).collect();
    if let ClusterDns::At(address) = settings.cluster_dns {
        resolvers.push(address);
    }
    let table = TableSettings {
        node: settings.node_name.clone(),
        cluster: settings.service_cidr.clone(),
        pods: settings.pod_cidr.clone(),
        balancers: settings.load_balancer_cidr.clone(),
        resolvers,
    };
    let work = run(ServicesDeps { registry, host, settings: table });
    async move {
        // A transaction is one command: it is made or it is not.
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }
}
