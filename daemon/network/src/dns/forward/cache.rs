//! Answers of others, for as long as they said, and no more than a fixed amount.

use super::response::Stored;
use super::{Asked, Outcome};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of all remembered answers and their questions.
const MOST_BYTES: usize = 1 << 20;
/// Answers that are remembered.
const MOST: usize = 4096;
/// However long an answer says that it holds.
const LONGEST: u32 = 3600;
/// Nobody is asked again so soon after nobody answered (RFC 9520 section 3.2).
const FAILURE: Duration = Duration::from_secs(1);
/// What an entry costs besides its bytes, about.
const ENTRY: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Asked, Entry>,
    /// Oldest first. An entry that was replaced is here more than once; only its latest number counts.
    order: VecDeque<(u64, Asked)>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None`: nobody answered.
    stored: Option<Arc<Stored>>,
    since: Instant,
    until: Instant,
    number: u64,
}

impl Cache {
    pub(super) fn get(&mut self, asked: &Asked, now: Instant) -> Option<Outcome> {
        let entry = self.entries.get(asked)?;
        if now >= entry.until {
            self.remove(asked);
            return None;
        }
        let age = u32::try_from((now - entry.since).as_secs()).unwrap_or(u32::MAX);
        Some(entry.stored.clone().map_or(Outcome::Nothing, |stored| Outcome::Answer(stored, age)))
    }

    pub(super) fn put(&mut self, asked: Asked, stored: &Arc<Stored>, now: Instant) {
        let seconds = stored.seconds().min(LONGEST);
        if seconds > 0 {
            self.insert(asked, Some(Arc::clone(stored)), now, now + Duration::from_secs(seconds.into()));
        }
    }

    pub(super) fn put_failure(&mut self, asked: Asked, now: Instant) {
        self.insert(asked, None, now, now + FAILURE);
    }

    fn insert(&mut self, asked: Asked, stored: Option<Arc<Stored>>, since: Instant, until: Instant) {
        self.remove(&asked);
        self.next += 1;
        let entry = Entry { stored, since, until, number: self.next };
        self.bytes += cost(&asked, &entry);
        self.order.push_back((self.next, asked.clone()));
        self.entries.insert(asked, entry);
        while self.bytes > MOST_BYTES || self.entries.len() > MOST || self.order.len() > 2 * MOST {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|e| e.number == number) {
                self.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, asked: &Asked) {
        if let Some((asked, entry)) = self.entries.remove_entry(asked) {
            self.bytes -= cost(&asked, &entry).min(self.bytes);
        }
    }
}

fn cost(asked: &Asked, entry: &Entry) -> usize {
    ENTRY + 2 * asked.name.len() + entry.stored.as_ref().map_or(0, |s| s.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(n: usize) -> Asked {
        let name = crate::dns::name::from_text(&format!("n{n}.example")).unwrap();
        Asked { name, kind: 1, dnssec_ok: false, checking_disabled: false }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_has_a_bound_and_the_oldest_goes_first() {
        let mut cache = Cache::default();
        let stored = Arc::new(Stored::for_test(1000, 60));
        let now = Instant::now();
        for n in 0..10_000 {
            cache.put(asked(n), &stored, now);
        }
        assert!(cache.bytes <= MOST_BYTES && cache.entries.len() <= MOST, "{} bytes", cache.bytes);
        assert!(cache.get(&asked(0), now).is_none());
        assert!(matches!(cache.get(&asked(9_999), now + Duration::from_secs(7)), Some(Outcome::Answer(_, 7))));
        assert!(cache.get(&asked(9_999), now + Duration::from_secs(60)).is_none());
        for _ in 0..10_000 {
            cache.put(asked(1), &stored, now);
        }
        assert!(cache.order.len() <= 2 * MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_remembered_for_a_second() {
        let mut cache = Cache::default();
        let now = Instant::now();
        cache.put_failure(asked(1), now);
        assert!(matches!(cache.get(&asked(1), now), Some(Outcome::Nothing)));
        assert!(cache.get(&asked(1), now + FAILURE).is_none());
        assert_eq!(cache.bytes, 0);
    }
}
