//! Images: by content, in memory.

use super::call::{Call, mutation};
use super::journal::Asked;
use super::{FakeHost, Op, image_source};
use crate::error::{HostErrorKind, HostResult};
use crate::names::ImageId;
use crate::observe::{Change, ImageConfig, ImageInfo};
use crate::spec::ContainerImage;
use crate::traits::ImageStore;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

#[async_trait]
impl ImageStore for FakeHost {
    async fn image_import(&self, source: &Path, name: &str) -> HostResult<ImageInfo> {
        let record = mutation(self, Op::ImageImport, None, Asked::Name(name.into()));
        let call = self.begin(Op::ImageImport, name, Some(record)).await?;
        let path = source.to_owned();
        let read = tokio::task::spawn_blocking(move || image_source::read(&path)).await;
        let result = match read {
            Ok(Ok((id, size, config))) => Ok(call.import(id, size, config, name)),
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::NotFound => HostErrorKind::NotFound,
                    io::ErrorKind::InvalidData => HostErrorKind::InvalidSpec,
                    _ => HostErrorKind::Other,
                };
                Err(call.error(kind, source.display().to_string()).caused_by(error))
            }
            Err(error) => Err(call.error(HostErrorKind::Other, "reading broke off").caused_by(error)),
        };
        call.end_with(result, true).await
    }

    async fn image_list(&self) -> HostResult<Vec<ImageInfo>> {
        let call = self.begin(Op::ImageList, "images", None).await?;
        let mut images: Vec<ImageInfo> = self.world().machine.images.values().cloned().collect();
        images.sort_by(|a, b| a.names.cmp(&b.names));
        call.end_with(Ok(images), false).await
    }

    async fn image_remove(&self, name: &str) -> HostResult<Change> {
        let record = mutation(self, Op::ImageRemove, None, Asked::Name(name.into()));
        let call = self.begin(Op::ImageRemove, name, Some(record)).await?;
        let result = call.remove_image(name);
        call.end(result).await
    }
}

impl FakeHost {
    /// Puts an image into the store; its id follows from name and config.
    pub fn add_image(&self, name: &str, config: ImageConfig) -> ImageId {
        let text = format!("{name} {}", serde_json::to_string(&config).unwrap_or_default());
        let id = ImageId::of_digest(Sha256::digest(text.as_bytes()).into());
        self.insert_image(id.clone(), 1 << 20, config, name);
        self.shared.save_machine();
        id
    }

    fn insert_image(&self, id: ImageId, size_bytes: u64, config: ImageConfig, name: &str) -> ImageInfo {
        let mut world = self.world();
        for image in world.machine.images.values_mut() {
            image.names.retain(|n| n != name);
        }
        let info = world.machine.images.entry(id.clone()).or_insert_with(|| ImageInfo {
            id: id.clone(),
            names: Vec::new(),
            size_bytes,
            config,
        });
        info.names.push(name.to_owned());
        info.names.sort();
        let info = info.clone();
        // An image that lost its last name goes, unless a container needs it.
        let used: Vec<ImageId> = world
            .sandboxes()
            .values()
            .flat_map(|s| s.instances.values())
            .flatten()
            .filter_map(|(_, i)| match &i.spec.image {
                ContainerImage::Image { id } => Some(id.clone()),
                ContainerImage::Brand => None,
            })
            .collect();
        world.machine.images.retain(|id, image| !image.names.is_empty() || used.contains(id));
        info
    }
}

impl Call<'_> {
    fn import(&self, id: ImageId, size: u64, config: ImageConfig, name: &str) -> ImageInfo {
        if self.nothing_done() {
            return ImageInfo { id, names: vec![name.into()], size_bytes: size, config };
        }
        self.host.insert_image(id, size, config, name)
    }

    fn remove_image(&self, name: &str) -> HostResult<Change> {
        let mut world = self.host.world();
        let Some(info) = world.machine.images.values().find(|i| i.names.iter().any(|n| n == name)) else {
            return Ok(Change::Unchanged);
        };
        let (id, last) = (info.id.clone(), info.names.len() == 1);
        let user = world.sandboxes().values().find(|s| {
            let wanted = ContainerImage::Image { id: id.clone() };
            s.instances.values().flat_map(|all| all.values()).any(|i| i.spec.image == wanted)
        });
        if let Some(sandbox) = user.filter(|_| last) {
            return Err(self.error(HostErrorKind::Busy, format!("a container of {} uses it", sandbox.spec.id)));
        }
        if !self.nothing_done() {
            if last {
                world.machine.images.remove(&id);
            } else if let Some(info) = world.machine.images.get_mut(&id) {
                info.names.retain(|n| n != name);
            }
        }
        Ok(Change::Changed("removed".into()))
    }
}
