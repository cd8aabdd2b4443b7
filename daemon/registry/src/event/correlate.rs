//! Which events are written, and as what: by the rules of the reference's event correlator. Pure.
//!
//! The tenth different message within ten minutes about one object for one reason is written as one event for all of them,
//! "(combined from similar events): …", with the newest message. One source may write 25 events about one object, and one
//! more every five minutes; what is not written is counted, and told by the next one that is. Unlike there, none of those that come
//! again and again is left out for ever: each is written every five minutes.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{HashMap, HashSet};

/// Different messages that make events similar ones.
const SIMILAR: usize = 10;
/// Similar events further apart than this begin anew.
const SIMILAR_FOR: TimeDelta = TimeDelta::minutes(10);
/// Events that one source may write about one object at once.
const BURST: f64 = 25.0;
/// Seconds after which it may write one more.
const SECONDS_FOR_ONE: f64 = 300.0;
/// What is said again and again is written this often, whatever else its source has to say.
const LONGEST_UNWRITTEN: TimeDelta = TimeDelta::minutes(5);
/// Sources and kinds of similar events that are remembered. Beyond it all begin anew.
const MOST: usize = 4096;
/// Different events of one source that are counted while they are not written.
const MOST_UNWRITTEN: usize = 32;

/// What an event is the same as, in digests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// Who says it of which object.
    pub(crate) source: u64,
    /// The same without the message and without the part of the object.
    pub(crate) similar: u64,
    /// The message.
    pub(crate) message: u64,
    /// All of it.
    pub(crate) exact: u64,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// As one of many.
    pub(crate) combined: bool,
    /// How often it was seen since it was last written.
    pub(crate) times: u64,
}

/// Remembers what was said of late.
#[derive(Debug, Default)]
pub(crate) struct Correlator {
    similar: HashMap<u64, Similar>,
    sources: HashMap<u64, Source>,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<u64>,
    last: DateTime<Utc>,
}

#[derive(Debug)]
struct Source {
    /// Events that it may write now.
    tokens: f64,
    /// When that was so.
    at: DateTime<Utc>,
    unwritten: HashMap<u64, Unwritten>,
}

/// What was said and not written.
#[derive(Clone, Copy, Debug)]
struct Unwritten {
    times: u64,
    since: DateTime<Utc>,
}

impl Source {
    fn refill(&mut self, now: DateTime<Utc>) {
        let passed = now.signed_duration_since(self.at).num_milliseconds().max(0);
        // Exact for any span that matters.
        self.tokens = (self.tokens + passed as f64 / 1000.0 / SECONDS_FOR_ONE).min(BURST);
        self.at = now;
    }
}

impl Correlator {
    /// Something was said; `None`: it is not written.
    pub(crate) fn observe(&mut self, said: Identity, now: DateTime<Utc>) -> Option<Write> {
        let combined = self.is_one_of_many(said, now);
        let what = if combined { said.similar } else { said.exact };
        let source = self.source(said.source, now);
        source.refill(now);
        let waiting = source.unwritten.get(&what).copied();
        let long = waiting.is_some_and(|w| now.signed_duration_since(w.since) >= LONGEST_UNWRITTEN);
        let times = waiting.map_or(0, |w| w.times).saturating_add(1);
        if source.tokens < 1.0 && !long {
            if waiting.is_some() || source.unwritten.len() < MOST_UNWRITTEN {
                source.unwritten.insert(what, Unwritten { times, since: waiting.map_or(now, |w| w.since) });
            }
            return None;
        }
        source.tokens = (source.tokens - 1.0).max(0.0);
        source.unwritten.remove(&what);
        Some(Write { combined, times })
    }

    fn is_one_of_many(&mut self, said: Identity, now: DateTime<Utc>) -> bool {
        let recent = |last: DateTime<Utc>| now.signed_duration_since(last) <= SIMILAR_FOR;
        if self.similar.len() >= MOST {
            self.similar.retain(|_, similar| recent(similar.last));
        }
        if self.similar.len() >= MOST {
            self.similar.clear();
        }
        let similar =
            self.similar.entry(said.similar).or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if !recent(similar.last) {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.contains(&said.message) {
            return false;
        }
        // The tenth is not remembered: every further one is the tenth again.
        let many = similar.messages.len() + 1 >= SIMILAR;
        if !many {
            similar.messages.insert(said.message);
        }
        many
    }

    fn source(&mut self, source: u64, now: DateTime<Utc>) -> &mut Source {
        if self.sources.len() >= MOST {
            // Who may write as much as somebody new need not be remembered.
            self.sources.retain(|_, source| {
                source.refill(now);
                source.tokens < BURST
            });
        }
        if self.sources.len() >= MOST {
            self.sources.clear();
        }
        self.sources.entry(source).or_insert_with(|| Source { tokens: BURST, at: now, unwritten: HashMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn say(source: u64, reason: u64, message: u64) -> Identity {
        Identity { source, similar: source << 16 | reason << 8, message, exact: source << 16 | reason << 8 | message }
    }

    const ONCE: Option<Write> = Some(Write { combined: false, times: 1 });
    const MANY: Option<Write> = Some(Write { combined: true, times: 1 });

    #[test]
    fn the_tenth_message_within_ten_minutes_stands_for_all_that_follow() {
        let mut all = Correlator::default();
        for message in 1..10 {
            assert_eq!(all.observe(say(1, 1, message), at(message as i64)), ONCE);
        }
        assert_eq!(all.observe(say(1, 1, 10), at(20)), MANY);
        assert_eq!(all.observe(say(1, 1, 11), at(30)), MANY);
        assert_eq!(all.observe(say(1, 1, 3), at(31)), ONCE, "one of the nine goes on being counted by itself");
        assert_eq!(all.observe(say(1, 2, 10), at(32)), ONCE, "another reason");
        assert_eq!(all.observe(say(2, 1, 10), at(33)), ONCE, "another source or object");
        assert_eq!(all.observe(say(1, 1, 12), at(31 + 601)), ONCE, "ten minutes of silence");
    }

    #[test]
    fn a_source_writes_25_events_and_one_more_every_five_minutes() {
        let mut all = Correlator::default();
        for n in 0..25 {
            assert_eq!(all.observe(say(1, 1, 1), at(n)), ONCE);
        }
        assert_eq!(all.observe(say(1, 1, 1), at(25)), None);
        assert_eq!(all.observe(say(1, 2, 1), at(26)), None);
        assert_eq!(all.observe(say(2, 1, 1), at(27)), ONCE, "others are not concerned");
        assert_eq!(all.observe(say(1, 1, 1), at(299)), None);
        // 25 tokens at 0, 300 seconds later one more.
        assert_eq!(
            all.observe(say(1, 1, 1), at(300)),
            Some(Write { combined: false, times: 3 }),
            "with what was missed"
        );
        assert_eq!(all.observe(say(1, 2, 1), at(301)), None);
        assert_eq!(all.observe(say(1, 2, 1), at(600)), Some(Write { combined: false, times: 3 }));
        // A clock that is set back takes nothing away.
        assert_eq!(all.observe(say(1, 1, 1), at(0)), None);
    }

    #[test]
    fn what_comes_again_and_again_is_told_again() {
        let mut all = Correlator::default();
        for _ in 0..25 {
            assert_eq!(all.observe(say(1, 1, 1), at(0)), ONCE);
        }
        assert_eq!(all.observe(say(1, 2, 1), at(1)), None);
        assert_eq!(all.observe(say(1, 1, 1), at(300)), ONCE, "always the first after a while");
        assert_eq!(all.observe(say(1, 2, 1), at(301)), Some(Write { combined: false, times: 2 }));
        assert_eq!(all.observe(say(1, 2, 1), at(302)), None);
    }

    #[test]
    fn nothing_is_remembered_without_bound() {
        let mut all = Correlator::default();
        for source in 0..20_000 {
            assert_eq!(all.observe(say(source, 1, 1), at(0)), ONCE);
        }
        assert!(all.sources.len() <= MOST && all.similar.len() <= MOST);
        for message in 0..1000 {
            let _ = all.observe(say(1, message % 200, message), at(1));
        }
        assert!(all.sources[&1].unwritten.len() <= MOST_UNWRITTEN);
    }
}
