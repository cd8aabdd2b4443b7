//! Our datasets: the one that all lie below, one for each pod, clones of images. Marked by a user property that counts only
//! where it was set on the dataset itself.

use crate::host::Shared;
use crate::paths::{image_component, slot_name};
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageId, SandboxId};
use reddwarf_storage::zfs::pool::Zfs;
use reddwarf_storage::zfs::text::{Dataset, OWNER, Properties, Property, Snapshot};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// What always lies below the base.
const PARTS: [&str; 3] = ["zones", "images", "pods"];

/// The snapshot of an image that containers' root file systems are cloned from.
const GOLDEN: &str = "golden";

fn zfs(shared: &Shared) -> Zfs<'_> {
    Zfs(shared.tools())
}

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
) -> HostResult<BTreeMap<String, BTreeMap<String, Property>>> {
    zfs(shared).properties(op, &base(shared)?, &[OWNER, "used", "io.reddwarf:image"]).await
}

/// Properties of somebody's dataset; `None` when it is not there.
pub(crate) async fn properties_of(
    shared: &Shared,
    op: &'static str,
    of: &Dataset,
    names: &[&str],
) -> HostResult<Option<BTreeMap<String, Property>>> {
    zfs(shared).properties_of(op, of, names).await
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
            zfs(shared).create(op, &base, &properties).await?;
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
    for part in PARTS {
        let child = below(shared, &[part])?;
        if !found.contains_key(child.as_str()) {
            zfs(shared).create(op, &child, &marked(shared, part)).await?;
        }
    }
    check_mounted(shared, op).await?;
    *looked = true;
    Ok(())
}

/// Zonepaths and roots are named by where these datasets are mounted: one that is mounted elsewhere, or not at all, would have
/// zones' files end up beside it.
async fn check_mounted(shared: &Shared, op: &'static str) -> HostResult<()> {
    let all = zfs(shared).properties(op, &base(shared)?, &["mountpoint", "mounted"]).await?;
    let pool = shared.paths.pool();
    let places = PARTS.map(|part| (below(shared, &[part]), pool.join(part)));
    for (dataset, place) in std::iter::once((base(shared), pool.clone())).chain(places) {
        let dataset = dataset?;
        let value = |name: &str| all.get(dataset.as_str()).and_then(|of| of.get(name)).map(|p| p.value.as_str());
        let (at, mounted) = (value("mountpoint").unwrap_or("none"), value("mounted"));
        let fail = |what: String| Err(HostError::new(HostErrorKind::InvalidState, op, dataset.as_str(), what));
        if Path::new(at) != place {
            let place = place.display();
            return fail(format!("its mountpoint is {at}, and not {place}: zfs set mountpoint={place} {dataset}"));
        }
        if mounted != Some("yes") {
            return fail(format!("it is not mounted: zfs mount {dataset}"));
        }
    }
    Ok(())
}

fn marked(shared: &Shared, owner: &str) -> Properties {
    Properties::from([(OWNER.to_owned(), format!("{}/{owner}", shared.options.instance))])
}

/// Makes a pod's datasets; whether they were missing.
pub(crate) async fn ensure_pod(shared: &Shared, op: &'static str, id: &SandboxId, uid: &str) -> HostResult<bool> {
    ensure_base(shared, op).await?;
    let (pod, roots) = (pod(shared, id)?, roots(shared, id)?);
    if zfs(shared).is_there(op, &roots).await? {
        return Ok(false);
    }
    zfs(shared).create(op, &pod, &marked(shared, uid)).await?;
    zfs(shared).create(op, &roots, &marked(shared, uid)).await?;
    Ok(true)
}

/// From here on nobody, the pod's root included, can make or move what lies directly in `roots`.
pub(crate) async fn seal_roots(shared: &Shared, op: &'static str, id: &SandboxId) -> HostResult<()> {
    let properties = Properties::from([("readonly".to_owned(), "on".to_owned())]);
    zfs(shared).set(op, &roots(shared, id)?, &properties).await
}

/// Keeps an image's files as they are now.
pub(crate) async fn seal_image(shared: &Shared, op: &'static str, id: &ImageId) -> HostResult<()> {
    zfs(shared).snapshot(op, &golden(shared, id)?).await
}

/// Makes an image's dataset.
pub(crate) async fn make_image(shared: &Shared, op: &'static str, id: &ImageId) -> HostResult<()> {
    zfs(shared).create(op, &image(shared, id)?, &marked(shared, "image")).await
}

/// Adds a stream to an image's dataset that is being made; the first makes it. Not mounted.
pub(crate) async fn receive_part(
    shared: &Shared,
    op: &'static str,
    id: &ImageId,
    number: usize,
    stream: File,
) -> HostResult<()> {
    let to = Snapshot::new(image(shared, id)?, &format!("part-{number}"));
    zfs(shared).receive(op, stream, &to.map_err(|e| invalid(op, id.as_str(), e))?).await
}

/// Mounts an image's dataset that was received, and marks it as ours. What streams say of themselves is checked first: it is a
/// file system alone, and lies where all images do.
pub(crate) async fn adopt_image(shared: &Shared, op: &'static str, id: &ImageId) -> HostResult<()> {
    let dataset = image(shared, id)?;
    let found = zfs(shared).properties(op, &dataset, &["mountpoint", "zoned"]).await?;
    let value = |name: &str| found.get(dataset.as_str())?.get(name).map(|p| p.value.clone());
    let place = shared.paths.pool().join("images").join(image_component(id));
    let refuse = |why: String| Err(HostError::new(HostErrorKind::InvalidSpec, op, id.as_str(), why));
    if let Some(inner) = found.keys().find(|name| *name != dataset.as_str()) {
        return refuse(format!("its streams hold {inner} too: an image is one file system"));
    }
    match (value("mountpoint"), value("zoned")) {
        (Some(at), zoned) if Path::new(&at) == place && zoned.as_deref() != Some("on") => {}
        (Some(at), zoned) if zoned.as_deref() != Some("on") => {
            return refuse(format!("its streams want to be mounted at {at}, not below {}", place.display()));
        }
        _ => return refuse("its streams hold no file system, or one that is given to a zone".to_owned()),
    }
    zfs(shared).set(op, &dataset, &marked(shared, "image")).await?;
    zfs(shared).mount(op, &dataset).await
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
    zfs(shared).clone(op, &from, &to, &properties).await.map_err(|error| match error.kind {
        HostErrorKind::NotFound => {
            let message = format!("the image {image} is not in the store: import it");
            HostError::new(HostErrorKind::NotFound, op, image.as_str(), message).caused_by(error)
        }
        _ => error,
    })
}

/// Snapshots of templates that a zone's datasets are clones of.
pub(crate) async fn origins(shared: &Shared, op: &'static str, zone: &str) -> HostResult<Vec<Snapshot>> {
    let templates = below(shared, &["zones"])?;
    let found = zfs(shared).properties(op, &zonepath(shared, zone)?, &["origin"]).await?;
    let of = found.into_values().filter_map(|of| Snapshot::parse(&of.get("origin")?.value).ok());
    Ok(of.filter(|origin| origin.dataset.is_within(&templates)).collect())
}

/// Destroys a snapshot that nothing is a clone of any more.
pub(crate) async fn destroy_origin(shared: &Shared, op: &'static str, origin: &Snapshot) -> HostResult<bool> {
    zfs(shared).destroy_snapshot(op, origin).await
}

/// Destroys a dataset of ours with all below it; whether it was there.
pub(crate) async fn destroy(shared: &Shared, op: &'static str, dataset: &Dataset) -> HostResult<bool> {
    zfs(shared).destroy(op, dataset).await
}
