//! Which host is driven, chosen by name at run time.

use reddwarf_config::Settings;
#[cfg(target_os = "linux")]
use reddwarf_config::settings::ContainerRuntime;
use reddwarf_config::settings::HostKind;
use reddwarf_controllers::watch::FileEvents;
use reddwarf_host::storage::Subvolumes;
use reddwarf_host::{Clock, Host, HostError, HostErrorKind, HostResult, StorageEngine};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Name of the guard's socket in the service manager's store.
const GUARD: &str = "reddwarf-guard";

/// The socket that the guard of services' rules belongs to: it outlives the host, which a change of settings makes anew, and
/// this process where the service manager keeps it. Taken out of what that handed over, else a new one. Only Linux has a guard.
pub(crate) fn guard_socket(settings: &Settings, handed_over: &mut Vec<(String, OwnedFd)>) -> Option<OwnedFd> {
    if settings.host != HostKind::Linux {
        return None;
    }
    if let Some(at) = handed_over.iter().position(|(name, _)| name == GUARD) {
        return Some(handed_over.swap_remove(at).1);
    }
    #[cfg(target_os = "linux")]
    match reddwarf_linux::guard_socket() {
        Ok(socket) => {
            crate::service::keep_sockets(GUARD, &[std::os::fd::AsFd::as_fd(&socket)]);
            return Some(socket);
        }
        Err(error) => tracing::warn!(%error, "the guard of services' rules goes with each change of settings"),
    }
    None
}

/// Sees to it that no other daemon drives the same pods, for as long as what it gives lives.
///
/// # Errors
/// Who does, or what the host lacks.
pub(crate) fn claim(settings: &Settings) -> HostResult<Option<std::fs::File>> {
    #[cfg(target_os = "linux")]
    if settings.host == HostKind::Linux {
        let options = reddwarf_linux::LinuxOptions::new(&settings.run_dir, &settings.state_dir, PathBuf::new());
        return reddwarf_linux::claim(&options).map(Some);
    }
    let _ = settings;
    Ok(None)
}

/// Opens the host that the settings name. `roots`: where roots of containers are to be cloned; `guard`: see [`guard_socket`]. Only Linux
/// can be told of either.
///
/// # Errors
/// What the host lacks, and how to mend it.
pub(crate) fn open(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    roots: Option<Arc<dyn StorageEngine>>,
    guard: Option<&OwnedFd>,
) -> HostResult<Arc<dyn Host>> {
    match settings.host {
        HostKind::Linux => linux(settings, clock, roots, guard),
        HostKind::Sim => simulated(settings, clock),
        HostKind::Illumos => illumos(settings, clock),
    }
}

/// The gateways of the pod network that the host has, by its own records; none where there is none.
pub(crate) fn gateways(settings: &Settings) -> Vec<IpAddr> {
    match settings.host {
        #[cfg(target_os = "linux")]
        HostKind::Linux => reddwarf_linux::gateways(&settings.run_dir),
        #[cfg(not(target_os = "linux"))]
        HostKind::Linux => Vec::new(),
        HostKind::Illumos => reddwarf_illumos::gateways(&settings.run_dir, &settings.state_dir),
        HostKind::Sim => Vec::new(),
    }
}

#[cfg(target_os = "linux")]
fn linux(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    roots: Option<Arc<dyn StorageEngine>>,
    guard: Option<&OwnedFd>,
) -> HostResult<Arc<dyn Host>> {
    use reddwarf_linux::{LinuxHost, LinuxOptions, Runtime};
    let helpers = helpers().map_err(|e| {
        HostError::new(HostErrorKind::Other, "open host", "linux", "our own program can't be found").caused_by(e)
    })?;
    let mut options = LinuxOptions::new(&settings.run_dir, &settings.state_dir, helpers);
    options.bridge.clone_from(&settings.bridge);
    options.host_path_allow.clone_from(&settings.host_path_allow);
    options.registries = registries(settings)?;
    options.zar_keys = zar_keys(&settings.zar_keys)?;
    options.seccomp_dir.clone_from(&settings.seccomp_dir);
    options.runtime = match settings.container_runtime {
        ContainerRuntime::Libcontainer => Runtime::Libcontainer,
        ContainerRuntime::Crun => Runtime::Crun(program("crun")?),
        ContainerRuntime::Runc => Runtime::Runc(program("runc")?),
    };
    let host = LinuxHost::with_roots(options, clock, roots)?;
    if let Some(socket) = guard.and_then(|socket| socket.try_clone().ok()) {
        host.guard_by(socket);
    }
    Ok(Arc::new(host))
}

/// The lines of the files of public keys.
pub(crate) fn zar_keys(files: &[PathBuf]) -> HostResult<Vec<String>> {
    let mut keys = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let subject = path.display().to_string();
            HostError::new(HostErrorKind::Other, "read zar_keys", subject, "the file can't be read").caused_by(e)
        })?;
        keys.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    // No key at all would mean that any archive is taken.
    if keys.is_empty() && !files.is_empty() {
        let message = "its files hold no key";
        return Err(HostError::new(HostErrorKind::InvalidSpec, "read zar_keys", "zar_keys", message));
    }
    Ok(keys)
}

/// How registries are spoken with.
fn registries(settings: &Settings) -> HostResult<reddwarf_illumos::RegistryOptions> {
    use reddwarf_illumos::{Endpoint, RegistryOptions};
    let mut options = RegistryOptions {
        insecure: settings.insecure_registries.iter().cloned().collect(),
        authorities: settings.registry_ca.clone(),
        credentials: settings.registry_auth.clone(),
        patience: std::time::Duration::from_secs(settings.registry_timeout_seconds),
        ..RegistryOptions::default()
    };
    for (registry, mirror) in &settings.registry_mirrors {
        let endpoint = Endpoint::parse(mirror).map_err(|why| {
            let message = format!("`registry_mirrors`: {mirror}: {why}");
            HostError::new(HostErrorKind::InvalidSpec, "open host", settings.host.as_str(), message)
        })?;
        options.mirrors.entry(registry.clone()).or_default().push(endpoint);
    }
    Ok(options)
}

#[cfg(not(target_os = "linux"))]
fn linux(
    _: &Settings,
    _: Arc<dyn Clock>,
    _: Option<Arc<dyn StorageEngine>>,
    _: Option<&OwnedFd>,
) -> HostResult<Arc<dyn Host>> {
    Err(HostError::new(HostErrorKind::Unsupported, "open host", "linux", "this is not Linux: use --host"))
}

/// Names the directory whose programs stand in for illumos' own tools, for tests.
const TOOLS: &str = "REDDWARF_TOOLS";

/// The system's tools, or what stands in for illumos'.
///
/// # Errors
/// When the stand-ins can't be trusted.
pub(crate) fn tools(settings: &Settings) -> HostResult<reddwarf_command::Tools> {
    use reddwarf_command::Tools;
    match (settings.host, std::env::var_os(TOOLS)) {
        (HostKind::Illumos, Some(directory)) => {
            Tools::only_in(std::path::Path::new(&directory)).map_err(|e| e.into_host("open host", TOOLS))
        }
        (HostKind::Illumos, None) => Ok(Tools::illumos()),
        (HostKind::Linux | HostKind::Sim, _) => Ok(Tools::linux()),
    }
}

/// What this system does itself on btrfs.
pub(crate) fn subvolumes() -> Option<Arc<dyn Subvolumes>> {
    #[cfg(target_os = "linux")]
    return Some(Arc::new(reddwarf_linux::btrfs::Calls));
    #[cfg(not(target_os = "linux"))]
    None
}

/// How this system tells of changes of files where `notify` knows no way: event ports on illumos.
pub(crate) fn file_events() -> Option<Arc<dyn FileEvents>> {
    #[cfg(target_os = "illumos")]
    match reddwarf_illumos::FilePort::new() {
        Ok(port) => return Some(Arc::new(Ports(port))),
        Err(error) => {
            tracing::warn!(%error, "no event port: the manifest directories are looked at every second instead")
        }
    }
    None
}

/// An event port, as controllers see it.
#[cfg(target_os = "illumos")]
struct Ports(reddwarf_illumos::FilePort);

#[cfg(target_os = "illumos")]
impl FileEvents for Ports {
    fn watch(&self, token: u64, path: &std::path::Path, seen: &std::fs::Metadata) -> std::io::Result<()> {
        self.0.watch(token, path, seen)
    }

    fn forget(&self, token: u64) {
        self.0.forget(token);
    }

    fn wait(&self, at_most: std::time::Duration) -> std::io::Result<Vec<u64>> {
        self.0.wait(at_most)
    }

    fn wake(&self) {
        self.0.wake();
    }
}

/// On illumos, and anywhere against stand-ins for its tools.
fn illumos(settings: &Settings, clock: Arc<dyn Clock>) -> HostResult<Arc<dyn Host>> {
    use reddwarf_command::Tools;
    use reddwarf_config::settings::ZoneBalancer;
    use reddwarf_illumos::{Balancer, IllumosHost, IllumosOptions};
    let helpers = helpers().map_err(|e| {
        HostError::new(HostErrorKind::Other, "open host", "illumos", "our own program can't be found").caused_by(e)
    })?;
    let mut options = IllumosOptions::new(&settings.run_dir, &settings.state_dir, helpers);
    options.host_path_allow.clone_from(&settings.host_path_allow);
    options.registries = registries(settings)?;
    options.zar_keys = zar_keys(&settings.zar_keys)?;
    options.direct_link.clone_from(&settings.zone_nic);
    options.vlan = Some(settings.zone_vlan).filter(|id| *id > 0);
    options.balancer = match settings.zone_balancer {
        ZoneBalancer::Ipnat => Balancer::Ipnat,
        ZoneBalancer::Ilb => Balancer::Ilb,
    };
    // Beside the volumes' dataset, on the same pool.
    if let Some(dataset) = settings.storage_pool.as_ref().filter(|pool| !pool.starts_with('/')) {
        options.dataset = format!("{dataset}-zones");
    }
    match std::env::var_os(TOOLS).map(std::path::PathBuf::from) {
        Some(directory) => {
            let tools = Tools::only_in(&directory).map_err(|e| e.into_host("open host", TOOLS))?;
            options = options.with_tools(tools, &directory);
        }
        None if !cfg!(target_os = "illumos") => {
            let message = "this is not illumos: use --host (stand-ins for its tools are named by REDDWARF_TOOLS)";
            return Err(HostError::new(HostErrorKind::Unsupported, "open host", "illumos", message));
        }
        None => {}
    }
    Ok(Arc::new(IllumosHost::new(options, clock)?))
}

#[cfg(not(target_os = "linux"))]
fn helpers() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

/// The program with the host's helpers: `reddwarf-shim` beside this program or in `../libexec/reddwarf`, if it is of this
/// version, else this program, which has them too and takes a megabyte more for each container.
#[cfg(target_os = "linux")]
fn helpers() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let Some(directory) = own.parent() else { return Ok(own) };
    for path in [directory.join("reddwarf-shim"), directory.join("../libexec/reddwarf/reddwarf-shim")] {
        // Asked once, before anything of the daemon runs: nothing waits for it.
        #[allow(clippy::disallowed_methods)]
        let answer = std::process::Command::new(&path).arg("__version").env_clear().output();
        match answer {
            Ok(answer) if answer.stdout.trim_ascii() == reddwarf_linux::VERSION.as_bytes() => {
                return path.canonicalize();
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "of another version: reddwarfd's own helpers serve instead")
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "can't be run: reddwarfd's own helpers serve instead")
            }
        }
    }
    Ok(own)
}

/// A program in one of the fixed directories; never by `PATH`.
#[cfg(target_os = "linux")]
fn program(name: &str) -> HostResult<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let help = format!("{name} is not installed: install it, or set container_runtime = \"libcontainer\"");
            HostError::new(HostErrorKind::Unsupported, "open host", "linux", help)
        })
}

/// The in-process host: real rules, no processes; its state is kept below the state directory.
fn simulated(settings: &Settings, _clock: Arc<dyn Clock>) -> HostResult<Arc<dyn Host>> {
    use reddwarf_host::fake::{FakeHost, FakeOptions};
    let host = FakeHost::sim(&settings.state_dir.join("sim"), FakeOptions::default())?;
    Ok(Arc::new(host))
}

/// Keeps the heap near what it uses, where the C library has to be told. To be called before there are threads, and before descriptors
/// are taken over: it may start the program anew in this process.
pub(crate) fn keep_memory_small() {
    #[cfg(target_os = "linux")]
    reddwarf_linux::memory::keep_small();
}

/// Descriptors that connections, logs and watches need; systemd's unit gives as many.
#[cfg(target_os = "linux")]
const DESCRIPTORS: u64 = 65_536;

/// Raises the soft limit of open files, so that clients can't use up all of them. What is not granted is done without.
pub(crate) fn allow_many_files() {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard.min(DESCRIPTORS)
            && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard)
        {
            tracing::warn!(%error, soft, "the limit of open files can't be raised");
        }
    }
}

/// Sockets that the service manager hands over, with their names. To be asked once, before anything is opened.
pub(crate) fn inherited_sockets() -> Vec<(String, OwnedFd)> {
    #[cfg(target_os = "linux")]
    return reddwarf_linux::inherited::sockets();
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// Keeps this host resolving names below `domain` through our name server at `server`, and says how that goes. Ends only
/// where nothing on the host can be told.
#[cfg(target_os = "linux")]
pub(crate) async fn resolve_names_here(
    bridge: String,
    server: std::net::SocketAddr,
    domain: String,
    said: impl Fn(Told),
) {
    use reddwarf_linux::resolved::{Resolved, Wanted, keep};
    let wanted = Wanted { bridge, server, domain };
    let ended = keep(wanted, |resolved| {
        said(match resolved {
            Resolved::NotRunning => Told::Nobody,
            Resolved::Waiting => Told::Soon,
            Resolved::Told => Told::SystemdResolved,
            Resolved::Failed(why) => Told::Failed(why),
        });
    });
    if let Err(error) = ended.await {
        tracing::warn!(%error, "whether this host resolves names of services is not watched");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) async fn resolve_names_here(_: String, _: std::net::SocketAddr, _: String, said: impl Fn(Told)) {
    said(Told::Nobody);
}

/// Takes back what [`resolve_names_here`] told on this or an earlier start.
pub(crate) async fn resolve_no_names_here(bridge: &str) {
    #[cfg(target_os = "linux")]
    if let Err(error) = reddwarf_linux::resolved::revert(bridge).await {
        tracing::warn!(%error, bridge, "systemd-resolved may still ask for names of services: `resolvectl revert` helps");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bridge;
}

/// Who on this host was told where names of services are.
#[derive(Clone, Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "systemd-resolved is Linux only"))]
pub(crate) enum Told {
    /// Nobody who could be: a person has to.
    Nobody,
    /// systemd-resolved, as soon as the pod bridge is there.
    Soon,
    /// systemd-resolved.
    SystemdResolved,
    /// systemd-resolved could not be.
    Failed(String),
}

/// Hands memory back to the system, where that has to be done.
#[derive(Debug, Default)]
pub(crate) struct Thrift {
    #[cfg(target_os = "linux")]
    inner: reddwarf_linux::memory::Thrift,
}

impl Thrift {
    /// To be called now and then.
    #[cfg_attr(not(target_os = "linux"), expect(clippy::unused_self, reason = "only Linux has to be told"))]
    pub(crate) fn give_back(&mut self) {
        #[cfg(target_os = "linux")]
        self.inner.give_back();
    }
}
