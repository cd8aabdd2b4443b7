//! Root file systems: copied, or put together of layers (OCI image spec, layer.md). Nothing that a layer holds leads
//! outside of the root that is made: entries whose way leads through a link out of it are refused by the tar crate, and
//! whiteouts are carried out below the root's own directories only.

use reddwarf_host::UnpackLimits;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Why an entry of a layer is not unpacked, in our words: no decoder's, which may quote anything.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

impl Refused {
    pub(super) fn error(why: impl Into<String>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Self(why.into()))
    }
}

/// What is left of the limits while entries come.
#[derive(Debug)]
pub(super) struct Room {
    limits: UnpackLimits,
    entries: u64,
    bytes: u64,
}

impl Room {
    pub(super) fn of(limits: UnpackLimits) -> Self {
        Self { limits, entries: 0, bytes: 0 }
    }

    /// Takes one entry of so many bytes, which a sparse one may claim without bringing them.
    pub(super) fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.entries = self.entries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        let fits = self.limits.check_entries(self.entries);
        // What there is of it is counted where it is decompressed.
        fits.and_then(|()| self.limits.check_bytes(self.bytes, u64::MAX)).map_err(|e| Refused::error(e.to_string()))
    }
}

/// Puts a layer on top of what is there.
pub(super) fn apply(layer: impl Read, root: &Path, limits: UnpackLimits) -> io::Result<()> {
    let mut room = Room::of(limits);
    let mut archive = tar::Archive::new(layer);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    let mut fresh = BTreeSet::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        room.take(entry.size())?;
        let path = entry.path()?.into_owned();
        let invalid = |what: &str| Refused::error(format!("{}: {what}", path.display()));
        if path.components().any(|c| matches!(c, Component::ParentDir)) {
            return Err(invalid("leads outside"));
        }
        let relative: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let Some(name) = relative.file_name().map(|n| n.to_string_lossy().into_owned()) else { continue };
        if name.starts_with(WHITEOUT) {
            let Some(parent) = inside(root, relative.parent().unwrap_or(Path::new(""))) else { continue };
            if name == OPAQUE {
                for below in fs::read_dir(&parent)? {
                    let below = below?.path();
                    if !fresh.contains(&below) {
                        remove(&below)?;
                    }
                }
            } else if let Some(gone) = name.strip_prefix(WHITEOUT)
                && !gone.is_empty()
                && gone != "."
                && gone != ".."
            {
                remove(&parent.join(gone))?;
            }
            continue;
        }
        // Devices are made by zones themselves.
        if matches!(entry.header().entry_type(), tar::EntryType::Char | tar::EntryType::Block) {
            continue;
        }
        // What is there in another shape gives way.
        if let Some(parent) = inside(root, relative.parent().unwrap_or(Path::new(""))) {
            let there = parent.join(&name);
            let is_dir = entry.header().entry_type().is_dir();
            if fs::symlink_metadata(&there).is_ok_and(|m| m.is_dir() != is_dir) {
                remove(&there)?;
            }
            fresh.insert(there);
        }
        if !entry.unpack_in(root)? {
            return Err(invalid("leads outside"));
        }
    }
    Ok(())
}

/// A directory below `root`, without passing through a link; `None`: there is none such.
fn inside(root: &Path, relative: &Path) -> Option<PathBuf> {
    let mut at = root.to_owned();
    for part in relative.components() {
        at.push(part);
        if !fs::symlink_metadata(&at).ok()?.is_dir() {
            return None;
        }
    }
    Some(at)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Undoes what the host put at `relative` below `root`: there is what `below` holds there, if that is a file; an empty
/// file or directory that `below` has not got goes.
pub(super) fn put_back(root: &Path, relative: &Path, below: &Path) -> io::Result<()> {
    let (Some(name), Some(parent)) = (relative.file_name(), relative.parent()) else { return Ok(()) };
    let Some(parent) = inside(root, parent) else { return Ok(()) };
    let at = parent.join(name);
    match (fs::symlink_metadata(&at), fs::symlink_metadata(below)) {
        (Ok(there), Ok(was)) if there.is_file() && was.is_file() => {
            fs::copy(below, &at)?;
            lchown(&at, Some(was.uid()), Some(was.gid()))?;
            fs::set_permissions(&at, fs::Permissions::from_mode(was.mode() & 0o7777))
        }
        (Ok(there), Err(_)) if there.is_dir() => match fs::remove_dir(&at) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        },
        (Ok(there), Err(_)) if there.is_file() => fs::remove_file(&at),
        _ => Ok(()),
    }
}

/// Copies a root file system: directories, files, links, owners and permissions. Devices and sockets are left out.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let owner = fs::symlink_metadata(&source)?;
            symlink(fs::read_link(&source)?, &target)?;
            lchown(&target, Some(owner.uid()), Some(owner.gid()))?;
        } else if kind.is_file() {
            let owner = fs::symlink_metadata(&source)?;
            fs::copy(&source, &target)?;
            lchown(&target, Some(owner.uid()), Some(owner.gid()))?;
            // After the change of owner, which takes set-id bits away.
            fs::set_permissions(&target, fs::Permissions::from_mode(owner.mode() & 0o7777))?;
        }
    }
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))
}

/// A digest of all that [`copy_tree`] copies.
pub(super) fn tree_digest(root: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    digest_into(root, Path::new(""), &mut hash)?;
    Ok(hash.finalize().into())
}

fn digest_into(root: &Path, relative: &Path, hash: &mut Sha256) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = root.join(relative);
    let found = fs::symlink_metadata(&path)?;
    let mut add = |kind: &[u8], content: &[u8]| {
        for part in [relative.as_os_str().as_bytes(), kind, content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(found.mode().to_be_bytes());
        hash.update(found.uid().to_be_bytes());
        hash.update(found.gid().to_be_bytes());
    };
    if found.is_dir() {
        add(b"dir", b"");
        let mut names: Vec<_> = fs::read_dir(&path)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            digest_into(root, &relative.join(name), hash)?;
        }
    } else if found.is_symlink() {
        add(b"link", fs::read_link(&path)?.as_os_str().as_bytes());
    } else if found.is_file() {
        let mut of = Sha256::new();
        let mut file = fs::File::open(&path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            of.update(buffer.get(..n).unwrap_or_default());
        }
        add(b"file", &of.finalize());
    }
    Ok(())
}

/// Bytes of all files.
pub(super) fn tree_size(root: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let found = entry.path().symlink_metadata()?;
        bytes += if found.is_dir() { tree_size(&entry.path())? } else { found.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write where nobody else reads")]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
            header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
            match content.strip_prefix("-> ") {
                Some(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target).unwrap();
                }
                None => tar.append_data(&mut header, path, content.as_bytes()).unwrap(),
            }
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn layers_are_put_on_top_of_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        apply(
            &layer(&[("etc/a", "1"), ("etc/b", "2"), ("var/x", "3"), ("was", "-> etc")])[..],
            &root,
            UnpackLimits::default(),
        )
        .unwrap();
        apply(
            &layer(&[("etc/.wh.b", ""), ("var/y", "4"), ("var/.wh..wh..opq", ""), ("was", "a file now")])[..],
            &root,
            UnpackLimits::default(),
        )
        .unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "1");
        assert!(!root.join("etc/b").exists() && !root.join("var/x").exists() && root.join("var/y").exists());
        assert_eq!(fs::read_to_string(root.join("was")).unwrap(), "a file now");
    }

    #[test]
    fn there_is_an_end_to_entries_and_to_what_they_claim() {
        let dir = tempfile::tempdir().unwrap();
        let three = layer(&[("a", "1"), ("b", "22"), ("c", "333")]);
        let apply = |layer: &[u8], limits| apply(layer, dir.path(), limits).map_err(|e| e.to_string());
        let limits = UnpackLimits { entries: 3, bytes: 6, ..UnpackLimits::default() };
        assert_eq!(apply(&three, limits), Ok(()));
        assert_eq!(apply(&three, UnpackLimits { entries: 2, ..limits }).unwrap_err(), "it has more than 2 entries");
        assert!(apply(&three, UnpackLimits { bytes: 5, ..limits }).unwrap_err().starts_with("it unpacks to more than"));
        // Nothing but a header, which says that 8 GiB of zeros follow.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_path("sparse").unwrap();
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].offset.copy_from_slice(b"77777777777\0");
        gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
        gnu.realsize.copy_from_slice(b"77777777777\0");
        header.set_cksum();
        let mut sparse = header.as_bytes().to_vec();
        sparse.resize(sparse.len() + 1024, 0);
        let limits = UnpackLimits { bytes: 1 << 20, ..UnpackLimits::default() };
        assert!(apply(&sparse, limits).unwrap_err().starts_with("it unpacks to more than"));
        assert!(!dir.path().join("sparse").exists());
    }

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "mine").unwrap();
        let link = format!("-> {}", outside.display());
        let _ = apply(
            &layer(&[("out", &link), ("out/f", "theirs"), ("out/.wh.f", ""), ("out/.wh..wh..opq", "")])[..],
            &root,
            UnpackLimits::default(),
        );
        assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "mine");
    }

    #[test]
    fn a_copy_has_the_same_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(one.join("bin")).unwrap();
        fs::write(one.join("bin/sh"), "x").unwrap();
        symlink("sh", one.join("bin/ash")).unwrap();
        copy_tree(&one, &two).unwrap();
        assert_eq!(tree_digest(&one).unwrap(), tree_digest(&two).unwrap());
        fs::write(two.join("bin/sh"), "y").unwrap();
        assert_ne!(tree_digest(&one).unwrap(), tree_digest(&two).unwrap());
        assert_eq!(tree_size(&one).unwrap(), 3);
    }
}
