//! Volumes of a sandbox on the host: made with it, gone with it.
//!
//! A files volume is laid out as the kubelet does it, so that an update shows at once and as a whole in containers
//! that have the volume bound in:
//!
//! ```text
//! ..2026_11_21_10_00_00.123456789/key     one complete set of files
//! ..data -> ..2026_11_21_10_00_00.1234…   exchanged by rename(2)
//! key -> ..data/key
//! ```
//!
//! A reader finds the old file or the new one at every moment: the old set goes a little later than its link, so that
//! whoever was on the way through the link arrives.

use crate::files::{io_error, make_dir, make_open_dir, names_in, remove_file, remove_tree};
use crate::mounts;
use crate::ownership;
use crate::paths::Paths;
use crate::record::wall_time;
use reddwarf_host::spec::{FileContent, FsGroup, HostPathKind, SandboxSpec, VolumeSpec};
use reddwarf_host::{HostError, HostErrorKind, HostResult, SandboxId, VolumeName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

const DATA: &str = "..data";

/// What can be told from the specs alone.
pub(crate) fn check(volumes: &BTreeMap<VolumeName, VolumeSpec>) -> HostResult<()> {
    for (name, volume) in volumes {
        match volume {
            VolumeSpec::Files { files, .. } => check_names(name, files)?,
            VolumeSpec::HostPath { path, .. } if !path.is_absolute() => {
                let message = format!("host path {} must be absolute", path.display());
                return Err(HostError::new(HostErrorKind::InvalidSpec, "make volume", name.as_str(), message));
            }
            VolumeSpec::HostPath { .. } | VolumeSpec::EmptyDir { .. } => {}
        }
    }
    Ok(())
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
            if dir.join(DATA).exists() {
                return Ok(false);
            }
            write_files(&dir, files, spec.fs_group).map_err(failed)?;
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
    check_names(name, files)?;
    let Some(dir) = location(paths, &spec.id, name, volume) else { return Ok(()) };
    write_files(&dir, files, spec.fs_group).map_err(|e| io_error("update volume", &dir, e))
}

/// Removes a sandbox's volumes; whether there were any. Content of host paths is not ours.
pub(crate) fn remove_all(paths: &Paths, id: &SandboxId) -> HostResult<bool> {
    let memory = paths.memory_volumes(id);
    let mut any = mounts::detach_below(&memory).map_err(|e| io_error("remove volumes", &memory, e))?;
    for dir in [memory, paths.secret_volumes(id), paths.disk_sandbox(id).join("volumes")] {
        any |= remove_tree(&dir).map_err(|e| io_error("remove volumes", &dir, e))?;
    }
    Ok(any)
}

fn check_names(volume: &VolumeName, files: &BTreeMap<String, FileContent>) -> HostResult<()> {
    for name in files.keys() {
        let plain = !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || name.starts_with("..") {
            let message = format!("file name {name:?} must be relative, without '..' and not begin with '..'");
            return Err(HostError::new(HostErrorKind::InvalidSpec, "write volume", volume.as_str(), message));
        }
    }
    Ok(())
}

fn write_files(dir: &Path, files: &BTreeMap<String, FileContent>, group: Option<FsGroup>) -> io::Result<()> {
    make_open_dir(dir)?;
    if group.is_none() {
        fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    }
    let set = fresh_name(dir)?;
    write_set(&dir.join(&set), files)?;
    ownership::give_files(&dir.join(&set), group)?;
    // From here on every reader sees the new set: one rename.
    let link = dir.join("..data.new");
    remove_file(&link)?;
    symlink(&set, &link)?;
    fs::rename(&link, dir.join(DATA))?;
    link_names(dir, files)?;
    let old = |name: &String| name.starts_with("..") && name != DATA && *name != set;
    let old: Vec<String> = names_in(dir)?.into_iter().filter(old).collect();
    if !old.is_empty() {
        std::thread::sleep(ON_THE_WAY);
    }
    for name in old {
        remove_tree(&dir.join(&name))?;
    }
    Ok(())
}

/// How long a reader may take from reading the link to opening what it points to.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// A directory name that no earlier set has, after the time of day as the kubelet names its own.
fn fresh_name(dir: &Path) -> io::Result<String> {
    let taken: BTreeSet<String> = names_in(dir)?.into_iter().collect();
    let base = wall_time().format("..%Y_%m_%d_%H_%M_%S.%f").to_string();
    let mut names = std::iter::once(base.clone()).chain((1_u32..).map(|n| format!("{base}-{n}")));
    names.find(|name| !taken.contains(name)).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

fn write_set(dir: &Path, files: &BTreeMap<String, FileContent>) -> io::Result<()> {
    make_open_dir(dir)?;
    for (name, content) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            make_open_dir(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content.bytes.expose())?;
        if let Some(owner) = content.owner {
            fchown(&file, Some(owner), None)?;
        }
        // After writing and past the umask.
        file.set_permissions(Permissions::from_mode(content.mode & 0o777))?;
    }
    Ok(())
}

/// Top-level names as links into `..data`; names that are gone lose theirs.
fn link_names(dir: &Path, files: &BTreeMap<String, FileContent>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|n| n.split('/').next()).collect();
    for name in names_in(dir)? {
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            remove_file(&dir.join(&name))?;
        }
    }
    for name in wanted {
        let link = dir.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::spec::Sensitive;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, FileContent> {
        let content = |t: &str| FileContent { bytes: Sensitive::new(t.as_bytes().to_vec()), mode: 0o440, owner: None };
        list.iter().map(|(n, t)| ((*n).to_owned(), content(t))).collect()
    }

    #[test]
    fn an_update_replaces_the_whole_set_and_leaves_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        write_files(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o440);
        write_files(&volume, &files(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(volume.join("c")).unwrap(), "4");
        assert!(!volume.join("sub").exists());
        assert_eq!(names_in(&volume).unwrap().len(), 4, "a, c, ..data and one set");
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let volume = VolumeName::new("v").unwrap();
        for bad in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(check_names(&volume, &files(&[(bad, "")])).is_err(), "{bad}");
        }
        assert!(check_names(&volume, &files(&[("a/b.txt", ""), (".hidden", "")])).is_ok());
    }
}
