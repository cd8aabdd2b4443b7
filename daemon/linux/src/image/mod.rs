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
        import::import(&self.shared.options, source, name, &|| self.images_in_use()).await
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
        let locked = store.lock().await?;
        let removed = locked.remove_name(name, &self.images_in_use()?);
        store.sweep_later();
        removed
    }

    async fn image_pull(
        &self,
        request: &PullRequest,
        progress: &watch::Sender<PullProgress>,
    ) -> HostResult<PulledImage> {
        pull::pull(self, request, progress).await
    }

    async fn image_build(&self, wanted: &ImageBuild) -> HostResult<ImageInfo> {
        build::build(self, wanted).await
    }

    async fn image_collect(&self, images: &[ImageId]) -> HostResult<Vec<ImageId>> {
        let (host, images) = (self.clone(), images.to_vec());
        // A thousand images are some work: not on a thread that others wait for.
        let removal = tokio::task::spawn_blocking(move || {
            let store = Store::of(&host.shared.options);
            let locked = tokio::runtime::Handle::current().block_on(store.lock())?;
            let removed = locked.remove_images(&images, &host.images_in_use()?);
            store.sweep_later();
            removed
        });
        removal.await.unwrap_or_else(|e| {
            Err(HostError::new(HostErrorKind::Other, "collect images", "", "the task ended early").caused_by(e))
        })
    }
}
