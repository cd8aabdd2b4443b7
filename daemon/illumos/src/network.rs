//! The pod network: etherstub, the global zone's own link on it with the gateway's address, forwarding, and the rule that
//! hides pods behind the host.
//!
//! It is one value, [`NetworkSpec`]. All of it is temporary: a boot leaves nothing behind. What was asked for is kept in
//! `RUN/network.json`, written before anything is made, so that what a crash leaves is known as ours.

use crate::dladm::{self, Link, Vnic, VnicObserved};
use crate::host::{IllumosHost, Shared};
use crate::ipadm::{self, Address};
use crate::paths::Paths;
use crate::record::read_mark;
use crate::{services, vnic};
use async_trait::async_trait;
use reddwarf_command::Cause;
use reddwarf_host::spec::{NetworkSpec, Subnet};
use reddwarf_host::{
    Change, HostError, HostErrorKind, HostEvent, HostResult, LinkName, Network, NetworkObserved, SandboxId,
};
use reddwarf_supervise::files::{io_error, names_in, read_record, remove_file, write_json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const ENSURE: &str = "make pod network";
const REMOVE: &str = "remove pod network";

/// How long a new address may be tentative: a system asks for some seconds whether somebody has it.
const IN_FORCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// What was asked for last on this boot.
pub(crate) fn applied(shared: &Shared) -> HostResult<Option<NetworkSpec>> {
    read_record("read pod network", &shared.paths.network()).map_err(|error| {
        let message = format!("{}: remove this file, and it is written anew", error.message);
        HostError { message, ..error }
    })
}

/// The host's links and addresses at one moment.
pub(crate) struct Seen {
    pub(crate) links: BTreeMap<String, Link>,
    pub(crate) vnics: BTreeMap<String, VnicObserved>,
    pub(crate) addresses: BTreeMap<String, Address>,
}

/// Three runs, whatever there is.
pub(crate) async fn look(shared: &Shared, op: &'static str) -> HostResult<Seen> {
    let bad = |e: dladm::AnswerError| HostError::new(HostErrorKind::Other, op, "links", e.to_string());
    let (show_links, show_vnics, show_addresses) = (dladm::show_links(), dladm::show_vnics(), ipadm::show_addresses());
    let (links, vnics, addresses) = tokio::try_join!(
        shared.run(op, "links", &show_links),
        shared.run(op, "links", &show_vnics),
        shared.run(op, "addresses", &show_addresses),
    )?;
    Ok(Seen {
        links: dladm::links(&links).map_err(bad)?,
        vnics: dladm::vnics(&vnics).map_err(bad)?,
        addresses: ipadm::addresses(&addresses).map_err(bad)?,
    })
}

/// The parts of a network.
struct Parts {
    /// Our own etherstub; `None`: pods are put on a link of the administrator's.
    stub: Option<LinkName>,
    gateway: Vnic,
    /// The gateway's addresses, one of each family at most.
    addresses: Vec<ipnet::IpNet>,
}

/// The link that pods' links and the gateway's are put on.
pub(crate) fn over<'a>(shared: &'a Shared, spec: &'a NetworkSpec) -> &'a str {
    shared.options.direct_link.as_deref().unwrap_or(&spec.link)
}

fn parts(shared: &Shared, spec: &NetworkSpec, op: &'static str) -> HostResult<Parts> {
    let invalid = |message: String| HostError::new(HostErrorKind::InvalidSpec, op, spec.link.clone(), message);
    let over = over(shared, spec);
    let link = LinkName::new(over).map_err(|e| invalid(e.to_string()))?;
    let stub = shared.options.direct_link.is_none().then_some(link);
    let name = LinkName::new(&shared.options.gateway_link).map_err(|e| invalid(e.to_string()))?;
    if let Some(problem) = spec.problem() {
        return Err(invalid(problem));
    }
    let address = |s: Subnet| ipnet::IpNet::new(s.gateway, s.cidr.prefix_len()).map_err(|e| invalid(e.to_string()));
    let addresses = spec.subnets().into_iter().map(address).collect::<HostResult<_>>()?;
    let mac = vnic::mac(&shared.options.instance, name.as_str());
    // On the pods' own VLAN: it is their default router.
    let gateway = Vnic { name, over: over.to_owned(), mac, vlan: shared.options.vlan };
    Ok(Parts { stub, gateway, addresses })
}

impl Parts {
    /// What is missing or wrong, in words.
    fn drift(&self, seen: &Seen) -> Vec<String> {
        let mut drift = Vec::new();
        match (&self.stub, seen.links.get(&self.gateway.over)) {
            (Some(_), Some(link)) if link.class == "etherstub" => {}
            (Some(stub), Some(link)) => drift.push(format!("link {stub} is of class {}", link.class)),
            (Some(stub), None) => drift.push(format!("etherstub {stub} is missing")),
            (None, Some(_)) => {}
            (None, None) => drift.push(format!("link {} (zone_nic) is missing", self.gateway.over)),
        }
        let name = &self.gateway.name;
        match seen.vnics.get(name.as_str()) {
            Some(found) if self.gateway.is(found) => {}
            Some(_) => drift.push(format!("link {name} is not as it was made")),
            None => drift.push(format!("link {name} is missing")),
        }
        for wanted in &self.addresses {
            let object = ipadm::address_object(name, wanted);
            match seen.addresses.get(&object).and_then(|a| a.address) {
                Some(address) if address == *wanted => drift.extend(trouble(seen, &object)),
                Some(address) => drift.push(format!("{object} is {address}")),
                None => drift.push(format!("address {object} is missing")),
            }
        }
        drift
    }
}

/// That an address does not serve, in words. One that is new is about to.
fn trouble(seen: &Seen, object: &str) -> Option<String> {
    let state = seen.addresses.get(object)?.state.as_str();
    (!matches!(state, ipadm::OK | ipadm::TENTATIVE)).then(|| format!("address {object} is {state}"))
}

#[async_trait]
impl Network for IllumosHost {
    async fn network_ensure(&self, spec: &NetworkSpec) -> HostResult<Change> {
        let done = ensure(&self.shared, spec).await;
        if matches!(done, Ok(Change::Changed(_))) {
            let _ = self.shared.events.send(HostEvent::Network);
        }
        done
    }

    async fn network_remove(&self) -> HostResult<Change> {
        remove(&self.shared).await
    }
}

/// The host's own addresses in the pod network: as it is, or, after a reboot, as the zones have it that were made
/// before. None: there are neither.
pub fn gateways(run_dir: &Path, state_dir: &Path) -> Vec<IpAddr> {
    let paths = Paths::new(run_dir, state_dir);
    if let Ok(Some(spec)) = read_record::<NetworkSpec>(ENSURE, &paths.network()) {
        return spec.subnets().into_iter().map(|subnet| subnet.gateway).collect();
    }
    let ids = names_in(&paths.marks()).unwrap_or_default();
    let marks = ids.iter().filter_map(|id| read_mark(&paths.mark(&SandboxId::new(id).ok()?)).ok().flatten());
    let gateways: BTreeSet<IpAddr> =
        marks.flat_map(|mark| mark.spec.network.addresses()).map(|address| address.gateway).collect();
    gateways.into_iter().collect()
}

async fn ensure(shared: &Shared, spec: &NetworkSpec) -> HostResult<Change> {
    let parts = parts(shared, spec, ENSURE)?;
    let known = applied(shared)?;
    if let Some(old) = known.as_ref().filter(|old| old.link != spec.link || old.subnets() != spec.subnets()) {
        let message = format!("the pod network is {} with gateway {} until it is removed", old.link, old.gateway);
        return Err(HostError::new(HostErrorKind::Conflict, ENSURE, spec.link.clone(), message));
    }
    let mut seen = look(shared, ENSURE).await?;
    let same = known.as_ref() == Some(spec);
    let masquerade = services::masquerade(shared, spec).await?;
    if same && parts.drift(&seen).is_empty() && masquerade == Change::Unchanged {
        return Ok(Change::Unchanged);
    }
    if known.is_none() {
        refuse_foreign(&parts, spec, &seen)?;
        let file = shared.paths.network();
        write_json(&file, spec).map_err(|e| io_error(ENSURE, &file, e))?;
    }
    let mut done = Vec::new();
    if let Some(stub) = parts.stub.as_ref().filter(|stub| !seen.links.contains_key(stub.as_str())) {
        shared.run(ENSURE, &spec.link, &dladm::create_etherstub(stub)).await?;
        done.push("etherstub");
    }
    let gateway = seen.vnics.get(parts.gateway.name.as_str());
    let elsewhere = gateway.is_some_and(|(over, _, vlan)| *over != parts.gateway.over || *vlan != parts.gateway.vlan);
    if elsewhere && has_addresses(&parts, &seen) {
        shared.run(ENSURE, &spec.link, &ipadm::delete_interface(&parts.gateway.name)).await?;
    }
    if elsewhere || gateway.is_none() {
        vnic::ensure_vnic(shared, ENSURE, &parts.gateway).await?;
        done.push("gateway link");
    }
    if elsewhere {
        seen = look(shared, ENSURE).await?;
    }
    let anew = !done.is_empty();
    for wanted in &parts.addresses {
        address(shared, &parts, wanted, &seen, &mut done).await?;
        let ipv6 = wanted.addr().is_ipv6();
        shared.run(ENSURE, &spec.link, &ipadm::forward(ipv6)).await?;
        redirect_nobody(shared, &spec.link, ipv6).await;
    }
    if anew {
        services::find_interfaces(shared).await?;
    }
    let file = shared.paths.network();
    write_json(&file, spec).map_err(|e| io_error(ENSURE, &file, e))?;
    if masquerade != Change::Unchanged {
        done.push("masquerade");
    }
    let words = if done.is_empty() { "made pod network".to_owned() } else { done.join(", ") };
    Ok(Change::Changed(words))
}

/// Pods that are told to bypass the gateway still reach what they want, only not by services' rules: no reason to have no
/// network at all.
async fn redirect_nobody(shared: &Shared, link: &str, ipv6: bool) {
    let mut first = None;
    for run in ipadm::redirect_nobody(ipv6) {
        match shared.run(ENSURE, link, &run).await {
            Ok(_) => return,
            Err(error) => first = first.or(Some(error)),
        }
    }
    if let Some(error) = first {
        tracing::warn!(%error, "pods may be told to bypass the gateway: redirects can't be turned off");
    }
}

async fn address(
    shared: &Shared,
    parts: &Parts,
    wanted: &ipnet::IpNet,
    seen: &Seen,
    done: &mut Vec<&'static str>,
) -> HostResult<()> {
    let name = &parts.gateway.name;
    let object = ipadm::address_object(name, wanted);
    let subject = object.as_str();
    match seen.addresses.get(&object).and_then(|a| a.address) {
        Some(address) if address == *wanted => return until_in_force(shared, &object).await,
        // Another one under our name: with the interface it goes.
        Some(_) => drop(shared.run(ENSURE, subject, &ipadm::delete_interface(name)).await?),
        None => {}
    }
    let exists_is_fine = |result: Result<_, reddwarf_command::CommandError>| match result {
        Err(error) if error.cause() != Cause::Exists => Err(error.into_host(ENSURE, subject)),
        _ => Ok(()),
    };
    if wanted.addr().is_ipv6() {
        exists_is_fine(shared.tools().run(&ipadm::create_link_local(name)).await)?;
    }
    exists_is_fine(shared.tools().run(&ipadm::create_address(name, wanted)).await)?;
    done.push("gateway address");
    until_in_force(shared, &object).await
}

/// A new address is tentative until nobody on the link was heard to have it.
async fn until_in_force(shared: &Shared, object: &str) -> HostResult<()> {
    let fail = |kind, message: String| Err(HostError::new(kind, ENSURE, object, message));
    let until = Instant::now() + IN_FORCE;
    loop {
        let text = shared.run(ENSURE, object, &ipadm::show_addresses()).await?;
        let all =
            ipadm::addresses(&text).map_err(|e| HostError::new(HostErrorKind::Other, ENSURE, object, e.to_string()))?;
        match all.get(object).map(|address| address.state.as_str()) {
            Some(ipadm::OK) => return Ok(()),
            Some(ipadm::DUPLICATE) => {
                return fail(HostErrorKind::Conflict, "another machine on the link has this address".to_owned());
            }
            Some(ipadm::TENTATIVE) if Instant::now() < until => tokio::time::sleep(LOOK).await,
            state => return fail(HostErrorKind::InvalidState, format!("is {}, not ok", state.unwrap_or("gone"))),
        }
    }
}

/// Whether the gateway's link is plumbed.
fn has_addresses(parts: &Parts, seen: &Seen) -> bool {
    seen.addresses.keys().any(|object| object.split('/').next() == Some(parts.gateway.name.as_str()))
}

/// Nothing of the network's names is there unless we made it.
fn refuse_foreign(parts: &Parts, spec: &NetworkSpec, seen: &Seen) -> HostResult<()> {
    if parts.stub.is_none() && !seen.links.contains_key(&parts.gateway.over) {
        let message = "there is no such link: set `zone_nic` to one that `dladm show-link` lists, or to off";
        return Err(HostError::new(HostErrorKind::NotFound, ENSURE, parts.gateway.over.clone(), message));
    }
    let ours = seen.vnics.get(parts.gateway.name.as_str()).is_some_and(|found| parts.gateway.is(found));
    if let Some(link) = parts.stub.as_ref().and_then(|stub| seen.links.get(stub.as_str())).filter(|_| !ours) {
        // After a boot there is none of ours; without our note, and our gateway on it, it is somebody else's.
        let message =
            format!("a link of this name ({}) is there and is not ours: set `bridge` to another name", link.class);
        return Err(HostError::new(HostErrorKind::Foreign, ENSURE, spec.link.clone(), message));
    }
    let other = seen.addresses.iter().find(|(object, address)| {
        let ours = object.split('/').next() == Some(parts.gateway.name.as_str());
        !ours && address.address.is_some_and(|a| spec.subnets().iter().any(|s| s.cidr.contains(&a.addr())))
    });
    if let Some((object, _)) = other {
        let message = format!("this host uses {} itself ({object}): set `pod_cidr` to another range", spec.cidr);
        return Err(HostError::new(HostErrorKind::Conflict, ENSURE, spec.link.clone(), message));
    }
    Ok(())
}

async fn remove(shared: &Shared) -> HostResult<Change> {
    let Some(spec) = applied(shared)? else { return Ok(Change::Unchanged) };
    let parts = parts(shared, &spec, REMOVE)?;
    let marks = shared.paths.marks();
    for name in names_in(&marks).map_err(|e| io_error(REMOVE, &marks, e))? {
        if SandboxId::new(&name).is_ok_and(|id| shared.paths.mark(&id).exists()) {
            return Err(HostError::new(HostErrorKind::Busy, REMOVE, spec.link, format!("sandbox {name} uses it")));
        }
    }
    services::remove_masquerade(shared).await?;
    let gone = |result: Result<_, reddwarf_command::CommandError>| match result {
        Err(error) if error.cause() != Cause::NotFound => Err(error.into_host(REMOVE, &*spec.link)),
        _ => Ok(()),
    };
    let seen = look(shared, REMOVE).await?;
    if has_addresses(&parts, &seen) {
        gone(shared.tools().run(&ipadm::delete_interface(&parts.gateway.name)).await)?;
    }
    if seen.vnics.contains_key(parts.gateway.name.as_str()) {
        gone(shared.tools().run(&dladm::delete_vnic(&parts.gateway.name)).await)?;
    }
    if let Some(stub) = parts.stub.as_ref().filter(|stub| seen.links.contains_key(stub.as_str())) {
        gone(shared.tools().run(&dladm::delete_etherstub(stub)).await)?;
    }
    let file = shared.paths.network();
    remove_file(&file).map_err(|e| io_error(REMOVE, &file, e))?;
    Ok(Change::Changed("removed pod network".to_owned()))
}

/// The pod network as found; `None` when there is none of ours.
pub(crate) fn observed(shared: &Shared, seen: &HostResult<Seen>) -> HostResult<Option<NetworkObserved>> {
    let Some(spec) = applied(shared)? else { return Ok(None) };
    let parts = parts(shared, &spec, "observe pod network")?;
    let seen = seen.as_ref().map_err(|e| HostError::new(e.kind, e.op, e.subject.clone(), e.message.clone()))?;
    Ok(Some(NetworkObserved { drift: parts.drift(seen), spec }))
}
