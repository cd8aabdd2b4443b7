//! Attaching to a container's first process, the daemon's side: one connection to its supervisor for each client.

use crate::container::{inside_name, socket};
use crate::exec::write_sizes;
use crate::host::IllumosHost;
use crate::stream::{Hello, STDERR, STDOUT, Welcome};
use async_trait::async_trait;
use reddwarf_host::{
    Attach, AttachRequest, ContainerName, ExecExit, HostError, HostErrorKind, HostResult, SandboxId, Session,
};
use reddwarf_supervise::files::io_error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

const OP: &str = "attach";
/// A supervisor answers at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that wait for the client here.
const BUFFER: usize = 64 << 10;
/// No frame is longer.
const FRAME_MOST: u32 = 1 << 20;

#[async_trait]
impl Attach for IllumosHost {
    async fn attach(&self, id: &SandboxId, name: &ContainerName, request: AttachRequest) -> HostResult<Session> {
        let (attempt, _) = self.shared.paths.run.running(OP, id, name)?;
        let path = socket(&self.shared, id, name, attempt);
        let fail = |kind, message: &str| Err(HostError::new(kind, OP, format!("{id}/{name}"), message));
        match tokio::time::timeout(PATIENCE, introduce(&path, request)).await {
            Ok(Ok((welcome, from, to))) => {
                let file = format!("{}.size", inside_name(name, attempt));
                Ok(session(request, welcome, from, to, self.shared.paths.starts(id).join(file)))
            }
            Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                fail(HostErrorKind::InvalidState, "it does not run any more")
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                fail(HostErrorKind::Exhausted, "too many clients are attached to it, or it ended just now")
            }
            Ok(Err(e)) => Err(io_error(OP, &path, e)),
            Err(_) => fail(HostErrorKind::Timeout, "its supervisor does not answer"),
        }
    }
}

async fn introduce(path: &Path, request: AttachRequest) -> io::Result<(Welcome, OwnedReadHalf, OwnedWriteHalf)> {
    let stream = UnixStream::connect(path).await?;
    let (mut from, mut to) = stream.into_split();
    let AttachRequest { stdin, stdout, stderr } = request;
    let mut line = serde_json::to_vec(&Hello { stdin, stdout, stderr, watch: false })?;
    line.push(b'\n');
    to.write_all(&line).await?;
    let mut answer = Vec::new();
    loop {
        match from.read_u8().await? {
            b'\n' => break,
            byte if answer.len() < 1024 => answer.push(byte),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok((serde_json::from_slice(&answer)?, from, to))
}

struct Detach(AbortHandle);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn session(
    request: AttachRequest,
    welcome: Welcome,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    size: PathBuf,
) -> Session {
    let (out_to, out_from) = tokio::io::duplex(BUFFER);
    let (err_to, err_from) = tokio::io::duplex(BUFFER);
    let (tell, exit) = oneshot::channel();
    let (resize, sizes) = mpsc::channel(4);
    if welcome.terminal {
        tokio::spawn(write_sizes(sizes, size));
    }
    let with_stderr = request.stderr && !welcome.terminal;
    let (stdin, kept) = if welcome.input {
        (Some(Box::new(to) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>), None)
    } else {
        (None, Some(to))
    };
    let task = tokio::spawn(async move {
        let _kept = kept;
        // The end of the connection is the end of the output, whatever it was.
        let _ = pass_on(from, Some(out_to), Some(err_to).filter(|_| with_stderr)).await;
        let _ = tell.send(ExecExit { code: 0, message: String::new() });
    });
    Session {
        stdin,
        stdout: Box::new(out_from),
        stderr: with_stderr.then(|| Box::new(err_from) as Box<dyn AsyncRead + Send + Unpin>),
        resize,
        exit,
        guard: Box::new(Detach(task.abort_handle())),
    }
}

/// Takes frames apart; a stream that nobody reads any more is passed over, a frame of no bytes ends its stream.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut out: Option<DuplexStream>,
    mut err: Option<DuplexStream>,
) -> io::Result<()> {
    loop {
        let letter = from.read_u8().await?;
        let length = from.read_u32().await?;
        if length > FRAME_MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        from.read_exact(&mut bytes).await?;
        let to = match letter {
            STDOUT => &mut out,
            STDERR => &mut err,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let Some(stream) = to else { continue };
        if bytes.is_empty() || stream.write_all(&bytes).await.is_err() {
            *to = None;
        }
    }
}
