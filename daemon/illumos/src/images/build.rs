//! Making an image of files or of a container that has ended: a tree is put together beside the store, then it becomes a
//! dataset with its golden snapshot as any other image does.

use super::source::{Found, Problem};
use super::{Record, blocking, check_name, collect, dir, fill, layer, names, names_file, record_file, write};
use crate::datasets;
use crate::host::Shared;
use crate::paths::slot_name;
use crate::record;
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::{
    BuildContent, BuildFile, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, ImageBuild, ImageId,
    ImageInfo, SandboxId, UnpackLimits,
};
use reddwarf_supervise::files::{io_error, make_dir, read_record, remove_tree};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const BUILD: &str = "build image";

/// What a new image is made of.
struct Parts {
    /// The root file system to begin with; absent: an empty one.
    root: Option<PathBuf>,
    files: Vec<BuildFile>,
    /// What the host put into the container, and what the image below has there.
    hosts: Vec<(PathBuf, PathBuf)>,
}

pub(super) async fn build(shared: &Shared, wanted: &ImageBuild) -> HostResult<ImageInfo> {
    let name = wanted.name.as_str();
    check_name(name)?;
    let _turn = shared.images.lock().await;
    datasets::ensure_base(shared, BUILD).await?;
    let parts = match &wanted.content {
        BuildContent::Files { base: None, files } if files.is_empty() => {
            return Err(failed(HostErrorKind::InvalidSpec, name, "there is nothing to put into it"));
        }
        BuildContent::Files { base, files } => {
            let root = base.as_ref().map(|id| image_root(shared, id)).transpose()?;
            Parts { root, files: files.clone(), hosts: Vec::new() }
        }
        BuildContent::Container { sandbox, name, attempt } => of_container(shared, sandbox, name, *attempt)?,
    };
    let scratch = dir(shared).join("tmp");
    make_dir(&dir(shared))
        .and_then(|()| remove_tree(&scratch))
        .and_then(|_| make_dir(&scratch))
        .map_err(|e| io_error(BUILD, &scratch, e))?;
    let (at, config) = (scratch.clone(), wanted.config.clone());
    let found = blocking(move || -> Result<Found, Problem> {
        let tree = at.join("tree");
        put_together(&parts, &at, &tree)?;
        Found::of_tree(tree, config)
    })
    .await?
    .map_err(|problem| problem.into_host(BUILD, name))?;
    let id = found.id.clone();
    if read_record::<Record>(BUILD, &record_file(shared, &id))?.is_none() {
        fill(shared, name, found).await?;
    }
    remove_tree(&scratch).map_err(|e| io_error(BUILD, &scratch, e))?;
    let mut names = names(shared)?;
    names.insert(name.to_owned(), id.clone());
    write(BUILD, &names_file(shared), &names)?;
    collect(shared).await?;
    super::all(shared)?.remove(&id).ok_or_else(|| failed(HostErrorKind::Other, name, "it is gone again"))
}

fn failed(kind: HostErrorKind, subject: &str, message: &str) -> HostError {
    HostError::new(kind, BUILD, subject, message)
}

fn image_root(shared: &Shared, id: &ImageId) -> HostResult<PathBuf> {
    match read_record::<Record>(BUILD, &record_file(shared, id))? {
        Some(_) => Ok(shared.paths.image_root(id)),
        None => Err(failed(HostErrorKind::NotFound, id.as_str(), "there is no such image here")),
    }
}

fn of_container(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Parts> {
    let subject = format!("{id}/{name}");
    let dir = shared.paths.run.container(id, name, attempt);
    let (Some(spec), Some(launch)) = (dir.spec()?, record::launch(&dir)?) else {
        return Err(failed(HostErrorKind::NotFound, &subject, &format!("it has no instance {attempt}")));
    };
    if !matches!(dir.observed(&shared.paths.run.lock(id, name, attempt))?, ContainerState::Exited { .. }) {
        return Err(failed(HostErrorKind::InvalidState, &subject, "it has not ended"));
    }
    let (ContainerImage::Image { id: image }, Some(slot)) = (&spec.image, launch.slot) else {
        return Err(failed(HostErrorKind::InvalidSpec, &subject, "it did not run from an image"));
    };
    let below = image_root(shared, image)?;
    let files = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", spec.termination_message.path.as_str()];
    let mounts = spec.mounts.iter().map(|m| m.target.as_str());
    let hosts = files.into_iter().chain(mounts).filter_map(plain).map(|at| (at.clone(), below.join(&at))).collect();
    let root = shared.paths.roots(id).join(slot_name(slot)).join("root");
    Ok(Parts { root: Some(root), files: Vec::new(), hosts })
}

/// An absolute path without its root; `None` for one that leads up, or to the root itself.
fn plain(target: &str) -> Option<PathBuf> {
    let path = Path::new(target);
    let up = path.components().any(|c| matches!(c, Component::ParentDir));
    let relative: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    (path.is_absolute() && !up && !relative.as_os_str().is_empty()).then_some(relative)
}

fn put_together(parts: &Parts, scratch: &Path, tree: &Path) -> Result<(), Problem> {
    match &parts.root {
        Some(root) => layer::copy_tree(root, tree)?,
        None => fs::create_dir_all(tree)?,
    }
    for (relative, below) in &parts.hosts {
        layer::put_back(tree, relative, below)?;
    }
    if parts.files.is_empty() {
        return Ok(());
    }
    // As a layer: nothing that the tree holds leads it elsewhere.
    let packed = scratch.join("files.tar");
    let mut tar = tar::Builder::new(File::create_new(&packed)?);
    for file in &parts.files {
        pack(&mut tar, file)?;
    }
    tar.into_inner()?.sync_all()?;
    Ok(layer::apply(File::open(&packed)?, tree, UnpackLimits::default())?)
}

fn pack(tar: &mut tar::Builder<File>, file: &BuildFile) -> Result<(), Problem> {
    let BuildFile { source, target, owner } = file;
    let real = match fs::canonicalize(source) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Problem::Missing),
        other => other?,
    };
    let wrong = || Problem::NoImage(format!("target {target:?}: give an absolute path without `..`"));
    let below = match (target.as_str(), plain(target)) {
        (_, Some(path)) => path,
        (root, None) if root.starts_with('/') && root.chars().all(|c| c == '/') => PathBuf::new(),
        _ => return Err(wrong()),
    };
    if real.is_dir() {
        return pack_content(tar, &real, &below, *owner);
    }
    let named = match source.file_name() {
        Some(name) if target.ends_with('/') => below.join(name),
        _ => below,
    };
    if named.as_os_str().is_empty() {
        return Err(wrong());
    }
    pack_one(tar, &real, &named, *owner)
}

fn pack_content(tar: &mut tar::Builder<File>, from: &Path, below: &Path, owner: (u32, u32)) -> Result<(), Problem> {
    let mut names: Vec<_> = fs::read_dir(from)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let (source, target) = (from.join(&name), below.join(&name));
        pack_one(tar, &source, &target, owner)?;
        if source.symlink_metadata()?.is_dir() {
            pack_content(tar, &source, &target, owner)?;
        }
    }
    Ok(())
}

fn pack_one(tar: &mut tar::Builder<File>, source: &Path, target: &Path, (uid, gid): (u32, u32)) -> Result<(), Problem> {
    let found = source.symlink_metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_size(0);
    if found.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, target, io::empty())?;
    } else if found.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, target, fs::read_link(source)?)?;
    } else if found.is_file() {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(found.len());
        tar.append_data(&mut header, target, io::Read::take(File::open(source)?, found.len()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_images_lose_their_root_and_lead_nowhere_else() {
        assert_eq!(plain("//srv/./www/"), Some("srv/www".into()));
        for none in ["", "/", "srv", "/a/../b"] {
            assert_eq!(plain(none), None, "{none:?}");
        }
    }
}
