//! The machine as a whole: what it says of itself, and its pod network.

use super::call::{Call, mutation};
use super::fault::Fault;
use super::journal::Asked;
use super::state::{Foreign, NetworkState};
use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::names::SandboxId;
use crate::observe::{Change, HostInfo, HostObservation, Leftover, NetworkObserved, Observation, SandboxObserved};
use crate::spec::{NetworkSpec, SandboxNetwork, Subnet};
use crate::traits::{Host, HostEvent, Network};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::broadcast;

/// What an observation says that could not be made.
const UNREADABLE: &str = "the fault plan says so";

#[async_trait]
impl Host for FakeHost {
    async fn info(&self) -> HostResult<HostInfo> {
        let call = self.begin(Op::Info, "host", None).await?;
        let boot_id = self.world().machine.boot_id.clone();
        let info = HostInfo { boot_id, ..self.shared.options.info.clone() };
        call.end_with(Ok(info), false).await
    }

    async fn observe(&self) -> HostObservation {
        // Faults that fail a call make the whole answer unknown.
        let call = match self.begin(Op::Observe, "host", None).await {
            Ok(call) => call,
            Err(error) => return self.unknown(&error.chain()),
        };
        let fault = call.fault.clone();
        match call.end_with(Ok(self.look(fault.as_ref())), false).await {
            Ok(observation) => observation,
            Err(error) => self.unknown(&error.chain()),
        }
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.events.subscribe()
    }

    async fn leftover_remove(&self, leftover: &Leftover) -> HostResult<Change> {
        let asked = Asked::Name(format!("{} {}", leftover.kind, leftover.name));
        let record = mutation(self, Op::LeftoverRemove, None, asked);
        let call = self.begin(Op::LeftoverRemove, leftover.name.clone(), Some(record)).await?;
        let result = call.remove_leftover(leftover);
        call.end(result).await
    }
}

impl FakeHost {
    fn unknown(&self, why: &str) -> HostObservation {
        HostObservation {
            at: self.now().boot,
            sandboxes: Observation::Unknown(why.into()),
            network: Observation::Unknown(why.into()),
            leftovers: Vec::new(),
            images: Observation::Unknown(why.into()),
        }
    }

    fn look(&self, fault: Option<&Fault>) -> HostObservation {
        self.settle();
        let world = self.world();
        let unknown = || UNREADABLE.to_owned();
        let half = world.sandboxes().len() / 2;
        let sandboxes: BTreeMap<SandboxId, Observation<SandboxObserved>> = world
            .sandboxes()
            .iter()
            .enumerate()
            .map(|(index, (id, sandbox))| {
                let hidden = match fault {
                    Some(Fault::UnknownSandbox(which)) => which.as_ref().is_none_or(|w| w == id),
                    Some(Fault::Truncated) => index >= half,
                    _ => false,
                };
                let seen =
                    if hidden { Observation::Unknown(unknown()) } else { Observation::Known(sandbox.observed()) };
                (id.clone(), seen)
            })
            .collect();
        let network = world.machine.network.as_ref();
        let network = network.map(|n| NetworkObserved { spec: n.spec.clone(), drift: n.drift.clone() });
        HostObservation {
            at: self.now().boot,
            sandboxes: known_unless(fault == Some(&Fault::UnknownList), sandboxes),
            network: known_unless(fault == Some(&Fault::UnknownNetwork), network),
            leftovers: world.machine.leftovers.iter().cloned().collect(),
            images: known_unless(fault == Some(&Fault::UnknownImages), world.machine.images.clone()),
        }
    }
}

fn known_unless<T>(unknown: bool, value: T) -> Observation<T> {
    if unknown { Observation::Unknown(UNREADABLE.into()) } else { Observation::Known(value) }
}

#[async_trait]
impl Network for FakeHost {
    async fn network_ensure(&self, spec: &NetworkSpec) -> HostResult<Change> {
        let record = mutation(self, Op::NetworkEnsure, None, Asked::Network(spec.clone()));
        let call = self.begin(Op::NetworkEnsure, spec.link.clone(), Some(record)).await?;
        let result = call.network(spec);
        call.end(result).await
    }

    async fn network_remove(&self) -> HostResult<Change> {
        let record = mutation(self, Op::NetworkRemove, None, Asked::Plain);
        let call = self.begin(Op::NetworkRemove, "pod network", Some(record)).await?;
        let result = call.remove_network();
        call.end(result).await
    }
}

impl Call<'_> {
    fn network(&self, spec: &NetworkSpec) -> HostResult<Change> {
        self.not_busy(&spec.link)?;
        let mut world = self.host.world();
        if world.foreign.contains(&Foreign::Link(spec.link.clone())) {
            let message =
                "a link of this name is there and does not bear our mark; choose another name (setting `bridge`)";
            return Err(self.error(HostErrorKind::Foreign, message));
        }
        if let Some(problem) = spec.problem() {
            return Err(self.error(HostErrorKind::InvalidSpec, problem));
        }
        let routes = &self.host.shared.options.routes;
        let subnets = spec.subnets();
        for Subnet { cidr, .. } in &subnets {
            if let Some(route) = routes.iter().find(|r| r.contains(cidr) || cidr.contains(*r)) {
                let message = format!("{cidr} overlaps {route}, which this host uses already");
                return Err(self.error(HostErrorKind::Conflict, message));
            }
        }
        let inside = |ip: IpAddr| subnets.iter().any(|s| s.cidr.contains(&ip));
        let outside = world.sandboxes().values().find(|s| s.spec.network.ips().into_iter().any(|ip| !inside(ip)));
        if let Some(sandbox) = outside {
            let message = format!("{} has an address outside {}", sandbox.spec.id, spec.cidr);
            return Err(self.error(HostErrorKind::Conflict, message));
        }
        let words = match &world.machine.network {
            Some(present) if present.spec == *spec && present.drift.is_empty() => return Ok(Change::Unchanged),
            Some(present) if present.spec == *spec => format!("repaired: {}", present.drift.join(", ")),
            Some(_) => "changed".into(),
            None => "made".into(),
        };
        if !self.nothing_done() {
            world.machine.network = Some(NetworkState { spec: spec.clone(), drift: Vec::new() });
        }
        Ok(Change::Changed(words))
    }

    fn remove_network(&self) -> HostResult<Change> {
        let world = self.host.world();
        let Some(network) = &world.machine.network else { return Ok(Change::Unchanged) };
        let link = network.spec.link.clone();
        let user = world.sandboxes().values().find(|s| matches!(s.spec.network, SandboxNetwork::Pod { .. }));
        if let Some(sandbox) = user {
            return Err(self.error(HostErrorKind::Busy, format!("{} is connected to {link}", sandbox.spec.id)));
        }
        drop(world);
        self.not_busy(&link)?;
        if !self.nothing_done() {
            self.host.world().machine.network = None;
        }
        Ok(Change::Changed("removed".into()))
    }

    fn remove_leftover(&self, leftover: &Leftover) -> HostResult<Change> {
        self.not_busy(&leftover.name)?;
        let mut world = self.host.world();
        let foreign = [Foreign::Link(leftover.name.clone()), Foreign::Sandbox(leftover.name.clone())];
        if foreign.iter().any(|f| world.foreign.contains(f)) {
            return Err(self.error(HostErrorKind::Foreign, "it does not bear our mark any more"));
        }
        if !world.machine.leftovers.contains(leftover) {
            return Ok(Change::Unchanged);
        }
        if !self.nothing_done() {
            world.machine.leftovers.remove(leftover);
        }
        Ok(Change::Changed("removed".into()))
    }
}
