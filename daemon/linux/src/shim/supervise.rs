//! Copies output to the log and waits for the end of the container's first process.

use super::log::{Lines, Log, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use reddwarf_host::spec::LogSpec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// After the end of init: how long output may still come from whoever else holds the pipe.
const DRAIN: Duration = Duration::from_millis(500);

/// The shim's ends of a container's streams. With a terminal, its master is `stdout`.
#[derive(Default)]
pub(super) struct Streams {
    /// Held open and never written: reading blocks instead of ending, as nobody is attached yet.
    pub(super) stdin: Option<OwnedFd>,
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

    /// Reads once; `false` at the end of the stream.
    fn copy(&mut self, from: &OwnedFd, stream: Stream) -> bool {
        let lines = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
        match nix::unistd::read(from, &mut self.buffer) {
            Ok(0) => {}
            Ok(n) => {
                lines.push(self.buffer.get(..n).unwrap_or_default(), &mut self.log);
                self.log.flush();
                return true;
            }
            Err(Errno::EINTR | Errno::EAGAIN) => return true,
            // EIO: the last process with the terminal open is gone.
            Err(_) => {}
        }
        lines.finish(&mut self.log);
        self.log.flush();
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

/// Copies output until init has ended and its output is drained. SIGCHLD is blocked already.
#[expect(clippy::disallowed_methods, reason = "a shim is a process of its own and has no injected clock")]
pub(super) fn until_exit(init: u32, mut streams: Streams, output: &mut Output) -> io::Result<End> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Children may have ended before the descriptor was there.
    let mut end = reap(init);
    let mut drain_until = end.map(|_| Instant::now() + DRAIN);
    loop {
        let open = streams.stdout.is_some() || streams.stderr.is_some();
        if let (Some(end), Some(until)) = (end, drain_until)
            && (!open || Instant::now() >= until)
        {
            output.finish();
            return Ok(end);
        }
        let ready = wait(&children, &streams, drain_until)?;
        if ready.stdout && streams.stdout.as_ref().is_some_and(|fd| !output.copy(fd, Stream::Stdout)) {
            streams.stdout = None;
        }
        if ready.stderr && streams.stderr.as_ref().is_some_and(|fd| !output.copy(fd, Stream::Stderr)) {
            streams.stderr = None;
        }
        if ready.children {
            while let Ok(Some(_)) = children.read_signal() {}
            if let Some(ended) = reap(init) {
                end = Some(ended);
                drain_until = Some(Instant::now() + DRAIN);
                streams.stdin = None;
            }
        }
    }
}

struct Ready {
    children: bool,
    stdout: bool,
    stderr: bool,
}

#[expect(clippy::disallowed_methods, reason = "a shim is a process of its own and has no injected clock")]
fn wait(children: &SignalFd, streams: &Streams, until: Option<Instant>) -> io::Result<Ready> {
    let timeout = match until {
        None => PollTimeout::NONE,
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
        }
    };
    let mut fds = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
    let out = streams.stdout.as_ref().map(|fd| {
        fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        fds.len() - 1
    });
    let err = streams.stderr.as_ref().map(|fd| {
        fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        fds.len() - 1
    });
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Ready { children: true, stdout: false, stderr: false }),
        Err(e) => return Err(e.into()),
    }
    let is = |index: Option<usize>| index.and_then(|i| fds.get(i)).is_some_and(|fd| fd.any().unwrap_or(true));
    Ok(Ready { children: is(Some(0)), stdout: is(out), stderr: is(err) })
}

/// Collects all children that have ended; tells when `init` was among them.
fn reap(init: u32) -> Option<End> {
    let mut found = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() as u32 == init => {
                found = Some(End { code, signal: None });
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == init => {
                found = Some(End { code: 128 + signal as i32, signal: Some(signal as i32) });
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return found,
            Ok(_) | Err(Errno::EINTR) => {}
            // A real-time signal that nix has no name for, among others: seen as gone on the next round.
            Err(_) => return found,
        }
    }
}

/// Collects all children that have ended.
pub(super) fn reap_all() {
    let _ = reap(0);
}
