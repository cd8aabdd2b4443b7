//! The simulation's state in files, and containers' logs.
//!
//! `<dir>/machine.json` holds network, images and leftovers; `<dir>/sandboxes/<id>.json` one sandbox each, so that a
//! change costs one small file. Files are replaced atomically and readable by their owner only (secrets are in them).

use super::state::{Line, Machine, Sandbox, World};
use super::{FakeHost, FakeOptions};
use crate::error::{HostError, HostErrorKind, HostResult};
use crate::names::SandboxId;
use crate::spec::LogSpec;
use crate::time::SystemClock;
use chrono::SecondsFormat;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
}

impl FakeHost {
    /// The simulated host of `reddwarfd --host sim`: real time, state kept in `dir` over restarts of the daemon,
    /// containers' logs written. A reboot of the real machine counts as one of the simulated machine.
    ///
    /// # Errors
    /// `Other` when `dir` can't be made or its state can't be read.
    pub fn sim(dir: &Path, options: FakeOptions) -> HostResult<Self> {
        let failed = |error: io::Error| {
            let message = format!("{}; mend or delete it", dir.display());
            HostError::new(HostErrorKind::Other, "open the simulated host", dir.display().to_string(), message)
                .caused_by(error)
        };
        let disk = Disk { dir: dir.to_owned() };
        let mut world = disk.load().map_err(failed)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let boot_id = if boot_id.is_empty() { "sim".into() } else { boot_id };
        let rebooted = !world.machine.boot_id.is_empty() && world.machine.boot_id != boot_id;
        let host_options = FakeOptions { write_logs: true, journal: 0, ..options };
        if rebooted {
            let before: Vec<SandboxId> = world.sandboxes().keys().cloned().collect();
            world.power_cut(host_options.profile);
            before.iter().for_each(|id| disk.save_sandbox(id, world.sandboxes().get(id)));
        }
        world.machine.boot_id = boot_id;
        disk.save_machine(&world.machine);
        Ok(Self::build(host_options, Arc::new(SystemClock), None, Some(disk), world))
    }
}

impl Disk {
    fn load(&self) -> io::Result<World> {
        let sandboxes = self.dir.join("sandboxes");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&sandboxes)?;
        let mut world = World::default();
        world.machine = read(&self.dir.join("machine.json"))?.unwrap_or_default();
        for entry in sandboxes.read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(sandbox) = read::<Sandbox>(&path)?
            {
                world.sandboxes_mut().insert(sandbox.spec.id.clone(), sandbox);
            }
        }
        Ok(world)
    }

    /// Writes what is known of a sandbox, or that there is none.
    pub(super) fn save_sandbox(&self, id: &SandboxId, sandbox: Option<&Sandbox>) {
        let path = self.dir.join("sandboxes").join(format!("{id}.json"));
        self.save(&path, sandbox);
    }

    pub(super) fn save_machine(&self, machine: &Machine) {
        self.save(&self.dir.join("machine.json"), Some(machine));
    }

    fn save<T: Serialize>(&self, path: &Path, value: Option<&T>) {
        let result = match value {
            Some(value) => replace(path, value),
            None => {
                fs::remove_file(path).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            }
        };
        if let Err(error) = result {
            tracing::warn!(path = %path.display(), %error, "the simulated host can't keep its state");
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(beside, path)
}

/// Appends lines in the CRI log format, rotating by size.
pub(super) fn write_logs(lines: &[Line]) {
    for line in lines {
        if let Err(error) = write_line(line) {
            tracing::warn!(path = %line.log.path.display(), %error, "can't write a container's log");
        }
    }
}

fn write_line(line: &Line) -> io::Result<()> {
    let stream = if line.stderr { "stderr" } else { "stdout" };
    let text = format!("{} {stream} F {}\n", line.at.to_rfc3339_opts(SecondsFormat::Nanos, true), line.text);
    if let Some(dir) = line.log.path.parent() {
        fs::create_dir_all(dir)?;
    }
    let size = fs::metadata(&line.log.path).map_or(0, |m| m.len());
    if size > 0 && size + text.len() as u64 > line.log.max_bytes {
        rotate(&line.log)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&line.log.path)?;
    file.write_all(text.as_bytes())
}

/// Removes a forgotten container's log.
pub(super) fn remove_logs(log: &LogSpec) {
    for file in log.files() {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %file.display(), %error, "can't remove a container's log");
        }
    }
}

/// `log` becomes `log.1`, `log.1` becomes `log.2`, …; what exceeds the count goes.
fn rotate(log: &LogSpec) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = log.path.clone().into_os_string();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    if log.max_files < 2 {
        return fs::remove_file(&log.path);
    }
    for n in (1..log.max_files - 1).rev() {
        if numbered(n).exists() {
            fs::rename(numbered(n), numbered(n + 1))?;
        }
    }
    fs::rename(&log.path, numbered(1))
}
