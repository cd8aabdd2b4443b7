//! All of ours on this host: one run each of zoneadm and zfs, three for links and addresses, whatever the number of pods;
//! the rest from small files. What can't be read is `Unknown`, never absent.

use crate::host::Shared;
use crate::network::{self, Seen};
use crate::record::read_mark;
use crate::zone::drive;
use crate::zoneadm::{Zone, ZoneState};
use crate::{images, leftovers, sandbox};
use reddwarf_host::{HostObservation, HostResult, LinkName, Observation, SandboxId, SandboxObserved, SandboxState};
use reddwarf_supervise::files::{io_error, names_in};
use std::collections::BTreeMap;
use std::sync::Arc;

const OP: &str = "observe";

/// Everything that was asked of the system.
pub(crate) struct Facts {
    pub(crate) zones: HostResult<BTreeMap<String, Zone>>,
    pub(crate) seen: HostResult<Seen>,
}

pub(crate) async fn observe(shared: &Arc<Shared>) -> HostObservation {
    let (zones, seen) = tokio::join!(drive::zones(shared, OP), network::look(shared, OP));
    let zones = zones.map(|all| all.into_iter().map(|z| (z.name.clone(), z)).collect());
    let facts = Facts { zones, seen };
    let work = {
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || read(&shared, &facts))
    };
    match work.await {
        Ok(observation) => observation,
        Err(error) => unknown(shared, &error.to_string()),
    }
}

fn unknown(shared: &Shared, why: &str) -> HostObservation {
    HostObservation {
        at: shared.clock.boot(),
        sandboxes: Observation::Unknown(why.to_owned()),
        network: Observation::Unknown(why.to_owned()),
        leftovers: Vec::new(),
        images: Observation::Unknown(why.to_owned()),
    }
}

fn known<T>(result: HostResult<T>) -> Observation<T> {
    match result {
        Ok(value) => Observation::Known(value),
        Err(error) => Observation::Unknown(error.chain()),
    }
}

fn read(shared: &Shared, facts: &Facts) -> HostObservation {
    let sandboxes = known(sandboxes(shared, facts));
    let leftovers = match &sandboxes {
        Observation::Known(found) => leftovers::find(shared, found.keys().cloned().collect(), facts),
        Observation::Unknown(_) => Vec::new(),
    };
    HostObservation {
        at: shared.clock.boot(),
        sandboxes,
        network: known(network::observed(shared, &facts.seen)),
        leftovers,
        images: known(images::all(shared)),
    }
}

fn sandboxes(shared: &Shared, facts: &Facts) -> HostResult<BTreeMap<SandboxId, Observation<SandboxObserved>>> {
    let marks = shared.paths.marks();
    let mut found = BTreeMap::new();
    for name in names_in(&marks).map_err(|e| io_error(OP, &marks, e))? {
        let Ok(id) = SandboxId::new(name) else { continue };
        match one(shared, &id, facts) {
            Ok(Some(observed)) => drop(found.insert(id, Observation::Known(observed))),
            Ok(None) => {}
            Err(error) => drop(found.insert(id, Observation::Unknown(error.chain()))),
        }
    }
    Ok(found)
}

fn one(shared: &Shared, id: &SandboxId, facts: &Facts) -> HostResult<Option<SandboxObserved>> {
    let Some(mark) = read_mark(&shared.paths.mark(id))? else { return Ok(None) };
    if mark.instance != shared.options.instance {
        return Ok(None);
    }
    let zones = facts.zones.as_ref().map_err(again)?;
    let zone = zones.get(id.as_str());
    let noted = sandbox::running(shared, id)?.filter(|noted| noted.is_of(zone.and_then(|z| z.id)));
    let mut state = sandbox_state(zone.map(|z| &z.state), noted.is_some());
    if state == SandboxState::Running
        && let Ok(seen) = &facts.seen
        && !seen.vnics.contains_key(LinkName::for_sandbox(id).as_str())
    {
        state = SandboxState::Partial("its network link is gone".to_owned());
    }
    let started = noted.map(|n| n.started).filter(|_| state == SandboxState::Running);
    let containers = shared.paths.run.observed(id, &shared.instances)?;
    Ok(Some(SandboxObserved { spec: Arc::new(mark.spec), state, started, containers }))
}

/// The same error for each sandbox.
fn again(error: &reddwarf_host::HostError) -> reddwarf_host::HostError {
    reddwarf_host::HostError::new(error.kind, error.op, error.subject.clone(), error.message.clone())
}

/// A zone's state as a sandbox's. `noted`: `sandbox_ensure` brought it to its end on this boot of the zone.
pub(crate) fn sandbox_state(zone: Option<&ZoneState>, noted: bool) -> SandboxState {
    let partial = |what: &str| SandboxState::Partial(what.to_owned());
    match zone {
        None => partial("its zone is not configured"),
        Some(ZoneState::Configured) => partial("its zone is not installed"),
        Some(ZoneState::Incomplete) => partial("its zone's installation was cut off"),
        Some(ZoneState::Ready) => partial("its zone is ready and not booted"),
        Some(ZoneState::Running) if noted => SandboxState::Running,
        Some(ZoneState::Running) => partial("its zone runs, and not all of it was made ready"),
        Some(ZoneState::Installed) => SandboxState::Stopped,
        Some(ZoneState::ShuttingDown | ZoneState::Down | ZoneState::Mounted) => SandboxState::Stopping,
        Some(state @ (ZoneState::Unavailable | ZoneState::Other(_))) => SandboxState::Other(state.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G07: every state of a zone has a meaning, also one that nobody knows.
    #[test]
    fn g07_every_zone_state_is_some_sandbox_state() {
        let of = |word: &str, noted| sandbox_state(Some(&ZoneState::of(word)), noted);
        assert_eq!(of("running", true), SandboxState::Running);
        assert!(matches!(of("running", false), SandboxState::Partial(_)));
        assert_eq!(of("installed", true), SandboxState::Stopped);
        for word in ["shutting_down", "down", "mounted"] {
            assert_eq!(of(word, true), SandboxState::Stopping);
        }
        for word in ["configured", "incomplete", "ready"] {
            assert!(matches!(of(word, true), SandboxState::Partial(_)));
        }
        assert_eq!(of("hibernating", true), SandboxState::Other("hibernating".into()));
        assert!(matches!(sandbox_state(None, true), SandboxState::Partial(_)));
    }
}
