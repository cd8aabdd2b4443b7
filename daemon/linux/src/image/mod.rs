//! The image store: images by content, their layers unpacked, their names.
//!
//! `LinuxHost::images_in_use` names the images that must stay.

mod build;
mod crash;
mod import;
mod pull;
pub(crate) mod store;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "waits for the real machine, no longer than a deadline")]
mod tests;

use crate::host::LinuxHost;
pub(crate) use import::flatten;
pub(crate) use pull::blobs_dir;

use async_trait::async_trait;
use reddwarf_host::{
    Change, HostError, HostErrorKind, HostResult, ImageBuild, ImageId, ImageInfo, ImageStore, PullProgress,
    PullRequest, PulledImage,
};
use std::path::Path;
use store::Store;
use tokio::sync::watch;

#[async_trait]
impl ImageStore for LinuxHost {
    async fn image_import(&self, source: &Path, name: &str) -> HostResult<ImageInfo> {
        let info = import::import(&self.shared.options, source, name, &|| self.images_in_use()).await?;
        self.imported(&info.id).await;
        Ok(info)
    }

    async fn image_list(&self) -> HostResult<Vec<ImageInfo>> {
        let store = Store::of(&self.shared.options);
        tokio::task::spawn_blocking(move || store.list()).await.unwrap_or_else(|e| {
            Err(HostError::new(HostErrorKind::Other, "list images", "", "the task ended early").caused_by(e))
        })
    }

    async fn image_remove(&self, name: &str) -> HostResult<Change> {
        let store = Store::of(&self.shared.options);
        // Looked up under the lock: a container may have been started while we waited for it.
        let locked = store.lock_to_remove().await?;
        let removed = locked.remove_name(name, &self.images_in_use()?);
        store.sweep_later();
        self.tidy_roots_later();
        removed
    }

    async fn image_pull(
        &self,
        request: &PullRequest,
        progress: &watch::Sender<PullProgress>,
    ) -> HostResult<PulledImage> {
        let pulled = pull::pull(self, request, progress).await?;
        self.imported(&pulled.id).await;
        Ok(pulled)
    }

    async fn image_build(&self, wanted: &ImageBuild) -> HostResult<ImageInfo> {
        let info = build::build(self, wanted).await?;
        self.imported(&info.id).await;
        Ok(info)
    }

    async fn image_collect(&self, images: &[ImageId]) -> HostResult<Vec<ImageId>> {
        let (host, images) = (self.clone(), images.to_vec());
        // A thousand images are some work: not on a thread that others wait for.
        let removal = tokio::task::spawn_blocking(move || {
            let store = Store::of(&host.shared.options);
            let locked = tokio::runtime::Handle::current().block_on(store.lock_to_remove())?;
            let removed = locked.remove_images(&images, &host.images_in_use()?);
            store.sweep_later();
            host.tidy_roots_later();
            removed
        });
        removal.await.unwrap_or_else(|e| {
            Err(HostError::new(HostErrorKind::Other, "collect images", "", "the task ended early").caused_by(e))
        })
    }
}

impl LinuxHost {
    /// Gives an image that was just taken in what its containers' roots are cloned from. The one that had its name before
    /// may be gone.
    async fn imported(&self, id: &ImageId) {
        let Some(roots) = &self.shared.roots else { return };
        self.tidy_roots_later();
        if let Err(error) = roots.import(&self.shared.options, id).await {
            // The image itself is whole: its first container tries again, and waits with the reason.
            tracing::warn!(image = %id, error = error.chain(), "the image has no dataset yet");
        }
    }
}
