//! Attaching to a container's first process, the daemon's side: one connection to its shim for each client. Output comes
//! through pipes that the shim writes to; standard input and the terminal are handed over as descriptors, so that what
//! is typed does not pass through the shim at all.

use crate::exec::message::{self, AttachWord, Attached, Decoder, Resize};
use crate::exec::{Guard, Master, helper, nonblocking, output};
use crate::files::io_error;
use crate::host::LinuxHost;
use crate::record::{ATTACH_SOCKET, ContainerDir, ShimFiles};
use async_trait::async_trait;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use reddwarf_host::{
    Attach, AttachRequest, ContainerName, ExecExit, HostError, HostErrorKind, HostResult, SandboxId, Session,
    TerminalSize,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// A shim answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

#[async_trait]
impl Attach for LinuxHost {
    async fn attach(&self, id: &SandboxId, name: &ContainerName, request: AttachRequest) -> HostResult<Session> {
        let (wanted_id, wanted) = (id.clone(), name.clone());
        let (_, dir) =
            self.blocking("attach", move |shared| shared.paths.run.running("attach", &wanted_id, &wanted)).await?;
        let fail = |kind, message: &str| Err(HostError::new(kind, "attach", format!("{id}/{name}"), message));
        let failed = |e| io_error("attach", &dir.attach_socket(), e);
        let socket = match connect(&dir).await {
            Ok(socket) => socket,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = "it was started by a version of reddwarfd that could not attach: restart the container";
                return fail(HostErrorKind::Unsupported, message);
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                return fail(HostErrorKind::InvalidState, "it does not run any more");
            }
            Err(e) => return Err(failed(e)),
        };
        match tokio::time::timeout(PATIENCE, introduce(socket, request)).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                fail(HostErrorKind::Exhausted, "too many clients are attached to it, or it ended just now")
            }
            Ok(Err(e)) => Err(failed(e)),
            Err(_) => fail(HostErrorKind::Timeout, "its supervisor does not answer"),
        }
    }
}

/// Connects by way of the opened directory: a socket's path may hold only 107 bytes.
async fn connect(dir: &ContainerDir) -> io::Result<UnixStream> {
    let opened = open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{ATTACH_SOCKET}", opened.as_raw_fd())).await
}

/// Says what is wanted and takes what the shim hands over.
async fn introduce(socket: UnixStream, request: AttachRequest) -> io::Result<Session> {
    let mut theirs = Vec::new();
    let mut pipe = |wanted: bool| -> io::Result<Option<pipe::Receiver>> {
        let made = wanted.then(output).transpose()?;
        Ok(made.map(|(ours, their)| {
            theirs.push(their);
            ours
        }))
    };
    let (stdout, stderr) = (pipe(request.stdout)?, pipe(request.stderr)?);
    let AttachRequest { stdin, .. } = request;
    let word = message::encode(&AttachWord { stdin, stdout: stdout.is_some(), stderr: stderr.is_some() })?;
    let fds: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
    socket.writable().await?;
    // A few bytes into an empty socket.
    message::send(&socket, &word, &fds)?;
    drop(theirs);
    let (Attached { terminal, input }, handed) = hear(&socket).await?;
    session(socket, terminal, handed.filter(|_| input || terminal), input, stdout, stderr)
}

/// The shim's word and the descriptor beside it; the end of the connection is `UnexpectedEof`.
async fn hear(socket: &UnixStream) -> io::Result<(Attached, Option<OwnedFd>)> {
    let mut decoder = Decoder::default();
    let mut beside = None;
    loop {
        if let Some(word) = decoder.next()? {
            return Ok((word, beside));
        }
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || message::receive(socket.as_raw_fd())) {
            Ok((bytes, _)) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((bytes, mut fds)) => {
                decoder.push(&bytes);
                beside = beside.or(fds.pop());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

fn session(
    socket: UnixStream,
    terminal: bool,
    handed: Option<OwnedFd>,
    input: bool,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
) -> io::Result<Session> {
    let master = handed.as_ref().filter(|_| terminal).map(OwnedFd::try_clone).transpose()?;
    let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = match handed.filter(|_| input) {
        Some(fd) if terminal => Some(Box::new(Master::new(fd)?)),
        Some(fd) => {
            nonblocking(&fd)?;
            Some(Box::new(pipe::Sender::from_owned_fd(fd)?))
        }
        None => None,
    };
    let (resize, sizes) = mpsc::channel(4);
    let (tell_end, exit) = oneshot::channel();
    let task = tokio::spawn(attend(socket, master, sizes, tell_end));
    Ok(Session {
        stdin,
        stdout: match stdout {
            Some(stdout) => Box::new(stdout),
            None => Box::new(tokio::io::empty()),
        },
        stderr: stderr.filter(|_| !terminal).map(|s| Box::new(s) as Box<dyn AsyncRead + Send + Unpin>),
        resize,
        exit,
        guard: Box::new(Guard(task.abort_handle())),
    })
}

/// Carries out resizes and waits for the shim to hang up. Being dropped detaches.
async fn attend(
    socket: UnixStream,
    master: Option<OwnedFd>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    end: oneshot::Sender<ExecExit>,
) {
    let mut sizes_open = true;
    loop {
        tokio::select! {
            heard = hear(&socket) => {
                if heard.is_err() {
                    // The receiver may be gone.
                    let _ = end.send(ExecExit { code: 0, message: String::new() });
                    return;
                }
            }
            size = sizes.recv(), if sizes_open => match size {
                Some(TerminalSize { width, height }) => helper::resize(master.as_ref(), Resize { width, height }),
                None => sizes_open = false,
            },
        }
    }
}
