//! Load balancers' addresses on the host's links, and the host's own way to cluster IPs.
//!
//! An address is put on the link whose network holds it, where neighbours ask for it, else on the loopback: then a router
//! has to send it here. What we put is noted in `RUN/services.json` first, so that only that is ever taken away.

use super::ENSURE;
use crate::host::Shared;
use crate::network::announce::{announce, announce_v6};
use crate::network::links;
use crate::network::mark::bridge_alias;
use crate::network::netlink::{Link, LinkAddress, Netlink, NetlinkError};
use crate::network::overlap::overlap;
use crate::options::LinuxOptions;
use ipnet::IpNet;
use reddwarf_host::service::ServiceTable;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

fn failed(e: NetlinkError) -> HostError {
    e.into_host(ENSURE, "services")
}

/// Puts what is announced on links, takes away what is not any more, sees to the route. What was done, in words.
pub(super) async fn ensure(shared: &Shared, table: &ServiceTable) -> HostResult<Vec<String>> {
    let options = &shared.options;
    let noted = read_note(options);
    if table.announced.is_empty() && noted.is_empty() && table.cluster.is_empty() {
        return Ok(Vec::new());
    }
    let netlink = Netlink::connect().map_err(failed)?;
    let links = links::list().await.map_err(failed)?;
    let addresses = netlink.addresses().await.map_err(failed)?;
    let mut done = Vec::new();
    route(options, table, &netlink, &links, &addresses, &mut done).await?;
    let there = |ip: &IpAddr| addresses.iter().any(|a| a.address.addr() == *ip);
    // The host's own addresses stay its own.
    let ours: BTreeSet<IpAddr> =
        table.announced.iter().filter(|ip| noted.contains(*ip) || !there(ip)).copied().collect();
    let union: BTreeSet<IpAddr> = ours.union(&noted).copied().collect();
    if union != noted {
        write_note(options, &union)?;
    }
    for gone in addresses.iter().filter(|a| noted.contains(&a.address.addr()) && !ours.contains(&a.address.addr())) {
        netlink.delete_address(gone).await.map_err(failed)?;
        done.push(format!("gave {} up", gone.address.addr()));
    }
    for ip in ours.iter().filter(|ip| !there(ip)) {
        let Some(link) = link_for(*ip, options, &links, &addresses) else { continue };
        netlink.add_address(link.index, IpNet::from(*ip)).await.map_err(failed)?;
        say(link, *ip);
        done.push(format!("took {ip} on {}", link.name));
    }
    if ours != union {
        write_note(options, &ours)?;
    }
    Ok(done)
}

/// Announced addresses that are on no link.
pub(super) async fn drift(table: &ServiceTable) -> HostResult<Vec<String>> {
    if table.announced.is_empty() {
        return Ok(Vec::new());
    }
    let addresses = Netlink::connect().map_err(failed)?.addresses().await.map_err(failed)?;
    let missing = table.announced.iter().filter(|ip| !addresses.iter().any(|a| a.address.addr() == **ip));
    Ok(missing.map(|ip| format!("address {ip} is on no link")).collect())
}

/// The host's networks and routes, but for those of our bridge.
pub(super) async fn routes(options: &LinuxOptions) -> HostResult<Vec<(String, IpNet)>> {
    let netlink = Netlink::connect().map_err(failed)?;
    let links = links::list().await.map_err(failed)?;
    let ours = |index: u32| {
        let alias = bridge_alias(&options.instance);
        links.iter().any(|l| l.index == index && l.alias.as_deref() == Some(&*alias))
    };
    let name = |index: Option<u32>| {
        let link = links.iter().find(|l| Some(l.index) == index);
        link.map_or_else(|| "another link".to_owned(), |l| l.name.clone())
    };
    let noted = read_note(options);
    let addresses = netlink.addresses().await.map_err(failed)?;
    let own = addresses
        .iter()
        .filter(|a| !ours(a.index) && !noted.contains(&a.address.addr()) && !a.address.addr().is_loopback())
        .filter(|a| !matches!(a.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local()))
        .map(|a| (name(Some(a.index)), a.address.trunc()));
    let mut all: Vec<(String, IpNet)> = own.collect();
    let found = netlink.network_routes().await.map_err(failed)?;
    all.extend(found.iter().filter(|r| !r.link.is_some_and(ours)).map(|r| (name(r.link), r.destination)));
    Ok(all)
}

/// The host's own connections to cluster IPs need a way out to be turned round on: the bridge.
async fn route(
    options: &LinuxOptions,
    table: &ServiceTable,
    netlink: &Netlink,
    links: &[Link],
    addresses: &[LinkAddress],
    done: &mut Vec<String>,
) -> HostResult<()> {
    if table.cluster.is_empty() {
        return Ok(());
    }
    let alias = bridge_alias(&options.instance);
    let bridge = links.iter().find(|l| l.name == options.bridge && l.alias.as_deref() == Some(&*alias));
    let index = bridge.map(|b| b.index);
    let present = netlink.network_routes().await.map_err(failed)?;
    for net in &table.cluster {
        if index.is_some() && present.iter().any(|r| r.destination == *net && r.link == index) {
            continue;
        }
        if let Some(other) = overlap(net, index, links, addresses, &present) {
            let message =
                format!("the cluster addresses {net} overlap {other}: choose a free range (setting `service_cidr`)");
            return Err(HostError::new(HostErrorKind::Conflict, ENSURE, "services", message));
        }
        let Some(bridge) = bridge.filter(|b| b.up) else { continue };
        let own = addresses.iter().find(|a| {
            a.index == bridge.index && a.address.addr().is_ipv4() == net.addr().is_ipv4() && !is_link_local(a)
        });
        let Some(own) = own else { continue };
        netlink.add_route(bridge.index, *net, own.address.addr()).await.map_err(failed)?;
        done.push(format!("made a route to {net}"));
    }
    Ok(())
}

fn is_link_local(address: &LinkAddress) -> bool {
    matches!(address.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The link where neighbours ask for an address; the loopback when there is none.
fn link_for<'a>(ip: IpAddr, options: &LinuxOptions, links: &'a [Link], addresses: &[LinkAddress]) -> Option<&'a Link> {
    let home = addresses
        .iter()
        .filter(|a| a.address.contains(&ip) && a.address.prefix_len() < a.address.max_prefix_len())
        .filter_map(|a| links.iter().find(|l| l.index == a.index))
        .find(|l| l.up && l.name != "lo" && l.name != options.bridge);
    home.or_else(|| links.iter().find(|l| l.name == "lo"))
}

/// Neighbours that knew the address elsewhere learn that it is here.
fn say(link: &Link, ip: IpAddr) {
    let Some(mac) = link.mac.filter(|_| link.name != "lo") else { return };
    let said = match ip {
        IpAddr::V4(ip) => announce(link.index, ip, mac),
        IpAddr::V6(ip) => announce_v6(link.index, ip, mac),
    };
    if let Err(error) = said {
        tracing::debug!(%ip, %error, "address not announced");
    }
}

fn note(options: &LinuxOptions) -> PathBuf {
    options.run_dir.join("services.json")
}

/// Unreadable counts as empty: then what is there is the host's own.
fn read_note(options: &LinuxOptions) -> BTreeSet<IpAddr> {
    std::fs::read(note(options)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_note(options: &LinuxOptions, addresses: &BTreeSet<IpAddr>) -> HostResult<()> {
    let path = note(options);
    let failed = |e: std::io::Error| {
        HostError::new(HostErrorKind::Other, ENSURE, path.display().to_string(), "can't be written").caused_by(e)
    };
    let bytes = serde_json::to_vec(addresses).map_err(|e| failed(e.into()))?;
    let temporary = path.with_extension("json.new");
    std::fs::File::create(&temporary).and_then(|mut f| f.write_all(&bytes)).map_err(failed)?;
    std::fs::rename(&temporary, &path).map_err(failed)
}
