//! Volumes of files, given by content and replaced as a whole.
//!
//! They are laid out as the kubelet does it, so that an update shows at once and as a whole in containers
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

use crate::files::{make_open_dir, names_in, remove_file, remove_tree};
use crate::ownership;
use crate::record::wall_time;
use reddwarf_host::spec::{FileContent, FsGroup, SandboxSpec, VolumeSpec};
use reddwarf_host::{HostError, HostErrorKind, HostResult, VolumeName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path};
use std::time::Duration;

/// The link to the set that is shown.
pub const DATA: &str = "..data";

/// Names that stay inside.
///
/// # Errors
/// `InvalidSpec`.
pub fn check_names(volume: &VolumeName, files: &BTreeMap<String, FileContent>) -> HostResult<()> {
    for name in files.keys() {
        let plain = !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || name.starts_with("..") {
            let message = format!("file name {name:?} must be relative, without '..' and not begin with '..'");
            return Err(HostError::new(HostErrorKind::InvalidSpec, "write volume", volume.as_str(), message));
        }
    }
    Ok(())
}

/// What is to be shown in place of what a sandbox's volume holds (`volume_update`); `None`: it holds that.
///
/// # Errors
/// `NotFound`; `InvalidSpec` for volumes of another kind, and for names that lead outside.
pub fn replacement<'a>(
    sandbox: &SandboxSpec,
    volume: &VolumeName,
    wanted: &'a VolumeSpec,
) -> HostResult<Option<&'a BTreeMap<String, FileContent>>> {
    let fail =
        |kind, message: &str| Err(HostError::new(kind, "update volume", format!("{}/{volume}", sandbox.id), message));
    let Some(present) = sandbox.volumes.get(volume) else { return fail(HostErrorKind::NotFound, "no such volume") };
    let (VolumeSpec::Files { secret: was_secret, .. }, VolumeSpec::Files { files, secret }) = (present, wanted) else {
        return fail(HostErrorKind::InvalidSpec, "only volumes of files can be updated");
    };
    if was_secret != secret {
        return fail(HostErrorKind::InvalidSpec, "plain files can't become secret ones or the other way round");
    }
    if present == wanted {
        return Ok(None);
    }
    check_names(volume, files)?;
    Ok(Some(files))
}

/// Writes a set and shows it in one step; what was shown before goes a moment later.
///
/// # Errors
/// The system's.
pub fn write(dir: &Path, files: &BTreeMap<String, FileContent>, group: Option<FsGroup>) -> io::Result<()> {
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

/// How long a reader may take from reading the link to opening what it points to: on a busy machine it may have to wait
/// for its turn in between.
const ON_THE_WAY: Duration = Duration::from_millis(200);

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
        write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o440);
        write(&volume, &files(&[("a", "3"), ("c", "4")]), None).unwrap();
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
