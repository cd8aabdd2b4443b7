//! Container instances as the daemon sees them: started through a shim, signalled, updated, removed.

use crate::files::{io_error, make_dir, make_open_dir, remove_dir, remove_file, remove_tree};
use crate::host::Shared;
use crate::lock;
use crate::namespaces;
use crate::oci;
use crate::process::ProcessId;
use crate::record::{
    ContainerDir, Launch, LaunchEnvFile, LaunchMount, SandboxMark, SandboxPhase, ShimFiles, read_record, write_record,
};
use crate::rootfs::{self, RootfsRequest};
use crate::roots::RootOf;
use crate::sandbox;
use crate::users::Users;
use crate::volumes;
use reddwarf_host::spec::{
    ContainerImage, ContainerSpec, ProcessView, RecursiveReadOnly, Resources, Signal, VolumeSpec,
};
use reddwarf_host::{Change, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, SandboxId};
use reddwarf_supervise::instance;
use reddwarf_supervise::program::Report;
use reddwarf_supervise::record::Moment;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    if dir.spec()?.is_some() && dir.is_started()? {
        return Ok(Begun::Already);
    }
    shared.paths.run.refuse_second(id, spec)?;
    let launch = launch(shared, &mark, spec, &dir)?;
    rootfs::check(&shared.options, &mark.spec.brand, &spec.image)?;

    let lock_file = shared.paths.run.lock(id, &spec.name, spec.attempt);
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

fn launch(shared: &Shared, mark: &SandboxMark, spec: &ContainerSpec, dir: &ContainerDir) -> HostResult<Launch> {
    let id = &mark.spec.id;
    let invalid = |message: String| {
        HostError::new(HostErrorKind::InvalidSpec, "start container", format!("{id}/{}", spec.name), message)
    };
    let host = oci::Grantable::of_host(&shared.cgroups);
    let _ = oci::capabilities(&spec.security, &host).map_err(|e| invalid(e.to_string()))?;
    instance::check(spec, &mark.spec).map_err(invalid)?;
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let Some(volume) = mark.spec.volumes.get(&mount.volume) else { continue };
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
            cloned: cloned_root(shared, id, spec)?,
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

/// Where the root will be, if it is to be a clone of the image.
fn cloned_root(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Option<PathBuf>> {
    match (&shared.roots, &spec.image) {
        (Some(roots), ContainerImage::Image { .. }) => roots.path(&root_of(id, &spec.name, spec.attempt)).map(Some),
        _ => Ok(None),
    }
}

fn root_of(id: &SandboxId, name: &ContainerName, attempt: u32) -> RootOf {
    RootOf { sandbox: id.clone(), container: name.clone(), attempt }
}

/// Makes the root that [`begin`] noted, where it is a clone.
pub(crate) async fn clone_root(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<()> {
    match (&shared.roots, &spec.image) {
        (Some(roots), ContainerImage::Image { id: image }) => {
            roots.clone(&shared.options, image, &root_of(id, &spec.name, spec.attempt)).await
        }
        _ => Ok(()),
    }
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
    let (_, dir) = shared.paths.run.running("start container", id, target)?;
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
    dir.write_spec(spec)?;
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
    said: Report,
) -> HostResult<Change> {
    let subject = format!("{id}/{}", spec.name);
    match said {
        Report::Ready => Ok(Change::Changed(format!("started attempt {}", spec.attempt))),
        Report::Failed { kind, message } => {
            // Nothing runs: as if never asked for.
            remove_instance(shared, id, &spec.name, spec.attempt, dir)?;
            Err(HostError::new(kind.into(), "start container", subject, message))
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
    let lock_file = shared.paths.run.lock(id, name, attempt);
    let cgroup = shared.container_cgroup(id, name, attempt);
    let failed = |e| io_error("signal", &cgroup, e);
    let kill = signal == Signal::Sigkill;
    let running = match dir.observed(&lock_file)? {
        ContainerState::Exited { .. } => return Ok(Change::Unchanged),
        ContainerState::Running { .. } => dir.state()?,
        // No shim will tell the end of these; only killing makes sense.
        ContainerState::Lost(_) if kill => {
            shared.cgroups.kill_all(&cgroup, Duration::from_secs(5)).map_err(failed)?;
            return dir.end_lost(&lock_file, Moment { boot: shared.clock.boot(), wall: shared.clock.wall() });
        }
        ContainerState::Creating if kill => None,
        ContainerState::Creating | ContainerState::Lost(_) => return Ok(Change::Unchanged),
    };
    if kill || signal == spec.stop_signal {
        dir.note_signal(shared.clock.boot(), kill)?;
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
    let lock_file = shared.paths.run.lock(id, name, attempt);
    let Some(mut spec) = dir.to_resize(&lock_file, &subject(), resources)? else { return Ok(Change::Unchanged) };
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
    dir.write_spec(&spec)?;
    Ok(Change::Changed("limits".to_owned()))
}

/// `container_remove`.
pub(crate) fn remove(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
    let dir = sandbox::instance_dir(shared, id, name, attempt);
    if !dir.path().exists() {
        return Ok(Change::Unchanged);
    }
    let spec = dir.to_remove(&shared.paths.run.lock(id, name, attempt), &format!("{id}/{name}"))?;
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
    if let Some(roots) = &shared.roots
        && read_record::<Launch>("remove container", &dir.launch_file())?.is_some_and(|l| l.rootfs.cloned.is_some())
    {
        let of = root_of(id, name, attempt);
        // On a blocking thread of the runtime.
        tokio::runtime::Handle::current().block_on(roots.destroy(&of))?;
    }
    let _ = rootfs::release(&disk)?;
    let lock_file = shared.paths.run.lock(id, name, attempt);
    remove_file(&lock_file).map_err(|e| io_error("remove container", &lock_file, e))?;
    remove_tree(dir.path()).map_err(|e| io_error("remove container", dir.path(), e))?;
    // The directory of the name goes with its last attempt.
    for parent in [dir.path().parent().map(PathBuf::from), disk.parent().map(PathBuf::from)].into_iter().flatten() {
        let _ = remove_dir(&parent);
    }
    Ok(())
}
