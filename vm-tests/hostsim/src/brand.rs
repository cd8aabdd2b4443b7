//! Brands by their real files below `brands/NAME`: what a test installed there (`Lab::add_brand`) is what is run and mounted.
//! Brands of which only a name is known are played by rules of their own.

use crate::call::Sim;
use crate::state::Config;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// sys/zone.h: the installation was not completed; the zone stays configured.
const NOT_COMPLETED: i32 = 254;

/// One brand's files.
pub(crate) struct Brand {
    dir: PathBuf,
    config: String,
}

/// How an installation by a brand's own program ended.
pub(crate) enum Installed {
    /// The brand names none that is there.
    NotItsOwn,
    Done,
    /// The zone stays configured, without files.
    Undone(String),
    /// The zone stays incomplete.
    Failed(String),
}

/// One `mount` or `global_mount` of platform.xml.
pub(crate) struct Mount {
    pub(crate) special: String,
    /// From the zone's root.
    pub(crate) directory: String,
    pub(crate) kind: String,
}

impl Brand {
    pub(crate) fn of(sim: &Sim, config: &Config) -> Self {
        let dir = sim.dir().join("brands").join(config.global("brand"));
        let text = std::fs::read_to_string(dir.join("config.xml")).unwrap_or_default();
        Self { dir, config: text }
    }

    /// The text of an element; `None` where it is missing or empty.
    fn element(&self, name: &str) -> Option<String> {
        let text = self.config.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The program that is init.
    pub(crate) fn init(&self) -> Option<String> {
        self.element("initname").filter(|n| n.starts_with('/'))
    }

    /// What a shutdown runs in the zone.
    pub(crate) fn shutdown(&self) -> Option<String> {
        self.element("shutdown")
    }

    /// Whether init is not illumos' own: nobody starts services in such zones.
    pub(crate) fn has_own_init(&self) -> bool {
        self.init().is_some_and(|init| init != "/sbin/init")
    }

    /// What is mounted before init runs; `None` where the brand has no file that says so.
    pub(crate) fn mounts(&self) -> Option<Vec<Mount>> {
        let text = std::fs::read_to_string(self.dir.join("platform.xml")).ok()?;
        let elements = text.split('<').filter(|e| e.starts_with("mount ") || e.starts_with("global_mount "));
        let get = |element: &str, name: &str| {
            let value = element.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
            Some(value.to_owned())
        };
        let mount = |element: &str| {
            Some(Mount {
                special: get(element, "special")?,
                directory: get(element, "directory")?,
                kind: get(element, "type")?,
            })
        };
        elements.map(mount).collect()
    }

    /// Runs the brand's program for installations, where its files are here: `%z` and `%R` filled in, options behind.
    pub(crate) fn install(&self, zone: &str, path: &Path, options: &[&str]) -> Installed {
        let Some(command) = self.element("install") else { return Installed::NotItsOwn };
        let mut words = command.split_whitespace();
        let program = words.next().and_then(|p| p.rsplit('/').next()).map(|name| self.dir.join(name));
        let Some(program) = program.filter(|p| p.is_file()) else { return Installed::NotItsOwn };
        let path = path.to_string_lossy();
        let words = words.map(|w| w.replace("%z", zone).replace("%R", &path));
        #[expect(clippy::disallowed_methods, reason = "what zoneadm does")]
        let mut run = Command::new("/bin/sh");
        // It has what its caller has.
        let path = std::env::var_os("PATH").unwrap_or_default();
        run.arg(program).args(words).args(options).env_clear().env("PATH", path);
        match run.current_dir("/").stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => Installed::Done,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                match output.status.code() {
                    Some(NOT_COMPLETED) => Installed::Undone(said),
                    _ => Installed::Failed(said),
                }
            }
            Err(e) => Installed::Failed(e.to_string()),
        }
    }
}
