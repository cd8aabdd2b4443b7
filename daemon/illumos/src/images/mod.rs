//! The image store: each image is a dataset whose root file system lies in `root/`, with the snapshot `@golden` that
//! containers' and template zones' roots are cloned from in constant time.
//!
//! | file | holds |
//! |---|---|
//! | `source.rs` | what is imported: a root file system, an OCI layout, an OCI or docker archive |
//! | `pull.rs` | images from registries |
//! | `unpack.rs`, `layer.rs` | putting layers on top of one another, in a child without rights |
//! | `zar.rs` | `.zar` archives, of layers or of zfs streams |
//! | `build.rs` | images of files, and of what a container left |
//!
//! ```text
//! STATE/images/HEX.json      how it is run; written after the snapshot, removed before the dataset
//! STATE/images/names.json    name to image id
//! ```

mod build;
mod layer;
pub(crate) mod pull;
mod source;
pub(crate) mod unpack;
mod zar;

use crate::datasets;
use crate::host::{IllumosHost, Shared};
use crate::paths::image_component;
use crate::zone::brand::ZoneBrand;
use async_trait::async_trait;
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::{
    Change, HostError, HostErrorKind, HostResult, ImageBuild, ImageConfig, ImageId, ImageInfo, ImageStore,
    PullProgress, PullRequest, PulledImage, SandboxId,
};
use reddwarf_supervise::files::{io_error, make_dir, names_in, read_record, remove_file, remove_tree, write_json};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

const IMPORT: &str = "import image";
const REMOVE: &str = "remove image";
const READ: &str = "read image store";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: ImageId,
    config: ImageConfig,
    size_bytes: u64,
    /// Names that came from a registry, and what it called the image.
    #[serde(default)]
    pulled: BTreeMap<String, String>,
}

type Names = BTreeMap<String, ImageId>;

fn dir(shared: &Shared) -> PathBuf {
    shared.options.state_dir.join("images")
}

fn names_file(shared: &Shared) -> PathBuf {
    dir(shared).join("names.json")
}

fn record_file(shared: &Shared, id: &ImageId) -> PathBuf {
    dir(shared).join(format!("{}.json", image_component(id)))
}

fn used_file(shared: &Shared, id: &ImageId) -> PathBuf {
    dir(shared).join(format!("{}.used.json", image_component(id)))
}

/// Notes that a container was started from it just now.
pub(crate) fn touch(shared: &Shared, id: &ImageId) {
    let file = used_file(shared, id);
    if let Err(error) = write_json(&file, &shared.clock.wall()) {
        tracing::debug!(file = %file.display(), %error, "not noted");
    }
}

fn names(shared: &Shared) -> HostResult<Names> {
    Ok(read_record(READ, &names_file(shared))?.unwrap_or_default())
}

fn write<T: Serialize>(op: &'static str, path: &Path, value: &T) -> HostResult<()> {
    write_json(path, value).map_err(|e| io_error(op, path, e))
}

/// All images, by id.
pub(crate) fn all(shared: &Shared) -> HostResult<BTreeMap<ImageId, ImageInfo>> {
    let (dir, names) = (dir(shared), names(shared)?);
    let mut images = BTreeMap::new();
    for file in names_in(&dir).map_err(|e| io_error(READ, &dir, e))? {
        if file == "names.json" || file.ends_with(".used.json") || !file.ends_with(".json") {
            continue;
        }
        let Some(record) = read_record::<Record>(READ, &dir.join(&file))? else { continue };
        let Record { id, config, size_bytes, mut pulled } = record;
        let names: Vec<String> = names.iter().filter(|(_, of)| **of == id).map(|(name, _)| name.clone()).collect();
        pulled.retain(|name, _| names.contains(name));
        let last_used = read_record(READ, &used_file(shared, &id))?;
        images.insert(id.clone(), ImageInfo { id, names, size_bytes, config, pulled, last_used });
    }
    Ok(images)
}

/// What a zone is installed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneSource {
    /// For the brand's installer.
    pub(crate) from: String,
    /// Which image that is.
    pub(crate) image: ImageId,
}

/// What zones of a brand that is installed from an image are installed from: the image of that name.
pub(crate) async fn zone_source(shared: &Shared, brand: ZoneBrand) -> HostResult<ZoneSource> {
    let name = format!("{}-zone", brand.name());
    let Some(id) = names(shared)?.get(&name).cloned() else {
        let message = format!(
            "zones of the brand {} are installed from the image {name}: import a root file system under that name \
             (reddwarfctl image import PATH {name})",
            brand.name()
        );
        return Err(HostError::new(HostErrorKind::NotFound, "find zone image", name, message));
    };
    // Of what both brands' installers take (archives, streams, datasets, snapshots) this is there already; like an image's
    // dataset, a zonepath's has all files in `root`.
    Ok(ZoneSource { from: datasets::golden(shared, &id)?.to_string(), image: id })
}

#[async_trait]
impl ImageStore for IllumosHost {
    async fn image_import(&self, source: &Path, name: &str) -> HostResult<ImageInfo> {
        check_name(name)?;
        let shared = &self.shared;
        // One at a time; names of images are no names of sandboxes, so any that can't be one serves.
        let _turn = shared.images.lock().await;
        datasets::ensure_base(shared, IMPORT).await?;
        make_dir(&dir(shared)).map_err(|e| io_error(IMPORT, &dir(shared), e))?;
        let scratch = dir(shared).join("tmp");
        remove_tree(&scratch).and_then(|_| make_dir(&scratch)).map_err(|e| io_error(IMPORT, &scratch, e))?;
        let found = source::find(shared, source, &scratch).await.map_err(|problem| problem.into_host(IMPORT, name))?;
        let id = found.id.clone();
        if read_record::<Record>(READ, &record_file(shared, &id))?.is_none() {
            fill(shared, name, found).await?;
        }
        remove_tree(&scratch).map_err(|e| io_error(IMPORT, &scratch, e))?;
        let mut names = names(shared)?;
        names.insert(name.to_owned(), id.clone());
        write(IMPORT, &names_file(shared), &names)?;
        // From here on the name is one that a person gave.
        if let Some(mut record) = read_record::<Record>(READ, &record_file(shared, &id))?
            && record.pulled.remove(name).is_some()
        {
            write(IMPORT, &record_file(shared, &id), &record)?;
        }
        collect(shared).await?;
        let mut all = all(shared)?;
        all.remove(&id).ok_or_else(|| HostError::new(HostErrorKind::Other, IMPORT, name, "is gone again"))
    }

    async fn image_pull(
        &self,
        request: &PullRequest,
        progress: &watch::Sender<PullProgress>,
    ) -> HostResult<PulledImage> {
        pull::pull(&self.shared, request, progress).await
    }

    async fn image_build(&self, wanted: &ImageBuild) -> HostResult<ImageInfo> {
        build::build(&self.shared, wanted).await
    }

    async fn image_collect(&self, images: &[ImageId]) -> HostResult<Vec<ImageId>> {
        let shared = &self.shared;
        let _turn = shared.images.lock().await;
        let used = in_use(shared)?;
        let gone: Vec<ImageId> = images.iter().filter(|id| !used.contains(id)).cloned().collect();
        let mut names = names(shared)?;
        names.retain(|_, id| !gone.contains(id));
        write(REMOVE, &names_file(shared), &names)?;
        let before = all(shared)?;
        collect(shared).await?;
        let after = all(shared)?;
        Ok(gone.into_iter().filter(|id| before.contains_key(id) && !after.contains_key(id)).collect())
    }

    async fn image_list(&self) -> HostResult<Vec<ImageInfo>> {
        Ok(all(&self.shared)?.into_values().collect())
    }

    async fn image_remove(&self, name: &str) -> HostResult<Change> {
        let shared = &self.shared;
        let _turn = shared.images.lock().await;
        let mut names = names(shared)?;
        let Some(id) = names.get(name).cloned() else { return Ok(Change::Unchanged) };
        let last = names.values().filter(|of| **of == id).count() == 1;
        if last && in_use(shared)?.contains(&id) {
            return Err(HostError::new(HostErrorKind::Busy, REMOVE, name, "a container was started from it"));
        }
        names.remove(name);
        write(REMOVE, &names_file(shared), &names)?;
        collect(shared).await?;
        Ok(Change::Changed("removed".to_owned()))
    }
}

fn check_name(name: &str) -> HostResult<()> {
    let legal = |c: char| !c.is_control() && !c.is_whitespace();
    if name.is_empty() || name.len() > 255 || !name.chars().all(legal) || name.starts_with('-') {
        let message = "an image's name has 1 to 255 bytes, no spaces or control characters, and no '-' first";
        return Err(HostError::new(HostErrorKind::InvalidSpec, IMPORT, name.escape_debug().to_string(), message));
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> HostResult<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| HostError::new(HostErrorKind::Other, IMPORT, "", "the work was interrupted").caused_by(e))
}

/// Makes an image's dataset, its snapshot, and at last its record.
async fn fill(shared: &Shared, name: &str, found: source::Found) -> HostResult<()> {
    let (id, config) = (found.id.clone(), found.config.clone());
    let dataset = datasets::image(shared, &id)?;
    // What a crash left has no record.
    datasets::destroy(shared, IMPORT, &dataset).await?;
    let root = shared.paths.image_root(&id);
    match found.streams() {
        Some(streams) => zar::receive(shared, name, &id, streams).await?,
        None => {
            datasets::make_image(shared, IMPORT, &id).await?;
            std::fs::create_dir_all(&root).map_err(|e| io_error(IMPORT, &root, e))?;
            found.put(shared, &root).await.map_err(|problem| problem.into_host(IMPORT, name))?;
        }
    }
    let size_bytes = blocking({
        let root = root.clone();
        move || layer::tree_size(&root)
    })
    .await?
    .map_err(|e| io_error(IMPORT, &root, e))?;
    datasets::seal_image(shared, IMPORT, &id).await?;
    write(IMPORT, &record_file(shared, &id), &Record { id: id.clone(), config, size_bytes, pulled: BTreeMap::new() })?;
    touch(shared, &id);
    Ok(())
}

/// Removes images that have no name and that nobody uses.
async fn collect(shared: &Shared) -> HostResult<()> {
    let named: BTreeSet<ImageId> = names(shared)?.into_values().collect();
    let used = in_use(shared)?;
    for id in all(shared)?.into_keys().filter(|id| !named.contains(id) && !used.contains(id)) {
        let record = record_file(shared, &id);
        for file in [record, used_file(shared, &id)] {
            remove_file(&file).map_err(|e| io_error(REMOVE, &file, e))?;
        }
        match datasets::destroy(shared, REMOVE, &datasets::image(shared, &id)?).await {
            Ok(_) => {}
            // Roots that are cloned from it go first; without a record it is made anew or collected later.
            Err(error) if error.kind == HostErrorKind::Busy => {
                tracing::info!(image = %id, "stays while roots are cloned from it")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Images that a recorded container was started from.
fn in_use(shared: &Shared) -> HostResult<BTreeSet<ImageId>> {
    let marks = shared.paths.marks();
    let mut used = BTreeSet::new();
    for name in names_in(&marks).map_err(|e| io_error(READ, &marks, e))? {
        let Ok(id) = SandboxId::new(name) else { continue };
        for (_, _, dir) in shared.paths.run.instances(&id)? {
            if let Some(spec) = dir.spec()?
                && let ContainerImage::Image { id } = spec.image
            {
                used.insert(id);
            }
        }
    }
    Ok(used)
}
