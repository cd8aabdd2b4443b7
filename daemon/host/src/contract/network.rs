//! Rules of the machine as a whole and of its pod network.

use super::lab::{Lab, changed, holds, needs, refused, same, unchanged};
use super::{Case, Outcome, Stop, case};
use crate::error::HostErrorKind;
use crate::observe::{Leftover, SandboxState};
use crate::service::{Allow, Backends, Direction, Frontend, Isolation, Place, PortRange, Protocol, ServiceTable};
use crate::spec::{NetworkSpec, SandboxNetwork, Subnet};
use std::net::SocketAddr;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(the_host_says_what_it_is),
        case!(observing_changes_nothing),
        case!(the_network_is_made_once),
        case!(a_network_that_contradicts_itself_is_refused),
        case!(the_network_is_not_removed_while_used),
        case!(a_sandbox_can_use_the_hosts_network),
        case!(services_are_made_once_and_replaced_as_a_whole),
        case!(a_table_that_contradicts_itself_is_refused_whole),
        case!(a_leftover_that_is_gone_is_unchanged),
    ]
}

async fn the_host_says_what_it_is(lab: &Lab<'_>) -> Outcome {
    let info = lab.host.info().await?;
    let brand = lab.fixture.sandbox().brand;
    holds(info.brands.contains(&brand), format!("brand {brand} is not among {:?}", info.brands))?;
    holds(info.cpu_millis >= 1, "cpu_millis is 0")?;
    holds(info.memory_bytes >= 1 << 20, "memory_bytes is below 1 MiB")?;
    for (what, text) in [("kind", &info.kind), ("architecture", &info.architecture), ("boot_id", &info.boot_id)] {
        holds(!text.is_empty(), format!("{what} is empty"))?;
    }
    same(&lab.host.info().await?.boot_id, &info.boot_id, "boot_id changed without a boot")
}

async fn observing_changes_nothing(lab: &Lab<'_>) -> Outcome {
    let (sandbox, container) = lab.running(super::Program::Until(0)).await?;
    let pid = lab.pid(&sandbox.id, &container).await?;
    let first = lab.observe().await?;
    let second = lab.observe().await?;
    holds(first.at <= second.at, "time went backwards")?;
    let mut first_again = second.clone();
    first_again.at = first.at;
    same(&first_again, &first, "two observations without a change between them")?;
    same(&lab.pid(&sandbox.id, &container).await?, &pid, "pid")
}

async fn the_network_is_made_once(lab: &Lab<'_>) -> Outcome {
    let spec = lab.fixture.network();
    let _ = lab.host.network_ensure(&spec).await?;
    unchanged(lab.host.network_ensure(&spec).await, "the same network again")?;
    let seen = lab.observe().await?;
    let network = seen.network.known().cloned().flatten();
    let network = network.ok_or_else(|| Stop::Broken("the network is not in the observation".into()))?;
    same(&network.spec, &spec, "the network's spec")?;
    same(&network.drift, &Vec::new(), "drift right after it was made")
}

async fn a_network_that_contradicts_itself_is_refused(lab: &Lab<'_>) -> Outcome {
    let good = lab.fixture.network();
    let _ = lab.host.network_ensure(&good).await?;
    let same_family = NetworkSpec { second: Some(Subnet { cidr: good.cidr, gateway: good.gateway }), ..good.clone() };
    refused(lab.host.network_ensure(&same_family).await, HostErrorKind::InvalidSpec, "two networks of one family")?;
    unchanged(lab.host.network_ensure(&good).await, "the good network after the refusal")
}

async fn the_network_is_not_removed_while_used(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().own_network, "a network of its own")?;
    let sandbox = lab.sandbox().await?;
    refused(lab.host.network_remove().await, HostErrorKind::Busy, "removing a network in use")?;
    let seen = lab.see(&sandbox.id).await?;
    same(&seen.state, &SandboxState::Running, "the sandbox after the refusal")?;
    let _ = lab.host.sandbox_destroy(&sandbox.id).await?;
    changed(lab.host.network_remove().await, "removing the network")?;
    unchanged(lab.host.network_remove().await, "removing it again")?;
    same(&lab.observe().await?.network.known().cloned().flatten(), &None, "the network")?;
    changed(lab.host.network_ensure(&lab.fixture.network()).await, "making it again")
}

async fn a_sandbox_can_use_the_hosts_network(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().host_network, "sandboxes on the host's network")?;
    let mut spec = lab.spec().await?;
    spec.network = SandboxNetwork::Host;
    changed(lab.host.sandbox_ensure(&spec).await, "a sandbox on the host's network")?;
    unchanged(lab.host.sandbox_ensure(&spec).await, "the same again")?;
    same(&*lab.see(&spec.id).await?.spec, &spec, "its spec")
}

async fn a_leftover_that_is_gone_is_unchanged(lab: &Lab<'_>) -> Outcome {
    let leftover = Leftover { kind: "directory".into(), name: lab.fixture.sandbox().id.to_string() };
    unchanged(lab.host.leftover_remove(&leftover).await, "removing a leftover that is not there")
}

/// A table with one service of each protocol and an isolated pod; nothing of it needs a pod to be there.
fn table(backends: &[&str]) -> Result<ServiceTable, Stop> {
    let broken = |what: &str| Stop::Broken(format!("{what} can't be read"));
    let pods = "198.18.0.0/24".parse().map_err(|_| broken("the pods' network"))?;
    let mut table = ServiceTable { pods: [pods].into(), ..ServiceTable::default() };
    let addresses = backends.iter().map(|b| b.parse()).collect::<Result<std::collections::BTreeSet<SocketAddr>, _>>();
    let addresses = addresses.map_err(|_| broken("a backend"))?;
    for (protocol, place) in [
        (Protocol::Tcp, Place::Address([198, 18, 255, 7].into())),
        (Protocol::Udp, Place::Address([198, 18, 255, 7].into())),
        (Protocol::Tcp, Place::HostV4),
    ] {
        let backends = Backends { name: "contract/web".into(), addresses: addresses.clone(), ..Backends::default() };
        table.frontends.insert(Frontend { place, protocol, port: 30_080 }, backends);
    }
    let isolation = Isolation {
        direction: Direction::Ingress,
        pods: [std::net::IpAddr::from([198, 18, 0, 9])].into(),
        allow: [Allow {
            peers: None,
            ports: Some([PortRange { protocol: Protocol::Tcp, first: 80, last: 90 }].into()),
        }]
        .into(),
    };
    table.isolations.push(isolation);
    Ok(table)
}

async fn services_are_made_once_and_replaced_as_a_whole(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().own_network, "a network of its own")?;
    let none: Vec<String> = Vec::new();
    let one = table(&["198.18.0.9:8080"])?;
    changed(lab.host.services_ensure(&one).await, "the first table")?;
    unchanged(lab.host.services_ensure(&one).await, "the same table again")?;
    same(&lab.host.services_drift().await?, &none, "drift right after it was made")?;
    let mut other = table(&["198.18.0.9:8080", "198.18.0.10:8080"])?;
    other.isolations.clear();
    changed(lab.host.services_ensure(&other).await, "another table")?;
    unchanged(lab.host.services_ensure(&other).await, "that again")?;
    // Without endpoints a service is still there: it refuses.
    changed(lab.host.services_ensure(&table(&[])?).await, "a table without backends")?;
    unchanged(lab.host.services_ensure(&table(&[])?).await, "that again")?;
    let empty = ServiceTable::default();
    changed(lab.host.services_ensure(&empty).await, "the empty table")?;
    unchanged(lab.host.services_ensure(&empty).await, "the empty table again")?;
    same(&lab.host.services_drift().await?, &none, "drift without services")
}

async fn a_table_that_contradicts_itself_is_refused_whole(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().own_network, "a network of its own")?;
    let good = table(&["198.18.0.9:8080"])?;
    changed(lab.host.services_ensure(&good).await, "a good table")?;
    let mut bad = table(&["198.18.0.9:8080", "198.18.0.10:8080"])?;
    let six = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80));
    if let Some(backends) = bad.frontends.values_mut().next() {
        backends.addresses.insert(six);
    }
    refused(lab.host.services_ensure(&bad).await, HostErrorKind::InvalidSpec, "a backend of the other family")?;
    unchanged(lab.host.services_ensure(&good).await, "the good table after the refusal")?;
    changed(lab.host.services_ensure(&ServiceTable::default()).await, "the empty table")
}
