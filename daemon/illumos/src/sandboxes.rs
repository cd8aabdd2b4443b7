//! [`Sandboxes`] for [`IllumosHost`]: one call at a time for each sandbox.

use crate::host::IllumosHost;
use crate::{container, sandbox, volumes};
use async_trait::async_trait;
use reddwarf_host::spec::{ContainerSpec, Resources, SandboxSpec, Signal, VolumeSpec};
use reddwarf_host::{
    Change, ContainerName, HostError, HostErrorKind, HostEvent, HostResult, Note, SandboxId, Sandboxes, VolumeName,
};
use reddwarf_supervise::files::io_error;
use reddwarf_supervise::files_volume;

#[async_trait]
impl Sandboxes for IllumosHost {
    async fn sandbox_ensure(&self, spec: &SandboxSpec) -> HostResult<Change> {
        let _turn = self.shared.turns.take(&spec.id).await;
        sandbox::ensure(&self.shared, spec).await
    }

    async fn sandbox_stop(&self, id: &SandboxId) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        sandbox::stop(&self.shared, id).await
    }

    async fn sandbox_destroy(&self, id: &SandboxId) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        sandbox::destroy(&self.shared, id).await
    }

    async fn volume_update(&self, id: &SandboxId, volume: &VolumeName, spec: &VolumeSpec) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        let fail = |kind, message: &str| Err(HostError::new(kind, "update volume", format!("{id}/{volume}"), message));
        let Some(mut mark) = sandbox::own_mark(&self.shared, id)? else {
            return fail(HostErrorKind::NotFound, "no such sandbox");
        };
        let Some(files) = files_volume::replacement(&mark.spec, volume, spec)? else { return Ok(Change::Unchanged) };
        if let Some(dir) = volumes::location(&self.shared, id, volume, spec) {
            let (files, group) = (files.clone(), mark.spec.fs_group);
            let to = dir.clone();
            // It waits a moment for readers of the old set.
            let written = tokio::task::spawn_blocking(move || files_volume::write(&to, &files, group)).await;
            match written {
                Ok(done) => done.map_err(|e| io_error("update volume", &dir, e))?,
                Err(_) => return fail(HostErrorKind::Other, "the work was interrupted"),
            }
        }
        mark.spec.volumes.insert(volume.clone(), spec.clone());
        sandbox::write_mark(&self.shared, &mark.spec)?;
        Ok(Change::Changed("replaced files".to_owned()))
    }

    async fn container_start(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        let change = container::start(&self.shared, id, spec).await?;
        // Nobody may be listening.
        let _ = self.shared.events.send(HostEvent::Container(id.clone(), spec.name.clone()));
        Ok(change)
    }

    async fn container_signal(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        signal: Signal,
    ) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        container::signal(&self.shared, id, name, attempt, signal).await
    }

    async fn container_note(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        note: Note,
    ) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        self.shared.paths.run.container(id, name, attempt).note(self.shared.clock.boot(), note)
    }

    async fn container_update(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        resources: &Resources,
    ) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        container::update(&self.shared, id, name, attempt, resources).await
    }

    async fn container_remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
        let _turn = self.shared.turns.take(id).await;
        container::remove(&self.shared, id, name, attempt).await
    }
}
