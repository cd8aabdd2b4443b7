//! Going back to a generation.
//!
//! A generation keeps its files' contents. They are laid out below the state directory, in the same layers, and read
//! by the same scanner as the real ones, so that masks, drop-ins and validation mean the same. While the directory
//! stays as it was at the rollback, the rollback holds; the first real edit ends it.

use super::{DirectoryError, DirectoryLoop, PassReport};
use super::{note, pass};
use reddwarf_config::{Scan, Scanner};
use reddwarf_registry::{Registry, RegistryError};
use reddwarf_store::{Digest, GenerationRecord};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A rollback in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hold {
    /// The generation that was gone back to.
    pub(super) generation: u64,
    /// The directory as it was then: as long as it is so, it is not applied.
    pub(super) directory: Vec<(String, Digest)>,
}

/// What `status` says about it.
pub(super) fn notice(generation: u64) -> String {
    format!(
        "rolled back to generation {generation}; the manifest directory still holds something else and is not applied \
         until it changes (`reddwarfctl rollback {generation} --write` makes the files match)"
    )
}

const NOTE: &str = "hold";

/// The rollback that a restart finds in force.
pub(super) fn load_hold(registry: &Registry) -> Result<Option<Hold>, RegistryError> {
    note::load(registry, NOTE)
}

/// Ends the rollback.
pub(super) async fn forget_hold(registry: &Registry) -> Result<(), RegistryError> {
    note::forget(registry, NOTE, "the rollback before ends").await
}

impl DirectoryLoop {
    /// Puts generation `number` back in force.
    pub(super) async fn rollback(&mut self, number: u64, write: bool) -> Result<PassReport, DirectoryError> {
        let store = self.registry.store();
        let record = store.generation(number).map_err(RegistryError::from)?;
        let record = record.ok_or(DirectoryError::NoGeneration(number))?;
        let contents = contents(&self.registry, &record)?;
        let Some(now) = self.scan().await else { return Err(DirectoryError::Closed) };
        let mut written = Vec::new();
        if write {
            written = rewrite(&now, &contents)?;
        }
        let layout = Layout { root: self.options.scratch.clone(), layers: self.options.layers.clone() };
        let (limits, trust) = (self.options.limits, self.options.trust.clone());
        let (layout, scan) = tokio::task::spawn_blocking(move || {
            let scan = layout.scan(&contents, limits, trust);
            scan.map(|scan| (layout, scan))
        })
        .await
        .map_err(|_| DirectoryError::Closed)??;
        // Asking for a generation is asking for its removals too.
        let decision = pass::decide_named(&scan, &self.ownership, self.options.guard, true, &|path| layout.shown(path));
        let files = pass::digests(&scan);
        let note = format!("rollback to {number}");
        if self.hold.take().is_some() {
            forget_hold(&self.registry).await?;
        }
        let mut report = self.apply(scan, decision, files.clone(), note, Some(number)).await?;
        if !write {
            let hold = Hold { generation: number, directory: pass::digests(&now) };
            if hold.directory != files {
                self.keep(hold).await?;
            }
        }
        report.written = written;
        Ok(report)
    }

    async fn keep(&mut self, hold: Hold) -> Result<(), DirectoryError> {
        note::keep(&self.registry, NOTE, &hold, &format!("rollback to {}", hold.generation)).await?;
        self.publish.send_modify(|status| {
            std::sync::Arc::make_mut(status).notices.push(notice(hold.generation));
        });
        self.hold = Some(hold);
        Ok(())
    }
}

type Contents = Vec<(PathBuf, Vec<u8>)>;

fn contents(registry: &Registry, record: &GenerationRecord) -> Result<Contents, DirectoryError> {
    let damaged = |why: String| DirectoryError::Damaged { number: record.number, why };
    record
        .files
        .iter()
        .map(|file| {
            let bytes = registry.store().content(&file.digest).map_err(RegistryError::from)?;
            let bytes = bytes.ok_or_else(|| damaged(format!("the content of {} is gone", file.name)))?;
            Ok((PathBuf::from(&file.name), bytes.to_vec()))
        })
        .collect()
}

/// Makes the directories' files those of a generation; every file is replaced whole or not at all.
fn rewrite(now: &Scan, contents: &Contents) -> Result<Vec<PathBuf>, DirectoryError> {
    let mut written = Vec::new();
    for (path, bytes) in contents {
        if std::fs::read(path).is_ok_and(|old| &old == bytes) {
            continue;
        }
        replace(path, bytes).map_err(|source| DirectoryError::Io {
            what: format!("{} could not be written", path.display()),
            source,
        })?;
        written.push(path.clone());
    }
    for file in &now.files {
        if file.text.is_some() && contents.iter().all(|(path, _)| path != &file.path) {
            std::fs::remove_file(&file.path).map_err(|source| DirectoryError::Io {
                what: format!("{} could not be removed", file.path.display()),
                source,
            })?;
            written.push(file.path.clone());
        }
    }
    Ok(written)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.rollback"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    std::fs::File::open(directory)?.sync_all()
}

/// A copy of the layers below a directory of ours.
struct Layout {
    root: PathBuf,
    layers: Vec<PathBuf>,
}

impl Layout {
    /// Lays the files out, scans them, and gives the scan with the original paths.
    fn scan(
        &self,
        contents: &Contents,
        limits: reddwarf_config::Limits,
        trust: reddwarf_config::directory::Trust,
    ) -> Result<Scan, DirectoryError> {
        let failed = |source| DirectoryError::Io { what: format!("{} can't be used", self.root.display()), source };
        let _ = std::fs::remove_dir_all(&self.root);
        let layers: Vec<PathBuf> = (0..self.layers.len()).map(|i| self.copy(i)).collect();
        for layer in &layers {
            std::fs::create_dir_all(layer).map_err(failed)?;
        }
        for (path, bytes) in contents {
            let Some((index, relative)) = self.place(path) else { continue };
            let target = layers[index].join(relative);
            std::fs::create_dir_all(target.parent().unwrap_or(&self.root)).map_err(failed)?;
            let mut file = std::fs::File::create(target).map_err(failed)?;
            file.write_all(bytes).map_err(failed)?;
        }
        let mut scan = Scanner::new(layers, limits, trust).scan();
        let _ = std::fs::remove_dir_all(&self.root);
        for file in &mut scan.files {
            file.path = self.shown(&file.path.display().to_string()).into();
        }
        for finding in &mut scan.diagnostics {
            finding.file = self.shown(&finding.file);
        }
        Ok(scan)
    }

    fn copy(&self, layer: usize) -> PathBuf {
        self.root.join(layer.to_string())
    }

    /// The original's path of a file in the copy.
    fn shown(&self, path: &str) -> String {
        (0..self.layers.len())
            .find_map(|i| Some(self.layers[i].join(Path::new(path).strip_prefix(self.copy(i)).ok()?)))
            .map_or_else(|| path.to_owned(), |p| p.display().to_string())
    }

    fn place<'a>(&self, path: &'a Path) -> Option<(usize, &'a Path)> {
        self.layers.iter().enumerate().rev().find_map(|(i, layer)| Some((i, path.strip_prefix(layer).ok()?)))
    }
}

/// Objects that two generations declare, for comparing them.
pub fn objects_of(
    registry: &Registry,
    record: &GenerationRecord,
    layers: &[PathBuf],
    scratch: &Path,
) -> Result<Vec<reddwarf_objects::Object>, DirectoryError> {
    let contents = contents(registry, record)?;
    let layout = Layout { root: scratch.to_owned(), layers: layers.to_vec() };
    let scan =
        layout.scan(&contents, reddwarf_config::Limits::default(), reddwarf_config::directory::Trust::default())?;
    Ok(scan.declared.iter().map(|d| d.object()).collect())
}
