//! Reads containers' logs: CRI lines (`RFC3339Nano stdout|stderr F|P text`), rotated files included, followed if asked.

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);
/// A line longer than this is cut into parts: CRI writers cut at 16 KiB already.
const MAX_LINE: usize = 1 << 20;
/// Read at a time.
const CHUNK: usize = 64 << 10;
/// Most lines kept for `tail`; who asks for more gets all.
const MAX_TAIL: u64 = 1_000_000;

/// Which part of a log (Kubernetes `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with new lines until the instance has ended.
    pub follow: bool,
    /// The instance before the last one.
    pub previous: bool,
    /// Only lines at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Put its time before every line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Of which output.
    pub output: Output,
}

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Both, as they came.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    fn wants(self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Stdout => stream == "stdout",
            Self::Stderr => stream == "stderr",
        }
    }
}

/// One line of a log.
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

/// Reads one CRI line. `None`: it is none (torn by a crash, or written by something else).
pub fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
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
    DateTime::parse_from_rfc3339(time).ok()?;
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// Turns CRI lines into what a client is sent.
#[derive(Debug)]
struct Filter {
    options: LogOptions,
    /// The entry before was a part of the same line.
    in_line: bool,
    sent: u64,
}

impl Filter {
    /// The bytes for one entry; empty: it is left out.
    fn entry(&mut self, raw: &[u8]) -> Vec<u8> {
        let Some(line) = parse_line(raw).filter(|l| self.options.output.wants(l.stream)) else { return Vec::new() };
        if let Some(since) = self.options.since
            && DateTime::parse_from_rfc3339(line.time).is_ok_and(|t| t.to_utc() < since)
        {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(line.text.len() + 40);
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.in_line = line.partial;
        out
    }

    /// Cuts to what may still be sent; `false`: that was all.
    fn limit(&mut self, out: &mut Vec<u8>) -> bool {
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

/// Whether what is followed has ended, so that no more lines will come.
pub type Ended = Box<dyn Fn() -> bool + Send + Sync>;

/// Sends a log's chunks until its end, or, when followed, until `ended` says that no more will come. Stops when the
/// receiver is dropped.
pub fn stream(path: PathBuf, options: LogOptions, ended: Ended) -> mpsc::Receiver<io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = send(&path, options, &ended, &chunks).await {
            // The reader may be gone; then nobody is to be told.
            let _ = chunks.send(Err(error)).await;
        }
    });
    receiver
}

async fn send(
    path: &Path,
    options: LogOptions,
    ended: &Ended,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let follow = options.follow;
    let tail = options.tail_lines.filter(|n| *n < MAX_TAIL);
    let mut filter = Filter { options, in_line: false, sent: 0 };
    let mut last_lines: VecDeque<Vec<u8>> = VecDeque::new();
    let mut current = None;
    for file in rotated(path).await {
        let Ok(file) = File::open(&file).await else { continue };
        let mut reader = Lines { file, buffer: BytesMut::new() };
        while let Some(line) = reader.next(true).await? {
            match tail {
                Some(tail) => keep_last(&mut last_lines, &mut filter, &line, tail),
                None => {
                    if !pass(&mut filter, &line, chunks).await {
                        return Ok(());
                    }
                }
            }
        }
        current = Some(reader);
    }
    for mut out in last_lines {
        let more = filter.limit(&mut out);
        if chunks.send(Ok(out.into())).await.is_err() || !more {
            return Ok(());
        }
    }
    if follow { go_on(path, current, filter, ended, chunks).await } else { Ok(()) }
}

/// Keeps the last lines; parts of one line count once.
fn keep_last(last: &mut VecDeque<Vec<u8>>, filter: &mut Filter, line: &[u8], tail: u64) {
    let continues = filter.in_line;
    let out = filter.entry(line);
    if out.is_empty() {
        return;
    }
    match last.back_mut().filter(|_| continues) {
        Some(begun) => begun.extend(out),
        None => last.push_back(out),
    }
    while last.len() as u64 > tail {
        last.pop_front();
    }
}

/// Sends one entry; `false`: no more is wanted.
async fn pass(filter: &mut Filter, line: &[u8], chunks: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    let mut out = filter.entry(line);
    let more = filter.limit(&mut out);
    if !out.is_empty() && chunks.send(Ok(out.into())).await.is_err() {
        return false;
    }
    more
}

/// Follows the current file, and its successor when it is rotated away.
async fn go_on(
    path: &Path,
    mut current: Option<Lines>,
    mut filter: Filter,
    ended: &Ended,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    loop {
        // Asked before reading: what was written before the end is then read after it.
        let last = ended();
        if let Some(reader) = &mut current {
            while let Some(line) = reader.next(last).await? {
                if !pass(&mut filter, &line, chunks).await {
                    return Ok(());
                }
            }
        }
        if let Some(newer) = newer_than(path, current.as_ref()).await {
            for file in newer {
                if let Some(mut old) = current.take() {
                    // What came between the last look and the rotation.
                    while let Some(line) = old.next(true).await? {
                        if !pass(&mut filter, &line, chunks).await {
                            return Ok(());
                        }
                    }
                }
                current = Some(Lines { file, buffer: BytesMut::new() });
            }
            continue;
        }
        if last {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = chunks.closed() => return Ok(()),
        }
    }
}

/// The files that have been written after the one that is being read, oldest first; `None`: it is still the last one.
async fn newer_than(path: &Path, current: Option<&Lines>) -> Option<Vec<File>> {
    let id = |m: &std::fs::Metadata| (m.dev(), m.ino());
    let ours = match current {
        Some(reader) => Some(id(&reader.file.metadata().await.ok()?)),
        None => None,
    };
    let there = tokio::fs::metadata(path).await.ok()?;
    if Some(id(&there)) == ours {
        return None;
    }
    let mut newer = Vec::new();
    // Newest first, back to ours: it may have been rotated away more than once since the last look.
    for file in rotated(path).await.into_iter().rev() {
        let Ok(file) = File::open(&file).await else { continue };
        if file.metadata().await.is_ok_and(|m| Some(id(&m)) == ours) {
            break;
        }
        newer.push(file);
        if ours.is_none() {
            break;
        }
    }
    newer.reverse();
    (!newer.is_empty()).then_some(newer)
}

/// Existing files of a log, oldest first: `x.log.2`, `x.log.1`, `x.log`.
async fn rotated(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    for n in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        let older = PathBuf::from(name);
        if tokio::fs::metadata(&older).await.is_err() {
            break;
        }
        files.push(older);
    }
    files.reverse();
    files
}

/// A file's lines.
struct Lines {
    file: File,
    buffer: BytesMut,
}

impl Lines {
    /// The next complete line without its newline; `None` at the present end. With `rest`, a last line without a
    /// newline counts.
    async fn next(&mut self, rest: bool) -> io::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(searched + at + 1).freeze();
                line.truncate(searched + at);
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched >= MAX_LINE {
                return Ok(Some(self.buffer.split().freeze()));
            }
            self.buffer.reserve(CHUNK);
            if self.file.read_buf(&mut self.buffer).await? == 0 {
                // Truncated in place: begin again at its new start.
                let (at, size) = (self.file.stream_position().await?, self.file.metadata().await?.len());
                if size < at {
                    self.file.rewind().await?;
                    self.buffer.clear();
                    searched = 0;
                    continue;
                }
                let line = (rest && !self.buffer.is_empty()).then(|| self.buffer.split().freeze());
                return Ok(line);
            }
        }
    }
}

#[cfg(test)]
// Log files of the tests' own: what the lint guards, atomic replacement, is not wanted of them.
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::AsyncWriteExt;

    async fn read(path: &Path, options: LogOptions) -> String {
        let mut chunks = stream(path.to_owned(), options, Box::new(|| true));
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn log(directory: &Path) -> PathBuf {
        let path = directory.join("0.log");
        std::fs::write(directory.join("0.log.1"), "2026-01-01T00:00:01.5Z stdout F one\ntorn line\n").unwrap();
        std::fs::write(
            &path,
            "2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02.1Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n",
        )
        .unwrap();
        path
    }

    #[tokio::test]
    async fn rotated_files_partial_lines_and_torn_lines_are_read_as_one_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        assert_eq!(read(&path, LogOptions::default()).await, "one\ntwo\nthree\n");
        let timestamps = LogOptions { timestamps: true, ..LogOptions::default() };
        assert_eq!(
            read(&path, timestamps).await,
            "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n"
        );
    }

    #[tokio::test]
    async fn tail_since_and_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        let tail = |n| LogOptions { tail_lines: Some(n), ..LogOptions::default() };
        assert_eq!(read(&path, tail(2)).await, "two\nthree\n");
        assert_eq!(read(&path, tail(0)).await, "");
        let since = LogOptions { since: Some("2026-01-01T00:00:02Z".parse().unwrap()), ..LogOptions::default() };
        assert_eq!(read(&path, since).await, "two\nthree\n");
        let limit = LogOptions { limit_bytes: Some(6), ..LogOptions::default() };
        assert_eq!(read(&path, limit).await, "one\ntw");
        let both = LogOptions { limit_bytes: Some(5), ..tail(2) };
        assert_eq!(read(&path, both).await, "two\nt");
    }

    #[tokio::test]
    async fn following_goes_on_over_a_rotation_and_ends_with_the_container() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut chunks = stream(path.clone(), options, Box::new(move || ended.load(Ordering::SeqCst)));
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "one\n");
        let mut file = File::options().append(true).open(&path).await.unwrap();
        file.write_all(b"2026-01-01T00:00:02Z stdout F two\n").await.unwrap();
        file.flush().await.unwrap();
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "two\n");
        file.write_all(b"2026-01-01T00:00:02Z stdout F late\n").await.unwrap();
        file.flush().await.unwrap();
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:03Z stdout F three\n").unwrap();
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "late\n");
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "three\n");
        over.store(true, Ordering::SeqCst);
        assert!(chunks.recv().await.is_none());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_line(&line);
        }
    }
}
