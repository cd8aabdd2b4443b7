//! Containers by crun(1) or runc(8).

use super::{OciRuntime, Order, StartFailure, Streams};
use crate::program::ProgramError;
use nix::mount::{MntFlags, umount2};
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Which program's habits to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Crun,
    Runc,
}

pub(crate) struct Command {
    program: PathBuf,
    flavour: Flavour,
}

impl Command {
    pub(crate) fn new(program: &Path, flavour: Flavour) -> Self {
        Self { program: program.to_owned(), flavour }
    }

    #[allow(clippy::disallowed_methods, reason = "runs in the creator process, where no async runner is")]
    fn command(&self, state: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.env_clear().env("PATH", crate::oci::DEFAULT_PATH).arg("--root").arg(state);
        if self.flavour == Flavour::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }

    fn create(&self, id: &str, bundle: &Path, state: &Path, streams: Streams) -> Result<u32, StartFailure> {
        let pid_file = bundle.join("pid");
        let log = bundle.join("runtime.log");
        let mut command = self.command(state);
        command.arg("--log").arg(&log).arg("create").arg("--bundle").arg(bundle).arg("--pid-file").arg(&pid_file);
        match streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
            }
            Streams::Terminal { socket } => {
                command.arg("--console-socket").arg(socket);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let status = command.arg(id).status().map_err(|e| self.no_program(&e))?;
        if !status.success() {
            return Err(self.refused(&format!("create: {status}"), &fs::read_to_string(&log).unwrap_or_default()));
        }
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        text.trim().parse().map_err(|_| StartFailure::host(format!("{}: no process id", self.program.display())))
    }

    /// crun refuses hybrid machines whose v2 hierarchy has a controller. This process has a mount namespace of its own, so
    /// that hierarchy can be covered while crun runs; what comes between needs it.
    fn where_it_works<T>(&self, work: impl FnOnce() -> T) -> T {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let covered = self.flavour == Flavour::Crun
            && unified.join("cgroup.controllers").exists()
            && crate::mounts::mount_tmpfs(unified, "mode=755,size=64k").is_ok();
        let done = work();
        if covered {
            let _ = umount2(unified, MntFlags::MNT_DETACH);
        }
        done
    }

    fn no_program(&self, e: &io::Error) -> StartFailure {
        let message = format!("{}: {e}: install it or choose another container_runtime", self.program.display());
        StartFailure::Host { kind: crate::record::FailureKind::Unsupported, message }
    }

    fn refused(&self, what: &str, log: &str) -> StartFailure {
        let text: String = log.lines().rev().take(3).collect::<Vec<_>>().join("; ");
        let message = format!("{} {what}: {}", self.program.display(), text.trim());
        match program_fault(&message) {
            Some(code) => StartFailure::Program(ProgramError { code, message }),
            None => StartFailure::host(message),
        }
    }
}

/// The exit code for messages that blame the program, as both tools word them.
fn program_fault(message: &str) -> Option<i32> {
    let lower = message.to_ascii_lowercase();
    let blames_program =
        lower.contains("executable file") || lower.contains("exec:") || lower.contains("open executable");
    if blames_program && (lower.contains("not found") || lower.contains("no such file")) {
        return Some(127);
    }
    if blames_program && (lower.contains("permission denied") || lower.contains("exec format")) {
        return Some(126);
    }
    None
}

impl OciRuntime for Command {
    fn ask_for_filter(&self, config: &mut Value, oci: &Value) {
        config["linux"]["seccomp"] = oci.clone();
    }

    fn filters_devices(&self) -> bool {
        true
    }

    fn run(&self, order: Order<'_>) -> Result<u32, StartFailure> {
        let Order { id, bundle, state, streams, made, filter: _ } = order;
        let pid = self.where_it_works(|| self.create(id, bundle, state, streams))?;
        made(pid).map_err(|e| StartFailure::host(format!("take process {pid} from the daemon's cgroup: {e}")))?;
        let output = self.where_it_works(|| self.command(state).arg("start").arg(id).output());
        let output = output.map_err(|e| self.no_program(&e))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(self.refused(&format!("start: {}", output.status), &text));
        }
        Ok(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blame_is_read_from_both_tools_words() {
        assert_eq!(program_fault("executable file `/no` not found: No such file or directory"), Some(127));
        assert_eq!(program_fault("exec: \"/etc/passwd\": permission denied"), Some(126));
        assert_eq!(program_fault("cgroups in hybrid mode not supported"), None);
    }
}
