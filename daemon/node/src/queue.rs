//! The work queue: one slot per key, the earliest moment wins, a key is held while its worker runs.
//!
//! Pure: the dispatcher in `run.rs` asks it what is due and when to look again.

use reddwarf_host::BootTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// A worker that takes longer no longer counts against the limit: some hung calls must not stop the rest (U11).
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Keys with the moments at which they are due.
#[derive(Debug)]
pub struct Queue<K> {
    slots: BTreeMap<K, BootTime>,
    running: BTreeMap<K, BootTime>,
    limit: usize,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue of which `limit` keys are worked on at one time.
    pub fn new(limit: usize) -> Self {
        Self { slots: BTreeMap::new(), running: BTreeMap::new(), limit: limit.max(1) }
    }

    /// Makes `key` due at `at`, or earlier if it was due earlier.
    pub fn add(&mut self, key: K, at: BootTime) {
        self.slots.entry(key).and_modify(|due| *due = (*due).min(at)).or_insert(at);
    }

    /// Takes the key that has been due for longest and is not being worked on, if there is room.
    pub fn take(&mut self, now: BootTime) -> Option<K> {
        if self.busy(now) >= self.limit {
            return None;
        }
        let ready = self.slots.iter().filter(|(key, due)| **due <= now && !self.running.contains_key(*key));
        let key = ready.min_by_key(|(_, due)| **due).map(|(key, _)| key.clone())?;
        self.slots.remove(&key);
        self.running.insert(key.clone(), now);
        Some(key)
    }

    /// The worker of `key` is done.
    pub fn finish(&mut self, key: &K) {
        self.running.remove(key);
    }

    /// When to ask again if nothing is added or finished before; `None`: not before.
    pub fn next(&self, now: BootTime) -> Option<BootTime> {
        let due = self.slots.iter().filter(|(key, _)| !self.running.contains_key(*key)).map(|(_, due)| *due).min()?;
        if self.busy(now) < self.limit {
            return Some(due);
        }
        let slow = self.running.values().map(|since| since.plus(SLOW_AFTER)).filter(|at| *at > now).min();
        slow.map(|slow| slow.max(due))
    }

    /// Nothing is due by `until` and nothing is being worked on.
    pub fn is_idle(&self, until: BootTime) -> bool {
        self.running.is_empty() && self.slots.values().all(|due| *due > until)
    }

    /// Keys being worked on, since when.
    pub fn running(&self) -> &BTreeMap<K, BootTime> {
        &self.running
    }

    /// Keys that wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn busy(&self, now: BootTime) -> usize {
        self.running.values().filter(|since| now.since(**since) < SLOW_AFTER).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn the_earliest_moment_wins() {
        let mut queue = Queue::new(4);
        queue.add("a", at(10));
        queue.add("a", at(5));
        queue.add("a", at(20));
        assert_eq!(queue.next(at(0)), Some(at(5)));
        assert_eq!(queue.take(at(4)), None);
        assert_eq!(queue.take(at(5)), Some("a"));
        assert_eq!(queue.take(at(30)), None, "one slot per key");
    }

    #[test]
    fn a_key_is_held_while_its_worker_runs() {
        let mut queue = Queue::new(4);
        queue.add("a", at(0));
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.add("a", at(0));
        assert_eq!(queue.take(at(0)), None);
        assert_eq!(queue.next(at(0)), None);
        queue.finish(&"a");
        assert_eq!(queue.take(at(0)), Some("a"));
    }

    /// U11: with every worker stuck in a hung call the queue still hands out work.
    #[test]
    fn u11_hung_workers_do_not_stop_the_rest() {
        let mut queue = Queue::new(2);
        for key in ["a", "b", "c", "d", "e"] {
            queue.add(key, at(0));
        }
        assert_eq!(queue.take(at(0)), Some("a"));
        assert_eq!(queue.take(at(0)), Some("b"));
        assert_eq!(queue.take(at(0)), None, "the limit holds");
        assert_eq!(queue.next(at(0)), Some(at(5)));
        assert_eq!(queue.take(at(5)), Some("c"), "until the others are plainly slow");
    }

    #[test]
    fn who_waited_longest_comes_first() {
        let mut queue = Queue::new(4);
        queue.add("a", at(3));
        queue.add("b", at(1));
        assert_eq!(queue.take(at(9)), Some("b"));
    }
}
