//! Copies output to the log and waits for the end of the container's first process.

use super::attach::{self, Attachments};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use reddwarf_host::spec::LogSpec;
use reddwarf_supervise::log::{Lines, Log, Stream};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// After the end of init: how long output may still come from whoever else holds the pipe.
const DRAIN: Duration = Duration::from_millis(500);

/// The shim's ends of a container's outputs. With a terminal, its master is `stdout`.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// The log with its two line cutters.
pub(super) struct Output {
    log: Log,
    stdout: Lines,
    stderr: Lines,
    buffer: Vec<u8>,
}

impl Output {
    pub(super) fn new(spec: LogSpec) -> io::Result<Self> {
        Ok(Self {
            log: Log::open(spec)?,
            stdout: Lines::new(Stream::Stdout),
            stderr: Lines::new(Stream::Stderr),
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Reads once, for the log and for whoever is attached; `false` at the end of the stream.
    fn copy(&mut self, from: &OwnedFd, stream: Stream, attached: &mut Attachments) -> bool {
        let (lines, output) = match stream {
            Stream::Stdout => (&mut self.stdout, attach::Output::Stdout),
            Stream::Stderr => (&mut self.stderr, attach::Output::Stderr),
        };
        match nix::unistd::read(from, &mut self.buffer) {
            Ok(0) => {}
            Ok(n) => {
                let bytes = self.buffer.get(..n).unwrap_or_default();
                lines.push(bytes, &mut self.log);
                self.log.flush();
                attached.give(output, bytes, now());
                return true;
            }
            Err(Errno::EINTR | Errno::EAGAIN) => return true,
            // EIO: the last process with the terminal open is gone.
            Err(_) => {}
        }
        lines.finish(&mut self.log);
        self.log.flush();
        attached.end(output);
        false
    }

    fn finish(&mut self) {
        self.stdout.finish(&mut self.log);
        self.stderr.finish(&mut self.log);
        self.log.flush();
    }
}

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
}

/// A shim is a process of its own and has no injected clock.
#[expect(clippy::disallowed_methods, reason = "see above")]
fn now() -> Instant {
    Instant::now()
}

/// Copies output until init has ended and its output is drained. SIGCHLD is blocked already.
pub(super) fn until_exit(
    init: u32,
    mut streams: Streams,
    output: &mut Output,
    attached: &mut Attachments,
) -> io::Result<End> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Children may have ended before the descriptor was there.
    let mut end = reap(init);
    let mut drain_until = end.map(|_| now() + DRAIN);
    loop {
        let open = streams.stdout.is_some() || streams.stderr.is_some();
        if let (Some(end), Some(until)) = (end, drain_until)
            && (!open || now() >= until)
        {
            output.finish();
            return Ok(end);
        }
        let ready = wait(Some(&children), &streams, attached, drain_until)?;
        if ready.stdout && streams.stdout.as_ref().is_some_and(|fd| !output.copy(fd, Stream::Stdout, attached)) {
            streams.stdout = None;
        }
        if ready.stderr && streams.stderr.as_ref().is_some_and(|fd| !output.copy(fd, Stream::Stderr, attached)) {
            streams.stderr = None;
        }
        if ready.clients {
            attached.take_turn(now());
        }
        if ready.children {
            while let Ok(Some(_)) = children.read_signal() {}
            if let Some(ended) = reap(init) {
                end = Some(ended);
                drain_until = Some(now() + DRAIN);
                attached.close();
            }
        }
    }
}

/// Lets those attached take what was written last. The container is over and recorded: nobody else waits.
pub(super) fn until_taken(attached: &mut Attachments) -> io::Result<()> {
    attached.close();
    while !attached.is_drained() {
        wait(None, &Streams::default(), attached, None)?;
        attached.take_turn(now());
    }
    Ok(())
}

struct Ready {
    children: bool,
    stdout: bool,
    stderr: bool,
    /// Someone attached, wants to, or has kept us waiting for too long.
    clients: bool,
}

/// Adds a descriptor to wait for; where it is.
fn add<'a>(fds: &mut Vec<PollFd<'a>>, fd: BorrowedFd<'a>) -> usize {
    fds.push(PollFd::new(fd, PollFlags::POLLIN));
    fds.len() - 1
}

fn wait(
    children: Option<&SignalFd>,
    streams: &Streams,
    attached: &Attachments,
    until: Option<Instant>,
) -> io::Result<Ready> {
    let until = [until, attached.deadline()].into_iter().flatten().min();
    let timeout = match until {
        None => PollTimeout::NONE,
        Some(until) => {
            let left = until.saturating_duration_since(now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
        }
    };
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(4);
    let child = children.map(|fd| add(&mut fds, fd.as_fd()));
    let flows = |which| !attached.holds_up(which);
    let out = streams.stdout.as_ref().filter(|_| flows(attach::Output::Stdout)).map(|fd| add(&mut fds, fd.as_fd()));
    let err = streams.stderr.as_ref().filter(|_| flows(attach::Output::Stderr)).map(|fd| add(&mut fds, fd.as_fd()));
    let ours = fds.len();
    attached.wait_for(&mut fds);
    let any = match poll(&mut fds, timeout) {
        Ok(n) => n,
        Err(Errno::EINTR) => return Ok(Ready { children: true, stdout: false, stderr: false, clients: false }),
        Err(e) => return Err(e.into()),
    };
    let is = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    let at = |index: Option<usize>| index.and_then(|i| fds.get(i)).is_some_and(is);
    let clients = any == 0 || fds.get(ours..).is_some_and(|fds| fds.iter().any(is));
    Ok(Ready { children: at(child), stdout: at(out), stderr: at(err), clients })
}

/// Collects all children that have ended; tells when `init` was among them.
fn reap(init: u32) -> Option<End> {
    let mut found = None;
    while let Some((pid, status)) = next_ended() {
        if pid != init {
            continue;
        }
        if libc::WIFEXITED(status) {
            found = Some(End { code: libc::WEXITSTATUS(status), signal: None });
        } else if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            found = Some(End { code: 128 + signal, signal: Some(signal) });
        }
    }
    found
}

/// One child that has ended, with its status. Not by nix: it has no name for real-time signals, and what it can't name
/// it forgets.
#[allow(unsafe_code)]
fn next_ended() -> Option<(u32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one integer to a place that lives as long as the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match u32::try_from(pid) {
            Ok(0) => return None,
            Ok(pid) => return Some((pid, status)),
            Err(_) if Errno::last() == Errno::EINTR => {}
            Err(_) => return None,
        }
    }
}

/// Collects all children that have ended.
pub(super) fn reap_all() {
    let _ = reap(0);
}
