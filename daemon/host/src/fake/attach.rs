//! Standard streams of fake containers: their lines as they come, and standard input for those that copy it.

use super::exec::{AbortOnDrop, PIPE};
use super::state::Line;
use super::{FakeHost, Op, disk};
use crate::error::{HostErrorKind, HostResult};
use crate::names::{ContainerName, SandboxId};
use crate::spec::{ContainerSpec, LogSpec};
use crate::traits::{Attach, AttachRequest, ExecExit, Session};
use async_trait::async_trait;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, empty};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Something that a container wrote; its log's path tells which container, and which attempt.
#[derive(Clone, Debug)]
pub(super) struct Output {
    log: PathBuf,
    stderr: bool,
    bytes: Vec<u8>,
}

/// Tells those attached of a line. That nobody is, is fine.
pub(super) fn publish(to: &broadcast::Sender<Output>, line: &Line) {
    if to.receiver_count() > 0 {
        let bytes = format!("{}\n", line.text).into_bytes();
        let _ = to.send(Output { log: line.log.path.clone(), stderr: line.stderr, bytes });
    }
}

#[async_trait]
impl Attach for FakeHost {
    async fn attach(&self, id: &SandboxId, name: &ContainerName, request: AttachRequest) -> HostResult<Session> {
        let call = self.begin(Op::Attach, format!("{id}/{name}"), None).await?;
        let known = self.world().sandboxes().get(id).is_some_and(|s| s.instances.contains_key(name));
        let found = self.runs(id, name).and_then(|attempt| {
            let world = self.world();
            let instance = world.sandboxes().get(id)?.instance(name, attempt)?;
            Some((attempt, instance.spec.clone()))
        });
        let result = match found {
            _ if !known => Err(call.error(HostErrorKind::NotFound, "no such container")),
            None => Err(call.error(HostErrorKind::InvalidState, "the container does not run")),
            Some((attempt, spec)) => Ok(self.session(id, attempt, spec, request)),
        };
        call.end_with(result, false).await
    }
}

impl FakeHost {
    fn session(&self, id: &SandboxId, attempt: u32, spec: ContainerSpec, request: AttachRequest) -> Session {
        let (stdout, to_stdout) = duplex(PIPE);
        let (stderr, to_stderr) = duplex(PIPE);
        let (stdin, typed) = duplex(PIPE);
        let (resize, mut sizes) = mpsc::channel(8);
        let (told, exit) = oneshot::channel();
        let (host, name, tty) = (self.clone(), spec.name.clone(), spec.tty);
        let input = (request.stdin && spec.stdin).then_some(stdin);
        let to_stdout = request.stdout.then_some(to_stdout);
        let to_stderr = (request.stderr && !tty).then_some(to_stderr);
        let output = self.shared.output.subscribe();
        let id = id.clone();
        let feeds = input.is_some();
        let task = tokio::spawn(async move {
            let ended = host.clone().ended(id.clone(), name, attempt);
            let feed = async {
                if feeds {
                    host.feed(&id, &spec, typed).await;
                }
                std::future::pending().await
            };
            let sizes = async {
                while sizes.recv().await.is_some() {}
                std::future::pending().await
            };
            tokio::select! {
                () = pass_on(output, &spec.log, to_stdout, to_stderr, ended) => {}
                () = feed => {}
                () = sizes => {}
            }
            // Nobody may wait for it.
            let _ = told.send(ExecExit { code: 0, message: String::new() });
        });
        Session {
            stdin: input.map(|s| Box::new(s) as _),
            stdout: if request.stdout { Box::new(stdout) } else { Box::new(empty()) },
            stderr: (request.stderr && !tty).then(|| Box::new(stderr) as _),
            resize,
            exit,
            guard: Box::new(AbortOnDrop(task.abort_handle())),
        }
    }

    /// Standard input to a process that copies it; to others it is lost on the way.
    async fn feed(&self, id: &SandboxId, spec: &ContainerSpec, mut typed: DuplexStream) {
        let mut buffer = vec![0; 8192];
        while let Ok(n @ 1..) = typed.read(&mut buffer).await {
            let bytes = buffer.get(..n).unwrap_or_default().to_vec();
            let copies = |i: &super::state::Instance| i.copies_input();
            if !self.world().sandboxes().get(id).and_then(|s| s.instance(&spec.name, spec.attempt)).is_some_and(copies)
            {
                continue;
            }
            if self.shared.options.write_logs {
                let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
                let line = Line { log: spec.log.clone(), at: self.now().wall, stderr: false, text };
                disk::write_logs(&[line]);
            }
            let _ = self.shared.output.send(Output { log: spec.log.path.clone(), stderr: false, bytes });
        }
        if spec.stdin_once {
            let now = self.now();
            if let Some(instance) =
                self.world().sandboxes_mut().get_mut(id).and_then(|s| s.instance_mut(&spec.name, spec.attempt))
            {
                instance.input_ended(now);
            }
            self.settle();
        }
    }
}

/// Passes a container's output on until it has ended. Who falls far behind is let go.
async fn pass_on(
    mut output: broadcast::Receiver<Output>,
    log: &LogSpec,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
    ended: impl Future<Output = ()>,
) {
    tokio::pin!(ended);
    let mut over = false;
    loop {
        let next = tokio::select! {
            biased;
            next = output.recv() => next,
            () = &mut ended, if !over => {
                over = true;
                continue;
            }
            () = std::future::ready(()), if over => return,
        };
        match next {
            Ok(Output { log: of, stderr: is_error, bytes }) if of == log.path => {
                let to = if is_error && stderr.is_some() { &mut stderr } else { &mut stdout };
                if let Some(open) = to
                    && open.write_all(&bytes).await.is_err()
                {
                    *to = None;
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_) | RecvError::Closed) => return,
        }
    }
}
