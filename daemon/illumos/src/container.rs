//! Container instances as the daemon sees them: started through a supervisor, signalled, updated, removed.

use crate::host::Shared;
use crate::inside;
use crate::paths::SLOTS;
use crate::project::Project;
use crate::record::{self, ContainerDir, Launch, SandboxMark};
use crate::starter::{Start, StartEnvFile, StartMount, ended_file, started_file};
use crate::supervisor;
use crate::zone::brand::Programs;
use crate::zone::drive::{STUBBORN, halt};
use crate::{datasets, images, linux, machine, sandbox, slots, volumes};
use reddwarf_command::{CommandError, Tool};
use reddwarf_host::capability;
use reddwarf_host::spec::{ContainerImage, ContainerSpec, ProcessView, RecursiveReadOnly, Resources, Seccomp, Signal};
use reddwarf_host::{Change, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, SandboxId};
use reddwarf_supervise::files::{
    io_error, make_dir, make_open_dir, remove_dir, remove_file, remove_tree, write_json, write_record,
};
use reddwarf_supervise::program::{self, PATIENCE, Report};
use reddwarf_supervise::record::Moment;
use reddwarf_supervise::{instance, lock};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

const START: &str = "start container";
const REMOVE: &str = "remove container";

/// The name of an instance's files inside.
pub(crate) fn inside_name(name: &ContainerName, attempt: u32) -> String {
    format!("{name}.{attempt}")
}

/// `container_start`.
pub(crate) async fn start(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Change> {
    let until = Instant::now() + PATIENCE;
    let subject = format!("{id}/{}", spec.name);
    let mark = running_sandbox(shared, id, &subject)?;
    let dir = shared.paths.run.container(id, &spec.name, spec.attempt);
    let lock_file = shared.paths.run.lock(id, &spec.name, spec.attempt);
    let lock = loop {
        if dir.spec()?.is_some() && dir.is_started()? {
            return Ok(Change::Unchanged);
        }
        match lock::take(&lock_file).map_err(|e| io_error("lock", &lock_file, e))? {
            Some(lock) => break lock,
            // A supervisor that an earlier daemon started is at it.
            None if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            None => {
                let message = "a supervisor that was started before is still starting it";
                return Err(HostError::new(HostErrorKind::Timeout, START, subject, message));
            }
        }
    };
    shared.paths.run.refuse_second(id, spec)?;
    check(&mark, spec, &subject)?;
    clear_remains(shared, id, spec, &dir).await?;
    let launch = prepare(shared, &mark, spec).await?;
    write_records(shared, spec, &dir, &launch)?;
    match supervise(shared, &dir, lock).await? {
        Report::Ready => {
            crate::watch::follow(shared, id, &spec.name, spec.attempt, &launch.socket);
            Ok(Change::Changed(format!("started attempt {}", spec.attempt)))
        }
        Report::Failed { kind, message } => {
            remove_instance(shared, id, &spec.name, spec.attempt, &dir).await?;
            Err(HostError::new(kind.into(), START, subject, message))
        }
    }
}

fn running_sandbox(shared: &Shared, id: &SandboxId, subject: &str) -> HostResult<SandboxMark> {
    let Some(mark) = sandbox::own_mark(shared, id)? else {
        return Err(HostError::new(HostErrorKind::NotFound, START, subject, "no such sandbox"));
    };
    if sandbox::running(shared, id)?.is_none() {
        return Err(HostError::new(HostErrorKind::InvalidState, START, subject, "the sandbox is not running"));
    }
    Ok(mark)
}

fn check(mark: &SandboxMark, spec: &ContainerSpec, subject: &str) -> HostResult<()> {
    let invalid = |message: String| Err(HostError::new(HostErrorKind::InvalidSpec, START, subject, message));
    if let Err(message) = instance::check(spec, &mark.spec) {
        return invalid(message);
    }
    match &spec.processes {
        ProcessView::Own | ProcessView::Container(_) => {}
        ProcessView::Sandbox if mark.spec.share_processes => {}
        ProcessView::Sandbox => return invalid("the sandbox does not share processes".to_owned()),
        ProcessView::Host => {
            let message = "hostPID: a zone sees its own processes only";
            return Err(HostError::new(HostErrorKind::Unsupported, START, subject, message));
        }
    }
    if let Some(Seccomp::Localhost(profile)) = &spec.security.seccomp {
        return invalid(format!("cannot load seccomp profile {profile:?}: illumos has no system call filters"));
    }
    if let Some(bad) = spec.argv.iter().find(|word| word.contains('\0')) {
        return invalid(format!("argument {bad:?} holds a NUL byte"));
    }
    if let Some(bad) =
        spec.env.iter().find(|v| v.name.is_empty() || v.name.contains(['=', '\0']) || v.value.expose().contains('\0'))
    {
        return invalid(format!("variable {:?} can't be set", bad.name));
    }
    let named = spec.security.cap_add.iter().chain(&spec.security.cap_drop);
    if let Some(bad) = named.into_iter().find(|c| !c.eq_ignore_ascii_case("ALL") && capability::known(c).is_none()) {
        return invalid(format!("capability {bad:?} is not one"));
    }
    for mount in &spec.mounts {
        if mount.recursive_read_only == Some(RecursiveReadOnly::Enabled) {
            let message = "recursiveReadOnly: lofs mounts are read-only by themselves only";
            return Err(HostError::new(HostErrorKind::Unsupported, START, subject, message));
        }
    }
    Ok(())
}

/// An earlier try that never came to an end may have left files.
async fn clear_remains(shared: &Shared, id: &SandboxId, spec: &ContainerSpec, dir: &ContainerDir) -> HostResult<()> {
    if let Some(launch) = record::launch(dir)?
        && let Some(slot) = launch.slot
    {
        slots::free(shared, START, id, slot).await?;
    }
    let out = shared.paths.out(id).join(inside_name(&spec.name, spec.attempt));
    for file in [started_file(&out), ended_file(&out)] {
        remove_file(&file).map_err(|e| io_error("clear", &file, e))?;
    }
    remove_tree(dir.path()).map_err(|e| io_error("clear", dir.path(), e))?;
    Ok(())
}

/// Its root file system, and what its starter begins from.
async fn prepare(shared: &Shared, mark: &SandboxMark, spec: &ContainerSpec) -> HostResult<Launch> {
    let id = &mark.spec.id;
    let subject = || format!("{id}/{}", spec.name);
    let brand = sandbox::zone_brand(shared, &mark.spec)?;
    if brand.programs() == Programs::Machine {
        return machine_launch(shared, id, spec);
    }
    let name = inside_name(&spec.name, spec.attempt);
    let slot = match &spec.image {
        ContainerImage::Brand => None,
        ContainerImage::Image { id: image } => {
            let used = slots::in_use(shared, id)?;
            let Some(slot) = (0..SLOTS).find(|slot| !used.contains(slot)) else {
                let message = format!("{SLOTS} containers of this pod are there already, ended ones included");
                return Err(HostError::new(HostErrorKind::Exhausted, START, subject(), message));
            };
            slots::free(shared, START, id, slot).await?;
            datasets::clone_image(shared, START, id, slot, image).await?;
            images::touch(shared, image);
            Some(slot)
        }
    };
    let start = start_of(shared, mark, spec, &name, slot);
    let file = shared.paths.starts(id).join(format!("{name}.json"));
    write_json(&file, &start).map_err(|e| io_error(START, &file, e))?;
    let script = match brand.programs() {
        Programs::Linux => linux::prepare(START, &shared.paths.starts(id), &name, &start)?,
        Programs::Native | Programs::Machine => {
            let script = supervisor::native_script(&inside::start_file(&name), &inside::program(), true);
            match Project::of(&spec.name, &spec.resources) {
                Some(project) => project.begins(&script),
                None => script,
            }
        }
    };
    let zlogin = shared.tools().path("zlogin").map_err(|e| e.into_host(START, subject()))?;
    Ok(Launch {
        zlogin,
        login: brand.login().iter().map(ToString::to_string).collect(),
        zone: id.to_string(),
        script,
        out: shared.paths.out(id).join(&name),
        socket: socket(shared, id, &spec.name, spec.attempt),
        log: spec.log.clone(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        termination: spec.termination_message.clone(),
        last_words: (!spec.termination_message.path.is_empty()).then(|| last_words(shared, id, &name)),
        slot,
    })
}

/// A machine's container is a process that lives for as long as its zone is up. What it says lies where only root can write.
fn machine_launch(shared: &Shared, id: &SandboxId, spec: &ContainerSpec) -> HostResult<Launch> {
    let zoneadm = shared.tools().path("zoneadm").map_err(|e| e.into_host(START, id.as_str()))?;
    let zlogin = shared.tools().path("zlogin").map_err(|e| e.into_host(START, id.as_str()))?;
    let out = shared.paths.run.container(id, &spec.name, spec.attempt).path().join("machine");
    Ok(Launch {
        zlogin: shared.paths.program(),
        login: machine::words(&zoneadm, &out, spec.tty.then_some(zlogin.as_path())),
        zone: id.to_string(),
        script: String::new(),
        out,
        socket: socket(shared, id, &spec.name, spec.attempt),
        log: spec.log.clone(),
        // Without its console a machine has nothing to read from.
        stdin: spec.stdin && spec.tty,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        termination: spec.termination_message.clone(),
        last_words: None,
        slot: None,
    })
}

fn last_words(shared: &Shared, id: &SandboxId, name: &str) -> PathBuf {
    shared.paths.out(id).join(format!("{name}.words"))
}

/// Where an instance's supervisor listens: short, whatever the names are.
pub(crate) fn socket(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> PathBuf {
    let digest = Sha256::digest(format!("{id}.{name}.{attempt}").as_bytes());
    let short = reddwarf_host::hex(digest.get(..8).unwrap_or_default());
    shared.paths.sockets().join(short)
}

fn start_of(shared: &Shared, mark: &SandboxMark, spec: &ContainerSpec, name: &str, slot: Option<u32>) -> Start {
    let _ = shared;
    let volumes = &mark.spec.volumes;
    let mut mounts: Vec<StartMount> = spec
        .mounts
        .iter()
        .filter_map(|mount| {
            let volume = volumes.get(&mount.volume)?;
            let files = matches!(volume, reddwarf_host::spec::VolumeSpec::Files { .. });
            Some(StartMount {
                source: volumes::seen(&mount.volume, volume).join(&mount.sub_path),
                target: mount.target.clone(),
                // The host's own files in it are not the container's to change.
                read_only: mount.read_only || files,
                optional: false,
            })
        })
        .collect();
    if !spec.termination_message.path.is_empty() {
        let source = inside::path("rw/out").join(format!("{name}.words"));
        let target = spec.termination_message.path.clone();
        mounts.push(StartMount { source, target, read_only: false, optional: true });
    }
    let env_file = |file: &reddwarf_host::spec::EnvFile| {
        let source = volumes.get(&file.volume).map(|v| volumes::seen(&file.volume, v)).unwrap_or_default();
        StartEnvFile { source, file: file.clone() }
    };
    Start {
        argv: spec.argv.clone(),
        env: spec.env.iter().map(|v| (v.name.clone(), v.value.expose().clone())).collect(),
        env_files: spec.env_files.iter().map(env_file).collect(),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        strict_groups: spec.security.strict_groups,
        root: slot.map(|slot| inside::path("roots").join(crate::paths::slot_name(slot)).join("root")),
        hostname: mark.spec.hostname.clone(),
        etc: inside::path("ro/etc"),
        mounts,
        out: inside::out_file(name),
        joins: false,
        tty: spec.tty,
        size: inside::path("run/start").join(format!("{name}.size")),
    }
}

fn write_records(shared: &Shared, spec: &ContainerSpec, dir: &ContainerDir, launch: &Launch) -> HostResult<()> {
    make_dir(dir.path()).map_err(|e| io_error("make", dir.path(), e))?;
    write_record("record container", &dir.launch_file(), launch)?;
    if let Some(words) = &launch.last_words {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o666).open(words);
        match made.and_then(|f| f.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_error("make", words, e)),
        }
    }
    if let Some(logs) = spec.log.path.parent() {
        make_open_dir(logs).map_err(|e| io_error("make log directory", logs, e))?;
    }
    let _ = shared;
    // Last: an instance without it is half-made.
    dir.write_spec(spec)
}

/// Starts the supervisor and waits for its word. On illumos in a process contract of its own, else SMF would end it with
/// the daemon's service.
async fn supervise(shared: &Shared, dir: &ContainerDir, lock: File) -> HostResult<Report> {
    let exe = shared.paths.program();
    let failed = |e| io_error("start supervisor", &exe, e);
    let log =
        OpenOptions::new().append(true).create(true).mode(0o600).open(record::supervisor_log(dir)).map_err(failed)?;
    let (sender, receiver) = tokio::net::unix::pipe::pipe().map_err(failed)?;
    let report = sender.into_blocking_fd().map_err(failed)?;
    // Where there is none, as on Linux, it is started by itself.
    let beginning = match shared.tools().begin(Tool::Ctrun, PATIENCE).await {
        Ok(beginning) => Some(beginning),
        Err(CommandError::Missing { .. }) => None,
        Err(error) => return Err(error.into_host(START, exe.to_string_lossy())),
    };
    let mut command = match &beginning {
        Some(beginning) => {
            let mut command = beginning.command();
            command.args(["-l", "none", "-f", "hwerr", "-o", "pgrponly"]).arg(&exe);
            command
        }
        None => {
            #[expect(clippy::disallowed_methods, reason = "not a tool whose output is awaited: it outlives the call")]
            let mut command = tokio::process::Command::new(&exe);
            command.env_clear().envs(reddwarf_command::ENVIRONMENT).current_dir("/").process_group(0);
            command
        }
    };
    command.arg(supervisor::ARGUMENT).arg(dir.path());
    command.stdin(Stdio::from(lock)).stdout(Stdio::from(report)).stderr(Stdio::from(log));
    // Not waited for: it outlives us; tokio collects it should it end first.
    drop(command.spawn().map_err(failed)?);
    drop(command);
    let report = program::heard(receiver, dir.path(), &record::supervisor_log(dir)).await;
    if let (Some(beginning), Ok(Report::Ready)) = (beginning, &report) {
        beginning.begun();
    }
    report
}

/// Sends a signal and records stop requests.
pub(crate) async fn signal(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    signal: Signal,
) -> HostResult<Change> {
    const OP: &str = "signal container";
    let dir = shared.paths.run.container(id, name, attempt);
    let Some(spec) = dir.spec()? else { return Ok(Change::Unchanged) };
    let kill = signal == Signal::Sigkill;
    let lock_file = shared.paths.run.lock(id, name, attempt);
    let state = dir.observed(&lock_file)?;
    match &state {
        ContainerState::Exited { .. } => return Ok(Change::Unchanged),
        ContainerState::Running { .. } => {}
        // Nobody will tell the end of these; only killing makes sense.
        ContainerState::Creating | ContainerState::Lost(_) if kill => {}
        ContainerState::Creating | ContainerState::Lost(_) => return Ok(Change::Unchanged),
    }
    let lost = matches!(state, ContainerState::Lost(_));
    if (kill || signal == spec.stop_signal) && !lost {
        dir.note_signal(shared.clock.boot(), kill)?;
    }
    let Some(pid) = inside::first_process(&dir)? else { return Ok(Change::Unchanged) };
    let sent = match is_machine(shared, id)? {
        // Its container ends with it. A shutdown that is waited for would keep others from the zone.
        true if kill => {
            machine::ask(pid, true);
            halt(shared, OP, id.as_str(), Instant::now() + STUBBORN).await.map(|_| true)?
        }
        true => machine::ask(pid, false),
        false => inside::signal(shared, OP, id, pid, signal, kill).await?,
    };
    if lost {
        return dir.end_lost(&lock_file, Moment { boot: shared.clock.boot(), wall: shared.clock.wall() });
    }
    if sent { Ok(Change::Changed(format!("sent {signal}"))) } else { Ok(Change::Unchanged) }
}

fn is_machine(shared: &Shared, id: &SandboxId) -> HostResult<bool> {
    let Some(mark) = sandbox::own_mark(shared, id)? else { return Ok(false) };
    Ok(sandbox::zone_brand(shared, &mark.spec)?.programs() == Programs::Machine)
}

/// Gives a container other limits; its pod's are its zone's (`sandbox_ensure`).
pub(crate) async fn update(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    resources: &Resources,
) -> HostResult<Change> {
    let dir = shared.paths.run.container(id, name, attempt);
    let lock_file = shared.paths.run.lock(id, name, attempt);
    let Some(mut spec) = dir.to_resize(&lock_file, &format!("{id}/{name}"), resources)? else {
        return Ok(Change::Unchanged);
    };
    if !is_machine(shared, id)?
        && let Some(script) = Project::changes(name, &spec.resources, resources)
        && let Err(error) = shared.tools().run(&inside::shell(shared, id, &script)).await
    {
        // Begun without limits, or in a zone without projects: there is none to change.
        tracing::warn!(sandbox = %id, container = %name, %error, "takes effect at the container's next start");
    }
    spec.resources = *resources;
    dir.write_spec(&spec)?;
    Ok(Change::Changed("limits".to_owned()))
}

/// `container_remove`.
pub(crate) async fn remove(shared: &Shared, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Change> {
    let dir = shared.paths.run.container(id, name, attempt);
    if !dir.path().exists() {
        return Ok(Change::Unchanged);
    }
    let spec = dir.to_remove(&shared.paths.run.lock(id, name, attempt), &format!("{id}/{name}"))?;
    remove_instance(shared, id, name, attempt, &dir).await?;
    for file in spec.iter().flat_map(|spec| spec.log.files()) {
        remove_file(&file).map_err(|e| io_error(REMOVE, &file, e))?;
    }
    Ok(Change::Changed("removed".to_owned()))
}

/// Everything of an instance but its log; the record of its slot goes last.
async fn remove_instance(
    shared: &Shared,
    id: &SandboxId,
    name: &ContainerName,
    attempt: u32,
    dir: &ContainerDir,
) -> HostResult<()> {
    let gone = |path: PathBuf| remove_file(&path).map(drop).map_err(|e| io_error(REMOVE, &path, e));
    gone(dir.spec_file())?;
    if let Some(launch) = record::launch(dir)?
        && let Some(slot) = launch.slot
    {
        slots::free(shared, REMOVE, id, slot).await?;
    }
    let inside = inside_name(name, attempt);
    let out = shared.paths.out(id).join(&inside);
    for file in [started_file(&out), ended_file(&out), last_words(shared, id, &inside)] {
        gone(file)?;
    }
    gone(shared.paths.starts(id).join(format!("{inside}.json")))?;
    gone(linux::file(&shared.paths.starts(id), &inside))?;
    gone(socket(shared, id, name, attempt))?;
    gone(shared.paths.run.lock(id, name, attempt))?;
    remove_tree(dir.path()).map_err(|e| io_error(REMOVE, dir.path(), e))?;
    if let Some(parent) = dir.path().parent() {
        // Others of the name may be there.
        let _ = remove_dir(parent);
    }
    Ok(())
}
