//! Retries of single indexes (`backoffLimitPerIndex`): each has its own limit and its own pauses. The pod of an index that failed last keeps
//! its finalizer until another is made in its place, because its annotations carry the counts on. Pure.

use super::Failed;
use chrono::TimeDelta;
use reddwarf_objects::Object;

/// Seconds before a pod is made in place of the first that failed; doubled for each further one, up to [`LONGEST_WAIT`].
const FIRST_WAIT: i64 = 10;
const LONGEST_WAIT: i64 = 600;
/// Annotations of a pod: how often its index had failed before, and how often that did not count.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often an index has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tries {
    /// So that it counts.
    pub failures: u32,
    /// So that it does not, by the failure policy.
    pub ignored: u32,
}

impl Tries {
    /// Those before a pod was made.
    pub(super) fn before(pod: &Object) -> Self {
        let number = |key| pod.annotation(key).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { failures: number(FAILURES), ignored: number(IGNORED) }
    }

    /// With one more.
    pub(super) fn and(self, failed: Option<&Failed>) -> Self {
        match failed {
            Some(Failed::Ignore) => Self { ignored: self.ignored.saturating_add(1), ..self },
            _ => Self { failures: self.failures.saturating_add(1), ..self },
        }
    }

    pub(super) fn all(self) -> u32 {
        self.failures.saturating_add(self.ignored)
    }

    /// Notes them on the next pod.
    pub(super) fn write(self, pod: &mut Object) {
        pod.set_annotation(FAILURES, &self.failures.to_string());
        if self.ignored > 0 {
            pod.set_annotation(IGNORED, &self.ignored.to_string());
        }
    }
}

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32) -> TimeDelta {
    let doublings = failures.saturating_sub(1).min(10);
    TimeDelta::seconds(FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT))
}
