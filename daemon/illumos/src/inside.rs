//! Commands in a running zone, and containers' own processes there: always by zlogin(1) with exactly one argument.

use crate::host::Shared;
use crate::paths::INSIDE;
use crate::record::ContainerDir;
use crate::sandbox;
use crate::zlogin::quoted;
use crate::zone::brand::{Programs, ZoneBrand};
use reddwarf_command::{Cause, Invocation, Tool};
use reddwarf_host::spec::Signal;
use reddwarf_host::{HostResult, SandboxId};
use std::path::PathBuf;
use std::time::Duration;

/// Sending a signal takes no longer.
const SIGNAL: Duration = Duration::from_secs(20);

/// A path below `/.reddwarf`, from the zone's root.
pub(crate) fn path(place: &str) -> PathBuf {
    PathBuf::from(INSIDE).join(place)
}

/// Our program, as zones see it.
pub(crate) fn program() -> String {
    format!("{INSIDE}/bin/reddwarfd")
}

/// What zlogin(1) is called with besides, in the sandbox's zone.
pub(crate) fn login(shared: &Shared, id: &SandboxId) -> &'static [&'static str] {
    own_brand(shared, id).map_or(&[], ZoneBrand::login)
}

fn own_brand(shared: &Shared, id: &SandboxId) -> Option<ZoneBrand> {
    let mark = sandbox::own_mark(shared, id).ok().flatten()?;
    sandbox::zone_brand(shared, &mark.spec).ok()
}

/// A short shell text in a sandbox's zone.
pub(crate) fn shell(shared: &Shared, id: &SandboxId, script: &str) -> Invocation {
    let options = ["-n"].iter().chain(login(shared, id)).copied();
    Invocation::change(Tool::Zlogin, options.chain([id.as_str(), script])).within(SIGNAL)
}

/// Sends a signal to a process of a zone, or to its whole process group; whether there was one to get it.
pub(crate) async fn signal(
    shared: &Shared,
    op: &'static str,
    id: &SandboxId,
    pid: u32,
    signal: Signal,
    group: bool,
) -> HostResult<bool> {
    let name = signal.to_string();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    // zlogin's own exit status is the shell's: 0 only where the signal was sent.
    let script = format!("{} 2>/dev/null || exit 3", kill(name, pid, group));
    match shared.tools().run(&shell(shared, id, &script)).await {
        Ok(_) => Ok(true),
        // The zone is down, or the process is gone.
        Err(error) if error.cause() == Cause::WrongState || exit_code(&error) == Some(3) => Ok(false),
        Err(error) => Err(error.into_host(op, id.as_str())),
    }
}

/// The shell's words that send a signal. BusyBox's kill takes `--` for a process, and others take a group behind `-s NAME` for
/// an option.
pub(crate) fn kill(name: &str, pid: u32, group: bool) -> String {
    if group { format!("kill -{} -{pid}", quoted(name)) } else { format!("kill -s {} {pid}", quoted(name)) }
}

/// Kills a command with all that it started: its process group, and what its starter's tree holds.
pub(crate) async fn end_tree(
    shared: &Shared,
    op: &'static str,
    id: &SandboxId,
    pid: u32,
    starter: u32,
) -> HostResult<()> {
    // The tree first: with its root gone nobody would know any more what belonged to it.
    let tree = format!("{} {} {starter}; ", quoted(&program()), crate::tree::ARGUMENT);
    // Our program can't run beside Linux', whose shell leads a group of its own.
    let is_linux = own_brand(shared, id).is_some_and(|brand| brand.programs() == Programs::Linux);
    let tree = if is_linux { "" } else { &tree };
    let script = format!("{tree}{} 2>/dev/null; exit 0", kill("KILL", pid, true));
    shared.run(op, id.as_str(), &shell(shared, id, &script)).await.map(drop)
}

fn exit_code(error: &reddwarf_command::CommandError) -> Option<i32> {
    match error {
        reddwarf_command::CommandError::Failed { status, .. } => status.code(),
        _ => None,
    }
}

/// The file that a supervisor's or command's script begins from, as the zone sees it, and where it says how it goes.
pub(crate) fn start_file(name: &str) -> String {
    format!("{INSIDE}/run/start/{name}.json")
}

pub(crate) fn out_file(name: &str) -> PathBuf {
    path("rw/out").join(name)
}

/// A container's first process as last said.
pub(crate) fn first_process(dir: &ContainerDir) -> HostResult<Option<u32>> {
    Ok(dir.state()?.map(|running| running.pid))
}
