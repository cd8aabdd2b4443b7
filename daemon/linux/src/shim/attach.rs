//! Clients of a container's standard streams, the shim's side.
//!
//! Output goes to the log first and then into each client's pipe. A pipe that is full holds the container up for at most
//! [`STALL`]; a client that takes nothing for so long is let go. Standard input is a descriptor that is handed over:
//! the shim never carries it.

use crate::exec::message::{self, AttachWord, Attached, Decoder};
use crate::record::{ATTACH_SOCKET, ContainerDir, ShimFiles};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long the container waits for a client that takes nothing.
const STALL: Duration = Duration::from_secs(5);
/// Most clients at a time.
const MOST: usize = 16;

/// Which of the container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// What clients are given to write to.
#[derive(Default)]
pub(super) struct Input {
    /// The writing end of standard input, or the terminal's master. Held open and never written here: reading blocks
    /// instead of ending while nobody is attached.
    pub(super) fd: Option<OwnedFd>,
    pub(super) terminal: bool,
    /// The container reads standard input.
    pub(super) reads: bool,
    /// Its input ends with the first client.
    pub(super) once: bool,
}

/// Everyone attached, and the door for more.
#[derive(Default)]
pub(super) struct Attachments {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    input: Input,
}

struct Client {
    socket: UnixStream,
    /// Gathers the first word; `None` once it was heard.
    introduction: Option<(Decoder, Vec<OwnedFd>)>,
    stdout: Option<Outlet>,
    stderr: Option<Outlet>,
}

/// A client's pipe and what did not fit into it yet.
struct Outlet {
    pipe: OwnedFd,
    pending: Vec<u8>,
    /// When it last took something, while anything is pending.
    since: Option<Instant>,
    /// No more will come: closed as soon as nothing is pending.
    ended: bool,
}

impl Attachments {
    /// Listens in the instance's directory. Bound by a relative name: a socket's path may hold only 107 bytes.
    pub(super) fn listen(dir: &ContainerDir, input: Input) -> io::Result<Self> {
        crate::files::remove_file(&dir.attach_socket())?;
        std::env::set_current_dir(dir.path())?;
        let listener = UnixListener::bind(ATTACH_SOCKET);
        std::env::set_current_dir("/")?;
        let listener = listener?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Some(listener), clients: Vec::new(), input })
    }

    /// The container's first process has ended: nobody reads its input, nobody new may come.
    pub(super) fn close(&mut self) {
        self.listener = None;
        self.input.fd = None;
    }

    /// The output has ended.
    pub(super) fn end(&mut self, output: Output) {
        for client in &mut self.clients {
            let outlet = client.outlet(output);
            match outlet {
                Some(open) if !open.pending.is_empty() => open.ended = true,
                _ => *outlet = None,
            }
        }
    }

    /// Whether some client has not yet taken what it was given of this output: no more is read until it has.
    pub(super) fn holds_up(&self, output: Output) -> bool {
        self.clients.iter().any(|c| {
            let outlet = if output == Output::Stdout { &c.stdout } else { &c.stderr };
            outlet.as_ref().is_some_and(|o| !o.pending.is_empty())
        })
    }

    /// When the first of the clients that take nothing is to be let go.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let outlets = self.clients.iter().flat_map(|c| [&c.stdout, &c.stderr]).flatten();
        outlets.filter_map(|o| o.since).min().map(|since| since + STALL)
    }

    /// What to wait for, in an order that [`Self::take_turn`] knows.
    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.listener.as_ref().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        for client in &self.clients {
            fds.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN));
            let full = [&client.stdout, &client.stderr].into_iter().flatten().filter(|o| !o.pending.is_empty());
            fds.extend(full.map(|o| PollFd::new(o.pipe.as_fd(), PollFlags::POLLOUT)));
        }
    }

    /// Serves whoever is ready. Cheap when nobody is: a shim without clients makes one call.
    pub(super) fn take_turn(&mut self, now: Instant) {
        let mut kept = Vec::with_capacity(self.clients.len());
        for mut client in std::mem::take(&mut self.clients) {
            if client.listens(&mut self.input) && client.drains(now) {
                kept.push(client);
            }
        }
        self.clients = kept;
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            // Dropping hangs up. Only the daemon's user may come, though the directory lets nobody else in anyway.
            if self.clients.len() < MOST && is_ours(&socket) && socket.set_nonblocking(true).is_ok() {
                let introduction = Some((Decoder::default(), Vec::new()));
                let mut client = Client { socket, introduction, stdout: None, stderr: None };
                if client.listens(&mut self.input) {
                    self.clients.push(client);
                }
            }
        }
    }

    /// Gives a piece of output to everyone who wants it.
    pub(super) fn give(&mut self, output: Output, bytes: &[u8], now: Instant) {
        for client in &mut self.clients {
            let outlet = client.outlet(output);
            if outlet.as_mut().is_some_and(|o| !o.give(bytes, now)) {
                *outlet = None;
            }
        }
    }

    /// Nothing is left that a client could still take.
    pub(super) fn is_drained(&self) -> bool {
        !self.holds_up(Output::Stdout) && !self.holds_up(Output::Stderr)
    }
}

fn is_ours(socket: &UnixStream) -> bool {
    getsockopt(socket, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
}

impl Client {
    fn outlet(&mut self, output: Output) -> &mut Option<Outlet> {
        if output == Output::Stdout { &mut self.stdout } else { &mut self.stderr }
    }

    /// Reads what the client has to say; `false`: it is gone.
    fn listens(&mut self, input: &mut Input) -> bool {
        loop {
            let (bytes, fds) = match message::receive(self.socket.as_raw_fd()) {
                Ok((bytes, _)) if bytes.is_empty() => return false,
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            let Some((decoder, gathered)) = &mut self.introduction else { return false };
            decoder.push(&bytes);
            gathered.extend(fds);
            match decoder.next::<AttachWord>() {
                Ok(Some(word)) => {
                    let fds = self.introduction.take().map(|(_, fds)| fds).unwrap_or_default();
                    if self.admit(word, fds, input).is_err() {
                        return false;
                    }
                }
                Ok(None) => {}
                Err(_) => return false,
            }
        }
    }

    fn admit(&mut self, word: AttachWord, fds: Vec<OwnedFd>, input: &mut Input) -> io::Result<()> {
        let mut pipes = fds.into_iter();
        let mut outlet = |wanted: bool| -> io::Result<Option<Outlet>> {
            let Some(pipe) = wanted.then(|| pipes.next()).flatten() else { return Ok(None) };
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Some(Outlet { pipe, pending: Vec::new(), since: None, ended: false }))
        };
        self.stdout = outlet(word.stdout)?;
        self.stderr = outlet(word.stderr)?;
        let wanted = word.stdin && input.reads;
        let handed = match &input.fd {
            Some(fd) if wanted || input.terminal => Some(fd.as_raw_fd()),
            _ => None,
        };
        let answer = Attached { terminal: input.terminal, input: wanted && handed.is_some() };
        message::send(&self.socket, &message::encode(&answer)?, handed.as_slice())?;
        if wanted && input.once && !input.terminal {
            // The client's is the only one now: when it closes it, the container reads the end.
            input.fd = None;
        }
        Ok(())
    }

    /// Writes what is pending; `false`: it took nothing for too long.
    fn drains(&mut self, now: Instant) -> bool {
        for output in [Output::Stdout, Output::Stderr] {
            let outlet = self.outlet(output);
            if let Some(open) = outlet
                && !open.pending.is_empty()
            {
                let pending = std::mem::take(&mut open.pending);
                if !open.give(&pending, now) || (open.ended && open.pending.is_empty()) {
                    *outlet = None;
                } else if open.since.is_some_and(|since| now >= since + STALL) {
                    return false;
                }
            }
        }
        true
    }
}

impl Outlet {
    /// Writes as much as fits and keeps the rest; `false`: nobody reads any more.
    fn give(&mut self, bytes: &[u8], now: Instant) -> bool {
        let mut left = bytes;
        while !left.is_empty() {
            match nix::unistd::write(&self.pipe, left) {
                Ok(n) => {
                    left = left.get(n..).unwrap_or_default();
                    self.since = None;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.since.get_or_insert(now);
                    self.pending = left.to_vec();
                    return true;
                }
                Err(_) => return false,
            }
        }
        self.since = None;
        true
    }
}
