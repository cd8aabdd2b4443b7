//! Counts for `/metrics`.

use crate::serve::dispatch::State;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the API has done and is doing.
#[derive(Debug, Default)]
pub(crate) struct ApiCounters {
    requests: Mutex<Requests>,
    /// By resource.
    watches: Mutex<BTreeMap<&'static str, i64>>,
    connections: AtomicI64,
    streams: AtomicI64,
    running: AtomicI64,
}

/// Bounded: there are few verbs, and resources are those of the table of kinds.
#[derive(Debug, Default)]
struct Requests {
    by_code: BTreeMap<(&'static str, &'static str, u16), u64>,
    durations: BTreeMap<(&'static str, &'static str), Histogram>,
}

/// Upper bounds of the buckets in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Default)]
struct Histogram {
    /// How many fell into each bucket and no smaller one; the rest was longer than all bounds.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

/// What is behind the lock is right even after a panic: counts.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts down when dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicI64);

impl<'a> Counted<'a> {
    fn new(gauge: &'a AtomicI64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch, counted until it is dropped.
pub(crate) struct Watching {
    state: Arc<State>,
    resource: &'static str,
}

impl Watching {
    pub(crate) fn new(state: Arc<State>, resource: &'static str) -> Self {
        state.counters.streams.fetch_add(1, Ordering::Relaxed);
        *hold(&state.counters.watches).entry(resource).or_default() += 1;
        Self { state, resource }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.state.counters.streams.fetch_sub(1, Ordering::Relaxed);
        *hold(&self.state.counters.watches).entry(self.resource).or_default() -= 1;
    }
}

impl ApiCounters {
    pub(crate) fn connection(&self) -> Counted<'_> {
        Counted::new(&self.connections)
    }

    pub(crate) fn stream(&self) -> Counted<'_> {
        Counted::new(&self.streams)
    }

    pub(crate) fn running(&self) -> Counted<'_> {
        Counted::new(&self.running)
    }

    /// An answered request; of a stream, the time until it began.
    pub(crate) fn request(&self, verb: &'static str, resource: &'static str, code: u16, took: Duration) {
        let mut requests = hold(&self.requests);
        *requests.by_code.entry((verb, resource, code)).or_default() += 1;
        let histogram = requests.durations.entry((verb, resource)).or_default();
        let seconds = took.as_secs_f64();
        histogram.count += 1;
        histogram.seconds += seconds;
        if let Some((bucket, _)) = histogram.buckets.iter_mut().zip(BOUNDS).find(|(_, bound)| seconds <= *bound) {
            *bucket += 1;
        }
    }

    /// In the Prometheus text format.
    pub(crate) fn render(&self, out: &mut String) {
        let requests = hold(&self.requests);
        head(out, "reddwarf_api_requests_total", "counter", "Requests answered, by verb, resource and status code.");
        for ((verb, resource, code), count) in &requests.by_code {
            let labels = format!("verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"");
            line(out, &format!("reddwarf_api_requests_total{{{labels}}}"), count);
        }
        let name = "reddwarf_api_request_duration_seconds";
        head(out, name, "histogram", "Time from a request to its answer; of streams, to their beginning.");
        for ((verb, resource), histogram) in &requests.durations {
            histogram.render(out, name, &format!("verb=\"{verb}\",resource=\"{resource}\""));
        }
        drop(requests);
        head(out, "reddwarf_api_watches", "gauge", "Watches running now, by resource.");
        for (resource, count) in hold(&self.watches).iter() {
            line(out, &format!("reddwarf_api_watches{{resource=\"{resource}\"}}"), count);
        }
        gauge(out, "reddwarf_api_connections", "Connections open now.", self.connections.load(Ordering::Relaxed));
        gauge(
            out,
            "reddwarf_api_streams",
            "Watches, logs and execs running now.",
            self.streams.load(Ordering::Relaxed),
        );
        gauge(out, "reddwarf_api_requests_running", "Requests worked on now.", self.running.load(Ordering::Relaxed));
    }
}

impl Histogram {
    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut below = 0;
        for (count, bound) in self.buckets.iter().zip(BOUNDS) {
            below += count;
            line(out, &format!("{name}_bucket{{{labels},le=\"{bound}\"}}"), below);
        }
        line(out, &format!("{name}_bucket{{{labels},le=\"+Inf\"}}"), self.count);
        line(out, &format!("{name}_sum{{{labels}}}"), self.seconds);
        line(out, &format!("{name}_count{{{labels}}}"), self.count);
    }
}

/// The two comment lines of a metric.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a String has no way to fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample.
pub(crate) fn line(out: &mut String, series: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{series} {value}");
}

/// A gauge with one sample.
pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, "gauge", help);
    line(out, name, value);
}

/// A counter with one sample.
pub(crate) fn counter(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, "counter", help);
    line(out, name, value);
}
