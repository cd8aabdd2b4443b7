//! Images: by content, in memory.

use super::call::{Call, mutation};
use super::journal::Asked;
use super::state::World;
use super::{FakeHost, Op, image_source};
use crate::build::{BuildContent, BuildFile, ImageBuild};
use crate::error::{HostErrorKind, HostResult};
use crate::names::ImageId;
use crate::observe::{Change, ContainerState, ImageConfig, ImageInfo};
use crate::pull::{PullProgress, PullRequest, PullSecret, PullStage, PulledImage};
use crate::reference::ImageReference;
use crate::spec::ContainerImage;
use crate::traits::ImageStore;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use tokio::sync::watch;

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

    async fn image_pull(
        &self,
        request: &PullRequest,
        progress: &watch::Sender<PullProgress>,
    ) -> HostResult<PulledImage> {
        let name = request.reference.to_string();
        let record = mutation(self, Op::ImagePull, None, Asked::Name(name.clone()));
        progress.send_modify(|p| p.stage = PullStage::Resolving);
        let call = self.begin(Op::ImagePull, &name, Some(record)).await?;
        let result = call.pull(&name, request);
        call.end_with(result, true).await
    }

    async fn image_build(&self, build: &ImageBuild) -> HostResult<ImageInfo> {
        let record = mutation(self, Op::ImageBuild, None, Asked::Name(build.name.clone()));
        let call = self.begin(Op::ImageBuild, build.name.as_str(), Some(record)).await?;
        let result = call.build(build);
        call.end_with(result, true).await
    }

    async fn image_collect(&self, images: &[ImageId]) -> HostResult<Vec<ImageId>> {
        let record = mutation(self, Op::ImageCollect, None, Asked::Plain);
        let call = self.begin(Op::ImageCollect, "images", Some(record)).await?;
        let gone = call.collect_images(images);
        call.end_with(Ok(gone), true).await
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
        self.insert_image(id.clone(), 1 << 20, config, name, None);
        self.shared.save_machine();
        id
    }

    /// Puts an image into the registry that the machine can reach, or another in its place. With `password`, only who
    /// shows a secret that holds it gets it.
    pub fn serve_image(&self, name: &str, config: ImageConfig, password: Option<&str>) {
        let full = ImageReference::parse(name).map_or_else(|_| name.to_owned(), |r| r.to_string());
        let served = Served { config, password: password.map(str::to_owned) };
        self.world().served.insert(full, served);
    }

    fn insert_image(
        &self,
        id: ImageId,
        size_bytes: u64,
        config: ImageConfig,
        name: &str,
        repo_digest: Option<String>,
    ) -> ImageInfo {
        let now = self.shared.clock.wall();
        let mut world = self.world();
        for image in world.machine.images.values_mut() {
            image.names.retain(|n| n != name);
            image.pulled.remove(name);
        }
        let info = world.machine.images.entry(id.clone()).or_insert_with(|| ImageInfo {
            id: id.clone(),
            names: Vec::new(),
            size_bytes,
            config,
            pulled: BTreeMap::new(),
            last_used: None,
        });
        info.names.push(name.to_owned());
        info.names.sort();
        info.pulled.extend(repo_digest.map(|digest| (name.to_owned(), digest)));
        info.last_used = Some(now);
        let info = info.clone();
        // An image that lost its last name goes, unless a container needs it.
        let used = world.images_in_use();
        world.machine.images.retain(|id, image| !image.names.is_empty() || used.contains(id));
        info
    }
}

/// An image in a registry.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    config: ImageConfig,
    password: Option<String>,
}

impl World {
    fn images_in_use(&self) -> BTreeSet<ImageId> {
        let instances = self.sandboxes().values().flat_map(|s| s.instances.values()).flatten();
        let images = instances.filter_map(|(_, i)| match &i.spec.image {
            ContainerImage::Image { id } => Some(id.clone()),
            ContainerImage::Brand => None,
        });
        images.collect()
    }
}

impl Call<'_> {
    fn import(&self, id: ImageId, size: u64, config: ImageConfig, name: &str) -> ImageInfo {
        if self.nothing_done() {
            let (pulled, last_used) = (BTreeMap::new(), None);
            return ImageInfo { id, names: vec![name.into()], size_bytes: size, config, pulled, last_used };
        }
        self.host.insert_image(id, size, config, name, None)
    }

    fn pull(&self, name: &str, request: &PullRequest) -> HostResult<PulledImage> {
        let Some(Served { config, password }) = self.host.world().served.get(name).cloned() else {
            return Err(self.error(HostErrorKind::NotFound, format!("{name}: not found")));
        };
        let shown = request.secrets.iter().map(|secret| match secret {
            PullSecret::DockerConfigJson(bytes) | PullSecret::DockerCfg(bytes) => bytes.expose(),
        });
        let knows = |password: &String| shown.into_iter().any(|s| String::from_utf8_lossy(s).contains(password));
        if !password.as_ref().is_none_or(knows) {
            return Err(self.error(HostErrorKind::Denied, "401: credentials are needed"));
        }
        let text = format!("{} {}", request.reference.repository(), serde_json::to_string(&config).unwrap_or_default());
        let id = ImageId::of_digest(Sha256::digest(text.as_bytes()).into());
        let repo_digest = format!("{}@{id}", request.reference.name());
        let fetched = !self.host.world().machine.images.contains_key(&id);
        if !self.nothing_done() {
            self.host.insert_image(id.clone(), 1 << 20, config, name, Some(repo_digest.clone()));
        }
        Ok(PulledImage { id, repo_digest, size_bytes: 1 << 20, fetched })
    }

    /// What a container did to its files is told by what it ran.
    fn build(&self, build: &ImageBuild) -> HostResult<ImageInfo> {
        let mut hash = Sha256::new();
        let mut size = 0;
        let below = match &build.content {
            BuildContent::Files { base, files } => {
                self.hash_files(base.as_ref(), files, &mut hash, &mut size)?;
                base.clone()
            }
            BuildContent::Container { sandbox, name, attempt } => {
                let world = self.host.world();
                let instances = world.sandboxes().get(sandbox).and_then(|s| s.instances.get(name));
                let Some(instance) = instances.and_then(|all| all.get(attempt)) else {
                    return Err(self.error(HostErrorKind::NotFound, format!("{sandbox} has no instance of {name}")));
                };
                if !matches!(instance.state, ContainerState::Exited { .. }) {
                    return Err(self.error(HostErrorKind::InvalidState, format!("{name} has not ended")));
                }
                let ContainerImage::Image { id } = &instance.spec.image else {
                    return Err(self.error(HostErrorKind::InvalidSpec, format!("{name} has no image")));
                };
                hash.update(instance.spec.argv.join("\0"));
                Some(id.clone())
            }
        };
        if let Some(id) = &below {
            let world = self.host.world();
            let Some(image) = world.machine.images.get(id) else {
                return Err(self.error(HostErrorKind::NotFound, format!("there is no image {id}")));
            };
            size += image.size_bytes;
            hash.update(id.as_str());
        }
        hash.update(serde_json::to_string(&build.config).unwrap_or_default());
        Ok(self.import(ImageId::of_digest(hash.finalize().into()), size, build.config.clone(), &build.name))
    }

    fn hash_files(
        &self,
        base: Option<&ImageId>,
        files: &[BuildFile],
        hash: &mut Sha256,
        size: &mut u64,
    ) -> HostResult<()> {
        if base.is_none() && files.is_empty() {
            return Err(self.error(HostErrorKind::InvalidSpec, "there is nothing to put into it"));
        }
        for file in files {
            if !file.target.starts_with('/') {
                let message = format!("{:?} is no absolute path", file.target);
                return Err(self.error(HostErrorKind::InvalidSpec, message));
            }
            hash.update(&file.target);
            image_source::add(&file.source, hash, size).map_err(|e| {
                let kind = match e.kind() {
                    io::ErrorKind::NotFound => HostErrorKind::NotFound,
                    _ => HostErrorKind::Other,
                };
                self.error(kind, file.source.display().to_string()).caused_by(e)
            })?;
        }
        Ok(())
    }

    fn collect_images(&self, images: &[ImageId]) -> Vec<ImageId> {
        if self.nothing_done() {
            return Vec::new();
        }
        let mut world = self.host.world();
        let used = world.images_in_use();
        let gone: Vec<ImageId> =
            images.iter().filter(|id| !used.contains(*id) && world.machine.images.contains_key(*id)).cloned().collect();
        gone.iter().for_each(|id| drop(world.machine.images.remove(id)));
        gone
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
                info.pulled.remove(name);
            }
        }
        Ok(Change::Changed("removed".into()))
    }
}
