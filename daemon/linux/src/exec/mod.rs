//! Commands in running containers, the daemon's side: a helper process per command, a socket to it.

mod compartment;
pub mod helper;
pub(crate) mod message;

use crate::files::io_error;
use crate::host::LinuxHost;
use crate::record::ContainerDir;
use crate::sandboxes::own_program;
use async_trait::async_trait;
use message::{Decoder, Report, Request, Resize};
use nix::fcntl::OFlag;
use reddwarf_host::{
    ContainerName, Exec, ExecExit, ExecRequest, HostError, HostErrorKind, HostResult, SandboxId, Session, TerminalSize,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// How long joining a container may take.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

#[async_trait]
impl Exec for LinuxHost {
    async fn exec(&self, id: &SandboxId, name: &ContainerName, request: ExecRequest) -> HostResult<Session> {
        let (wanted_id, wanted) = (id.clone(), name.clone());
        let (_, dir) =
            self.blocking("exec", move |shared| shared.paths.run.running("exec", &wanted_id, &wanted)).await?;
        let subject = format!("{id}/{name}");
        let session = tokio::time::timeout(JOIN_PATIENCE, self.join(&subject, &dir, request)).await;
        session.unwrap_or_else(|_| {
            let message = format!("not joined within {} s", JOIN_PATIENCE.as_secs());
            Err(HostError::new(HostErrorKind::Timeout, "exec", subject, message))
        })
    }
}

/// The ends of a command's streams that stay here, and those that go to the helper.
struct Streams {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    theirs: Vec<OwnedFd>,
}

impl Streams {
    fn make(request: &ExecRequest) -> io::Result<Self> {
        if request.tty {
            return Ok(Self { stdin: None, stdout: None, stderr: None, theirs: Vec::new() });
        }
        let (their_stdin, stdin) = if request.stdin {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            nonblocking(&write)?;
            (read, Some(pipe::Sender::from_owned_fd(write)?))
        } else {
            (OwnedFd::from(File::open("/dev/null")?), None)
        };
        let (stdout, their_stdout) = output()?;
        let (stderr, their_stderr) = output()?;
        let theirs = vec![their_stdin, their_stdout, their_stderr];
        Ok(Self { stdin, stdout: Some(stdout), stderr: Some(stderr), theirs })
    }
}

pub(crate) fn output() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nonblocking(&read)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// Only our own end: the flag belongs to the open file, and the command's end must block.
pub(crate) fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

impl LinuxHost {
    async fn join(&self, subject: &str, dir: &ContainerDir, request: ExecRequest) -> HostResult<Session> {
        let exe = self.shared.paths.exe();
        let failed = |e| io_error("exec", &exe, e);
        let mut streams = Streams::make(&request).map_err(failed)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let mut command = own_program(&exe, "__exec", dir);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        // Ends by itself when the socket closes.
        drop(command.spawn().map_err(failed)?);
        drop(command);
        let word =
            message::encode(&Request { argv: request.argv.clone(), tty: request.tty, contained: request.contained })
                .map_err(failed)?;
        let fds: Vec<i32> = streams.theirs.iter().map(AsRawFd::as_raw_fd).collect();
        // A few bytes into an empty socket, or at most the kernel's limit of arguments: the helper reads at once.
        message::send(&ours, &word, &fds).map_err(failed)?;
        streams.theirs.clear();
        ours.set_nonblocking(true).map_err(failed)?;
        let socket = UnixStream::from_std(ours).map_err(failed)?;

        let mut decoder = Decoder::default();
        let (report, master) = hear(&socket, &mut decoder).await.map_err(failed)?;
        started(subject, report)?;
        session(socket, decoder, streams, master).map_err(failed)
    }
}

/// What the helper's first word means for the caller.
fn started(subject: &str, report: Option<Report>) -> HostResult<()> {
    let fail = |kind, message: String| Err(HostError::new(kind, "exec", subject, message));
    match report {
        Some(Report::Started) => Ok(()),
        Some(Report::NoProgram { message }) => fail(HostErrorKind::InvalidSpec, message),
        Some(Report::NotRunning) => fail(HostErrorKind::InvalidState, "it does not run any more".to_owned()),
        Some(Report::Failed { kind, message }) => fail(kind.into(), message),
        Some(Report::Exited { .. }) | None => fail(HostErrorKind::Other, "the helper ended without a word".to_owned()),
    }
}

/// The next report, and a descriptor that came beside it.
async fn hear(socket: &UnixStream, decoder: &mut Decoder) -> io::Result<(Option<Report>, Option<OwnedFd>)> {
    let mut beside = None;
    loop {
        if let Some(report) = decoder.next()? {
            return Ok((Some(report), beside));
        }
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || message::receive(socket.as_raw_fd())) {
            Ok((bytes, _)) if bytes.is_empty() => return Ok((None, beside)),
            Ok((bytes, mut fds)) => {
                decoder.push(&bytes);
                beside = beside.or(fds.pop());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

fn session(socket: UnixStream, decoder: Decoder, streams: Streams, master: Option<OwnedFd>) -> io::Result<Session> {
    let (resize, sizes) = mpsc::channel(4);
    let (tell_exit, exit) = oneshot::channel();
    let task = tokio::spawn(attend(tell_exit, socket, decoder, sizes));
    let guard = Box::new(Guard(task.abort_handle()));
    let (stdin, stdout, stderr): (Option<Box<dyn AsyncWrite + Send + Unpin>>, Box<dyn AsyncRead + Send + Unpin>, _) =
        match (master, streams.stdout) {
            (Some(master), _) => {
                let write = Master::new(master.try_clone()?)?;
                (Some(Box::new(write)), Box::new(Master::new(master)?), None)
            }
            (None, Some(stdout)) => {
                let stderr = streams.stderr.map(|s| Box::new(s) as Box<dyn AsyncRead + Send + Unpin>);
                (streams.stdin.map(|s| Box::new(s) as _), Box::new(stdout), stderr)
            }
            (None, None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "no terminal was sent")),
        };
    Ok(Session { stdin, stdout, stderr, resize, exit, guard })
}

/// Passes sizes on and waits for the end. Being dropped hangs up, and the helper kills the command.
///
/// `exit` comes first because it is dropped last: who hears that the supervisor is gone can rely on the socket being closed.
async fn attend(
    exit: oneshot::Sender<ExecExit>,
    mut socket: UnixStream,
    mut decoder: Decoder,
    mut sizes: mpsc::Receiver<TerminalSize>,
) {
    let mut sizes_open = true;
    loop {
        let size = tokio::select! {
            heard = hear(&socket, &mut decoder) => {
                if let Ok((Some(Report::Exited { code }), _)) = heard {
                    // The receiver may be gone.
                    let _ = exit.send(ExecExit { code, message: String::new() });
                }
                return;
            }
            size = sizes.recv(), if sizes_open => size,
        };
        match size {
            Some(TerminalSize { width, height }) => {
                if let Ok(bytes) = message::encode(&Resize { width, height }) {
                    let _ = socket.write_all(&bytes).await;
                }
            }
            None => sizes_open = false,
        }
    }
}

pub(crate) struct Guard(pub(crate) AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A terminal's master as a stream.
pub(crate) struct Master(AsyncFd<OwnedFd>);

impl Master {
    #[allow(unsafe_code)]
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        nonblocking(&fd)?;
        // SAFETY: an OwnedFd stays open and the same for as long as the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }
}

impl AsyncRead for Master {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buf.initialize_unfilled())?));
            match read {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // EIO: nobody has the other side open any more, which is its end.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
