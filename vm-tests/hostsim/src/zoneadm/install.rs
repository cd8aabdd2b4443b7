//! install, clone, uninstall, attach, detach, mark: zones and their files.

use super::{Operation, Step};
use crate::brand::{Brand, Installed};
use crate::call::{Answer, broken};
use crate::platform;
use crate::state::{State, Zone, ZoneState};
use crate::zfs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

impl Operation<'_> {
    /// Only a configured zone can be given files.
    fn configured(&self, zone: &Zone) -> Step {
        match zone.state {
            ZoneState::Configured => Ok(()),
            ZoneState::Incomplete => Err(self.error("zone is incomplete; uninstall required.")),
            ZoneState::Installed => Err(self.error("is already installed.")),
            other => Err(self.error(format!("is already {}.", other.word()))),
        }
    }

    pub(super) fn install(&self, options: &[&str]) -> Step<Answer> {
        let zone = self.zone()?;
        self.configured(&zone)?;
        let path = zone.config.zonepath();
        let takes = self.step(|state| Ok(state.times.install))?;
        let brand = Brand::of(self.call.sim, &zone.config);
        if brand.has_own_init() {
            self.begin(&zone, &path)?;
            std::thread::sleep(Duration::from_millis(takes));
            match brand.install(&self.zone, &path, options) {
                Installed::Done => return self.installed(),
                Installed::Undone(what) => return Err(self.undone(&path, &what)),
                Installed::Failed(what) => return Err(self.error(what)),
                Installed::NotItsOwn => return Err(self.error("the brand's program for installations is not there")),
            }
        }
        let source = self.install_options(zone.config.global("brand"), options)?;
        if let Some(source) = source {
            self.check_source(zone.config.global("brand"), source)?;
        }
        self.begin(&zone, &path)?;
        std::thread::sleep(Duration::from_millis(takes));
        if let Err(what) = self.fill(&path, zone.config.global("brand"), source) {
            // A hook that failed: the zone stays incomplete.
            return Err(self.error(what));
        }
        self.installed()
    }

    /// From here to the end the zone is incomplete.
    fn begin(&self, zone: &Zone, path: &Path) -> Step {
        self.check_zonepath(path)?;
        self.step(|state| {
            self.make_zonepath(state, path)?;
            if let Some(zone) = state.zones.get_mut(&self.zone) {
                zone.state = ZoneState::Incomplete;
            }
            Ok(())
        })?;
        let _ = zone;
        Ok(())
    }

    /// An installation that was not completed: no files, and the zone is configured as before.
    fn undone(&self, path: &Path, what: &str) -> Answer {
        let cleaned = self.step(|state| {
            if let Some(dataset) = state.mounted_at(path).map(ToOwned::to_owned) {
                zfs::destroy(state, &dataset, true).map_err(|what| self.error(what))?;
            }
            let _ = std::fs::remove_dir_all(path);
            if let Some(zone) = state.zones.get_mut(&self.zone) {
                zone.state = ZoneState::Configured;
            }
            Ok(())
        });
        cleaned.err().unwrap_or_else(|| self.error(what))
    }

    fn installed(&self) -> Step<Answer> {
        self.step(|state| {
            let number = state.number();
            let Some(zone) = state.zones.get_mut(&self.zone) else { return Err(self.error("No such zone configured")) };
            zone.state = ZoneState::Installed;
            zone.uuid = format!("5a1e57e0-0000-4000-8000-{number:012x}");
            Ok(Answer::ok())
        })
    }

    /// What a brand's installer takes, and what it unpacks.
    fn install_options<'o>(&self, brand: &str, options: &[&'o str]) -> Step<Option<&'o str>> {
        let unknown = || Answer {
            code: 1,
            ..Answer::usage(format!("zoneadm: zone '{}': brand {brand}: bad install option", self.zone))
        };
        let (mut source, mut how) = (None, 0);
        let mut words = options.iter();
        while let Some(word) = words.next() {
            match (brand, *word) {
                ("lx" | "illumos", "-s" | "-t") | ("ipkg" | "lipkg" | "sparse" | "pkgsrc", "-a") => {
                    source = Some(*words.next().ok_or_else(unknown)?);
                }
                ("ipkg" | "lipkg" | "sparse" | "pkgsrc", "-p" | "-u") => how += 1,
                ("ipkg" | "lipkg" | "sparse" | "pkgsrc", "-v" | "-s" | "-k" | "-c") => {}
                ("ipkg" | "lipkg" | "sparse" | "pkgsrc", "-e" | "-P") => {
                    words.next().ok_or_else(unknown)?;
                }
                _ => return Err(unknown()),
            }
        }
        if matches!(brand, "lx" | "illumos") && source.is_none() {
            return Err(self.error(format!("brand {brand}: no source: -s is required")));
        }
        if matches!(brand, "ipkg" | "lipkg" | "sparse" | "pkgsrc") && source.is_some() != (how == 1) {
            return Err(self.error("an archive needs -p or -u, which need an archive"));
        }
        Ok(source)
    }

    /// An archive, or where the brand takes them a dataset or a snapshot; a directory is neither.
    fn check_source(&self, brand: &str, source: &str) -> Step {
        let of_zfs = matches!(brand, "lx" | "illumos") && self.step(|s| Ok(s.datasets.contains_key(source)))?;
        if of_zfs || Path::new(source).is_file() {
            return Ok(());
        }
        Err(self.error(format!("brand {brand}: {source}: neither an archive nor a dataset or snapshot")))
    }

    fn check_zonepath(&self, path: &Path) -> Step {
        let resolved = path.parent().and_then(|p| p.canonicalize().ok());
        let parent = path.parent().unwrap_or(Path::new("/"));
        match &resolved {
            Some(real) if real == parent => {}
            Some(_) => return Err(self.error("Resolved path mismatch")),
            None => return Err(self.error(format!("{}: No such file or directory", parent.display()))),
        }
        // Above the played root is the machine that plays.
        let root = self.call.sim.dir().to_owned();
        for ancestor in path.ancestors().skip(1).take_while(|a| a.starts_with(&root)) {
            let Ok(found) = ancestor.metadata() else { continue };
            if found.mode() & 0o022 != 0 {
                return Err(
                    self.error(format!("{} must not be writable by its group or by others.", ancestor.display()))
                );
            }
        }
        if !path.starts_with(&root) {
            return Err(self.error(format!("hostsim: {} is not below {}", path.display(), root.display())));
        }
        self.step(|state| {
            let other = state.zones.iter().find(|(name, z)| {
                let theirs = z.config.zonepath();
                **name != self.zone
                    && z.state != ZoneState::Configured
                    && (theirs.starts_with(path) || path.starts_with(&theirs))
            });
            match other {
                Some((name, _)) => Err(self.error(format!("zonepath is in use by zone {name}"))),
                None => Ok(()),
            }
        })
    }

    /// A dataset where the parent is one, else a directory; mode 0700.
    fn make_zonepath(&self, state: &mut State, path: &Path) -> Step {
        let io = |e: std::io::Error| self.error(format!("{}: {e}", path.display()));
        if state.mounted_at(path).is_none() {
            let parent = path.parent().and_then(|p| state.mounted_at(p)).map(ToOwned::to_owned);
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            match parent {
                Some(parent) if !state.datasets.contains_key(&format!("{parent}/{name}")) => {
                    zfs::make(state, &format!("{parent}/{name}"), &[]).map_err(|what| self.error(what))?;
                }
                _ => std::fs::create_dir_all(path).map_err(io)?,
            }
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io)
    }

    /// The root file system.
    fn fill(&self, path: &Path, brand: &str, source: Option<&str>) -> Result<(), String> {
        let root = path.join("root");
        let source = source.map(PathBuf::from);
        match source {
            Some(archive) if archive.is_file() => {
                std::fs::create_dir_all(&root).map_err(|e| e.to_string())?;
                unpack(&archive, &root)?;
            }
            // What is sent takes the place of the whole zonepath.
            Some(other) => {
                let name = other.to_string_lossy();
                let locked = self.call.sim.lock().map_err(|e| e.to_string())?;
                let files = zfs::backing(self.call.sim, &locked.state, &name);
                let files = files.map(|f| f.join("root")).filter(|f| f.is_dir());
                drop(locked);
                let files = files.ok_or_else(|| format!("{name}: there is no root/ in it"))?;
                zfs::copy_tree(&files, &root).map_err(|e| format!("{name}: {e}"))?;
            }
            None => std::fs::create_dir_all(&root).map_err(|e| e.to_string())?,
        }
        if brand == "lx" && !has_release(&root) {
            return Err("Unsupported distribution!".into());
        }
        platform::furnish(&root, brand).map_err(|e| format!("{}: {e}", root.display()))
    }

    pub(super) fn clone_from(&self, options: &[&str]) -> Step<Answer> {
        let (copy, snapshot, source) = match *options {
            [source] => (false, None, source),
            ["-m", "copy", source] => (true, None, source),
            ["-s", snapshot, source] => (false, Some(snapshot), source),
            _ => return Err(Answer::usage(super::USAGE)),
        };
        let zone = self.zone()?;
        self.configured(&zone)?;
        let path = zone.config.zonepath();
        let from = self.step(|state| match state.zones.get(source) {
            None => Err(self.error(format!("{source}: No such zone configured"))),
            Some(from) if from.state != ZoneState::Installed => {
                Err(self.error(format!("zone {source} must be installed and halted before clone")))
            }
            Some(from) if from.config.global("brand") != zone.config.global("brand") => {
                Err(self.error(format!("zone {source} has another brand")))
            }
            Some(from) => Ok(from.config.zonepath()),
        })?;
        self.check_zonepath(&path)?;
        self.step(|state| {
            let parent = path.parent().and_then(|p| state.mounted_at(p)).map(ToOwned::to_owned);
            match (state.mounted_at(&from).map(ToOwned::to_owned), parent) {
                (Some(dataset), Some(parent)) if !copy => {
                    let made = snapshot.map_or_else(
                        || {
                            let name = format!("{dataset}@SUNWzone{}", state.number());
                            zfs::snapshot(state, &name).map(|()| name)
                        },
                        |given| Ok(given.to_owned()),
                    );
                    let made = made.map_err(|what| self.error(what))?;
                    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                    zfs::clone(state, &made, &format!("{parent}/{name}"), &[]).map_err(|what| self.error(what))?;
                }
                _ => {
                    self.make_zonepath(state, &path)?;
                    zfs::copy_tree(&from.join("root"), &path.join("root")).map_err(|e| self.error(e.to_string()))?;
                }
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(|e| broken(&e.to_string()))
        })?;
        self.installed()
    }

    pub(super) fn uninstall(&self, options: &[&str]) -> Step<Answer> {
        let zone = self.zone()?;
        match zone.state {
            ZoneState::Installed | ZoneState::Incomplete => {}
            ZoneState::Configured => return Err(self.error("is already in state 'configured'.")),
            other => {
                return Err(self.error(format!("uninstall operation is invalid while zone is {}", other.word())));
            }
        }
        match options {
            ["-F"] => {}
            [] => {
                return Err(
                    self.error("Input not from terminal and -F not specified: uninstall command ignored, exiting.")
                );
            }
            _ => return Err(Answer::usage(super::USAGE)),
        }
        let path = zone.config.zonepath();
        self.step(|state| {
            if let Some(zone) = state.zones.get_mut(&self.zone) {
                zone.state = ZoneState::Incomplete;
            }
            Ok(())
        })?;
        self.step(|state| {
            if let Some(dataset) = state.mounted_at(&path).map(ToOwned::to_owned) {
                zfs::destroy(state, &dataset, true).map_err(|what| self.error(what))?;
            }
            match std::fs::remove_dir_all(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(self.error(e.to_string())),
                _ => {}
            }
            if let Some(zone) = state.zones.get_mut(&self.zone) {
                zone.state = ZoneState::Configured;
                zone.uuid.clear();
            }
            Ok(Answer::ok())
        })
    }

    pub(super) fn attach(&self, options: &[&str]) -> Step<Answer> {
        let zone = self.zone()?;
        self.configured(&zone)?;
        let force = options.contains(&"-F");
        if options.iter().any(|o| !matches!(*o, "-F" | "-u")) {
            return Err(Answer::usage(super::USAGE));
        }
        let path = zone.config.zonepath();
        self.check_zonepath(&path)?;
        if !path.join("root").is_dir() {
            return Err(self.error(format!("the zonepath {} has no root", path.display())));
        }
        if !force && !path.join("SUNWdetached.xml").is_file() {
            return Err(self.error("Not a detached zone."));
        }
        if path.metadata().is_ok_and(|m| m.mode() & 0o077 != 0) {
            return Err(self.error(format!("{} must not be accessible by its group or by others.", path.display())));
        }
        let _ = std::fs::remove_file(path.join("SUNWdetached.xml"));
        if let Err(e) = platform::furnish(&path.join("root"), zone.config.global("brand")) {
            return Err(self.error(e.to_string()));
        }
        self.installed()
    }

    pub(super) fn detach(&self) -> Step<Answer> {
        let path = self.existing(|zone| match zone.state {
            ZoneState::Installed => {
                zone.state = ZoneState::Configured;
                Ok(zone.config.zonepath())
            }
            _ => Err(self.error("must be installed before detach.")),
        })?;
        crate::call::replace(&path.join("SUNWdetached.xml"), b"<zone/>\n").map_err(|e| broken(&e.to_string()))?;
        Ok(Answer::ok())
    }

    pub(super) fn mark(&self) -> Step<Answer> {
        self.existing(|zone| match zone.state {
            ZoneState::Installed | ZoneState::Unavailable => {
                zone.state = ZoneState::Incomplete;
                Ok(Answer::ok())
            }
            _ => Err(self.error("must be installed before mark.")),
        })
    }
}

fn has_release(root: &Path) -> bool {
    let entries = std::fs::read_dir(root.join("etc")).into_iter().flatten().flatten();
    let mut names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.any(|n| n.ends_with("-release") || n == "debian_version" || n == "alpine-release")
}

fn unpack(archive: &Path, root: &Path) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "what a brand's script does")]
    let mut tar = Command::new("tar");
    tar.arg("-xpf").arg(archive).arg("-C").arg(root).stdin(Stdio::null()).stdout(Stdio::null());
    let output = tar.output().map_err(|e| format!("tar: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
