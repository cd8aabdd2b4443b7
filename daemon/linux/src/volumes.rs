//! Volumes of a sandbox on the host: made with it, gone with it.

use crate::files::{io_error, make_dir, make_open_dir, remove_tree};
use crate::files_volume;
use crate::mounts;
use crate::ownership;
use crate::paths::Paths;
use reddwarf_host::spec::{FileContent, HostPathKind, SandboxSpec, VolumeSpec};
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId, VolumeName};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// What can be told from the specs alone.
pub(crate) fn check(volumes: &BTreeMap<VolumeName, VolumeSpec>) -> HostResult<()> {
    for (name, volume) in volumes {
        match volume {
            VolumeSpec::Files { files, .. } => files_volume::check_names(name, files)?,
            VolumeSpec::HostPath { path, .. } if !path.is_absolute() => {
                let message = format!("host path {} must be absolute", path.display());
                return Err(HostError::new(HostErrorKind::InvalidSpec, "make volume", name.as_str(), message));
            }
            VolumeSpec::Persistent { path } if !is_plain(path) => {
                let message = format!("path {} of a persistent volume must be absolute, without '..'", path.display());
                return Err(HostError::new(HostErrorKind::InvalidSpec, "make volume", name.as_str(), message));
            }
            VolumeSpec::HostPath { .. } | VolumeSpec::EmptyDir { .. } | VolumeSpec::Persistent { .. } => {}
        }
    }
    Ok(())
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir))
}

/// Makes all volumes that are missing; whether something was done. Content that is there already stays.
pub(crate) fn make_all(paths: &Paths, spec: &SandboxSpec) -> HostResult<bool> {
    let mut any = false;
    for (name, volume) in &spec.volumes {
        any |= make(paths, spec, name, volume)?;
    }
    Ok(any)
}

fn make(paths: &Paths, spec: &SandboxSpec, name: &VolumeName, volume: &VolumeSpec) -> HostResult<bool> {
    let Some(dir) = location(paths, &spec.id, name, volume) else { return Ok(false) };
    let failed = |e| io_error("make volume", &dir, e);
    match volume {
        // Never made here: a directory in its place would take the data that belongs to a volume that is not mounted.
        VolumeSpec::Persistent { .. } => {
            if !fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir()) {
                let message = format!("{} is not there: is the storage that it lies on mounted?", dir.display());
                return Err(HostError::new(HostErrorKind::NotFound, "mount persistent volume", name.as_str(), message));
            }
            return Ok(false);
        }
        VolumeSpec::EmptyDir { memory: true, size_limit_bytes } => {
            if mounts::targets_below(&dir).map_err(failed)?.contains(&dir) {
                return Ok(false);
            }
            make_dir(&dir).map_err(failed)?;
            // Open to whoever the containers run as, like an emptyDir on disk.
            let mut options = String::from("mode=0777");
            if let Some(bytes) = size_limit_bytes {
                options.push_str(&format!(",size={}", (*bytes).max(4096)));
            }
            mounts::mount_tmpfs(&dir, &options).map_err(failed)?;
        }
        VolumeSpec::EmptyDir { memory: false, .. } => {
            if dir.is_dir() {
                return Ok(false);
            }
            make_open_dir(&dir).map_err(failed)?;
            // Whoever the containers run as must be able to write.
            fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(failed)?;
        }
        VolumeSpec::Files { files, .. } => {
            if dir.join(files_volume::DATA).exists() {
                return Ok(false);
            }
            files_volume::write(&dir, files, spec.fs_group).map_err(failed)?;
        }
        VolumeSpec::HostPath { .. } => {}
    }
    Ok(true)
}

/// Where a volume lies on the host; `None` for paths of the host itself.
pub(crate) fn location(paths: &Paths, id: &SandboxId, name: &VolumeName, volume: &VolumeSpec) -> Option<PathBuf> {
    match volume {
        VolumeSpec::EmptyDir { memory: true, .. } => Some(paths.memory_volume(id, name)),
        VolumeSpec::Files { secret: true, .. } => Some(paths.secret_volume(id, name)),
        VolumeSpec::EmptyDir { memory: false, .. } | VolumeSpec::Files { secret: false, .. } => {
            Some(paths.disk_volume(id, name))
        }
        VolumeSpec::Persistent { path } => Some(path.clone()),
        VolumeSpec::HostPath { .. } => None,
    }
}

/// What a mount of this volume is made from.
pub(crate) fn source(
    paths: &Paths,
    id: &SandboxId,
    name: &VolumeName,
    volume: &VolumeSpec,
) -> (PathBuf, Option<HostPathKind>) {
    match volume {
        VolumeSpec::HostPath { path, kind } => (path.clone(), Some(*kind)),
        other => (location(paths, id, name, other).unwrap_or_default(), None),
    }
}

/// Replaces the content of a files volume.
pub(crate) fn update(
    paths: &Paths,
    spec: &SandboxSpec,
    name: &VolumeName,
    volume: &VolumeSpec,
    files: &BTreeMap<String, FileContent>,
) -> HostResult<()> {
    let Some(dir) = location(paths, &spec.id, name, volume) else { return Ok(()) };
    files_volume::write(&dir, files, spec.fs_group).map_err(|e| io_error("update volume", &dir, e))
}

/// Removes a sandbox's volumes; whether there were any. Content of host paths is not ours.
pub(crate) fn remove_all(paths: &Paths, id: &SandboxId) -> HostResult<bool> {
    let mut any = false;
    for dir in [paths.memory_volumes(id), paths.secret_volumes(id), paths.disk_sandbox(id).join("volumes")] {
        // What a privileged pod mounted there (`Bidirectional`) is somebody else's: let go of, never removed along.
        any |= mounts::detach_below(&dir).map_err(|e| io_error("remove volumes", &dir, e))?;
        any |= remove_tree(&dir).map_err(|e| io_error("remove volumes", &dir, e))?;
    }
    Ok(any)
}

/// Gives all volumes of a sandbox to its group, host paths aside. Nothing runs in it at this time.
pub(crate) fn give_all(paths: &Paths, spec: &SandboxSpec) -> HostResult<()> {
    let Some(group) = spec.fs_group else { return Ok(()) };
    for (name, volume) in &spec.volumes {
        let Some(dir) = location(paths, &spec.id, name, volume) else { continue };
        ownership::give_volume(&dir, volume, group).map_err(|e| io_error("give volume to fsGroup", &dir, e))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount};

    #[test]
    fn what_a_pod_left_mounted_in_its_volumes_is_let_go_of_and_stays_whole() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Reached through a link, as where the state directory is one.
        fs::create_dir(dir.path().join("state")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("state"), dir.path().join("link")).unwrap();
        let (paths, id) =
            (Paths::new(&dir.path().join("run"), &dir.path().join("link")), SandboxId::new("pod").unwrap());
        let share = dir.path().join("share");
        let inner = paths.disk_volume(&id, &VolumeName::new("cache").unwrap()).join("inner");
        for at in [&share, &inner] {
            fs::create_dir_all(at).unwrap();
        }
        fs::write(share.join("precious"), "not ours").unwrap();
        mount(Some(&share), &inner, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let removed = remove_all(&paths, &id);
        let kept = fs::read_to_string(share.join("precious"));
        let _ = mounts::detach_below(dir.path());
        assert!(removed.unwrap());
        assert_eq!(kept.unwrap(), "not ours");
        assert!(!paths.disk_sandbox(&id).join("volumes").exists());
    }
}
