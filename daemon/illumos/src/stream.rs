//! The supervisor's socket: clients of a container's standard streams, and the daemon, which only wants to read the end.
//!
//! A client says in one line of JSON what it wants ([`Hello`]) and is answered by one ([`Welcome`]). Then come frames from
//! the supervisor (a letter for the stream, four bytes of length, the bytes), and plain bytes of standard input from the
//! client. A client that takes nothing for some seconds is let go: the container never waits for it longer.

use crate::supervisor::Input;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reddwarf_supervise::log::Stream;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the container waits for a client that takes nothing.
const STALL: Duration = Duration::from_secs(5);
/// Most clients at a time.
const MOST: usize = 16;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Nothing but the end.
    pub(crate) watch: bool,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) terminal: bool,
    /// Its bytes go to standard input.
    pub(crate) input: bool,
}

/// Frames' letters.
pub(crate) const STDOUT: u8 = b'o';
pub(crate) const STDERR: u8 = b'e';

/// Everyone attached.
pub(crate) struct Outlets {
    clients: Mutex<Vec<Client>>,
    numbers: AtomicU64,
    terminal: bool,
    reads: bool,
    once: bool,
    input: Input,
}

struct Client {
    number: u64,
    socket: UnixStream,
    stdout: bool,
    stderr: bool,
}

impl Outlets {
    pub(crate) fn new(terminal: bool, reads: bool, once: bool, input: Input) -> Self {
        Self { clients: Mutex::default(), numbers: AtomicU64::new(0), terminal, reads, once, input }
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a piece of output to everyone who wants it.
    pub(crate) fn give(&self, stream: Stream, bytes: &[u8]) {
        let letter = if stream == Stream::Stdout { STDOUT } else { STDERR };
        self.clients().retain_mut(|client| {
            let wanted = if stream == Stream::Stdout { client.stdout } else { client.stderr };
            !wanted || frame(&mut client.socket, letter, bytes).is_ok()
        });
    }

    /// One output has ended; its frame of no bytes says so.
    pub(crate) fn end(&self, stream: Stream) {
        self.give(stream, &[]);
    }

    /// All is over.
    pub(crate) fn finish(&self) {
        for client in self.clients().drain(..) {
            let _ = client.socket.shutdown(Shutdown::Both);
        }
    }

    fn admit(&self, socket: UnixStream) -> io::Result<()> {
        socket.set_read_timeout(Some(STALL))?;
        socket.set_write_timeout(Some(STALL))?;
        let mut reader = BufReader::new(socket.try_clone()?.take(1024));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let hello: Hello = serde_json::from_str(&line)?;
        let input = hello.stdin && self.reads;
        let welcome = Welcome { terminal: self.terminal, input };
        let mut to = &socket;
        to.write_all(&serde_json::to_vec(&welcome)?)?;
        to.write_all(b"\n")?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut clients = self.clients();
            if clients.len() >= MOST && !hello.watch {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let Hello { stdout, stderr, watch, .. } = hello;
            clients.push(Client {
                number,
                socket: socket.try_clone()?,
                stdout: stdout && !watch,
                stderr: stderr && !watch,
            });
        }
        socket.set_read_timeout(None)?;
        let begun = reader.buffer().to_vec();
        let listened = self.listen_to(&socket, &begun, input);
        // It may have closed its input only, and still read.
        if listened.is_ok() {
            let mut gone = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            while poll(&mut gone, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
        }
        self.clients().retain(|client| client.number != number);
        listened
    }

    /// Passes on what the client types, to its end.
    fn listen_to(&self, mut socket: &UnixStream, begun: &[u8], input: bool) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        if input {
            self.type_in(begun)?;
        }
        loop {
            let n = socket.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            if input {
                self.type_in(buffer.get(..n).unwrap_or_default())?;
            }
        }
        if input && self.once {
            self.input().take();
        }
        Ok(())
    }

    fn input(&self) -> MutexGuard<'_, Option<std::process::ChildStdin>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn type_in(&self, bytes: &[u8]) -> io::Result<()> {
        match self.input().as_mut() {
            Some(stdin) => stdin.write_all(bytes).and_then(|()| stdin.flush()),
            None => Ok(()),
        }
    }
}

fn frame(to: &mut UnixStream, letter: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes();
    let mut whole = Vec::with_capacity(bytes.len() + 5);
    whole.push(letter);
    whole.extend_from_slice(&length);
    whole.extend_from_slice(bytes);
    to.write_all(&whole)
}

/// Listens for clients, each on a thread of its own. Only root gets past the directory.
pub(crate) fn listen(path: &Path, outlets: Arc<Outlets>) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { continue };
            let outlets = outlets.clone();
            std::thread::spawn(move || {
                let gone = socket.try_clone();
                let _ = outlets.admit(socket);
                // The client is gone, or was refused.
                if let Ok(gone) = gone {
                    let _ = gone.shutdown(Shutdown::Both);
                }
            });
        }
    });
    Ok(())
}
