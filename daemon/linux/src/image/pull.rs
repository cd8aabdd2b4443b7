//! Pulling an image: `reddwarf-pull` brings the blobs, [`super::import`] unpacks what is missing.

use super::import::{self, KnownLayer, chain_directory, chain_id};
use super::store::{Record, Store};
use crate::host::LinuxHost;
use crate::options::LinuxOptions;
use crate::unpack::{BlobPlace, LayerSource};
use reddwarf_host::{HostError, HostErrorKind, HostResult, PullProgress, PullRequest, PullStage, PulledImage};
use reddwarf_pull::{FetchedImage, Local, Pulled};
use reddwarf_supervise::file_system::room_for_blobs;
use std::path::PathBuf;
use tokio::sync::watch;

const PULL: &str = "pull image";

/// Where blobs lie until they are unpacked.
pub(crate) fn blobs_dir(options: &LinuxOptions) -> PathBuf {
    options.state_dir.join("images/pulls")
}

pub(super) async fn pull(
    host: &LinuxHost,
    request: &PullRequest,
    progress: &watch::Sender<PullProgress>,
) -> HostResult<PulledImage> {
    let options = &host.shared.options;
    let name = request.reference.to_string();
    let here = Here::read(options)?;
    let pulled = host.shared.puller.pull(request, &here, progress).await.map_err(|e| e.into_host(PULL, &name))?;
    let image = match pulled {
        Pulled::Same { repo_digest } => {
            let Some(record) = here.records.iter().find(|r| r.pulled.values().any(|d| *d == repo_digest)) else {
                return Err(HostError::new(HostErrorKind::Busy, PULL, name, "the image store changed; try again"));
            };
            if record.pulled.get(&name) != Some(&repo_digest) || !here.names(record, &name) {
                import::name_pulled(options, &name, &repo_digest, &record.id).await?;
            }
            PulledImage { id: record.id.clone(), repo_digest, size_bytes: record.size_bytes, fetched: false }
        }
        Pulled::Fetched(image) => take(host, &name, image, progress).await?,
    };
    Store::of(options).touch(&image.id, host.shared.clock.wall());
    Ok(image)
}

/// Unpacks and records what was fetched; its blobs go when that is done.
async fn take(
    host: &LinuxHost,
    name: &str,
    image: FetchedImage,
    progress: &watch::Sender<PullProgress>,
) -> HostResult<PulledImage> {
    let total = u32::try_from(image.layers.len()).unwrap_or(u32::MAX);
    progress.send_modify(|p| (p.stage, p.layers_total) = (PullStage::Unpacking, total));
    let unpacked = |layers| progress.send_modify(|p| p.layers_done = layers);
    let layers = image.layers.iter().map(|layer| {
        let place = |file: &PathBuf| BlobPlace { file: file.clone(), offset: 0, length: layer.size };
        let source = layer.file.as_ref().map(|file| LayerSource {
            place: place(file),
            digest: Some(layer.digest.clone()),
            diff_id: layer.diff_id.clone(),
        });
        KnownLayer { diff_id: layer.diff_id.clone(), source }
    });
    let options = &host.shared.options;
    let in_use = || host.images_in_use();
    let layers = layers.collect();
    let info =
        import::import_pulled(options, name, &image.repo_digest, &image.config, layers, &in_use, &unpacked).await;
    let info = info.map_err(|e| HostError { op: PULL, ..e });
    let (repo_digest, size_bytes) = (image.repo_digest.clone(), image.size_bytes);
    // Kept after a failure that may pass: what was fetched need not be fetched again. What can't be unpacked, or fills
    // the disk, goes.
    let keep = info.as_ref().err().is_some_and(|e| matches!(e.kind, HostErrorKind::Busy | HostErrorKind::Timeout));
    if !keep {
        image.imported();
    }
    Ok(PulledImage { id: info?.id, repo_digest, size_bytes, fetched: true })
}

/// The store as it is before the pull.
struct Here {
    store: Store,
    records: Vec<Record>,
    infos: Vec<reddwarf_host::ImageInfo>,
    blobs: PathBuf,
}

impl Here {
    fn read(options: &LinuxOptions) -> HostResult<Self> {
        let store = Store::of(options);
        let (records, infos) = (store.records()?, store.list()?);
        Ok(Self { store, records, infos, blobs: blobs_dir(options) })
    }

    /// Whether the name leads to the image now.
    fn names(&self, record: &Record, name: &str) -> bool {
        self.infos.iter().any(|i| i.id == record.id && i.names.iter().any(|n| n == name))
    }

    fn layer_is_here(&self, directory: &str) -> bool {
        self.store.layers_dir().join(directory).is_dir()
    }
}

impl Local for Here {
    fn has(&self, repo_digest: &str) -> bool {
        let mut same = self.records.iter().filter(|r| r.pulled.values().any(|d| d == repo_digest));
        same.any(|r| r.layers.iter().all(|layer| self.layer_is_here(layer)))
    }

    fn missing(&self, diff_ids: &[String]) -> Vec<bool> {
        let mut chain = String::new();
        let missing = |diff_id: &String| {
            chain = chain_id(&chain, diff_id);
            !self.layer_is_here(&chain_directory(&chain))
        };
        diff_ids.iter().map(missing).collect()
    }

    fn room(&self, bytes: u64) -> Result<(), String> {
        room_for_blobs(&self.blobs, bytes)
    }
}
