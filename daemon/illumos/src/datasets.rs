//! Our datasets: the one that all lie below, one for each pod, clones of images. Marked by a user property that counts only
//! where it was set on the dataset itself.

use crate::host::Shared;
use crate::paths::{image_component, slot_name};
use crate::zfs::{self, Dataset, OWNER, Properties, Snapshot};
use reddwarf_command::{Cause, CommandError};
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageId, SandboxId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The snapshot of an image that containers' root file systems are cloned from.
pub(crate) const GOLDEN: &str = "golden";
/// How often a dataset that is busy is tried again, and how long in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

fn invalid(op: &'static str, subject: &str, error: impl std::fmt::Display) -> HostError {
    HostError::new(HostErrorKind::Other, op, subject, error.to_string())
}

/// The dataset that all of ours lie below.
pub(crate) fn base(shared: &Shared) -> HostResult<Dataset> {
    Dataset::new(&shared.options.dataset).map_err(|e| invalid("name dataset", &shared.options.dataset, e))
}

fn below(shared: &Shared, components: &[&str]) -> HostResult<Dataset> {
    let mut dataset = base(shared)?;
    for component in components {
        dataset = dataset.child(component).map_err(|e| invalid("name dataset", component, e))?;
    }
    Ok(dataset)
}

pub(crate) fn pod(shared: &Shared, id: &SandboxId) -> HostResult<Dataset> {
    below(shared, &["pods", id.as_str()])
}

/// The dataset that zoneadm(8) makes for a zonepath.
pub(crate) fn zonepath(shared: &Shared, zone: &str) -> HostResult<Dataset> {
    below(shared, &["zones", zone])
}

pub(crate) fn roots(shared: &Shared, id: &SandboxId) -> HostResult<Dataset> {
    below(shared, &["pods", id.as_str(), "roots"])
}

pub(crate) fn slot(shared: &Shared, id: &SandboxId, slot: u32) -> HostResult<Dataset> {
    below(shared, &["pods", id.as_str(), "roots", &slot_name(slot)])
}

pub(crate) fn image(shared: &Shared, id: &ImageId) -> HostResult<Dataset> {
    below(shared, &["images", &image_component(id)])
}

pub(crate) fn golden(shared: &Shared, id: &ImageId) -> HostResult<Snapshot> {
    Snapshot::new(image(shared, id)?, GOLDEN).map_err(|e| invalid("name snapshot", id.as_str(), e))
}

/// Properties of ours, everywhere below the base, in one go.
pub(crate) async fn found(
    shared: &Shared,
    op: &'static str,
) -> HostResult<BTreeMap<String, BTreeMap<String, zfs::Property>>> {
    let base = base(shared)?;
    let text = match shared.tools().run(&zfs::get(&base, &[OWNER, "used", "io.reddwarf:image"])).await {
        Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
        Err(error) if error.cause() == Cause::NotFound => String::new(),
        Err(error) => return Err(error.into_host(op, base.as_str())),
    };
    zfs::properties(&text).map_err(|line| invalid(op, base.as_str(), format!("zfs get: line {line:?} makes no sense")))
}

/// Makes the base and what is always below it, once since the start.
pub(crate) async fn ensure_base(shared: &Shared, op: &'static str) -> HostResult<()> {
    let mut looked = shared.datasets.lock().await;
    if *looked {
        return Ok(());
    }
    let base = base(shared)?;
    let found = found(shared, op).await?;
    match found.get(base.as_str()) {
        None => {
            let mountpoint = shared.paths.pool().to_string_lossy().into_owned();
            let properties = Properties::from([
                ("mountpoint".to_owned(), mountpoint),
                (OWNER.to_owned(), shared.options.instance.clone()),
            ]);
            create(shared, op, &base, &properties).await?;
        }
        Some(of) => match of.get(OWNER).filter(|p| p.local) {
            Some(owner) if owner.value == shared.options.instance => {}
            Some(owner) => {
                let message = format!("it belongs to the instance {}: name another dataset", owner.value);
                return Err(HostError::new(HostErrorKind::Foreign, op, base.as_str(), message));
            }
            None => {
                let message = format!("exists and lacks the property {OWNER}: name another dataset, or set it by hand");
                return Err(HostError::new(HostErrorKind::Foreign, op, base.as_str(), message));
            }
        },
    }
    for part in ["zones", "images", "pods"] {
        let child = below(shared, &[part])?;
        if !found.contains_key(child.as_str()) {
            create(shared, op, &child, &marked(shared, part)).await?;
        }
    }
    *looked = true;
    Ok(())
}

fn marked(shared: &Shared, owner: &str) -> Properties {
    Properties::from([(OWNER.to_owned(), format!("{}/{owner}", shared.options.instance))])
}

/// Makes a dataset; there already is fine when the caller has looked whose it is.
async fn create(shared: &Shared, op: &'static str, dataset: &Dataset, properties: &Properties) -> HostResult<()> {
    match shared.tools().run(&zfs::create(dataset, properties)).await {
        Ok(_) => Ok(()),
        Err(error) if error.cause() == Cause::Exists => Ok(()),
        Err(error) => Err(error.into_host(op, dataset.as_str())),
    }
}

/// Makes a pod's datasets; whether they were missing.
pub(crate) async fn ensure_pod(shared: &Shared, op: &'static str, id: &SandboxId, uid: &str) -> HostResult<bool> {
    ensure_base(shared, op).await?;
    let (pod, roots) = (pod(shared, id)?, roots(shared, id)?);
    if is_there(shared, op, &roots).await? {
        return Ok(false);
    }
    create(shared, op, &pod, &marked(shared, uid)).await?;
    create(shared, op, &roots, &marked(shared, uid)).await?;
    Ok(true)
}

pub(crate) async fn is_there(shared: &Shared, op: &'static str, dataset: &Dataset) -> HostResult<bool> {
    match shared.tools().run(&zfs::get(dataset, &[OWNER])).await {
        Ok(_) => Ok(true),
        Err(error) if error.cause() == Cause::NotFound => Ok(false),
        Err(error) => Err(error.into_host(op, dataset.as_str())),
    }
}

/// From here on nobody, the pod's root included, can make or move what lies directly in `roots`.
pub(crate) async fn seal_roots(shared: &Shared, op: &'static str, id: &SandboxId) -> HostResult<()> {
    let roots = roots(shared, id)?;
    let properties = Properties::from([("readonly".to_owned(), "on".to_owned())]);
    if let Some(run) = zfs::set(&roots, &properties) {
        shared.run(op, roots.as_str(), &run).await?;
    }
    Ok(())
}

/// Makes an image's dataset.
pub(crate) async fn make_image(shared: &Shared, op: &'static str, id: &ImageId) -> HostResult<()> {
    create(shared, op, &image(shared, id)?, &marked(shared, "image")).await
}

/// Makes a container's root file system of an image, in constant time.
pub(crate) async fn clone_image(
    shared: &Shared,
    op: &'static str,
    id: &SandboxId,
    number: u32,
    image: &ImageId,
) -> HostResult<()> {
    let (from, to) = (golden(shared, image)?, slot(shared, id, number)?);
    let mut properties = marked(shared, id.as_str());
    properties.insert("readonly".to_owned(), "off".to_owned());
    match shared.tools().run(&zfs::clone(&from, &to, &properties)).await {
        Ok(_) => Ok(()),
        Err(error) if error.cause() == Cause::NotFound => {
            let message = format!("the image {image} is not in the store: import it");
            Err(HostError::new(HostErrorKind::NotFound, op, image.as_str(), message).caused_by(error))
        }
        Err(error) => Err(error.into_host(op, to.as_str())),
    }
}

/// Destroys a dataset of ours with all below it, never what was cloned from it; whether it was there. Waits a moment for
/// one that is busy.
pub(crate) async fn destroy(shared: &Shared, op: &'static str, dataset: &Dataset) -> HostResult<bool> {
    let failed = |error: CommandError| error.into_host(op, dataset.as_str());
    let mut done = false;
    for attempt in 1..=TRIES {
        let listed = match shared.tools().run(&zfs::destroy_dry_run(dataset)).await {
            Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
            // That it is gone is seen, not believed.
            Err(error) if error.cause() == Cause::NotFound => return Ok(done),
            Err(error) if error.cause() == Cause::Busy && attempt < TRIES => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        zfs::would_destroy(dataset, &listed).map_err(|e| invalid(op, dataset.as_str(), e))?;
        match shared.tools().run(&zfs::destroy(dataset)).await {
            Ok(_) => done = true,
            Err(error) if error.cause() == Cause::NotFound => {}
            Err(error) if error.cause() == Cause::Busy && attempt < TRIES => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(HostError::new(HostErrorKind::Busy, op, dataset.as_str(), "is busy; it is tried again"))
}
