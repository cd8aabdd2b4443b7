//! Root file systems that are clones: on a storage engine that clones in constant time, an image is imported into a
//! dataset of its own once, and every container gets a clone of that.
//!
//! ```text
//! images/IMAGE-DIGEST   mark image=…: the image's layers as one tree; whole once it has the snapshot `golden`
//! pods/SANDBOX-DIGEST   marks sandbox=… container=… attempt=…: a container's root, for as long as its record is there
//! ```
//!
//! Both bear the mark instance=…, and the digests are over it too: daemons may share a pool and mind their own.
//!
//! A container's record says that its root is a clone (`launch.json`) before the clone is made, and goes after it: a crash
//! leaves nothing that nobody knows, other than one of the whole machine, whose clones [`Roots::collect`] finds.

use crate::host::Shared;
use crate::image::{flatten, store::Store};
use crate::observe;
use crate::options::LinuxOptions;
use crate::sandbox;
use reddwarf_host::{
    Area, Change, ContainerName, Dataset, DatasetId, DatasetName, DatasetSpec, HostError, HostErrorKind, HostResult,
    ImageId, SandboxId, SnapshotId, SnapshotName, StorageEngine,
};
use reddwarf_supervise::turns::Turns;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

const OP: &str = "clone root file system";
/// The snapshot that roots are cloned from.
const GOLDEN: &str = "golden";

/// Which container instance a root is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootOf {
    pub(crate) sandbox: SandboxId,
    pub(crate) container: ContainerName,
    pub(crate) attempt: u32,
}

impl RootOf {
    fn dataset(&self, instance: &str) -> HostResult<DatasetId> {
        let Self { sandbox, container, attempt } = self;
        let name = named(sandbox.as_str(), 40, &format!("{instance}/{sandbox}/{container}/{attempt}"), 8);
        DatasetName::new(name).map(DatasetId::root).map_err(|e| failed(HostErrorKind::Other, sandbox.as_str(), e))
    }

    fn marks(&self, instance: &str) -> BTreeMap<String, String> {
        let Self { sandbox, container, attempt } = self;
        let marks = [
            ("instance", instance.to_owned()),
            ("sandbox", sandbox.to_string()),
            ("container", container.to_string()),
            ("attempt", attempt.to_string()),
        ];
        marks.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn of_marks(marks: &BTreeMap<String, String>) -> Option<Self> {
        let sandbox = SandboxId::new(marks.get("sandbox")?.as_str()).ok()?;
        let container = ContainerName::new(marks.get("container")?.as_str()).ok()?;
        Some(Self { sandbox, container, attempt: marks.get("attempt")?.parse().ok()? })
    }
}

/// Roots on one engine.
#[derive(Debug)]
pub(crate) struct Roots {
    engine: Arc<dyn StorageEngine>,
    /// Whose datasets are ours ([`LinuxOptions::instance`]).
    instance: String,
    /// Images whose datasets were whole when this process last looked.
    whole: Mutex<BTreeSet<ImageId>>,
    /// Who tries again to destroy what stays: one is enough.
    pub(crate) trying: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is to import or destroy an image: a large one keeps no container of another one waiting.
    turns: Turns<ImageId>,
}

impl Roots {
    pub(crate) fn new(engine: Arc<dyn StorageEngine>, instance: &str) -> Self {
        Self {
            engine,
            instance: instance.to_owned(),
            whole: Mutex::default(),
            trying: Arc::default(),
            turns: Turns::default(),
        }
    }

    /// Where all of them lie.
    pub(crate) fn place(&self) -> PathBuf {
        self.engine.root(Area::Pods)
    }

    /// Where a container's root lies, once it is cloned.
    pub(crate) fn path(&self, of: &RootOf) -> HostResult<PathBuf> {
        Ok(self.engine.data(&of.dataset(&self.instance)?))
    }

    /// Where the tree lies that an image's roots were cloned from.
    pub(crate) fn origin(&self, image: &ImageId) -> HostResult<PathBuf> {
        Ok(self.engine.data(&self.dataset_of(image)?))
    }

    /// Makes a container's root, as its image has it: what an earlier try left there goes.
    ///
    /// # Errors
    /// `NotFound` (the image), the engine's.
    pub(crate) async fn clone(&self, options: &LinuxOptions, image: &ImageId, of: &RootOf) -> HostResult<()> {
        let (golden, root) = (self.golden_of(image)?, of.dataset(&self.instance)?);
        let spec = DatasetSpec { marks: of.marks(&self.instance), ..DatasetSpec::default() };
        self.import(options, image).await?;
        let mut cloned = self.engine.clone_of(&golden, &root, &spec).await;
        if cloned.as_ref().is_err_and(|e| e.kind == HostErrorKind::NotFound) {
            // Destroyed behind our back, perhaps: looked for once more.
            self.whole.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
            self.import(options, image).await?;
            cloned = self.engine.clone_of(&golden, &root, &spec).await;
        }
        if cloned? == Change::Unchanged {
            drop(self.engine.destroy(&root).await?);
            drop(self.engine.clone_of(&golden, &root, &spec).await?);
        }
        Ok(())
    }

    /// Destroys a container's root. Absent is fine.
    ///
    /// # Errors
    /// The engine's: `Busy` while something is mounted there.
    pub(crate) async fn destroy(&self, of: &RootOf) -> HostResult<()> {
        self.engine.destroy(&of.dataset(&self.instance)?).await.map(drop)
    }

    /// Makes an image's dataset, unless it is there: at once when that was so before.
    ///
    /// # Errors
    /// `NotFound` (the image), `Exhausted`, the engine's; nothing is left then.
    pub(crate) async fn import(&self, options: &LinuxOptions, image: &ImageId) -> HostResult<()> {
        if self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(image) {
            return Ok(());
        }
        let _turn = self.turns.take(image).await;
        let (id, marks) = (self.dataset_of(image)?, self.marks_of(image));
        let found = self.engine.list().await?.remove(&id);
        if !found.as_ref().is_some_and(|dataset| is_whole(dataset) && dataset.marks == marks) {
            // An import that was cut off, if it is ours.
            if found.is_some_and(|dataset| dataset.marks == marks) {
                drop(self.engine.destroy(&id).await?);
            }
            let filled = self.fill(options, image, &id, marks).await;
            if filled.is_err()
                && let Err(error) = self.engine.destroy(&id).await
            {
                self.engine.leftovers().stays(&id, &error);
            }
            filled?;
            self.engine.leftovers().gone(&id);
        }
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(image.clone());
        Ok(())
    }

    async fn fill(
        &self,
        options: &LinuxOptions,
        image: &ImageId,
        id: &DatasetId,
        marks: BTreeMap<String, String>,
    ) -> HostResult<()> {
        drop(self.engine.create(id, &DatasetSpec { marks, ..DatasetSpec::default() }).await?);
        flatten(options, image, &self.engine.data(id)).await?;
        self.engine.snapshot(&self.golden_of(image)?).await.map(drop)
    }

    fn dataset_of(&self, image: &ImageId) -> HostResult<DatasetId> {
        let hex = image.as_str().trim_start_matches("sha256:");
        let name = named(hex, 24, &format!("{}/{image}", self.instance), 8);
        DatasetName::new(name).map(DatasetId::image).map_err(|e| failed(HostErrorKind::InvalidSpec, image.as_str(), e))
    }

    fn golden_of(&self, image: &ImageId) -> HostResult<SnapshotId> {
        let golden = SnapshotName::new(GOLDEN).map_err(|e| failed(HostErrorKind::Other, GOLDEN, e))?;
        Ok(self.dataset_of(image)?.at(golden))
    }

    fn marks_of(&self, image: &ImageId) -> BTreeMap<String, String> {
        let marks = [("instance", self.instance.clone()), ("image", image.to_string())];
        marks.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What each root takes for itself, in bytes.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn own_bytes(&self) -> HostResult<BTreeMap<DatasetName, u64>> {
        self.engine.own_bytes(Area::Pods).await
    }

    /// A root among those of [`Roots::own_bytes`].
    pub(crate) fn bytes_of(&self, own: &BTreeMap<DatasetName, u64>, of: &RootOf) -> Option<u64> {
        own.get(&of.dataset(&self.instance).ok()?.name).copied()
    }

    /// Destroys roots without a container and datasets of images that are gone; whether all of them went. What can't be
    /// destroyed now stays for the next time.
    ///
    /// # Errors
    /// When it can't be told what there is: nothing is destroyed then.
    pub(crate) async fn collect(&self, shared: &Shared) -> HostResult<bool> {
        let mut stay = BTreeSet::new();
        let ours = |dataset: &Dataset| dataset.marks.get("instance") == Some(&self.instance);
        for (id, dataset) in self.engine.list().await?.into_iter().filter(|(_, dataset)| ours(dataset)) {
            let destroyed = match id.area {
                Area::Pods => self.collect_root(shared, &id, &dataset).await,
                Area::Images => self.collect_image(shared, &id, &dataset).await,
                Area::Volumes => Ok(()),
            };
            if let Err(error) = destroyed {
                self.engine.leftovers().stays(&id, &error);
                stay.insert(id.to_string());
            }
        }
        // The engine's own bear names of no dataset.
        let ours = |what: &str| {
            let areas = [Area::Pods, Area::Images];
            what.split_once('/')
                .is_some_and(|(area, name)| areas.iter().any(|a| a.as_str() == area) && DatasetName::new(name).is_ok())
        };
        self.engine.leftovers().retain(|what| !ours(what) || stay.contains(what));
        Ok(stay.is_empty())
    }

    async fn collect_root(&self, shared: &Shared, id: &DatasetId, dataset: &Dataset) -> HostResult<()> {
        let own = |of: &RootOf| of.dataset(&self.instance).is_ok_and(|own| own == *id);
        let Some(of) = RootOf::of_marks(&dataset.marks).filter(own) else {
            // Its own mark was lost with the machine's power: it bears its image's. Nobody finds it again.
            return self.engine.destroy(id).await.map(drop);
        };
        // Nobody makes or removes the container meanwhile.
        let _turn = shared.turns.take(&of.sandbox).await;
        let dir = sandbox::instance_dir(shared, &of.sandbox, &of.container, of.attempt);
        if dir.path().exists() {
            return Ok(());
        }
        tracing::info!(dataset = %id, "a root without its container is destroyed");
        self.destroy(&of).await
    }

    async fn collect_image(&self, shared: &Shared, id: &DatasetId, dataset: &Dataset) -> HostResult<()> {
        let Some(image) = dataset.marks.get("image").and_then(|image| ImageId::new(image.as_str()).ok()) else {
            return Ok(());
        };
        let _turn = self.turns.take(&image).await;
        let kept = Store::of(&shared.options).record(&image)?.is_some();
        if kept || self.dataset_of(&image)? != *id || observe::images_in_use(shared)?.contains(&image) {
            return Ok(());
        }
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).remove(&image);
        self.engine.destroy(id).await.map(drop)
    }
}

fn failed(kind: HostErrorKind, subject: &str, why: impl std::fmt::Display) -> HostError {
    HostError::new(kind, OP, subject, why.to_string())
}

/// What people know it by, cut to `most` bytes, and so many bytes of the digest of what tells it apart.
fn named(readable: &str, most: usize, all: &str, bytes: usize) -> String {
    let readable: String = readable.chars().take(most).collect();
    let digest = reddwarf_host::hex(Sha256::digest(all).get(..bytes).unwrap_or_default());
    format!("{}-{digest}", readable.trim_end_matches('-'))
}

fn is_whole(dataset: &Dataset) -> bool {
    dataset.snapshots.iter().any(|snapshot| snapshot.name.as_str() == GOLDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(sandbox: &str, container: &str, attempt: u32) -> RootOf {
        let (sandbox, container) = (SandboxId::new(sandbox).unwrap(), ContainerName::new(container).unwrap());
        RootOf { sandbox, container, attempt }
    }

    #[test]
    fn roots_have_names_of_their_own_and_are_known_by_their_marks() {
        let long = "d-".repeat(30) + "end";
        let all = [root("default-web", "app", 0), root("default-web", "app", 1), root(&long, "app", 0)];
        let names: BTreeSet<_> = all.iter().map(|of| of.dataset("reddwarf").unwrap()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|id| id.area == Area::Pods && id.name.as_str().len() <= 57), "{names:?}");
        for of in &all {
            assert_eq!(RootOf::of_marks(&of.marks("reddwarf")).as_ref(), Some(of));
            assert_ne!(of.dataset("reddwarf").unwrap(), of.dataset("reddwarf-other").unwrap());
        }
        assert_eq!(RootOf::of_marks(&BTreeMap::from([("claim".to_owned(), "d/c".to_owned())])), None);
    }
}
