//! Volumes on their way into a container: opened by descriptor, checked, copied as mounts to a place of ours, from where
//! the OCI runtime binds them in. What was checked is what is mounted.

use super::creator::Failure;
use crate::files::make_dir;
use crate::host_path::{self, Refusal};
use crate::inside::{Inside, open_no_follow};
use crate::mounts::{self, Ties};
use crate::oci::ReadyMount;
use crate::options::LinuxOptions;
use crate::record::{ContainerDir, FailureKind, Launch, LaunchMount};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use reddwarf_host::spec::Propagation;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind, refusal.message)
    }
}

/// Copies of mounts that keep their ties with the host's, by the number of the mount.
pub(super) type Shared = BTreeMap<usize, OwnedFd>;

/// Takes copies of the mounts that pass on to the host what is mounted in the container. To be called in a mount
/// namespace of our own that still has all ties with the host's.
pub(super) fn take_shared(launch: &Launch) -> Result<Shared, Failure> {
    let mut shared = Shared::new();
    for (number, wanted) in launch.mounts.iter().enumerate() {
        if wanted.propagation != Propagation::Bidirectional {
            continue;
        }
        let source = open(launch, wanted)?;
        let ties = mounts::ties(&source).map_err(Failure::io("look at a volume's mount"))?;
        if !ties.shared {
            return Err(untied(wanted, &ties, "a shared mount"));
        }
        shared.insert(number, mounts::copy(&source).map_err(Failure::io("copy a volume's mount"))?);
    }
    Ok(shared)
}

/// As the reference's engines say it.
fn untied(wanted: &LaunchMount, ties: &Ties, what: &str) -> Failure {
    let message = format!(
        "path {:?} is mounted on {:?} but it is not {what}: make it one with `mount --make-rshared`, or mount without \
         mountPropagation",
        wanted.source.display().to_string(),
        ties.mount_point.display().to_string()
    );
    Failure::new(FailureKind::Other, message)
}

/// Stages all volumes of a container.
pub(super) fn stage_all(dir: &ContainerDir, launch: &Launch, mut shared: Shared) -> Result<Vec<ReadyMount>, Failure> {
    let staging = dir.path().join("mnt");
    let mut ready = Vec::with_capacity(launch.mounts.len());
    for (number, wanted) in launch.mounts.iter().enumerate() {
        let copy = match shared.remove(&number) {
            Some(copy) => copy,
            None => copied(launch, wanted)?,
        };
        let at = staging.join(number.to_string());
        stage(&copy, &at).map_err(Failure::io("bind a volume"))?;
        ready.push(ReadyMount {
            source: at,
            target: wanted.target.clone(),
            read_only: wanted.read_only,
            recursive_read_only: wanted.recursive_read_only,
            propagation: wanted.propagation,
        });
    }
    Ok(ready)
}

fn copied(launch: &Launch, wanted: &LaunchMount) -> Result<OwnedFd, Failure> {
    let source = open(launch, wanted)?;
    // The host mounts nothing in volumes of ours: they need no ties.
    if wanted.propagation == Propagation::HostToContainer && wanted.host_path.is_some() {
        let ties = mounts::ties(&source).map_err(Failure::io("look at a volume's mount"))?;
        if !ties.shared && !ties.follows {
            return Err(untied(wanted, &ties, "a shared or slave mount"));
        }
    }
    let copy = mounts::copy(&source).map_err(Failure::io("copy a volume's mount"))?;
    if wanted.propagation == Propagation::None {
        mounts::untie(&copy).map_err(Failure::io("make a volume's mount private"))?;
    }
    Ok(copy)
}

pub(super) fn stage(copy: &OwnedFd, at: &Path) -> io::Result<()> {
    if is_directory(copy)? {
        make_dir(at)?;
    } else {
        if let Some(parent) = at.parent() {
            make_dir(parent)?;
        }
        File::create(at)?;
    }
    mounts::attach(copy, at)
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}

/// Opens what a mount is of.
fn open(launch: &Launch, wanted: &LaunchMount) -> Result<OwnedFd, Failure> {
    let volume = open_volume(&wanted.source, wanted.host_path, &launch.options)?;
    if wanted.sub_path.is_empty() {
        return Ok(volume);
    }
    open_sub_path(volume, Path::new(&wanted.sub_path)).map_err(|e| {
        let why = match e.raw_os_error() {
            Some(libc::EXDEV) => "it leads out of the volume".to_owned(),
            _ => e.to_string(),
        };
        let message = format!(
            "failed to prepare subPath for volumeMount {:?} of container {:?}: {:?}: {why}",
            wanted.volume,
            launch.container.name.as_str(),
            wanted.sub_path
        );
        Failure::new(FailureKind::Other, message)
    })
}

fn open_volume(
    source: &Path,
    host_path: Option<reddwarf_host::spec::HostPathKind>,
    options: &LinuxOptions,
) -> Result<OwnedFd, Failure> {
    match host_path {
        Some(kind) => Ok(host_path::open_allowed(source, kind, options)?),
        None => open_no_follow(source).map_err(Failure::io("open a volume")),
    }
}

/// Opens a part of a volume, a directory where there is nothing yet. Links that stay within the volume are followed, at
/// whatever moment someone exchanges them; those that lead out are refused.
fn open_sub_path(volume: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mode = fstat(&volume)?.st_mode & 0o7777;
    let inside = Inside::volume_of(volume);
    match inside.open(path, OFlag::O_PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // As open as the volume itself: this process is single-threaded.
            let before = umask(Mode::empty());
            let made = inside.make_dirs(path, mode);
            umask(before);
            made
        }
        other => other,
    }
}

/// Adds the variables that come from files of volumes.
pub(super) fn add_env_files(launch: &mut Launch) -> Result<(), Failure> {
    for wanted in std::mem::take(&mut launch.env_files) {
        let volume = open_volume(&wanted.source, None, &launch.options)?;
        let text = Inside::volume_of(volume)
            .read(Path::new(&wanted.file.path), crate::env_file::LARGEST)
            .map_err(Failure::io("read a file of variables"))?;
        let file = wanted.file;
        let value = text.as_deref().and_then(|text| crate::env_file::value(text, &file.key));
        let env = &mut launch.container.env;
        match value {
            Some(value) => {
                env.retain(|var| var.name != file.name);
                let value = reddwarf_host::spec::Sensitive::new(value);
                env.push(reddwarf_host::spec::EnvVar { name: file.name, value });
            }
            None if file.optional => {}
            None => {
                let what =
                    if text.is_some() { format!("key {:?} not found in file", file.key) } else { "no file".into() };
                let message =
                    format!("variable {}: {what} {:?} of volume {:?}", file.name, file.path, file.volume.as_str());
                return Err(Failure::new(FailureKind::NotFound, message));
            }
        }
    }
    Ok(())
}
