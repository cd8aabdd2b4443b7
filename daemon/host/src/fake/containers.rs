//! Containers: start, signal, update, remove.

use super::call::{Call, instance_mutation};
use super::journal::Asked;
use super::sandboxes::no_sandbox;
use super::state::{Instance, World, ZoneState};
use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::observe::{Change, ContainerState, Note};
use crate::spec::{ContainerImage, ContainerSpec, ProcessView, Resources, Seccomp, Signal, UserSpec};
use crate::traits::HostEvent;
use std::path::{Component, Path};

/// capabilities(7), without `CAP_`.
const CAPABILITIES: &str = "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE \
    MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN \
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG \
    WAKE_ALARM";

impl FakeHost {
    pub(super) async fn start(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
        let which = (&spec.name, spec.attempt);
        let asked = Asked::Container(Box::new(spec.clone()));
        let record = instance_mutation(self, Op::ContainerStart, id, which, asked);
        let mut call = self.begin(Op::ContainerStart, format!("{id}/{}", spec.name), Some(record)).await?;
        let result = call.start(id, spec).await;
        call.end(result).await
    }

    pub(super) async fn send_signal(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        signal: Signal,
    ) -> HostResult<Change> {
        let record = instance_mutation(self, Op::ContainerSignal, id, (name, attempt), Asked::Signal(signal));
        let call = self.begin(Op::ContainerSignal, format!("{id}/{name}"), Some(record)).await?;
        let result = Ok(call.signal(id, name, attempt, signal));
        call.end(result).await
    }

    pub(super) async fn note(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        note: Note,
    ) -> HostResult<Change> {
        let record = instance_mutation(self, Op::ContainerNote, id, (name, attempt), Asked::Note(note));
        let call = self.begin(Op::ContainerNote, format!("{id}/{name}"), Some(record)).await?;
        let result = Ok(call.note(id, name, attempt, note));
        call.end(result).await
    }

    pub(super) async fn update(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        resources: &Resources,
    ) -> HostResult<Change> {
        let record = instance_mutation(self, Op::ContainerUpdate, id, (name, attempt), Asked::Resources(*resources));
        let call = self.begin(Op::ContainerUpdate, format!("{id}/{name}"), Some(record)).await?;
        let result = call.update(id, name, attempt, resources);
        call.end(result).await
    }

    pub(super) async fn remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
        let record = instance_mutation(self, Op::ContainerRemove, id, (name, attempt), Asked::Plain);
        let call = self.begin(Op::ContainerRemove, format!("{id}/{name}"), Some(record)).await?;
        let result = call.remove(id, name, attempt);
        call.end(result).await
    }
}

impl Call<'_> {
    async fn start(&mut self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
        {
            let mut world = self.host.world();
            if let Some(present) = world.sandboxes().get(id).and_then(|s| s.instance(&spec.name, spec.attempt))
                && present.state != ContainerState::Creating
            {
                return Ok(Change::Unchanged);
            }
            self.check_start(&world, id, spec)?;
            if self.nothing_done() {
                return Ok(Change::Changed("started".into()));
            }
            let Some(sandbox) = world.sandboxes_mut().get_mut(id) else { return Err(no_sandbox(self)) };
            let script = self.host.script_for(&sandbox.spec, spec);
            let instances = sandbox.instances.entry(spec.name.clone()).or_default();
            instances.insert(spec.attempt, Instance::creating(spec.clone(), script));
        }
        self.step().await?;
        {
            let now = self.host.now();
            let mut world = self.host.world();
            let pid = world.next_pid();
            let sandbox = world.sandboxes_mut().get_mut(id).filter(|s| s.zone == ZoneState::Running);
            let Some(instance) = sandbox.and_then(|s| s.instance_mut(&spec.name, spec.attempt)) else {
                return Err(self.error(HostErrorKind::InvalidState, "the sandbox went down meanwhile"));
            };
            instance.start(now, pid);
        }
        self.host.event(HostEvent::Container(id.clone(), spec.name.clone()));
        self.step().await?;
        Ok(Change::Changed("started".into()))
    }

    fn check_start(&self, world: &World, id: &SandboxId, spec: &ContainerSpec) -> HostResult<()> {
        let error = |kind, message: String| Err(self.error(kind, message));
        let Some(sandbox) = world.sandboxes().get(id) else { return Err(no_sandbox(self)) };
        if sandbox.zone != ZoneState::Running {
            return error(HostErrorKind::InvalidState, format!("the sandbox is not up but {:?}", sandbox.zone));
        }
        let others = sandbox.instances.get(&spec.name).into_iter().flatten();
        for (attempt, other) in others.filter(|(attempt, _)| **attempt != spec.attempt) {
            if other.is_live() {
                return error(HostErrorKind::InvalidState, format!("attempt {attempt} has not ended"));
            }
            if *attempt > spec.attempt {
                return error(HostErrorKind::InvalidState, format!("attempt {attempt} was started already"));
            }
        }
        if let ContainerImage::Image { id } = &spec.image
            && !world.machine.images.contains_key(id)
        {
            return error(HostErrorKind::NotFound, format!("image {id} is not in the store"));
        }
        if let Err(message) = self.check_process(spec) {
            return error(HostErrorKind::InvalidSpec, message);
        }
        if spec.processes == ProcessView::Sandbox && !sandbox.spec.share_processes {
            return error(HostErrorKind::InvalidSpec, "the sandbox was not made to share processes".into());
        }
        if let Some(mount) = spec.mounts.iter().find(|m| !sandbox.spec.volumes.contains_key(&m.volume)) {
            return error(HostErrorKind::InvalidSpec, format!("the sandbox has no volume {}", mount.volume));
        }
        let outside = |path: &str| Path::new(path).components().any(|c| !matches!(c, Component::Normal(_)));
        if let Some(mount) = spec.mounts.iter().find(|m| outside(&m.sub_path) || !m.target.starts_with('/')) {
            let message = format!("mount of {} at {:?}, sub path {:?}", mount.volume, mount.target, mount.sub_path);
            return error(HostErrorKind::InvalidSpec, message);
        }
        let running = world.sandboxes().values().flat_map(|s| s.live()).count();
        let limit = self.host.shared.options.max_containers;
        if running >= limit {
            return error(HostErrorKind::Exhausted, format!("the host has room for {limit} containers"));
        }
        Ok(())
    }

    fn check_process(&self, spec: &ContainerSpec) -> Result<(), String> {
        if spec.argv.is_empty() {
            return Err("argv is empty".into());
        }
        if let UserSpec::Named { user, .. } = &spec.user {
            for part in user.splitn(2, ':') {
                let known = self.host.shared.options.users.iter().any(|u| u == part);
                if !known && part.parse::<u32>().is_err() {
                    return Err(format!("the image has no user or group {part:?}"));
                }
            }
        }
        if let Some(Seccomp::Localhost(name)) = &spec.security.seccomp
            && !self.host.shared.options.seccomp_profiles.contains(name)
        {
            let path = format!("/var/lib/reddwarf/seccomp/{name}");
            return Err(format!("cannot load seccomp profile \"{path}\": open {path}: no such file or directory"));
        }
        let named = spec.security.cap_add.iter().chain(&spec.security.cap_drop);
        match named.into_iter().find(|c| !CAPABILITIES.split_whitespace().any(|known| known == *c)) {
            Some(unknown) => Err(format!("there is no capability {unknown:?}")),
            None => Ok(()),
        }
    }

    fn signal(&self, id: &SandboxId, name: &ContainerName, attempt: u32, signal: Signal) -> Change {
        let now = self.host.now();
        let mut world = self.host.world();
        let instance = world.sandboxes_mut().get_mut(id).and_then(|s| s.instance_mut(name, attempt));
        let kill = signal == Signal::Sigkill;
        // Nobody delivers anything else to what is lost.
        let Some(instance) = instance.filter(|i| i.is_live() && (kill || !i.is_lost())) else {
            return Change::Unchanged;
        };
        if !self.nothing_done() {
            if (kill || signal == instance.spec.stop_signal) && !instance.is_lost() {
                instance.note_stop(now, kill);
            }
            instance.signal(now, signal);
        }
        Change::Changed(format!("sent {signal}"))
    }

    fn note(&self, id: &SandboxId, name: &ContainerName, attempt: u32, note: Note) -> Change {
        let now = self.host.now();
        let mut world = self.host.world();
        let instance = world.sandboxes_mut().get_mut(id).and_then(|s| s.instance_mut(name, attempt));
        let Some(instance) = instance.filter(|i| i.is_live()) else { return Change::Unchanged };
        let changed = self.nothing_done() || instance.note(now, note);
        if changed { Change::Changed("noted".into()) } else { Change::Unchanged }
    }

    fn update(&self, id: &SandboxId, name: &ContainerName, attempt: u32, resources: &Resources) -> HostResult<Change> {
        let mut world = self.host.world();
        let instance = world.sandboxes_mut().get_mut(id).and_then(|s| s.instance_mut(name, attempt));
        let Some(instance) = instance else {
            return Err(self.error(HostErrorKind::NotFound, format!("no attempt {attempt} of this container")));
        };
        if !instance.is_running() {
            return Err(self.error(HostErrorKind::InvalidState, "it does not run"));
        }
        if instance.spec.resources == *resources {
            return Ok(Change::Unchanged);
        }
        let used = instance.memory_bytes();
        if resources.memory_limit_bytes.is_some_and(|limit| limit < used) {
            return Err(self.error(HostErrorKind::Busy, format!("it uses {used} bytes, more than the new limit")));
        }
        if !self.nothing_done() {
            instance.spec.resources = *resources;
        }
        Ok(Change::Changed("limits changed".into()))
    }

    fn remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
        self.not_busy(&self.subject)?;
        let mut world = self.host.world();
        let Some(sandbox) = world.sandboxes_mut().get_mut(id) else { return Ok(Change::Unchanged) };
        match sandbox.instance(name, attempt) {
            None => return Ok(Change::Unchanged),
            Some(instance) if instance.is_live() => {
                return Err(self.error(HostErrorKind::InvalidState, "it has not ended; stop it first"));
            }
            Some(_) if self.nothing_done() => return Ok(Change::Changed("removed".into())),
            Some(_) => {}
        }
        if let Some(instances) = sandbox.instances.get_mut(name) {
            if let Some(gone) = instances.remove(&attempt)
                && self.host.shared.options.write_logs
            {
                super::disk::remove_logs(&gone.spec.log);
            }
            if instances.is_empty() {
                sandbox.instances.remove(name);
            }
        }
        Ok(Change::Changed("removed".into()))
    }
}
