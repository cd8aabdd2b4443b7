//! Time that follows tokio's: under `#[tokio::test(start_paused = true)]` it moves with `tokio::time::advance`.

use crate::time::{BootTime, Clock};
use chrono::{DateTime, Utc};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What the fake machine had been up for when it was made: so that no sensible time is near zero.
const UPTIME: Duration = Duration::from_secs(3600);
/// 2026-01-01 00:00 UTC, the wall time when the fake machine was made.
const WALL: i64 = 1_767_225_600;

/// A clock for tests: tokio's time since the clock was made, plus an hour of uptime.
#[derive(Clone, Debug)]
pub struct FakeClock {
    inner: Arc<Mutex<Origins>>,
}

#[derive(Debug)]
struct Origins {
    /// When the present boot's time was `uptime`.
    boot: Instant,
    uptime: Duration,
    /// When the wall clock showed `wall`.
    set: Instant,
    wall: DateTime<Utc>,
}

impl FakeClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        let now = Instant::now();
        let wall = DateTime::from_timestamp(WALL, 0).unwrap_or_default();
        Self { inner: Arc::new(Mutex::new(Origins { boot: now, uptime: UPTIME, set: now, wall })) }
    }

    /// Someone sets the wall clock (F40); the time since boot does not notice.
    pub fn set_wall(&self, wall: DateTime<Utc>) {
        let mut origins = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        origins.set = Instant::now();
        origins.wall = wall;
    }

    /// The machine boots: the time since boot begins again at zero, the wall clock goes on.
    pub fn reboot(&self) {
        let mut origins = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        origins.boot = Instant::now();
        origins.uptime = Duration::ZERO;
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for FakeClock {
    fn boot(&self) -> BootTime {
        let origins = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        BootTime::from_duration(origins.uptime.saturating_add(origins.boot.elapsed()))
    }

    fn wall(&self) -> DateTime<Utc> {
        let origins = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        origins.wall + origins.set.elapsed()
    }
}
