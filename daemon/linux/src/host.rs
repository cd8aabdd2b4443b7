//! [`LinuxHost`]: what it holds and how it is wired to the traits.

use crate::cgroup::Cgroups;
use crate::files::{io_error, make_dir};
use crate::info;
use crate::leftovers;
use crate::mounts;
use crate::network::{TableCache, generation, monitor};
use crate::observe;
use crate::options::LinuxOptions;
use crate::paths::Paths;
use crate::roots::Roots;
use crate::services;
use crate::watch;
use async_trait::async_trait;
use reddwarf_host::service::ServiceTable;
use reddwarf_host::spec::{Resources, SandboxSpec};
use reddwarf_host::{
    Change, Clock, ContainerName, Host, HostError, HostErrorKind, HostEvent, HostInfo, HostObservation, HostResult,
    ImageId, Leftover, Network, SandboxId, Services, StorageEngine,
};
use reddwarf_pull::{Platform, Puller};
use reddwarf_supervise::turns::Turns;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

/// The cgroup of pods that asked for nothing.
pub(crate) const BEST_EFFORT: &str = "best-effort";

/// Notices that a slow listener may be behind with before it has to look at everything.
const EVENTS: usize = 1024;

/// The Linux host. Cheap to clone; all clones are one host.
#[derive(Clone)]
pub struct LinuxHost {
    pub(crate) shared: Arc<Shared>,
    /// Ends the watches with the last clone.
    _watch: Arc<Vec<AbortOnDrop>>,
}

/// What all parts of one host share.
pub(crate) struct Shared {
    pub(crate) options: LinuxOptions,
    pub(crate) paths: Paths,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: broadcast::Sender<HostEvent>,
    pub(crate) cgroups: Cgroups,
    pub(crate) records: observe::Cache,
    pub(crate) turns: Turns,
    pub(crate) nft: TableCache,
    /// Whose turn it is to change the pod network.
    pub(crate) network: tokio::sync::Mutex<()>,
    /// The rule set's number after our own last transaction.
    pub(crate) nft_generation: generation::Known,
    /// What hears of others' changes of the rule set.
    pub(crate) nft_ear: monitor::Ear,
    pub(crate) services: tokio::sync::Mutex<services::State>,
    /// What the guard of services' rules belongs to; absent: a socket of this host's own.
    pub(crate) guard_socket: OnceLock<OwnedFd>,
    pub(crate) puller: Puller,
    /// Where containers' roots are cloned; absent where they are overlays.
    pub(crate) roots: Option<Roots>,
}

impl Shared {
    /// A sandbox's cgroup, where it is: among those of pods that asked for nothing, or by itself.
    pub(crate) fn cgroup(&self, id: &SandboxId) -> PathBuf {
        let among = self.best_effort_cgroup().join(id.as_str());
        if self.cgroups.exists(&among) { among } else { self.instance_cgroup().join(id.as_str()) }
    }

    /// Sees to it that a sandbox's cgroup, which it gives, can be made where it belongs. One that is there stays where it is.
    pub(crate) fn make_room(&self, spec: &SandboxSpec) -> io::Result<PathBuf> {
        let found = self.cgroup(&spec.id);
        let parent = self.best_effort_cgroup();
        if !spec.best_effort || self.cgroups.exists(&found) {
            return Ok(found);
        }
        if !self.cgroups.exists(&parent) {
            self.cgroups.make(&parent)?;
            self.cgroups.limit(&parent, &Resources::default())?;
        }
        Ok(parent.join(spec.id.as_str()))
    }

    /// Where the cgroups of pods are that asked for nothing. It has the least weight that there is, and does not take from
    /// the others more by becoming many.
    pub(crate) fn best_effort_cgroup(&self) -> PathBuf {
        self.instance_cgroup().join(BEST_EFFORT)
    }

    /// A container's cgroup.
    pub(crate) fn container_cgroup(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> PathBuf {
        self.cgroup(id).join(format!("{name}.{attempt}"))
    }

    /// Where all cgroups of this instance are, shims' included.
    pub(crate) fn instance_cgroup(&self) -> PathBuf {
        Path::new("/").join(&self.options.instance)
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LinuxHost {
    /// [`Self::with_roots`] with overlayfs for containers' roots.
    ///
    /// # Errors
    /// As there.
    pub fn new(options: LinuxOptions, clock: Arc<dyn Clock>) -> HostResult<Self> {
        Self::with_roots(options, clock, None)
    }

    /// Opens the host: makes its directories and tmpfs when missing, and watches what runs already. To be called
    /// within a tokio runtime. With an engine, roots of containers are clones on it from now on; those that run keep what
    /// they have.
    ///
    /// # Errors
    /// `Unsupported` without root or without cgroups, `Other` when the directories can't be made.
    pub fn with_roots(
        mut options: LinuxOptions,
        clock: Arc<dyn Clock>,
        roots: Option<Arc<dyn StorageEngine>>,
    ) -> HostResult<Self> {
        let fail =
            |kind, message: String| HostError::new(kind, "open host", options.run_dir.display().to_string(), message);
        if !nix::unistd::geteuid().is_root() {
            return Err(fail(HostErrorKind::Unsupported, "containers need root: run the daemon as root".to_owned()));
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|e| fail(HostErrorKind::Other, "no tokio runtime".to_owned()).caused_by(e))?;
        let cgroups = Cgroups::detect(&options.cgroup_root)
            .map_err(|e| fail(HostErrorKind::Unsupported, format!("{e}: mount cgroups first")))?;
        make_dir(&options.run_dir).map_err(|e| io_error("make directory", &options.run_dir, e))?;
        // The kernel's table of mounts knows no links (/var/run is one): by another name nothing of ours would be found in it.
        options.run_dir =
            std::fs::canonicalize(&options.run_dir).map_err(|e| io_error("look up", &options.run_dir, e))?;
        let paths = Paths::new(&options.run_dir, &options.state_dir);
        make_directories(&paths, &options.helpers)?;
        tracing::debug!(instance = options.instance, cgroups = cgroups.layout(), "Linux host opened");
        let (events, _) = broadcast::channel(EVENTS);
        let (records, turns, nft) = (observe::Cache::default(), Turns::default(), TableCache::default());
        let platform = Platform::new("linux", info::architecture(std::env::consts::ARCH));
        let puller = Puller::new(options.registries.clone(), platform, crate::image::blobs_dir(&options));
        let (nft_generation, services) = (generation::Known::default(), tokio::sync::Mutex::default());
        let network = tokio::sync::Mutex::default();
        let roots = roots.map(|engine| Roots::new(engine, &options.instance));
        let shared = Arc::new(Shared {
            options,
            paths,
            clock,
            events,
            cgroups,
            records,
            turns,
            nft,
            network,
            nft_generation,
            nft_ear: monitor::Ear::default(),
            services,
            guard_socket: OnceLock::new(),
            puller,
            roots,
        });
        let watches = vec![watch::start(&shared, &runtime)?].into_iter().chain(monitor::start(&shared, &runtime));
        let watch = Arc::new(watches.map(AbortOnDrop).collect());
        let host = Self { shared, _watch: watch };
        host.tidy_roots_later();
        Ok(host)
    }

    /// Begins to destroy clones and images' datasets that nobody has any more.
    pub(crate) fn tidy_roots_later(&self) {
        /// The storage may have to be made ready first.
        const AGAIN: Duration = Duration::from_secs(5);
        /// What is in use now may not be then.
        const LATER: Duration = Duration::from_secs(60);
        if self.shared.roots.is_none() {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            let mut turn = None;
            // Ends with the host.
            while let Some(shared) = shared.upgrade() {
                let Some(roots) = &shared.roots else { return };
                let wait = match roots.collect(&shared).await {
                    Ok(true) => return,
                    Ok(false) => {
                        turn = turn.or_else(|| roots.trying.clone().try_lock_owned().ok());
                        if turn.is_none() {
                            return;
                        }
                        LATER
                    }
                    Err(error) => {
                        tracing::debug!(%error, "clones are looked through later");
                        AGAIN
                    }
                };
                drop(shared);
                tokio::time::sleep(wait).await;
            }
        });
    }

    /// Images that a recorded container was started from: not to be removed.
    ///
    /// # Errors
    /// `Other` when the run directory can't be read: nothing may be removed then.
    pub(crate) fn images_in_use(&self) -> HostResult<BTreeSet<ImageId>> {
        observe::images_in_use(&self.shared)
    }
}

/// Makes what all sandboxes share. Everything is for root alone; what containers see is bound into them.
fn make_directories(paths: &Paths, helpers: &Path) -> HostResult<()> {
    for dir in
        [paths.run.dir().to_owned(), paths.run.sandboxes(), paths.run.locks(), paths.private(), paths.disk_sandboxes()]
    {
        make_dir(&dir).map_err(|e| io_error("make directory", &dir, e))?;
    }
    let private = paths.private();
    let mounted = mounts::targets_below(&private).map_err(|e| io_error("read mounts", &private, e))?;
    if !mounted.contains(&private) {
        let made = mounts::mount_tmpfs(&private, "mode=700").and_then(|()| mounts::make_private(&private));
        made.map_err(|e| io_error("mount tmpfs", &private, e))?;
    }
    bind_helpers(paths, helpers)
}

/// Our program, read-only, for shims and exec helpers: a container that gets hold of `/proc/PID/exe` of one of them
/// must not be able to write to the daemon's file (CVE-2019-5736). Bound anew at every start, as it may be another
/// version by now; those that run keep theirs.
fn bind_helpers(paths: &Paths, helpers: &Path) -> HostResult<()> {
    let exe = paths.exe();
    let bound = mounts::detach(&exe)
        .and_then(|_| File::create(&exe).map(drop))
        .and_then(|()| mounts::bind_read_only(helpers, &exe));
    bound.map_err(|e| io_error("bind helpers", helpers, e))
}

#[async_trait]
impl Host for LinuxHost {
    async fn info(&self) -> HostResult<HostInfo> {
        let addresses = info::addresses(&self.shared.options.bridge).await?;
        self.blocking("read host", |shared| info::read(&shared.options, addresses)).await
    }

    async fn observe(&self) -> HostObservation {
        observe::observe(self).await
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.events.subscribe()
    }

    async fn leftover_remove(&self, leftover: &Leftover) -> HostResult<Change> {
        leftovers::remove(self, leftover).await
    }

    async fn withdraw(&self) -> HostResult<()> {
        let _ = self.services_ensure(&ServiceTable::default()).await?;
        let _ = self.network_remove().await?;
        self.blocking("unmount", |shared| {
            let private = shared.paths.private();
            let unmounted = mounts::detach_below(&private).map(drop).map_err(|e| io_error("unmount", &private, e));
            leftovers::remove_cgroups(shared).and(unmounted)
        })
        .await
    }
}
