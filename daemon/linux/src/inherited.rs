//! Sockets that the service manager hands over at the start: kept for us over a restart, or opened before we ran
//! (sd_listen_fds(3)).

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// More are nobody's.
const MOST: RawFd = 1024;

/// The sockets with their names. To be asked once, before anything else is opened; afterwards there are none.
pub fn sockets() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let ours = number("LISTEN_PID").is_some_and(|pid| pid == nix::unistd::getpid().as_raw());
    if !ours || TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for fd in FIRST..FIRST + count {
        // SAFETY: the service manager opened these for this process (its id was compared), nobody else here knows them,
        // and this runs once.
        #[allow(unsafe_code)]
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // Not for what we start ourselves.
        if let Err(error) = fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::warn!(fd, %error, "what the service manager said to be open is not");
            // It is nobody's: closing it again would fail too.
            std::mem::forget(socket);
            continue;
        }
        sockets.push((names.next().unwrap_or_default().to_owned(), socket));
    }
    sockets
}
