//! Root file systems of containers: overlayfs on an image, a clone of one ([`crate::roots`]), or the `sparse` brand.
//!
//! Mounts are made by the shim's creator process in its own mount namespace, so they vanish with the container. What
//! lies on disk is the writable part only: `STATE/sandboxes/SANDBOX/containers/CONTAINER/ATTEMPT`.

mod mount;
mod overlay;
mod sparse;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "waits for the real machine, no longer than a deadline")]
mod tests;

use crate::image::store;
use crate::options::LinuxOptions;
use crate::users::Users;
use reddwarf_host::{Brand, Change, HostError, HostErrorKind, HostResult, spec::ContainerImage};
use reddwarf_supervise::tree;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(crate) const PREPARE: &str = "prepare root file system";
const RELEASE: &str = "remove root file system";

/// The brand that needs no image.
pub(crate) const SPARSE: &str = "sparse";
/// The brand of OCI images.
pub(crate) const OCI: &str = "oci";

/// What the creator process of a shim needs in order to make one root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RootfsRequest {
    pub(crate) options: LinuxOptions,
    pub(crate) brand: Brand,
    pub(crate) image: ContainerImage,
    /// On disk, for this instance alone (`Paths::disk_container`); exists and is empty, or holds what an earlier try
    /// left. The writable layer goes here; it is kept until `release`.
    pub(crate) dir: PathBuf,
    /// An existing empty directory to mount the root file system on.
    pub(crate) mountpoint: PathBuf,
    /// Whose the files are to be, where they are not the host's users'.
    #[serde(default)]
    pub(crate) users: Option<Users>,
    /// The image's clone that is to be the root; absent for overlayfs on its layers.
    #[serde(default)]
    pub(crate) cloned: Option<PathBuf>,
}

/// Where a root comes from, found and checked.
enum Source {
    /// The host's own programs, from this directory.
    Host(PathBuf),
    /// Layers of the image store, lowest first.
    Layers(Vec<String>),
}

/// Checks, in the daemon and before anything is started, that `prepare` will find what it needs.
///
/// # Errors
/// `NotFound` (image), `InvalidSpec` (brand), `Unsupported`.
pub(crate) fn check(options: &LinuxOptions, brand: &Brand, image: &ContainerImage) -> HostResult<()> {
    source(options, brand, image).map(drop)
}

fn source(options: &LinuxOptions, brand: &Brand, image: &ContainerImage) -> HostResult<Source> {
    let invalid = |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, PREPARE, brand.as_str(), message));
    match (brand.as_str(), image) {
        // An image may be given to a sparse sandbox: that container runs from it.
        (SPARSE | OCI, ContainerImage::Image { id }) => {
            let record = store::Store::of(options).record(id)?;
            let missing = || HostError::new(HostErrorKind::NotFound, PREPARE, id.as_str(), "no such image here");
            Ok(Source::Layers(record.ok_or_else(missing)?.layers))
        }
        (SPARSE, ContainerImage::Brand) => {
            let usr = options.sparse_usr.clone().unwrap_or_else(|| PathBuf::from("/usr"));
            if usr.is_dir() {
                return Ok(Source::Host(usr));
            }
            let message = "not a directory: there is nothing to run from";
            Err(HostError::new(HostErrorKind::Unsupported, PREPARE, usr.display().to_string(), message))
        }
        (OCI, ContainerImage::Brand) => {
            invalid("the brand oci needs an image; the brand sparse runs the host's own programs".to_owned())
        }
        (other, _) => invalid(format!("this host has the brands {OCI} and {SPARSE}, not {other}")),
    }
}

/// Mounts the root file system and returns its path. Runs in the shim's creator process: single-threaded, no tokio,
/// in a mount namespace of its own (private or slave), so the mounts vanish with the container by themselves. Changes
/// the working directory.
///
/// # Errors
/// As [`check`], and `Exhausted`, `Other` when a mount or a write fails.
pub(crate) fn prepare(request: &RootfsRequest) -> HostResult<PathBuf> {
    let RootfsRequest { options, brand, image, dir, mountpoint, users, cloned } = request;
    let users = users.as_ref();
    match (source(options, brand, image)?, cloned) {
        (Source::Host(usr), _) => sparse::prepare(&usr, dir, mountpoint, users)?,
        (Source::Layers(_), Some(cloned)) => mount::bind_tree(cloned, mountpoint, users)?,
        (Source::Layers(layers), None) => {
            overlay::prepare(&store::Store::of(options).layers_dir(), &layers, dir, mountpoint, users)?
        }
    }
    Ok(mountpoint.clone())
}

/// Where below `dir` lies what the container changed in its image, where its root is an overlay.
pub(crate) fn changes_dir(dir: &Path) -> PathBuf {
    overlay::upper(dir)
}

/// Removes what `prepare` left in `dir`, and `dir`. Runs in the daemon, after the container has ended. Blocking.
///
/// # Errors
/// `Busy` while something is mounted there, `Other`.
pub(crate) fn release(dir: &Path) -> HostResult<Change> {
    match tree::remove_tree(dir) {
        Ok(true) => Ok(Change::Changed(format!("removed {}", dir.display()))),
        Ok(false) => Ok(Change::Unchanged),
        Err(e @ nix::errno::Errno::EBUSY) => {
            let message = "something is still mounted there";
            Err(HostError::new(HostErrorKind::Busy, RELEASE, dir.display().to_string(), message).caused_by(e))
        }
        Err(e) => Err(io_error(RELEASE, dir, e.into())),
    }
}

pub(crate) fn io_error(op: &'static str, path: &Path, error: std::io::Error) -> HostError {
    use std::io::ErrorKind;
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory => HostErrorKind::Exhausted,
        ErrorKind::NotFound => HostErrorKind::NotFound,
        ErrorKind::ResourceBusy => HostErrorKind::Busy,
        _ => HostErrorKind::Other,
    };
    let message = error.to_string();
    HostError::new(kind, op, path.display().to_string(), message).caused_by(error)
}
