//! [`Sandboxes`] for [`LinuxHost`]: file work on blocking threads, links and shims on the runtime.

use crate::container::{self, Begun};
use crate::files::io_error;
use crate::files_volume;
use crate::host::{LinuxHost, Shared};
use crate::image::store::Store;
use crate::link;
use crate::lock;
use crate::namespaces;
use crate::record::{ContainerDir, ShimFiles};
use crate::sandbox::{self, Prepared};
use crate::volumes;
use async_trait::async_trait;
use reddwarf_host::spec::{ContainerImage, ContainerSpec, Resources, SandboxSpec, Signal, VolumeSpec};
use reddwarf_host::{
    Change, ContainerName, HostError, HostErrorKind, HostEvent, HostResult, Note, SandboxId, Sandboxes, VolumeName,
};
use reddwarf_supervise::program::{PATIENCE, Report, heard};
use reddwarf_supervise::turns::Turn;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl LinuxHost {
    /// Runs file work on a blocking thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Shared) -> HostResult<T> + Send + 'static,
    ) -> HostResult<T> {
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(e) => Err(HostError::new(HostErrorKind::Other, op, "", "the work was interrupted").caused_by(e)),
        }
    }

    /// Waits until no other call works on this sandbox, a broken-off one included: what runs on a blocking thread goes
    /// on after its caller has gone, and must be over before the repeat begins.
    pub(crate) async fn turn(&self, id: &SandboxId) -> Turn {
        self.shared.turns.take(id).await
    }

    /// [`Self::blocking`] within a turn, which lasts until the work is over.
    async fn in_turn<T: Send + 'static>(
        &self,
        turn: &Turn,
        op: &'static str,
        work: impl FnOnce(&Shared) -> HostResult<T> + Send + 'static,
    ) -> HostResult<T> {
        let turn = turn.clone();
        self.blocking(op, move |shared| {
            let result = work(shared);
            drop(turn);
            result
        })
        .await
    }

    async fn has_link(&self, spec: &SandboxSpec) -> HostResult<bool> {
        if !namespaces::has_link(spec) {
            return Ok(false);
        }
        link::is_attached(&self.shared.options, &spec.id).await
    }

    /// Starts the shim and waits for its word.
    async fn run_shim(&self, dir: &ContainerDir, lock: std::fs::File, log: std::fs::File) -> HostResult<Report> {
        let exe = self.shared.paths.exe();
        let failed = |e| io_error("start shim", &exe, e);
        let (sender, receiver) = tokio::net::unix::pipe::pipe().map_err(failed)?;
        let report = sender.into_blocking_fd().map_err(failed)?;
        let mut command = own_program(&exe, "__shim", dir);
        command.stdin(Stdio::from(lock)).stdout(Stdio::from(report)).stderr(Stdio::from(log));
        // Not waited for: it outlives us; tokio collects it should it end first.
        let child = command.spawn().map_err(failed)?;
        drop(command);
        drop(child);
        heard(receiver, dir.path(), &dir.shim_log()).await
    }

    /// Waits for a shim that an earlier daemon started, to its records or its end; `false` when it ended without any.
    async fn await_records(&self, dir: &ContainerDir, lock_file: &Path, until: Instant) -> HostResult<bool> {
        while Instant::now() < until {
            let held = lock::is_held(lock_file).map_err(|e| io_error("look for shim", lock_file, e))?;
            if dir.is_started()? {
                return Ok(true);
            }
            if !held {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let message = "a shim that was started before is still making it";
        Err(HostError::new(HostErrorKind::Timeout, "start container", dir.path().display().to_string(), message))
    }
}

/// Our own program again, with no more of our environment than needed: none.
#[allow(clippy::disallowed_methods, reason = "not a tool whose output is awaited: it outlives the call")]
pub(crate) fn own_program(exe: &Path, part: &str, dir: &ContainerDir) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(exe);
    command.arg(part).arg(dir.path()).env_clear();
    command
}

#[async_trait]
impl Sandboxes for LinuxHost {
    async fn sandbox_ensure(&self, spec: &SandboxSpec) -> HostResult<Change> {
        let turn = self.turn(&spec.id).await;
        let has_link = self.has_link(spec).await?;
        let wanted = spec.clone();
        let prepared =
            self.in_turn(&turn, "make sandbox", move |shared| sandbox::prepare(shared, &wanted, has_link)).await?;
        match prepared {
            Prepared::Complete => return Ok(Change::Unchanged),
            Prepared::Resized => return Ok(Change::Changed("limits".to_owned())),
            Prepared::NeedsLink { netns: Some(netns) } => {
                let _ = link::attach(&self.shared.options, spec, &netns).await?;
            }
            Prepared::NeedsLink { netns: None } => {}
        }
        let id = spec.id.clone();
        self.in_turn(&turn, "make sandbox", move |shared| sandbox::finish(shared, &id)).await?;
        Ok(Change::Changed("made sandbox".to_owned()))
    }

    async fn sandbox_stop(&self, id: &SandboxId) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let wanted = id.clone();
        if !self.in_turn(&turn, "stop sandbox", move |shared| sandbox::stop(shared, &wanted)).await? {
            return Ok(Change::Unchanged);
        }
        let _ = link::detach(&self.shared.options, id).await?;
        let wanted = id.clone();
        self.in_turn(&turn, "stop sandbox", move |shared| sandbox::finish_stop(shared, &wanted)).await?;
        Ok(Change::Changed("stopped sandbox".to_owned()))
    }

    async fn sandbox_destroy(&self, id: &SandboxId) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let wanted = id.clone();
        let found = self
            .in_turn(&turn, "destroy sandbox", move |shared| {
                if sandbox::own_mark(shared, &wanted)?.is_none() {
                    return Ok(false);
                }
                sandbox::remove_parts(shared, &wanted)?;
                Ok(true)
            })
            .await?;
        if !found {
            return Ok(Change::Unchanged);
        }
        let _ = link::detach(&self.shared.options, id).await?;
        let wanted = id.clone();
        self.in_turn(&turn, "destroy sandbox", move |shared| sandbox::forget(shared, &wanted)).await?;
        Ok(Change::Changed("destroyed sandbox".to_owned()))
    }

    async fn volume_update(&self, id: &SandboxId, volume: &VolumeName, spec: &VolumeSpec) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let (id, volume, spec) = (id.clone(), volume.clone(), spec.clone());
        self.in_turn(&turn, "update volume", move |shared| update_volume(shared, &id, &volume, &spec)).await
    }

    async fn container_start(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let lock_file = self.shared.paths.run.lock(id, &spec.name, spec.attempt);
        let until = Instant::now() + PATIENCE;
        let (dir, lock, shim_log) = loop {
            let (wanted_id, wanted) = (id.clone(), spec.clone());
            let begun = self
                .in_turn(&turn, "start container", move |shared| container::begin(shared, &wanted_id, &wanted))
                .await?;
            match begun {
                Begun::Already => return Ok(Change::Unchanged),
                Begun::UnderWay(dir) => {
                    if self.await_records(&dir, &lock_file, until).await? {
                        return Ok(Change::Unchanged);
                    }
                }
                Begun::Ready { dir, lock, shim_log } => break (dir, lock, shim_log),
            }
        };
        if let Err(error) = container::clone_root(&self.shared, id, spec).await {
            drop(lock);
            let (wanted_id, name, attempt) = (id.clone(), spec.name.clone(), spec.attempt);
            self.in_turn(&turn, "start container", move |shared| {
                container::remove_instance(shared, &wanted_id, &name, attempt, &dir)
            })
            .await?;
            return Err(error);
        }
        let said = self.run_shim(&dir, lock, shim_log).await?;
        let (wanted_id, wanted) = (id.clone(), spec.clone());
        let change = self
            .in_turn(&turn, "start container", move |shared| {
                container::conclude(shared, &wanted_id, &wanted, &dir, said)
            })
            .await?;
        if let ContainerImage::Image { id } = &spec.image {
            Store::of(&self.shared.options).touch(id, self.shared.clock.wall());
        }
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
        let turn = self.turn(id).await;
        let (id, name) = (id.clone(), name.clone());
        self.in_turn(&turn, "signal container", move |shared| container::signal(shared, &id, &name, attempt, signal))
            .await
    }

    async fn container_note(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        note: Note,
    ) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let (id, name) = (id.clone(), name.clone());
        self.in_turn(&turn, "note", move |shared| {
            shared.paths.run.container(&id, &name, attempt).note(shared.clock.boot(), note)
        })
        .await
    }

    async fn container_update(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
        resources: &Resources,
    ) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let (id, name, resources) = (id.clone(), name.clone(), *resources);
        self.in_turn(&turn, "update container", move |shared| {
            container::update(shared, &id, &name, attempt, &resources)
        })
        .await
    }

    async fn container_remove(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
        let turn = self.turn(id).await;
        let (id, name) = (id.clone(), name.clone());
        self.in_turn(&turn, "remove container", move |shared| container::remove(shared, &id, &name, attempt)).await
    }
}

fn update_volume(shared: &Shared, id: &SandboxId, volume: &VolumeName, wanted: &VolumeSpec) -> HostResult<Change> {
    let Some(mut mark) = sandbox::own_mark(shared, id)? else {
        let subject = format!("{id}/{volume}");
        return Err(HostError::new(HostErrorKind::NotFound, "update volume", subject, "no such sandbox"));
    };
    let Some(files) = files_volume::replacement(&mark.spec, volume, wanted)? else { return Ok(Change::Unchanged) };
    volumes::update(&shared.paths, &mark.spec, volume, wanted, files)?;
    Arc::make_mut(&mut mark.spec).volumes.insert(volume.clone(), wanted.clone());
    sandbox::write_mark(shared, &mark.spec)?;
    Ok(Change::Changed("replaced files".to_owned()))
}
