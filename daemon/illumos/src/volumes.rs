//! Volumes of a sandbox on the host: made with it, gone with its dataset.

use crate::host::Shared;
use crate::inside;
use reddwarf_host::spec::{HostPathKind, SandboxSpec, VolumeSpec};
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId, VolumeName};
use reddwarf_supervise::files::{io_error, make_open_dir};
use reddwarf_supervise::{files_volume, ownership};
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

const OP: &str = "make volume";

/// What can be told from the specs alone, and whether host paths may be had.
pub(crate) fn check(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    for (name, volume) in &spec.volumes {
        match volume {
            VolumeSpec::Files { files, .. } => files_volume::check_names(name, files)?,
            VolumeSpec::HostPath { path, kind } => host_path(shared, name, path, *kind)?,
            VolumeSpec::Persistent { path } => persistent(name, path)?,
            VolumeSpec::EmptyDir { .. } => {}
        }
    }
    Ok(())
}

/// The data of a volume that outlives the zone is there, and is never made here: a directory in its place would take what
/// belongs to a dataset that is not mounted.
fn persistent(name: &VolumeName, path: &Path) -> HostResult<()> {
    if path.is_absolute() && path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let message = format!("{} is not there: is the storage that it lies on mounted?", path.display());
    Err(HostError::new(HostErrorKind::NotFound, OP, name.as_str(), message))
}

/// A path of the host lies where the settings allow, leads through no link, and is of the kind that is asked for. The
/// directories on its way belong to root alone below what is allowed only as far as the administrator saw to it.
fn host_path(shared: &Shared, name: &VolumeName, path: &Path, kind: HostPathKind) -> HostResult<()> {
    let refuse =
        |kind, why: String| Err(HostError::new(kind, OP, name.as_str(), format!("hostPath {} {why}", path.display())));
    if !path.is_absolute() || !shared.options.host_path_allow.iter().any(|allowed| path.starts_with(allowed)) {
        return refuse(
            HostErrorKind::InvalidSpec,
            "is not below a path of host_path_allow in reddwarfd.toml".to_owned(),
        );
    }
    match (kind, path.symlink_metadata().is_err()) {
        (HostPathKind::DirectoryOrCreate, true) => make_open_dir(path).map_err(|e| io_error(OP, path, e))?,
        (HostPathKind::FileOrCreate, true) => {
            fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| io_error(OP, path, e))?;
        }
        _ => {}
    }
    match path.canonicalize() {
        Ok(real) if real == path => {}
        Ok(real) => {
            let why = format!("leads through a symbolic link: name {}", real.display());
            return refuse(HostErrorKind::InvalidSpec, why);
        }
        Err(error) => return refuse(HostErrorKind::Other, format!("can't be used: {error}")),
    }
    let found = path.symlink_metadata().map_err(|e| io_error(OP, path, e))?.file_type();
    let fits = match kind {
        HostPathKind::Any => true,
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => found.is_dir(),
        HostPathKind::File | HostPathKind::FileOrCreate => found.is_file(),
        HostPathKind::Socket => found.is_socket(),
        HostPathKind::CharDevice => found.is_char_device(),
        HostPathKind::BlockDevice => found.is_block_device(),
    };
    if fits { Ok(()) } else { refuse(HostErrorKind::Other, format!("is not what the pod says ({kind:?})")) }
}

/// Makes all volumes that are missing. The zone does not run yet.
pub(crate) fn make_all(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    for (name, volume) in &spec.volumes {
        if let (VolumeSpec::Persistent { path }, Some(group)) = (volume, spec.fs_group) {
            ownership::give_volume(path, volume, group).map_err(|e| io_error(OP, path, e))?;
        }
        let Some(dir) = location(shared, &spec.id, name, volume) else { continue };
        let failed = |e| io_error(OP, &dir, e);
        match volume {
            VolumeSpec::EmptyDir { .. } => {
                if !dir.is_dir() {
                    make_open_dir(&dir).map_err(failed)?;
                    // Whoever the containers run as must be able to write.
                    fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(failed)?;
                }
            }
            VolumeSpec::Files { files, .. } => {
                if !dir.join(files_volume::DATA).exists() {
                    files_volume::write(&dir, files, spec.fs_group).map_err(failed)?;
                }
            }
            VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => {}
        }
        if let Some(group) = spec.fs_group {
            ownership::give_volume(&dir, volume, group).map_err(failed)?;
        }
    }
    Ok(())
}

/// Where a volume lies on the host; `None` for paths of the host itself and volumes on memory, which the zone mounts.
pub(crate) fn location(shared: &Shared, id: &SandboxId, name: &VolumeName, volume: &VolumeSpec) -> Option<PathBuf> {
    match volume {
        VolumeSpec::EmptyDir { memory: false, .. } => Some(shared.paths.empty_dir(id, name)),
        VolumeSpec::Files { secret: false, .. } => Some(shared.paths.files_volume(id, name)),
        VolumeSpec::Files { secret: true, .. } => Some(shared.paths.secret_volume(id, name)),
        VolumeSpec::EmptyDir { memory: true, .. } | VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => None,
    }
}

/// Where the zone sees a volume, from its root.
pub(crate) fn seen(name: &VolumeName, volume: &VolumeSpec) -> PathBuf {
    let place = match volume {
        VolumeSpec::EmptyDir { memory: false, .. } => "rw/volumes",
        VolumeSpec::EmptyDir { memory: true, .. } => "memory",
        VolumeSpec::Files { secret: false, .. } => "ro/files",
        VolumeSpec::Files { secret: true, .. } => "run/secret",
        VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => "host",
    };
    inside::path(place).join(name.as_str())
}
