//! Datasets as directories.

use super::Given;
use super::properties::{self, mountpoint};
use crate::call::Sim;
use crate::state::{Dataset, State, ZoneState};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Room in a pool.
const POOL: u64 = 64 << 30;

pub(super) fn is_within(name: &str, root: &str) -> bool {
    name == root || name.strip_prefix(root).is_some_and(|rest| rest.starts_with(['/', '@']))
}

/// All names: snapshots after their dataset in the order of their making, then its children.
pub(super) fn sorted(state: &State) -> Vec<String> {
    let key = |name: &String| {
        let dataset = name.split('@').next().unwrap_or_default().replace('/', "\u{1}");
        (dataset, name.contains('@').then(|| state.datasets.get(name).map_or(0, |d| d.created)), name.clone())
    };
    let mut names: Vec<String> = state.datasets.keys().cloned().collect();
    names.sort_by_key(key);
    names
}

/// A dataset and the datasets below it, without snapshots.
pub(super) fn within(state: &State, root: &str) -> Vec<String> {
    sorted(state).into_iter().filter(|n| is_within(n, root) && !n.contains('@')).collect()
}

pub(super) fn must_be(state: &State, name: &str) -> Result<(), String> {
    if state.datasets.contains_key(name) {
        Ok(())
    } else {
        Err(format!("cannot open '{name}': dataset does not exist"))
    }
}

/// A dataset's snapshots, the oldest first.
pub(super) fn snapshots(state: &State, name: &str) -> Vec<String> {
    let of = format!("{name}@");
    let mut all: Vec<_> = state.datasets.iter().filter(|(n, _)| n.starts_with(&of)).collect();
    all.sort_by_key(|(_, d)| d.created);
    all.into_iter().map(|(n, _)| n.clone()).collect()
}

/// Gives a dataset other files.
pub(super) fn refill(state: &State, name: &str, with: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let place = place(state, name);
    empty(&place, &others(state, name))?;
    with(&place)
}

pub(super) fn place(state: &State, name: &str) -> PathBuf {
    let kept = |kind: &str| state.home.join("state").join(kind).join(name.replace('/', "%"));
    if name.contains('@') {
        return kept("snapshots");
    }
    let mounted = state.datasets.get(name).is_some_and(|d| d.mounted);
    mountpoint(state, name).filter(|_| mounted).map_or_else(|| kept("datasets"), PathBuf::from)
}

/// Where a dataset's files are.
pub(crate) fn backing(_sim: &Sim, state: &State, name: &str) -> Option<PathBuf> {
    state.datasets.contains_key(name).then(|| place(state, name))
}

/// Where other file systems are mounted below a dataset's files.
fn others(state: &State, name: &str) -> BTreeSet<PathBuf> {
    let at = place(state, name);
    let all = state.datasets.keys().filter(|n| *n != name && !n.contains('@'));
    all.map(|n| place(state, n)).filter(|p| p.starts_with(&at) && *p != at).collect()
}

fn is_component(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.: ".contains(&b))
}

fn check_name(name: &str, verb: &str) -> Result<(), String> {
    let error = |what: &str| Err(format!("cannot {verb} '{name}': {what}"));
    if name.len() > 255 {
        return error("name is too long");
    }
    if name.starts_with('-') || name.starts_with('/') || name.ends_with('/') || name.contains("//") {
        return error("leading slash, trailing slash or empty component in name");
    }
    if name.split(['/', '@']).all(is_component) && name.matches('@').count() <= 1 {
        Ok(())
    } else {
        error("invalid character in name")
    }
}

fn check_parent(state: &State, name: &str, verb: &str) -> Result<(), String> {
    let Some((parent, _)) = name.rsplit_once('/') else {
        return Err(format!("cannot {verb} '{name}': missing dataset name"));
    };
    match state.datasets.get(parent) {
        Some(d) if d.kind == "filesystem" => Ok(()),
        Some(_) => Err(format!("cannot {verb} '{name}': parent is not a filesystem")),
        None if !state.datasets.contains_key(name.split('/').next().unwrap_or_default()) => {
            Err(format!("cannot {verb} '{name}': no such pool '{}'", name.split('/').next().unwrap_or_default()))
        }
        None => Err(format!("cannot {verb} '{name}': parent does not exist")),
    }
}

/// Makes a file system.
pub(crate) fn make(state: &mut State, name: &str, options: &[&str]) -> Result<(), String> {
    state.answers(name)?;
    put(state, name, "filesystem", options)
}

pub(super) fn create(state: &mut State, name: &str, given: &Given<'_>) -> Result<(), String> {
    if given.has('p') {
        let mut at = String::new();
        for part in name.split('/').take(name.matches('/').count()) {
            at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            if !state.datasets.contains_key(&at) {
                put(state, &at, "filesystem", &[])?;
            }
        }
        // As with directories: there already is fine.
        if state.datasets.contains_key(name) {
            return Ok(());
        }
    }
    match given.value('V') {
        None => put(state, name, "filesystem", &given.options),
        Some(size) => {
            let size = format!("volsize={size}");
            let options: Vec<&str> = given.options.iter().copied().chain([size.as_str()]).collect();
            put(state, name, "volume", &options)
        }
    }
}

fn put(state: &mut State, name: &str, kind: &str, options: &[&str]) -> Result<(), String> {
    check_name(name, "create")?;
    if state.datasets.contains_key(name) {
        return Err(format!("cannot create '{name}': dataset already exists"));
    }
    check_parent(state, name, "create")?;
    let pairs = options.iter().map(|o| properties::check(o)).collect::<Result<Vec<_>, _>>();
    let local = pairs.map_err(|what| format!("cannot create '{name}': {what}"))?;
    for (_, value) in local.iter().filter(|(n, _)| n == "mountpoint") {
        properties::is_ours(state, value)?;
    }
    let created = state.number();
    let dataset = Dataset { kind: kind.to_owned(), local: local.into_iter().collect(), created, ..Dataset::default() };
    state.datasets.insert(name.to_owned(), dataset);
    appear(state, name).map_err(|e| format!("cannot mount '{name}': {e}"))
}

/// Has a dataset's directory be there.
fn appear(state: &mut State, name: &str) -> io::Result<()> {
    let path = mountpoint(state, name);
    let can = properties::get(state, name, "canmount").0 == "on" && properties::get(state, name, "zoned").0 != "on";
    if let Some(dataset) = state.datasets.get_mut(name) {
        dataset.mounted = path.is_some() && can && dataset.kind == "filesystem";
    }
    fs::create_dir_all(place(state, name))
}

/// Makes a snapshot.
pub(crate) fn snapshot(state: &mut State, name: &str) -> Result<(), String> {
    state.answers(name)?;
    check_name(name, "create snapshot")?;
    let Some((dataset, _)) = name.split_once('@') else {
        return Err(format!("cannot create snapshot '{name}': missing '@'"));
    };
    if !state.datasets.contains_key(dataset) {
        return Err(format!("cannot open '{dataset}': dataset does not exist"));
    }
    if state.datasets.contains_key(name) {
        return Err(format!("cannot create snapshot '{name}': dataset already exists"));
    }
    let created = state.number();
    let from = place(state, dataset);
    let except = others(state, dataset);
    state.datasets.insert(name.to_owned(), Dataset { kind: "snapshot".into(), created, ..Dataset::default() });
    copy_except(&from, &place(state, name), &except).map_err(|e| format!("cannot create snapshot '{name}': {e}"))
}

/// Makes a file system of a snapshot's content.
pub(crate) fn clone(state: &mut State, from: &str, to: &str, options: &[&str]) -> Result<(), String> {
    state.answers(from)?;
    let Some(source) = state.datasets.get(from) else {
        return Err(format!("cannot open '{from}': dataset does not exist"));
    };
    if source.kind != "snapshot" {
        return Err(format!("cannot open '{from}': operation not applicable to datasets of this type"));
    }
    if from.split('/').next() != to.split('/').next() {
        return Err(format!("cannot create '{to}': source and target pools differ"));
    }
    let of = from.split('@').next().unwrap_or_default().to_owned();
    let kind = state.datasets.get(&of).map_or("filesystem".to_owned(), |d| d.kind.clone());
    put(state, to, &kind, options)?;
    if let Some(made) = state.datasets.get_mut(to) {
        made.origin = from.to_owned();
    }
    copy_tree(&place(state, from), &place(state, to)).map_err(|e| format!("cannot create '{to}': {e}"))
}

/// All that goes with a dataset or snapshot, in the order of its going; refused where something is in the way.
fn doomed(state: &State, name: &str, recursive: bool) -> Result<Vec<String>, String> {
    let Some(dataset) = state.datasets.get(name) else {
        return Err(format!("cannot open '{name}': dataset does not exist"));
    };
    let mut all: Vec<String> = sorted(state).into_iter().filter(|n| is_within(n, name)).collect();
    all.reverse();
    let kind = &dataset.kind;
    if !recursive && all.len() > 1 {
        let list = all.iter().filter(|n| *n != name).cloned().collect::<Vec<_>>().join("\n");
        return Err(format!(
            "cannot destroy '{name}': {kind} has children\nuse '-r' to destroy the following datasets:\n{list}"
        ));
    }
    for doomed in &all {
        let clone = state.datasets.iter().find(|(n, d)| d.origin == *doomed && !all.contains(n));
        if let Some((clone, _)) = clone {
            return Err(format!(
                "cannot destroy '{name}': {kind} has dependent clones\nuse '-R' to destroy the following datasets:\n{clone}"
            ));
        }
    }
    Ok(all)
}

pub(super) fn would_destroy(state: &State, name: &str, recursive: bool, parsable: bool) -> Result<String, String> {
    let names = doomed(state, name, recursive)?;
    if !parsable {
        return Ok(names.iter().map(|n| format!("would destroy {n}\n")).collect());
    }
    let freed = used(state, name);
    Ok(names.iter().map(|n| format!("destroy\t{n}\n")).collect::<String>() + &format!("reclaim\t{freed}\n"))
}

/// Whether a zone that is up has it, and how.
fn in_use(state: &State, name: &str) -> Option<&'static str> {
    let at = place(state, name);
    for zone in state.zones.values().filter(|z| z.state.is_up() && z.state != ZoneState::Down) {
        let config = zone.booted.as_ref().unwrap_or(&zone.config);
        if config.zonepath() == at {
            return Some("dataset is busy");
        }
        let holds = |fs: &crate::state::Resource| {
            (fs.get("type") == "lofs" && Path::new(fs.get("special")).starts_with(&at)) || fs.get("special") == name
        };
        if !name.contains('@') && config.all("fs").any(holds) {
            return Some("dataset is busy");
        }
        if config.all("dataset").any(|d| is_within(name, d.get("name"))) {
            return Some("dataset is used in a non-global zone");
        }
        if has_mounts(zone, config, &at) {
            return Some("dataset is busy");
        }
    }
    None
}

/// Whether a zone that runs has something mounted below a directory: what is covered by a mount can't be unmounted (vfs_mount(9F)).
fn has_mounts(zone: &crate::state::Zone, config: &crate::state::Config, at: &Path) -> bool {
    let Some(init) = zone.init.filter(|init| init.lives()) else { return false };
    let table = fs::read_to_string(format!("/proc/{}/mounts", init.pid)).unwrap_or_default();
    config.all("fs").any(|resource| {
        let Ok(rest) = at.strip_prefix(resource.get("special")) else { return false };
        let inside = Path::new(resource.get("dir")).join(rest);
        table.lines().filter_map(|line| line.split(' ').nth(1)).any(|place| {
            // As the zone's first process has it, or this machine.
            let place = Path::new(place);
            let place =
                place.strip_prefix(config.zonepath().join("root")).map_or(place.to_owned(), |p| Path::new("/").join(p));
            place != inside && place.starts_with(&inside)
        })
    })
}

/// Destroys a dataset or snapshot, with all below it.
pub(crate) fn destroy(state: &mut State, name: &str, recursive: bool) -> Result<(), String> {
    state.answers(name)?;
    let names = doomed(state, name, recursive)?;
    for doomed in names {
        let busy = state.datasets.get_mut(&doomed).is_some_and(|d| {
            let busy = d.busy > 0 || !d.holds.is_empty();
            d.busy = d.busy.saturating_sub(1);
            busy
        });
        if busy {
            return Err(format!("cannot destroy '{doomed}': dataset is busy"));
        }
        if let Some(why) = in_use(state, &doomed) {
            return Err(format!("cannot destroy '{doomed}': {why}"));
        }
        let at = place(state, &doomed);
        state.datasets.remove(&doomed);
        // What is mounted elsewhere below goes by itself; what is only a directory of ours goes here.
        match fs::remove_dir_all(&at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(format!("cannot destroy '{doomed}': {e}")),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn rename(state: &mut State, from: &str, to: &str) -> Result<(), String> {
    must_be(state, from)?;
    check_name(to, "rename")?;
    if state.datasets.contains_key(to) {
        return Err(format!("cannot rename '{from}': dataset already exists"));
    }
    if !from.contains('@') {
        check_parent(state, to, "rename")?;
    }
    let moved: Vec<String> = sorted(state).into_iter().filter(|n| is_within(n, from)).collect();
    let before: Vec<(String, PathBuf)> = moved.iter().map(|n| (n.clone(), place(state, n))).collect();
    for name in &moved {
        if let Some(dataset) = state.datasets.remove(name) {
            let new = format!("{to}{}", name.strip_prefix(from).unwrap_or_default());
            for other in state.datasets.values_mut().filter(|d| d.origin == *name) {
                other.origin.clone_from(&new);
            }
            state.datasets.insert(new, dataset);
        }
    }
    for (name, old) in before {
        let new = place(state, &format!("{to}{}", name.strip_prefix(from).unwrap_or_default()));
        // A child that lies within what was moved has moved with it.
        if old.exists() && old != new {
            relocate(&old, &new).map_err(|e| format!("cannot rename '{from}': {e}"))?;
        }
    }
    Ok(())
}

fn relocate(old: &Path, new: &Path) -> io::Result<()> {
    if old == new {
        return Ok(());
    }
    if let Some(parent) = new.parent() {
        fs::create_dir_all(parent)?;
    }
    let _ = fs::remove_dir(new);
    fs::rename(old, new)
}

/// Changes what a dataset's place depends on, and moves its files there.
pub(super) fn move_to(state: &mut State, name: &str, property: &str, value: Option<String>) -> Result<(), String> {
    if let Some(why) = in_use(state, name) {
        return Err(format!("cannot unmount '{name}': {why}"));
    }
    let all = within(state, name);
    let old: Vec<PathBuf> = all.iter().map(|n| place(state, n)).collect();
    if let Some(dataset) = state.datasets.get_mut(name) {
        match value {
            Some(value) => dataset.local.insert(property.to_owned(), value),
            None => dataset.local.remove(property),
        };
    }
    for (name, old) in all.iter().zip(old) {
        let path = mountpoint(state, name);
        let can = properties::get(state, name, "canmount").0 != "off";
        if let Some(dataset) = state.datasets.get_mut(name) {
            dataset.mounted = path.is_some() && can && dataset.kind == "filesystem";
        }
        let new = place(state, name);
        if old != new && old.exists() {
            relocate(&old, &new).map_err(|e| format!("cannot mount '{name}': {e}"))?;
        }
    }
    Ok(())
}

pub(super) fn mount(state: &mut State, name: &str, up: bool) -> Result<(), String> {
    must_be(state, name)?;
    let is = state.datasets.get(name).is_some_and(|d| d.mounted);
    if is == up {
        let word = if up { "filesystem already mounted" } else { "not currently mounted" };
        return Err(format!("cannot {} '{name}': {word}", if up { "mount" } else { "unmount" }));
    }
    if up && mountpoint(state, name).is_none() {
        return Err(format!("cannot mount '{name}': legacy mountpoint"));
    }
    if let Some(why) = in_use(state, name).filter(|_| !up) {
        return Err(format!("cannot unmount '{name}': {why}"));
    }
    let old = place(state, name);
    if let Some(dataset) = state.datasets.get_mut(name) {
        dataset.mounted = up;
    }
    relocate(&old, &place(state, name)).map_err(|e| format!("cannot mount '{name}': {e}"))
}

pub(super) fn rollback(state: &mut State, name: &str, newer: bool) -> Result<(), String> {
    must_be(state, name)?;
    let (dataset, _) = name.split_once('@').ok_or_else(|| format!("cannot rollback '{name}': not a snapshot"))?;
    let dataset = dataset.to_owned();
    let at = state.datasets.get(name).map_or(0, |d| d.created);
    let later: Vec<String> = sorted(state)
        .into_iter()
        .filter(|n| {
            n.split_once('@').is_some_and(|(d, _)| d == dataset)
                && state.datasets.get(n).is_some_and(|d| d.created > at)
        })
        .collect();
    if !later.is_empty() && !newer {
        return Err(format!(
            "cannot rollback to '{name}': more recent snapshots exist\nuse '-r' to force deletion of the following snapshots:\n{}",
            later.join("\n")
        ));
    }
    if let Some(why) = in_use(state, &dataset) {
        return Err(format!("cannot rollback '{dataset}': {why}"));
    }
    for snapshot in later {
        destroy(state, &snapshot, false)?;
    }
    let (from, to) = (place(state, name), place(state, &dataset));
    let keep = others(state, &dataset);
    empty(&to, &keep).and_then(|()| copy_tree(&from, &to)).map_err(|e| format!("cannot rollback '{dataset}': {e}"))
}

pub(super) fn promote(state: &mut State, name: &str) -> Result<(), String> {
    must_be(state, name)?;
    let origin = state.datasets.get(name).map(|d| d.origin.clone()).unwrap_or_default();
    let Some((parent, snap)) = origin.split_once('@') else {
        return Err(format!("cannot promote '{name}': not a cloned filesystem"));
    };
    let new = format!("{name}@{snap}");
    let (parent, old_place) = (parent.to_owned(), place(state, &origin));
    let Some(snapshot) = state.datasets.remove(&origin) else {
        return Err(format!("cannot promote '{name}': no origin"));
    };
    state.datasets.insert(new.clone(), snapshot);
    relocate(&old_place, &place(state, &new)).map_err(|e| format!("cannot promote '{name}': {e}"))?;
    for dataset in state.datasets.values_mut().filter(|d| d.origin == origin) {
        dataset.origin.clone_from(&new);
    }
    for (of, origin) in [(name.to_owned(), String::new()), (parent, new)] {
        if let Some(dataset) = state.datasets.get_mut(&of) {
            dataset.origin = origin;
        }
    }
    Ok(())
}

/// Bytes of files below, other file systems left out.
fn size(path: &Path, except: &BTreeSet<PathBuf>) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let path = entry.path();
        match entry.metadata() {
            Ok(_) if except.contains(&path) => 0,
            Ok(m) if m.is_dir() => 512 + size(&path, except),
            Ok(m) => 512 + m.blocks() * 512,
            Err(_) => 0,
        }
    };
    entries.map(one).sum()
}

/// What a dataset's own files take.
pub(super) fn referenced(state: &State, name: &str) -> u64 {
    24576 + size(&place(state, name), &others(state, name))
}

/// What a dataset takes with all below it; of a clone what it has beyond its origin, since the rest is shared (zfsprops(7)).
pub(super) fn used(state: &State, name: &str) -> u64 {
    let own = |name: &str| {
        let shared =
            state.datasets.get(name).filter(|d| !d.origin.is_empty()).map_or(0, |d| referenced(state, &d.origin));
        referenced(state, name).saturating_sub(shared).max(1024)
    };
    within(state, name).iter().map(|n| own(n)).sum()
}

/// What may still be written: the least that any bound above leaves.
pub(super) fn available(state: &State, name: &str) -> u64 {
    let mut least = POOL;
    let mut at = Some(name);
    while let Some(dataset) = at {
        let quota = properties::get(state, dataset, "quota").0.parse::<u64>().unwrap_or(0);
        if quota != 0 {
            least = least.min(quota.saturating_sub(used(state, dataset)));
        }
        at = dataset.rsplit_once('/').map(|(parent, _)| parent);
    }
    least
}

/// Copies a tree with modes and owners.
///
/// # Errors
/// The disk's.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    copy_except(from, to, &BTreeSet::new())
}

fn copy_except(from: &Path, to: &Path, except: &BTreeSet<PathBuf>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let about = fs::symlink_metadata(from)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if except.contains(&source) {
            continue;
        }
        let meta = entry.metadata()?;
        if meta.is_dir() {
            copy_except(&source, &target, except)?;
            continue;
        }
        if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
        } else {
            // Sockets and pipes mean nothing to a copy.
            continue;
        }
        own(&target, &meta);
    }
    fs::set_permissions(to, fs::Permissions::from_mode(about.mode() & 0o7777))?;
    own(to, &about);
    Ok(())
}

/// Only root can give files away; for others all is theirs anyway.
fn own(path: &Path, meta: &fs::Metadata) {
    let _ = lchown(path, Some(meta.uid()), Some(meta.gid()));
}

fn empty(path: &Path, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let holds = keep.iter().any(|k| k.starts_with(&path));
        match (holds, path.is_dir() && !path.is_symlink()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(&path)?,
            (false, false) => fs::remove_file(&path)?,
        }
    }
    Ok(())
}
