//! Container instances as the daemon sees them: started through a shim, signalled, updated, removed.

use crate::exec::running_instance;
use crate::files::{io_error, make_dir, make_open_dir, names_in, remove_dir, remove_file, remove_tree};
use crate::host::Shared;
use crate::lock;
use crate::namespaces;
use crate::oci;
use crate::paths::Paths;
use crate::process::ProcessId;
use crate::record::{
    ContainerDir, Launch, LaunchEnvFile, LaunchMount, SandboxMark, SandboxPhase, ShimReport, write_record,
};
use crate::rootfs::{self, RootfsRequest};
use crate::sandbox;
use crate::users::Users;
use crate::volumes;
use reddwarf_host::spec::{ContainerSpec, ProcessView, RecursiveReadOnly, Resources, Signal, VolumeSpec};
use reddwarf_host::{
    Change, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, Note, SandboxId, StopOrder,
    StopRequest,
};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All instances of a sandbox: name, attempt, directory. Half-removed ones included.
pub(crate) fn instances(paths: &Paths, id: &SandboxId) -> HostResult<Vec<(ContainerName, u32, ContainerDir)>> {
    let dir = paths.containers(id);
    let failed = |e| io_error("list containers", &dir, e);
    let mut found = Vec::new();
    for name in names_in(&dir).map_err(failed)? {
        for attempt in names_in(&dir.join(&name)).map_err(failed)? {
            if let Some((name, attempt)) = sandbox::parse_instance(&name, &attempt) {
                let path = paths.container(id, &name, attempt);
                found.push((name, attempt, ContainerDir(path)));
            }
        }
    }
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(found)
}

/// An instance's state from its records and its lock.
pub(crate) fn state(dir: &ContainerDir, lock_file: &Path) -> HostResult<ContainerState> {
    if let Some(exit) = dir.exit()? {
        return Ok(exit.into());
    }
    let held = lock::is_held(lock_file).map_err(|e| io_error("look for shim", lock_file, e))?;
    let running = dir.state()?;
    match (running, held) {
        (Some(running), true) => Ok(ContainerState::Running {
            started: running.started.boot,
            started_at: running.started.wall,
            pid: running.init.pid,
        }),
        (None, true) => Ok(ContainerState::Creating),
        // The shim ends after it has written exit.json: once more, now that it is surely gone.
        (running, false) => match (dir.exit()?, running) {
            (Some(exit), _) => Ok(exit.into()),
            (None, None) => Ok(ContainerState::Creating),
            (None, Some(running)) => {
                let process = if running.init.is_alive() { "still runs" } else { "is gone as well" };
                Ok(ContainerState::Lost(format!(
                    "its supervisor (process {}) ended without a word; its first process {} {process}",
                    running.shim.pid, running.init.pid
                )))
            }
        },
    }
}

/// What [`begin`] did.
pub(crate) enum Begun {
    /// This instance was started before.
    Already,
    /// Another shim is at it, from before a restart of the daemon: wait for its records.
    UnderWay(ContainerDir),
    /// All is written; the lock is for the shim.
    Ready { dir: ContainerDir, lock: File, shim_log: File },
}

/// Everything of `container_start` up to the shim.
pub(crate) fn begin(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Begun> {
    let subject = || format!("{id}/{}", spec.name);
    let mark = running_sandbox(shared, id, &subject())?;
    let dir = sandbox::instance_dir(shared, id, &spec.name, spec.attempt);
    if dir.spec()?.is_some() && (dir.state()?.is_some() || dir.exit()?.is_some()) {
        return Ok(Begun::Already);
    }
    refuse_second(shared, id, spec)?;
    let launch = launch(shared, &mark, spec, &dir)?;
    rootfs::check(&shared.options, &mark.spec.brand, &spec.image)?;

    let lock_file = shared.paths.lock(id, &spec.name, spec.attempt);
    let Some(lock) = lock::take(&lock_file).map_err(|e| io_error("lock", &lock_file, e))? else {
        return Ok(Begun::UnderWay(dir));
    };
    clear_remains(shared, &dir, &launch.cgroup)?;
    write_records(&dir, spec, &launch)?;
    let log = dir.shim_log();
    let shim_log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
    Ok(Begun::Ready { lock, shim_log: shim_log.map_err(|e| io_error("open", &log, e))?, dir })
}

fn running_sandbox(shared: &Shared, id: &SandboxId, subject: &str) -> HostResult<SandboxMark> {
    let Some(mark) = sandbox::own_mark(shared, id)? else {
        return Err(HostError::new(HostErrorKind::NotFound, "start container", subject, "no such sandbox"));
    };
    match sandbox::phase(shared, id)? {
        Some(SandboxPhase::Running { .. }) => Ok(mark),
        Some(SandboxPhase::Stopping | SandboxPhase::Stopped) | None => {
            Err(HostError::new(HostErrorKind::InvalidState, "start container", subject, "the sandbox is not running"))
        }
    }
}

/// Other attempts of the same name must have ended.
fn refuse_second(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<()> {
    for (name, attempt, dir) in instances(&shared.paths, id)? {
        if name != spec.name || attempt == spec.attempt || dir.spec()?.is_none() {
            continue;
        }
        let lock_file = shared.paths.lock(id, &name, attempt);
        let alive = match state(&dir, &lock_file)? {
            ContainerState::Exited { .. } => false,
            ContainerState::Running { .. } => true,
            ContainerState::Creating => lock::is_held(&lock_file).map_err(|e| io_error("lock", &lock_file, e))?,
            ContainerState::Lost(_) => dir.state()?.is_some_and(|s| s.init.is_alive()),
        };
        if alive {
            let message = format!("attempt {attempt} of it still runs");
            let subject = format!("{id}/{name}");
            return Err(HostError::new(HostErrorKind::InvalidState, "start container", subject, message));
        }
    }
    Ok(())
}

fn launch(shared: &Shared, mark: &SandboxMark, spec: &ContainerSpec, dir: &ContainerDir) -> HostResult<Launch> {
    let id = &mark.spec.id;
    let invalid = |message: String| {
        HostError::new(HostErrorKind::InvalidSpec, "start container", format!("{id}/{}", spec.name), message)
    };
    let _ = oci::capabilities(&spec.security).map_err(|e| invalid(e.to_string()))?;
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("no program: neither the pod nor the image names one".to_owned()));
    }
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let Some(volume) = mark.spec.volumes.get(&mount.volume) else {
            return Err(invalid(format!("the sandbox has no volume {}", mount.volume)));
        };
        let clean = Path::new(&mount.target).is_absolute() && !mount.target.split('/').any(|p| p == "..");
        let sub_clean = !mount.sub_path.starts_with('/') && !mount.sub_path.split('/').any(|p| p == "..");
        if !clean || !sub_clean {
            return Err(invalid(format!(
                "mount of {} at {:?} sub path {:?}: '..' or not absolute",
                mount.volume, mount.target, mount.sub_path
            )));
        }
        let (source, host_path) = volumes::source(&shared.paths, id, &mount.volume, volume);
        let recursive = mount.recursive_read_only.unwrap_or_default() != RecursiveReadOnly::Disabled;
        // The host's own files in it are not the container's to change.
        let read_only = mount.read_only || matches!(volume, VolumeSpec::Files { .. });
        mounts.push(LaunchMount {
            source,
            host_path,
            sub_path: mount.sub_path.clone(),
            target: mount.target.clone(),
            read_only,
            volume: mount.volume.to_string(),
            recursive_read_only: mount.read_only && recursive,
            propagation: mount.propagation.unwrap_or_default(),
        });
    }
    let mut env_files = Vec::with_capacity(spec.env_files.len());
    for file in &spec.env_files {
        let volume = mark.spec.volumes.get(&file.volume);
        let Some(source) = volume.and_then(|v| volumes::location(&shared.paths, id, &file.volume, v)) else {
            return Err(invalid(format!("variable {}: the sandbox has no own volume {}", file.name, file.volume)));
        };
        env_files.push(LaunchEnvFile { source, file: file.clone() });
    }
    Ok(Launch {
        options: shared.options.clone(),
        id: format!("{id}.{}.{}", spec.name, spec.attempt),
        container: spec.clone(),
        rootfs: RootfsRequest {
            options: shared.options.clone(),
            brand: mark.spec.brand.clone(),
            image: spec.image.clone(),
            dir: shared.paths.disk_container(id, &spec.name, spec.attempt),
            mountpoint: dir.bundle().join("rootfs"),
            users: own_users(shared, mark),
        },
        namespaces: namespaces::paths(&shared.paths, &mark.spec),
        cgroup: shared.container_cgroup(id, &spec.name, spec.attempt),
        etc: shared.paths.etc(id),
        shm: if mark.spec.host_ipc { PathBuf::from("/dev/shm") } else { shared.paths.shm(id) },
        mounts,
        env_files,
        last_words: last_words(shared, id, spec),
        process_peer: process_peer(shared, id, spec)?,
    })
}

fn own_users(shared: &Shared, mark: &SandboxMark) -> Option<Users> {
    let namespace = namespaces::paths(&shared.paths, &mark.spec).user?;
    Some(Users { range: mark.users?, namespace })
}

/// Beside the root file system, on disk: what a container writes there takes no memory.
fn last_words(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> Option<PathBuf> {
    let dir = shared.paths.disk_container(id, &spec.name, spec.attempt);
    (!spec.termination_message.path.is_empty()).then(|| dir.join("termination-log"))
}

/// The first process of the container whose processes this one is to see.
fn process_peer(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Option<ProcessId>> {
    let ProcessView::Container(target) = &spec.processes else { return Ok(None) };
    let dir = running_instance(shared, "start container", id, target)?;
    Ok(dir.state()?.map(|running| running.init))
}

/// An earlier try that never came to an end may have left processes and files.
fn clear_remains(shared: &Shared, dir: &ContainerDir, cgroup: &Path) -> HostResult<()> {
    let killed = shared.cgroups.kill_all(cgroup, Duration::from_secs(5)).map_err(|e| io_error("kill", cgroup, e))?;
    if !killed {
        let message = "processes of an earlier try are not gone yet";
        return Err(HostError::new(HostErrorKind::Busy, "start container", cgroup.display().to_string(), message));
    }
    shared.cgroups.remove(cgroup).map_err(|e| io_error("remove cgroup", cgroup, e))?;
    remove_tree(dir.path()).map_err(|e| io_error("clear", dir.path(), e))?;
    Ok(())
}

fn write_records(dir: &ContainerDir, spec: &ContainerSpec, launch: &Launch) -> HostResult<()> {
    make_dir(dir.path()).map_err(|e| io_error("make", dir.path(), e))?;
    write_record("record container", &dir.spec_file(), spec)?;
    write_record("record container", &dir.launch_file(), launch)?;
    for path in [&launch.rootfs.mountpoint, &launch.rootfs.dir] {
        make_dir(path).map_err(|e| io_error("make", path, e))?;
    }
    if let Some(file) = &launch.last_words {
        make_last_words(file).map_err(|e| io_error("make", file, e))?;
    }
    if let Some(logs) = spec.log.path.parent() {
        make_open_dir(logs).map_err(|e| io_error("make log directory", logs, e))?;
    }
    Ok(())
}

/// Whoever runs the container may write there.
fn make_last_words(file: &Path) -> std::io::Result<()> {
    let made = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(file)?;
    made.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// What the shim's word means for the caller.
pub(crate) fn conclude(
    shared: &Shared,
    id: &SandboxId,
    spec: &ContainerSpec,
    dir: &ContainerDir,
    said: &[u8],
) -> HostResult<Change> {
    let subject = format!("{id}/{}", spec.name);
    match serde_json::from_slice::<ShimReport>(said) {
        Ok(ShimReport::Ready) => Ok(Change::Changed(format!("started attempt {}", spec.attempt))),
        Ok(ShimReport::Failed { kind, message }) => {
            // Nothing runs: as if never asked for.
            remove_instance(shared, id, &spec.name, spec.attempt, dir)?;
            Err(HostError::new(kind.into(), "start container", subject, message))
        }
        Err(_) => {
            let said = std::fs::read_to_string(dir.shim_log()).unwrap_or_default();
            let last = said.lines().last().unwrap_or("no message").to_owned();
            let message = format!("the shim ended without a report: {last}");
            Err(HostError::new(HostErrorKind::Other, "start container", subject, message))
        }
    }
}

/// Sends a signal and records stop requests.
pub(crate) fn signal(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    signal: Signal,
) -> HostResult<Change> {
    let dir = sandbox::instance_dir(shared, id, name, attempt);
    let Some(spec) = dir.spec()? else { return Ok(Change::Unchanged) };
    let lock_file = shared.paths.lock(id, name, attempt);
    let cgroup = shared.container_cgroup(id, name, attempt);
    let failed = |e| io_error("signal", &cgroup, e);
    let kill = signal == Signal::Sigkill;
    let running = match state(&dir, &lock_file)? {
        ContainerState::Exited { .. } => return Ok(Change::Unchanged),
        ContainerState::Running { .. } => dir.state()?,
        // No shim will tell the end of these; only killing makes sense.
        ContainerState::Creating | ContainerState::Lost(_) if kill => None,
        ContainerState::Creating | ContainerState::Lost(_) => return Ok(Change::Unchanged),
    };
    if kill || signal == spec.stop_signal {
        let request = reddwarf_supervise::record::stop_request(dir.stop()?, shared.clock.boot(), kill);
        write_record("record stop request", &dir.stop_file(), &request)?;
    }
    let sent = match running {
        // The first process of a pid namespace takes all others with it, at once and without a race.
        Some(running) => running.init.signal(signal.linux_number()).map_err(failed)?,
        None => {
            let any = !shared.cgroups.processes(&cgroup).map_err(failed)?.is_empty();
            shared.cgroups.kill_all(&cgroup, Duration::from_secs(5)).map_err(failed)?;
            any
        }
    };
    if sent { Ok(Change::Changed(format!("sent {signal}"))) } else { Ok(Change::Unchanged) }
}

/// `container_note`.
pub(crate) fn note(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    note: Note,
) -> HostResult<Change> {
    let dir = sandbox::instance_dir(shared, id, name, attempt);
    if dir.spec()?.is_none() || dir.exit()?.is_some() {
        return Ok(Change::Unchanged);
    }
    match note {
        Note::Started if dir.post_started()? => return Ok(Change::Unchanged),
        Note::Started => write_record("note", &dir.post_started_file(), &true)?,
        Note::Stopping { .. } if dir.stop()?.is_some() => return Ok(Change::Unchanged),
        Note::Stopping { grace, fault } => {
            let order = Some(StopOrder { grace, fault, signalled: None });
            let request = StopRequest { at: shared.clock.boot(), killed: false, order };
            write_record("record stop request", &dir.stop_file(), &request)?;
        }
    }
    Ok(Change::Changed("noted".to_owned()))
}

/// Changes limits in place.
pub(crate) fn update(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    resources: &Resources,
) -> HostResult<Change> {
    let subject = || format!("{id}/{name}");
    let dir = sandbox::instance_dir(shared, id, name, attempt);
    let Some(mut spec) = dir.spec()? else {
        return Err(HostError::new(HostErrorKind::NotFound, "update container", subject(), "no such instance"));
    };
    if !matches!(state(&dir, &shared.paths.lock(id, name, attempt))?, ContainerState::Running { .. }) {
        return Err(HostError::new(HostErrorKind::InvalidState, "update container", subject(), "it does not run"));
    }
    if spec.resources == *resources {
        return Ok(Change::Unchanged);
    }
    let cgroup = shared.container_cgroup(id, name, attempt);
    // Below what is in use the kernel would refuse (v1) or kill (v2).
    if let (Some(limit), Some(used)) = (resources.memory_limit_bytes, shared.cgroups.memory_in_use(&cgroup))
        && limit < used
        && spec.resources.memory_limit_bytes.is_none_or(|old| limit < old)
    {
        let message = format!("a memory limit of {limit} bytes is below the {used} bytes in use");
        return Err(HostError::new(HostErrorKind::Busy, "update container", subject(), message));
    }
    shared.cgroups.limit(&cgroup, resources).map_err(|e| io_error("limit", &cgroup, e))?;
    spec.resources = *resources;
    write_record("record container", &dir.spec_file(), &spec)?;
    Ok(Change::Changed("limits".to_owned()))
}

/// `container_remove`.
pub(crate) fn remove(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
    let dir = sandbox::instance_dir(shared, id, name, attempt);
    if !dir.path().exists() {
        return Ok(Change::Unchanged);
    }
    let lock_file = shared.paths.lock(id, name, attempt);
    let spec = dir.spec()?;
    if spec.is_some() {
        let runs = match state(&dir, &lock_file)? {
            ContainerState::Running { .. } => true,
            ContainerState::Creating => lock::is_held(&lock_file).map_err(|e| io_error("lock", &lock_file, e))?,
            ContainerState::Exited { .. } | ContainerState::Lost(_) => false,
        };
        if runs {
            let message = "it runs: stop it first";
            return Err(HostError::new(
                HostErrorKind::InvalidState,
                "remove container",
                format!("{id}/{name}"),
                message,
            ));
        }
    }
    for file in spec.iter().flat_map(|spec| spec.log.files()) {
        remove_file(&file).map_err(|e| io_error("remove log", &file, e))?;
    }
    remove_instance(shared, id, name, attempt, &dir)?;
    Ok(Change::Changed(format!("removed attempt {attempt}")))
}

/// Removes all of an instance that does not run. Its record goes first: what is half-removed must not look like
/// something that was never started.
pub(crate) fn remove_instance(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    dir: &ContainerDir,
) -> HostResult<()> {
    let cgroup = shared.container_cgroup(id, name, attempt);
    let failed = |e| io_error("remove container", &cgroup, e);
    if !shared.cgroups.kill_all(&cgroup, Duration::from_secs(5)).map_err(failed)? {
        let message = "its processes were killed and are not gone yet: ask again";
        return Err(HostError::new(HostErrorKind::Busy, "remove container", format!("{id}/{name}"), message));
    }
    shared.cgroups.remove(&cgroup).map_err(failed)?;
    let spec_file = dir.spec_file();
    remove_file(&spec_file).map_err(|e| io_error("remove container", &spec_file, e))?;
    let disk = shared.paths.disk_container(id, name, attempt);
    let _ = rootfs::release(&disk)?;
    let lock_file = shared.paths.lock(id, name, attempt);
    remove_file(&lock_file).map_err(|e| io_error("remove container", &lock_file, e))?;
    remove_tree(dir.path()).map_err(|e| io_error("remove container", dir.path(), e))?;
    // The directory of the name goes with its last attempt.
    for parent in [dir.path().parent().map(PathBuf::from), disk.parent().map(PathBuf::from)].into_iter().flatten() {
        let _ = remove_dir(&parent);
    }
    Ok(())
}
