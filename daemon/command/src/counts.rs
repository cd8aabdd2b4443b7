//! How often and for how long each tool ran: one set of counts for the whole process, since metrics have one page.

use crate::cause::Cause;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets in seconds: from a quick listing to a zone's installation.
pub const BOUNDS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Most programs that are counted; what comes later is counted as one. Names come from code, so this is never reached.
const MOST: usize = 64;

/// One tool's counts since the start of this process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolCounts {
    /// How many ran to an end, good or bad.
    pub runs: u64,
    /// How many run now.
    pub running: u64,
    /// How many wait for their turn now.
    pub waiting: u64,
    /// Failures by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// How many took no longer than each of [`BOUNDS`], and longer than the one before.
    pub buckets: [u64; BOUNDS.len()],
    /// Seconds of all together.
    pub seconds: f64,
}

static COUNTS: Mutex<BTreeMap<String, ToolCounts>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<String, ToolCounts>> {
    // Counts are right even after a panic.
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(program: &str, with: impl FnOnce(&mut ToolCounts)) {
    let mut counts = held();
    let name = if counts.len() < MOST || counts.contains_key(program) { program } else { "other" };
    with(counts.entry(name.to_owned()).or_default());
}

/// All tools' counts, by program.
pub fn counts() -> BTreeMap<String, ToolCounts> {
    held().clone()
}

/// All counts in the Prometheus text format 0.0.4; empty while nothing ran.
pub fn exposition() -> String {
    let counts = counts();
    if counts.is_empty() {
        return String::new();
    }
    let mut text = String::from("# TYPE reddwarf_command_seconds histogram\n");
    for (program, tool) in &counts {
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(tool.buckets) {
            sum += count;
            let _ = writeln!(text, "reddwarf_command_seconds_bucket{{tool=\"{program}\",le=\"{bound}\"}} {sum}");
        }
        let ToolCounts { runs, seconds, .. } = tool;
        let _ = writeln!(text, "reddwarf_command_seconds_bucket{{tool=\"{program}\",le=\"+Inf\"}} {runs}");
        let _ = writeln!(text, "reddwarf_command_seconds_sum{{tool=\"{program}\"}} {seconds}");
        let _ = writeln!(text, "reddwarf_command_seconds_count{{tool=\"{program}\"}} {runs}");
    }
    text.push_str("# TYPE reddwarf_command_failures_total counter\n");
    for (program, tool) in &counts {
        for (cause, count) in &tool.failures {
            let _ = writeln!(text, "reddwarf_command_failures_total{{tool=\"{program}\",cause=\"{cause}\"}} {count}");
        }
    }
    text.push_str("# TYPE reddwarf_command_running gauge\n");
    for (program, tool) in &counts {
        let _ = writeln!(text, "reddwarf_command_running{{tool=\"{program}\"}} {}", tool.running);
    }
    text
}

/// One run: counted as waiting, then as running, then as ended, whatever becomes of its caller.
#[derive(Debug)]
pub(crate) struct Counted<'p> {
    program: Cow<'p, str>,
    started: Option<tokio::time::Instant>,
    failure: Option<Cause>,
}

impl<'p> Counted<'p> {
    pub(crate) fn waiting(program: impl Into<Cow<'p, str>>) -> Self {
        let program = program.into();
        change(&program, |c| c.waiting += 1);
        // What is dropped before it said otherwise was given up by its caller.
        Self { program, started: None, failure: Some(Cause::Other) }
    }

    pub(crate) fn runs(&mut self) {
        change(&self.program, |c| {
            c.waiting = c.waiting.saturating_sub(1);
            c.running += 1;
        });
        self.started = Some(tokio::time::Instant::now());
    }

    pub(crate) fn ended(mut self, failure: Option<Cause>) -> Duration {
        self.failure = failure;
        self.started.map(|s| s.elapsed()).unwrap_or_default()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.started.map(|s| s.elapsed().as_secs_f64());
        change(&self.program, |c| {
            match took {
                None => c.waiting = c.waiting.saturating_sub(1),
                Some(took) => {
                    c.running = c.running.saturating_sub(1);
                    c.runs += 1;
                    c.seconds += took;
                    if let Some(bucket) = BOUNDS.iter().position(|b| took <= *b).and_then(|i| c.buckets.get_mut(i)) {
                        *bucket += 1;
                    }
                }
            }
            if let Some(cause) = self.failure {
                *c.failures.entry(cause).or_default() += 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One set of counts for the process: a program of this test's own.
    #[tokio::test(start_paused = true)]
    async fn the_exposition_has_each_program_s_histogram_and_what_failed_and_goes_on() {
        for (milliseconds, failure) in [(3, None), (20, None), (90_000, Some(Cause::Busy)), (900_000, None)] {
            let mut counted = Counted::waiting("exposed");
            counted.runs();
            tokio::time::advance(Duration::from_millis(milliseconds)).await;
            assert_eq!(counted.ended(failure), Duration::from_millis(milliseconds));
        }
        let mut goes_on = Counted::waiting("exposed");
        goes_on.runs();
        let _waits = Counted::waiting("exposed");
        let text = exposition();
        let ours: Vec<&str> = text.lines().filter(|l| l.starts_with("# ") || l.contains("\"exposed\"")).collect();
        let bucket = |le: &str, n: u32| format!("reddwarf_command_seconds_bucket{{tool=\"exposed\",le=\"{le}\"}} {n}");
        let mut wanted = vec!["# TYPE reddwarf_command_seconds histogram".to_owned()];
        let counts = [
            ("0.005", 1),
            ("0.025", 2),
            ("0.1", 2),
            ("0.25", 2),
            ("0.5", 2),
            ("1", 2),
            ("5", 2),
            ("30", 2),
            ("120", 3),
        ];
        wanted.extend(counts.map(|(le, n)| bucket(le, n)));
        wanted.extend([
            bucket("600", 3),
            bucket("+Inf", 4),
            "reddwarf_command_seconds_sum{tool=\"exposed\"} 990.023".to_owned(),
            "reddwarf_command_seconds_count{tool=\"exposed\"} 4".to_owned(),
            "# TYPE reddwarf_command_failures_total counter".to_owned(),
            "reddwarf_command_failures_total{tool=\"exposed\",cause=\"busy\"} 1".to_owned(),
            "# TYPE reddwarf_command_running gauge".to_owned(),
            "reddwarf_command_running{tool=\"exposed\"} 1".to_owned(),
        ]);
        assert_eq!(ours, wanted);
    }
}
