//! CrashLoopBackOff: at once, then 10 s, doubling to 5 minutes; as new after 10 minutes of health.
//!
//! All of it is read from the host's own records (attempt, waited back-off, end), so that a restart of the daemon
//! changes nothing.

use crate::compare::{self, Cost};
use reddwarf_host::{BootTime, ContainerObserved, ContainerState};
use std::time::Duration;

/// The first wait.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
pub const BACKOFF_MOST: Duration = Duration::from_secs(300);
/// A container that ran for so long is healthy.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(600);

/// How long to wait after the end of `latest`, whose predecessor was `previous`, before starting it again.
pub fn next_backoff(latest: &ContainerObserved, previous: Option<&ContainerObserved>) -> Duration {
    if was_healthy(latest) {
        return Duration::ZERO;
    }
    let waited = latest.spec.backoff;
    if waited.is_zero() {
        return if begins_a_streak(latest, previous) { Duration::ZERO } else { BACKOFF_FIRST };
    }
    waited.saturating_mul(2).clamp(BACKOFF_FIRST, BACKOFF_MOST)
}

/// The wait after the `count`th time in a row.
pub fn next_backoff_after(count: u32) -> Duration {
    let doublings = count.saturating_sub(1).min(16);
    BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MOST)
}

/// A wait as the kubelet prints it: `10s`, `2m40s`, `5m0s`.
pub(super) fn in_words(wait: Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// The moment until which it waits. An end in the future was recorded before the host was started anew.
pub(super) fn due(finished: BootTime, backoff: Duration, now: BootTime) -> BootTime {
    if finished > now { now } else { finished.plus(backoff) }
}

fn was_healthy(instance: &ContainerObserved) -> bool {
    match &instance.state {
        ContainerState::Exited { started: Some(started), finished, .. } => finished.since(*started) >= HEALTHY_AFTER,
        ContainerState::Exited { started: None, .. }
        | ContainerState::Creating
        | ContainerState::Running { .. }
        | ContainerState::Lost(_) => false,
    }
}

/// Whether this is the first end of its kind: the instance was not itself started because one had ended by itself.
fn begins_a_streak(latest: &ContainerObserved, previous: Option<&ContainerObserved>) -> bool {
    let Some(previous) = previous else { return latest.spec.attempt == 0 };
    previous.stop.is_some_and(|s| !s.is_fault())
        || was_healthy(previous)
        || compare::cost(&compare::container(&previous.spec, &latest.spec)) >= Some(Cost::Restart)
}
