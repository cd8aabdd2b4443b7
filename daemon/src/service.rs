//! What the service manager is told: ready, reloading, stopping, alive (sd_notify(3)). Without one, nothing happens.

use sd_notify::NotifyState;
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

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
