//! The root of an `oci` container: overlayfs over its image's layers.

use super::mount::failed;
use super::{PREPARE, io_error};
use crate::mounts;
use crate::users::{self, Users};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use reddwarf_supervise::tree::remove_tree;
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options.
const OPTIONS_LIMIT: usize = 4095;

/// Mounts the overlay of `layers` (names of directories in `layers_dir`, lowest first) on `mountpoint`, with the
/// writable part in `dir`.
///
/// Changes the working directory: names relative to it are all that fits the options of images with many layers.
pub(super) fn prepare(
    layers_dir: &Path,
    layers: &[String],
    dir: &Path,
    mountpoint: &Path,
    users: Option<&Users>,
) -> HostResult<()> {
    let (upper, work) = (upper(dir), dir.join("work"));
    std::fs::create_dir_all(&upper).map_err(|e| io_error(PREPARE, &upper, e))?;
    // What an interrupted try left in it is of no use.
    remove_tree(&work).map_err(|e| io_error(PREPARE, &work, e.into()))?;
    std::fs::create_dir_all(&work).map_err(|e| io_error(PREPARE, &work, e))?;
    inherit_root_attributes(layers_dir, layers, &upper, users)?;
    let view = users.map(|users| view(layers_dir, dir, users)).transpose()?;
    let layers_dir = view.as_deref().unwrap_or(layers_dir);
    std::env::set_current_dir(layers_dir).map_err(|e| io_error(PREPARE, layers_dir, e))?;
    let options = options(layers, &upper, &work)?;
    mount(Some("overlay"), mountpoint, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|e| refused(e, mountpoint, dir))
}

pub(super) fn upper(dir: &Path) -> PathBuf {
    dir.join("upper")
}

/// The layers as a sandbox's own users see them. Only they are mapped: what overlayfs itself does in the writable part it
/// does as the host's root, whom a mapped mount would not know. New files there belong to the sandbox's users on disk.
fn view(layers_dir: &Path, dir: &Path, users: &Users) -> HostResult<PathBuf> {
    let place = dir.join("layers");
    std::fs::create_dir_all(&place).map_err(|e| io_error(PREPARE, &place, e))?;
    users
        .view(layers_dir)
        .and_then(|view| mounts::attach(&view, &place))
        .map_err(|e| io_error(PREPARE, layers_dir, e))?;
    Ok(place)
}

/// The upper directory's own mode and owner are the root directory's.
fn inherit_root_attributes(
    layers_dir: &Path,
    layers: &[String],
    upper: &Path,
    users: Option<&Users>,
) -> HostResult<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some(top) = layers.last() else { return Ok(()) };
    let lower = layers_dir.join(top);
    let meta = std::fs::metadata(&lower).map_err(|e| io_error(PREPARE, &lower, e))?;
    let outside = |id| Some(users::on_host(users, id));
    std::os::unix::fs::chown(upper, outside(meta.uid()), outside(meta.gid()))
        .and_then(|()| std::fs::set_permissions(upper, std::fs::Permissions::from_mode(meta.mode() & 0o7777)))
        .map_err(|e| io_error(PREPARE, upper, e))
}

fn options(layers: &[String], upper: &Path, work: &Path) -> HostResult<String> {
    let unsupported = |path: &Path, message: &str| {
        HostError::new(HostErrorKind::Unsupported, PREPARE, path.display().to_string(), message)
    };
    let plain = |path: &Path| -> HostResult<String> {
        // Kernel documentation, filesystems/overlayfs: these separate or escape in mount options.
        match path.to_str() {
            Some(text) if !text.contains([',', ':', '\\']) => Ok(text.to_owned()),
            _ => Err(unsupported(path, "overlayfs needs a state directory without ',', ':' and '\\' in its path")),
        }
    };
    let lower: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
    let text = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), plain(upper)?, plain(work)?);
    if text.len() > OPTIONS_LIMIT {
        let message = format!("{} layers are more than one overlayfs mount can name here", layers.len());
        return Err(HostError::new(HostErrorKind::InvalidSpec, PREPARE, upper.display().to_string(), message));
    }
    Ok(text)
}

fn refused(errno: Errno, mountpoint: &Path, dir: &Path) -> HostError {
    match errno {
        Errno::ENODEV => {
            let message = "the kernel has no overlayfs: load the module `overlay`, or use the brand `sparse`";
            HostError::new(HostErrorKind::Unsupported, PREPARE, mountpoint.display().to_string(), message)
                .caused_by(errno)
        }
        Errno::EINVAL => {
            let message = format!(
                "overlayfs refused {} as the place of a writable layer: put the state directory on ext4, xfs (ftype=1), \
                 btrfs or tmpfs, not on overlayfs, NFS or zfs before 2.2",
                dir.display()
            );
            HostError::new(HostErrorKind::Unsupported, PREPARE, mountpoint.display().to_string(), message)
                .caused_by(errno)
        }
        e => failed("mount overlay", mountpoint, e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_layer_comes_last_and_odd_paths_are_refused() {
        let layers = ["base".to_owned(), "top".to_owned()];
        assert_eq!(
            options(&layers, Path::new("/s/upper"), Path::new("/s/work")).unwrap(),
            "lowerdir=top:base,upperdir=/s/upper,workdir=/s/work"
        );
        for odd in ["/a,b", "/a:b", "/a\\b"] {
            let error = options(&layers, Path::new(odd), Path::new("/w")).unwrap_err();
            assert_eq!(error.kind, HostErrorKind::Unsupported, "{odd}");
        }
        let many: Vec<String> = (0..130).map(|i| format!("{i:032}")).collect();
        let error = options(&many, Path::new("/u"), Path::new("/w")).unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec);
    }
}
