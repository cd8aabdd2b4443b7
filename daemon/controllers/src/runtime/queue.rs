//! The work queue: one slot per key, the earliest moment wins, a key is held while its worker runs, failures wait longer
//! each time. Pure: time comes as an argument, counted from the start of the runtime.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The first wait after a failure; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// What changes brings a key that failed forward, but not nearer than this to its failure (or than its own wait, when that is
/// shorter): a worker that fails and writes something other each time must not bring about its own next attempt for ever.
const NEAREST: Duration = Duration::from_secs(1);

/// A key's failures since its last success.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    count: u32,
    /// It is not due before.
    not_before: Duration,
}

/// Keys with the moments at which they are due.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
    running: BTreeSet<K>,
    failures: HashMap<K, Failed>,
    limit: usize,
}

impl<K: Ord + Clone + std::hash::Hash> Queue<K> {
    /// An empty queue of which `limit` keys are worked on at one time.
    pub fn new(limit: usize) -> Self {
        Self {
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            running: BTreeSet::new(),
            failures: HashMap::new(),
            limit: limit.max(1),
        }
    }

    /// Makes `key` due at `at`, or earlier if it was due earlier. A key that failed waits a little all the same.
    pub fn add(&mut self, key: K, at: Duration) {
        let at = self.failures.get(&key).map_or(at, |failed| at.max(failed.not_before));
        match self.due.get(&key).copied() {
            Some(due) if due <= at => return,
            Some(due) => {
                self.order.remove(&(due, key.clone()));
            }
            None => {}
        }
        self.order.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Takes the key that has been due for longest and is not being worked on, if there is room.
    pub fn take(&mut self, now: Duration) -> Option<K> {
        if self.running.len() >= self.limit {
            return None;
        }
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        let (at, key) = due.into_iter().find(|(_, key)| !self.running.contains(key))?.clone();
        self.take_key(at, &key);
        Some(key)
    }

    /// Takes the `nth` of the keys that are due (for simulations, which choose).
    pub fn take_nth(&mut self, now: Duration, nth: usize) -> Option<K> {
        let due: Vec<_> = self.order.iter().take_while(|(at, _)| *at <= now).cloned().collect();
        let (at, key) = due.get(nth.checked_rem(due.len())?)?.clone();
        self.take_key(at, &key);
        Some(key)
    }

    fn take_key(&mut self, at: Duration, key: &K) {
        self.order.remove(&(at, key.clone()));
        self.due.remove(key);
        self.running.insert(key.clone());
    }

    /// The worker of `key` succeeded.
    pub fn done(&mut self, key: &K) {
        self.running.remove(key);
        self.failures.remove(key);
    }

    /// The worker of `key` failed: it is due again later, the later the more often it failed. `jitter` in 0..1 spreads
    /// keys that failed together. Gives the wait.
    pub fn failed(&mut self, key: &K, now: Duration, jitter: f64) -> Duration {
        self.running.remove(key);
        let failed = self.failures.entry(key.clone()).or_default();
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failed.count.min(20)));
        failed.count = failed.count.saturating_add(1);
        let wait = doubled.min(LONGEST_WAIT).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)).min(LONGEST_WAIT);
        failed.not_before = now + wait.min(NEAREST);
        // What was asked for while the worker ran waits as well.
        if let Some(due) = self.due.get(key).copied().filter(|due| *due < failed.not_before) {
            self.order.remove(&(due, key.clone()));
            self.due.remove(key);
        }
        self.add(key.clone(), now + wait);
        wait
    }

    /// When to ask again if nothing is added or finished before.
    pub fn next(&self) -> Option<Duration> {
        if self.running.len() >= self.limit {
            return None;
        }
        self.order.iter().find(|(_, key)| !self.running.contains(key)).map(|(at, _)| *at)
    }

    /// Keys that wait.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Keys being worked on.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_earliest_moment_wins_and_a_key_is_held_while_it_runs() {
        let mut queue = Queue::new(4);
        queue.add("a", at(10));
        queue.add("a", at(5));
        queue.add("a", at(20));
        assert_eq!(queue.next(), Some(at(5)));
        assert_eq!(queue.take(at(4)), None);
        assert_eq!(queue.take(at(5)), Some("a"));
        queue.add("a", at(5));
        assert_eq!(queue.take(at(9)), None, "held");
        assert_eq!(queue.next(), None);
        queue.done(&"a");
        assert_eq!(queue.take(at(9)), Some("a"));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_cap() {
        let mut queue = Queue::new(1);
        let mut waits = Vec::new();
        let mut now = at(0);
        queue.add("a", now);
        for _ in 0..20 {
            now = queue.next().unwrap();
            assert_eq!(queue.take(now), Some("a"));
            waits.push(queue.failed(&"a", now, 0.5));
        }
        assert_eq!(waits[0], FIRST_WAIT);
        assert_eq!(waits[1], FIRST_WAIT * 2);
        assert_eq!(*waits.last().unwrap(), LONGEST_WAIT);
        now += NEAREST;
        queue.add("a", now);
        queue.take(now).unwrap();
        queue.done(&"a");
        queue.add("a", now);
        queue.take(now).unwrap();
        assert_eq!(queue.failed(&"a", now, 0.5), FIRST_WAIT, "a success forgets the failures");
    }

    #[test]
    fn a_change_brings_a_failed_key_forward_but_not_to_its_failure() {
        let mut queue = Queue::new(1);
        let mut attempts = 0;
        let mut now = at(0);
        queue.add("a", now);
        while now < at(60) {
            assert_eq!(queue.take(now), Some("a"));
            attempts += 1;
            // Its own write comes back as a change, before it ends and after.
            queue.add("a", now);
            queue.failed(&"a", now, 0.5);
            queue.add("a", now);
            now = queue.next().unwrap();
        }
        assert!((60..80).contains(&attempts), "{attempts} attempts in a minute");
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"), "a success forgets the failures");
    }

    #[test]
    fn who_waited_longest_comes_first_and_the_limit_holds() {
        let mut queue = Queue::new(1);
        queue.add("a", at(3));
        queue.add("b", at(1));
        assert_eq!(queue.take(at(9)), Some("b"));
        assert_eq!(queue.take(at(9)), None);
        queue.done(&"b");
        assert_eq!(queue.take(at(9)), Some("a"));
    }
}
