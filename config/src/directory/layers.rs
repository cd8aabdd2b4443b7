//! Listing the layers: which names are manifests, drop-ins, app groups or refused.

use super::names::{is_drop_in_directory, is_ignored, is_manifest};
use super::open::{Directory, Distrust, FileType, file_type};
use super::{Trust, refusals};
use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::limits::Limits;
use nix::errno::Errno;
use nix::sys::stat::FileStat;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A name in a layer that may be a manifest.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) layer: usize,
    /// `web.yaml`, `shop/web.yaml`, `web.d/10.yaml`, `shop/web.d/10.yaml`.
    pub(super) relative: String,
    pub(super) path: PathBuf,
    pub(super) group: Option<String>,
    /// The drop-in directory that it lies in, `web.d` or `shop/web.d`.
    pub(super) drop_in: Option<String>,
    /// The layer's directory and those entered from it; the last one holds `name`.
    pub(super) parents: Vec<Directory>,
    pub(super) name: OsString,
    pub(super) stat: FileStat,
    /// Set when it is refused by what it is.
    pub(super) refused: Option<Diagnostic>,
}

/// What is remembered of a layer that held files, to tell a vanished one from one that never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Device and inode of the directory; `None`: not known, then an empty one in its place passes for emptied.
    pub(super) place: Option<(u64, u64)>,
}

/// Everything that the layers hold.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) found: Vec<Found>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Layers that could not be listed as a whole.
    pub(super) incomplete: BTreeSet<usize>,
    files_left: usize,
}

/// Lists all layers, lowest first; `seen` has one slot per layer.
pub(super) fn list(layers: &[PathBuf], seen: &mut [Option<Seen>], limits: &Limits, trust: &Trust) -> Listing {
    let mut listing = Listing { files_left: limits.files, ..Listing::default() };
    for (layer, (path, seen)) in layers.iter().zip(seen).enumerate() {
        let walk = Walk { layer, path, trust };
        walk.layer(seen, &mut listing);
    }
    if listing.files_left == 0 {
        listing.incomplete.extend(0..layers.len());
        let place = layers.last().map(PathBuf::as_path).unwrap_or(Path::new("/"));
        listing.diagnostics.push(refusals::error(
            codes::TOO_MANY_FILES,
            place,
            format!("there are more than {} manifest files", limits.files),
            "more are not read, and nothing is deleted meanwhile",
            "join files, or raise `manifest_files` in reddwarfd.toml",
        ));
    }
    listing
}

struct Walk<'a> {
    layer: usize,
    path: &'a Path,
    trust: &'a Trust,
}

/// Where in a layer a directory is.
#[derive(Clone, Debug, Default)]
struct Inside {
    prefix: String,
    group: Option<String>,
    drop_in: Option<String>,
}

impl Walk<'_> {
    fn layer(&self, seen: &mut Option<Seen>, listing: &mut Listing) {
        let opened = Directory::open_layer(self.path).and_then(|d| Ok((d.stat()?, d)));
        let (stat, directory) = match opened {
            Ok(opened) => opened,
            Err(Errno::ENOENT) if seen.is_none() => return,
            Err(errno) => {
                let diagnostic = match errno {
                    Errno::ENOENT => refusals::layer_lost(self.path, "vanished"),
                    Errno::ENOTDIR => refusals::error(
                        codes::LAYER_NOT_A_DIRECTORY,
                        self.path,
                        "this is not a directory",
                        "`manifests` names directories",
                        "put a directory here, or mend `manifests` in reddwarfd.toml",
                    ),
                    _ => refusals::io(self.path, "manifest directory", errno.desc()),
                };
                listing.diagnostics.push(diagnostic);
                listing.incomplete.insert(self.layer);
                return;
            }
        };
        let before = listing.found.len();
        let inside = Inside::default();
        let listed = self.directory(&stat, vec![directory], self.path, &inside, listing);
        let key = super::open::FileKey::of(&stat);
        let place = (key.device(), key.inode());
        if listing.found.len() > before {
            *seen = Some(Seen { place: Some(place) });
        } else if listed {
            let elsewhere = seen.and_then(|s| s.place).is_some_and(|known| known != place);
            if elsewhere {
                // Another directory stands here, and it is empty: most likely a mount is gone. Remember the old one.
                listing.diagnostics.push(refusals::layer_lost(self.path, "was replaced by an empty one"));
                listing.incomplete.insert(self.layer);
            } else {
                *seen = None;
            }
        }
    }

    fn trusted(&self, stat: &FileStat) -> Option<Distrust> {
        if self.trust.any_owner_and_mode { None } else { super::open::distrust(stat) }
    }

    /// Lists one directory; false when it could not be.
    fn directory(
        &self,
        stat: &FileStat,
        parents: Vec<Directory>,
        path: &Path,
        inside: &Inside,
        listing: &mut Listing,
    ) -> bool {
        let refusal = match self.trusted(stat) {
            Some(reason) => Err(refusals::distrust(path, "directory", reason)),
            None => match parents.last().map(Directory::names) {
                Some(Ok(names)) => Ok(names),
                Some(Err(errno)) => Err(refusals::io(path, "directory", errno.desc())),
                None => Ok(Vec::new()),
            },
        };
        match refusal {
            Ok(names) => {
                names.iter().for_each(|name| self.entry(name, &parents, path, inside, listing));
                true
            }
            Err(diagnostic) => {
                listing.diagnostics.push(diagnostic);
                listing.incomplete.insert(self.layer);
                false
            }
        }
    }

    fn entry(&self, name: &OsStr, parents: &[Directory], path: &Path, inside: &Inside, listing: &mut Listing) {
        if is_ignored(name) {
            return;
        }
        let Some(parent) = parents.last() else { return };
        let path = path.join(name);
        let stat = match parent.stat_child(name) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::ENOENT) => return,
            Err(errno) => {
                listing.diagnostics.push(refusals::io(&path, "file", errno.desc()));
                listing.incomplete.insert(self.layer);
                return;
            }
        };
        let kind = file_type(&stat);
        let manifest = is_manifest(name);
        let Some(text) = name.to_str() else {
            if manifest || kind == FileType::Directory {
                listing.diagnostics.push(refusals::name_not_utf8(&path));
            }
            return;
        };
        let refused = match kind {
            FileType::Directory => return self.subdirectory(text, parents, &path, inside, listing),
            FileType::Symlink if !manifest => {
                if parent.leads_to_directory(name) {
                    listing.diagnostics.push(refusals::link(&path, super::open::LinkError::ToDirectory));
                }
                return;
            }
            _ if !manifest => return,
            FileType::Other(what) => Some(refusals::not_a_file(&path, what)),
            FileType::Regular | FileType::Symlink => None,
        };
        let Some(left) = listing.files_left.checked_sub(1) else { return };
        listing.files_left = left;
        listing.found.push(Found {
            layer: self.layer,
            relative: format!("{}{text}", inside.prefix),
            path,
            group: inside.group.clone(),
            drop_in: inside.drop_in.clone(),
            parents: parents.to_vec(),
            name: name.to_owned(),
            stat,
            refused,
        });
    }

    fn subdirectory(&self, name: &str, parents: &[Directory], path: &Path, inside: &Inside, listing: &mut Listing) {
        let drop_in = is_drop_in_directory(name);
        if inside.drop_in.is_some() || (inside.group.is_some() && !drop_in) {
            listing.diagnostics.push(refusals::too_nested(path));
            return;
        }
        let relative = format!("{}{name}", inside.prefix);
        let within = Inside {
            prefix: format!("{relative}/"),
            group: if drop_in { inside.group.clone() } else { Some(name.to_owned()) },
            drop_in: drop_in.then(|| relative.clone()),
        };
        let opened = parents.last().map(|p| p.open_child(OsStr::new(name)).and_then(|d| Ok((d.stat()?, d))));
        match opened {
            Some(Ok((stat, child))) => {
                let parents = parents.iter().cloned().chain([child]).collect();
                self.directory(&stat, parents, path, &within, listing);
            }
            Some(Err(Errno::ENOENT)) | None => {}
            Some(Err(errno)) => {
                listing.diagnostics.push(refusals::io(path, "directory", errno.desc()));
                listing.incomplete.insert(self.layer);
            }
        }
    }
}

/// A drop-in whose file is not there: it waits for it.
pub(super) fn drop_in_without_base(path: &Path, directory: &str) -> Diagnostic {
    Diagnostic::file(
        Severity::Warning,
        codes::DROP_IN_WITHOUT_BASE,
        path.to_string_lossy(),
        "the drop-in changes nothing",
        format!("no layer has the file that `{directory}` is named after"),
        "remove it, or name the directory after a file that is there",
    )
}
