//! A container's log: the CRI format (`RFC3339Nano stdout|stderr F|P text`), rotated by size.
//!
//! Lines longer than 16 KiB are cut into parts marked `P`, the last one `F`; text without a newline at the very end is
//! marked `P` too, so that joining the parts gives exactly what was written.

use reddwarf_host::spec::LogSpec;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Longest text on one line of the file, as containerd and CRI-O have it.
const LONGEST: usize = 16 * 1024;

/// Where a text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts one stream into lines.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    /// Nothing read yet.
    pub fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes what was read and hands on all that is complete.
    pub fn push(&mut self, mut bytes: &[u8], log: &mut Log) {
        while !bytes.is_empty() {
            let room = LONGEST - self.pending.len();
            match bytes.iter().take(room).position(|b| *b == b'\n') {
                Some(end) => {
                    self.emit(&bytes[..end], 'F', log);
                    bytes = &bytes[end + 1..];
                }
                // Exactly full and the newline comes next: still one whole line.
                None if bytes.len() > room && bytes[room] == b'\n' => {
                    self.emit(&bytes[..room], 'F', log);
                    bytes = &bytes[room + 1..];
                }
                None if bytes.len() > room => {
                    self.emit(&bytes[..room], 'P', log);
                    bytes = &bytes[room..];
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    fn emit(&mut self, more: &[u8], tag: char, log: &mut Log) {
        log.line(self.stream, tag, &self.pending, more);
        self.pending.clear();
    }

    /// End of the stream.
    pub fn finish(&mut self, log: &mut Log) {
        if !self.pending.is_empty() {
            self.emit(&[], 'P', log);
        }
        self.pending = Vec::new();
    }
}

/// The file being written.
#[derive(Debug)]
pub struct Log {
    spec: LogSpec,
    file: Option<File>,
    size: u64,
    /// Lines since the last write.
    batch: Vec<u8>,
}

impl Log {
    /// Opens the file, which may hold an earlier attempt's lines.
    pub fn open(spec: LogSpec) -> io::Result<Self> {
        let mut log = Self { spec, file: None, size: 0, batch: Vec::new() };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file =
            OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(&self.spec.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn line(&mut self, stream: Stream, tag: char, first: &[u8], second: &[u8]) {
        let now = crate::record::wall_time().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        // Writing to a Vec can't fail.
        let _ = write!(self.batch, "{now} {} {tag} ", stream.name());
        self.batch.extend_from_slice(first);
        self.batch.extend_from_slice(second);
        self.batch.push(b'\n');
        if self.batch.len() as u64 >= self.spec.max_bytes.min(64 * 1024) {
            self.flush();
        }
    }

    /// Writes what has gathered. A full disk loses lines, it never holds the container up.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let full = self.size > 0 && self.size + self.batch.len() as u64 > self.spec.max_bytes;
        if full && let Err(e) = self.rotate() {
            eprintln!("rotating {}: {e}", self.spec.path.display());
        }
        if self.file.is_none() {
            let _ = self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.batch) {
                Ok(()) => self.size += self.batch.len() as u64,
                Err(e) => eprintln!("writing {}: {e}", self.spec.path.display()),
            }
        }
        self.batch.clear();
        self.batch.shrink_to(32 * 1024);
    }

    /// `log` becomes `log.1`, `log.1` `log.2`, …; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.spec.max_files.max(1) - 1;
        if oldest == 0 {
            fs::remove_file(&self.spec.path)?;
            return self.reopen();
        }
        for number in (1..oldest).rev() {
            let from = self.rotated(number);
            if from.exists() {
                fs::rename(from, self.rotated(number + 1))?;
            }
        }
        fs::rename(&self.spec.path, self.rotated(1))?;
        self.reopen()
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name: OsString = self.spec.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &tempfile::TempDir, max_bytes: u64, max_files: u32) -> Log {
        Log::open(LogSpec { path: dir.path().join("0.log"), max_bytes, max_files }).unwrap()
    }

    /// Lines without their times.
    fn lines(path: PathBuf) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_whole_wherever_the_reads_fall() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(&dir, 1 << 20, 2);
        let mut out = Lines::new(Stream::Stdout);
        let mut err = Lines::new(Stream::Stderr);
        out.push(b"on", &mut log);
        err.push(b"oops\n", &mut log);
        out.push(b"e\ntwo\n\nend", &mut log);
        out.finish(&mut log);
        log.flush();
        assert_eq!(
            lines(dir.path().join("0.log")),
            ["stderr F oops", "stdout F one", "stdout F two", "stdout F ", "stdout P end"]
        );
        let text = fs::read_to_string(dir.path().join("0.log")).unwrap();
        let time = text.split(' ').next().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn long_lines_are_cut_and_joined_again_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(&dir, 1 << 20, 2);
        let mut out = Lines::new(Stream::Stdout);
        let text: Vec<u8> = (0..LONGEST * 2 + 5).map(|i| b'a' + (i % 26) as u8).collect();
        for chunk in text.chunks(1000) {
            out.push(chunk, &mut log);
        }
        out.push(b"\n", &mut log);
        out.push(&vec![b'x'; LONGEST], &mut log);
        out.push(b"\n", &mut log);
        log.flush();
        let lines = lines(dir.path().join("0.log"));
        let tags: Vec<&str> = lines.iter().map(|l| &l[..8]).collect();
        assert_eq!(tags, ["stdout P", "stdout P", "stdout F", "stdout F"], "exactly 16 KiB is one line");
        let joined: String = lines[..3].iter().map(|l| &l[9..]).collect();
        assert_eq!(joined.as_bytes(), text);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(&dir, 200, 3);
        let mut out = Lines::new(Stream::Stdout);
        for n in 0..40 {
            out.push(format!("line {n}\n").as_bytes(), &mut log);
            log.flush();
        }
        let names = crate::files::names_in(dir.path()).unwrap();
        assert_eq!(names.len(), 3, "{names:?}");
        for name in names {
            assert!(fs::metadata(dir.path().join(&name)).unwrap().len() <= 200, "{name}");
        }
        assert_eq!(lines(dir.path().join("0.log")).last().unwrap(), "stdout F line 39");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(chunks in proptest::collection::vec("[ab\n]{0,40}", 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = log(&dir, 1 << 20, 2);
            let mut out = Lines::new(Stream::Stdout);
            for chunk in &chunks {
                out.push(chunk.as_bytes(), &mut log);
            }
            out.finish(&mut log);
            log.flush();
            let back: String = lines(dir.path().join("0.log")).iter().map(|l| {
                let (tag, text) = (&l[7..8], &l[9..]);
                if tag == "F" { format!("{text}\n") } else { text.to_owned() }
            }).collect();
            proptest::prop_assert_eq!(back, chunks.concat());
        }
    }
}
