//! Root file systems of containers: overlayfs on an image, or the `sparse` brand.

use crate::options::LinuxOptions;
use reddwarf_host::{Brand, Change, HostResult, spec::ContainerImage};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
}

/// Checks, in the daemon and before anything is started, that `prepare` will find what it needs.
///
/// # Errors
/// `NotFound` (image), `InvalidSpec` (brand), `Unsupported`.
pub(crate) fn check(options: &LinuxOptions, brand: &Brand, image: &ContainerImage) -> HostResult<()> {
    let _ = (options, brand, image);
    Err(crate::host::unwritten("rootfs"))
}

/// Mounts the root file system and returns its path. Runs in the shim's creator process: single-threaded, no tokio,
/// in a mount namespace of its own (private or slave), so the mounts vanish with the container by themselves.
pub(crate) fn prepare(request: &RootfsRequest) -> HostResult<PathBuf> {
    let _ = request;
    Err(crate::host::unwritten("rootfs"))
}

/// Removes what `prepare` left in `dir`, and `dir`. Runs in the daemon, after the container has ended.
pub(crate) fn release(dir: &Path) -> HostResult<Change> {
    let _ = dir;
    Err(crate::host::unwritten("rootfs"))
}
