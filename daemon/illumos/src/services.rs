//! Services by ipnat(8); network policies are `policies`.
//!
//! Every frontend that is not ILB's (`ilb`) is a redirection for each backend, once on the gateway's link (from pods) and once
//! on the link that leads outside; at addresses of the host's, announced ones (`announced`) among them, also on the interface
//! that has them. What we applied is kept in `RUN/ipnat.json` (a boot loses both), so that only the difference is applied and
//! sessions of other rules go on.

use crate::announced::{self, Addresses};
use crate::guards;
use crate::host::{IllumosHost, Shared};
use crate::ilb::{self, Split};
use crate::ilbadm::{Balanced, Prefix};
use crate::ipnat::{self, Rule};
use crate::options::Balancer;
use crate::{ipadm, ipf, network, policies, route};
use async_trait::async_trait;
use ipnet::IpNet;
use reddwarf_command::{Cause, Invocation};
use reddwarf_host::service::{Backends, Frontend, Listener, Place, Protocol, ServiceTable};
use reddwarf_host::spec::{NetworkSpec, Subnet};
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, Services};
use reddwarf_supervise::files::{io_error, read_record, write_json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

const ENSURE: &str = "make services";
const OBSERVE: &str = "observe services";

/// What this daemon had ILB do last; whoever changes rules of ILB or of ipnat, or addresses of services, locks it.
#[derive(Default)]
pub(crate) struct Balancing {
    ilb: ilb::Wanted,
    /// That ILB, which nothing is asked of, gives no answer was said.
    told: bool,
    /// The last pass saw that no address is announced, and none of ours is there: without services nobody has to look.
    bare: bool,
}

#[async_trait]
impl Services for IllumosHost {
    async fn services_ensure(&self, table: &ServiceTable) -> HostResult<Change> {
        ensure(&self.shared, table).await
    }

    async fn services_drift(&self) -> HostResult<Vec<String>> {
        drift(&self.shared).await
    }

    async fn listeners(&self) -> HostResult<BTreeSet<Listener>> {
        listeners(&self.shared).await
    }

    async fn routes(&self) -> HostResult<Vec<(String, IpNet)>> {
        let ours = network::applied(&self.shared)?;
        let mut text = String::new();
        for ipv6 in [false, true] {
            text += &self.shared.run("list routes", "routes", &route::show(ipv6)).await?;
        }
        let seen = addresses(&self.shared).await?;
        let announced = announced::ours(&seen, &self.shared.options.instance);
        let all = route::routes(&text).into_iter();
        Ok(all
            .filter(|(link, net)| {
                *link != self.shared.options.gateway_link
                    && ours.as_ref().is_none_or(|o| o.subnets().iter().all(|s| s.cidr != *net))
                    && !announced.values().any(|ip| IpNet::from(*ip) == *net)
            })
            .collect())
    }
}

async fn ensure(shared: &Shared, table: &ServiceTable) -> HostResult<Change> {
    if let Some(problem) = table.problem() {
        return Err(HostError::new(HostErrorKind::InvalidSpec, ENSURE, "services", problem));
    }
    if let Some(frontend) = table.frontends.keys().find(|f| f.protocol == Protocol::Sctp) {
        let message = format!("{frontend}: ipnat drops SCTP's ports");
        return Err(HostError::new(HostErrorKind::Unsupported, ENSURE, "services", message));
    }
    let mut balancing = shared.balancing.lock().await;
    // What one part fails with keeps no other: first of all the policies.
    let filtered = policies::isolate(shared, table).await;
    let network = network::applied(shared);
    let subnets = network.as_ref().ok().and_then(Option::as_ref).map(NetworkSpec::subnets);
    let guarding = guards::guard(shared, table, subnets.as_deref()).await;
    let table = &without(table, &guarding.open);
    let bare = std::mem::take(&mut balancing.bare);
    let idle = bare && table.frontends.is_empty() && table.announced.is_empty();
    let seen = if idle { Addresses::new() } else { addresses(shared).await? };
    let own = own_among(shared, &seen);
    let places = announced::plan(&table.announced, &seen, &shared.options);
    // An address goes before its rules and comes after them: in between a program of the host's own would answer.
    let mut moved = announced::give_up(shared, &places).await;
    let Split { ilb: balanced, ipnat: frontends } = match shared.options.balancer {
        Balancer::Ipnat => Split::without_ilb(table),
        Balancer::Ilb => ilb::split(table, &own, &Prefix::of(&shared.options.instance)),
    };
    // Whichever takes a frontend over is ready before the other lets go of it.
    balancing.ilb.clone_from(&balanced);
    let made = ilb::make(shared, &balanced, &guarding.held, &mut balancing.told).await;
    let nat = Nat::look(shared).await?;
    let mut wanted = redirects(shared, &frontends, (&own, &seen), &places).await?;
    wanted.extend(nat.known.iter().filter(|rule| is_masquerade(rule)).cloned());
    if !table.is_empty() {
        match subnets {
            Some(subnets) => wanted.extend(hairpin(shared, subnets)),
            None => wanted.extend(nat.known.iter().filter(|rule| matches!(rule, Rule::Hairpin { .. })).cloned()),
        }
    }
    let lost = balanced.iter().filter(|(name, _)| made.as_ref().map_or(true, |made| made.lost.contains(*name)));
    wanted.extend(not_taken_over(&nat, lost.map(|(_, rule)| rule)));
    wanted.retain(|rule| nat.is_loaded(rule) || !leads_to(rule, &guarding.held));
    let mut done = Vec::new();
    if apply_rules(shared, &nat, &wanted).await? {
        done.push(format!("{} frontends", frontends.len()));
    }
    // Guards that fail keep ILB's rules for what nobody else may take over now, but not what leads to who is to be closed.
    let gone = match &made {
        Ok(made) if guarding.raised.is_ok() || !guarding.open.is_empty() => ilb::unmake(shared, &balanced, made).await,
        _ => Ok(0),
    };
    let lowered = guards::lower(shared, &guarding).await;
    announced::take_on(shared, &places, &mut moved).await;
    balancing.bare = table.announced.is_empty() && moved.failed.is_none();
    done.append(&mut moved.done);
    let changed = filtered?;
    if changed > 0 {
        done.push(format!("filters of {changed} zones"));
    }
    if network?.is_none() && !guarding.held.is_empty() {
        let message = "there is no pod network yet, and services before pods with policies wait for it";
        return Err(HostError::new(HostErrorKind::InvalidState, ENSURE, "services", message));
    }
    let changed = guarding.raised? + lowered?;
    if changed > 0 {
        done.push(format!("{changed} guards"));
    }
    let (made, gone) = (made?, gone?);
    if made.changed + gone > 0 {
        done.push(format!("{} frontends of ILB", balanced.len()));
    }
    match made.failed.or(moved.failed) {
        Some(error) => Err(error),
        None if done.is_empty() => Ok(Change::Unchanged),
        None => Ok(Change::Changed(done.join(", "))),
    }
}

/// A table without these backends: connections that stand go on, new ones are led to the others.
fn without(table: &ServiceTable, backends: &BTreeSet<SocketAddr>) -> ServiceTable {
    let mut table = table.clone();
    table.frontends.retain(|_, behind| {
        let were = behind.addresses.len();
        behind.addresses.retain(|backend| !backends.contains(backend));
        were == behind.addresses.len() || !behind.addresses.is_empty()
    });
    table
}

/// Redirections of frontends that ILB is to have and does not take.
fn not_taken_over<'r>(nat: &Nat, lost: impl Iterator<Item = &'r Balanced>) -> Vec<Rule> {
    let places: BTreeSet<_> = lost.map(|rule| (rule.vip, rule.port, rule.protocol)).collect();
    let theirs = |rule: &&Rule| matches!(rule, Rule::Redirect { to, port, protocol, .. } if places.contains(&(*to, *port, *protocol)));
    nat.known.iter().filter(theirs).cloned().collect()
}

/// Whether a rule leads to one of these backends.
fn leads_to(rule: &Rule, backends: &BTreeSet<SocketAddr>) -> bool {
    matches!(rule, Rule::Redirect { backend, .. } if backends.contains(&SocketAddr::from(*backend)))
}

/// Rules that we applied on this boot.
fn known_rules(shared: &Shared) -> HostResult<BTreeSet<Rule>> {
    Ok(read_record("read NAT rules", &shared.paths.nat())?.unwrap_or_default())
}

/// Our rules of ipnat.
struct Nat {
    /// What we applied on this boot.
    known: BTreeSet<Rule>,
    /// What of it is not loaded.
    missing: BTreeSet<Rule>,
}

impl Nat {
    async fn look(shared: &Shared) -> HostResult<Self> {
        let known = known_rules(shared)?;
        let missing = match known.is_empty() {
            true => BTreeSet::new(),
            false => ipnat::missing(&known, &run_ipnat(shared, OBSERVE, &ipnat::list()).await?),
        };
        Ok(Self { known, missing })
    }

    fn is_loaded(&self, rule: &Rule) -> bool {
        self.known.contains(rule) && !self.missing.contains(rule)
    }

    /// What stays when services are not asked for: redirections that somebody took away come back with their guards only.
    fn kept(&self) -> impl Iterator<Item = &Rule> {
        self.known.iter().filter(|rule| !matches!(rule, Rule::Redirect { .. }) || self.is_loaded(rule))
    }
}

/// Whether something was done. Checks the whole set first, so that a rule that ipnat does not take changes nothing.
async fn apply_rules(shared: &Shared, Nat { known, missing }: &Nat, wanted: &BTreeSet<Rule>) -> HostResult<bool> {
    if !missing.is_empty() {
        tracing::warn!(rules = missing.len(), "somebody took rules of ours from ipnat");
    }
    let difference = ipnat::difference(known, missing, wanted);
    let runs = difference.runs();
    if runs.is_empty() {
        return Ok(false);
    }
    run_ipnat(shared, ENSURE, &ipnat::check(wanted)).await?;
    let file = shared.paths.nat();
    // First what will be there in any case: a crash in the middle leaves nothing of ours unknown.
    let union: BTreeSet<Rule> = known.union(wanted).cloned().collect();
    write_json(&file, &union).map_err(|e| io_error(ENSURE, &file, e))?;
    for run in runs {
        run_ipnat(shared, ENSURE, &run).await?;
    }
    write_json(&file, wanted).map_err(|e| io_error(ENSURE, &file, e))?;
    Ok(true)
}

/// Runs ipnat, or ipf for its rules; what it printed.
async fn run_ipnat(shared: &Shared, op: &'static str, run: &Invocation) -> HostResult<String> {
    const SUBJECT: &str = "NAT rules";
    let said = match shared.tools().run(run).await {
        Ok(said) => said,
        Err(error) if error.cause() == Cause::WrongState => {
            let version = shared.run(op, SUBJECT, &ipf::version()).await.unwrap_or_default();
            if ipf::is_enabled(&version) {
                return Err(error.into_host(op, SUBJECT));
            }
            let message = "ipfilter is off: `svcadm enable ipfilter`, and see `svcs -x ipfilter`";
            return Err(HostError::new(HostErrorKind::InvalidState, op, SUBJECT, message).caused_by(error));
        }
        Err(error) => return Err(error.into_host(op, SUBJECT)),
    };
    match ipnat::complaint(&said.stderr) {
        Some(complaint) => Err(HostError::new(HostErrorKind::Other, op, SUBJECT, format!("{run}: {complaint}"))),
        None => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
    }
}

/// After a link of ours was made anew: rules of before were about the one that went.
pub(crate) async fn find_interfaces(shared: &Shared) -> HostResult<()> {
    let _turn = shared.balancing.lock().await;
    if known_rules(shared)?.is_empty() {
        return Ok(());
    }
    run_ipnat(shared, ENSURE, &ipf::find_interfaces()).await.map(drop)
}

/// Each frontend's redirections. `own` are the host's addresses, among all that were `seen`.
async fn redirects(
    shared: &Shared,
    frontends: &BTreeMap<Frontend, Backends>,
    (own, seen): (&[IpAddr], &Addresses),
    places: &announced::Plan,
) -> HostResult<BTreeSet<Rule>> {
    let mut rules = BTreeSet::new();
    if frontends.is_empty() {
        return Ok(rules);
    }
    // Each family leaves by its own way, if at all.
    let mut links = BTreeMap::new();
    for family in [false, true] {
        let mut of: BTreeSet<String> = [shared.options.gateway_link.clone()].into();
        of.extend(uplink(shared, family).await?);
        links.insert(family, of);
    }
    let homes = announced::interfaces(seen);
    for (Frontend { place, protocol, port }, backends) in frontends {
        let targets: Vec<IpAddr> = match place {
            Place::Address(address) => vec![*address],
            Place::HostV4 => own.iter().copied().filter(IpAddr::is_ipv4).collect(),
            Place::HostV6 => own.iter().copied().filter(IpAddr::is_ipv6).collect(),
        };
        let protocol = if *protocol == Protocol::Udp { ipnat::Protocol::Udp } else { ipnat::Protocol::Tcp };
        let sources: Vec<Option<IpNet>> = match backends.sources.is_empty() {
            true => vec![None],
            false => backends.sources.iter().copied().map(Some).collect(),
        };
        // Where neighbours ask for an address need not be where the default route leads.
        let at = |to: &IpAddr| {
            let there = links.get(&to.is_ipv6()).into_iter().flatten().chain(places.links(to)).map(String::as_str);
            there.chain(homes.get(to).into_iter().flatten().copied()).map(|link| (link, *to)).collect::<BTreeSet<_>>()
        };
        for (link, to) in targets.iter().flat_map(at) {
            for (from, backend) in sources.iter().flat_map(|s| backends.addresses.iter().map(move |b| (*s, b))) {
                rules.insert(Rule::Redirect {
                    link: link.to_owned(),
                    from,
                    to,
                    port: *port,
                    backend: (backend.ip(), backend.port()),
                    protocol,
                    sticky: backends.affinity_seconds.is_some(),
                });
            }
        }
    }
    Ok(rules)
}

fn hairpin(shared: &Shared, subnets: Vec<Subnet>) -> impl Iterator<Item = Rule> {
    let rule =
        |Subnet { cidr, gateway }| Rule::Hairpin { link: shared.options.gateway_link.clone(), pods: cidr, gateway };
    subnets.into_iter().map(rule)
}

/// The link that leads outside; `None`: nothing does.
async fn uplink(shared: &Shared, ipv6: bool) -> HostResult<Option<String>> {
    match shared.tools().run(&route::get_default(ipv6)).await {
        Ok(said) => Ok(route::interface(&String::from_utf8_lossy(&said.stdout))),
        Err(error) if matches!(error.cause(), Cause::NotFound | Cause::Other) => Ok(None),
        Err(error) => Err(error.into_host(OBSERVE, "default route")),
    }
}

/// All address objects of the global zone.
async fn addresses(shared: &Shared) -> HostResult<Addresses> {
    let text = shared.run(OBSERVE, "addresses", &ipadm::show_addresses()).await?;
    ipadm::addresses(&text).map_err(|e| HostError::new(HostErrorKind::Other, OBSERVE, "addresses", e.to_string()))
}

/// The host's addresses, those of loopback, of the pod network and of services left out.
pub(crate) async fn own_addresses(shared: &Shared) -> HostResult<Vec<IpAddr>> {
    Ok(own_among(shared, &addresses(shared).await?))
}

fn own_among(shared: &Shared, found: &Addresses) -> Vec<IpAddr> {
    let announced = announced::ours(found, &shared.options.instance);
    let mut own: Vec<IpAddr> = found
        .iter()
        .filter(|(object, _)| {
            !object.starts_with("lo0/") && !object.starts_with(&format!("{}/", shared.options.gateway_link))
        })
        .filter(|(object, _)| !announced.contains_key(object.as_str()))
        .filter_map(|(_, address)| address.address.map(|a| a.addr()))
        .filter(|a| !matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    own.sort();
    own.dedup();
    own
}

fn is_masquerade(rule: &Rule) -> bool {
    matches!(rule, Rule::Masquerade { .. })
}

/// Hides pods behind the host, or not.
pub(crate) async fn masquerade(shared: &Shared, spec: &NetworkSpec) -> HostResult<Change> {
    let _turn = shared.balancing.lock().await;
    let nat = Nat::look(shared).await?;
    let mut wanted: BTreeSet<Rule> = nat.kept().filter(|rule| !is_masquerade(rule)).cloned().collect();
    for Subnet { cidr, .. } in spec.subnets().into_iter().filter(|_| spec.masquerade) {
        let Some(link) = uplink(shared, cidr.addr().is_ipv6()).await? else { continue };
        for ports in [true, false] {
            wanted.insert(Rule::Masquerade { link: link.clone(), from: cidr, ports });
        }
    }
    let changed = apply_rules(shared, &nat, &wanted).await?;
    Ok(if changed { Change::Changed("masquerade".to_owned()) } else { Change::Unchanged })
}

pub(crate) async fn remove_masquerade(shared: &Shared) -> HostResult<()> {
    let _turn = shared.balancing.lock().await;
    let nat = Nat::look(shared).await?;
    let wanted = nat.kept().filter(|r| matches!(r, Rule::Redirect { .. })).cloned().collect();
    apply_rules(shared, &nat, &wanted).await.map(drop)
}

async fn drift(shared: &Shared) -> HostResult<Vec<String>> {
    let balancing = shared.balancing.lock().await;
    let mut drift = ilb::drift(shared, &balancing.ilb).await?;
    let Nat { known, missing } = Nat::look(shared).await?;
    if !missing.is_empty() {
        drift.push(format!("ipnat: {} of our {} rules are not loaded", missing.len(), known.len()));
    }
    let wanted = shared.policies.lock().await.announced();
    if !wanted.is_empty() {
        drift.extend(announced::drift(&wanted, &addresses(shared).await?));
    }
    drift.extend(policies::drift(shared).await?);
    drift.extend(guards::drift(shared).await?);
    Ok(drift)
}

/// netstat(8) lists addresses as `*.80`, `192.0.2.2.80` and `fd00::2.80`, with the state last, or of IPv6 an interface behind
/// it. A system that does not list them has none to warn about.
async fn listeners(shared: &Shared) -> HostResult<BTreeSet<Listener>> {
    use reddwarf_command::{CommandError, Tool};
    let mut found = BTreeSet::new();
    let protocols = [(Protocol::Tcp, "tcp", "LISTEN"), (Protocol::Udp, "udp", "Idle")];
    for (family, (protocol, name, state)) in ["inet", "inet6"].iter().flat_map(|f| protocols.map(|p| (*f, p))) {
        let run = Invocation::read(Tool::Netstat, ["-an", "-f", family, "-P", name]);
        let text = match shared.tools().run(&run).await {
            Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
            Err(CommandError::Failed { .. }) => continue,
            Err(error) => return Err(error.into_host("list listeners", "ports")),
        };
        found.extend(ports(&text, state).into_iter().map(|port| Listener { protocol, port }));
    }
    Ok(found)
}

fn ports(text: &str, state: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let local = words.next()?;
        let is_state = words.rev().take(2).any(|word| word == state);
        (is_state && !local.starts_with("127.") && !local.starts_with("::1.")).then_some(())?;
        local.rsplit('.').next()?.parse().ok()
    };
    text.lines().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_those_that_others_reach() {
        let text = "\nTCP: IPv4\n   Local Address        Remote Address    Swind Send-Q Rwind Recv-Q    State\n\
                    -------------------- -------------------- ----- ------ ----- ------ -----------\n\
                    *.22                 *.*                      0      0 128000      0 LISTEN\n\
                    127.0.0.1.25         *.*                      0      0 128000      0 LISTEN\n\
                    192.0.2.2.80         *.*                      0      0 128000      0 LISTEN\n\
                    192.0.2.2.22         192.0.2.9.5555       64128      0 128872      0 ESTABLISHED\n";
        assert_eq!(ports(text, "LISTEN"), BTreeSet::from([22, 80]));
        let text = "\nTCP: IPv6\n   Local Address      Remote Address     Swind Send-Q Rwind Recv-Q   State      If\n\
                    --------------------------------- ------------------------------- ------ ----------- -----\n\
                    *.8443                            *.*                             0      0 128000      0 LISTEN\n\
                    fe80::1.546                       *.*                             0      0 128000      0 LISTEN     net0\n\
                    ::1.25                            *.*                             0      0 128000      0 LISTEN\n";
        assert_eq!(ports(text, "LISTEN"), BTreeSet::from([546, 8443]));
    }
}
