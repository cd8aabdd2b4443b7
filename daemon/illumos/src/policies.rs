//! Network policies: filters of the isolated pods' own zones (ipf(8)), for pods on one etherstub talk without passing the
//! global zone.
//!
//! A zone's filters are gone with its boot, and outlast this daemon. So what was loaded is noted beside the sandbox's other
//! notes in RUN, together with the number that the zone had: before the first command that nobody knows what is in force,
//! after the last what it is. A pod without a note is open.

use crate::guards;
use crate::host::Shared;
use crate::ipf::{self, Family, ZoneFilter};
use crate::record::read_mark;
use crate::zone::drive;
use crate::zoneadm::{Zone, ZoneState};
use reddwarf_host::service::{Allow, Direction, Isolation, ServiceTable};
use reddwarf_host::spec::{SandboxNetwork, SandboxSpec};
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId};
use reddwarf_supervise::files::{io_error, names_in, read_record, remove_file, write_record};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

const ENSURE: &str = "make network policies";
const OBSERVE: &str = "observe network policies";

/// What was loaded into a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Loaded {
    /// The zone's number: every boot has its own.
    zone: u32,
    /// Of its rules; `None`: begun and not ended, anything may be in force.
    digest: Option<String>,
}

/// The policies that are in force. Every boot of a zone waits for them.
#[derive(Default)]
pub(crate) struct Policies {
    /// What was asked for last; `None`: nothing was since the daemon's start.
    table: Option<ServiceTable>,
    /// As noted in RUN; `None` until that was read.
    loaded: Option<BTreeMap<SandboxId, Loaded>>,
}

fn note(shared: &Shared, id: &SandboxId) -> PathBuf {
    shared.paths.run.sandbox(id).join("filter.json")
}

impl Policies {
    /// Addresses of services that were asked for last.
    pub(crate) fn announced(&self) -> BTreeSet<IpAddr> {
        self.table.as_ref().map(|t| t.announced.clone()).unwrap_or_default()
    }

    fn loaded(&mut self, shared: &Shared) -> HostResult<&mut BTreeMap<SandboxId, Loaded>> {
        let known = match self.loaded.take() {
            Some(known) => known,
            None => notes(shared)?,
        };
        Ok(self.loaded.insert(known))
    }

    /// Neither is anything to be filtered, nor was it.
    fn is_idle(&mut self, shared: &Shared, table: Option<&ServiceTable>) -> HostResult<bool> {
        Ok(table.is_none_or(|t| t.isolations.is_empty()) && self.loaded(shared)?.is_empty())
    }
}

fn notes(shared: &Shared) -> HostResult<BTreeMap<SandboxId, Loaded>> {
    let dir = shared.paths.run.sandboxes();
    let mut found = BTreeMap::new();
    for name in names_in(&dir).map_err(|e| io_error(OBSERVE, &dir, e))? {
        let Ok(id) = SandboxId::new(name) else { continue };
        if let Some(loaded) = read_record(OBSERVE, &note(shared, &id))? {
            found.insert(id, loaded);
        }
    }
    Ok(found)
}

/// What of the table concerns a pod with these addresses: what may pass for one of them may pass for all.
fn filter_of(table: Option<&ServiceTable>, network: &SandboxNetwork) -> ZoneFilter {
    let Some(table) = table else { return ZoneFilter::default() };
    let addresses = network.addresses();
    let of = |direction| {
        let fits =
            |i: &&Isolation| i.direction == direction && addresses.iter().any(|a| i.pods.contains(&a.address.addr()));
        let mut isolations = table.isolations.iter().filter(fits).peekable();
        isolations.peek()?;
        Some(isolations.flat_map(|i| i.allow.iter().cloned()).collect())
    };
    let egress: Option<BTreeSet<Allow>> = of(Direction::Egress);
    let own: Vec<IpAddr> = addresses.iter().map(|a| a.address.addr()).collect();
    let services = egress.iter().flat_map(|allowed| guards::services_behind_which(table, &own, allowed)).collect();
    ZoneFilter {
        ingress: of(Direction::Ingress),
        egress,
        services,
        host: addresses.iter().map(|a| a.gateway).collect(),
        resolvers: table.resolvers.clone(),
    }
}

fn digest(filter: &ZoneFilter) -> String {
    let mut digest = Sha256::new();
    for family in Family::ALL {
        digest.update(filter.rules(family).as_bytes());
        digest.update([0]);
    }
    reddwarf_host::hex(&digest.finalize())
}

/// Whether this is what a zone of that number has.
fn is_in_force(loaded: Option<&Loaded>, number: u32, wanted: &ZoneFilter) -> bool {
    match loaded.filter(|l| l.zone == number) {
        Some(loaded) => loaded.digest.as_ref().is_some_and(|known| *known == digest(wanted)),
        None => wanted.is_open(),
    }
}

/// Pods of ours that run: their zone's number and spec.
async fn running(shared: &Shared, op: &'static str) -> HostResult<Vec<(SandboxId, u32, SandboxSpec)>> {
    let mut found = Vec::new();
    for Zone { id, name, state, .. } in drive::zones(shared, op).await? {
        let (Some(number), ZoneState::Running, Ok(sandbox)) = (id, state, SandboxId::new(name)) else { continue };
        let mark = read_mark(&shared.paths.mark(&sandbox))?;
        if let Some(mark) = mark.filter(|mark| mark.instance == shared.options.instance) {
            found.push((sandbox, number, mark.spec));
        }
    }
    Ok(found)
}

/// Puts a table's policies in force; how many zones that changed. One zone that fails keeps no other, nor those to come,
/// from the new table.
pub(crate) async fn isolate(shared: &Shared, table: &ServiceTable) -> HostResult<usize> {
    let mut policies = shared.policies.lock().await;
    policies.table = Some(table.clone());
    if policies.is_idle(shared, Some(table))? {
        return Ok(0);
    }
    let running = running(shared, ENSURE).await?;
    let loaded = policies.loaded(shared)?;
    loaded.retain(|id, _| running.iter().any(|(r, ..)| r == id));
    let (mut changed, mut failed) = (0, None);
    for (id, number, spec) in running {
        match put_in_force(shared, loaded, &id, number, &filter_of(Some(table), &spec.network)).await {
            Ok(false) => {}
            Ok(true) => changed += 1,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(changed), Err)
}

/// Gives a zone that was booted the filters of the table in force, before any container runs in it; its number.
pub(crate) async fn isolate_again(shared: &Shared, spec: &SandboxSpec) -> HostResult<u32> {
    let mut policies = shared.policies.lock().await;
    let zones = drive::zones(shared, ENSURE).await?;
    let zone = zones.iter().find(|z| z.name == spec.id.as_str() && z.state == ZoneState::Running);
    let Some(number) = zone.and_then(|z| z.id) else {
        return Err(HostError::new(HostErrorKind::InvalidState, ENSURE, spec.id.as_str(), "its zone runs no longer"));
    };
    // Nothing was asked for yet: what the last daemon loaded is lifted by nobody's wish.
    if policies.table.is_none() && policies.loaded(shared)?.get(&spec.id).is_some_and(|l| l.zone == number) {
        return Ok(number);
    }
    let wanted = filter_of(policies.table.as_ref(), &spec.network);
    put_in_force(shared, policies.loaded(shared)?, &spec.id, number, &wanted).await?;
    Ok(number)
}

/// Whether something was done.
async fn put_in_force(
    shared: &Shared,
    loaded: &mut BTreeMap<SandboxId, Loaded>,
    id: &SandboxId,
    number: u32,
    wanted: &ZoneFilter,
) -> HostResult<bool> {
    let file = note(shared, id);
    let known = loaded.get(id);
    if is_in_force(known, number, wanted) {
        if known.is_some_and(|l| l.zone != number) {
            remove_file(&file).map_err(|e| io_error(ENSURE, &file, e))?;
            loaded.remove(id);
        }
        return Ok(false);
    }
    let mut note = Loaded { zone: number, digest: None };
    write_record(ENSURE, &file, &note)?;
    loaded.insert(id.clone(), note.clone());
    load(shared, id, wanted).await?;
    if wanted.is_open() {
        remove_file(&file).map_err(|e| io_error(ENSURE, &file, e))?;
        loaded.remove(id);
    } else {
        note.digest = Some(digest(wanted));
        write_record(ENSURE, &file, &note)?;
        loaded.insert(id.clone(), note);
    }
    Ok(true)
}

async fn load(shared: &Shared, id: &SandboxId, filter: &ZoneFilter) -> HostResult<()> {
    shared.run_ipf(ENSURE, id.as_str(), filter.runs(id.as_str()).into(), &[ipf::THERE]).await
}

/// Zones that have not the filters that they should have, in words.
pub(crate) async fn drift(shared: &Shared) -> HostResult<Vec<String>> {
    let mut policies = shared.policies.lock().await;
    let Some(table) = policies.table.clone() else { return Ok(Vec::new()) };
    if policies.is_idle(shared, Some(&table))? {
        return Ok(Vec::new());
    }
    let running = running(shared, OBSERVE).await?;
    let loaded = policies.loaded(shared)?;
    let lacks = |(id, number, spec): &(SandboxId, u32, SandboxSpec)| {
        !is_in_force(loaded.get(id), *number, &filter_of(Some(&table), &spec.network))
    };
    Ok(running.iter().filter(|r| lacks(r)).map(|(id, ..)| format!("ipf: zone {id} has not its filters")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reboot of the zone, a death in the middle, another set: each is something else than what is noted.
    #[test]
    fn only_what_was_loaded_to_its_end_in_this_boot_is_in_force() {
        let open = ZoneFilter::default();
        let closed = ZoneFilter { ingress: Some([].into()), ..ZoneFilter::default() };
        let other = ZoneFilter { egress: Some([].into()), ..ZoneFilter::default() };
        let noted = |zone, filter: Option<&ZoneFilter>| Loaded { zone, digest: filter.map(digest) };
        for (loaded, number, wanted, expected) in [
            (None, 7, &open, true),
            (None, 7, &closed, false),
            (Some(noted(7, Some(&closed))), 7, &closed, true),
            (Some(noted(7, Some(&closed))), 7, &other, false),
            (Some(noted(7, Some(&closed))), 7, &open, false),
            (Some(noted(7, Some(&closed))), 8, &closed, false),
            (Some(noted(7, Some(&closed))), 8, &open, true),
            (Some(noted(7, None)), 7, &closed, false),
            (Some(noted(7, None)), 7, &open, false),
        ] {
            assert_eq!(is_in_force(loaded.as_ref(), number, wanted), expected, "{loaded:?} {number} {wanted:?}");
        }
    }
}
