//! A cgroup of its own for one command, below its container's, so that all that the command starts can be found and
//! killed, whatever sessions and parents that has given itself. On v1 in one hierarchy only: it limits nothing.

use crate::cgroup::Cgroups;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long killing may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Compartment {
    cgroups: Cgroups,
    /// The container's.
    outer: PathBuf,
    /// The command's.
    inner: PathBuf,
}

impl Compartment {
    pub(super) fn new(cgroups: Cgroups, outer: &Path) -> Self {
        let inner = outer.join(format!("exec.{}", std::process::id()));
        Self { cgroups, outer: outer.to_owned(), inner }
    }

    /// Puts the calling process into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.cgroups.track(&self.inner)
    }

    /// Kills all that is in it.
    pub(super) fn kill(&self) {
        // What could not be killed yet goes with the container.
        let _ = self.cgroups.kill_all(&self.inner, PATIENCE);
    }

    /// The command has ended: what it left running in peace belongs to the container from now on.
    pub(super) fn open(self) {
        let _ = self.cgroups.move_all(&self.inner, &self.outer);
        let _ = self.cgroups.remove(&self.inner);
    }
}
