//! Things that bear our mark but belong to no sandbox, left by a crash in the middle of something or by a lost record.

use crate::host::Shared;
use crate::observe::Facts;
use crate::zone::drive::{Order, drive};
use crate::zone::state::Goal;
use crate::zone::{commands, config, golden};
use crate::{network, sandbox, vnic, zonecfg};
use reddwarf_host::{Change, HostError, HostErrorKind, HostResult, Leftover, SandboxId};
use std::collections::BTreeSet;

const OP: &str = "remove leftover";

/// Kinds of leftovers, as they are named to people.
const ZONE: &str = "zone";
const DIRECTORY: &str = "directory";
const LINK: &str = "link";

/// Everything of ours whose sandbox is not among `sandboxes`. What can't be read is left out: not known is not left.
pub(crate) fn find(shared: &Shared, sandboxes: BTreeSet<SandboxId>, facts: &Facts) -> Vec<Leftover> {
    let mut found = BTreeSet::new();
    if let Ok(zones) = &facts.zones {
        let template = golden::prefix(&shared.options.instance);
        for zone in zones.values().filter(|z| z.zonepath == shared.paths.zonepath(&z.name)) {
            let id = SandboxId::new(&zone.name);
            if !zone.name.starts_with(&template)
                && id.is_ok_and(|id| !sandboxes.contains(&id) && !shared.paths.marked(&id).exists())
            {
                found.insert(Leftover { kind: ZONE.to_owned(), name: zone.name.clone() });
            }
        }
    }
    for dir in [shared.paths.pool().join("pods")] {
        for name in reddwarf_supervise::files::names_in(&dir).unwrap_or_default() {
            if SandboxId::new(&name).is_ok_and(|id| !sandboxes.contains(&id) && !shared.paths.marked(&id).exists()) {
                found.insert(Leftover { kind: DIRECTORY.to_owned(), name });
            }
        }
    }
    if let (Ok(seen), Ok(Some(network))) = (&facts.seen, network::applied(shared)) {
        let marked = reddwarf_supervise::files::names_in(&shared.paths.marks()).unwrap_or_default();
        let all = sandboxes.into_iter().chain(marked.into_iter().filter_map(|n| SandboxId::new(n).ok())).collect();
        let strays = vnic::strays(shared, &network.link, &seen.vnics, &all);
        found.extend(strays.into_iter().map(|name| Leftover { kind: LINK.to_owned(), name }));
    }
    found.into_iter().collect()
}

/// Removes one.
pub(crate) async fn remove(shared: &Shared, leftover: &Leftover) -> HostResult<Change> {
    let Ok(id) = SandboxId::new(&leftover.name) else { return Ok(Change::Unchanged) };
    let _turn = shared.turns.take(&id).await;
    if sandbox::own_mark(shared, &id)?.is_some() {
        let message = "it belongs to a sandbox by now";
        return Err(HostError::new(HostErrorKind::Busy, OP, leftover.name.clone(), message));
    }
    match leftover.kind.as_str() {
        LINK => {
            let Some(network) = network::applied(shared)? else { return Ok(Change::Unchanged) };
            let gone = vnic::remove_stray(shared, OP, &network.link, &leftover.name).await?;
            Ok(if gone { Change::Changed(format!("removed link {}", leftover.name)) } else { Change::Unchanged })
        }
        ZONE => remove_zone(shared, &id).await,
        DIRECTORY => {
            if !shared.paths.pod(&id).exists() {
                return Ok(Change::Unchanged);
            }
            sandbox::remove_files(shared, &id).await?;
            Ok(Change::Changed(format!("removed what was left of {id}")))
        }
        _ => Ok(Change::Unchanged),
    }
}

/// A zone of ours whose record is gone: its own mark says whose it was.
async fn remove_zone(shared: &Shared, id: &SandboxId) -> HostResult<Change> {
    let zones = crate::zone::drive::zones(shared, OP).await?;
    if !zones.iter().any(|z| z.name == id.as_str()) {
        return Ok(Change::Unchanged);
    }
    let text = shared.run(OP, id.as_str(), &commands::export(id.as_str())).await?;
    let live = zonecfg::export(&text);
    let owner = live.as_ref().ok().and_then(|live| config::owner(live, &shared.options.instance)).map(str::to_owned);
    let Some(owner) = owner else {
        let message = format!("the zone lacks the mark {}: left alone", config::INSTANCE);
        return Err(HostError::new(HostErrorKind::Foreign, OP, id.as_str(), message));
    };
    let order = Order { zone: id.as_str(), owner: &owner, config: None, install: Vec::new(), clone: None };
    let _ = drive(shared, OP, &order, Goal::Absent).await?;
    vnic::remove(shared, OP, id).await?;
    sandbox::remove_files(shared, id).await?;
    Ok(Change::Changed(format!("removed zone {id}")))
}
