//! Exec sessions: answered from a table, or by what the command line says.

use super::script::{Script, Step};
use super::{FakeHost, Op, lock};
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::traits::{Exec, ExecExit, ExecRequest, Session};
use async_trait::async_trait;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// Bytes that a command may write before its reader must read.
pub(super) const PIPE: usize = 64 * 1024;

/// What a command answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAnswer {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error (on the terminal when there is one).
    pub stderr: String,
    /// Its exit code.
    pub code: i32,
    /// How long it takes before it answers.
    pub delay: Duration,
    /// Answers and never ends.
    pub hangs: bool,
}

impl ExecAnswer {
    fn script(&self) -> Script {
        let mut steps = vec![Step::Sleep(self.delay)];
        steps.extend(self.stdout.lines().map(|l| Step::Print(l.into())));
        steps.extend(self.stderr.lines().map(|l| Step::Complain(l.into())));
        steps.push(if self.hangs { Step::SleepForever } else { Step::Exit(self.code) });
        Script::of(steps)
    }
}

impl FakeHost {
    /// What `program` answers when it is run by exec; without an answer its command line is read
    /// ([`Script::parse`]), and an unknown program runs until it is dropped.
    pub fn set_answer(&self, program: &str, answer: ExecAnswer) {
        lock(&self.shared.answers).insert(program.into(), answer);
    }

    pub(super) fn runs(&self, id: &SandboxId, name: &ContainerName) -> Option<u32> {
        self.settle();
        let world = self.world();
        let (attempt, instance) = world.sandboxes().get(id)?.instances.get(name)?.last_key_value()?;
        instance.is_running().then_some(*attempt)
    }

    /// Returns when the attempt no longer runs.
    pub(super) async fn ended(self, id: SandboxId, name: ContainerName, attempt: u32) {
        let mut events = self.shared.events.subscribe();
        while self.runs(&id, &name) == Some(attempt) {
            if let Err(RecvError::Closed) = events.recv().await {
                return;
            }
        }
    }
}

#[async_trait]
impl Exec for FakeHost {
    async fn exec(&self, id: &SandboxId, name: &ContainerName, request: ExecRequest) -> HostResult<Session> {
        let call = self.begin(Op::Exec, format!("{id}/{name}"), None).await?;
        let known = self.world().sandboxes().get(id).is_some_and(|s| s.instances.contains_key(name));
        let program = request.argv.first().cloned().unwrap_or_default();
        let answer = lock(&self.shared.answers).get(&program).cloned();
        let script = answer.map_or_else(|| Script::parse(&request.argv), |a| a.script());
        let result = match (known, self.runs(id, name), script.steps.first()) {
            (false, ..) => Err(call.error(HostErrorKind::NotFound, "no such container")),
            (_, None, _) => Err(call.error(HostErrorKind::InvalidState, "the container does not run")),
            _ if request.argv.is_empty() => Err(call.error(HostErrorKind::InvalidSpec, "argv is empty")),
            (.., Some(Step::CannotExecute(_, message))) => Err(call.error(HostErrorKind::InvalidSpec, message.clone())),
            (_, Some(attempt), _) => {
                let ended = self.clone().ended(id.clone(), name.clone(), attempt);
                Ok(session(&request, script, ended))
            }
        };
        call.end_with(result, false).await
    }
}

fn session(request: &ExecRequest, script: Script, ended: impl Future<Output = ()> + Send + 'static) -> Session {
    let (stdin, stdin_end) = duplex(PIPE);
    let (stdout, stdout_end) = duplex(PIPE);
    let (stderr, stderr_end) = duplex(PIPE);
    let (resize, mut sizes) = mpsc::channel(8);
    let (exit_sender, exit) = oneshot::channel();
    let tty = request.tty;
    // Without a connected standard input the command reads end of file at once.
    let stdin = request.stdin.then_some(stdin);
    let pipes = Pipes { stdin: stdin_end, stdout: stdout_end, stderr: (!tty).then_some(stderr_end) };
    let task = tokio::spawn(async move {
        let sizes = async move { while sizes.recv().await.is_some() {} };
        let code = tokio::select! {
            code = run(script, pipes) => code,
            () = ended => 137,
            () = async { sizes.await; std::future::pending().await } => 137,
        };
        // Nobody may wait for it.
        let _ = exit_sender.send(ExecExit { code, message: String::new() });
    });
    Session {
        stdin: stdin.map(|s| Box::new(s) as _),
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as _),
        resize,
        exit,
        guard: Box::new(AbortOnDrop(task.abort_handle())),
    }
}

pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Pipes {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: Option<DuplexStream>,
}

/// Carries out a script; a reader that went away does not matter to it.
async fn run(script: Script, mut pipes: Pipes) -> i32 {
    for step in script.steps {
        match step {
            Step::Sleep(d) => tokio::time::sleep(d).await,
            Step::SleepForever | Step::Listen(_) => std::future::pending().await,
            Step::Print(text) => drop(pipes.stdout.write_all(format!("{text}\n").as_bytes()).await),
            Step::Complain(text) => {
                let to = pipes.stderr.as_mut().unwrap_or(&mut pipes.stdout);
                drop(to.write_all(format!("{text}\n").as_bytes()).await);
            }
            Step::Write(..) => {}
            Step::Copy => {
                let mut buffer = vec![0; 8192];
                while let Ok(n @ 1..) = pipes.stdin.read(&mut buffer).await {
                    drop(pipes.stdout.write_all(buffer.get(..n).unwrap_or_default()).await);
                }
            }
            Step::Exit(code) => return code & 0xff,
            Step::Die(signal) => return 128 + signal,
            Step::OutOfMemory => return 137,
            Step::CannotExecute(code, _) => return code,
        }
    }
    0
}
