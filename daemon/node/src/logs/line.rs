//! The CRI log format, one entry a line: `RFC3339Nano stdout|stderr F|P text`.

use super::{LogOptions, Output};
use chrono::{DateTime, Utc};

/// One entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written, as text.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the line goes on in the next entry.
    pub partial: bool,
    /// The text, without the newline.
    pub text: &'a [u8],
}

impl Line<'_> {
    /// When it was written; `None` where the text is no time after all.
    fn written(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(self.time).ok().map(|t| t.to_utc())
    }
}

/// Reads one entry. `None`: it is none (torn by a crash, or written by something else).
pub fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next().filter(|t| looks_like_a_time(t))?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => "stdout",
        b"stderr" => "stderr",
        _ => return None,
    };
    // Further tags may follow, separated by colons; the first one is it.
    let partial = match parts.next()?.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// `2026-01-02T03:04:05` and something after it. Reading every time in full would cost more than all else.
fn looks_like_a_time(text: &[u8]) -> bool {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    text.len() > SHAPE.len() && text.iter().zip(SHAPE).all(fits)
}

/// Whether an entry ends its line; an entry that can't be read does not.
pub(super) fn ends_a_line(entry: &[u8]) -> Option<bool> {
    parse_line(entry).map(|line| !line.partial)
}

/// Turns entries into what a client is sent.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) options: LogOptions,
    /// The entry before was a part of the same line.
    in_line: bool,
    sent: u64,
}

impl Filter {
    pub(super) fn new(options: LogOptions) -> Self {
        Self { options, in_line: false, sent: 0 }
    }

    /// Adds the bytes for one entry; nothing, when it is left out.
    pub(super) fn entry(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let wanted = |l: &Line<'_>| match self.options.output {
            Output::All => true,
            Output::Stdout => l.stream == "stdout",
            Output::Stderr => l.stream == "stderr",
        };
        let Some(line) = parse_line(raw).filter(wanted) else { return };
        if self.options.since.is_some_and(|since| line.written().is_some_and(|at| at < since)) {
            return;
        }
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.in_line = line.partial;
    }

    /// Cuts to what may still be sent; `false`: that was all.
    pub(super) fn limit(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(limit) = self.options.limit_bytes else { return true };
        let left = limit.saturating_sub(self.sent);
        if out.len() as u64 >= left {
            out.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.sent = limit;
            return false;
        }
        self.sent += out.len() as u64;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_taken_apart() {
        let line = parse_line(b"2026-01-01T00:00:01.5Z stderr P:more  two  words").unwrap();
        assert_eq!((line.time, line.stream, line.partial), ("2026-01-01T00:00:01.5Z", "stderr", true));
        assert_eq!(line.text, b" two  words");
        assert_eq!(parse_line(b"2026-01-01T00:00:01+02:00 stdout F").unwrap().text, b"");
        for bad in [
            "",
            "torn line",
            "2026-01-01T00:00:01 stdout F x",
            "2026-01-01T00:00:01Z stdin F x",
            "2026-01-01T00:00:01Z stdout X x",
        ] {
            assert_eq!(parse_line(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_line(&line);
        }
    }
}
