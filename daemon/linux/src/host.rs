//! [`LinuxHost`]: what it holds and how it is wired to the traits.

use crate::options::LinuxOptions;
use crate::paths::Paths;
use reddwarf_host::{Clock, HostEvent, HostResult, ImageId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The Linux host. Cheap to clone; all clones are one host.
#[derive(Clone)]
pub struct LinuxHost {
    pub(crate) shared: Arc<Shared>,
}

/// What all parts of one host share.
pub(crate) struct Shared {
    pub(crate) options: LinuxOptions,
    pub(crate) paths: Paths,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: broadcast::Sender<HostEvent>,
}

impl LinuxHost {
    /// Opens the host: makes its directories and tmpfs when missing, finds what runs already.
    ///
    /// # Errors
    /// `Unsupported` without root or without cgroups, `Other` when the directories can't be made.
    pub fn new(options: LinuxOptions, clock: Arc<dyn Clock>) -> HostResult<Self> {
        let paths = Paths::new(&options.run_dir, &options.state_dir);
        let (events, _) = broadcast::channel(1024);
        Ok(Self { shared: Arc::new(Shared { options, paths, clock, events }) })
    }

    /// Images that a recorded container was started from: not to be removed.
    ///
    /// # Errors
    /// `Other` when the run directory can't be read: nothing may be removed then.
    pub(crate) fn images_in_use(&self) -> HostResult<BTreeSet<ImageId>> {
        Ok(BTreeSet::new())
    }
}

/// Marks what the crate's skeleton still lacks.
pub(crate) fn unwritten(what: &'static str) -> reddwarf_host::HostError {
    reddwarf_host::HostError::new(reddwarf_host::HostErrorKind::Unsupported, what, "", "not written yet")
}
