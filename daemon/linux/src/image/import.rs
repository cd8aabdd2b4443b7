//! Importing an image: find it, unpack the layers that are not here yet, record it.
//!
//! Each step that reads the image's own data is a process of its own ([`crate::unpack`]).

use super::crash;
use super::store::{Locked, Record, Store};
use crate::info::architecture;
use crate::options::LinuxOptions;
use crate::rootfs::io_error;
use crate::unpack::{Answer, ImageSource, Job, LayerJob, LayerSource, UnpackError, digest_of};
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageConfig, ImageId, ImageInfo, UnpackLimits};
use reddwarf_supervise::tree::{remove_tree, tree_size};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) const IMPORT: &str = "import image";

/// Finds the images in use, once the store is ours: a container may have been started while we waited for it.
pub(super) type InUse<'a> = dyn Fn() -> HostResult<BTreeSet<ImageId>> + Send + Sync + 'a;

/// Imports `source` under `name`.
pub(super) async fn import(
    options: &LinuxOptions,
    source: &Path,
    name: &str,
    in_use: &InUse<'_>,
) -> HostResult<ImageInfo> {
    check_name(name)?;
    let source = std::path::absolute(source).map_err(|e| io_error(IMPORT, source, e))?;
    let store = Store::of(options);
    let locked = store.lock().await?;
    let result = Import::by_hand(options, &locked, name).run(&source).await;
    tidy_up(&locked, in_use);
    result
}

/// Copies what an image's layers show together into `target`, an empty directory. Others may be unpacked for long meanwhile.
///
/// # Errors
/// `NotFound`, `Exhausted`, `Unsupported`, `Other`.
pub(crate) async fn flatten(options: &LinuxOptions, image: &ImageId, target: &Path) -> HostResult<()> {
    let store = Store::of(options);
    let failed = |kind, message: String| HostError::new(kind, IMPORT, image.as_str(), message);
    let _reading = store.read().await?;
    let record = store.record(image)?.ok_or_else(|| failed(HostErrorKind::NotFound, "no such image here".into()))?;
    let together = store.together_dir(image);
    let clear = || remove_tree(&together).map(drop).map_err(|e| io_error(IMPORT, &together, e.into()));
    // Left by one that was cut off, perhaps.
    clear()?;
    std::fs::create_dir_all(&together).map_err(|e| io_error(IMPORT, &together, e))?;
    let job = Job::Flatten {
        layers_dir: store.layers_dir(),
        layers: record.layers,
        scratch: together.clone(),
        target: target.to_owned(),
    };
    let answer = call(options, job).await.map_err(|e| HostError { subject: image.to_string(), ..e });
    clear()?;
    match answer? {
        Answer::Flattened { entries } => {
            tracing::info!(%image, entries, "image imported into its dataset");
            Ok(())
        }
        Answer::Failed(error) => Err(error.into_host(IMPORT, image.as_str())),
        other => Err(failed(HostErrorKind::Other, format!("the unpacking process answered {other:?}"))),
    }
}

/// One layer of an image whose config is known; without a source it must be here already.
pub(super) struct KnownLayer {
    pub(super) diff_id: String,
    pub(super) source: Option<LayerSource>,
}

/// Takes in an image that came from a registry as `repo_digest`, under `name`; `unpacked` hears of every layer.
pub(super) async fn import_pulled(
    options: &LinuxOptions,
    name: &str,
    repo_digest: &str,
    config: &str,
    layers: Vec<KnownLayer>,
    in_use: &InUse<'_>,
    unpacked: &(dyn Fn(u32) + Send + Sync),
) -> HostResult<ImageInfo> {
    check_name(name)?;
    let store = Store::of(options);
    let locked = store.lock().await?;
    let repo_digest = Some(repo_digest);
    let import = Import { options, locked: &locked, name, limits: UnpackLimits::default(), repo_digest };
    let result = import.take(config, layers, unpacked).await;
    tidy_up(&locked, in_use);
    result
}

/// Another name for an image that is here.
pub(super) async fn name_pulled(
    options: &LinuxOptions,
    name: &str,
    repo_digest: &str,
    id: &ImageId,
) -> HostResult<ImageInfo> {
    check_name(name)?;
    let store = Store::of(options);
    let locked = store.lock().await?;
    let record = store.record(id)?.ok_or_else(|| {
        HostError::new(HostErrorKind::Busy, IMPORT, name, "the image was removed at this very moment; try again")
    })?;
    Import { options, locked: &locked, name, limits: UnpackLimits::default(), repo_digest: Some(repo_digest) }
        .record(record)
}

pub(super) fn tidy_up(locked: &Locked<'_>, in_use: &InUse<'_>) {
    // What a name pointed at before, and what a failure left. Its own failure must not hide the result.
    if let Err(error) = locked.clear_scratch().and_then(|()| locked.collect(&in_use()?)) {
        tracing::warn!(error = %error.chain(), "the image store could not be tidied up; tried again at the next import");
    }
    locked.store.sweep_later();
}

pub(super) fn check_name(name: &str) -> HostResult<()> {
    let legal = |c: char| !c.is_control() && !c.is_whitespace();
    if name.is_empty() || name.len() > 255 || !name.chars().all(legal) || name.starts_with('-') {
        let message = "an image's name has 1 to 255 bytes, no spaces or control characters, and no '-' first";
        return Err(HostError::new(HostErrorKind::InvalidSpec, IMPORT, name.escape_debug().to_string(), message));
    }
    Ok(())
}

/// One image on its way into the store.
pub(super) struct Import<'a> {
    options: &'a LinuxOptions,
    locked: &'a Locked<'a>,
    name: &'a str,
    limits: UnpackLimits,
    /// What a registry calls it; `None`: it did not come from one.
    repo_digest: Option<&'a str>,
}

impl<'a> Import<'a> {
    /// Of an image that comes from no registry.
    pub(super) fn by_hand(options: &'a LinuxOptions, locked: &'a Locked<'a>, name: &'a str) -> Self {
        Self { options, locked, name, limits: UnpackLimits::default(), repo_digest: None }
    }

    async fn run(&self, source: &Path) -> HostResult<ImageInfo> {
        let ImageSource { config, layers } = self.find(source).await?;
        let layers = layers.into_iter().map(|l| KnownLayer { diff_id: l.diff_id.clone(), source: Some(l) }).collect();
        self.take(&config, layers, &|_| ()).await
    }

    /// Unpacks what is missing and records the image.
    pub(super) async fn take(
        &self,
        config: &str,
        layers: Vec<KnownLayer>,
        unpacked: &(dyn Fn(u32) + Send + Sync),
    ) -> HostResult<ImageInfo> {
        let id = ImageId::new(digest_of(config.as_bytes()))
            .map_err(|e| HostError::new(HostErrorKind::Other, IMPORT, self.name, e.to_string()))?;
        let config = parse_config(config).map_err(|e| self.failed(e))?;
        let mut chain = String::new();
        let mut below = Vec::new();
        let diff_ids = layers.iter().map(|l| l.diff_id.clone()).collect();
        for layer in layers {
            chain = chain_id(&chain, &layer.diff_id);
            let directory = chain_directory(&chain);
            if !self.locked.store.layers_dir().join(&directory).exists() {
                let source = layer.source.ok_or_else(|| {
                    let message = "a layer that was here was removed at this very moment; try again";
                    HostError::new(HostErrorKind::Busy, IMPORT, self.name, message)
                })?;
                self.unpack(source, &below, &directory).await?;
            }
            below.push(directory);
            unpacked(u32::try_from(below.len()).unwrap_or(u32::MAX));
        }
        let size_bytes = self.size(&below)?;
        let pulled = self.locked.store.record(&id).ok().flatten().map(|r| r.pulled).unwrap_or_default();
        self.record(Record { id, config, layers: below, diff_ids, size_bytes, pulled })
    }

    /// Records an image under our name.
    fn record(&self, mut record: Record) -> HostResult<ImageInfo> {
        match self.repo_digest {
            Some(repo_digest) => record.pulled.insert(self.name.to_owned(), repo_digest.to_owned()),
            None => record.pulled.remove(self.name),
        };
        self.locked.take_image(&record, self.name)
    }

    async fn find(&self, source: &Path) -> HostResult<ImageSource> {
        let job = Job::Find {
            source: source.to_owned(),
            scratch: self.scratch("found")?,
            architecture: architecture(std::env::consts::ARCH).to_owned(),
            limits: self.limits,
            zar_keys: self.options.zar_keys.clone(),
        };
        match self.call(job).await? {
            Answer::Found(image) => Ok(image),
            other => Err(self.confused(&other)),
        }
    }

    /// Packs a layer of what is here; `None`: there was nothing to pack.
    pub(super) async fn pack(&self, job: impl FnOnce(PathBuf, UnpackLimits) -> Job) -> HostResult<Option<LayerSource>> {
        match self.call(job(self.scratch("packed")?, self.limits)).await? {
            Answer::Packed(layer) => Ok(layer),
            other => Err(self.confused(&other)),
        }
    }

    async fn unpack(&self, source: LayerSource, below: &[String], directory: &str) -> HostResult<()> {
        let scratch = self.scratch(directory)?;
        let diff_id = source.diff_id.clone();
        let job = Job::Layer(LayerJob {
            source,
            layers_dir: self.locked.store.layers_dir(),
            below: below.to_vec(),
            scratch: scratch.clone(),
            limits: self.limits,
        });
        match self.call(job).await? {
            Answer::Unpacked { entries, skipped_devices } => {
                tracing::info!(image = self.name, layer = diff_id, entries, skipped_devices, "layer unpacked");
                self.locked.take_layer(&scratch.join("upper"), directory)
            }
            other => Err(self.confused(&other)),
        }
    }

    fn scratch(&self, name: &str) -> HostResult<PathBuf> {
        let path = self.locked.store.scratch_dir().join(name);
        crash::point();
        std::fs::create_dir(&path).map_err(|e| io_error(IMPORT, &path, e))?;
        Ok(path)
    }

    fn size(&self, layers: &[String]) -> HostResult<u64> {
        layers.iter().try_fold(0u64, |total, layer| {
            let path = self.locked.store.layers_dir().join(layer);
            let size = tree_size(&path).map_err(|e| io_error(IMPORT, &path, e.into()))?;
            Ok(total.saturating_add(size))
        })
    }

    async fn call(&self, job: Job) -> HostResult<Answer> {
        crash::point();
        match call(self.options, job).await.map_err(|e| self.retitled(e))? {
            Answer::Failed(error) => Err(self.failed(error)),
            answer => Ok(answer),
        }
    }

    fn failed(&self, error: UnpackError) -> HostError {
        error.into_host(IMPORT, self.name)
    }

    fn retitled(&self, error: HostError) -> HostError {
        HostError { op: IMPORT, subject: self.name.to_owned(), ..error }
    }

    fn confused(&self, answer: &Answer) -> HostError {
        HostError::new(HostErrorKind::Other, IMPORT, self.name, format!("the unpacking process answered {answer:?}"))
    }
}

/// Has a job done by a process of its own.
#[cfg(not(test))]
async fn call(options: &LinuxOptions, job: Job) -> HostResult<Answer> {
    use reddwarf_command::ExternalCommand;
    use std::time::Duration;
    /// For one layer.
    const DEADLINE: Duration = Duration::from_secs(1800);
    let other = |e: serde_json::Error| HostError::new(HostErrorKind::Other, IMPORT, "", "no answer").caused_by(e);
    let output = ExternalCommand::at(&options.helpers)
        .args([crate::unpack::ARGUMENT])
        .stdin(serde_json::to_vec(&job).map_err(other)?)
        .deadline(DEADLINE)
        .run()
        .await
        .map_err(|e| e.into_host(IMPORT, ""))?;
    serde_json::from_slice(&output.stdout).map_err(other)
}

/// Unit tests have no program to start: a thread confines itself as the process would. tests/image.rs starts processes.
#[cfg(test)]
async fn call(_options: &LinuxOptions, job: Job) -> HostResult<Answer> {
    let thread = std::thread::spawn(move || crate::unpack::run(job).unwrap_or_else(Answer::Failed));
    Ok(thread.join().unwrap())
}

/// OCI image spec, config.md, "Layer ChainID".
pub(super) fn chain_id(below: &str, diff_id: &str) -> String {
    if below.is_empty() { diff_id.to_owned() } else { digest_of(format!("{below} {diff_id}").as_bytes()) }
}

/// 128 bits: short enough that 100 of them fit into mount options, long enough that nobody finds two alike.
pub(super) fn chain_directory(chain: &str) -> String {
    chain.trim_start_matches("sha256:").chars().take(32).collect()
}

/// The part of a config that says how to run the image.
pub(super) fn parse_config(text: &str) -> Result<ImageConfig, UnpackError> {
    ImageConfig::of_document(text.as_bytes())
        .map_err(|e| UnpackError::invalid(format!("the image's config can't be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_name_depends_on_what_is_below() {
        let (a, b) = (digest_of(b"a"), digest_of(b"b"));
        assert_eq!(chain_id("", &a), a);
        assert_ne!(chain_id(&a, &b), chain_id(&b, &b));
        assert_eq!(chain_directory(&a).len(), 32);
    }
}
