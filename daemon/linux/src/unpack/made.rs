//! Layers that are made here: of files of the host, or of what a container changed.

use super::error::{Result, UnpackError};
use super::overlay::Overlay;
use super::pack::Packer;
use super::source::LayerSource;
use reddwarf_host::{BuildFile, UnpackLimits};
use std::path::{Component, Path, PathBuf};

/// Packs files into `scratch`, in their order.
///
/// # Errors
/// `NotFound`, `Invalid` (a target that is none, a device node), `Exhausted`, `Other`.
pub(super) fn files(files: &[BuildFile], scratch: &Path, limits: &UnpackLimits) -> Result<Option<LayerSource>> {
    let mut packer = Packer::new(scratch, limits)?;
    for BuildFile { source, target, owner } in files {
        // The user's own link is meant to be followed.
        let real = std::fs::canonicalize(source).map_err(|e| UnpackError::io("read", source.display(), &e))?;
        let below = relative(target)?;
        if real.is_dir() {
            packer.place(&below, *owner);
            packer.content(&real)?;
            continue;
        }
        let named = match source.file_name() {
            Some(name) if target.ends_with('/') => below.join(name),
            _ => below,
        };
        if named.as_os_str().is_empty() {
            return Err(UnpackError::invalid(format!("{} can't be the image's root: it is a file", source.display())));
        }
        packer.place(Path::new(""), *owner);
        packer.single(&real, &named)?;
    }
    finish(packer, 0)
}

/// Packs what a container changed, its own mounts left out, into `scratch`; `None`: nothing. `changed` is the upper
/// directory of its overlay or, with an `origin`, the clone of that.
///
/// # Errors
/// `Invalid` for device nodes and too many entries, `Unsupported`, `Exhausted`, `Other`.
pub(super) fn changes(
    changed: &Path,
    origin: Option<&Path>,
    mount_points: &[PathBuf],
    scratch: &Path,
    limits: &UnpackLimits,
) -> Result<Option<LayerSource>> {
    let mut packer = Packer::new(scratch, limits)?.of_overlay(Overlay::new(mount_points));
    if let Some(origin) = origin {
        let opened = super::layer::open_root(origin);
        packer = packer.since(opened.map_err(|e| UnpackError::system("open", origin.display(), e))?);
    }
    packer.tree(changed)?;
    // The root directory is always among them.
    finish(packer, 1)
}

fn finish(packer: Packer, nothing: u64) -> Result<Option<LayerSource>> {
    if packer.entries() <= nothing { Ok(None) } else { packer.finish().map(Some) }
}

/// An absolute path below the root.
fn relative(target: &str) -> Result<PathBuf> {
    let invalid = || UnpackError::invalid(format!("target {target:?}: give an absolute path without `..`"));
    if !target.starts_with('/') || target.contains('\0') {
        return Err(invalid());
    }
    let mut path = PathBuf::new();
    for component in Path::new(target).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(invalid()),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_and_stay_below_the_root() {
        assert_eq!(relative("/").unwrap(), Path::new(""));
        assert_eq!(relative("//srv/./www/").unwrap(), Path::new("srv/www"));
        for bad in ["", "srv", "/a/../b", "../x", "/a\0"] {
            assert!(relative(bad).is_err(), "{bad:?}");
        }
    }
}
