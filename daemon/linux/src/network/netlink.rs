//! Our view of rtnetlink(7): the few facts and requests that the pod network needs, in types of our own.
//!
//! A connection belongs to the network namespace of the thread that opened it. It costs about 50 µs, so every
//! operation opens its own and none can be found broken later.

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use reddwarf_host::{HostError, HostErrorKind};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The kernel refused.
    #[error("{what}: {errno}")]
    Refused {
        /// The request.
        what: String,
        /// The kernel's reason.
        errno: nix::errno::Errno,
    },
    /// The conversation itself failed.
    #[error("{what}")]
    Talk {
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl NetlinkError {
    /// This failure as a host error of the right kind.
    pub(crate) fn into_host(self, op: &'static str, subject: impl Into<String>) -> HostError {
        use nix::errno::Errno;
        let kind = match &self {
            Self::Refused { errno: Errno::ENODEV | Errno::ENOENT, .. } => HostErrorKind::NotFound,
            Self::Refused { errno: Errno::EEXIST, .. } => HostErrorKind::Conflict,
            Self::Refused { errno: Errno::EBUSY, .. } => HostErrorKind::Busy,
            Self::Refused { errno: Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP, .. } => HostErrorKind::Unsupported,
            Self::Refused { errno: Errno::ENOMEM | Errno::ENOBUFS | Errno::ENOSPC | Errno::EXFULL, .. } => {
                HostErrorKind::Exhausted
            }
            Self::Refused { .. } | Self::Talk { .. } => HostErrorKind::Other,
        };
        let hint = match &self {
            Self::Refused { errno: Errno::EPERM, .. } => " (CAP_NET_ADMIN is needed: run as root)",
            Self::Refused { errno: Errno::EOPNOTSUPP, .. } => " (the kernel lacks this kind of link)",
            _ => "",
        };
        let message = format!("{self}{hint}");
        HostError::new(kind, op, subject, message).caused_by(self)
    }

    fn from_rtnetlink(what: impl Into<String>, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(e) => {
                Self::Refused { what: what.into(), errno: nix::errno::Errno::from_raw(e.raw_code().abs()) }
            }
            other => Self::Talk { what: what.into(), source: Box::new(other) },
        }
    }

    pub(crate) fn from_io(what: impl Into<String>, error: std::io::Error) -> Self {
        Self::Talk { what: what.into(), source: Box::new(error) }
    }
}

/// One network link, as far as we care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its number in its namespace.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its alias: where our mark is.
    pub(crate) alias: Option<String>,
    /// It is a bridge.
    pub(crate) is_bridge: bool,
    /// The bridge it is a port of.
    pub(crate) controller: Option<u32>,
    /// A veth's other end, by its number in its own namespace.
    pub(crate) peer: Option<u32>,
    /// Its hardware address.
    pub(crate) mac: Option<Mac>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// Set up by the administrator (not: has carrier).
    pub(crate) up: bool,
    /// As a bridge port: may send frames back out of the port they came from.
    pub(crate) hairpin: bool,
    /// As a bridge port: reaches the bridge itself only, not other such ports.
    pub(crate) isolated: bool,
}

/// One address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    /// Its link.
    pub(crate) index: u32,
    /// Address and prefix length.
    pub(crate) address: IpNet,
    message: AddressMessage,
}

/// One route of the main table that leads to a network other than "everywhere".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkRoute {
    /// Where to.
    pub(crate) destination: IpNet,
    /// Through which link, when it is one.
    pub(crate) link: Option<u32>,
}

/// One end of a veth pair to be made.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    /// Its namespace; `None` for the conversation's own.
    pub(crate) netns: Option<&'a File>,
}

/// A conversation with one network namespace.
pub(crate) struct Netlink {
    handle: rtnetlink::Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs `f` on a thread of its own that has joined the network namespace `netns`. Threads that changed namespace
/// are never reused.
pub(crate) fn in_netns<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?;
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread in the network namespace panicked")))
    })
}

/// The network namespace pinned at `path`.
pub(crate) fn open_netns(path: &Path) -> Result<File, NetlinkError> {
    File::open(path).map_err(|e| NetlinkError::from_io(format!("open network namespace {}", path.display()), e))
}

impl Netlink {
    /// A conversation with this thread's namespace. Must be called within a tokio runtime.
    pub(crate) fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| NetlinkError::from_io("open netlink socket", e))?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// A conversation with another namespace. Must be called within a tokio runtime.
    pub(crate) fn connect_in(netns: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::current();
        in_netns(netns, || {
            let _context = runtime.enter();
            Self::connect()
        })
        .map_err(|e| NetlinkError::from_io("join network namespace", e))?
    }

    /// The link of a name.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await.map_err(|e| NetlinkError::from_rtnetlink(format!("look up link {name}"), e)) {
            Ok(link) => Ok(link.map(Link::from)),
            Err(NetlinkError::Refused { errno: nix::errno::Errno::ENODEV, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All addresses.
    pub(crate) async fn addresses(&self) -> Result<Vec<LinkAddress>, NetlinkError> {
        let all: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::from_rtnetlink("list addresses", e))?;
        Ok(all.into_iter().filter_map(link_address).collect())
    }

    /// The main table's routes to networks, of both families. Default routes and the halves of "everywhere" that VPNs
    /// set (`0.0.0.0/1`) are left out.
    pub(crate) async fn network_routes(&self) -> Result<Vec<NetworkRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessageBuilder::<IpAddr>::new().build();
            query.header.address_family = family;
            let found: Vec<RouteMessage> = self
                .handle
                .route()
                .get(query)
                .execute()
                .try_collect()
                .await
                .map_err(|e| NetlinkError::from_rtnetlink("list routes", e))?;
            routes.extend(found.iter().filter_map(network_route));
        }
        Ok(routes)
    }

    /// The gateways of the default routes.
    pub(crate) async fn default_gateways(&self, family: &IpAddr) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut query = RouteMessageBuilder::<IpAddr>::new().build();
        query.header.address_family = family_of(family);
        let found: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::from_rtnetlink("list routes", e))?;
        Ok(found
            .iter()
            .filter(|r| r.header.destination_prefix_length == 0 && r.header.table == RouteHeader::RT_TABLE_MAIN)
            .flat_map(|r| &r.attributes)
            .filter_map(|a| match a {
                RouteAttribute::Gateway(g) => ip_of(g),
                _ => None,
            })
            .collect())
    }

    /// Makes a bridge, down, with a fixed hardware address (else it would change as ports come and go).
    pub(crate) async fn add_bridge(&self, name: &str, mac: Mac) -> Result<(), NetlinkError> {
        let message = LinkBridge::new(name).down().address(mac.to_vec()).forward_delay(0).build();
        self.add_link(message, format!("add bridge {name}")).await
    }

    /// Makes a veth pair, each end down and in its namespace from the start.
    pub(crate) async fn add_veth(&self, one: &VethEnd<'_>, other: &VethEnd<'_>, mtu: u32) -> Result<(), NetlinkError> {
        let what = format!("add veth pair {}, {}", one.name, other.name);
        let peer = one_end(LinkMessageBuilder::<LinkUnspec>::new(), other, mtu).build();
        let message = one_end(LinkVeth::new(one.name, other.name), one, mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.add_link(message, what).await
    }

    async fn add_link(&self, message: LinkMessage, what: String) -> Result<(), NetlinkError> {
        self.handle.link().add(message).execute().await.map_err(|e| NetlinkError::from_rtnetlink(what, e))
    }

    /// Sets a link's alias.
    pub(crate) async fn set_alias(&self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        self.set(LinkUnspec::new_with_index(index).alias(alias).build(), format!("set alias {alias}")).await
    }

    /// Sets a link up.
    pub(crate) async fn set_up(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.set(LinkUnspec::new_with_index(index).up().build(), format!("set {name} up")).await
    }

    /// Makes a link a port of a bridge, and sets it up.
    pub(crate) async fn enslave(&self, index: u32, name: &str, bridge: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.set(message, format!("make {name} a port of the bridge")).await
    }

    /// Lets a port send frames back to where they came from: a pod that reaches itself through a service address.
    pub(crate) async fn set_hairpin(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(index).hairpin(true).build();
        self.handle
            .link()
            .set_port(message)
            .execute()
            .await
            .map_err(|e| NetlinkError::from_rtnetlink(format!("set hairpin on {name}"), e))
    }

    /// Keeps a port from reaching other pods' ports directly: what pods send each other goes through the host's own rules.
    /// See [`sysctl::bridge_filters`](super::sysctl::bridge_filters) for when that must not be.
    pub(crate) async fn set_isolated(&self, index: u32, name: &str, isolated: bool) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(index).isolated(isolated).build();
        self.handle
            .link()
            .set_port(message)
            .execute()
            .await
            .map_err(|e| NetlinkError::from_rtnetlink(format!("isolate {name}"), e))
    }

    async fn set(&self, message: LinkMessage, what: String) -> Result<(), NetlinkError> {
        self.handle.link().set(message).execute().await.map_err(|e| NetlinkError::from_rtnetlink(what, e))
    }

    /// Removes a link; gone already is fine.
    pub(crate) async fn delete(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(e) => match NetlinkError::from_rtnetlink(format!("delete link {name}"), e) {
                NetlinkError::Refused { errno: nix::errno::Errno::ENODEV, .. } => Ok(()),
                e => Err(e),
            },
        }
    }

    /// Adds an address. No duplicate address detection: addresses are given out once by us.
    pub(crate) async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(|e| NetlinkError::from_rtnetlink(format!("add address {address}"), e))
    }

    /// The same for a pod: no route to the network comes with it, so that neighbours are reached through the gateway.
    pub(crate) async fn add_pod_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        let flags = AddressFlags::Noprefixroute;
        let flags = if address.addr().is_ipv6() { flags | AddressFlags::Nodad } else { flags };
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.execute().await.map_err(|e| NetlinkError::from_rtnetlink(format!("add address {address}"), e))
    }

    /// Removes an address that [`Netlink::addresses`] named.
    pub(crate) async fn delete_address(&self, address: &LinkAddress) -> Result<(), NetlinkError> {
        self.handle
            .address()
            .del(address.message.clone())
            .execute()
            .await
            .map_err(|e| NetlinkError::from_rtnetlink(format!("delete address {}", address.address), e))
    }

    /// Adds (or keeps) a route to a network on a link itself. Packets of the host's own that take it come from `source`.
    pub(crate) async fn add_route(&self, index: u32, net: IpNet, source: IpAddr) -> Result<(), NetlinkError> {
        let what = format!("add route to {net}");
        let message = match (net, source) {
            (IpNet::V4(net), IpAddr::V4(source)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .pref_source(source)
                .scope(RouteScope::Link)
                .output_interface(index)
                .build(),
            (IpNet::V6(net), IpAddr::V6(source)) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .pref_source(source)
                .output_interface(index)
                .build(),
            _ => return Ok(()),
        };
        self.handle.route().add(message).replace().execute().await.map_err(|e| NetlinkError::from_rtnetlink(what, e))
    }

    /// Sets the default route.
    pub(crate) async fn set_default_route(&self, index: u32, gateway: IpAddr) -> Result<(), NetlinkError> {
        let what = format!("set default route via {gateway}");
        let message = match gateway {
            IpAddr::V4(g) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(std::net::Ipv4Addr::UNSPECIFIED, 0)
                .gateway(g)
                .output_interface(index)
                .build(),
            IpAddr::V6(g) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(std::net::Ipv6Addr::UNSPECIFIED, 0)
                .gateway(g)
                .output_interface(index)
                .build(),
        };
        self.handle.route().add(message).replace().execute().await.map_err(|e| NetlinkError::from_rtnetlink(what, e))
    }

    /// Forgets which hardware address `ip` had on a link: a new pod may have the address now. Best effort.
    pub(crate) async fn forget_neighbour(&self, index: u32, ip: IpAddr) {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(&ip);
        message.header.ifindex = index;
        message.attributes.push(rtnetlink::packet_route::neighbour::NeighbourAttribute::Destination(ip.into()));
        // Usually there is none.
        let _ = self.handle.neighbours().del(message).execute().await;
    }
}

fn one_end<T>(builder: LinkMessageBuilder<T>, end: &VethEnd<'_>, mtu: u32) -> LinkMessageBuilder<T> {
    let builder = builder.name(end.name).address(end.mac.to_vec()).mtu(mtu);
    match end.netns {
        Some(netns) => builder.setns_by_fd(netns.as_raw_fd()),
        None => builder,
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link =
            Self { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(v) => link.name = v,
                LinkAttribute::IfAlias(v) => link.alias = Some(v),
                LinkAttribute::Controller(v) if v != 0 => link.controller = Some(v),
                LinkAttribute::Link(v) => link.peer = Some(v),
                LinkAttribute::Address(v) => link.mac = v.try_into().ok(),
                LinkAttribute::Mtu(v) => link.mtu = v,
                LinkAttribute::LinkInfo(infos) => link.add_infos(&infos),
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn add_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(InfoKind::Bridge) => self.is_bridge = true,
                LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                    self.hairpin = port.contains(&InfoBridgePort::HairpinMode(true));
                    self.isolated = port.contains(&InfoBridgePort::Isolated(true));
                }
                _ => {}
            }
        }
    }
}

fn family_of(ip: &IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v) => Some(IpAddr::V4(*v)),
        RouteAddress::Inet6(v) => Some(IpAddr::V6(*v)),
        _ => None,
    }
}

/// IFA_LOCAL is the address itself; IFA_ADDRESS is the other end on point-to-point links (rtnetlink(7)).
fn link_address(message: AddressMessage) -> Option<LinkAddress> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip = find(true).or_else(|| find(false))?;
    let address = IpNet::new(ip, message.header.prefix_len).ok()?;
    Some(LinkAddress { index: message.header.index, address, message })
}

fn network_route(route: &RouteMessage) -> Option<NetworkRoute> {
    let header = &route.header;
    let table = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(t) => Some(*t),
        _ => None,
    });
    let main = table.unwrap_or_else(|| u32::from(header.table)) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !main || header.destination_prefix_length < 2 || header.kind != RouteType::Unicast {
        return None;
    }
    let ip = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(d) => ip_of(d),
        _ => None,
    })?;
    let link = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(i) => Some(*i),
        _ => None,
    });
    Some(NetworkRoute { destination: IpNet::new(ip, header.destination_prefix_length).ok()?, link })
}
