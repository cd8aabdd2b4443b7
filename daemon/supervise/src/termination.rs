//! A container's last words, read at its end: from the file that it may write, or from its log.

use reddwarf_host::spec::{LogSpec, TerminationMessage};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes read from the end of either file: more than counts of both, with the log's times around the text.
const READ: u64 = 64 * 1024;

/// The message of an end with this code.
pub fn message(wanted: &TerminationMessage, file: Option<&Path>, code: i32, log: &LogSpec) -> String {
    let left = file.map(|f| end_of(f).0).unwrap_or_default();
    wanted.of(code, &left, || end_of_log(log))
}

/// What was printed last, without times; the file before the last rotation stands in for a new one.
fn end_of_log(log: &LogSpec) -> Vec<u8> {
    let (newest, whole) = end_of(&log.path);
    let mut out = Vec::new();
    if whole && (newest.len() as u64) < READ / 2 {
        let mut before = log.path.clone().into_os_string();
        before.push(".1");
        let (before, whole) = end_of(&PathBuf::from(before));
        texts(&before, whole, &mut out);
    }
    texts(&newest, whole, &mut out);
    out
}

/// The texts of CRI lines (`TIME STREAM TAG TEXT`); the first one only of a file that was read from its start.
fn texts(lines: &[u8], whole: bool, out: &mut Vec<u8>) {
    for line in lines.split_inclusive(|b| *b == b'\n').skip(usize::from(!whole)) {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(_), Some(_), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        out.extend_from_slice(text);
        if tag.starts_with(b"F") {
            out.push(b'\n');
        }
    }
}

/// The end of a file, and whether that is all of it. One that can't be read has said nothing.
fn end_of(path: &Path) -> (Vec<u8>, bool) {
    let read = || -> std::io::Result<(Vec<u8>, bool)> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let from = file.metadata()?.len().saturating_sub(READ);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(READ).read_to_end(&mut bytes)?;
        Ok((bytes, from == 0))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests write where nobody else reads")]
    use super::*;

    #[test]
    fn the_end_of_a_log_is_read_across_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let log = LogSpec { path: path.clone(), max_bytes: 1 << 20, max_files: 3 };
        let line = |tag: &str, text: &str| format!("2026-01-01T00:00:00.000000000Z stdout {tag} {text}\n");
        std::fs::write(dir.path().join("0.log.1"), line("F", "old one")).unwrap();
        std::fs::write(&path, line("P", "half ") + &line("F", "whole line") + &line("P", "end")).unwrap();
        assert_eq!(end_of_log(&log), b"old one\nhalf whole line\nend");
        let many: String = (0..5000).map(|n| line("F", &format!("{n}"))).collect();
        std::fs::write(&path, many).unwrap();
        let end = String::from_utf8(end_of_log(&log)).unwrap();
        assert!(end.ends_with("4998\n4999\n") && !end.contains("old one"), "{end}");
        let wanted = TerminationMessage { path: "/x".into(), fall_back_to_log: true };
        assert_eq!(message(&wanted, None, 1, &log).lines().count(), 80);
        let left = dir.path().join("termination-log");
        std::fs::write(&left, "left").unwrap();
        assert_eq!(message(&wanted, Some(&left), 1, &log), "left");
        assert_eq!(message(&wanted, Some(&dir.path().join("absent")), 0, &log), "");
    }
}
