//! Sandboxes: made, stopped and destroyed step by step, each step fit to be repeated after a crash at any point.
//!
//! Blocking: called on tokio's blocking threads. What concerns links is asynchronous and done by the callers in
//! [`crate::sandboxes`] between [`prepare`] and [`finish`].

use crate::container;
use crate::etc;
use crate::files::{io_error, make_dir, names_in, remove_dir, remove_file, remove_tree};
use crate::host::Shared;
use crate::lock;
use crate::mounts;
use crate::namespaces;
use crate::pause;
use crate::record::{ContainerDir, MARK_VERSION, SandboxMark, SandboxPhase, read_mark, read_record, write_record};
use crate::rootfs;
use crate::users::UserRange;
use crate::volumes;
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{ContainerName, HostError, HostErrorKind, HostResult, SandboxId};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long killed processes of a sandbox are waited for.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// A pod's /dev/shm, as docker and the kubelet have it.
const SHM_OPTIONS: &str = "mode=1777,size=64m";

/// What [`prepare`] found or did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// All was there already.
    Complete,
    /// Complete, and its limits were changed in place.
    Resized,
    /// All but the link is there now; `netns` is where to attach it.
    NeedsLink { netns: Option<PathBuf> },
}

/// Everything of `sandbox_ensure` up to the link.
pub(crate) fn prepare(shared: &Shared, spec: &SandboxSpec, has_link: bool) -> HostResult<Prepared> {
    let paths = &shared.paths;
    let subject = || spec.id.to_string();
    check(spec)?;
    let known = own_mark(shared, &spec.id)?;
    let mut resized = false;
    if let Some(mark) = &known {
        let difference = compare(&mark.spec, spec);
        if let Some(field) = difference.fixed {
            let message = format!("exists with another {field}, which can't be changed in place: destroy it first");
            return Err(HostError::new(HostErrorKind::Conflict, "make sandbox", subject(), message));
        }
        resized = difference.resources;
    }
    let wanted = namespaces::paths(paths, spec);
    let phase = phase(shared, &spec.id)?;
    let needs_link = namespaces::has_link(spec);
    if let (Some(_), Some(SandboxPhase::Running { .. })) = (&known, phase) {
        let mounted =
            mounts::targets_below(&paths.private()).map_err(|e| io_error("read mounts", &paths.private(), e))?;
        let shm = spec.host_ipc || mounted.contains(&paths.shm(&spec.id));
        let whole = wanted.are_pinned(&mounted) && shm && pause::lives(shared, spec)?;
        if whole && (has_link || !needs_link) {
            if resized {
                limit(shared, spec)?;
                write_mark(shared, spec)?;
                return Ok(Prepared::Resized);
            }
            return Ok(Prepared::Complete);
        }
    }
    if known.is_none() {
        end_unrecorded(shared, &spec.id)?;
    }
    // Not complete (any more): said before anything is touched.
    forget_phase(shared, &spec.id)?;
    write_mark(shared, spec)?;
    make_parts(shared, spec, &wanted)?;
    Ok(Prepared::NeedsLink { netns: wanted.net })
}

/// Whoever emptied the run directory took the records, not the processes. Nobody knows these any more, and what is started next
/// would run beside them, on the same volumes.
fn end_unrecorded(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let cgroup = shared.cgroup(id);
    let failed = |e| io_error("kill", &cgroup, e);
    if shared.cgroups.processes(&cgroup).map_err(failed)?.is_empty() {
        return Ok(());
    }
    tracing::warn!(sandbox = %id, "its records are gone and its processes are not: they are ended");
    if !shared.cgroups.kill_all(&cgroup, KILL_PATIENCE).map_err(failed)? {
        let message = "processes of an earlier one of this name were killed and are not gone yet: ask again";
        return Err(HostError::new(HostErrorKind::Busy, "make sandbox", id.as_str(), message));
    }
    Ok(())
}

/// What can be told from the spec alone, before anything is made.
fn check(spec: &SandboxSpec) -> HostResult<()> {
    let invalid =
        |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, "make sandbox", spec.id.as_str(), message));
    if ![rootfs::OCI, rootfs::SPARSE].contains(&spec.brand.as_str()) {
        return invalid(format!("this host has the brands {} and {}, not {}", rootfs::OCI, rootfs::SPARSE, spec.brand));
    }
    if !spec.datasets.is_empty() {
        return invalid(
            "ZFS datasets are given to zones, and this host has none: leave out reddwarf.io/zone-datasets".to_owned(),
        );
    }
    // sethostname(2).
    if spec.hostname.is_empty() || spec.hostname.len() > 64 || spec.hostname.contains(['\0', '\n']) {
        return invalid(format!("host name {:?} must have 1 to 64 bytes", spec.hostname));
    }
    volumes::check(&spec.volumes)
}

fn make_parts(shared: &Shared, spec: &SandboxSpec, wanted: &crate::record::NamespacePaths) -> HostResult<()> {
    let paths = &shared.paths;
    volumes::make_all(paths, spec)?;
    volumes::give_all(paths, spec)?;
    let etc_dir = paths.etc(&spec.id);
    etc::write(&etc_dir, spec).map_err(|e| io_error("write /etc files", &etc_dir, e))?;
    limit(shared, spec)?;
    if !spec.host_ipc {
        make_shm(shared, spec)?;
    }
    let dir = paths.namespaces(&spec.id);
    let failed = |e| io_error("make namespaces", &dir, e);
    if wanted.are_pinned(&mounts::targets_below(&dir).map_err(failed)?) && pause::lives(shared, spec)? {
        return Ok(());
    }
    if wanted.pid.is_some() || wanted.user.is_some() {
        return pause::pin(shared, spec, wanted);
    }
    namespaces::pin(&dir, wanted, &spec.hostname, &spec.sysctls).map_err(failed)
}

fn make_shm(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    let shm = shared.paths.shm(&spec.id);
    let made = (|| {
        if !mounts::targets_below(&shm)?.contains(&shm) {
            make_dir(&shm)?;
            mounts::mount_tmpfs(&shm, SHM_OPTIONS)?;
        }
        Ok(())
    })();
    made.map_err(|e| io_error("mount /dev/shm", &shm, e))
}

/// Says that the sandbox is complete.
pub(crate) fn finish(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let running = SandboxPhase::Running { started: shared.clock.boot() };
    write_record("record sandbox state", &shared.paths.run.sandbox_state(id), &running)
}

fn limit(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    let cgroup = shared.make_room(spec).map_err(|e| io_error("limit", &shared.best_effort_cgroup(), e))?;
    let failed = |e| io_error("limit", &cgroup, e);
    shared.cgroups.make(&cgroup).map_err(failed)?;
    shared.cgroups.limit(&cgroup, &spec.resources).map_err(failed)
}

/// The sandbox's mark. A directory of that name without it is somebody else's.
pub(crate) fn own_mark(shared: &Shared, id: &SandboxId) -> HostResult<Option<SandboxMark>> {
    let dir = shared.paths.run.sandbox(id);
    if let Some(mark) = read_mark(&shared.paths.sandbox_mark(id))? {
        return Ok(Some(mark));
    }
    let names = names_in(&dir).map_err(|e| io_error("read sandbox", &dir, e))?;
    // A crash right after mkdir, or right before the last rmdir, leaves it (almost) empty.
    if names.iter().all(|n| n == "sandbox.json.new") {
        return Ok(None);
    }
    let message = format!("{} exists without our mark (sandbox.json): not touched", dir.display());
    Err(HostError::new(HostErrorKind::Foreign, "make sandbox", id.as_str(), message))
}

pub(crate) fn write_mark(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    let dir = shared.paths.run.sandbox(&spec.id);
    make_dir(&dir).map_err(|e| io_error("make sandbox", &dir, e))?;
    let write = |users| {
        let instance = shared.options.instance.clone();
        let mark = SandboxMark { version: MARK_VERSION, instance, spec: Arc::new(spec.clone()), users };
        write_record("mark sandbox", &shared.paths.sandbox_mark(&spec.id), &mark)
    };
    if !spec.own_users {
        return write(None);
    }
    // Chosen and noted by one at a time, so that nobody else chooses the same.
    static CHOOSING: Mutex<()> = Mutex::new(());
    let _turn = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
    write(Some(users_of(shared, &spec.id)?))
}

/// The range of users that a sandbox has, or is to have.
fn users_of(shared: &Shared, id: &SandboxId) -> HostResult<UserRange> {
    let root = shared.paths.run.sandboxes();
    let mut taken = BTreeSet::new();
    for name in names_in(&root).map_err(|e| io_error("list sandboxes", &root, e))? {
        let Ok(other) = SandboxId::new(name) else { continue };
        let users = read_mark(&shared.paths.sandbox_mark(&other))?.and_then(|mark| mark.users);
        match users {
            Some(users) if other == *id => return Ok(users),
            users => taken.extend(users),
        }
    }
    let none = || HostError::new(HostErrorKind::Exhausted, "make sandbox", id.as_str(), "no range of users is free");
    UserRange::choose(id, &taken).ok_or_else(none)
}

pub(crate) fn phase(shared: &Shared, id: &SandboxId) -> HostResult<Option<SandboxPhase>> {
    read_record("read sandbox state", &shared.paths.run.sandbox_state(id))
}

fn forget_phase(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let path = shared.paths.run.sandbox_state(id);
    remove_file(&path).map_err(|e| io_error("record sandbox state", &path, e))?;
    Ok(())
}

/// What differs between two specs of one sandbox.
struct Difference {
    /// A field that can't be changed in place.
    fixed: Option<&'static str>,
    resources: bool,
}

fn compare(old: &SandboxSpec, new: &SandboxSpec) -> Difference {
    // Exhaustive: a field added to the spec must be sorted in here.
    let SandboxSpec {
        id,
        pod,
        brand,
        hostname,
        network,
        dns,
        hosts,
        resources,
        share_processes,
        host_ipc,
        sysctls,
        fs_group,
        own_users,
        best_effort: _,
        // Linux has no such brands, and no zones to have datasets.
        machine: _,
        datasets: _,
        volumes,
    } = old;
    let same = [
        ("name", *id == new.id),
        ("pod", *pod == new.pod),
        ("brand", *brand == new.brand),
        ("host name", *hostname == new.hostname),
        ("network", *network == new.network),
        ("resolv.conf", *dns == new.dns),
        ("hosts", *hosts == new.hosts),
        ("shared processes", *share_processes == new.share_processes),
        ("IPC", *host_ipc == new.host_ipc),
        ("sysctls", *sysctls == new.sysctls),
        ("group of volumes", *fs_group == new.fs_group),
        ("users", *own_users == new.own_users),
        ("set of volumes", *volumes == new.volumes),
    ];
    let fixed = same.into_iter().find(|(_, same)| !same).map(|(field, _)| field);
    Difference { fixed, resources: *resources != new.resources }
}

/// Kills everything in it and lets go of its namespaces. The link must be detached after it.
/// `false` when there was nothing to do.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for the kernel on a thread of its own, where no simulated clock reaches"
)]
pub(crate) fn stop(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    if own_mark(shared, id)?.is_none() || phase(shared, id)? == Some(SandboxPhase::Stopped) {
        return Ok(false);
    }
    write_record("record sandbox state", &shared.paths.run.sandbox_state(id), &SandboxPhase::Stopping)?;
    note_kills(shared, id)?;
    let deadline = Instant::now() + KILL_PATIENCE;
    let cgroup = shared.cgroup(id);
    // All processes of all containers at once, shims not among them: they report and end by themselves.
    let all_gone = shared.cgroups.kill_all(&cgroup, KILL_PATIENCE).map_err(|e| io_error("kill", &cgroup, e))?;
    while all_gone && any_shim(shared, id)? {
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if !all_gone || any_shim(shared, id)? {
        let message = "processes were killed and are not gone yet (in an uninterruptible wait?): ask again";
        return Err(HostError::new(HostErrorKind::Busy, "stop sandbox", id.as_str(), message));
    }
    let dir = shared.paths.namespaces(id);
    namespaces::unpin(&dir).map_err(|e| io_error("unpin namespaces", &dir, e))?;
    Ok(true)
}

/// Says that nothing runs in it any more.
pub(crate) fn finish_stop(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    write_record("record sandbox state", &shared.paths.run.sandbox_state(id), &SandboxPhase::Stopped)
}

/// Records for every running container that it was asked to stop, by force.
fn note_kills(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    for (_, _, dir) in shared.paths.run.instances(id)? {
        if dir.exit()?.is_none() && dir.state()?.is_some() {
            dir.note_signal(shared.clock.boot(), true)?;
        }
    }
    Ok(())
}

fn any_shim(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    for (name, attempt, _) in shared.paths.run.instances(id)? {
        let path = shared.paths.run.lock(id, &name, attempt);
        if lock::is_held(&path).map_err(|e| io_error("look for shim", &path, e))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes everything but the mark. Fails while a container runs. The link must be detached before [`forget`].
pub(crate) fn remove_parts(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let paths = &shared.paths;
    let cgroup = shared.cgroup(id);
    let left = shared.cgroups.processes(&cgroup).map_err(|e| io_error("read cgroup", &cgroup, e))?;
    if !left.is_empty() || any_shim(shared, id)? {
        let message = format!("{} processes run in it: stop it first", left.len().max(1));
        return Err(HostError::new(HostErrorKind::InvalidState, "destroy sandbox", id.as_str(), message));
    }
    forget_phase(shared, id)?;
    for (name, attempt, dir) in paths.run.instances(id)? {
        container::remove_instance(shared, id, &name, attempt, &dir)?;
    }
    let namespaces_dir = paths.namespaces(id);
    namespaces::unpin(&namespaces_dir).map_err(|e| io_error("unpin namespaces", &namespaces_dir, e))?;
    let shm = paths.shm(id);
    mounts::detach(&shm).and_then(|_| remove_dir(&shm)).map_err(|e| io_error("unmount", &shm, e))?;
    volumes::remove_all(paths, id)?;
    remove_cgroup(shared, id)?;
    let disk = paths.disk_sandbox(id);
    remove_tree(&disk).map_err(|e| io_error("remove", &disk, e))?;
    for part in [paths.etc(id), paths.run.containers(id)] {
        remove_tree(&part).map_err(|e| io_error("remove", &part, e))?;
    }
    Ok(())
}

fn remove_cgroup(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let cgroup = shared.cgroup(id);
    shared.cgroups.remove_soon(&cgroup).map_err(|e| io_error("remove cgroup", &cgroup, e))
}

/// Removes the mark, last of all.
pub(crate) fn forget(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let mark = shared.paths.sandbox_mark(id);
    let dir = shared.paths.run.sandbox(id);
    let removed = remove_file(&mark).and_then(|_| remove_tree(&dir));
    removed.map_err(|e| io_error("remove sandbox", &dir, e))?;
    Ok(())
}

/// What of a sandbox's directory is a container instance.
pub(crate) fn instance_dir(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> ContainerDir {
    shared.paths.run.container(id, name, attempt)
}
