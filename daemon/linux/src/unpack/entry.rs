//! Reading tar archives: POSIX ustar with pax headers, and GNU long names (tar(5) of libarchive).
//!
//! The tar crate reads and checks the 512-byte headers; what they mean together is decided here, because pax values
//! are binary (an xattr may hold a newline) and every length is the archive's claim.

use super::error::{Result, UnpackError};
use std::io::Read;

/// The most that pax headers and long names of one entry may take.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// A further name of the entry at this path.
    Hardlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path as the archive says it.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits, setuid, setgid and sticky included.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) mtime: (i64, i64),
    /// Extended attributes (`SCHILY.xattr.`).
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where the bytes of one entry lie in an uncompressed archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Calls `each` with every entry and its content, in order.
///
/// # Errors
/// `Invalid` when the archive is damaged or uses a form that is not known here, and whatever `each` returns.
pub(crate) fn read_entries(
    input: impl Read,
    mut each: impl FnMut(Entry, Place, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let damaged = |e: &std::io::Error| UnpackError::io("read", "archive", e);
    let mut archive = tar::Archive::new(input);
    let mut extensions = Extensions::default();
    for raw in archive.entries().map_err(|e| damaged(&e))?.raw(true) {
        let mut raw = raw.map_err(|e| damaged(&e))?;
        match raw.header().entry_type().as_byte() {
            b'x' => extensions.add_pax(&read_extension(&mut raw)?)?,
            // Global headers: git and bsdtar put comments there.
            b'g' => {
                read_extension(&mut raw)?;
            }
            b'L' => extensions.path = Some(without_nul(read_extension(&mut raw)?)),
            b'K' => extensions.link = Some(without_nul(read_extension(&mut raw)?)),
            _ => {
                let place = Place { offset: raw.raw_file_position(), length: raw.size() };
                let entry = entry(raw.header(), raw.size(), std::mem::take(&mut extensions))?;
                each(entry, place, &mut raw)?;
            }
        }
    }
    if extensions != Extensions::default() {
        return Err(UnpackError::invalid("the archive ends after an extension header"));
    }
    Ok(())
}

/// What headers before an entry say about it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    fn add_pax(&mut self, bytes: &[u8]) -> Result<()> {
        let number = |v: &[u8]| -> Result<u64> {
            std::str::from_utf8(v).ok().and_then(|t| t.parse().ok()).ok_or_else(|| bad_pax("a number is none"))
        };
        for (key, value) in pax_records(bytes)? {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => self.mtime = Some(pax_time(value).ok_or_else(|| bad_pax("mtime is no time"))?),
                key if key.starts_with(b"GNU.sparse.") => return Err(bad_pax("sparse files are not known here")),
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn bad_pax(why: &str) -> UnpackError {
    UnpackError::invalid(format!("a pax header of the archive is damaged: {why}"))
}

/// Records `LENGTH KEY=VALUE\n`, LENGTH counting all of it (pax(1), "pax Header Format"). Values may hold any byte.
fn pax_records(mut bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(|| bad_pax("no length"))?;
        let (digits, _) = bytes.split_at(space);
        let length: usize = std::str::from_utf8(digits)
            .ok()
            .filter(|d| d.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|d| d.parse().ok())
            .ok_or_else(|| bad_pax("a length is no number"))?;
        let (record, rest) = bytes.split_at_checked(length).ok_or_else(|| bad_pax("a record is cut off"))?;
        let body = record
            .get(space + 1..)
            .and_then(|b| b.strip_suffix(b"\n"))
            .ok_or_else(|| bad_pax("a record has no end"))?;
        let equals = body.iter().position(|b| *b == b'=').ok_or_else(|| bad_pax("a record has no value"))?;
        let (key, value) = body.split_at(equals);
        records.push((key, value.get(1..).unwrap_or_default()));
        bytes = rest;
    }
    Ok(records)
}

/// `SECONDS[.FRACTION]`, possibly negative.
fn pax_time(value: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // Before 1970 a fraction counts backwards; utimensat(2) wants it forwards. Nobody needs it exact.
    Some(if seconds.starts_with('-') { (whole, 0) } else { (whole, nanos) })
}

fn read_extension(raw: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    raw.take(EXTENSION_LIMIT + 1).read_to_end(&mut bytes).map_err(|e| UnpackError::io("read", "archive", &e))?;
    if bytes.len() as u64 > EXTENSION_LIMIT {
        return Err(UnpackError::invalid("an entry's extension header has more than 1 MiB"));
    }
    Ok(bytes)
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn entry(header: &tar::Header, size: u64, extensions: Extensions) -> Result<Entry> {
    let Extensions { path, link, size: pax_size, uid, gid, mtime, xattrs } = extensions;
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let shown = String::from_utf8_lossy(&path).into_owned();
    let damaged = |what: &str| UnpackError::invalid(format!("entry {shown:?}: {what}"));
    let number = |value: std::io::Result<u64>, pax: Option<u64>, what: &str| {
        pax.map_or_else(|| value.map_err(|_| damaged(what)), Ok)
            .and_then(|n| u32::try_from(n).ok().filter(|n| *n != u32::MAX).ok_or_else(|| damaged(what)))
    };
    // Two sizes are two opinions on where the next entry begins.
    if pax_size.is_some_and(|s| s != size) {
        return Err(damaged("its pax header says another size than its header"));
    }
    let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
    let target = || link.clone().filter(|l| !l.is_empty()).ok_or_else(|| damaged("it is a link to nothing"));
    let kind = match header.entry_type().as_byte() {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 | b'0' if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' => EntryKind::File(size),
        b'1' => EntryKind::Hardlink(target()?),
        b'2' => EntryKind::Symlink(target()?),
        b'3' | b'4' => EntryKind::Device,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(damaged(&format!("its type {:?} is not known here", char::from(other)))),
    };
    Ok(Entry {
        kind,
        mode: header.mode().map_err(|_| damaged("its mode is no number"))? & 0o7777,
        uid: number(header.uid(), uid, "its owner is no number")?,
        gid: number(header.gid(), gid, "its group is no number")?,
        mtime: mtime.unwrap_or_else(|| (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0)),
        xattrs,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        read_entries(bytes, |e, _, _| {
            found.push(e);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn pax_values_may_hold_newlines() {
        assert_eq!(
            pax_records(b"12 path=a/b\n20 SCHILY.x=1\n2\n3=4\n").unwrap(),
            [(&b"path"[..], &b"a/b"[..]), (b"SCHILY.x", b"1\n2\n3=4")]
        );
        for bad in [&b"99 path=x\n"[..], b"x path=x\n", b"8 path=x", b"9 pathxxx\n", b"+9 path=\n", b"0 \n"] {
            assert!(pax_records(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(pax_time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(pax_time(b"-1"), Some((-1, 0)));
        assert_eq!(pax_time(b"1.x"), None);
        assert_eq!(pax_time("1.é".as_bytes()), None);
    }

    #[test]
    fn a_pax_size_of_its_own_is_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"4096"[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("a").unwrap();
        header.set_size(1);
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        let error = all(&builder.into_inner().unwrap()).unwrap_err();
        assert_eq!(error.message, "entry \"a\": its pax header says another size than its header");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = all(&bytes);
        }

        #[test]
        fn any_pax_header_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pax_records(&bytes);
        }
    }
}
