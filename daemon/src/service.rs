//! What the service manager is told: ready, reloading, stopping, alive (sd_notify(3)). Without one, nothing happens.

use sd_notify::NotifyState;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The daemon answers on its socket.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Settings and manifests are being read again; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon is going down.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The daemon is alive: call at least as often as [`watchdog_interval`].
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Half the time that the service manager allows between signs of life; `None` when it does not watch.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Has the service manager keep sockets for the next start (FileDescriptorStoreMax=). Those of one name go together.
/// Only systemd does so.
#[cfg(target_os = "linux")]
pub(crate) fn keep_sockets(name: &str, sockets: &[BorrowedFd<'_>]) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text = format!("FDSTORE=1\nFDNAME={name}\n");
    let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let send = || -> std::io::Result<usize> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.connect(manager)?;
        let text = [std::io::IoSlice::new(text.as_bytes())];
        let rights = [ControlMessage::ScmRights(&fds)];
        Ok(sendmsg(socket.as_raw_fd(), &text, &rights, MsgFlags::MSG_NOSIGNAL, None::<&()>)?)
    };
    if let Err(error) = send() {
        tracing::debug!(%error, "the service manager could not be given sockets to keep");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_sockets(_name: &str, _sockets: &[BorrowedFd<'_>]) {}

/// Has it close those of a name.
pub(crate) fn forget_sockets(name: &str) {
    let name = format!("FDNAME={name}");
    tell(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&name)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
