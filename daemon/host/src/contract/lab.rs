//! What a case works with: the host, things it made, and waiting.

use super::{Fixture, Outcome, Program, Stop};
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::observe::{Change, ContainerObserved, ContainerState, HostObservation, Observation, SandboxObserved};
use crate::spec::{ContainerSpec, SandboxSpec};
use crate::traits::{Host, HostEvent};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep, timeout};

/// How often to look again when no event says so.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Lab<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) host: Arc<dyn Host>,
    made: Mutex<Vec<SandboxId>>,
    images: Mutex<Vec<String>>,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) message: String,
}

impl<'a> Lab<'a> {
    pub(super) fn new(fixture: &'a dyn Fixture) -> Self {
        Self { fixture, host: fixture.host(), made: Mutex::default(), images: Mutex::default() }
    }

    /// Removes whatever the case made, insisting while something is busy.
    pub(super) async fn clean(&self) -> Outcome {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let images = std::mem::take(&mut *self.images.lock().unwrap_or_else(PoisonError::into_inner));
        // A restart put another handle in the place of the first one; either will do.
        let host = self.fixture.host();
        for id in made {
            self.insist(async || host.sandbox_stop(&id).await).await?;
            self.insist(async || host.sandbox_destroy(&id).await).await?;
        }
        for image in images {
            self.insist(async || host.image_remove(&image).await).await?;
        }
        Ok(())
    }

    /// Repeats a call while it says `Busy`, for as long as patience lasts.
    pub(super) async fn insist(&self, call: impl AsyncFn() -> HostResult<Change>) -> Outcome {
        let until = Instant::now() + self.fixture.patience();
        loop {
            match call().await {
                Err(error) if error.kind == HostErrorKind::Busy && Instant::now() < until => sleep(LOOK_AGAIN).await,
                other => return other.map(drop).map_err(Stop::from),
            }
        }
    }

    /// Has the sandbox removed at the end, whatever happens.
    pub(super) fn remember(&self, id: &SandboxId) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
    }

    /// Has the image name removed at the end.
    pub(super) fn remember_image(&self, name: &str) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).push(name.into());
    }

    /// A spec that is not carried out yet, but cleaned up later; the network is there.
    pub(super) async fn spec(&self) -> Result<SandboxSpec, Stop> {
        let _ = self.host.network_ensure(&self.fixture.network()).await?;
        let spec = self.fixture.sandbox();
        self.remember(&spec.id);
        Ok(spec)
    }

    /// A running sandbox.
    pub(super) async fn sandbox(&self) -> Result<SandboxSpec, Stop> {
        let spec = self.spec().await?;
        let _ = self.host.sandbox_ensure(&spec).await?;
        Ok(spec)
    }

    /// A container spec.
    pub(super) fn container(&self, sandbox: &SandboxSpec, name: &str, program: Program) -> ContainerSpec {
        self.fixture.container(sandbox, name, self.fixture.argv(program))
    }

    /// A running sandbox with one running container.
    pub(super) async fn running(&self, program: Program) -> Result<(SandboxSpec, ContainerSpec), Stop> {
        let sandbox = self.sandbox().await?;
        let container = self.container(&sandbox, "app", program);
        let _ = self.host.container_start(&sandbox.id, &container).await?;
        self.pid(&sandbox.id, &container).await?;
        Ok((sandbox, container))
    }

    /// An observation in which everything can be read.
    pub(super) async fn observe(&self) -> Result<HostObservation, Stop> {
        self.observe_on(self.host.as_ref()).await
    }

    pub(super) async fn observe_on(&self, host: &dyn Host) -> Result<HostObservation, Stop> {
        let seen = host.observe().await;
        let all = known(&seen.sandboxes, "the list of sandboxes")?;
        for (id, sandbox) in all {
            known(sandbox, id.as_str())?;
        }
        known(&seen.network, "the network")?;
        known(&seen.images, "the images")?;
        Ok(seen)
    }

    /// One sandbox as observed; `None` when it is not there.
    pub(super) async fn look(&self, id: &SandboxId) -> Result<Option<SandboxObserved>, Stop> {
        let seen = self.observe().await?;
        Ok(seen.sandboxes.known().and_then(|all| all.get(id)).and_then(Observation::known).cloned())
    }

    /// One sandbox that must be there.
    pub(super) async fn see(&self, id: &SandboxId) -> Result<SandboxObserved, Stop> {
        self.look(id).await?.ok_or_else(|| Stop::Broken(format!("{id} is not in the observation")))
    }

    /// One container instance; `None` when it is not there.
    pub(super) async fn instance(
        &self,
        id: &SandboxId,
        name: &ContainerName,
        attempt: u32,
    ) -> Result<Option<ContainerObserved>, Stop> {
        let seen = self.see(id).await?;
        let all = seen.containers.get(name).into_iter().flatten();
        Ok(all.into_iter().find(|c| c.spec.attempt == attempt).cloned())
    }

    /// The process id of a container that must run.
    pub(super) async fn pid(&self, id: &SandboxId, spec: &ContainerSpec) -> Result<u32, Stop> {
        match self.instance(id, &spec.name, spec.attempt).await?.map(|c| c.state) {
            Some(ContainerState::Running { pid, .. }) => Ok(pid),
            other => Err(Stop::Broken(format!("{} attempt {} should run, is {other:?}", spec.name, spec.attempt))),
        }
    }

    /// Waits for a container's end.
    pub(super) async fn end(&self, id: &SandboxId, spec: &ContainerSpec) -> Result<End, Stop> {
        let ended = |state: &ContainerState| match state {
            ContainerState::Exited { code, signal, message, .. } => {
                Some(End { code: *code, signal: *signal, message: message.clone() })
            }
            _ => None,
        };
        self.until(id, spec, "has not ended", ended).await
    }

    /// Waits until nobody knows what becomes of a container.
    pub(super) async fn lost(&self, id: &SandboxId, spec: &ContainerSpec) -> Outcome {
        self.until(id, spec, "is not lost", |state| matches!(state, ContainerState::Lost(_)).then_some(())).await
    }

    /// Waits until a container's state is one that something can be made of.
    async fn until<T>(
        &self,
        id: &SandboxId,
        spec: &ContainerSpec,
        otherwise: &str,
        make: impl Fn(&ContainerState) -> Option<T>,
    ) -> Result<T, Stop> {
        let mut events = self.host.events();
        let until = Instant::now() + self.fixture.patience();
        loop {
            let seen = self.instance(id, &spec.name, spec.attempt).await?;
            if let Some(made) = seen.as_ref().and_then(|c| make(&c.state)) {
                return Ok(made);
            }
            if Instant::now() >= until {
                return Err(Stop::Broken(format!("{} {otherwise}: {seen:?}", spec.name)));
            }
            let _ = timeout(LOOK_AGAIN, events.recv()).await;
        }
    }

    /// Waits for an event about a container.
    pub(super) async fn event(
        &self,
        events: &mut Receiver<HostEvent>,
        id: &SandboxId,
        name: &ContainerName,
    ) -> Outcome {
        let wanted = HostEvent::Container(id.clone(), name.clone());
        let found = timeout(self.fixture.patience(), async {
            loop {
                match events.recv().await {
                    Ok(event) if event == wanted || event == HostEvent::Everything => return,
                    // Lagging counts as "look at everything".
                    Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        found.await.map_err(|_| Stop::Broken(format!("no event about {id}/{name}")))
    }
}

/// Skips the case unless `able`.
pub(super) fn needs(able: bool, what: &str) -> Outcome {
    if able { Ok(()) } else { Err(Stop::Skipped(format!("needs {what}"))) }
}

/// Fails unless `condition`.
pub(super) fn holds(condition: bool, what: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(Stop::Broken(what.into())) }
}

/// Fails unless both are equal.
pub(super) fn same<T: PartialEq + Debug>(got: &T, wanted: &T, what: &str) -> Outcome {
    if got == wanted { Ok(()) } else { Err(Stop::Broken(format!("{what}: got {got:?}, wanted {wanted:?}"))) }
}

/// Fails unless the call failed with `kind`.
pub(super) fn refused<T>(result: HostResult<T>, kind: HostErrorKind, what: &str) -> Outcome {
    match result {
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(Stop::Broken(format!("{what}: wanted {kind:?}, got {:?}: {}", error.kind, error.chain()))),
        Ok(_) => Err(Stop::Broken(format!("{what}: wanted {kind:?}, but it was accepted"))),
    }
}

/// Fails unless the call changed something.
pub(super) fn changed(result: HostResult<Change>, what: &str) -> Outcome {
    match result? {
        Change::Changed(_) => Ok(()),
        Change::Unchanged => Err(Stop::Broken(format!("{what}: wanted Changed, got Unchanged"))),
    }
}

/// Fails unless the call found all as asked.
pub(super) fn unchanged(result: HostResult<Change>, what: &str) -> Outcome {
    match result? {
        Change::Unchanged => Ok(()),
        Change::Changed(how) => Err(Stop::Broken(format!("{what}: wanted Unchanged, got Changed({how:?})"))),
    }
}

fn known<'o, T>(observation: &'o Observation<T>, what: &str) -> Result<&'o T, Stop> {
    match observation {
        Observation::Known(value) => Ok(value),
        Observation::Unknown(why) => Err(Stop::Broken(format!("{what} can't be read: {why}"))),
    }
}
