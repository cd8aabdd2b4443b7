//! Time as the node plans with it: monotonic since boot, so that a clock jump never ends a grace period early,
//! and comparable across restarts of the daemon, because supervisors and daemon share the boot.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time since the host booted, suspend included (`CLOCK_BOOTTIME` on Linux, `CLOCK_HIGHRES` on illumos).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime {
    /// Nanoseconds since boot.
    nanos: u64,
}

impl BootTime {
    /// The moment `since_boot` after boot. Saturates after 584 years.
    pub fn from_duration(since_boot: Duration) -> Self {
        Self { nanos: u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// How long after boot this is.
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The time from `earlier` to this; zero when `earlier` lies later.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// This moment plus `d`, saturating.
    pub fn plus(self, d: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

/// Where code gets its time from: the real clocks in the daemon, a hand-moved one in tests and simulations.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since boot.
    fn boot(&self) -> BootTime;
    /// Wall-clock time, for what people read (status, events, logs); never for deciding.
    fn wall(&self) -> chrono::DateTime<chrono::Utc>;
}
