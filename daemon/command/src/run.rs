//! One run of a program.

use crate::cause::Cause;
use crate::counts::Counted;
use crate::error::CommandError;
use crate::tools::Tools;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tracing::Instrument;

/// Where programs look for others, as those do that are scripts or call hooks: without it nothing is found on illumos.
const PATH: &str = if cfg!(target_os = "linux") { "/usr/sbin:/usr/bin:/sbin:/bin" } else { "/usr/sbin:/usr/bin:/sbin" };

/// All of the environment that a tool of the system gets, whoever starts it.
pub const ENVIRONMENT: [(&str, &str); 2] = [("LC_ALL", "C"), ("PATH", PATH)];

/// One run of an external program.
#[derive(Clone)]
pub struct ExternalCommand {
    /// As counted.
    name: String,
    program: PathBuf,
    /// Its turn among others of its kind, and how many there may be at a time.
    turn: Option<(Arc<Semaphore>, usize)>,
    args: Vec<OsString>,
    stdin: Vec<u8>,
    /// In the place of `stdin`.
    input: Option<Arc<File>>,
    /// Where standard output goes instead of to us.
    output: Option<Arc<File>>,
    deadline: Duration,
    output_limit: usize,
}

impl std::fmt::Debug for ExternalCommand {
    /// Without what it reads: that may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` < {} bytes, {:?}", self.shown(), self.stdin.len(), self.deadline)
    }
}

/// What a successful command printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
}

impl ExternalCommand {
    /// A run of `program`, looked up where Linux has such programs.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::Unsafe`].
    pub fn find(program: &str) -> Result<Self, CommandError> {
        static LINUX: std::sync::LazyLock<Tools> = std::sync::LazyLock::new(Tools::linux);
        LINUX.command(program)
    }

    /// A run of the program at an absolute path: our own.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let name = program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self::named(&name, program)
    }

    /// A run of a program that was found and checked.
    pub(crate) fn named(name: &str, program: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            program,
            turn: None,
            args: Vec::new(),
            stdin: Vec::new(),
            input: None,
            output: None,
            deadline: Duration::from_secs(30),
            output_limit: 4 << 20,
        }
    }

    pub(crate) fn in_turn(mut self, turn: Arc<Semaphore>, at_once: usize) -> Self {
        self.turn = Some((turn, at_once));
        self
    }

    /// Appends arguments, each passed as it is.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// What it reads from standard input; /dev/null by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// It reads an open file, from where that stands: for streams that are too long to be held.
    #[must_use]
    pub fn stdin_from(mut self, file: File) -> Self {
        self.input = Some(Arc::new(file));
        self
    }

    /// Its standard output goes to an open file; it is not among what was printed then.
    #[must_use]
    pub fn stdout_to(mut self, file: File) -> Self {
        self.output = Some(Arc::new(file));
        self
    }

    /// How long it may take; 30 s by default. It waits for its turn for as long at most.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many bytes it may print on each stream; 4 MiB by default.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Program and arguments as a person would type them.
    fn shown(&self) -> String {
        let mut text = self.program.display().to_string();
        for a in &self.args {
            text.push(' ');
            text.push_str(&a.to_string_lossy());
        }
        text
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Every variant but [`CommandError::Missing`] and [`CommandError::Unsafe`]; whatever it started is dead by then.
    pub async fn run(&self) -> Result<CommandOutput, CommandError> {
        let span = tracing::debug_span!("command", tool = %self.name, took_ms = tracing::field::Empty);
        async {
            let mut counted = Counted::waiting(&self.name);
            let result = match self.wait().await {
                Ok(_turn) => {
                    counted.runs();
                    self.run_now().await
                }
                Err(error) => Err(error),
            };
            let took = counted.ended(result.as_ref().err().map(CommandError::cause));
            tracing::Span::current().record("took_ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            match &result {
                Ok(_) => tracing::trace!(command = %self.shown(), "ran"),
                Err(error) => tracing::debug!(%error, cause = %error.cause(), "failed"),
            }
            result
        }
        .instrument(span)
        .await
    }

    /// Its turn, held while it runs.
    async fn wait(&self) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, CommandError> {
        let Some((turn, at_once)) = &self.turn else { return Ok(None) };
        match tokio::time::timeout(self.deadline, turn.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.ok()),
            Err(_) => {
                let (command, deadline) = (self.shown(), self.deadline);
                Err(CommandError::Crowded { command, deadline, at_once: *at_once })
            }
        }
    }

    async fn run_now(&self) -> Result<CommandOutput, CommandError> {
        let mut child = self.spawn()?;
        // Dropped at the deadline, when output overflows, and when our caller is cancelled.
        let mut group = ProcessGroup(child.id().and_then(|id| i32::try_from(id).ok()));
        let Some(deadline_result) = tokio::time::timeout(self.deadline, self.talk(&mut child)).await.ok() else {
            return Err(CommandError::Timeout { command: self.shown(), deadline: self.deadline });
        };
        let (status, stdout, stderr) = deadline_result?;
        group.0 = None;
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        if status.success() {
            return Ok(CommandOutput { stdout, stderr });
        }
        let cause = Cause::said_by(&self.name, &stderr);
        Err(CommandError::Failed { command: self.shown(), status, stderr: shorten(&stderr), cause })
    }

    fn spawn(&self) -> Result<tokio::process::Child, CommandError> {
        let spawned = |source| CommandError::Spawn { command: self.shown(), source };
        let file = |file: &Option<Arc<File>>, or: fn() -> Stdio| match file {
            Some(file) => file.try_clone().map(Stdio::from),
            None => Ok(or()),
        };
        let input =
            file(&self.input, if self.stdin.is_empty() { Stdio::null } else { Stdio::piped }).map_err(spawned)?;
        // The runner itself: every other module goes through it.
        #[allow(clippy::disallowed_methods)]
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/")
            .stdin(input)
            .stdout(file(&self.output, Stdio::piped).map_err(spawned)?)
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(spawned)
    }

    async fn talk(&self, child: &mut tokio::process::Child) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), CommandError> {
        let io = |source| CommandError::Io { command: self.shown(), source };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut pipe) = stdin {
                // A program may end without reading all of it: its status tells.
                let _ = pipe.write_all(&self.stdin).await;
            }
            Ok(())
        };
        let (out, err, ()) =
            tokio::try_join!(read_capped(stdout, self.output_limit), read_capped(stderr, self.output_limit), write)
                .map_err(io)?;
        let (Some(out), Some(err)) = (out, err) else {
            return Err(CommandError::TooMuchOutput { command: self.shown(), limit: self.output_limit });
        };
        let status = child.wait().await.map_err(io)?;
        Ok((status, out, err))
    }
}

/// Reads to the end; `None` past `limit` bytes.
async fn read_capped(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// At most 2000 characters of a message, its beginning and its end.
fn shorten(text: &str) -> String {
    const HALF: usize = 1000;
    let length = text.chars().count();
    if length <= 2 * HALF {
        return text.to_owned();
    }
    let head: String = text.chars().take(HALF).collect();
    let tail: String = text.chars().skip(length - HALF).collect();
    format!("{head} [...] {tail}")
}

/// Kills the whole group when dropped, unless disarmed.
struct ProcessGroup(Option<i32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // Gone already is fine.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::HostErrorKind;

    #[tokio::test]
    async fn gives_output_and_clears_the_environment() {
        let out = ExternalCommand::find("env").unwrap().run().await.unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    }

    #[tokio::test]
    async fn streams_go_from_file_to_file() {
        use std::io::{Read, Seek};
        let (from, mut to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        std::io::Write::write_all(&mut &from, &vec![7; 6 << 20]).unwrap();
        (&from).rewind().unwrap();
        let copy = ExternalCommand::find("cat").unwrap().stdin_from(from).stdout_to(to.try_clone().unwrap());
        assert_eq!(copy.run().await.unwrap().stdout, b"", "more than may be printed, and none of it to us");
        to.rewind().unwrap();
        let mut arrived = Vec::new();
        to.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived, vec![7; 6 << 20]);
    }

    #[tokio::test]
    async fn passes_stdin_or_nothing_at_all() {
        let out = ExternalCommand::find("cat").unwrap().stdin("hello").run().await.unwrap();
        assert_eq!(out.stdout, b"hello");
        let out = ExternalCommand::find("readlink").unwrap().args(["/proc/self/fd/0"]).run().await.unwrap();
        assert_eq!(out.stdout, b"/dev/null\n");
    }

    #[tokio::test]
    async fn a_failure_carries_command_status_and_stderr() {
        let err = ExternalCommand::find("ls").unwrap().args(["--", "/nowhere/at/all"]).run().await.unwrap_err();
        let text = err.to_string();
        assert!(text.contains("ls -- /nowhere/at/all: exit status: 2: "), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }

    #[tokio::test]
    async fn a_hanging_command_and_its_children_die_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pidfile.display());
        let err = ExternalCommand::find("sh")
            .unwrap()
            .args(["-c", &script])
            .deadline(Duration::from_millis(500))
            .run()
            .await
            .unwrap_err();
        assert!(matches!(err, CommandError::Timeout { .. }), "{err}");
        let pid: i32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
        for _ in 0..200 {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Err(_) => return,
                // Killed, and waiting for whoever reaps orphans here.
                Ok(stat) if stat.contains(") Z ") => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("the grandchild {pid} survived");
    }

    #[tokio::test]
    async fn endless_output_is_cut_off() {
        let err = ExternalCommand::find("yes").unwrap().output_limit(100_000).run().await.unwrap_err();
        assert!(matches!(err, CommandError::TooMuchOutput { limit: 100_000, .. }), "{err}");
    }

    #[test]
    fn a_missing_nft_says_what_to_install() {
        let err = ExternalCommand::find("reddwarf-no-such-program").unwrap_err();
        assert!(matches!(&err, CommandError::Missing { .. }));
        let host =
            CommandError::Missing { program: "nft".into(), directories: Vec::new() }.into_host("ensure network", "br0");
        assert_eq!(host.kind, HostErrorKind::Unsupported);
        assert!(host.message.contains("install nftables"), "{}", host.message);
    }
}
