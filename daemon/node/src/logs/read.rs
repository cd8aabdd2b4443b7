//! Reading a log from file to file, on a blocking thread.

use super::LogOptions;
use super::files::{self, Opened};
use super::line::Filter;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Read at a time.
const READ: usize = 128 << 10;
/// Handed on at a time, about.
const CHUNK: usize = 128 << 10;
/// A line longer than this is cut into parts: CRI writers cut at 16 KiB already.
const MAX_LINE: usize = 1 << 20;

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more at once.
    More,
    /// All that is there was read.
    Drained,
    /// The client is to have no more than this.
    Limit,
}

/// A log being read.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    follow: bool,
    filter: Filter,
    /// The file that is being read, and those after it.
    files: VecDeque<Opened>,
    /// The last file that was opened.
    last: Option<(u64, u64)>,
    /// What was read of the present file and is not handed on: less than a line, mostly.
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens all files at once: a rotation under way takes nothing away.
    pub(super) fn open(path: PathBuf, options: LogOptions) -> io::Result<Self> {
        let mut files = files::open_all(&path)?;
        let last = files.last().map(|f| f.id);
        if let Some(lines) = options.tail_lines {
            files::keep_tail(&mut files, lines)?;
        }
        let follow = options.follow;
        Ok(Self { path, follow, filter: Filter::new(options), files: files.into(), last, buffer: Vec::new() })
    }

    /// Reads on, and gives what is to be sent. With `rest`, text without a newline at the end counts.
    pub(super) fn step(&mut self, rest: bool) -> io::Result<(Vec<u8>, Progress)> {
        let mut out = Vec::new();
        while out.len() < CHUNK {
            let read = self.read()?;
            if read > 0 {
                self.hand_on(&mut out);
            } else if !self.next_file(&mut out)? {
                if rest {
                    self.hand_on_rest(&mut out);
                }
                let all = !self.filter.limit(&mut out);
                return Ok((out, if all { Progress::Limit } else { Progress::Drained }));
            }
        }
        let all = !self.filter.limit(&mut out);
        Ok((out, if all { Progress::Limit } else { Progress::More }))
    }

    /// Reads once from the present file; 0 at its end.
    fn read(&mut self) -> io::Result<usize> {
        let Some(file) = self.files.front_mut() else { return Ok(0) };
        let had = self.buffer.len();
        self.buffer.resize(had + READ, 0);
        let space = self.buffer.get_mut(had..).unwrap_or_default();
        let read = file.file.read_at(space, file.at);
        let count = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(had + count);
        file.at += count as u64;
        if count == 0 && file.file.metadata()?.len() < file.at {
            // Truncated in place: begin again at its new start.
            file.at = 0;
            self.buffer.clear();
        }
        read
    }

    /// Goes on to the next file, if there is one; what is left of the present one is handed on first.
    fn next_file(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.files.len() < 2 && self.follow {
            let newer = files::newer_than(&self.path, self.last)?;
            self.last = newer.last().map(|f| f.id).or(self.last);
            self.files.extend(newer);
        }
        if self.files.len() < 2 {
            return Ok(self.files.len() == 1 && self.is_fresh());
        }
        // What came between the last look and the rotation.
        while self.read()? > 0 {
            self.hand_on(out);
        }
        self.hand_on_rest(out);
        self.files.pop_front();
        Ok(true)
    }

    /// A file that was just opened and has something in it.
    fn is_fresh(&self) -> bool {
        self.files.front().is_some_and(|f| f.at == 0 && f.file.metadata().is_ok_and(|m| m.len() > 0))
    }

    /// Hands on the complete lines of the buffer.
    fn hand_on(&mut self, out: &mut Vec<u8>) {
        let mut done = 0;
        while let Some(end) = self.buffer.get(done..).and_then(|b| b.iter().position(|b| *b == b'\n')) {
            self.filter.entry(self.buffer.get(done..done + end).unwrap_or_default(), out);
            done += end + 1;
        }
        self.buffer.drain(..done);
        if self.buffer.len() >= MAX_LINE {
            self.hand_on_rest(out);
        }
    }

    fn hand_on_rest(&mut self, out: &mut Vec<u8>) {
        if !self.buffer.is_empty() {
            self.filter.entry(&self.buffer, out);
            self.buffer.clear();
        }
    }
}
