//! Guards: what policies say of pods that meet by way of a service, as packet filters of the global zone (ipf(5)).
//!
//! What one pod sends to another by way of us bears the gateway's address in the other's zone (`ipnat::Rule::Hairpin`), and the
//! gateway may always come in there. So it is told apart before: on the way in a packet meets NAT and then the filter, on the way
//! out the filter and then NAT. Thus what filters the way out sees the client's own address and the pod that ipnat, or ILB, has
//! chosen for it.
//!
//! The global zone's filter is the administrator's. Each rule of ours only ever ends connections, and stands before all others; who
//! may pass one is in a group of its own and passes without `quick`, so that the rules behind decide as ever. None depends on the
//! order among ours, so that the difference is applied; `RUN/guards.json` has what was loaded on this boot.

use crate::host::Shared;
use crate::ilbadm::digest;
use crate::ipf::{self, Family};
use ipnet::IpNet;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::HostResult;
use reddwarf_host::service::{Allow, Direction, Isolation, Place, Protocol, ServiceTable};
use reddwarf_host::spec::Subnet;
use reddwarf_supervise::files::{io_error, read_record, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ENSURE: &str = "guard services";
const SUBJECT: &str = "policies of services";

/// Characters of a group's name behind `rw`; ipf takes 15 in all.
const GROUP: usize = 12;

/// One rule. In this order each may be loaded: a friend needs its group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Guard {
    /// Pods' new connections to a backend end here, but for those of the group's friends.
    Closed {
        /// The pod network.
        pods: IpNet,
        /// The backend.
        to: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// Who may pass.
    Friend {
        /// What may be passed.
        group: String,
        /// Who.
        from: IpNet,
    },
    /// One pod's new connections to one backend end here.
    Barred {
        /// The pod.
        from: IpAddr,
        /// The backend.
        to: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
    },
}

fn group(to: &SocketAddr, protocol: Protocol) -> String {
    format!("rw{}", digest(&format!("{to} {}", protocol.as_str()), GROUP))
}

impl Guard {
    fn is_of(&self, family: Family) -> bool {
        family.has(match self {
            Self::Closed { to, .. } | Self::Barred { to, .. } => to.ip(),
            Self::Friend { from, .. } => from.addr(),
        })
    }

    /// As ipf(5) reads it, and ipfstat(8) prints it.
    fn rule(&self) -> String {
        let end = |from: IpNet, to: &SocketAddr, protocol: Protocol| {
            // Replies of TCP are told by their flags. Those of UDP go to a port that no service leads to.
            let flags = if protocol == Protocol::Tcp { " flags S/SA" } else { "" };
            let (from, address, port) = (from.trunc(), IpNet::from(to.ip()), to.port());
            format!("block out quick proto {} from {from} to {address} port = {port}{flags}", protocol.as_str())
        };
        match self {
            Self::Closed { pods, to, protocol } => {
                format!("{} head {}", end(*pods, to, *protocol), group(to, *protocol))
            }
            Self::Friend { group, from } => format!("pass out from {} to any group {group}", from.trunc()),
            Self::Barred { from, to, protocol } => end(IpNet::from(*from), to, *protocol),
        }
    }

    /// As it is loaded: what ends connections comes first of all rules.
    fn loaded(&self) -> String {
        match self {
            Self::Friend { .. } => self.rule(),
            Self::Closed { .. } | Self::Barred { .. } => format!("@0 {}", self.rule()),
        }
    }
}

fn fits(allow: &Allow, protocol: Protocol, port: u16) -> bool {
    let within = |ports: &BTreeSet<_>| {
        ports.iter().any(|range: &reddwarf_host::service::PortRange| {
            range.protocol == protocol && (range.first..=range.last).contains(&port)
        })
    };
    allow.ports.as_ref().is_none_or(within)
}

/// Whether one of them lets pass what goes to an address and port.
fn lets_out<'a>(allowed: impl IntoIterator<Item = &'a Allow>, protocol: Protocol, to: SocketAddr) -> bool {
    let peer = |peers: &BTreeSet<IpNet>| peers.iter().any(|net| net.contains(&to.ip()));
    allowed.into_iter().any(|a| fits(a, protocol, to.port()) && a.peers.as_ref().is_none_or(peer))
}

/// Frontends at addresses of their own, and who is behind each.
fn services(table: &ServiceTable) -> impl Iterator<Item = (Protocol, SocketAddr, &BTreeSet<SocketAddr>)> {
    let all = table.frontends.iter().filter(|(frontend, _)| frontend.protocol != Protocol::Sctp);
    all.filter_map(|(frontend, backends)| match frontend.place {
        Place::Address(address) => {
            Some((frontend.protocol, SocketAddr::new(address, frontend.port), &backends.addresses))
        }
        // The host is reached as a policy of egress says of the host.
        Place::HostV4 | Place::HostV6 => None,
    })
}

/// Services that a pod with these addresses reaches though its policies of egress do not name them: they let it reach who is
/// behind, one at least.
pub(crate) fn services_behind_which(
    table: &ServiceTable,
    own: &[IpAddr],
    allowed: &BTreeSet<Allow>,
) -> BTreeSet<(Protocol, SocketAddr)> {
    let reached = |protocol, to: &SocketAddr| own.contains(&to.ip()) || lets_out(allowed, protocol, *to);
    services(table)
        .filter(|(protocol, at, behind)| {
            !lets_out(allowed, *protocol, *at) && behind.iter().any(|to| reached(*protocol, to))
        })
        .map(|(protocol, at, _)| (protocol, at))
        .collect()
}

/// All guards of a table: none for pods that nobody isolates, and none where the pods' own zones see all that there is to see.
pub(crate) fn wanted(table: &ServiceTable, subnets: &[Subnet]) -> BTreeSet<Guard> {
    let mut guards = BTreeSet::new();
    for Isolation { direction, pods, allow } in &table.isolations {
        for pod in pods {
            let Some(subnet) = subnets.iter().find(|s| s.cidr.contains(pod)) else { continue };
            match direction {
                Direction::Ingress => guards.extend(closed(table, subnet, *pod, allow)),
                Direction::Egress => guards.extend(barred(table, *pod, allow)),
            }
        }
    }
    guards
}

fn closed(table: &ServiceTable, subnet: &Subnet, pod: IpAddr, allowed: &BTreeSet<Allow>) -> Vec<Guard> {
    let all = table.frontends.iter().flat_map(|(f, b)| b.addresses.iter().map(|to| (f.protocol, *to)));
    let own: BTreeSet<_> = all.filter(|(protocol, to)| to.ip() == pod && *protocol != Protocol::Sctp).collect();
    let mut guards = Vec::new();
    for (protocol, to) in own {
        let mut friends = BTreeSet::from([IpNet::from(subnet.gateway), IpNet::from(pod)]);
        let mut open = false;
        for Allow { peers, .. } in allowed.iter().filter(|a| fits(a, protocol, to.port())) {
            open |= peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| peer.contains(&subnet.cidr)));
            friends.extend(peers.iter().flatten().map(IpNet::trunc).filter(|peer| subnet.cidr.contains(peer)));
        }
        if !open {
            guards.push(Guard::Closed { pods: subnet.cidr, to, protocol });
            let group = group(&to, protocol);
            guards.extend(friends.into_iter().map(|from| Guard::Friend { group: group.clone(), from }));
        }
    }
    guards
}

/// Of a service that a pod reaches, those behind it whom it may not.
fn barred(table: &ServiceTable, pod: IpAddr, allowed: &BTreeSet<Allow>) -> Vec<Guard> {
    let may =
        |protocol, to: &SocketAddr| to.ip() == pod || table.resolvers.contains(to) || lets_out(allowed, protocol, *to);
    let mut guards = Vec::new();
    for (protocol, at, behind) in services(table).filter(|(_, at, _)| at.is_ipv4() == pod.is_ipv4()) {
        if may(protocol, &at) || behind.iter().any(|to| may(protocol, to)) {
            let not = behind.iter().filter(|to| !may(protocol, to));
            guards.extend(not.map(|to| Guard::Barred { from: pod, to: *to, protocol }));
        }
    }
    guards
}

/// One run for each family that has some.
fn runs<'g>(
    guards: impl Iterator<Item = &'g Guard> + Clone,
    args: &[&str],
    text: fn(&Guard) -> String,
) -> Vec<Invocation> {
    let run = |family: Family| {
        let rules: String = guards.clone().filter(|g| g.is_of(family)).map(|g| text(g) + "\n").collect();
        let args = family.option().into_iter().chain(args.iter().copied());
        (!rules.is_empty()).then(|| Invocation::change(Tool::Ipf, args).reading(rules))
    };
    Family::ALL.into_iter().filter_map(run).collect()
}

/// Adds them to the set in force.
fn load(guards: &BTreeSet<Guard>) -> Vec<Invocation> {
    runs(guards.iter(), &["-f", "-"], Guard::loaded)
}

/// Takes them away, groups after their friends: a group that goes first leaves its friends behind, out of everybody's reach.
fn unload(guards: &BTreeSet<Guard>) -> Vec<Invocation> {
    runs(guards.iter().rev(), &["-r", "-f", "-"], Guard::rule)
}

/// Asks for the rules of the way out that are in force, without names for numbers.
fn list(family: Family) -> Invocation {
    Invocation::read(Tool::Ipfstat, family.option().into_iter().chain(["-o", "-R"]))
}

/// Those of the guards that listings do not show.
fn not_in(guards: &BTreeSet<Guard>, listings: &str) -> BTreeSet<Guard> {
    let spelt_out = |rule: &str| {
        let word = |word: &str| word.parse::<IpNet>().map_or_else(|_| word.to_owned(), |net| net.trunc().to_string());
        rule.split_ascii_whitespace().map(word).collect::<Vec<_>>().join(" ")
    };
    let loaded: BTreeSet<String> = listings.lines().map(spelt_out).collect();
    guards.iter().filter(|guard| !loaded.contains(&spelt_out(&guard.rule()))).cloned().collect()
}

/// What was loaded on this boot.
fn known(shared: &Shared) -> HostResult<BTreeSet<Guard>> {
    Ok(read_record("read guards", &shared.paths.guards())?.unwrap_or_default())
}

fn note(shared: &Shared, guards: &BTreeSet<Guard>) -> HostResult<()> {
    let file = shared.paths.guards();
    write_json(&file, guards).map_err(|e| io_error(ENSURE, &file, e))
}

async fn missing(shared: &Shared, known: &BTreeSet<Guard>) -> HostResult<BTreeSet<Guard>> {
    let mut listings = String::new();
    for family in Family::ALL.into_iter().filter(|f| known.iter().any(|g| g.is_of(*f))) {
        listings += &shared.run("observe guards", SUBJECT, &list(family)).await?;
    }
    Ok(not_in(known, &listings))
}

/// The guards of a table.
pub(crate) struct Guarding {
    /// All that are to be there; `None`: as long as the pod network is not known, what is there stays.
    wanted: Option<BTreeSet<Guard>>,
    /// Backends whose guards could not be raised: nothing new may lead there, whoever leads.
    pub(crate) held: BTreeSet<SocketAddr>,
    /// Those of them that close themselves to others, and are known to stand open: what leads there already is taken back.
    pub(crate) open: BTreeSet<SocketAddr>,
    /// How many were raised.
    pub(crate) raised: HostResult<usize>,
}

/// Raises the guards of a table: before anything leads to those who are guarded. `subnets`: the pod network, if it is known.
pub(crate) async fn guard(shared: &Shared, table: &ServiceTable, subnets: Option<&[Subnet]>) -> Guarding {
    let (wanted, needed) = match subnets {
        Some(subnets) => (wanted(table, subnets), BTreeSet::new()),
        None => (BTreeSet::new(), guarded(&wanted(table, &anywhere()))),
    };
    if needed.is_empty() {
        let Raised { held, open, raised } = raise(shared, &wanted).await;
        return Guarding { wanted: Some(wanted), held, open, raised };
    }
    let Raised { open, raised, .. } = match known(shared) {
        Ok(known) => raise(shared, &known).await,
        Err(error) => Raised { held: BTreeSet::new(), open: BTreeSet::new(), raised: Err(error) },
    };
    Guarding { wanted: None, held: needed, open, raised }
}

/// How raising guards went: as of [`Guarding`].
struct Raised {
    held: BTreeSet<SocketAddr>,
    open: BTreeSet<SocketAddr>,
    raised: HostResult<usize>,
}

/// Pods may be in any network: whoever needs a guard there needs one, and some more.
fn anywhere() -> [Subnet; 2] {
    let whole = |any: IpAddr| Subnet { cidr: IpNet::new_assert(any, 0), gateway: any };
    [whole(Ipv4Addr::UNSPECIFIED.into()), whole(Ipv6Addr::UNSPECIFIED.into())]
}

/// Backends that guards stand before.
fn guarded(guards: &BTreeSet<Guard>) -> BTreeSet<SocketAddr> {
    let backend = |guard: &Guard| match guard {
        Guard::Closed { to, .. } | Guard::Barred { to, .. } => Some(*to),
        Guard::Friend { .. } => None,
    };
    guards.iter().filter_map(backend).collect()
}

/// Loads what is not loaded: how many that were, and before whom it failed.
async fn raise(shared: &Shared, wanted: &BTreeSet<Guard>) -> Raised {
    let none = BTreeSet::new;
    let (all, fresh) = match fresh(shared, wanted).await {
        Ok(found) => found,
        // They may be there.
        Err(error) => return Raised { held: guarded(wanted), open: none(), raised: Err(error) },
    };
    if fresh.is_empty() {
        return Raised { held: none(), open: none(), raised: Ok(0) };
    }
    // First what will be there in any case: a crash in the middle leaves nothing of ours unknown.
    let loaded = match note(shared, &all) {
        Ok(()) => shared.run_ipf(ENSURE, SUBJECT, load(&fresh), &[ipf::THERE]).await,
        Err(error) => Err(error),
    };
    match loaded {
        Ok(()) => Raised { held: none(), open: none(), raised: Ok(fresh.len()) },
        Err(error) => Raised { held: guarded(&fresh), open: closing(&fresh), raised: Err(error) },
    }
}

/// Backends that their own pods' policies close.
fn closing(guards: &BTreeSet<Guard>) -> BTreeSet<SocketAddr> {
    let backend = |guard: &Guard| if let Guard::Closed { to, .. } = guard { Some(*to) } else { None };
    guards.iter().filter_map(backend).collect()
}

/// What is wanted or was loaded, and of what is wanted that which is not in force.
async fn fresh(shared: &Shared, wanted: &BTreeSet<Guard>) -> HostResult<(BTreeSet<Guard>, BTreeSet<Guard>)> {
    let known = known(shared)?;
    let missing = missing(shared, &known).await?;
    if !missing.is_empty() {
        tracing::warn!(rules = missing.len(), "somebody took rules of ours from ipf");
    }
    let fresh = wanted.iter().filter(|g| !known.contains(g) || missing.contains(g)).cloned().collect();
    Ok((known.union(wanted).cloned().collect(), fresh))
}

/// Takes away what is not wanted any more: after redirections. How many that were.
pub(crate) async fn lower(shared: &Shared, guarding: &Guarding) -> HostResult<usize> {
    let Some(wanted) = &guarding.wanted else { return Ok(0) };
    let stale: BTreeSet<Guard> = known(shared)?.difference(wanted).cloned().collect();
    if !stale.is_empty() {
        shared.run_ipf(ENSURE, SUBJECT, unload(&stale), &[": No such process"]).await?;
        note(shared, wanted)?;
    }
    Ok(stale.len())
}

/// What somebody took away, in words.
pub(crate) async fn drift(shared: &Shared) -> HostResult<Option<String>> {
    let known = known(shared)?;
    let missing = missing(shared, &known).await?;
    Ok((!missing.is_empty()).then(|| format!("ipf: {} of our {} guards are not loaded", missing.len(), known.len())))
}

#[cfg(test)]
mod tests;
