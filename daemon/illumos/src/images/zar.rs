//! `.zar` archives (docs/zar.md): read and taken apart by the child of `unpack.rs`, which also checks their form; here is what
//! follows from what it left. Layers are put on top of one another as any image's; streams of `zfs send` become the image's
//! dataset, with nothing copied twice.

use super::IMPORT;
use super::source::{Found, Problem, architecture, aside, check_digest, is_root, no_image};
use crate::datasets;
use crate::host::Shared;
use reddwarf_host::{HostError, HostErrorKind, HostResult, ImageId};
use reddwarf_supervise::files::io_error;
use reddwarf_zar::manifest::MANIFEST_BYTES;
use reddwarf_zar::read::{MANIFEST, SIGNATURE};
use reddwarf_zar::sign::SIGNATURE_BYTES;
use reddwarf_zar::{Manifest, Opened, PartKind, PublicKey};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What an archive that lies in pieces below `scratch` holds, if one of the keys signed it.
pub(super) fn found(scratch: &Path, keys: &[String]) -> Result<Found, Problem> {
    let refuse = |e: reddwarf_zar::ZarError| no_image(e.to_string());
    let keys: Vec<_> = keys.iter().map(|k| PublicKey::parse(k)).collect::<Result<_, _>>().map_err(refuse)?;
    let text = small(&scratch.join(MANIFEST), MANIFEST_BYTES)?;
    let signature = scratch.join(SIGNATURE);
    let signature = match signature.symlink_metadata() {
        Ok(_) => Some(small(&signature, SIGNATURE_BYTES as u64)?),
        Err(_) => None,
    };
    let manifest = Manifest::parse(&text).map_err(refuse)?;
    let opened = Opened { manifest, text, signature, places: Vec::new() };
    opened.check_signature(&keys).map_err(refuse)?;
    let manifest = opened.manifest;
    if manifest.architecture != architecture() {
        return Err(no_image(format!("it is for {}, this host is {}", manifest.architecture, architecture())));
    }
    let config = manifest.image_config();
    let parts = manifest.parts.iter().enumerate().map(|(index, part)| {
        let path = scratch.join(format!("parts/{index}"));
        plain(&path).map(|_| (path, part.digest.clone()))
    });
    let parts: Vec<(PathBuf, String)> = parts.collect::<Result<_, _>>()?;
    match manifest.parts.first().map(|part| part.kind) {
        Some(PartKind::Zfs) => Found::of_streams(config.as_bytes(), parts),
        _ => {
            Found::of_layers(config.as_bytes(), parts.into_iter().map(|(path, digest)| (path, Some(digest))).collect())
        }
    }
}

/// A file itself, not what a link leads to.
fn plain(path: &Path) -> Result<u64, Problem> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => Ok(meta.len()),
        _ => Err(no_image(format!("{} is no plain file", path.display()))),
    }
}

fn small(path: &Path, most: u64) -> Result<Vec<u8>, Problem> {
    if plain(path)? > most {
        return Err(no_image(format!("{} has more than {most} bytes", path.display())));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes an image's dataset of its streams, with its root file system where that of every image is. Cut off, it has no record
/// and is destroyed before the next try.
pub(super) async fn receive(
    shared: &Shared,
    name: &str,
    id: &ImageId,
    streams: &[(PathBuf, String)],
) -> HostResult<()> {
    let made = make(shared, name, id, streams).await;
    if made.is_err() {
        let dataset = datasets::image(shared, id)?;
        if let Err(error) = datasets::destroy(shared, IMPORT, &dataset).await {
            tracing::warn!(image = %id, %error, "what was received of it is cleared away with the next import of it");
        }
    }
    made
}

async fn make(shared: &Shared, name: &str, id: &ImageId, streams: &[(PathBuf, String)]) -> HostResult<()> {
    for (number, (path, digest)) in streams.iter().enumerate() {
        let (file, wanted) = (path.clone(), digest.clone());
        let checked = aside(move || check_digest(&file, &wanted)).await;
        checked.map_err(|problem| problem.into_host(IMPORT, name))?;
        let stream = File::open(path).map_err(|e| io_error(IMPORT, path, e))?;
        datasets::receive_part(shared, IMPORT, id, number, stream).await.map_err(|error| blame(error, name))?;
    }
    datasets::adopt_image(shared, IMPORT, id).await?;
    let root = shared.paths.image_root(id);
    let settled = aside(move || settle(&root)).await;
    settled.map_err(|problem| problem.into_host(IMPORT, name))
}

/// What zfs(8) refuses for no reason of the pool's is the stream's fault: trying again changes nothing.
fn blame(error: HostError, name: &str) -> HostError {
    match error.kind {
        HostErrorKind::Other | HostErrorKind::Conflict => {
            let message = format!("its zfs stream can't be received: {}", error.message);
            HostError::new(HostErrorKind::InvalidSpec, IMPORT, name, message).caused_by(error)
        }
        _ => error,
    }
}

/// Brings the root file system to `root`, in a file system that holds it either there, as a zonepath does, or at its top.
fn settle(root: &Path) -> Result<(), Problem> {
    let Some(top) = root.parent() else { return Err(no_image("it has no place")) };
    if !is_root(top) {
        // A link would lead out of it.
        let there = root.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        return match there && is_root(root) {
            true => Ok(()),
            false => {
                Err(no_image("its streams hold no root file system: neither it nor `root` in it has a bin, etc or usr"))
            }
        };
    }
    let new = top.join(".reddwarf-root");
    fs::DirBuilder::new().mode(0o755).create(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(top)?.collect::<io::Result<Vec<_>>>()? {
        if entry.path() != new {
            fs::rename(entry.path(), new.join(entry.file_name()))?;
        }
    }
    Ok(fs::rename(&new, root)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_file_system_lies_at_the_top_or_in_root() {
        let made = |paths: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for path in paths {
                fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            dir
        };
        let settled = |dir: &tempfile::TempDir| settle(&dir.path().join("root"));
        let names = |dir: &Path| {
            let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };

        let zonepath = made(&["root/etc", "root/usr/bin", "dev"]);
        settled(&zonepath).unwrap();
        assert_eq!(names(zonepath.path()), ["dev", "root"]);

        // The home of root is a directory of that name as well.
        let top = made(&["etc", "usr/bin", "root/.ssh"]);
        settled(&top).unwrap();
        assert_eq!(names(top.path()), ["root"]);
        assert_eq!(names(&top.path().join("root")), ["etc", "root", "usr"]);

        assert!(matches!(settled(&made(&["data", "root/data"])), Err(Problem::NoImage(_))));
        let link = made(&["data"]);
        std::os::unix::fs::symlink("/", link.path().join("root")).unwrap();
        assert!(matches!(settled(&link), Err(Problem::NoImage(_))));
    }
}
