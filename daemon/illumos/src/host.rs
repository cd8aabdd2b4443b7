//! [`IllumosHost`]: what it holds and how it is wired to the traits.

use crate::images::pull;
use crate::options::IllumosOptions;
use crate::paths::Paths;
use crate::policies::Policies;
use crate::record::ContainerRunning;
use crate::services::Balancing;
use crate::zone::brand::{self, ZoneBrand};
use crate::zone_events::{self, Source, ZoneEvents};
use crate::{info, init, ipf, leftovers, observe, watch};
use async_trait::async_trait;
use reddwarf_command::{Invocation, Tools};
use reddwarf_host::{
    Change, Clock, Host, HostError, HostErrorKind, HostEvent, HostInfo, HostObservation, HostResult, Leftover,
};
use reddwarf_pull::Puller;
use reddwarf_supervise::files::{io_error, make_dir, make_open_dir};
use reddwarf_supervise::instance::Seen;
use reddwarf_supervise::turns::Turns;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Notices that a slow listener may be behind with before it has to look at everything.
const EVENTS: usize = 1024;

/// The illumos host. Cheap to clone; all clones are one host.
#[derive(Clone)]
pub struct IllumosHost {
    pub(crate) shared: Arc<Shared>,
}

/// What all parts of one host share.
pub(crate) struct Shared {
    pub(crate) options: IllumosOptions,
    pub(crate) paths: Paths,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: broadcast::Sender<HostEvent>,
    pub(crate) turns: Turns,
    /// What was read of containers.
    pub(crate) instances: Seen<ContainerRunning>,
    pub(crate) brands: Vec<ZoneBrand>,
    pub(crate) policies: tokio::sync::Mutex<Policies>,
    pub(crate) balancing: tokio::sync::Mutex<Balancing>,
    /// Our datasets were looked at since the start.
    pub(crate) datasets: tokio::sync::Mutex<bool>,
    /// One import or removal of images at a time.
    pub(crate) images: tokio::sync::Mutex<()>,
    pub(crate) pullers: Vec<Puller>,
    /// What tells of changes of zones; nobody does after it.
    _zone_events: Option<Source>,
}

impl Shared {
    pub(crate) fn tools(&self) -> &Tools {
        &self.options.tools
    }

    /// Runs a tool; what it printed.
    pub(crate) async fn run(&self, op: &'static str, subject: &str, run: &Invocation) -> HostResult<String> {
        match self.tools().run(run).await {
            Ok(said) => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
            Err(error) => Err(error.into_host(op, subject)),
        }
    }

    /// Runs ipf(8), which ends with 0 whatever the kernel says: only what it prints tells, but for what ends in words that are fine.
    pub(crate) async fn run_ipf(
        &self,
        op: &'static str,
        subject: &str,
        runs: Vec<Invocation>,
        fine: &[&str],
    ) -> HostResult<()> {
        for run in runs {
            let said = self.tools().run(&run).await.map_err(|error| error.into_host(op, subject))?;
            if let Some(complaint) = ipf::complaint(&said.stderr, fine) {
                return Err(HostError::new(HostErrorKind::Other, op, subject, format!("{run}: {complaint}")));
            }
        }
        Ok(())
    }
}

impl IllumosHost {
    /// Opens the host: makes its directories, and follows containers that run already. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// `Unsupported` without root, `Other` when the directories can't be made.
    pub fn new(options: IllumosOptions, clock: Arc<dyn Clock>) -> HostResult<Self> {
        let (source, events) = zone_events::of_kernel();
        Self::open(options, clock, source, events)
    }

    /// As [`Self::new`], told of changes of zones by somebody else than the kernel, for tests.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_zone_events(options: IllumosOptions, clock: Arc<dyn Clock>, events: ZoneEvents) -> HostResult<Self> {
        Self::open(options, clock, None, Some(events))
    }

    fn open(
        options: IllumosOptions,
        clock: Arc<dyn Clock>,
        source: Option<Source>,
        zone_events: Option<ZoneEvents>,
    ) -> HostResult<Self> {
        let fail = |message: &str| {
            let subject = options.run_dir.display().to_string();
            HostError::new(HostErrorKind::Unsupported, "open host", subject, message)
        };
        if !nix::unistd::geteuid().is_root() {
            return Err(fail("zones need root and all privileges: run the daemon as root in the global zone"));
        }
        let paths = Paths::new(&options.run_dir, &options.state_dir);
        for dir in [paths.run.locks(), paths.sockets(), paths.marks(), paths.zonecfg()] {
            make_dir(&dir).map_err(|e| io_error("open host", &dir, e))?;
        }
        // Zones' paths lead through it: others may pass, none but root may write.
        make_open_dir(&paths.pool()).map_err(|e| io_error("open host", &paths.pool(), e))?;
        copy_own_program(&options.self_exe, &paths).map_err(|e| io_error("copy own program", &paths.program(), e))?;
        let (events, _) = broadcast::channel(EVENTS);
        let brands = brand::installed(&options.brand_dir);
        let pullers = pull::pullers(&options.registries, &options.state_dir);
        let shared = Arc::new(Shared {
            options,
            paths,
            clock,
            events,
            turns: Turns::default(),
            instances: Seen::default(),
            brands,
            policies: tokio::sync::Mutex::default(),
            balancing: tokio::sync::Mutex::default(),
            datasets: tokio::sync::Mutex::new(false),
            images: tokio::sync::Mutex::default(),
            pullers,
            _zone_events: source,
        });
        watch::follow_all(&shared);
        if let Some(zone_events) = zone_events {
            tokio::spawn(zone_events::follow(Arc::downgrade(&shared), zone_events));
        }
        Ok(Self { shared })
    }
}

/// Zones run our program to start containers' programs, and those of our own brand as their init; they see a copy, which an
/// update of the daemon replaces by another file while those that run keep theirs.
fn copy_own_program(from: &Path, paths: &Paths) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let to = paths.program();
    make_open_dir(&paths.bin())?;
    let same =
        |a: &std::fs::Metadata, b: &std::fs::Metadata| a.len() == b.len() && a.modified().ok() <= b.modified().ok();
    let source = std::fs::metadata(from)?;
    let temporary = paths.bin().join("reddwarfd.new");
    if !std::fs::metadata(&to).is_ok_and(|target| same(&source, &target)) {
        std::fs::copy(from, &temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&temporary, &to)?;
    }
    // The same file under another name.
    let (init, of) = (paths.bin().join(init::NAME), std::fs::metadata(&to)?);
    if std::fs::metadata(&init).is_ok_and(|found| (found.dev(), found.ino()) == (of.dev(), of.ino())) {
        return Ok(());
    }
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::hard_link(to, &temporary)?;
    std::fs::rename(temporary, init)
}

#[async_trait]
impl Host for IllumosHost {
    async fn info(&self) -> HostResult<HostInfo> {
        info::read(&self.shared).await
    }

    async fn observe(&self) -> HostObservation {
        observe::observe(&self.shared).await
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.events.subscribe()
    }

    async fn leftover_remove(&self, leftover: &Leftover) -> HostResult<Change> {
        leftovers::remove(&self.shared, leftover).await
    }
}
