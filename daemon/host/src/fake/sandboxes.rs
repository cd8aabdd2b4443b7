//! Sandboxes: the state machine from absent to Running and back, step by step.

use super::call::{Call, mutation};
use super::journal::Asked;
use super::state::{Foreign, Now, Sandbox, World, ZoneState};
use super::{FakeHost, Op, lock};
use crate::error::{HostError, HostErrorKind, HostResult};
use crate::names::{ContainerName, LinkName, SandboxId, VolumeName};
use crate::observe::{Change, Leftover, Note};
use crate::spec::{ContainerSpec, Resources, SandboxSpec, Signal, VolumeSpec};
use crate::traits::{HostEvent, Sandboxes};
use async_trait::async_trait;
use std::net::IpAddr;
use std::path::Component;

#[async_trait]
impl Sandboxes for FakeHost {
    async fn sandbox_ensure(&self, spec: &SandboxSpec) -> HostResult<Change> {
        let asked = Asked::Sandbox(Box::new(spec.clone()));
        let record = mutation(self, Op::SandboxEnsure, Some(&spec.id), asked);
        let mut call = self.begin(Op::SandboxEnsure, spec.id.as_str(), Some(record)).await?;
        let result = call.ensure(spec).await;
        call.end(result).await
    }

    async fn sandbox_stop(&self, id: &SandboxId) -> HostResult<Change> {
        let record = mutation(self, Op::SandboxStop, Some(id), Asked::Plain);
        let mut call = self.begin(Op::SandboxStop, id.as_str(), Some(record)).await?;
        let result = call.stop(id).await;
        call.end(result).await
    }

    async fn sandbox_destroy(&self, id: &SandboxId) -> HostResult<Change> {
        let record = mutation(self, Op::SandboxDestroy, Some(id), Asked::Plain);
        let mut call = self.begin(Op::SandboxDestroy, id.as_str(), Some(record)).await?;
        let result = call.destroy(id).await;
        call.end(result).await
    }

    async fn volume_update(&self, id: &SandboxId, volume: &VolumeName, spec: &VolumeSpec) -> HostResult<Change> {
        let asked = Asked::Volume(volume.clone(), Box::new(spec.clone()));
        let record = mutation(self, Op::VolumeUpdate, Some(id), asked);
        let call = self.begin(Op::VolumeUpdate, format!("{id}/{volume}"), Some(record)).await?;
        let result = call.volume(id, volume, spec);
        call.end(result).await
    }

    async fn container_start(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
        self.start(id, spec).await
    }

    async fn container_signal(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        signal: Signal,
    ) -> HostResult<Change> {
        self.send_signal(id, name, attempt, signal).await
    }

    async fn container_note(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        note: Note,
    ) -> HostResult<Change> {
        self.note(id, name, attempt, note).await
    }

    async fn container_update(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        resources: &Resources,
    ) -> HostResult<Change> {
        self.update(id, name, attempt, resources).await
    }

    async fn container_remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
        self.remove(id, name, attempt).await
    }
}

impl Call<'_> {
    async fn ensure(&mut self, spec: &SandboxSpec) -> HostResult<Change> {
        self.check_spec(spec)?;
        self.not_busy(spec.id.as_str())?;
        self.check_neighbours(spec)?;
        if self.nothing_done() {
            return Ok(Change::Changed("made".into()));
        }
        let mut changed = self.adopt_or_mark(spec).await?;
        loop {
            let now = self.host.now();
            let next = {
                let mut world = self.host.world();
                let Some(sandbox) = world.sandboxes_mut().get_mut(&spec.id) else {
                    return Err(self.error(HostErrorKind::Other, "it vanished while it was being made"));
                };
                match &sandbox.zone {
                    ZoneState::Running => break,
                    ZoneState::Configured | ZoneState::Incomplete => sandbox.zone = ZoneState::Installed,
                    ZoneState::Installed => sandbox.zone = ZoneState::Ready,
                    ZoneState::Ready => {
                        sandbox.zone = ZoneState::Running;
                        sandbox.started = Some(now.boot);
                    }
                    ZoneState::ShuttingDown | ZoneState::Down | ZoneState::Mounted => {
                        return Err(self.error(HostErrorKind::Busy, "it is going down"));
                    }
                    ZoneState::Unrecognised(state) => {
                        return Err(self.error(HostErrorKind::Other, format!("it is in the unknown state {state:?}")));
                    }
                }
                sandbox.zone.clone()
            };
            self.step().await?;
            changed = Some(format!("made {next:?}").to_lowercase());
        }
        Ok(changed.map_or(Change::Unchanged, Change::Changed))
    }

    /// Compares with what is there; writes the mark when nothing is.
    async fn adopt_or_mark(&mut self, spec: &SandboxSpec) -> HostResult<Option<String>> {
        {
            let mut world = self.host.world();
            if let Some(sandbox) = world.sandboxes_mut().get_mut(&spec.id) {
                if sandbox.spec == *spec {
                    return Ok(None);
                }
                let in_place =
                    SandboxSpec { resources: spec.resources, best_effort: spec.best_effort, ..sandbox.spec.clone() };
                if in_place != *spec {
                    return Err(self.error(HostErrorKind::Conflict, "it was made from another spec; destroy it first"));
                }
                sandbox.spec.resources = spec.resources;
                return Ok(Some("resources changed in place".into()));
            }
            let limit = self.host.shared.options.max_sandboxes;
            if world.sandboxes().len() >= limit {
                return Err(self.error(HostErrorKind::Exhausted, format!("the host has room for {limit} sandboxes")));
            }
            // What a crash left of our own under this name is taken over.
            world.machine.leftovers.remove(&Leftover { kind: "directory".into(), name: spec.id.to_string() });
            let sandbox = Sandbox {
                spec: spec.clone(),
                link: LinkName::for_sandbox(&spec.id),
                zone: ZoneState::Configured,
                started: None,
                instances: Default::default(),
            };
            world.sandboxes_mut().insert(spec.id.clone(), sandbox);
        }
        self.step().await?;
        Ok(Some("made".into()))
    }

    /// What can be said of a spec by itself.
    fn check_spec(&self, spec: &SandboxSpec) -> HostResult<()> {
        let invalid = |message: String| Err(self.error(HostErrorKind::InvalidSpec, message));
        let brands = &self.host.shared.options.info.brands;
        if !brands.contains(&spec.brand) {
            let known: Vec<&str> = brands.iter().map(|b| b.as_str()).collect();
            return invalid(format!("unknown brand {:?}; this host has {}", spec.brand.as_str(), known.join(", ")));
        }
        for (name, volume) in &spec.volumes {
            if let Err(message) = check_volume(volume) {
                return invalid(format!("volume {name}: {message}"));
            }
        }
        Ok(())
    }

    /// What others on the machine have to say about a spec: foreign things, addresses, links, the network.
    fn check_neighbours(&self, spec: &SandboxSpec) -> HostResult<()> {
        let link = LinkName::for_sandbox(&spec.id);
        let world = self.host.world();
        for foreign in [Foreign::Sandbox(spec.id.to_string()), Foreign::Link(link.to_string())] {
            if world.foreign.contains(&foreign) {
                let message = format!("{foreign:?} is there and does not bear our mark; remove or rename it");
                return Err(self.error(HostErrorKind::Foreign, message));
            }
        }
        let addresses = spec.network.ips();
        if addresses.is_empty() {
            return Ok(());
        }
        let Some(network) = &world.machine.network else {
            return Err(self.error(HostErrorKind::Other, "the pod network is not up; it must be made first"));
        };
        let subnets = network.spec.subnets();
        let usable = |ip: &&IpAddr| subnets.iter().any(|s| s.cidr.contains(*ip) && s.gateway != **ip);
        if let Some(address) = addresses.iter().find(|ip| !usable(ip)) {
            let message = format!("{address} is not an address for pods in {}", network.spec.cidr);
            return Err(self.error(HostErrorKind::InvalidSpec, message));
        }
        self.check_unique(&world, spec, &link)
    }

    fn check_unique(&self, world: &World, spec: &SandboxSpec, link: &LinkName) -> HostResult<()> {
        for other in world.sandboxes().values().filter(|s| s.spec.id != spec.id) {
            let theirs = other.spec.network.ips();
            let clash = match spec.network.ips().into_iter().find(|ip| theirs.contains(ip)) {
                Some(ip) => Some(format!("address {ip}")),
                None if other.link == *link => Some(format!("link {link}")),
                None => None,
            };
            if let Some(what) = clash {
                let message = format!("{what} belongs to {}", other.spec.id);
                lock(&self.host.shared.journal).violation(format!("I1: {} asked for it: {message}", spec.id));
                return Err(self.error(HostErrorKind::Conflict, message));
            }
        }
        Ok(())
    }

    async fn stop(&mut self, id: &SandboxId) -> HostResult<Change> {
        self.not_busy(id.as_str())?;
        if self.nothing_done() {
            return Ok(Change::Changed("halted".into()));
        }
        let mut changed = false;
        loop {
            let now = self.host.now();
            {
                let mut world = self.host.world();
                let Some(sandbox) = world.sandboxes_mut().get_mut(id) else { return Ok(unchanged_or(changed, "gone")) };
                let kill = matches!(sandbox.zone, ZoneState::Ready | ZoneState::Running | ZoneState::ShuttingDown);
                let survivors = if kill { kill_all(sandbox, now) } else { 0 };
                match &sandbox.zone {
                    ZoneState::Configured | ZoneState::Incomplete | ZoneState::Installed => {
                        return Ok(unchanged_or(changed, "halted"));
                    }
                    ZoneState::Ready | ZoneState::Running => sandbox.zone = ZoneState::ShuttingDown,
                    ZoneState::ShuttingDown if survivors > 0 => {
                        let message = format!("{survivors} processes can't be killed yet");
                        return Err(self.error(HostErrorKind::Busy, message));
                    }
                    ZoneState::ShuttingDown => sandbox.zone = ZoneState::Down,
                    ZoneState::Down | ZoneState::Mounted => {
                        sandbox.zone = ZoneState::Installed;
                        sandbox.started = None;
                    }
                    ZoneState::Unrecognised(state) => {
                        return Err(self.error(HostErrorKind::Other, format!("it is in the unknown state {state:?}")));
                    }
                }
            }
            changed = true;
            self.host.settle();
            self.step().await?;
        }
    }

    async fn destroy(&mut self, id: &SandboxId) -> HostResult<Change> {
        self.not_busy(id.as_str())?;
        if let Some(sandbox) = self.host.world().sandboxes().get(id)
            && let Some(live) = sandbox.live().next()
        {
            let message = format!("container {} still runs in it; stop it first", live.spec.name);
            return Err(self.error(HostErrorKind::InvalidState, message));
        }
        if self.nothing_done() {
            return Ok(Change::Changed("destroyed".into()));
        }
        let mut changed = false;
        loop {
            {
                let mut world = self.host.world();
                let Some(sandbox) = world.sandboxes_mut().get_mut(id) else {
                    return Ok(unchanged_or(changed, "destroyed"));
                };
                match &sandbox.zone {
                    ZoneState::Running | ZoneState::Ready => sandbox.zone = ZoneState::ShuttingDown,
                    ZoneState::ShuttingDown => sandbox.zone = ZoneState::Down,
                    ZoneState::Down | ZoneState::Mounted => sandbox.zone = ZoneState::Installed,
                    ZoneState::Installed | ZoneState::Incomplete => {
                        sandbox.instances.clear();
                        sandbox.zone = ZoneState::Configured;
                    }
                    // The mark goes last.
                    ZoneState::Configured => drop(world.sandboxes_mut().remove(id)),
                    ZoneState::Unrecognised(state) => {
                        return Err(self.error(HostErrorKind::Other, format!("it is in the unknown state {state:?}")));
                    }
                }
            }
            changed = true;
            self.step().await?;
        }
    }

    fn volume(&self, id: &SandboxId, volume: &VolumeName, spec: &VolumeSpec) -> HostResult<Change> {
        let mut world = self.host.world();
        let Some(sandbox) = world.sandboxes_mut().get_mut(id) else {
            return Err(self.error(HostErrorKind::NotFound, "no such sandbox"));
        };
        let Some(present) = sandbox.spec.volumes.get_mut(volume) else {
            return Err(self.error(HostErrorKind::NotFound, "the sandbox has no such volume"));
        };
        if !matches!((&*present, spec), (VolumeSpec::Files { .. }, VolumeSpec::Files { .. })) {
            return Err(self.error(HostErrorKind::InvalidSpec, "only a volume given by files can be updated"));
        }
        if let Err(message) = check_volume(spec) {
            return Err(self.error(HostErrorKind::InvalidSpec, message));
        }
        if present == spec {
            return Ok(Change::Unchanged);
        }
        if !self.nothing_done() {
            *present = spec.clone();
        }
        Ok(Change::Changed("files replaced".into()))
    }
}

fn unchanged_or(changed: bool, what: &str) -> Change {
    if changed { Change::Changed(what.into()) } else { Change::Unchanged }
}

/// Kills what still runs; returns how many could not be killed.
fn kill_all(sandbox: &mut Sandbox, now: Now) -> usize {
    let mut survivors = 0;
    for instance in sandbox.instances.values_mut().flat_map(|all| all.values_mut()).filter(|i| i.is_live()) {
        instance.note_stop(now, true);
        if !instance.signal(now, Signal::Sigkill) {
            survivors += 1;
        }
    }
    survivors
}

/// Rules for one volume.
fn check_volume(volume: &VolumeSpec) -> Result<(), String> {
    match volume {
        VolumeSpec::EmptyDir { .. } => Ok(()),
        VolumeSpec::HostPath { path, .. } if !path.is_absolute() => {
            Err(format!("host path {} is not absolute", path.display()))
        }
        VolumeSpec::Persistent { path } if !path.is_absolute() => {
            Err(format!("path {} of a persistent volume is not absolute", path.display()))
        }
        VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => Ok(()),
        VolumeSpec::Files { files, .. } => {
            let bad = files.keys().find(|f| {
                let parts = std::path::Path::new(f.as_str()).components();
                f.is_empty() || f.starts_with("..") || !parts.into_iter().all(|c| matches!(c, Component::Normal(_)))
            });
            bad.map_or(Ok(()), |f| Err(format!("file name {f:?} must be relative and without '..'")))
        }
    }
}

impl FakeHost {
    /// Tells everyone that a sandbox changed outside our calls.
    pub(super) fn sandbox_event(&self, id: &SandboxId) {
        self.shared.save(id);
        self.event(HostEvent::Sandbox(id.clone()));
    }
}

/// The same error for a sandbox that is not there.
pub(super) fn no_sandbox(call: &Call<'_>) -> HostError {
    call.error(HostErrorKind::NotFound, "no such sandbox")
}
