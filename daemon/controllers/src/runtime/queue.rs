//! The work queue: one slot per key, the earliest moment wins, a key is held while its worker runs, failures wait longer
//! each time. Pure: time comes as an argument, counted from the start of the runtime.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The first wait after a failure; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Keys with the moments at which they are due.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
    running: BTreeSet<K>,
    failures: HashMap<K, u32>,
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

    /// Makes `key` due at `at`, or earlier if it was due earlier.
    pub fn add(&mut self, key: K, at: Duration) {
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
        let count = self.failures.entry(key.clone()).or_insert(0);
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow((*count).min(20)));
        *count = count.saturating_add(1);
        let wait = doubled.min(LONGEST_WAIT).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)).min(LONGEST_WAIT);
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
        queue.add("a", now);
        queue.take(now).unwrap();
        queue.done(&"a");
        queue.add("a", now);
        queue.take(now).unwrap();
        assert_eq!(queue.failed(&"a", now, 0.5), FIRST_WAIT, "a success forgets the failures");
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
