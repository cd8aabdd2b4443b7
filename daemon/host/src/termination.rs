//! A container's last words: what it left in its termination message file, or the end of its log.

use serde::{Deserialize, Serialize};

/// Bytes taken from the file: its last ones (the kubelet's limit).
const FILE_BYTES: usize = 4096;
/// Bytes taken from the log.
const LOG_BYTES: usize = 2048;
/// Lines taken from the log.
pub const LOG_LINES: usize = 80;

/// Where a container may leave its last words, and what stands in for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// Absolute path inside of a file that the host provides, writable by everyone; `""`: none.
    pub path: String,
    /// Take the end of the log when it ended badly and left no words.
    pub fall_back_to_log: bool,
}

impl TerminationMessage {
    /// The message of a container that ended with `code`, from what it left and the last lines of its log, which are
    /// only read where they count.
    pub fn of(&self, code: i32, file: &[u8], log: impl FnOnce() -> Vec<u8>) -> String {
        let left = text(end(file, FILE_BYTES));
        if left.is_empty() && self.fall_back_to_log && code != 0 {
            return text(last_lines(&log()));
        }
        left
    }
}

fn end(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default()
}

fn last_lines(log: &[u8]) -> &[u8] {
    let mut breaks = log.iter().enumerate().rev().filter(|(at, b)| **b == b'\n' && at + 1 < log.len());
    let begin = breaks.nth(LOG_LINES - 1).map_or(0, |(at, _)| at + 1);
    end(log.get(begin..).unwrap_or_default(), LOG_BYTES)
}

/// As text, without what a cut left of a character at the front.
fn text(bytes: &[u8]) -> String {
    let cut = bytes.iter().take(3).take_while(|b| **b & 0xc0 == 0x80).count();
    String::from_utf8_lossy(bytes.get(cut..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fall_back_to_log: bool) -> TerminationMessage {
        TerminationMessage { path: "/dev/termination-log".into(), fall_back_to_log }
    }

    #[test]
    fn the_file_comes_first_and_the_log_only_after_a_failure() {
        let log = || b"one\ntwo\n".to_vec();
        assert_eq!(message(true).of(1, b"left\n", log), "left\n");
        assert_eq!(message(true).of(1, b"", log), "one\ntwo\n");
        assert_eq!(message(true).of(0, b"", log), "");
        assert_eq!(message(false).of(1, b"", log), "");
    }

    #[test]
    fn ends_are_kept_and_limits_hold() {
        let file: Vec<u8> = "ü".repeat(3000).into_bytes();
        let said = message(false).of(0, &file[1..], Vec::new);
        assert_eq!(said, "ü".repeat(2048));
        let lines: String = (0..200).map(|n| format!("line {n}\n")).collect();
        let said = message(true).of(1, b"", || lines.clone().into_bytes());
        assert_eq!((said.lines().count(), said.lines().next()), (LOG_LINES, Some("line 120")));
        let long = message(true).of(1, b"", || vec![b'x'; 10_000]);
        assert_eq!(long.len(), LOG_BYTES);
        assert_eq!(message(true).of(1, b"", || b"no newline".to_vec()), "no newline");
        assert_eq!(message(true).of(1, &[0xff, 0xfe], Vec::new), "\u{fffd}\u{fffd}");
    }
}
