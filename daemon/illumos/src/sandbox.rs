//! Sandboxes: made, stopped and destroyed step by step, each step fit to be repeated after a crash at any point.
//!
//! The order in which a sandbox is made: mark, datasets, directories and volumes, link, zone (configured, cloned, booted),
//! until its services are up. It is destroyed in reverse; the mark goes last.

use crate::host::Shared;
use crate::paths::{SLOTS, slot_name};
use crate::record::{SandboxMark, SandboxRunning, read_mark};
use crate::zone::brand::{self, Programs, ZoneBrand};
use crate::zone::drive::{Driven, Order, drive};
use crate::zone::machine::Machine;
use crate::zone::state::Goal;
use crate::zone::{config, golden, live};
use crate::zonecfg::ValueError;
use crate::{container, datasets, delegated, images, init, inside, machine, policies, vnic, volumes};
use reddwarf_command::Cause;
use reddwarf_host::spec::{SandboxNetwork, SandboxSpec};
use reddwarf_host::{Change, ContainerState, HostError, HostErrorKind, HostResult, LinkName, SandboxId};
use reddwarf_supervise::etc;
use reddwarf_supervise::files::{
    io_error, make_dir, make_open_dir, read_record, remove_file, remove_tree, write_record,
};
use reddwarf_supervise::record::MARK_VERSION;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const MAKE: &str = "make sandbox";
const STOP: &str = "stop sandbox";
const DESTROY: &str = "destroy sandbox";

/// How long a zone's own services may take after its boot.
const SERVICES_UP: Duration = Duration::from_secs(120);

/// The mark of a sandbox of ours; `None`: there is none.
pub(crate) fn own_mark(shared: &Shared, id: &SandboxId) -> HostResult<Option<SandboxMark>> {
    let Some(mark) = read_mark(&shared.paths.mark(id))? else { return Ok(None) };
    if mark.instance != shared.options.instance {
        let message = format!("belongs to the instance {}", mark.instance);
        return Err(HostError::new(HostErrorKind::Foreign, "read sandbox mark", id.as_str(), message));
    }
    Ok(Some(mark))
}

pub(crate) fn write_mark(shared: &Shared, spec: &SandboxSpec) -> HostResult<()> {
    let mark = SandboxMark { version: MARK_VERSION, instance: shared.options.instance.clone(), spec: spec.clone() };
    write_record("mark sandbox", &shared.paths.mark(&spec.id), &mark)
}

/// Its note that all of it is made and runs.
pub(crate) fn running(shared: &Shared, id: &SandboxId) -> HostResult<Option<SandboxRunning>> {
    read_record("read sandbox state", &shared.paths.run.sandbox_state(id))
}

/// The zone brand of a spec.
pub(crate) fn zone_brand(shared: &Shared, spec: &SandboxSpec) -> HostResult<ZoneBrand> {
    brand::resolve(&spec.brand, &shared.brands).ok_or_else(|| {
        let known: Vec<_> = brand::offered(&shared.brands).iter().map(ToString::to_string).collect();
        let message = format!("this host has no zone brand {}; it has {}", spec.brand, known.join(", "));
        HostError::new(HostErrorKind::InvalidSpec, MAKE, spec.id.as_str(), message)
    })
}

/// `sandbox_ensure`.
pub(crate) async fn ensure(shared: &Shared, spec: &SandboxSpec) -> HostResult<Change> {
    let id = &spec.id;
    let known = own_mark(shared, id)?;
    if let Some(mark) = &known
        && let Some(field) = fixed_difference(&mark.spec, spec)
    {
        let message = format!("exists with another {field}, which can't be changed in place: destroy it first");
        return Err(HostError::new(HostErrorKind::Conflict, MAKE, id.as_str(), message));
    }
    let (brand, machine) = check(shared, spec)?;
    let old = match known {
        Some(mark) => Some(mark.spec.resources).filter(|old| *old != spec.resources),
        None => {
            refuse_foreign(shared, id).await?;
            make_dir(&shared.paths.marked(id)).map_err(|e| io_error(MAKE, &shared.paths.marked(id), e))?;
            write_mark(shared, spec)?;
            None
        }
    };
    let link = LinkName::for_sandbox(id);
    let invalid = |e: ValueError| HostError::new(HostErrorKind::InvalidSpec, MAKE, id.as_str(), e.to_string());
    let wanted = config::of_sandbox(spec, brand, &machine, &shared.paths, &shared.options.instance, Some(&link))
        .map_err(invalid)?;
    let mut order = Order {
        zone: id.as_str(),
        owner: spec.pod.uid.as_str(),
        config: Some(&wanted),
        install: Vec::new(),
        clone: None,
    };
    let was_running = is_up(shared, id).await?;
    if !was_running {
        machine::check(shared, MAKE, spec, &machine).await?;
        delegated::check(shared, MAKE, spec).await?;
        prepare(shared, spec, &mut order, brand).await?;
    }
    let driven = drive(shared, MAKE, &order, Goal::Running).await?;
    if was_running && driven.done.is_empty() && old.is_none() {
        return Ok(Change::Unchanged);
    }
    if let Some(old) = old
        && was_running
        && !driven.done.contains(&"booted")
    {
        let mut before = wanted.clone();
        config::limit(&mut before, brand, &old).map_err(invalid)?;
        let left = live::resize(shared, id.as_str(), &before, &wanted, &driven.after_boot).await;
        // Last: a resize that is cut off is done again.
        write_mark(shared, spec)?;
        return Ok(Change::Changed(told("limits".to_owned(), &left)));
    }
    finish(shared, spec, brand, &driven).await
}

/// What was done, and what of it the zone sees after its next boot only.
fn told(done: String, after_boot: &BTreeSet<&'static str>) -> String {
    if after_boot.is_empty() {
        return done;
    }
    let waits: Vec<_> = after_boot.iter().copied().collect();
    format!("{done} (at the zone's next boot: {})", waits.join(", "))
}

/// Made, and its zone runs: neither halted nor booted anew behind our back.
async fn is_up(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    let Some(noted) = running(shared, id)? else { return Ok(false) };
    let zones = crate::zone::drive::zones(shared, MAKE).await?;
    let up = |z: &crate::zoneadm::Zone| z.state == crate::zoneadm::ZoneState::Running && noted.is_of(z.id);
    Ok(zones.iter().any(|z| z.name == id.as_str() && up(z)))
}

/// What comes before the zone itself.
async fn prepare(shared: &Shared, spec: &SandboxSpec, order: &mut Order<'_>, brand: ZoneBrand) -> HostResult<()> {
    let id = &spec.id;
    let fresh = datasets::ensure_pod(shared, MAKE, id, spec.pod.uid.as_str()).await?;
    let missing = directories(shared, spec)?;
    if fresh || missing {
        datasets::seal_roots(shared, MAKE, id).await?;
    }
    if let SandboxNetwork::Pod { .. } = &spec.network {
        vnic::ensure(shared, MAKE, spec).await?;
    }
    let source = match brand.needs_source() {
        true => Some(images::zone_source(shared, brand).await?),
        false => None,
    };
    if brand.is_cloned() {
        order.clone = Some(golden::ensure(shared, brand, source.as_ref()).await?);
    } else {
        order.install = brand.install(source.as_ref().map(|s| s.from.as_str()));
    }
    Ok(())
}

/// After the boot: its services, its place among isolated pods, the note that it runs.
async fn finish(shared: &Shared, spec: &SandboxSpec, brand: ZoneBrand, driven: &Driven) -> HostResult<Change> {
    if brand.programs() == Programs::Native {
        until_services_are_up(shared, &spec.id, brand).await?;
    }
    let zone = policies::isolate_again(shared, spec).await?;
    write_mark(shared, spec)?;
    let state = SandboxRunning { started: shared.clock.boot(), zone: Some(zone) };
    write_record("note that the sandbox runs", &shared.paths.run.sandbox_state(&spec.id), &state)?;
    let done = if driven.done.is_empty() { "made sandbox".to_owned() } else { driven.done.join(", ") };
    Ok(Change::Changed(told(done, &driven.after_boot)))
}

fn check(shared: &Shared, spec: &SandboxSpec) -> HostResult<(ZoneBrand, Machine)> {
    let refuse = |kind, message: &str| Err(HostError::new(kind, MAKE, spec.id.as_str(), message));
    if spec.network == SandboxNetwork::Host {
        let message = "hostNetwork: a pod's zone has a network stack of its own; use hostPort or a Service";
        return refuse(HostErrorKind::Unsupported, message);
    }
    if spec.host_ipc {
        return refuse(HostErrorKind::Unsupported, "hostIPC: a zone has its own System V IPC");
    }
    if spec.own_users {
        let message =
            "hostUsers: false: zones have the host's users, with the privileges of their zone alone; leave it out";
        return refuse(HostErrorKind::Unsupported, message);
    }
    if let Some(name) = spec.sysctls.keys().next() {
        return refuse(HostErrorKind::Unsupported, &format!("sysctl {name}: illumos has resource controls instead"));
    }
    volumes::check(shared, spec)?;
    let brand = zone_brand(shared, spec)?;
    if !delegated::named(MAKE, spec)?.is_empty() && brand.programs() != Programs::Native {
        let message = format!("a zone of brand {} has no zfs(8) to administer datasets with", spec.brand);
        return refuse(HostErrorKind::InvalidSpec, &message);
    }
    let machine = match brand.programs() {
        Programs::Machine => match Machine::of(&spec.machine) {
            Ok(machine) => machine,
            Err(why) => return refuse(HostErrorKind::InvalidSpec, &why),
        },
        Programs::Native | Programs::Linux => Machine::default(),
    };
    Ok((brand, machine))
}

/// The first field that a zone can't change while it is there.
fn fixed_difference(old: &SandboxSpec, new: &SandboxSpec) -> Option<&'static str> {
    let SandboxSpec {
        id,
        pod,
        brand,
        hostname,
        network,
        dns,
        hosts,
        resources: _,
        share_processes,
        host_ipc,
        sysctls,
        fs_group,
        own_users,
        best_effort: _,
        machine,
        datasets,
        volumes,
    } = old;
    [
        ("name", *id == new.id),
        ("pod", *pod == new.pod),
        ("brand", *brand == new.brand),
        ("host name", *hostname == new.hostname),
        ("network", *network == new.network),
        ("DNS configuration", *dns == new.dns),
        ("hosts file", *hosts == new.hosts),
        ("view of processes", *share_processes == new.share_processes),
        ("IPC", *host_ipc == new.host_ipc),
        ("sysctl", *sysctls == new.sysctls),
        ("fsGroup", *fs_group == new.fs_group),
        ("users", *own_users == new.own_users),
        ("virtual machine", *machine == new.machine),
        ("set of datasets", *datasets == new.datasets),
        ("set of volumes", *volumes == new.volumes),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

/// Before the first mark: a directory or a zone of that name is somebody else's.
async fn refuse_foreign(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let foreign = |message: String| Err(HostError::new(HostErrorKind::Foreign, MAKE, id.as_str(), message));
    let marked = shared.paths.marked(id);
    let others = fs::read_dir(&marked).into_iter().flatten().flatten().next();
    if let Some(other) = others.filter(|entry| !entry.file_name().to_string_lossy().starts_with("sandbox.json")) {
        return foreign(format!("{} is there and has no mark of ours", other.path().display()));
    }
    let zones = crate::zone::drive::zones(shared, MAKE).await?;
    if zones.iter().any(|z| z.name == id.as_str() && z.zonepath != shared.paths.zonepath(id.as_str())) {
        return foreign("a zone of this name is there and is not ours".to_owned());
    }
    Ok(())
}

/// Directories that the zone mounts, and what lies in them; whether slots were missing.
fn directories(shared: &Shared, spec: &SandboxSpec) -> HostResult<bool> {
    let (paths, id) = (&shared.paths, &spec.id);
    let make = |dir: &Path| make_open_dir(dir).map_err(|e| io_error(MAKE, dir, e));
    for dir in [paths.pod(id), paths.read_only(id), paths.writable(id), paths.roots(id), paths.in_memory(id)] {
        make(&dir)?;
    }
    for dir in [paths.starts(id), paths.out(id)] {
        make_dir(&dir).map_err(|e| io_error(MAKE, &dir, e))?;
    }
    // Only root inside has business with what it passes through.
    let private = paths.run.sandbox(id);
    fs::set_permissions(&private, Permissions::from_mode(0o700)).map_err(|e| io_error(MAKE, &private, e))?;
    let mut missing = false;
    for slot in 0..SLOTS {
        let dir = paths.roots(id).join(slot_name(slot));
        if !dir.is_dir() {
            make(&dir)?;
            missing = true;
        }
    }
    let etc_dir = paths.etc(id);
    etc::write(&etc_dir, spec).map_err(|e| io_error("write /etc files", &etc_dir, e))?;
    volumes::make_all(shared, spec)?;
    Ok(missing)
}

/// A zone runs when its first process does; its own services come a little later. Zones without SMF are up at once, those of
/// our own brand when their init says so.
async fn until_services_are_up(shared: &Shared, id: &SandboxId, brand: ZoneBrand) -> HostResult<()> {
    const SMF: &str = "[ -x /usr/bin/svcs ] || exit 0; [ \"$(/usr/bin/svcs -Ho state svc:/milestone/multi-user-server:default)\" = online ]";
    let own = brand == ZoneBrand::Reddwarf;
    let script = if own { format!("cat {}", init::STATE) } else { SMF.to_owned() };
    let fail = |kind, message: String| HostError::new(kind, MAKE, id.as_str(), message);
    let until = Instant::now() + SERVICES_UP;
    let late = |what: &str| format!("its services are not up after {} s{what}", SERVICES_UP.as_secs());
    loop {
        let error = match shared.tools().run(&inside::shell(shared, id, &script)).await {
            Ok(_) if !own => return Ok(()),
            Ok(said) => {
                let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
                if said == init::UP {
                    return Ok(());
                }
                if let Some(why) = said.strip_prefix(init::FAILED) {
                    return Err(fail(HostErrorKind::Other, format!("the zone's init: {why}")));
                }
                fail(HostErrorKind::Timeout, late(&format!(": its init is at \"{said}\"")))
            }
            Err(error) if error.cause() == Cause::Timeout => return Err(error.into_host(MAKE, id.as_str())),
            Err(error) => fail(HostErrorKind::Timeout, late("")).caused_by(error),
        };
        if Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `sandbox_stop`.
pub(crate) async fn stop(shared: &Shared, id: &SandboxId) -> HostResult<Change> {
    let Some(mark) = own_mark(shared, id)? else { return Ok(Change::Unchanged) };
    let was_running = running(shared, id)?.is_some();
    let found = crate::zone::drive::zones(shared, STOP).await?.into_iter().find(|z| z.name == id.as_str());
    use crate::zoneadm::ZoneState as S;
    let up = found
        .as_ref()
        .is_some_and(|z| !matches!(z.state, S::Configured | S::Incomplete | S::Installed | S::Unavailable));
    if up {
        let order = Order {
            zone: id.as_str(),
            owner: mark.spec.pod.uid.as_str(),
            config: None,
            install: Vec::new(),
            clone: None,
        };
        let _ = drive(shared, STOP, &order, Goal::Installed).await?;
    }
    let note = shared.paths.run.sandbox_state(id);
    let noted = remove_file(&note).map_err(|e| io_error(STOP, &note, e))?;
    if up {
        until_supervisors_ended(shared, id).await?;
    }
    if up || noted || was_running { Ok(Change::Changed("halted".to_owned())) } else { Ok(Change::Unchanged) }
}

/// Supervisors write down their containers' ends a moment after the zone's.
async fn until_supervisors_ended(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let mut alive = false;
        for (name, attempt, dir) in shared.paths.run.instances(id)? {
            let lock = shared.paths.run.lock(id, &name, attempt);
            alive |= matches!(dir.observed(&lock)?, ContainerState::Running { .. });
        }
        if !alive {
            return Ok(());
        }
        if Instant::now() >= until {
            let message = "the zone is down, and yet a supervisor has not noticed";
            return Err(HostError::new(HostErrorKind::Busy, STOP, id.as_str(), message));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `sandbox_destroy`.
pub(crate) async fn destroy(shared: &Shared, id: &SandboxId) -> HostResult<Change> {
    let Some(mark) = own_mark(shared, id)? else { return Ok(Change::Unchanged) };
    for (name, attempt, dir) in shared.paths.run.instances(id)? {
        let lock = shared.paths.run.lock(id, &name, attempt);
        if matches!(dir.observed(&lock)?, ContainerState::Running { .. }) {
            let message = format!("container {name} runs in it: stop it first");
            return Err(HostError::new(HostErrorKind::InvalidState, DESTROY, id.as_str(), message));
        }
    }
    let note = shared.paths.run.sandbox_state(id);
    remove_file(&note).map_err(|e| io_error(DESTROY, &note, e))?;
    let order =
        Order { zone: id.as_str(), owner: mark.spec.pod.uid.as_str(), config: None, install: Vec::new(), clone: None };
    let _ = drive(shared, DESTROY, &order, Goal::Absent).await?;
    vnic::remove(shared, DESTROY, id).await?;
    remove_files(shared, id).await?;
    forget(shared, id)?;
    Ok(Change::Changed("destroyed sandbox".to_owned()))
}

/// Everything but the zone, its link and the mark.
pub(crate) async fn remove_files(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    // Brands destroy zonepaths' datasets themselves, or leave them.
    let zonepath = datasets::zonepath(shared, id.as_str())?;
    datasets::destroy(shared, DESTROY, &zonepath).await?;
    datasets::destroy(shared, DESTROY, &datasets::pod(shared, id)?).await?;
    for (name, attempt, _) in shared.paths.run.instances(id)? {
        let lock = shared.paths.run.lock(id, &name, attempt);
        remove_file(&lock).map_err(|e| io_error(DESTROY, &lock, e))?;
        // A supervisor that was killed left it.
        let socket = container::socket(shared, id, &name, attempt);
        remove_file(&socket).map_err(|e| io_error(DESTROY, &socket, e))?;
    }
    for dir in [shared.paths.pod(id), shared.paths.run.sandbox(id), shared.paths.zonepath(id.as_str())] {
        remove_tree(&dir).map_err(|e| io_error(DESTROY, &dir, e))?;
    }
    let file = shared.paths.zonecfg().join(id.as_str());
    remove_file(&file).map_err(|e| io_error(DESTROY, &file, e))?;
    Ok(())
}

/// Removes the mark: last of all.
pub(crate) fn forget(shared: &Shared, id: &SandboxId) -> HostResult<()> {
    let dir = shared.paths.marked(id);
    remove_tree(&dir).map_err(|e| io_error(DESTROY, &dir, e))?;
    Ok(())
}
