//! Time as the node plans with it: monotonic since boot, so that a clock jump never ends a grace period early,
//! and comparable across restarts of the daemon, because supervisors and daemon share the boot.

use chrono::{DateTime, Utc};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

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
    fn wall(&self) -> DateTime<Utc>;
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Goes on while the machine is suspended (clock_gettime(2)).
#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
/// illumos' CLOCK_MONOTONIC is CLOCK_HIGHRES: nanoseconds since boot (clock_gettime(3C)).
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

impl Clock for SystemClock {
    fn boot(&self) -> BootTime {
        // Fails only for a clock that the kernel lacks; every supported kernel has this one.
        let now = clock_gettime(BOOT_CLOCK).map(Duration::from).unwrap_or_default();
        BootTime::from_duration(now)
    }

    #[allow(clippy::disallowed_methods)] // The one place that reads the wall clock.
    fn wall(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that stands still until it is moved, for tests of pure logic.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(BootTime, DateTime<Utc>)>,
}

impl ManualClock {
    /// Stands at `boot` since boot and at `wall`.
    pub fn new(boot: BootTime, wall: DateTime<Utc>) -> Self {
        Self { now: Mutex::new((boot, wall)) }
    }

    /// Time passes: both clocks move on by `d`.
    pub fn advance(&self, d: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 = now.0.plus(d);
        now.1 += d;
    }

    /// Someone sets the wall clock (F40); the time since boot does not notice.
    pub fn set_wall(&self, wall: DateTime<Utc>) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1 = wall;
    }
}

impl Default for ManualClock {
    /// One hour after boot, at 2026-01-01 00:00 UTC.
    fn default() -> Self {
        let wall = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
        Self::new(BootTime::from_duration(Duration::from_secs(3600)), wall)
    }
}

impl Clock for ManualClock {
    fn boot(&self) -> BootTime {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> DateTime<Utc> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Chores of this process, which look at something now and then, fall on multiples of this since [`begin_steps`]: each waking of its own
/// would be one more.
///
/// It is a slot of the third wheel of tokio's timer (64² ms, as its wheels have 64 slots and the first one's are 1 ms): a timer that ends
/// with such a slot takes one waking of the process. Any other one takes up to three, since its wheel hands it down to the finer ones first.
pub const STEP: Duration = Duration::from_millis(64 * 64);

/// When steps began to be counted: now, where nobody asked before.
fn began(now: Instant) -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    *BEGAN.get_or_init(|| now)
}

/// Counts steps from now on: to be called right before the runtime is made, from which on its timer counts. Without it they are counted from
/// when they were first asked for.
pub fn begin_steps() {
    let _ = began(Instant::now());
}

/// How long to wait for a chore that is due after `wait` at the latest: until the last step by then. A wait of less than two steps is left
/// as it is.
pub fn leisurely(wait: Duration) -> Duration {
    let now = Instant::now();
    until_step(now.saturating_duration_since(began(now)), wait)
}

fn until_step(since_began: Duration, wait: Duration) -> Duration {
    if wait < STEP * 2 {
        return wait;
    }
    let beyond = (since_began + wait).as_nanos() % STEP.as_nanos();
    // Less than a step.
    wait.saturating_sub(Duration::from_nanos(u64::try_from(beyond).unwrap_or_default()))
}

/// Ticks every `period` or a little more often: of two steps or more in whole ones ([`STEP`]). The first tick is a period away at most.
/// A tick that is missed is left out.
///
/// # Panics
/// When `period` is zero, and outside of a runtime.
pub fn in_step(period: Duration) -> tokio::time::Interval {
    let now = Instant::now();
    let period = until_step(Duration::ZERO, period);
    let mut ticks = tokio::time::interval_at(next_step(began(now), now, period), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The first moment after `now` that lies whole periods after `began`.
fn next_step(began: Instant, now: Instant, period: Duration) -> Instant {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let into = nanos(now.saturating_duration_since(began)) % nanos(period);
    now + period.saturating_sub(Duration::from_nanos(into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_counts_from_boot_and_never_goes_back() {
        let clock = SystemClock;
        let (one, two) = (clock.boot(), clock.boot());
        assert!(one > BootTime::default());
        assert!(two >= one);
    }

    #[test]
    fn setting_the_wall_clock_does_not_move_the_time_since_boot() {
        let clock = ManualClock::default();
        let before = clock.boot();
        clock.set_wall(DateTime::from_timestamp(0, 0).unwrap());
        assert_eq!(clock.boot(), before);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.boot().since(before), Duration::from_secs(5));
        assert_eq!(clock.wall().timestamp(), 5);
    }
    #[test]
    fn loops_keep_step_whenever_they_begin() {
        let began = Instant::now();
        let (ten, fifteen) = (Duration::from_secs(10), Duration::from_secs(15));
        let at = |millis: u64, period| next_step(began, began + Duration::from_millis(millis), period) - began;
        assert_eq!((at(1, ten), at(9_999, ten)), (ten, ten));
        assert_eq!((at(10_001, ten), at(12_345, fifteen)), (Duration::from_secs(20), fifteen));
        assert_eq!(at(29_000, ten), at(29_500, fifteen), "all at once");
    }

    #[test]
    fn chores_end_with_a_step_and_are_never_late() {
        let millis = Duration::from_millis;
        let wait = |since_began: u64, wait: u64| until_step(millis(since_began), millis(wait)).as_millis();
        assert_eq!((wait(0, 10_000), wait(8_192, 8_192)), (8_192, 8_192));
        assert_eq!((wait(100, 60_000), wait(4_095, 10_000)), (14 * 4_096 - 100, 3 * 4_096 - 4_095));
        assert_eq!((wait(100, 0), wait(100, 1_000), wait(100, 8_191)), (0, 1_000, 8_191), "short ones are exact");
    }

    /// A timer's wheels are not ours to know: should they become others, this says so.
    #[test]
    fn a_wait_in_step_takes_one_waking() {
        let wakings = |beyond: Duration| {
            let began = Instant::now();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { tokio::time::sleep_until(began + STEP + beyond).await });
            runtime.metrics().worker_park_count(0)
        };
        let other = std::thread::spawn(move || wakings(Duration::from_millis(70)));
        let (in_step, at_will) = (wakings(Duration::ZERO), other.join().unwrap());
        assert!(in_step < at_will, "{in_step} and {at_will}");
    }
}
