//! What can be asked of the node about images.

use super::{NodeError, NodeHandle};
use crate::images::{self, Collected};
use crate::key::PodKey;
use crate::pulls::{self, Transfer};
use crate::run::Work;
use crate::state::sandbox_of;
use reddwarf_host::{BuildContent, Change, ImageBuild, ImageConfig, ImageInfo, ImageReference, PullRequest};
use serde::Serialize;
use std::path::Path;

/// A pull for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullView {
    /// The image in full.
    pub image: String,
    /// `waiting`, `resolving`, `fetching`, `unpacking`, `pulled`, `failed`.
    pub state: String,
    /// Bytes that are here of those that are to be fetched.
    pub bytes_done: u64,
    /// Bytes that are to be fetched.
    pub bytes_total: u64,
    /// Layers that are unpacked.
    pub layers_done: u32,
    /// Layers in all.
    pub layers_total: u32,
    /// Once it succeeded: `registry/repository@sha256:…`.
    pub repo_digest: Option<String>,
    /// Once it succeeded: its size in the registry.
    pub size_bytes: Option<u64>,
    /// Once it succeeded: whether anything had to be fetched.
    pub fetched: Option<bool>,
    /// Once it ended: milliseconds from its turn on.
    pub took_milliseconds: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl PullView {
    fn of(transfer: &Transfer) -> Self {
        let progress = *transfer.progress.borrow();
        let outcome = transfer.outcome.borrow().clone();
        let image = outcome.as_ref().and_then(|o| o.result.as_ref().ok());
        let error = outcome.as_ref().and_then(|o| o.result.as_ref().err());
        let state = match (image, error) {
            (Some(_), _) => "pulled",
            (_, Some(_)) => "failed",
            _ => progress.stage.as_str(),
        };
        Self {
            image: transfer.request.reference.to_string(),
            state: state.to_owned(),
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            layers_done: progress.layers_done,
            layers_total: progress.layers_total,
            repo_digest: image.map(|i| i.repo_digest.clone()),
            size_bytes: image.map(|i| i.size_bytes),
            fetched: image.map(|i| i.fetched),
            took_milliseconds: outcome.as_ref().map(|o| u64::try_from(o.took.as_millis()).unwrap_or(u64::MAX)),
            error: error.map(|e| e.message.clone()),
        }
    }
}

impl NodeHandle {
    /// Images of the host, by name.
    ///
    /// # Errors
    /// `Host`.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, NodeError> {
        Ok(self.shared.host.image_list().await?)
    }

    /// Imports an image and looks at the pods that may have waited for it.
    ///
    /// # Errors
    /// `Host`.
    pub async fn image_import(&self, source: &Path, name: &str) -> Result<ImageInfo, NodeError> {
        let info = self.shared.host.image_import(source, name).await?;
        self.shared.enqueue(Work::Host, self.shared.now());
        Ok(info)
    }

    /// Makes an image of files, or of another image with another config.
    ///
    /// # Errors
    /// `Host`.
    pub async fn image_build(&self, build: &ImageBuild) -> Result<ImageInfo, NodeError> {
        let info = self.shared.host.image_build(build).await?;
        self.shared.enqueue(Work::Host, self.shared.now());
        Ok(info)
    }

    /// Makes an image of what a container that has ended left: its image and what it changed.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it has not ended, `Host`.
    pub async fn image_commit(
        &self,
        pod: &PodKey,
        container: &str,
        config: ImageConfig,
        name: &str,
    ) -> Result<ImageInfo, NodeError> {
        let observed = self.shared.observer.fresh().await;
        let spec = self.instance(&observed, pod, container, false)?;
        let sandbox = {
            let state = self.shared.state();
            let intent = state.desired.pods.get(pod);
            let intent = intent.ok_or_else(|| NodeError::NotFound(format!("there is no pod {pod}")))?;
            sandbox_of(&observed, intent, &state.reservations).map(|s| s.spec.id.clone())
        };
        let sandbox = sandbox.ok_or_else(|| NodeError::Conflict(format!("nothing is left of pod {pod}")))?;
        let content = BuildContent::Container { sandbox, name: spec.name, attempt: spec.attempt };
        self.image_build(&ImageBuild { content, config, name: name.to_owned() }).await
    }

    /// Begins to pull an image, or joins the pull that is under way. How far it is, [`NodeHandle::image_pulls`] tells.
    ///
    /// # Errors
    /// `BadRequest` for what is no reference.
    pub fn image_pull(&self, name: &str) -> Result<PullView, NodeError> {
        let reference = ImageReference::parse(name).map_err(|e| NodeError::BadRequest(e.to_string()))?;
        let transfer = pulls::begin(&self.shared, PullRequest { reference, secrets: Vec::new() });
        Ok(PullView::of(&transfer))
    }

    /// Pulls under way and lately ended, the newest last.
    pub fn image_pulls(&self) -> Vec<PullView> {
        self.shared.pulls.list().iter().map(PullView::of).collect()
    }

    /// Removes images that no container was started from; with `imported` those too that a person put here.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn image_prune(&self, imported: bool) -> Result<Collected, NodeError> {
        let observed = self.shared.observer.fresh().await;
        let free: Vec<_> = images::collectable(&observed, imported).iter().map(|i| i.id.clone()).collect();
        images::remove(&self.shared, &observed, &free).await.map_err(NodeError::Unavailable)
    }

    /// Removes an image's name.
    ///
    /// # Errors
    /// `Host`.
    pub async fn image_remove(&self, name: &str) -> Result<Change, NodeError> {
        Ok(self.shared.host.image_remove(name).await?)
    }
}
