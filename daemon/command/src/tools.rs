//! Where programs are, and how many of one may run at a time.

use crate::counts::Counted;
use crate::error::CommandError;
use crate::invocation::{Invocation, Tool};
use crate::run::{CommandOutput, ExternalCommand};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where Linux distributions keep administrators' programs.
const LINUX: &[&str] =
    &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/run/current-system/sw/bin"];
/// Where illumos does.
const ILLUMOS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin"];

/// How many runs of one program go on at a time, those that read and those that change apart: a listing never waits for
/// installations, and one that hangs holds up none of the others.
const AT_ONCE: usize = 16;

/// Programs of the system by name. Cheap to clone; clones share what was found and what runs.
#[derive(Clone, Debug)]
pub struct Tools(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directories: Vec<PathBuf>,
    /// Programs that were found and are fit to be run.
    found: Mutex<BTreeMap<String, PathBuf>>,
    turns: Mutex<BTreeMap<(String, bool), Arc<Semaphore>>>,
    at_once: usize,
}

impl Tools {
    /// Those of a Linux system.
    pub fn linux() -> Self {
        Self::within(LINUX.iter().map(PathBuf::from).collect())
    }

    /// Those of an illumos system.
    pub fn illumos() -> Self {
        Self::within(ILLUMOS.iter().map(PathBuf::from).collect())
    }

    /// Those of one directory and of no other: stand-ins, for tests. They are run by the name that they have there, links
    /// are not resolved.
    ///
    /// # Errors
    /// [`CommandError::Unsafe`] unless it is an absolute path of a directory that only root or we can change.
    pub fn only_in(directory: &Path) -> Result<Self, CommandError> {
        let not = |why| Err(CommandError::Unsafe { path: directory.to_owned(), why });
        if !directory.is_absolute() {
            return not("not an absolute path");
        }
        match fs::metadata(directory) {
            Ok(found) if found.is_dir() => trusted(directory, &found)?,
            Ok(_) => return not("not a directory"),
            Err(_) => return not("can't be read"),
        }
        Ok(Self::within(vec![directory.to_owned()]))
    }

    fn within(directories: Vec<PathBuf>) -> Self {
        Self(Arc::new(Inner { directories, found: Mutex::default(), turns: Mutex::default(), at_once: AT_ONCE }))
    }

    /// The program's path, checked the first time that it is asked for.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::Unsafe`].
    pub fn path(&self, program: &str) -> Result<PathBuf, CommandError> {
        let mut found = self.0.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = found.get(program) {
            return Ok(path.clone());
        }
        for directory in &self.0.directories {
            let path = directory.join(program);
            if let Some(meta) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) {
                trusted(&path, &meta)?;
                found.insert(program.to_owned(), path.clone());
                return Ok(path);
            }
        }
        Err(CommandError::Missing { program: program.to_owned(), directories: self.0.directories.clone() })
    }

    /// A run of a program, to be given its arguments.
    ///
    /// # Errors
    /// As [`Tools::path`].
    pub fn command(&self, program: &str) -> Result<ExternalCommand, CommandError> {
        let path = self.path(program)?;
        Ok(ExternalCommand::named(program, path).in_turn(self.turn(program, false), self.0.at_once))
    }

    /// Runs a tool to its end.
    ///
    /// # Errors
    /// [`CommandError`]; whatever it started is dead by then.
    pub async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        let program = invocation.tool.name();
        ExternalCommand::named(program, self.path(program)?)
            .in_turn(self.turn(program, invocation.reads_only), self.0.at_once)
            .args(&invocation.args)
            .stdin(invocation.stdin.clone())
            .deadline(invocation.deadline)
            .output_limit(OUTPUT)
            .run()
            .await
    }

    /// The beginning of a run that goes on for as long as its caller wants: a session, a supervisor. It waits for its turn
    /// among other beginnings of the tool, and is counted apart from the tool's runs, as `NAME-session`, until the caller
    /// says that it [`has begun`](Beginning::begun); without that word it counts as failed.
    ///
    /// # Errors
    /// As [`Tools::path`], and [`CommandError::Crowded`] when there was no turn in time.
    pub async fn begin(&self, tool: Tool, within: Duration) -> Result<Beginning, CommandError> {
        let path = self.path(tool.name())?;
        let name = format!("{}-session", tool.name());
        let turn = self.turn(&name, false);
        let mut counted = Counted::waiting(name.clone());
        match tokio::time::timeout(within, turn.acquire_owned()).await {
            Ok(turn) => {
                counted.runs();
                let span = tracing::debug_span!("command", tool = %name);
                Ok(Beginning { path, counted, _turn: turn.ok(), span })
            }
            Err(_) => {
                let command = path.display().to_string();
                Err(CommandError::Crowded { command, deadline: within, at_once: self.0.at_once })
            }
        }
    }

    fn turn(&self, program: &str, reads: bool) -> Arc<Semaphore> {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry((program.to_owned(), reads));
        turn.or_insert_with(|| Arc::new(Semaphore::new(self.0.at_once))).clone()
    }
}

/// A run that begins; see [`Tools::begin`].
#[derive(Debug)]
pub struct Beginning {
    path: PathBuf,
    counted: Counted<'static>,
    _turn: Option<OwnedSemaphorePermit>,
    span: tracing::Span,
}

impl Beginning {
    /// The tool's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tool with the surroundings of every run: no environment but the one of all runs, the root directory, a process group of
    /// its own. Arguments and streams are the caller's.
    pub fn command(&self) -> tokio::process::Command {
        // The runner itself: every other module goes through it.
        #[allow(clippy::disallowed_methods)]
        let mut command = tokio::process::Command::new(&self.path);
        command.env_clear().envs(crate::ENVIRONMENT).current_dir("/").process_group(0);
        command
    }

    /// It runs, or ran.
    pub fn begun(self) {
        let took = self.counted.ended(None);
        let _in = self.span.enter();
        tracing::trace!(took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "begun");
    }
}

/// A thousand zones' export or a whole pool's properties stay well below.
const OUTPUT: usize = 64 << 20;

/// Only root and we ourselves may be able to change what we run.
fn trusted(path: &Path, meta: &fs::Metadata) -> Result<(), CommandError> {
    let not = |why| Err(CommandError::Unsafe { path: path.to_owned(), why });
    if meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        return not("belongs to another user than root");
    }
    if meta.mode() & 0o022 != 0 {
        return not("may be written by its group or by everybody");
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write where nobody else reads")]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use std::os::unix::fs::PermissionsExt;

    fn stand_in(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn stand_ins_take_the_place_of_all_tools_and_failures_have_causes() {
        let dir = tempfile::tempdir().unwrap();
        stand_in(dir.path(), "zfs", "echo \"cannot open 'a': dataset does not exist\" >&2; exit 1");
        let tools = Tools::only_in(dir.path()).unwrap();
        let error = tools.run(&Invocation::read(Tool::Zfs, ["list", "a"])).await.unwrap_err();
        assert_eq!(error.cause(), Cause::NotFound);
        assert_eq!(error.into_host("list", "a").kind, reddwarf_host::HostErrorKind::NotFound);
        let missing = tools.run(&Invocation::read(Tool::Zpool, ["list"])).await.unwrap_err();
        assert!(matches!(missing, CommandError::Missing { .. }), "{missing}");
        assert!(crate::counts()["zfs"].failures[&Cause::NotFound] >= 1);
        assert!(
            crate::counts::exposition().contains("reddwarf_command_failures_total{tool=\"zfs\",cause=\"not-found\"}")
        );
    }

    #[test]
    fn what_others_can_change_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let tools = Tools::only_in(dir.path()).unwrap();
        let path = stand_in(dir.path(), "zfs", "true");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(tools.path("zfs"), Err(CommandError::Unsafe { .. })));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Tools::only_in(dir.path()).is_err() && Tools::only_in(Path::new("relative")).is_err());
    }

    /// U11: one hung tool stops nothing else.
    #[tokio::test]
    async fn u11_runs_that_hang_delay_no_reading_and_give_their_turn_back() {
        let dir = tempfile::tempdir().unwrap();
        stand_in(dir.path(), "zoneadm", "case $1 in list) echo fine;; *) sleep 60;; esac");
        let tools = Tools::only_in(dir.path()).unwrap();
        let hang = Invocation::change(Tool::Zoneadm, ["halt"]).within(Duration::from_secs(30));
        let hung: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (tools, hang) = (tools.clone(), hang.clone());
                tokio::spawn(async move { tools.run(&hang).await })
            })
            .collect();
        while crate::counts().get("zoneadm").is_none_or(|c| c.running < AT_ONCE as u64) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let listed = tools.run(&Invocation::read(Tool::Zoneadm, ["list"])).await.unwrap();
        assert_eq!(listed.stdout, b"fine\n");
        let late = tools.run(&hang.clone().within(Duration::from_millis(50))).await.unwrap_err();
        assert!(matches!(late, CommandError::Crowded { .. }), "{late}");
        assert_eq!(late.cause(), Cause::Timeout);
        for task in hung {
            task.abort();
            let _ = task.await;
        }
        assert_eq!(crate::counts()["zoneadm"].running, 0);
    }

    /// Sessions are runs too: in turn, counted, with a known environment; those that run already take no turn.
    #[tokio::test]
    async fn sessions_begin_in_turn_and_are_counted_apart() {
        let dir = tempfile::tempdir().unwrap();
        stand_in(dir.path(), "ppriv", "/usr/bin/env");
        let tools = Tools::only_in(dir.path()).unwrap();
        let soon = Duration::from_millis(50);
        let mut all = Vec::new();
        for _ in 0..AT_ONCE {
            all.push(tools.begin(Tool::Ppriv, soon).await.unwrap());
        }
        let crowded = tools.begin(Tool::Ppriv, soon).await.unwrap_err();
        assert!(matches!(crowded, CommandError::Crowded { .. }), "{crowded}");
        all.pop().unwrap().begun();
        let one = tools.begin(Tool::Ppriv, soon).await.unwrap();
        let said = one.command().output().await.unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().lines().find(|l| l.starts_with("LC_ALL")), Some("LC_ALL=C"));
        one.begun();
        drop(all);
        let counts = &crate::counts()["ppriv-session"];
        assert_eq!((counts.runs, counts.running, counts.waiting), (17, 0, 0));
        // Those that never said that they had begun, and the one without a turn.
        assert_eq!(counts.failures[&Cause::Other], 16);
        assert!(!crate::counts().contains_key("ppriv"));
    }
}
