//! Commands in a running zone, and containers' own processes there: always by zlogin(1) with exactly one argument.

use crate::host::Shared;
use crate::paths::INSIDE;
use crate::record::ContainerDir;
use crate::sandbox;
use crate::zlogin::quoted;
use crate::zone::brand::ZoneBrand;
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
    let mark = sandbox::own_mark(shared, id).ok().flatten();
    mark.and_then(|mark| sandbox::zone_brand(shared, &mark.spec).ok()).map_or(&[], ZoneBrand::login)
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
    let minus = if group { "-" } else { "" };
    // zlogin's own exit status is the shell's: 0 only where the signal was sent.
    let script = format!("kill -s {} -- {minus}{pid} 2>/dev/null || exit 3", quoted(name));
    match shared.tools().run(&shell(shared, id, &script)).await {
        Ok(_) => Ok(true),
        // The zone is down, or the process is gone.
        Err(error) if error.cause() == Cause::WrongState || exit_code(&error) == Some(3) => Ok(false),
        Err(error) => Err(error.into_host(op, id.as_str())),
    }
}

/// Kills a command with all that it started: its process group, and what its starter's tree holds.
pub(crate) async fn end_tree(
    shared: &Shared,
    op: &'static str,
    id: &SandboxId,
    pid: u32,
    starter: u32,
) -> HostResult<()> {
    let program = quoted(&program());
    // The tree first: with its root gone nobody would know any more what belonged to it.
    let script = format!("{program} {} {starter}; kill -s KILL -- -{pid} 2>/dev/null; exit 0", crate::tree::ARGUMENT);
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
