//! The upper directory of an overlay, as the kernel keeps it (Documentation/filesystems/overlayfs.rst): what a container
//! changed in its image.

use super::error::{Kind, Result, UnpackError};
use super::xattr;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What the host put there itself.
pub(super) struct Overlay {
    /// Relative paths; empty files and directories there are no content.
    mount_points: BTreeSet<PathBuf>,
}

impl Overlay {
    /// `mount_points` as the container sees them: absolute.
    pub(super) fn new(mount_points: &[PathBuf]) -> Self {
        let relative =
            |path: &PathBuf| path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
        Self { mount_points: mount_points.iter().map(relative).collect() }
    }

    pub(super) fn is_mount_point(&self, path: &Path) -> bool {
        self.mount_points.contains(path)
    }
}

/// Whether a directory hides all that lies below it.
pub(super) fn is_opaque(dir: &OwnedFd, shown: &Path) -> Result<bool> {
    // Whole trees that were renamed are kept as a reference to the layer below.
    refuse(dir, c"trusted.overlay.redirect", shown)?;
    Ok(value(dir, c"trusted.overlay.opaque", shown)?.is_some_and(|v| v == b"y"))
}

/// Whether a file's content is all here.
pub(super) fn check_whole(file: &OwnedFd, shown: &Path) -> Result<()> {
    refuse(file, c"trusted.overlay.metacopy", shown)
}

fn refuse(file: &OwnedFd, name: &CStr, shown: &Path) -> Result<()> {
    match value(file, name, shown)? {
        None => Ok(()),
        Some(_) => Err(UnpackError::new(
            Kind::Unsupported,
            format!(
                "{}: the kernel keeps only a reference to the layer below ({}): turn off redirect_dir and metacopy of the \
                 module overlay",
                shown.display(),
                name.to_string_lossy()
            ),
        )),
    }
}

fn value(file: &OwnedFd, name: &CStr, shown: &Path) -> Result<Option<Vec<u8>>> {
    match xattr::get(file, name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        Err(e) => Err(UnpackError::system("read attributes of", shown.display(), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_however_they_are_written() {
        let overlay = Overlay::new(&["/proc".into(), "/etc//hosts".into(), "data/".into()]);
        for (path, is) in [("proc", true), ("etc/hosts", true), ("data", true), ("etc", false), ("", false)] {
            assert_eq!(overlay.is_mount_point(Path::new(path)), is, "{path}");
        }
    }
}
