//! Images: by content, in memory. A root file system directory or an OCI layout is read for its digest and its
//! config; an archive for its digest alone (its config stays empty: the simulation unpacks nothing).

use super::call::{Call, mutation};
use super::journal::Asked;
use super::{FakeHost, Op};
use crate::error::{HostErrorKind, HostResult};
use crate::names::ImageId;
use crate::observe::{Change, ImageConfig, ImageInfo};
use crate::spec::ContainerImage;
use crate::traits::ImageStore;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

#[async_trait]
impl ImageStore for FakeHost {
    async fn image_import(&self, source: &Path, name: &str) -> HostResult<ImageInfo> {
        let record = mutation(self, Op::ImageImport, None, Asked::Name(name.into()));
        let call = self.begin(Op::ImageImport, name, Some(record)).await?;
        let path = source.to_owned();
        let read = tokio::task::spawn_blocking(move || read_source(&path)).await;
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
            .sandboxes
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
        let user = world.sandboxes.values().find(|s| {
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

fn read_source(path: &Path) -> io::Result<(ImageId, u64, ImageConfig)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    if path.metadata()?.is_dir() {
        hash_tree(path, path, &mut hash, &mut size)?;
        let config = if path.join("oci-layout").is_file() { layout_config(path)? } else { ImageConfig::default() };
        return Ok((ImageId::of_digest(hash.finalize().into()), size, config));
    }
    let mut start = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut start)?;
    let is_tar = start.get(257..262) == Some(b"ustar".as_slice());
    if !is_tar && !start.starts_with(&[0x1f, 0x8b]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "neither a directory nor a tar or tar.gz archive"));
    }
    hash_file(path, &mut hash, &mut size)?;
    Ok((ImageId::of_digest(hash.finalize().into()), size, ImageConfig::default()))
}

fn hash_file(path: &Path, hash: &mut Sha256, size: &mut u64) -> io::Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 64 * 1024]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        *size += n as u64;
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

/// Relative names and contents in order of name. Symbolic links by their target.
fn hash_tree(root: &Path, at: &Path, hash: &mut Sha256, size: &mut u64) -> io::Result<()> {
    let mut entries: Vec<_> = at.read_dir()?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.strip_prefix(root).unwrap_or(&path);
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        if kind.is_dir() {
            hash_tree(root, &path, hash, size)?;
        } else if kind.is_symlink() {
            hash.update(path.read_link()?.as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            hash_file(&path, hash, size)?;
        }
    }
    Ok(())
}

/// The config of an OCI image layout's first manifest (image-layout.md of the OCI image spec).
fn layout_config(root: &Path) -> io::Result<ImageConfig> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("OCI layout: {what}"));
    let read = |path: &Path| -> io::Result<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(path)?).map_err(|e| bad(&format!("{}: {e}", path.display())))
    };
    let blob = |value: &serde_json::Value, at: &str| -> io::Result<serde_json::Value> {
        let digest = value.pointer(at).and_then(|d| d.as_str()).unwrap_or_default();
        let id = ImageId::new(digest).map_err(|e| bad(&e.to_string()))?;
        read(&root.join("blobs/sha256").join(id.as_str().trim_start_matches("sha256:")))
    };
    let mut manifest = blob(&read(&root.join("index.json"))?, "/manifests/0/digest")?;
    if manifest.get("manifests").is_some() {
        manifest = blob(&manifest, "/manifests/0/digest")?;
    }
    let config = blob(&manifest, "/config/digest")?;
    let strings = |key: &str| {
        let list = config.pointer(key).and_then(|l| l.as_array()).into_iter().flatten();
        list.filter_map(|s| s.as_str().map(str::to_owned)).collect()
    };
    let string = |key: &str| config.pointer(key).and_then(|s| s.as_str()).unwrap_or_default().to_owned();
    Ok(ImageConfig {
        entrypoint: strings("/config/Entrypoint"),
        cmd: strings("/config/Cmd"),
        env: strings("/config/Env"),
        working_dir: string("/config/WorkingDir"),
        user: string("/config/User"),
        stop_signal: Some(string("/config/StopSignal")).filter(|s| !s.is_empty()),
    })
}
