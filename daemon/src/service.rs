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
pub(crate) fn keep_sockets(name: &str, sockets: &[BorrowedFd<'_>]) {
    let state = [NotifyState::FdStore, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify_with_fds(&state, sockets) {
        tracing::debug!(%error, "the service manager could not be given sockets to keep");
    }
}

/// Has it close those of a name.
pub(crate) fn forget_sockets(name: &str) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
