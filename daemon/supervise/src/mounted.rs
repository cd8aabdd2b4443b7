//! The system's table of mounts: what is mounted where, as this process sees it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where Linux (proc(5)) and illumos (mnttab(5)) show it, and which field, parted by what, is the mount point.
const TABLES: [(&str, u8, usize); 2] = [("/proc/thread-self/mountinfo", b' ', 4), ("/etc/mnttab", b'\t', 1)];

/// Mount points below `dir`, itself included. The path must be one without links.
///
/// # Errors
/// The table can't be read.
pub fn targets_below(dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut prefix = dir.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    for (table, parted, field) in TABLES {
        let bytes = match fs::read(table) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        // The table may be long: only lines that can match are parsed.
        let target = |line: &[u8]| line.split(|b| *b == parted).nth(field).map(|at| PathBuf::from(unescape(at)));
        let all = bytes.split(|b| *b == b'\n').filter_map(target);
        return Ok(all.filter(|t| t == dir || t.as_os_str().as_bytes().starts_with(&prefix)).collect());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "this system shows no table of mounts"))
}

/// Blank, tab, newline and backslash are written as `\` and three octal digits.
pub fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while let Some(&byte) = field.get(i) {
        let octal = field.get(i + 1..i + 4).filter(|d| byte == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(&[a, b, c]) = octal {
            out.push((a - b'0').wrapping_mul(64).wrapping_add((b - b'0') * 8).wrapping_add(c - b'0'));
            i += 4;
        } else {
            out.push(byte);
            i += 1;
        }
    }
    OsString::from_vec(out)
}
