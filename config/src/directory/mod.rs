//! The manifest directory: layers, masks, drop-ins and app groups, read without trusting anybody.
//!
//! `/usr/lib/reddwarf.d` < `/etc/reddwarf.d` < `/run/reddwarf.d`, as systemd layers its units: a file masks those of
//! the same relative name in lower layers, a symlink to /dev/null masks without putting anything in their place, and
//! `web.d/*.yaml` of all layers change `web.yaml` in the order of their names. One level of subdirectories groups
//! files to apps.

mod dropin;
mod layers;
mod names;
mod open;
mod refusals;

use crate::check::{Declared, check_each, duplicates};
use crate::diagnostic::{Diagnostic, codes};
use crate::document::{Format, Source, parse_source, text_of};
use crate::limits::Limits;
use layers::{Found, Seen};
use open::{FileKey, FileType, Target, file_type};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything in it is valid.
    Valid {
        /// Objects that it declares.
        objects: usize,
    },
    /// It has errors: nothing it declares is applied, what it declared before stays.
    Refused,
    /// A file of the same relative name in a higher layer stands in its place.
    Masked {
        /// The file that masks it.
        by: PathBuf,
    },
    /// It is a symlink to /dev/null that masks lower layers.
    Mask,
    /// A drop-in, merged into this file's documents.
    DropIn {
        /// The relative name of the file that it changes.
        of: String,
    },
}

/// One file of the directory, with its verdict.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The name under its layer, `web.yaml` or `shop/web.yaml`.
    pub relative: String,
    /// The whole path as shown to users; objects name it as their source.
    pub path: PathBuf,
    /// The layer it lies in, as an index into the layers asked for, lowest first.
    pub layer: usize,
    /// The app group: the subdirectory that it lies in.
    pub group: Option<String>,
    /// SHA-256 of the bytes, lower-case hex; `None` when it was not read.
    pub digest: Option<Arc<str>>,
    /// The text, for keeping generations; `None` when it was not read or is not text.
    pub text: Option<Arc<str>>,
    /// What became of it.
    pub verdict: Verdict,
}

/// The whole set of one pass over the layers.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Every manifest seen, ordered by relative name, then layer.
    pub files: Vec<SourceFile>,
    /// The objects of all valid files, ordered by file.
    pub declared: Vec<Arc<Declared>>,
    /// Every finding, ordered by file and position.
    pub diagnostics: Vec<Diagnostic>,
    /// The layers, by index, that could not be read as a whole: one that vanished, a directory that could not be listed.
    pub incomplete_layers: BTreeSet<usize>,
    /// Paths of refused files (in every layer that they may have been read from): what they declared before stays.
    pub held_sources: BTreeSet<String>,
    /// Whether anything differs from the scan before: files, verdicts, findings or objects.
    pub changed: bool,
    /// How many files were read, rather than taken from the cache.
    pub read: usize,
    /// A file was read so soon after it changed that a change after that could look the same: it is read again by a scan that
    /// comes [`YOUNG`] later or more.
    pub young: bool,
}

/// A file that changed this long ago or longer tells by its times when it changes again.
pub const YOUNG: Duration = open::MARGIN;

impl Scan {
    /// False when something that exists or existed could not be read: nothing may then be taken for deleted.
    pub fn is_complete(&self) -> bool {
        self.incomplete_layers.is_empty()
    }
}

/// A layer that held files, to be told from one that never was after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLayer {
    /// Where it is.
    pub path: PathBuf,
    /// Device and inode of the directory; when they are not known, an empty directory in its place passes for emptied.
    pub place: Option<(u64, u64)>,
}

/// How files are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Accept any owner and group- or world-writable files and directories.
    pub any_owner_and_mode: bool,
}

/// Reads the layers again and again, re-reading and re-parsing only what changed.
#[derive(Debug)]
pub struct Scanner {
    layers: Vec<PathBuf>,
    limits: Limits,
    trust: Trust,
    seen: Vec<Option<Seen>>,
    files: HashMap<(usize, String), Cached>,
    units: HashMap<String, (Vec<u64>, Arc<Unit>)>,
    next_stamp: u64,
    last: Option<Fingerprint>,
}

/// What two scans are compared by.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    stamps: Vec<(usize, String, u64)>,
    diagnostics: Vec<Diagnostic>,
    incomplete_layers: BTreeSet<usize>,
}

#[derive(Debug)]
struct Cached {
    /// The name's own state and, for a symlink, that of the file it leads to.
    keys: (FileKey, Option<FileKey>),
    /// The times can't be told from those of a later change.
    racy: bool,
    loaded: Arc<Loaded>,
}

/// What reading a file gave.
#[derive(Debug)]
struct Loaded {
    /// Another number whenever the contents or the findings are others.
    stamp: u64,
    size: u64,
    digest: Option<Arc<str>>,
    source: Option<Arc<Source>>,
    mask: bool,
    refusal: Option<Diagnostic>,
}

/// A file with its drop-ins, parsed and checked.
#[derive(Debug)]
struct Unit {
    declared: Vec<Arc<Declared>>,
    diagnostics: Vec<Diagnostic>,
    refused: bool,
}

/// Reads `layers` once, with the default trust. For tools; the daemon keeps a [`Scanner`].
pub fn scan(layers: &[PathBuf], limits: &Limits) -> Scan {
    Scanner::new(layers.to_vec(), *limits, Trust::default()).scan()
}

impl Scanner {
    /// A scanner of `layers`, lowest first. Nothing is read yet.
    pub fn new(layers: Vec<PathBuf>, limits: Limits, trust: Trust) -> Self {
        let seen = vec![None; layers.len()];
        let (files, units) = (HashMap::new(), HashMap::new());
        Self { layers, limits, trust, seen, files, units, next_stamp: 1, last: None }
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// The layers that held files when they were last read.
    pub fn held(&self) -> Vec<HeldLayer> {
        let held =
            |(path, seen): (&PathBuf, &Option<Seen>)| Some(HeldLayer { path: path.clone(), place: (*seen)?.place });
        self.layers.iter().zip(&self.seen).filter_map(held).collect()
    }

    /// Tells a scanner that has not read yet what an earlier one saw: layers that are missing now, or are other directories
    /// and empty, were lost, and nothing is to be deleted on that ground.
    pub fn expect(&mut self, held: &[HeldLayer]) {
        for (layer, seen) in self.layers.iter().zip(&mut self.seen) {
            if let (None, Some(held)) = (&seen, held.iter().find(|h| h.path == *layer)) {
                *seen = Some(Seen { place: held.place });
            }
        }
    }

    /// Layers that are lost are meant to be gone.
    pub fn accept_losses(&mut self) {
        self.seen.fill(None);
    }

    /// Reads what changed since the last call and gives the whole set. Blocking: call it off the async threads.
    pub fn scan(&mut self) -> Scan {
        let listing = layers::list(&self.layers, &mut self.seen, &self.limits, &self.trust);
        let mut scan =
            Scan { incomplete_layers: listing.incomplete, diagnostics: listing.diagnostics, ..Scan::default() };
        let mut by_name: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for found in listing.found {
            by_name.entry(found.relative.clone()).or_default().push(found);
        }
        let loaded = self.load_all(&by_name, &mut scan);
        let drop_ins = assign_drop_ins(&by_name, &loaded, &mut scan);
        let units = self.build_units(&by_name, &loaded, &drop_ins);
        self.assemble(&by_name, &loaded, &drop_ins, &units, &mut scan);
        self.forget_gone(&by_name);
        self.compare_with_last(&by_name, &loaded, &mut scan);
        scan
    }

    /// Reads the file that counts of every name.
    fn load_all(&mut self, by_name: &BTreeMap<String, Vec<Found>>, scan: &mut Scan) -> BTreeMap<String, Arc<Loaded>> {
        let mut left = self.limits.total_bytes;
        let mut all = BTreeMap::new();
        for (relative, found) in by_name {
            let Some(top) = found.last() else { continue };
            let mut loaded = self.load(top, scan);
            match left.checked_sub(loaded.size) {
                Some(rest) => left = rest,
                None => {
                    scan.incomplete_layers.insert(top.layer);
                    self.files.remove(&(top.layer, relative.clone()));
                    loaded = Arc::new(Loaded::refused(u64::MAX, None, self.too_much(top)));
                }
            }
            all.insert(relative.clone(), loaded);
        }
        all
    }

    fn too_much(&self, found: &Found) -> Diagnostic {
        refusals::error(
            codes::TOTAL_TOO_LARGE,
            &found.path,
            "the file is not read",
            format!("all manifests together may hold {} bytes, and those before it fill them", self.limits.total_bytes),
            "remove files, or raise `manifest_total_bytes` in reddwarfd.toml",
        )
    }

    /// The contents of one file, from the cache when nothing about it changed.
    fn load(&mut self, found: &Found, scan: &mut Scan) -> Arc<Loaded> {
        let slot = (found.layer, found.relative.clone());
        let any = self.trust.any_owner_and_mode;
        let trusted = |stat: &_| if any { None } else { open::distrust(stat) };
        let own = FileKey::of(&found.stat);
        let mut target = None;
        let mut place = found.parents.last().cloned().map(|d| (d, found.name.clone()));
        let mut refusal = found.refused.clone();
        if refusal.is_none() && file_type(&found.stat) == FileType::Symlink {
            let layer = self.layers.get(found.layer).map(PathBuf::as_path).unwrap_or(&found.path);
            match open::follow(layer, found.parents.clone(), &found.name, trusted) {
                Ok(Target::Null) => return self.remember(slot, (own, None), false, Loaded::mask()),
                Ok(Target::File(directory, name)) => {
                    match directory.stat_child(&name) {
                        Ok(stat) => match file_type(&stat) {
                            FileType::Other(what) => refusal = Some(refusals::not_a_file(&found.path, what)),
                            _ => target = Some(FileKey::of(&stat)),
                        },
                        Err(errno) => refusal = Some(refusals::io(&found.path, "file", errno.desc())),
                    }
                    place = Some((directory, name));
                }
                Err(problem) => refusal = Some(refusals::link(&found.path, problem)),
            }
        }
        if let Some(cached) = self.files.get(&slot)
            && refusal.is_none()
            && !cached.racy
            && cached.keys == (own, target)
        {
            return cached.loaded.clone();
        }
        let (Some((directory, name)), None) = (place, &refusal) else {
            return self.remember(
                slot,
                (own, target),
                true,
                Loaded::refused(
                    0,
                    None,
                    refusal.unwrap_or_else(|| refusals::io(&found.path, "file", "its directory is gone")),
                ),
            );
        };
        scan.read += 1;
        let mut attempt = 0;
        let contents = loop {
            let result = open::read(&directory, &name, self.limits.file_bytes, trusted);
            attempt += 1;
            if attempt == 3 || !matches!(result, Err(open::ReadError::Changing)) {
                break result;
            }
        };
        match contents {
            Err(problem) => {
                let refusal = refusals::read(&found.path, problem, &self.limits);
                self.remember(slot, (own, target), true, Loaded::refused(0, None, refusal))
            }
            Ok(contents) => {
                let key = FileKey::of(&contents.stat);
                // What was read may be newer than what was listed.
                let keys = if target.is_some() { (own, Some(key)) } else { (key, None) };
                let now = now();
                let racy = now.is_none_or(|now| key.is_racy(now));
                // One from the future stays racy until the periodic look.
                scan.young |= racy && now.is_some_and(|now| key.is_past(now));
                let digest = hex(&Sha256::digest(&contents.bytes));
                let known = self.files.get_mut(&slot).filter(|c| c.loaded.digest.as_deref() == Some(&*digest));
                if let Some(cached) = known {
                    (cached.keys, cached.racy) = (keys, racy);
                    return cached.loaded.clone();
                }
                let name = found.path.to_string_lossy();
                let loaded = match text_of(&name, &contents.bytes) {
                    Ok(source) => Loaded { source: Some(Arc::new(source)), ..Loaded::empty(key.size(), Some(digest)) },
                    Err(refusal) => Loaded::refused(key.size(), Some(digest), *refusal),
                };
                self.remember(slot, keys, racy, loaded)
            }
        }
    }

    /// Keeps what was loaded, under the stamp of what was there before if it is the same.
    fn remember(
        &mut self,
        slot: (usize, String),
        keys: (FileKey, Option<FileKey>),
        racy: bool,
        mut loaded: Loaded,
    ) -> Arc<Loaded> {
        let same = self.files.get(&slot).map(|c| &c.loaded).filter(|known| {
            known.mask == loaded.mask && known.refusal == loaded.refusal && known.digest == loaded.digest
        });
        loaded.stamp = match same {
            Some(known) => known.stamp,
            None => {
                self.next_stamp += 1;
                self.next_stamp
            }
        };
        let loaded = Arc::new(loaded);
        self.files.insert(slot, Cached { keys, racy, loaded: loaded.clone() });
        loaded
    }

    /// Parses and checks every file with its drop-ins, as far as one of them changed.
    fn build_units(
        &mut self,
        by_name: &BTreeMap<String, Vec<Found>>,
        loaded: &BTreeMap<String, Arc<Loaded>>,
        drop_ins: &BTreeMap<String, Vec<String>>,
    ) -> BTreeMap<String, Arc<Unit>> {
        let mut units = BTreeMap::new();
        for (relative, found) in by_name {
            let (Some(top), Some(base)) = (found.last(), loaded.get(relative)) else { continue };
            if top.drop_in.is_some() || base.mask {
                continue;
            }
            let names = drop_ins.get(relative).map(Vec::as_slice).unwrap_or_default();
            let parts: Vec<&Arc<Loaded>> = names.iter().filter_map(|n| loaded.get(n)).collect();
            let key: Vec<u64> = [base].into_iter().chain(parts.iter().copied()).map(|l| l.stamp).collect();
            let unit = match self.units.get(relative) {
                Some((known, unit)) if *known == key => unit.clone(),
                _ => Arc::new(build_unit(base, &parts, &self.limits)),
            };
            self.units.insert(relative.clone(), (key, unit.clone()));
            units.insert(relative.clone(), unit);
        }
        units
    }

    /// Puts files, objects and findings together, and refuses files that declare the same object.
    fn assemble(
        &self,
        by_name: &BTreeMap<String, Vec<Found>>,
        loaded: &BTreeMap<String, Arc<Loaded>>,
        drop_ins: &BTreeMap<String, Vec<String>>,
        units: &BTreeMap<String, Arc<Unit>>,
        scan: &mut Scan,
    ) {
        let valid = || units.iter().filter(|(_, u)| !u.refused);
        let owners: Vec<&String> = valid().flat_map(|(name, u)| std::iter::repeat_n(name, u.declared.len())).collect();
        let doubled = duplicates(valid().flat_map(|(_, u)| &u.declared));
        let conflicting: BTreeSet<&String> = doubled.keys().filter_map(|i| owners.get(*i).copied()).collect();
        let refused = |name: &String, unit: &Unit| unit.refused || conflicting.contains(name);
        for (name, unit) in units {
            scan.diagnostics.extend(unit.diagnostics.iter().cloned());
            if refused(name, unit) {
                let paths = self.layers.iter().map(|layer| layer.join(name).to_string_lossy().into_owned());
                scan.held_sources.extend(paths);
            } else {
                scan.declared.extend(unit.declared.iter().cloned());
            }
        }
        let base_of: BTreeMap<&String, &String> =
            drop_ins.iter().flat_map(|(base, names)| names.iter().map(move |n| (n, base))).collect();
        for (name, found) in by_name {
            let Some(content) = loaded.get(name) else { continue };
            let verdict = match (units.get(name), base_of.get(name)) {
                _ if content.mask => Verdict::Mask,
                (Some(unit), _) if refused(name, unit) => Verdict::Refused,
                (Some(unit), _) => Verdict::Valid { objects: unit.declared.len() },
                (None, Some(base)) if content.refusal.is_none() => Verdict::DropIn { of: (*base).clone() },
                (None, None) if content.refusal.is_none() => Verdict::DropIn { of: String::new() },
                _ => Verdict::Refused,
            };
            scan.files.extend(source_files(found, content, verdict));
        }
        scan.diagnostics.extend(doubled.into_values());
        scan.diagnostics.sort_by(|a, b| (&a.file, a.position, &a.code).cmp(&(&b.file, b.position, &b.code)));
    }

    fn forget_gone(&mut self, by_name: &BTreeMap<String, Vec<Found>>) {
        self.files.retain(|(layer, name), _| {
            by_name.get(name).and_then(|found| found.last()).is_some_and(|top| top.layer == *layer)
        });
        self.units.retain(|name, _| by_name.contains_key(name));
    }

    fn compare_with_last(
        &mut self,
        by_name: &BTreeMap<String, Vec<Found>>,
        loaded: &BTreeMap<String, Arc<Loaded>>,
        scan: &mut Scan,
    ) {
        let stamp =
            |name: &String, f: &Found| (f.layer, name.clone(), loaded.get(name).map(|l| l.stamp).unwrap_or_default());
        let stamps = by_name.iter().flat_map(|(name, found)| found.iter().map(move |f| stamp(name, f))).collect();
        let (diagnostics, incomplete_layers) = (scan.diagnostics.clone(), scan.incomplete_layers.clone());
        let now = Fingerprint { stamps, diagnostics, incomplete_layers };
        scan.changed = self.last.as_ref() != Some(&now);
        self.last = Some(now);
    }
}

impl Loaded {
    fn empty(size: u64, digest: Option<Arc<str>>) -> Self {
        Self { stamp: 0, size, digest, source: None, mask: false, refusal: None }
    }

    fn mask() -> Self {
        Self { mask: true, ..Self::empty(0, None) }
    }

    fn refused(size: u64, digest: Option<Arc<str>>, refusal: Diagnostic) -> Self {
        Self { refusal: Some(refusal), ..Self::empty(size, digest) }
    }
}

/// The drop-ins of every file, in the order of their names; those without a file are reported.
fn assign_drop_ins(
    by_name: &BTreeMap<String, Vec<Found>>,
    loaded: &BTreeMap<String, Arc<Loaded>>,
    scan: &mut Scan,
) -> BTreeMap<String, Vec<String>> {
    let mut drop_ins: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, found) in by_name {
        let Some((top, directory)) = found.last().and_then(|f| Some((f, f.drop_in.as_ref()?))) else { continue };
        let Some(content) = loaded.get(name).filter(|l| !l.mask) else { continue };
        let base = names::drop_in_bases(directory).into_iter().find(|b| by_name.contains_key(b));
        match base {
            Some(base) => drop_ins.entry(base).or_default().push(name.clone()),
            None => {
                scan.diagnostics.extend(content.refusal.clone());
                scan.diagnostics.push(layers::drop_in_without_base(&top.path, directory));
            }
        }
    }
    for names in drop_ins.values_mut() {
        // By file name alone: `web.d` and `web.yaml.d` take turns.
        names.sort_by(|a, b| a.rsplit('/').next().cmp(&b.rsplit('/').next()).then(a.cmp(b)));
    }
    drop_ins
}

fn build_unit(base: &Loaded, drop_ins: &[&Arc<Loaded>], limits: &Limits) -> Unit {
    let mut diagnostics = Vec::new();
    let mut parse = |loaded: &Loaded| {
        diagnostics.extend(loaded.refusal.clone());
        let source = loaded.source.as_ref()?;
        let (documents, mut findings) = parse_source(source, Format::of(&source.name)?, limits);
        diagnostics.append(&mut findings);
        Some(documents)
    };
    let mut documents = parse(base).unwrap_or_default();
    let patches: Vec<_> = drop_ins.iter().filter_map(|loaded| parse(loaded)).collect();
    for patch in patches {
        dropin::apply(&mut documents, patch, &mut diagnostics);
    }
    let mut checked = check_each(documents);
    diagnostics.append(&mut checked.diagnostics);
    let refused = diagnostics.iter().any(Diagnostic::is_error);
    let declared = if refused { Vec::new() } else { checked.declared };
    Unit { declared, diagnostics, refused }
}

/// The entries of one relative name: the file that counts, and those that it masks.
fn source_files(found: &[Found], content: &Loaded, verdict: Verdict) -> Vec<SourceFile> {
    let top = found.len().saturating_sub(1);
    let masked_by = found.get(top).map(|f| f.path.clone()).unwrap_or_default();
    let entry = |(i, f): (usize, &Found)| SourceFile {
        relative: f.relative.clone(),
        path: f.path.clone(),
        layer: f.layer,
        group: f.group.clone(),
        digest: content.digest.clone().filter(|_| i == top),
        text: content.source.as_ref().filter(|_| i == top).map(|s| s.text.clone()),
        verdict: if i == top { verdict.clone() } else { Verdict::Masked { by: masked_by.clone() } },
    };
    found.iter().enumerate().map(entry).collect()
}

/// The clock that file times come from: compared with them only, to tell whether a file changed just now.
fn now() -> Option<(i64, i64)> {
    let time = nix::time::ClockId::CLOCK_REALTIME.now().ok()?;
    #[allow(clippy::unnecessary_cast)]
    Some((time.tv_sec() as i64, time.tv_nsec() as i64))
}

fn hex(bytes: &[u8]) -> Arc<str> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// Whether only root and this process' user can change a file.
pub(crate) fn is_trusted(stat: &nix::sys::stat::FileStat) -> bool {
    open::distrust(stat).is_none()
}
