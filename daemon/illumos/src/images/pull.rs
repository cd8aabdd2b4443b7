//! Pulling an image: `reddwarf-pull` brings the blobs, which are put on top of one another like those of an archive. An
//! image for illumos is preferred; for lx zones one for Linux serves.

use super::source::{self, Found};
use super::{Record, all, dir, fill, names, names_file, record_file, touch, write};
use crate::datasets;
use crate::host::Shared;
use reddwarf_host::{HostError, HostErrorKind, HostResult, PullProgress, PullRequest, PullStage, PulledImage};
use reddwarf_pull::{FetchedImage, Local, Platform, PullErrorKind, Pulled, Puller, RegistryOptions};
use reddwarf_supervise::file_system::room_for_blobs;
use reddwarf_supervise::files::read_record;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::sync::watch;

const PULL: &str = "pull image";

/// One for each system whose programs may run here, the host's own first.
pub(crate) fn pullers(options: &RegistryOptions, state_dir: &std::path::Path) -> Vec<Puller> {
    let dir = state_dir.join("images/pulls");
    let of = |system| Puller::new(options.clone(), Platform::new(system, source::architecture()), dir.clone());
    ["illumos", "linux"].into_iter().map(of).collect()
}

pub(super) async fn pull(
    shared: &Shared,
    request: &PullRequest,
    progress: &watch::Sender<PullProgress>,
) -> HostResult<PulledImage> {
    let name = request.reference.to_string();
    let here = Here::read(shared)?;
    let mut last = None;
    for puller in &shared.pullers {
        match puller.pull(request, &here, progress).await {
            Ok(Pulled::Same { repo_digest }) => return same(shared, &name, repo_digest).await,
            Ok(Pulled::Fetched(image)) => return take(shared, &name, image, progress).await,
            // Not for this system: perhaps for the other one.
            Err(error) if error.kind == PullErrorKind::Invalid => last = Some(error),
            Err(error) => return Err(error.into_host(PULL, &name)),
        }
    }
    Err(match last {
        Some(error) => error.into_host(PULL, &name),
        None => HostError::new(HostErrorKind::Unsupported, PULL, name, "no registry can be asked"),
    })
}

/// What is here is what the registry has: the name is given, where it is missing.
async fn same(shared: &Shared, name: &str, repo_digest: String) -> HostResult<PulledImage> {
    let _turn = shared.images.lock().await;
    let found = all(shared)?.into_values().find(|i| i.pulled.values().any(|d| *d == repo_digest));
    let Some(image) = found else {
        return Err(HostError::new(HostErrorKind::Busy, PULL, name, "the image store changed; try again"));
    };
    note(shared, name, &repo_digest, &image.id)?;
    Ok(PulledImage { id: image.id, repo_digest, size_bytes: image.size_bytes, fetched: false })
}

fn note(shared: &Shared, name: &str, repo_digest: &str, id: &reddwarf_host::ImageId) -> HostResult<()> {
    let file = record_file(shared, id);
    if let Some(mut record) = read_record::<Record>(PULL, &file)? {
        record.pulled.insert(name.to_owned(), repo_digest.to_owned());
        write(PULL, &file, &record)?;
    }
    let mut names = names(shared)?;
    names.insert(name.to_owned(), id.clone());
    write(PULL, &names_file(shared), &names)?;
    touch(shared, id);
    Ok(())
}

async fn take(
    shared: &Shared,
    name: &str,
    image: FetchedImage,
    progress: &watch::Sender<PullProgress>,
) -> HostResult<PulledImage> {
    let total = u32::try_from(image.layers.len()).unwrap_or(u32::MAX);
    progress.send_modify(|p| (p.stage, p.layers_total) = (PullStage::Unpacking, total));
    let (repo_digest, size_bytes) = (image.repo_digest.clone(), image.size_bytes);
    let done = unpack(shared, name, &image).await;
    progress.send_modify(|p| p.layers_done = total);
    let keep = done.as_ref().err().is_some_and(|e| matches!(e.kind, HostErrorKind::Busy | HostErrorKind::Timeout));
    if !keep {
        image.imported();
    }
    Ok(PulledImage { id: done?, repo_digest, size_bytes, fetched: true })
}

async fn unpack(shared: &Shared, name: &str, image: &FetchedImage) -> HostResult<reddwarf_host::ImageId> {
    let _turn = shared.images.lock().await;
    datasets::ensure_base(shared, PULL).await?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        let Some(file) = layer.file.clone() else {
            let message = format!("the layer {} was not fetched; try again", layer.digest);
            return Err(HostError::new(HostErrorKind::Busy, PULL, name, message));
        };
        layers.push((file, Some(layer.digest.clone())));
    }
    let found = Found::of_layers(image.config.as_bytes(), layers).map_err(|problem| problem.into_host(PULL, name))?;
    let id = found.id.clone();
    if read_record::<Record>(PULL, &record_file(shared, &id))?.is_none() {
        fill(shared, name, found).await?;
    }
    note(shared, name, &image.repo_digest, &id)?;
    super::collect(shared).await?;
    Ok(id)
}

/// The store as it is before the pull. Images are kept as a whole, so layers are never here by themselves.
struct Here {
    digests: BTreeSet<String>,
    blobs: PathBuf,
}

impl Here {
    fn read(shared: &Shared) -> HostResult<Self> {
        let digests = all(shared)?.into_values().flat_map(|i| i.pulled.into_values()).collect();
        Ok(Self { digests, blobs: dir(shared) })
    }
}

impl Local for Here {
    fn has(&self, repo_digest: &str) -> bool {
        self.digests.contains(repo_digest)
    }

    fn missing(&self, diff_ids: &[String]) -> Vec<bool> {
        vec![true; diff_ids.len()]
    }

    fn room(&self, bytes: u64) -> Result<(), String> {
        room_for_blobs(&self.blobs, bytes)
    }
}
