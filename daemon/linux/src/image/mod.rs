//! The image store. `LinuxHost::images_in_use` names the images that must stay.

pub(crate) mod store;

use crate::host::{LinuxHost, unwritten};
use async_trait::async_trait;
use reddwarf_host::{Change, HostResult, ImageInfo, ImageStore};
use std::path::Path;

#[async_trait]
impl ImageStore for LinuxHost {
    async fn image_import(&self, _source: &Path, _name: &str) -> HostResult<ImageInfo> {
        Err(unwritten("image"))
    }

    async fn image_list(&self) -> HostResult<Vec<ImageInfo>> {
        Err(unwritten("image"))
    }

    async fn image_remove(&self, _name: &str) -> HostResult<Change> {
        Err(unwritten("image"))
    }
}
