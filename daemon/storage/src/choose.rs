//! Which engine, and why. What the settings say counts; without a word there is ZFS where a pool was set aside for us, btrfs
//! where the place is on it, and directories everywhere else.

use crate::anchor::Record;
use crate::tree::{Layout, TreeEngine, btrfs, directory};
use crate::zfs::ZfsEngine;
use crate::zfs::text::Dataset;
use reddwarf_command::{Invocation, Tool, Tools};
use reddwarf_host::storage::Subvolumes;
use reddwarf_host::{Area, Clock, EngineKind, HostError, HostErrorKind, HostResult, StorageEngine};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where: an absolute path or a ZFS dataset. `None`: not said.
    pub pool: Option<String>,
    /// Which engine. `None`: whichever fits.
    pub engine: Option<EngineKind>,
    /// Areas at places of their own, paths or datasets like the pool.
    pub areas: BTreeMap<Area, String>,
    /// Where storage lies when nothing is said.
    pub default: PathBuf,
    /// Without a pool said, take the dataset `<pool>/reddwarf` if there is one. Only one daemon of a machine may.
    pub look_for_pools: bool,
    /// Where it is written down which storage is in use, so that none is taken for it. `None`: nowhere.
    pub record: Option<PathBuf>,
}

/// The engine to use. Nothing is made before [`StorageEngine::prepare`]. `subvolumes`: what the host does itself on btrfs.
///
/// # Errors
/// `InvalidSpec` when what is asked for does not fit together, `Unsupported` when a tool is missing.
pub async fn choose(
    wanted: &Wanted,
    tools: Tools,
    subvolumes: Option<Arc<dyn Subvolumes>>,
    clock: Arc<dyn Clock>,
) -> HostResult<Arc<dyn StorageEngine>> {
    let Choice { kind, place, why } = match (decide(wanted, &tools).await, begun(wanted)) {
        // Its disk is not mounted, its pool not imported: that will be said, and nothing is begun elsewhere.
        (Ok(now), Some(begun)) if (now.kind, &now.place) != (begun.kind, &begun.place) => begun,
        (Err(_), Some(begun)) => begun,
        (now, _) => now?,
    };
    if kind == EngineKind::Zfs {
        return zfs(wanted, &place, tools, why).await;
    }
    let layout = Layout::new(&place, areas(wanted)?);
    let engine: TreeEngine = match kind {
        EngineKind::Btrfs => btrfs::engine(layout, tools, subvolumes, why, clock),
        EngineKind::Directory => directory::engine(layout, tools, why, clock),
        EngineKind::Zfs | EngineKind::Memory => return refuse("storage_engine", "this is no engine for a path"),
    };
    Ok(Arc::new(engine.anchored(wanted.record.clone())))
}

struct Choice {
    kind: EngineKind,
    place: String,
    why: String,
}

/// What settings and machine say.
async fn decide(wanted: &Wanted, tools: &Tools) -> HostResult<Choice> {
    if let Some(pool) = wanted.pool.as_deref().filter(|pool| !pool.starts_with('/')) {
        let why = "the setting `storage_pool` names a ZFS dataset".to_owned();
        return Ok(Choice { kind: EngineKind::Zfs, place: pool.to_owned(), why });
    }
    if wanted.pool.is_none()
        && matches!(wanted.engine, None | Some(EngineKind::Zfs))
        && let Some(place) = set_aside(wanted, tools).await?
    {
        let why = format!("the dataset {place} is there");
        return Ok(Choice { kind: EngineKind::Zfs, place, why });
    }
    let place = place(wanted)?;
    let (kind, why) = kind(wanted, tools, &place).await?;
    Ok(Choice { kind, place: place.display().to_string(), why })
}

/// The storage that was in use before, if the settings don't speak against it and it may hold volumes. A record that can't be
/// read is told of when storage is made ready.
fn begun(wanted: &Wanted) -> Option<Choice> {
    let file = wanted.record.as_ref()?;
    let Record { engine, place, .. } = Record::read(file).ok().flatten().filter(|record| !record.is_empty())?;
    let meant = match wanted.pool.as_deref() {
        Some(pool) => pool == place,
        None => engine == EngineKind::Zfs || Path::new(&place) == wanted.default,
    };
    if !meant || wanted.engine.is_some_and(|wanted| wanted != engine) {
        return None;
    }
    Some(Choice { kind: engine, place, why: format!("storage was begun there ({})", file.display()) })
}

async fn zfs(wanted: &Wanted, pool: &str, tools: Tools, why: impl Into<String>) -> HostResult<Arc<dyn StorageEngine>> {
    if let Some(other) = wanted.engine.filter(|engine| *engine != EngineKind::Zfs) {
        return refuse("storage_engine", format!("{other} needs an absolute path as `storage_pool`, not {pool}"));
    }
    let dataset = |setting: &str, name: &str| Dataset::new(name).or_else(|e| refuse(setting, e.to_string()));
    let mut areas = BTreeMap::new();
    for (area, at) in &wanted.areas {
        areas.insert(*area, dataset(&format!("storage_{area}"), at)?);
    }
    tools.path("zfs").map_err(|e| e.into_host("choose storage", "storage_pool"))?;
    let engine = ZfsEngine::open(dataset("storage_pool", pool)?, areas, tools, why).await?;
    Ok(Arc::new(engine.anchored(wanted.record.clone())))
}

/// The dataset that was set aside for us, if there is just one: `<pool>/reddwarf`. Nothing is looked for where volumes lie in
/// directories already: they would be out of sight.
async fn set_aside(wanted: &Wanted, tools: &Tools) -> HostResult<Option<String>> {
    if !wanted.look_for_pools || has_datasets(&wanted.default) || tools.path("zfs").is_err() {
        return Ok(None);
    }
    let list = Invocation::read(Tool::Zfs, ["get", "-H", "-p", "-r", "-d", "1", "-o", "name", "type"]);
    // Tools without pools, or without the kernel's module: there is none then.
    let Ok(output) = tools.run(&list).await else { return Ok(None) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = |name: &&str| name.split_once('/').is_some_and(|(_, rest)| rest == "reddwarf");
    let found: Vec<&str> = text.lines().filter(ours).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).to_owned())),
        several => refuse("storage_pool", format!("several datasets could be meant, name one: {}", several.join(", "))),
    }
}

fn refuse<T>(setting: &str, why: impl Into<String>) -> HostResult<T> {
    Err(HostError::new(HostErrorKind::InvalidSpec, "choose storage", setting, why))
}

fn place(wanted: &Wanted) -> HostResult<PathBuf> {
    match wanted.pool.as_deref() {
        None => Ok(wanted.default.clone()),
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(other) => refuse("storage_pool", format!("{other:?} must be an absolute path")),
    }
}

fn areas(wanted: &Wanted) -> HostResult<BTreeMap<Area, PathBuf>> {
    let mut areas = BTreeMap::new();
    for (area, at) in &wanted.areas {
        if !at.starts_with('/') {
            return refuse(&format!("storage_{area}"), format!("{at:?} must be an absolute path"));
        }
        areas.insert(*area, PathBuf::from(at));
    }
    Ok(areas)
}

/// btrfs or directories, for a path.
async fn kind(wanted: &Wanted, tools: &Tools, place: &Path) -> HostResult<(EngineKind, String)> {
    if wanted.engine == Some(EngineKind::Directory) {
        return Ok((EngineKind::Directory, "the setting `storage_engine` says so".into()));
    }
    let there = existing(place);
    let at = there.display();
    match (wanted.engine, btrfs::is_at(tools, there).await) {
        (Some(EngineKind::Btrfs), Some(true)) => Ok((EngineKind::Btrfs, "the setting `storage_engine` says so".into())),
        (Some(EngineKind::Btrfs), Some(false)) => refuse("storage_engine", format!("{at} is not on btrfs")),
        (Some(EngineKind::Btrfs), None) => {
            let message = "btrfs(8) is not installed: install btrfs-progs";
            Err(HostError::new(HostErrorKind::Unsupported, "choose storage", "storage_engine", message))
        }
        (Some(_), _) => refuse("storage_engine", "zfs needs a dataset as `storage_pool`"),
        // What was begun on directories goes on so: volumes would be out of sight otherwise.
        (None, Some(true)) if has_directories(place) => {
            Ok((EngineKind::Directory, format!("{at} is on btrfs, but holds volumes of the directory engine")))
        }
        (None, Some(true)) => Ok((EngineKind::Btrfs, format!("{at} is on btrfs"))),
        (None, Some(false)) => Ok((EngineKind::Directory, format!("{at} is not on btrfs and no ZFS pool was named"))),
        (None, None) => Ok((EngineKind::Directory, "btrfs(8) is not installed and no ZFS pool was named".into())),
    }
}

/// The nearest directory above that is there.
fn existing(place: &Path) -> &Path {
    place.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"))
}

/// Whether volumes lie there that are no subvolumes.
fn has_directories(place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    marked(place).iter().any(|path| fs::symlink_metadata(path).is_ok_and(|m| m.ino() != 256))
}

/// Whether volumes lie there.
fn has_datasets(place: &Path) -> bool {
    !marked(place).is_empty()
}

fn marked(place: &Path) -> Vec<PathBuf> {
    Area::ALL.into_iter().filter_map(|area| Layout::marked(&place.join(area.as_str())).ok()).flatten().collect()
}
