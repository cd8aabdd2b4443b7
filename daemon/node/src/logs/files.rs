//! The files of one log: `x.log.2`, `x.log.1`, `x.log`, oldest first. They are renamed while they are read: what counts is
//! the file, not its name.

use super::line::ends_a_line;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Lists that turned out to be of a moment in the middle of a rotation are made again, so often.
const TRIES: usize = 20;
/// Read at a time, going backwards.
const BLOCK: u64 = 64 << 10;

/// A file that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) id: (u64, u64),
    /// Read up to here.
    pub(super) at: u64,
}

/// All files of a log, oldest first; none when there is no log yet.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for _ in 0..TRIES {
        opened = open_once(path)?;
        // The same files in the same order after they were opened: no rotation came between.
        let names = numbered(path)?;
        let ids: Vec<_> = names.iter().map(|(_, path)| id_of(path)).collect();
        if ids.iter().copied().eq(opened.iter().map(|o| Some(o.id))) {
            break;
        }
    }
    Ok(opened)
}

fn open_once(path: &Path) -> io::Result<Vec<Opened>> {
    let mut opened: Vec<Opened> = Vec::new();
    for (_, path) in numbered(path)? {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let id = identity(&file.metadata()?);
        if opened.iter().all(|o| o.id != id) {
            opened.push(Opened { file, id, at: 0 });
        }
    }
    Ok(opened)
}

/// Existing files by number, the highest (oldest) first; the current one is 0.
fn numbered(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some(rest) = file.to_str().and_then(|f| f.strip_prefix(name)) else { continue };
        let number = if rest.is_empty() { Some(0) } else { rest.strip_prefix('.').and_then(|n| n.parse().ok()) };
        found.extend(number.map(|n| (n, entry.path())));
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found)
}

/// The files that have been written after the one that `id` is, oldest first; empty: it is still the last one.
pub(super) fn newer_than(path: &Path, id: Option<(u64, u64)>) -> io::Result<Vec<Opened>> {
    match id_of(path) {
        // In the middle of a rotation there may be none.
        None => return Ok(Vec::new()),
        found if found == id => return Ok(Vec::new()),
        Some(_) => {}
    }
    let mut all = open_all(path)?;
    // One that is not there any more was older than all that are.
    let ours = all.iter().position(|o| Some(o.id) == id).map_or(0, |at| at + 1);
    Ok(all.split_off(ours))
}

fn id_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| identity(&m))
}

fn identity(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Leaves out all but the last `lines` lines, reading from the end only. Parts of one line count once.
pub(super) fn keep_tail(files: &mut Vec<Opened>, lines: u64) -> io::Result<()> {
    let mut search = TailSearch { wanted: lines, found: 0, in_last: true };
    for index in (0..files.len()).rev() {
        let Some(file) = files.get_mut(index) else { continue };
        let start = match lines {
            0 => Some(file.file.metadata()?.len()),
            _ => search.backwards(&file.file)?,
        };
        if let Some(start) = start {
            file.at = start;
            files.drain(..index);
            break;
        }
    }
    Ok(())
}

/// Looks for the beginning of the last lines, from the end of the newest file to the beginning of the oldest.
struct TailSearch {
    wanted: u64,
    /// Ends of lines that were passed.
    found: u64,
    /// No entry was passed yet.
    in_last: bool,
}

impl TailSearch {
    /// Where the tail begins in this file; `None`: in an older one, or at the very beginning.
    fn backwards(&mut self, file: &File) -> io::Result<Option<u64>> {
        let mut position = file.metadata()?.len();
        // The beginning of a line whose start was not read yet.
        let mut head: Vec<u8> = Vec::new();
        while position > 0 {
            let from = position.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(position - from).unwrap_or_default()];
            file.read_exact_at(&mut block, from)?;
            block.append(&mut head);
            let mut end = block.len();
            while end > 0 {
                let newline = block.get(..end - 1).and_then(|b| b.iter().rposition(|b| *b == b'\n'));
                let Some(start) = newline.map(|at| at + 1).or((from == 0).then_some(0)) else { break };
                let entry = block.get(start..end).unwrap_or_default();
                if self.passes(entry.strip_suffix(b"\n").unwrap_or(entry)) {
                    return Ok(Some(from + end as u64));
                }
                end = start;
            }
            block.truncate(end);
            head = block;
            position = from;
        }
        Ok(None)
    }

    /// Counts an entry; `true`: the tail begins behind it.
    fn passes(&mut self, entry: &[u8]) -> bool {
        match ends_a_line(entry) {
            Some(true) if self.found == self.wanted => return true,
            Some(true) => self.found += 1,
            // Text that has no end yet is a line as well.
            Some(false) if self.in_last => self.found += 1,
            Some(false) => {}
            None => return false,
        }
        self.in_last = false;
        false
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "log files of the tests' own")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn text(files: Vec<Opened>) -> String {
        let mut text = String::new();
        for mut opened in files {
            std::io::Seek::seek(&mut opened.file, io::SeekFrom::Start(opened.at)).unwrap();
            opened.file.read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn files_come_oldest_first_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.log", "0.log.1", "0.log.10", "0.log.2", "0.log.gz", "10.log", "1.log.1"] {
            std::fs::write(dir.path().join(name), format!("{name} ")).unwrap();
        }
        let path = dir.path().join("0.log");
        assert_eq!(text(open_all(&path).unwrap()), "0.log.10 0.log.2 0.log.1 0.log ");
        let all = open_all(&path).unwrap();
        assert_eq!(text(newer_than(&path, Some(all[1].id)).unwrap()), "0.log.1 0.log ");
        assert!(newer_than(&path, Some(all[3].id)).unwrap().is_empty());
        assert_eq!(newer_than(&path, None).unwrap().len(), 4);
        assert!(open_all(&dir.path().join("none/0.log")).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_tail_is_the_end_of_the_whole(
            entries in prop::collection::vec((any::<bool>(), 0usize..200_000, 0u8..3), 0..30),
            wanted in 0u64..12,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("0.log");
            let mut files = [String::new(), String::new(), String::new()];
            let mut whole = Vec::new();
            for (n, (full, length, _)) in entries.iter().enumerate() {
                // Few are long: blocks are to fall into lines and between them.
                let length = if length % 7 == 0 { *length } else { length % 40 };
                let entry = format!("2026-01-01T00:00:00Z stdout {} {n}-{}\n", if *full { 'F' } else { 'P' }, "x".repeat(length));
                whole.push((*full, entry.clone()));
                files[(n * 3 / entries.len().max(1)).min(2)].push_str(&entry);
            }
            for (name, text) in ["0.log.2", "0.log.1", "0.log"].iter().zip(&files) {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let mut opened = open_all(&path).unwrap();
            keep_tail(&mut opened, wanted).unwrap();
            // Lines of the whole text, each with its parts.
            let mut lines: Vec<String> = Vec::new();
            let mut open = false;
            for (full, entry) in whole {
                if open { lines.last_mut().unwrap().push_str(&entry) } else { lines.push(entry) }
                open = !full;
            }
            let from = lines.len().saturating_sub(usize::try_from(wanted).unwrap());
            prop_assert_eq!(text(opened), lines[from..].concat());
        }
    }
}
