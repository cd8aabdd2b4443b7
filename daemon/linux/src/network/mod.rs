//! The pod network: bridge, gateway address, forwarding, masquerade.
//!
//! It is one value, [`NetworkSpec`]: every call reads all of it, changes what differs, and keeps what it applied in
//! `RUN/network.json`. The bridge's mark is its alias, the table's mark a chain; what lacks them is never changed.

pub(crate) mod announce;
pub(crate) mod generation;
pub(crate) mod links;
pub(crate) mod mark;
pub(crate) mod monitor;
pub(crate) mod netlink;
pub(crate) mod overlap;
pub(crate) mod sysctl;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "waits for the real machine, no longer than a deadline")]
mod tests;

use crate::host::{LinuxHost, Shared};
use crate::nft::{self, Listing, Ruleset, TableName};
use crate::options::LinuxOptions;
use async_trait::async_trait;
use ipnet::IpNet;
use mark::{bridge_alias, bridge_mac};
use netlink::{Link, LinkAddress, Netlink, NetlinkError};
use reddwarf_command::CommandError;
use reddwarf_host::spec::{NetworkSpec, Subnet};
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, Network, NetworkObserved};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const RECORD: &str = "network.json";
const ENSURE: &str = "make pod network";
const REMOVE: &str = "remove pod network";
const OBSERVE: &str = "observe pod network";
/// For a whole operation; one takes 10 to 60 ms.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was applied last: kept in the run directory, because the kernel's objects don't outlive a boot either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Applied {
    spec: NetworkSpec,
    /// The text given to nft.
    text: String,
    /// What nft listed right afterwards.
    listing: Vec<String>,
}

/// The host's own addresses in the pod network that was applied last; none: there is none.
pub fn gateways(run_dir: &Path) -> Vec<IpAddr> {
    // Of what another version wrote.
    #[derive(Deserialize)]
    struct Brief {
        spec: NetworkSpec,
    }
    let brief = std::fs::read(run_dir.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice::<Brief>(&bytes).ok());
    brief.into_iter().flat_map(|brief| brief.spec.subnets()).map(|subnet| subnet.gateway).collect()
}

/// The host's links and addresses at one moment.
struct Seen {
    links: Vec<Link>,
    addresses: Vec<LinkAddress>,
    table: Option<Listing>,
}

/// Our table as it was read last, and the rule set's number before that reading: right for as long as the number is.
#[derive(Default)]
pub(crate) struct TableCache(Mutex<Option<(u32, Option<Listing>)>>);

impl TableCache {
    async fn list(&self, table: &TableName) -> Result<Option<Listing>, CommandError> {
        let generation = generation::current();
        if let (Some(now), Some((known, listing))) = (generation, &*self.slot())
            && now == *known
        {
            return Ok(listing.clone());
        }
        let listing = nft::list(table).await?;
        *self.slot() = generation.map(|g| (g, listing.clone()));
        Ok(listing)
    }

    fn slot(&self) -> MutexGuard<'_, Option<(u32, Option<Listing>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network of one instance.
struct PodNetwork<'a> {
    cache: &'a TableCache,
    instance: &'a str,
    file: PathBuf,
    table: TableName,
}

#[async_trait]
impl Network for LinuxHost {
    async fn network_ensure(&self, spec: &NetworkSpec) -> HostResult<Change> {
        let _turn = self.shared.network.lock().await;
        let network = PodNetwork::of(&self.shared.options, &self.shared.nft);
        let done = bounded(ENSURE, &spec.link, network.ensure(spec)).await;
        if matches!(done, Ok(Change::Changed(_))) {
            // Services want a route on a new bridge.
            let _ = self.shared.events.send(reddwarf_host::HostEvent::Network);
        }
        done
    }

    async fn network_remove(&self) -> HostResult<Change> {
        let _turn = self.shared.network.lock().await;
        let network = PodNetwork::of(&self.shared.options, &self.shared.nft);
        bounded(REMOVE, network.instance, network.remove()).await
    }
}

impl LinuxHost {
    /// The pod network as found; `None` when there is none of ours.
    ///
    /// # Errors
    /// `Unsupported` without nft, `Timeout`, `Other`.
    /// With the links that were listed already.
    pub(crate) async fn network_observe(&self, links: Vec<Link>) -> HostResult<Option<NetworkObserved>> {
        let network = PodNetwork::of(&self.shared.options, &self.shared.nft);
        bounded(OBSERVE, network.instance, network.observe(links)).await
    }
}

/// Puts our table back as it was applied last, where others took it away. True: they had.
pub(crate) async fn restore_table(shared: &Shared) -> HostResult<bool> {
    let _turn = shared.network.lock().await;
    let network = PodNetwork::of(&shared.options, &shared.nft);
    bounded(ENSURE, network.instance, network.restore_table()).await
}

async fn bounded<T>(op: &'static str, subject: &str, work: impl Future<Output = HostResult<T>>) -> HostResult<T> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        let message = format!("not done within {} s", DEADLINE.as_secs());
        Err(HostError::new(HostErrorKind::Timeout, op, subject, message))
    })
}

impl<'a> PodNetwork<'a> {
    fn of(options: &'a LinuxOptions, cache: &'a TableCache) -> Self {
        Self {
            cache,
            instance: &options.instance,
            file: options.run_dir.join(RECORD),
            table: TableName::for_instance(&options.instance),
        }
    }

    async fn ensure(&self, spec: &NetworkSpec) -> HostResult<Change> {
        check(spec)?;
        let netlink = Netlink::connect().map_err(|e| e.into_host(ENSURE, &*spec.link))?;
        let seen = self.look(&netlink, ENSURE).await?;
        let mut done = Vec::new();
        self.refuse_foreign(spec, &seen)?;
        let seen = self.remove_former_bridges(spec, &netlink, seen, &mut done).await?;
        self.ensure_bridge(spec, &netlink, &seen, &mut done).await?;
        self.ensure_ports(spec, &netlink, &seen, &mut done).await?;
        for subnet in spec.subnets() {
            let forwarding = sysctl::forwarding(subnet.cidr.addr().is_ipv6());
            if sysctl::read(forwarding)? != "1" {
                sysctl::write(forwarding, "1")?;
                done.push("turned forwarding on".to_owned());
            }
        }
        self.ensure_table(spec, seen.table.as_ref(), &mut done).await?;
        if done.is_empty() { Ok(Change::Unchanged) } else { Ok(Change::Changed(done.join(", "))) }
    }

    async fn look(&self, netlink: &Netlink, op: &'static str) -> HostResult<Seen> {
        let links = links::list().await.map_err(|e| e.into_host(op, self.instance))?;
        self.look_beside(links, netlink, op).await
    }

    async fn look_beside(&self, links: Vec<Link>, netlink: &Netlink, op: &'static str) -> HostResult<Seen> {
        let failed = |e: NetlinkError| e.into_host(op, self.instance);
        Ok(Seen {
            links,
            addresses: netlink.addresses().await.map_err(failed)?,
            table: self.cache.list(&self.table).await.map_err(|e| e.into_host(op, self.instance))?,
        })
    }

    /// A bridge is ours by its alias; or by its hardware address while it has no alias yet.
    fn owns(&self, link: &Link) -> bool {
        match &link.alias {
            Some(alias) => link.is_bridge && *alias == bridge_alias(self.instance),
            None => link.is_bridge && link.mac == Some(bridge_mac(self.instance)) && !link.up,
        }
    }

    fn refuse_foreign(&self, spec: &NetworkSpec, seen: &Seen) -> HostResult<()> {
        let foreign = |message| Err(HostError::new(HostErrorKind::Foreign, ENSURE, &*spec.link, message));
        if let Some(link) = seen.links.iter().find(|l| l.name == spec.link && !self.owns(l)) {
            return foreign(format!(
                "a link of that name exists, {}, and its alias is {:?} instead of our mark {:?}: choose another name \
                 (setting `bridge`) or remove it",
                if link.is_bridge { "a bridge" } else { "not a bridge" },
                link.alias.as_deref().unwrap_or_default(),
                bridge_alias(self.instance),
            ));
        }
        if seen.table.as_ref().is_some_and(|t| !t.is_ours()) {
            return foreign(format!(
                "the nftables table inet {} exists and was not made by reddwarfd: rename or remove it",
                self.table.as_str()
            ));
        }
        Ok(())
    }

    /// Bridges of ours under another name: the setting changed.
    async fn remove_former_bridges(
        &self,
        spec: &NetworkSpec,
        netlink: &Netlink,
        mut seen: Seen,
        done: &mut Vec<String>,
    ) -> HostResult<Seen> {
        let former: Vec<Link> = seen.links.extract_if(.., |l| l.name != spec.link && self.owns(l)).collect();
        for bridge in former {
            refuse_in_use(ENSURE, &bridge, &seen.links)?;
            netlink.delete(bridge.index, &bridge.name).await.map_err(|e| e.into_host(ENSURE, &*bridge.name))?;
            seen.addresses.retain(|a| a.index != bridge.index);
            done.push(format!("removed former bridge {}", bridge.name));
        }
        Ok(seen)
    }

    async fn ensure_bridge(
        &self,
        spec: &NetworkSpec,
        netlink: &Netlink,
        seen: &Seen,
        done: &mut Vec<String>,
    ) -> HostResult<()> {
        let failed = |e: NetlinkError| e.into_host(ENSURE, &*spec.link);
        let wanted = bridge_addresses(spec)?;
        let found = seen.links.iter().find(|l| l.name == spec.link);
        let index = found.map(|l| l.index);
        let (right, wrong): (Vec<_>, Vec<_>) = seen
            .addresses
            .iter()
            .filter(|a| Some(a.index) == index && !is_link_local(a))
            .partition(|a| wanted.contains(&a.address));
        let missing: Vec<IpNet> = wanted.into_iter().filter(|w| !right.iter().any(|a| a.address == *w)).collect();
        if !missing.is_empty() {
            let routes = netlink.network_routes().await.map_err(failed)?;
            for cidr in missing.iter().map(IpNet::trunc) {
                if let Some(other) = overlap::overlap(&cidr, index, &seen.links, &seen.addresses, &routes) {
                    let message =
                        format!("the pod network {cidr} overlaps {other}: choose a free range (setting `pod_cidr`)");
                    return Err(HostError::new(HostErrorKind::Conflict, ENSURE, &*spec.link, message));
                }
            }
        }
        if let (Some(bridge), false) = (found, wrong.is_empty()) {
            // Pods with addresses of the former range would lose their router.
            refuse_in_use(ENSURE, bridge, &seen.links)?;
        }
        let bridge = match found {
            Some(link) => link.clone(),
            None => {
                netlink.add_bridge(&spec.link, bridge_mac(self.instance)).await.map_err(failed)?;
                done.push(format!("made bridge {}", spec.link));
                let gone =
                    NetlinkError::Refused { what: format!("look up {}", spec.link), errno: nix::errno::Errno::ENODEV };
                netlink.link(&spec.link).await.map_err(failed)?.ok_or_else(|| failed(gone))?
            }
        };
        if bridge.alias.is_none() {
            netlink.set_alias(bridge.index, &bridge_alias(self.instance)).await.map_err(failed)?;
            done.push("marked it".to_owned());
        }
        for address in wrong {
            netlink.delete_address(address).await.map_err(failed)?;
            done.push(format!("removed address {}", address.address));
        }
        for address in missing {
            netlink.add_address(bridge.index, address).await.map_err(failed)?;
            done.push(format!("added address {address}"));
        }
        if !bridge.up {
            netlink.set_up(bridge.index, &bridge.name).await.map_err(failed)?;
            done.push("set it up".to_owned());
        }
        Ok(())
    }

    /// Pods talk to each other through the host, which alone sees to services and policies: their ports are kept apart, and
    /// the host answers for the neighbours of those that were connected by older versions.
    async fn ensure_ports(
        &self,
        spec: &NetworkSpec,
        netlink: &Netlink,
        seen: &Seen,
        done: &mut Vec<String>,
    ) -> HostResult<()> {
        if spec.subnets().iter().any(|s| s.cidr.addr().is_ipv4()) {
            let setting = sysctl::answers_for_neighbours(&spec.link);
            if sysctl::read(&setting)? != "1" {
                sysctl::write(&setting, "1")?;
                done.push("answers for neighbours".to_owned());
            }
        }
        let bridge = seen.links.iter().find(|l| l.name == spec.link).map(|l| l.index);
        let isolated = isolated(spec);
        let ports = seen.links.iter().filter(|l| bridge.is_some() && l.controller == bridge && l.isolated != isolated);
        for port in ports {
            let set = netlink.set_isolated(port.index, &port.name, isolated).await;
            set.map_err(|e| e.into_host(ENSURE, &*port.name))?;
            done.push(format!("set isolation of {}", port.name));
        }
        Ok(())
    }

    async fn ensure_table(
        &self,
        spec: &NetworkSpec,
        found: Option<&Listing>,
        done: &mut Vec<String>,
    ) -> HostResult<()> {
        let failed = |e: CommandError| e.into_host(ENSURE, &*spec.link);
        let text = self.ruleset(spec).render();
        let before = self.read_applied();
        let as_applied = before.as_ref().is_some_and(|b| b.spec == *spec && b.text == text);
        let as_listed = before.zip(found).is_some_and(|(b, found)| found.drift_from(&b.listing).is_empty());
        if as_applied && as_listed {
            return Ok(());
        }
        nft::apply(&text).await.map_err(failed)?;
        let Some(listing) = nft::list(&self.table).await.map_err(failed)?.filter(Listing::is_ours) else {
            let message = format!("nft reported success, but there is no table inet {}", self.table.as_str());
            return Err(HostError::new(HostErrorKind::Other, ENSURE, &*spec.link, message));
        };
        let applied = Applied { spec: spec.clone(), text, listing: listing.lines().to_vec() };
        self.write_applied(&applied)?;
        done.push(format!("loaded nftables table inet {}", self.table.as_str()));
        Ok(())
    }

    async fn restore_table(&self) -> HostResult<bool> {
        let failed = |e: CommandError| e.into_host(ENSURE, self.instance);
        let Some(applied) = self.read_applied() else { return Ok(false) };
        if nft::exists(self.table.as_str()) {
            return Ok(false);
        }
        nft::apply(&applied.text).await.map_err(failed)?;
        Ok(true)
    }

    fn ruleset(&self, spec: &NetworkSpec) -> Ruleset {
        Ruleset {
            table: self.table.clone(),
            bridge: spec.link.clone(),
            cidrs: spec.subnets().iter().map(|s| s.cidr.trunc()).collect(),
            masquerade: spec.masquerade,
        }
    }

    async fn remove(&self) -> HostResult<Change> {
        let failed = |e: NetlinkError| e.into_host(REMOVE, self.instance);
        let netlink = Netlink::connect().map_err(failed)?;
        let seen = self.look(&netlink, REMOVE).await?;
        let bridges: Vec<_> = seen.links.iter().filter(|l| self.owns(l)).collect();
        for bridge in &bridges {
            refuse_in_use(REMOVE, bridge, &seen.links)?;
        }
        let mut done = Vec::new();
        if seen.table.is_some_and(|t| t.is_ours()) {
            nft::delete(&self.table).await.map_err(|e| e.into_host(REMOVE, self.instance))?;
            done.push(format!("removed nftables table inet {}", self.table.as_str()));
        }
        for bridge in bridges {
            netlink.delete(bridge.index, &bridge.name).await.map_err(failed)?;
            done.push(format!("removed bridge {}", bridge.name));
        }
        match std::fs::remove_file(&self.file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(file_error(REMOVE, &self.file, e)),
            _ => {}
        }
        if done.is_empty() { Ok(Change::Unchanged) } else { Ok(Change::Changed(done.join(", "))) }
    }

    async fn observe(&self, links: Vec<Link>) -> HostResult<Option<NetworkObserved>> {
        let netlink = Netlink::connect().map_err(|e| e.into_host(OBSERVE, self.instance))?;
        let seen = self.look_beside(links, &netlink, OBSERVE).await?;
        let Some(applied) = self.read_applied() else {
            // Not applied to its end, or the run directory was lost: `ensure` makes or adopts it.
            return Ok(None);
        };
        let families = applied.spec.subnets().into_iter().map(|s| s.cidr.addr().is_ipv6());
        let forwarding = families.map(|ipv6| Ok(sysctl::read(sysctl::forwarding(ipv6))? == "1"));
        let forwarding = forwarding.collect::<HostResult<Vec<bool>>>()?.into_iter().all(|on| on);
        let drift = self.drift(&applied, &seen, forwarding);
        Ok(Some(NetworkObserved { spec: applied.spec, drift }))
    }

    fn drift(&self, applied: &Applied, seen: &Seen, forwarding: bool) -> Vec<String> {
        let spec = &applied.spec;
        let mut drift = Vec::new();
        match seen.links.iter().find(|l| l.name == spec.link) {
            None => drift.push(format!("bridge {} is missing", spec.link)),
            Some(link) if !self.owns(link) => drift.push(format!("link {} is not ours", spec.link)),
            Some(link) => {
                if !link.up {
                    drift.push(format!("bridge {} is down", spec.link));
                }
                let has = |w: &IpNet| seen.addresses.iter().any(|a| a.index == link.index && a.address == *w);
                for missing in bridge_addresses(spec).unwrap_or_default().iter().filter(|w| !has(w)) {
                    drift.push(format!("bridge {} lacks the address {}", spec.link, missing.addr()));
                }
            }
        }
        let bridge = seen.links.iter().find(|l| l.name == spec.link).map(|l| l.index);
        let isolated = isolated(spec);
        let ports = seen.links.iter().filter(|l| bridge.is_some() && l.controller == bridge && l.isolated != isolated);
        drift.extend(ports.map(|l| format!("{} is {}isolated", l.name, if isolated { "not " } else { "" })));
        if !forwarding {
            drift.push("forwarding is off".to_owned());
        }
        match &seen.table {
            None => drift.push(format!("nftables: table inet {} is missing", self.table.as_str())),
            Some(table) => drift.extend(table.drift_from(&applied.listing)),
        }
        drift
    }

    /// Unreadable counts as absent: applying again is harmless.
    fn read_applied(&self) -> Option<Applied> {
        serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()
    }

    fn write_applied(&self, applied: &Applied) -> HostResult<()> {
        use std::io::Write;
        let bytes = serde_json::to_vec(applied).map_err(|e| file_error(ENSURE, &self.file, e.into()))?;
        let temporary = self.file.with_extension("json.new");
        std::fs::File::create(&temporary)
            .and_then(|mut f| f.write_all(&bytes))
            .and_then(|()| std::fs::rename(&temporary, &self.file))
            .map_err(|e| file_error(ENSURE, &self.file, e))
    }
}

/// What is wrong with a spec by itself.
fn check(spec: &NetworkSpec) -> HostResult<()> {
    let invalid = |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, ENSURE, &*spec.link, message));
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if spec.link.is_empty()
        || spec.link.len() > 15
        || !spec.link.bytes().all(legal)
        || spec.link.starts_with(['.', '-'])
    {
        return invalid(
            "a bridge's name has 1 to 15 letters, digits, '-', '_' or '.', not first '-' or '.'".to_owned(),
        );
    }
    spec.problem().map_or(Ok(()), invalid)
}

/// The bridge's own addresses, one of each family.
fn bridge_addresses(spec: &NetworkSpec) -> HostResult<Vec<IpNet>> {
    let one = |Subnet { cidr, gateway }: Subnet| {
        IpNet::new(gateway, cidr.prefix_len()).map_err(|e| {
            let message = format!("gateway {gateway} and pod network {cidr} don't fit");
            HostError::new(HostErrorKind::InvalidSpec, ENSURE, &*spec.link, message).caused_by(e)
        })
    };
    spec.subnets().into_iter().map(one).collect()
}

/// Are pods' ports kept apart? Where bridges filter one family they must not be.
fn isolated(spec: &NetworkSpec) -> bool {
    !spec.subnets().iter().any(|s| sysctl::bridge_filters(s.cidr.addr().is_ipv6()))
}

fn is_link_local(address: &LinkAddress) -> bool {
    matches!(address.address, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

fn refuse_in_use(op: &'static str, bridge: &Link, links: &[Link]) -> HostResult<()> {
    let ports: Vec<&str> =
        links.iter().filter(|l| l.controller == Some(bridge.index)).map(|l| l.name.as_str()).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let some = ports.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let message = format!(
        "{} links use bridge {} ({some}{}): stop the pods first (`reddwarfctl shutdown --stop-pods`)",
        ports.len(),
        bridge.name,
        if ports.len() > 3 { ", …" } else { "" }
    );
    Err(HostError::new(HostErrorKind::Busy, op, &*bridge.name, message))
}

fn file_error(op: &'static str, path: &Path, error: std::io::Error) -> HostError {
    let kind =
        if error.kind() == std::io::ErrorKind::StorageFull { HostErrorKind::Exhausted } else { HostErrorKind::Other };
    HostError::new(kind, op, path.display().to_string(), "can't be written").caused_by(error)
}
