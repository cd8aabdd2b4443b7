//! Veth pairs of sandboxes (rtnetlink). Every link of ours bears its mark as an alias.
//!
//! The pair is made with its ends in their namespaces at once: moving one would cost 20 ms. A link can't be made with
//! its alias, though; until it has one, the host's end is known by its hardware address, which is derived from the
//! sandbox's name. So a link of ours bears a mark from its first moment on, whenever we die.

use crate::network::announce::{announce, announce_v6};
use crate::network::links;
use crate::network::mark::{bridge_alias, link_alias, link_mac, pod_mac, sandbox_of};
use crate::network::netlink::{Link, LinkAddress, Netlink, NetlinkError, VethEnd, open_netns};
use crate::network::sysctl;
use crate::options::LinuxOptions;
use ipnet::IpNet;
use reddwarf_host::spec::PodAddress;
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, LinkName, SandboxId, spec::SandboxSpec};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

const ATTACH: &str = "attach network";
const DETACH: &str = "detach network";
/// The pod's own name for its link.
const INSIDE: &str = "eth0";
/// For a whole operation; one takes about 10 ms.
const DEADLINE: Duration = Duration::from_secs(20);
/// Neighbours ignore news of an address within a second of the last (`locktime`, arp(7)): it is said again after that.
/// RFC 5227 wants two announcements anyway.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(1100);

/// Connects the network namespace pinned at `netns` to the bridge: veth, address, default route (the loopback is up
/// already). Idempotent; finishes what a crash left half-made. Only called for `SandboxNetwork::Pod`.
///
/// # Errors
/// `InvalidState` without our bridge, `Foreign` when a link of our name lacks our mark, `Timeout`, `Unsupported`,
/// `Other`.
pub(crate) async fn attach(options: &LinuxOptions, spec: &SandboxSpec, netns: &Path) -> HostResult<Change> {
    let addresses = spec.network.addresses();
    if addresses.is_empty() {
        return Ok(Change::Unchanged);
    }
    let attachment = Attachment {
        options,
        id: &spec.id,
        name: LinkName::for_sandbox(&spec.id),
        mac: pod_mac(&spec.pod.uid),
        addresses,
    };
    bounded(ATTACH, &spec.id, attachment.make(netns)).await
}

/// Removes the sandbox's veth. Absent is `Unchanged`; so is a link of that name which is not ours.
///
/// # Errors
/// `Timeout`, `Unsupported`, `Other`.
pub(crate) async fn detach(options: &LinuxOptions, id: &SandboxId) -> HostResult<Change> {
    let name = LinkName::for_sandbox(id);
    let work = async {
        let host = Netlink::connect()?;
        match host.link(name.as_str()).await? {
            Some(link) if is_ours(&options.instance, id, &link) => {
                host.delete(link.index, &link.name).await?;
                Ok(Change::Changed(format!("removed link {name}")))
            }
            Some(_) | None => Ok(Change::Unchanged),
        }
    };
    bounded(DETACH, id, async { work.await.map_err(|e: NetlinkError| e.into_host(DETACH, id.as_str())) }).await
}

/// Whether the sandbox has its link.
///
/// # Errors
/// `Timeout`, `Other`.
pub(crate) async fn is_attached(options: &LinuxOptions, id: &SandboxId) -> HostResult<bool> {
    let op = "look up link";
    let work = async {
        let found = Netlink::connect()?.link(LinkName::for_sandbox(id).as_str()).await?;
        Ok(found.is_some_and(|link| sandbox_of(&options.instance, &link).as_ref() == Some(id)))
    };
    bounded(op, id, async { work.await.map_err(|e: NetlinkError| e.into_host(op, id.as_str())) }).await
}

/// All links, in one dump.
///
/// # Errors
/// `Timeout`, `Other`.
pub(crate) async fn list(options: &LinuxOptions) -> HostResult<Vec<Link>> {
    let op = "list links";
    let work = async { links::list().await.map_err(|e| e.into_host(op, &*options.instance)) };
    bounded(op, &options.instance, work).await
}

/// The sandboxes that have a veth with our mark and this instance's name among these links.
pub(crate) fn marked(options: &LinuxOptions, links: &[Link]) -> BTreeSet<SandboxId> {
    links.iter().filter_map(|l| sandbox_of(&options.instance, l)).collect()
}

/// By its alias; by its hardware address while it has no alias yet.
fn is_ours(instance: &str, id: &SandboxId, link: &Link) -> bool {
    match &link.alias {
        Some(alias) => *alias == link_alias(instance, id),
        None => !link.up && link.mac == Some(link_mac(instance, id)),
    }
}

async fn bounded<T>(
    op: &'static str,
    subject: &impl ToString,
    work: impl Future<Output = HostResult<T>>,
) -> HostResult<T> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        let message = format!("the kernel gave no answer within {} s", DEADLINE.as_secs());
        Err(HostError::new(HostErrorKind::Timeout, op, subject.to_string(), message))
    })
}

/// One sandbox's link as it should be.
struct Attachment<'a> {
    options: &'a LinuxOptions,
    id: &'a SandboxId,
    name: LinkName,
    mac: [u8; 6],
    addresses: Vec<PodAddress>,
}

impl Attachment<'_> {
    async fn make(&self, netns: &Path) -> HostResult<Change> {
        let failed = |e: NetlinkError| e.into_host(ATTACH, self.id.as_str());
        let host = Netlink::connect().map_err(failed)?;
        let bridge = self.bridge(&host).await?;
        let sandbox_ns = open_netns(netns).map_err(failed)?;
        let inside = Netlink::connect_in(sandbox_ns.as_fd()).map_err(failed)?;

        let mut done = Vec::new();
        let outer = host.link(self.name.as_str()).await.map_err(failed)?;
        self.refuse_foreign(outer.as_ref())?;
        let inner = inside.link(INSIDE).await.map_err(failed)?;
        let (outer, inner) = match (outer, inner) {
            (Some(outer), Some(inner)) if are_ends_of_one(&outer, &inner) => (outer, inner),
            (outer, inner) => {
                self.remove_remains(&host, outer, &inside, inner).await.map_err(failed)?;
                done.push("made the pair");
                self.make_pair(&host, &inside, &sandbox_ns, &bridge).await.map_err(failed)?
            }
        };
        self.connect_outer(&host, &outer, &bridge, &mut done).await.map_err(failed)?;
        self.configure_inner(&inside, &inner, &mut done).await.map_err(failed)?;
        if done.is_empty() {
            return Ok(Change::Unchanged);
        }
        for ip in self.ips() {
            host.forget_neighbour(bridge.index, ip).await;
        }
        self.announce(host, bridge.index, outer.index);
        let addresses = self.addresses.iter().map(|a| a.address.to_string()).collect::<Vec<_>>().join(", ");
        Ok(Change::Changed(format!("{} ({addresses}): {}", self.name, done.join(", "))))
    }

    fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|a| a.address.addr())
    }

    /// An address may have belonged to a pod with another hardware address a moment ago. Best effort: neighbours find
    /// out by themselves, if later.
    fn announce(&self, host: Netlink, bridge: u32, outer: u32) {
        let (id, mac, name) = (self.id.clone(), self.mac, self.name.clone());
        let ips: Vec<IpAddr> = self.ips().collect();
        let say = move || {
            for ip in &ips {
                let said = match ip {
                    IpAddr::V4(ip) => announce(bridge, *ip, mac),
                    IpAddr::V6(ip) => announce_v6(bridge, *ip, mac),
                };
                if let Err(error) = said {
                    tracing::debug!(sandbox = %id, %ip, %error, "address not announced");
                }
            }
        };
        say();
        tokio::spawn(async move {
            tokio::time::sleep(ANNOUNCE_AGAIN).await;
            // By now the link may be gone and its address another's.
            if host.link(name.as_str()).await.ok().flatten().is_some_and(|link| link.index == outer) {
                say();
            }
        });
    }

    async fn bridge(&self, host: &Netlink) -> HostResult<Link> {
        let name = &self.options.bridge;
        let bridge = host.link(name).await.map_err(|e| e.into_host(ATTACH, self.id.as_str()))?;
        match bridge {
            Some(link) if link.alias.as_deref() == Some(&bridge_alias(&self.options.instance)) => Ok(link),
            _ => Err(HostError::new(
                HostErrorKind::InvalidState,
                ATTACH,
                self.id.as_str(),
                format!("there is no bridge {name} of ours yet; the pod network must be made first"),
            )),
        }
    }

    fn refuse_foreign(&self, outer: Option<&Link>) -> HostResult<()> {
        let Some(link) = outer else { return Ok(()) };
        if is_ours(&self.options.instance, self.id, link) {
            return Ok(());
        }
        let ours = link_alias(&self.options.instance, self.id);
        let message = format!(
            "link {} exists and its alias is {:?} instead of our mark {ours:?}; rename or remove it",
            link.name,
            link.alias.as_deref().unwrap_or_default()
        );
        Err(HostError::new(HostErrorKind::Foreign, ATTACH, self.id.as_str(), message))
    }

    /// Removes halves of a pair: of an earlier sandbox of this name, or of a try that was interrupted.
    async fn remove_remains(
        &self,
        host: &Netlink,
        outer: Option<Link>,
        inside: &Netlink,
        inner: Option<Link>,
    ) -> Result<(), NetlinkError> {
        if let Some(link) = outer {
            host.delete(link.index, &link.name).await?;
        }
        if let Some(link) = inner {
            inside.delete(link.index, &link.name).await?;
        }
        Ok(())
    }

    async fn make_pair(
        &self,
        host: &Netlink,
        inside: &Netlink,
        sandbox_ns: &File,
        bridge: &Link,
    ) -> Result<(Link, Link), NetlinkError> {
        let outer = VethEnd { name: self.name.as_str(), mac: link_mac(&self.options.instance, self.id), netns: None };
        let inner = VethEnd { name: INSIDE, mac: self.mac, netns: Some(sandbox_ns) };
        host.add_veth(&outer, &inner, bridge.mtu).await?;
        Ok((require(host, self.name.as_str()).await?, require(inside, INSIDE).await?))
    }

    async fn connect_outer(
        &self,
        host: &Netlink,
        outer: &Link,
        bridge: &Link,
        done: &mut Vec<&'static str>,
    ) -> Result<(), NetlinkError> {
        if outer.alias.is_none() {
            host.set_alias(outer.index, &link_alias(&self.options.instance, self.id)).await?;
            done.push("marked it");
        }
        if outer.controller != Some(bridge.index) || !outer.up {
            host.enslave(outer.index, &outer.name, bridge.index).await?;
            done.push("joined the bridge");
        }
        if !outer.hairpin {
            host.set_hairpin(outer.index, &outer.name).await?;
            done.push("set hairpin");
        }
        let isolated = !self.ips().any(|ip| sysctl::bridge_filters(ip.is_ipv6()));
        if outer.isolated != isolated {
            host.set_isolated(outer.index, &outer.name, isolated).await?;
            done.push("set its isolation");
        }
        Ok(())
    }

    async fn configure_inner(
        &self,
        inside: &Netlink,
        inner: &Link,
        done: &mut Vec<&'static str>,
    ) -> Result<(), NetlinkError> {
        let addresses = inside.addresses().await?;
        let ours = addresses.iter().filter(|a| a.index == inner.index && !is_link_local(&a.address.addr()));
        let wanted = |a: &&&LinkAddress| self.addresses.iter().any(|w| w.address == a.address);
        let (right, wrong): (Vec<_>, Vec<_>) = ours.partition(|a| wanted(&a));
        for address in wrong {
            inside.delete_address(address).await?;
            done.push("removed another address");
        }
        for missing in self.addresses.iter().filter(|w| !right.iter().any(|a| a.address == w.address)) {
            inside.add_pod_address(inner.index, missing.address).await?;
            done.push("added the address");
        }
        if !inner.up {
            inside.set_up(inner.index, &inner.name).await?;
            done.push("set it up");
        }
        for PodAddress { address, gateway } in &self.addresses {
            if inside.default_gateways(gateway).await? != [*gateway] {
                inside.add_route(inner.index, IpNet::from(*gateway), address.addr()).await?;
                inside.set_default_route(inner.index, *gateway).await?;
                done.push("set the default route");
            }
        }
        Ok(())
    }
}

/// Each end names the other by its number in the other's namespace (IFLA_LINK).
fn are_ends_of_one(outer: &Link, inner: &Link) -> bool {
    outer.peer == Some(inner.index) && inner.peer == Some(outer.index)
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

async fn require(netlink: &Netlink, name: &str) -> Result<Link, NetlinkError> {
    netlink
        .link(name)
        .await?
        .ok_or_else(|| NetlinkError::Refused { what: format!("look up link {name}"), errno: nix::errno::Errno::ENODEV })
}
