//! Counts for `/metrics`.

use crate::serve::dispatch::State;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// What the API has done and is doing.
#[derive(Debug, Default)]
pub(crate) struct ApiCounters {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    connections: AtomicI64,
    streams: AtomicI64,
    running: AtomicI64,
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

/// A stream, counted until it is dropped.
pub(crate) struct Stream(Arc<State>);

impl Stream {
    pub(crate) fn new(state: Arc<State>) -> Self {
        state.counters.streams.fetch_add(1, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.counters.streams.fetch_sub(1, Ordering::Relaxed);
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

    /// An answered request.
    pub(crate) fn request(&self, verb: &'static str, code: u16) {
        // A poisoned lock still holds counts.
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *requests.entry((verb, code)).or_default() += 1;
    }

    /// In the Prometheus text format.
    pub(crate) fn render(&self, out: &mut String) {
        head(out, "reddwarf_api_requests_total", "counter", "Requests answered, by verb and status code.");
        let requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((verb, code), count) in requests.iter() {
            line(out, &format!("reddwarf_api_requests_total{{verb=\"{verb}\",code=\"{code}\"}}"), count);
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
