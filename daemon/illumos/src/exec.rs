//! Commands in running containers: zlogin(1) again, with the container's own surroundings.

use crate::container::inside_name;
use crate::host::{IllumosHost, Shared};
use crate::inside;
use crate::project::Project;
use crate::starter::{Start, command_prefix, ended_file, read_ended, read_started, started_file};
use crate::zone::brand::Programs;
use crate::{linux, sandbox, supervisor};
use async_trait::async_trait;
use reddwarf_command::{Beginning, Tool};
use reddwarf_host::{
    ContainerName, Exec, ExecExit, ExecRequest, HostError, HostErrorKind, HostResult, SandboxId, Session, TerminalSize,
};
use reddwarf_supervise::files::{io_error, read_record, remove_file, write_atomically, write_json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, oneshot};

const OP: &str = "exec";
/// How long a command may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of what the tools said, in bytes.
const WORDS_MOST: u64 = 1024;

/// Tells commands of one daemon apart; with its process number those of several.
static NUMBER: AtomicU64 = AtomicU64::new(0);

#[async_trait]
impl Exec for IllumosHost {
    async fn exec(&self, id: &SandboxId, name: &ContainerName, request: ExecRequest) -> HostResult<Session> {
        let shared = &self.shared;
        let subject = format!("{id}/{name}");
        if request.argv.is_empty() {
            return Err(HostError::new(HostErrorKind::InvalidSpec, OP, subject, "no program is named"));
        }
        let run = begin(shared, id, name, &request)?;
        let spawned = spawn(shared, id, &run, request.stdin).await;
        let (mut child, beginning) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                run.clear();
                return Err(error);
            }
        };
        // Waiting for a child closes its standard input.
        let stdin = child.stdin.take();
        match tokio::time::timeout(PATIENCE, until_begun(&mut child, &run)).await {
            Ok(Begun::Runs | Begun::Ended(None)) => {
                beginning.begun();
                Ok(session(shared, id, run, child, stdin, &request))
            }
            Ok(Begun::Ended(Some(message))) => {
                run.clear();
                Err(HostError::new(HostErrorKind::InvalidSpec, OP, subject, message))
            }
            Err(_) => {
                run.clear();
                let message = format!("did not begin within {} s", PATIENCE.as_secs());
                Err(HostError::new(HostErrorKind::Timeout, OP, subject, message))
            }
        }
    }
}

/// One command: its files here and what zlogin is given.
struct Run {
    start: PathBuf,
    /// Where a shell is what starts it.
    program: PathBuf,
    out: PathBuf,
    script: String,
    /// Where a terminal's size is written.
    size: PathBuf,
}

impl Run {
    /// Its files; what is gone already is fine.
    fn clear(&self) {
        for file in [
            self.start.clone(),
            self.program.clone(),
            self.size.clone(),
            started_file(&self.out),
            ended_file(&self.out),
        ] {
            if let Err(error) = remove_file(&file) {
                tracing::debug!(file = %file.display(), %error, "left");
            }
        }
    }
}

/// Writes what to start: the container's own start with another program.
fn begin(shared: &Shared, id: &SandboxId, name: &ContainerName, request: &ExecRequest) -> HostResult<Run> {
    let (attempt, dir) = shared.paths.run.running(OP, id, name)?;
    let mark = sandbox::own_mark(shared, id)?;
    let Some(mark) = mark else {
        return Err(HostError::new(HostErrorKind::NotFound, OP, id.as_str(), "no such sandbox"));
    };
    let brand = sandbox::zone_brand(shared, &mark.spec)?;
    if brand.programs() == Programs::Machine {
        let message =
            "a virtual machine: ask what runs in it, by its network or its console (attach to a container with tty)";
        return Err(HostError::new(HostErrorKind::Unsupported, OP, id.as_str(), message));
    }
    let own = shared.paths.starts(id).join(format!("{}.json", inside_name(name, attempt)));
    let Some(start) = read_record::<Start>("read start", &own)? else {
        return Err(HostError::new(
            HostErrorKind::NotFound,
            OP,
            format!("{id}/{name}"),
            "what it was started from is gone",
        ));
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let command = format!("{}{}-{number}", command_prefix(&inside_name(name, attempt)), std::process::id());
    let out = shared.paths.out(id).join(&command);
    let start = Start {
        argv: request.argv.clone(),
        joins: true,
        tty: request.tty,
        out: inside::out_file(&command),
        size: inside::path("run/start").join(format!("{command}.size")),
        ..start
    };
    let file = shared.paths.starts(id).join(format!("{command}.json"));
    write_json(&file, &start).map_err(|e| io_error(OP, &file, e))?;
    let script = match brand.programs() {
        Programs::Linux => linux::prepare(OP, &shared.paths.starts(id), &command, &start)?,
        Programs::Native | Programs::Machine => {
            let script = supervisor::native_script(&inside::start_file(&command), &inside::program(), false);
            match dir.spec()?.and_then(|spec| Project::of(name, &spec.resources)) {
                Some(project) => project.joins(&script),
                None => script,
            }
        }
    };
    let size = shared.paths.starts(id).join(format!("{command}.size"));
    let program = linux::file(&shared.paths.starts(id), &command);
    Ok(Run { start: file, program, out, script, size })
}

async fn spawn(shared: &Shared, id: &SandboxId, run: &Run, stdin: bool) -> HostResult<(Child, Beginning)> {
    let beginning = shared.tools().begin(Tool::Zlogin, PATIENCE).await.map_err(|e| e.into_host(OP, id.as_str()))?;
    let mut command = beginning.command();
    if !stdin {
        command.arg("-n");
    }
    command.args(inside::login(shared, id)).arg(id.as_str()).arg(&run.script);
    command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|e| io_error(OP, beginning.path(), e))?;
    Ok((child, beginning))
}

enum Begun {
    Runs,
    /// With what kept it from beginning.
    Ended(Option<String>),
}

async fn until_begun(child: &mut Child, run: &Run) -> Begun {
    loop {
        if let Some(ended) = read_ended(&run.out) {
            // Programs that are not there; their own ends come by the session.
            return Begun::Ended(Some(ended.message).filter(|m| !m.is_empty()));
        }
        if read_started(&run.out).is_some() {
            return Begun::Runs;
        }
        tokio::select! {
            status = child.wait() => {
                return Begun::Ended(match read_ended(&run.out) {
                    Some(ended) => Some(ended.message).filter(|m| !m.is_empty()),
                    None => Some(unsaid(child, status).await),
                });
            }
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}

/// What is known of a command that ended before its program ran: the tools on the way may have said why.
async fn unsaid(child: &mut Child, status: std::io::Result<std::process::ExitStatus>) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(WORDS_MOST);
        // What it left behind may hold the stream.
        let _ = tokio::time::timeout(Duration::from_secs(1), stderr.read_to_end(&mut words)).await;
    }
    let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
    let words = String::from_utf8_lossy(&words);
    let words: Vec<_> = words.split_whitespace().collect();
    let colon = if words.is_empty() { "" } else { ": " };
    format!("zlogin ended ({how}) before the program ran{colon}{}", words.join(" "))
}

fn session(
    shared: &Arc<Shared>,
    id: &SandboxId,
    run: Run,
    mut child: Child,
    stdin: Option<ChildStdin>,
    request: &ExecRequest,
) -> Session {
    let stdin = stdin.map(|s| Box::new(s) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>);
    let stdout: Box<dyn tokio::io::AsyncRead + Send + Unpin> = match child.stdout.take() {
        Some(stdout) => Box::new(stdout),
        None => Box::new(tokio::io::empty()),
    };
    let stderr = child.stderr.take().filter(|_| !request.tty);
    let stderr = stderr.map(|s| Box::new(s) as Box<dyn tokio::io::AsyncRead + Send + Unpin>);
    let (resize, sizes) = mpsc::channel(4);
    if request.tty {
        tokio::spawn(write_sizes(sizes, run.size.clone()));
    }
    let (tell, exit) = oneshot::channel();
    let (guard, dropped) = oneshot::channel::<()>();
    tokio::spawn(attend(shared.clone(), id.clone(), run, child, dropped, tell));
    Session { stdin, stdout, stderr, resize, exit, guard: Box::new(guard) }
}

/// A terminal's size goes to where the starter inside looks for it.
pub(crate) async fn write_sizes(mut sizes: mpsc::Receiver<TerminalSize>, file: PathBuf) {
    while let Some(TerminalSize { width, height }) = sizes.recv().await {
        if let Err(error) = write_atomically(&file, format!("{width} {height}\n").as_bytes(), 0o600) {
            tracing::debug!(file = %file.display(), %error, "size not written");
        }
    }
    let _ = remove_file(&file);
}

/// Waits for the end, or brings it about when the session is dropped.
async fn attend(
    shared: Arc<Shared>,
    id: SandboxId,
    run: Run,
    mut child: Child,
    dropped: oneshot::Receiver<()>,
    tell: oneshot::Sender<ExecExit>,
) {
    tokio::select! {
        status = child.wait() => {
            let exit = match (read_ended(&run.out), status) {
                (Some(ended), _) => ExecExit { code: ended.code, message: ended.message },
                (None, Ok(status)) => ExecExit { code: status.code().filter(|c| *c != 0).unwrap_or(137), message: String::new() },
                (None, Err(error)) => ExecExit { code: 128, message: error.to_string() },
            };
            // The caller may have gone.
            let _ = tell.send(exit);
        }
        _ = dropped => {
            end(&shared, &id, &run.out).await;
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
    }
    run.clear();
}

/// Killing zlogin alone would leave what it started.
async fn end(shared: &Shared, id: &SandboxId, out: &Path) {
    let Some((pid, starter)) = read_started(out) else { return };
    if read_ended(out).is_some() {
        return;
    }
    if let Err(error) = inside::end_tree(shared, OP, id, pid, starter).await {
        tracing::warn!(sandbox = %id, error = %error.chain(), "a command goes on in its zone");
    }
}
