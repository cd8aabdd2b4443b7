//! Carries out one step.

use crate::control_plane::{ControlPlane, ControlPlaneError, Promise};
use crate::plan::Op;
use reddwarf_host::{
    Change, Family, Host, HostError, HostErrorKind, ImageReference, PullProgress, PullRequest, ReferenceError,
};
use std::time::Duration;
use tokio::sync::watch;

/// A step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The host said no.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control plane said no.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// It did not return in time. What it did is not known.
    #[error("{op}: no answer within {} s; what it did will be observed", .limit.as_secs())]
    Deadline {
        /// The step.
        op: String,
        /// The time that it was given.
        limit: Duration,
    },
    /// It was said to be done, but nothing changed.
    #[error("{op}: the host says that it is done, but it is not")]
    NoEffect {
        /// The step.
        op: String,
    },
}

impl StepError {
    /// What to do about it.
    pub fn family(&self) -> Family {
        match self {
            Self::Host(e) => e.family(),
            Self::ControlPlane(_) | Self::Deadline { .. } | Self::NoEffect { .. } => Family::Transient,
        }
    }

    /// Whether what it did is not known.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Host(e) => e.kind == HostErrorKind::Timeout,
            Self::Deadline { .. } => true,
            Self::ControlPlane(_) | Self::NoEffect { .. } => false,
        }
    }

    /// All of it on one line.
    pub fn text(&self) -> String {
        match self {
            Self::Host(e) => e.chain(),
            other => other.to_string(),
        }
    }
}

/// Carries out one step; nothing is chosen here.
///
/// # Errors
/// [`StepError`].
pub async fn perform(
    host: &dyn Host,
    control: &dyn ControlPlane,
    op: &Op,
    limit: Duration,
) -> Result<Change, StepError> {
    let late = |_| StepError::Deadline { op: op.to_string(), limit };
    tokio::time::timeout(limit, dispatch(host, control, op)).await.map_err(late)?
}

async fn dispatch(host: &dyn Host, control: &dyn ControlPlane, op: &Op) -> Result<Change, StepError> {
    let promised = || Change::Changed("written".into());
    Ok(match op {
        Op::NetworkEnsure(spec) => host.network_ensure(spec).await?,
        Op::NetworkRemove => host.network_remove().await?,
        Op::LeftoverRemove(leftover) => host.leftover_remove(leftover).await?,
        Op::Reserve { pod, uid, addresses, rebuilt } => {
            let addresses = addresses.iter().copied().collect();
            let promise = Promise { uid: uid.clone(), pod: pod.clone(), addresses, rebuilt: *rebuilt };
            control.reserve(&promise).await?;
            promised()
        }
        Op::Release { uid, address } => {
            control.release(uid, *address).await?;
            promised()
        }
        Op::SandboxEnsure(spec) => host.sandbox_ensure(spec).await?,
        Op::SandboxStop(id) => host.sandbox_stop(id).await?,
        Op::SandboxDestroy(id) => host.sandbox_destroy(id).await?,
        Op::VolumeUpdate { sandbox, volume, spec } => host.volume_update(sandbox, volume, spec).await?,
        // The running node begins it and goes on (`pulls`); here it is waited for.
        Op::ImagePull { image, .. } => {
            let invalid = |e: ReferenceError| {
                HostError::new(HostErrorKind::InvalidSpec, "pull image", image.clone(), e.to_string())
            };
            let request =
                PullRequest { reference: ImageReference::parse(image).map_err(invalid)?, secrets: Vec::new() };
            let progress = watch::Sender::new(PullProgress::default());
            Change::Changed(host.image_pull(&request, &progress).await?.repo_digest)
        }
        Op::ContainerStart { sandbox, spec } => host.container_start(sandbox, spec).await?,
        Op::ContainerSignal { sandbox, container, attempt, signal } => {
            host.container_signal(sandbox, container, *attempt, *signal).await?
        }
        Op::ContainerNote { sandbox, container, attempt, note } => {
            host.container_note(sandbox, container, *attempt, *note).await?
        }
        Op::ContainerUpdate { sandbox, container, attempt, resources } => {
            host.container_update(sandbox, container, *attempt, resources).await?
        }
        Op::ContainerRemove { sandbox, container, attempt } => {
            host.container_remove(sandbox, container, *attempt).await?
        }
        Op::FinishDelete { pod, uid } => {
            control.finish_delete(pod, uid.as_str()).await?;
            promised()
        }
    })
}
