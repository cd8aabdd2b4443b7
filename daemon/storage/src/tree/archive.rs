//! Whether a stream is whole. tar(1) and btrfs(8) take the end of a file for the end of the stream when it falls between two
//! members or commands, and say that all went well: so the way to the end is walked here, before anything is made of it.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// A tar archive is made of blocks of so many bytes.
const BLOCK: usize = 512;

/// What is wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    #[error(
        "the stream is cut off: the file ends after {0} bytes, before the stream does; send it again, or copy all of it"
    )]
    Cut(u64),
    #[error("the stream is damaged: {what} at byte {at}")]
    Damaged { at: u64, what: &'static str },
    #[error("{0}")]
    Read(#[from] io::Error),
}

/// A file that is walked through, and where in it we are.
struct Walk<R> {
    file: R,
    at: u64,
    length: u64,
}

impl<R: BufRead + Seek> Walk<R> {
    fn new(mut file: R) -> Result<Self, Flaw> {
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { file, at: 0, length })
    }

    fn damaged<T>(&self, what: &'static str) -> Result<T, Flaw> {
        Err(Flaw::Damaged { at: self.at, what })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let mut bytes = [0; N];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => {
                self.at = self.at.saturating_add(N as u64);
                Ok(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Flaw::Cut(self.length)),
            Err(e) => Err(e.into()),
        }
    }

    /// Passes over bytes that must be there.
    fn skip(&mut self, bytes: u64) -> Result<(), Flaw> {
        let to = self.at.checked_add(bytes).filter(|to| *to <= self.length).ok_or(Flaw::Cut(self.length))?;
        let forward = i64::try_from(bytes).map_err(io::Error::other)?;
        // Within what is buffered already, if it can be: most members are small.
        self.file.seek_relative(forward)?;
        self.at = to;
        Ok(())
    }

    /// The size of the next member, if these records of a `pax` header say one (POSIX.1-2017, pax, "Extended Header").
    fn pax_size(&mut self, bytes: u64) -> Result<Option<u64>, Flaw> {
        const KEY: &[u8] = b"size=";
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.length).ok_or(Flaw::Cut(self.length))?;
        let mut size = None;
        while self.at < end {
            let mut digits = Vec::new();
            let most = (end - self.at).min(20);
            let begin = self.at;
            self.at += self.file.by_ref().take(most).read_until(b' ', &mut digits)? as u64;
            let length = digits.strip_suffix(b" ").and_then(number);
            let Some(next) = length.and_then(|l| begin.checked_add(l)).filter(|n| *n > self.at && *n <= end) else {
                return self.damaged("a record of no length");
            };
            let mut start = Vec::new();
            let short = (next - self.at).min(32);
            self.at += self.file.by_ref().take(short).read_to_end(&mut start)? as u64;
            if let Some(text) = start.strip_prefix(KEY) {
                size = text.strip_suffix(b"\n").and_then(number);
                if size.is_none() {
                    return self.damaged("a size that is no number");
                }
            }
            self.skip(next.saturating_sub(self.at))?;
        }
        Ok(size)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A number in a header: octal, or, where it is too large for that, binary with the first bit set (GNU).
fn octal(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => rest.iter().try_fold(0_u64, |n, byte| n.checked_mul(256)?.checked_add(u64::from(*byte))),
        _ => {
            let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
            if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
        }
    }
}

/// The sum of a header's bytes, its own field taken for spaces.
fn sum(header: &[u8; BLOCK]) -> u64 {
    let counted = header.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { b' ' } else { *byte });
    counted.map(u64::from).sum()
}

/// Walks a tar archive (POSIX or GNU) from header to header: it must come to its end, two blocks of zeros. What follows
/// them fills up the last record and is nobody's.
pub(super) fn tar(file: impl BufRead + Seek) -> Result<(), Flaw> {
    let mut walk = Walk::new(file)?;
    let mut size_of_next = None;
    loop {
        let begin = walk.at;
        let header: [u8; BLOCK] = walk.take()?;
        if header == [0; BLOCK] {
            let second: [u8; BLOCK] = walk.take()?;
            return if second == [0; BLOCK] { Ok(()) } else { walk.damaged("half an end") };
        }
        let bad = |what| Err(Flaw::Damaged { at: begin, what });
        if octal(&header[148..156]) != Some(sum(&header)) {
            return bad("a header whose sum is not right");
        }
        let Some(size) = octal(&header[124..136]) else { return bad("a size that is no number") };
        let content = match header[156] {
            b'x' => {
                size_of_next = walk.pax_size(size)?;
                walk.skip(padding(size))?;
                continue;
            }
            // Belong to the next member as well, and to what was said of it.
            b'g' | b'L' | b'K' => size,
            // A link has nothing of its own, whatever it says.
            b'1' => {
                size_of_next = None;
                0
            }
            // GNU's own form of sparse files: the map may go on in further blocks.
            b'S' => {
                let mut more = header[482];
                while more != 0 {
                    let map: [u8; BLOCK] = walk.take()?;
                    more = map[504];
                }
                size_of_next.take().unwrap_or(size)
            }
            _ => size_of_next.take().unwrap_or(size),
        };
        walk.skip(content)?;
        walk.skip(padding(content))?;
    }
}

/// What fills up the last block of so many bytes.
fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % BLOCK as u64
}

/// Walks a stream of btrfs from command to command (linux/fs/btrfs/send.h): it must come to the one that ends it.
pub(super) fn btrfs(file: impl BufRead + Seek) -> Result<(), Flaw> {
    /// Magic and version.
    const HEAD: u64 = 17;
    const END: [u8; 2] = [21, 0];
    let mut walk = Walk::new(file)?;
    walk.skip(HEAD)?;
    loop {
        // Length of what follows (4), number (2), checksum (4).
        let command: [u8; 10] = walk.take()?;
        let [a, b, c, d, first, second, ..] = command;
        walk.skip(u64::from(u32::from_le_bytes([a, b, c, d])))?;
        if [first, second] == END {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn header(kind: u8, size: &str) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..4].copy_from_slice(b"data");
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        let sum = sum(&block.clone().try_into().unwrap());
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn filled(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn check(archive: &[u8]) -> Result<(), Flaw> {
        tar(Cursor::new(archive))
    }

    /// Every kind of member: a directory, a file that ends with zeros, one whose size is in a pax record, a hard link that
    /// says a size, an old sparse file with two maps.
    fn archive() -> (Vec<u8>, usize) {
        let mut sparse = header(b'S', "00000000003");
        sparse[482] = 1;
        let total = sum(&sparse.clone().try_into().unwrap());
        sparse[148..156].copy_from_slice(format!("{total:06o}\0 ").as_bytes());
        let (mut first, last) = (vec![0; BLOCK], vec![0; BLOCK]);
        first[504] = 1;
        let parts = [
            header(b'5', "00000000000"),
            header(b'0', "00000002000"),
            vec![0; 1024],
            header(b'x', "00000000040"),
            filled(b"20 path=data/larger\n12 size=700\n".to_vec()),
            header(b'0', "00000000000"),
            filled(vec![1; 700]),
            header(b'1', "00000000700"),
            header(b'L', "00000000011"),
            filled(b"long name".to_vec()),
            sparse,
            first,
            last,
            filled(b"abc".to_vec()),
        ];
        let mut archive = parts.concat();
        let end = archive.len() + 2 * BLOCK;
        archive.resize(end.next_multiple_of(20 * BLOCK), 0);
        (archive, end)
    }

    #[test]
    fn an_archive_is_whole_only_with_its_end() {
        let (archive, end) = archive();
        check(&archive).unwrap();
        for length in 0..archive.len() {
            let walked = check(&archive[..length]);
            if length < end {
                assert!(matches!(walked, Err(Flaw::Cut(at)) if at == length as u64), "{length}: {walked:?}");
            } else {
                walked.unwrap();
            }
        }
        let mut odd = archive.clone();
        odd[end - 1] = 1;
        assert!(matches!(check(&odd), Err(Flaw::Damaged { .. })), "a lone block of zeros");
        let mut odd = archive;
        odd[3] = b'b';
        assert!(matches!(check(&odd), Err(Flaw::Damaged { at: 0, .. })), "the sum tells");
    }

    #[test]
    fn numbers_are_read_in_both_forms() {
        assert_eq!(octal(b"00000000017\0"), Some(15));
        assert_eq!(octal(b"     17 "), Some(15));
        assert_eq!(octal(&[0x80, 0, 0, 1, 0]), Some(256));
        assert_eq!((octal(b"9"), octal(b"\0\0"), octal(&[0x80; 12])), (None, Some(0), None));
    }

    #[test]
    fn a_stream_of_btrfs_is_whole_only_with_its_last_command() {
        let command = |number: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
            [length.as_slice(), &[number, 0, 9, 9, 9, 9], payload].concat()
        };
        let head = [b"btrfs-stream\0".as_slice(), &[1, 0, 0, 0]].concat();
        let stream = [head, command(1, b"subvolume"), command(15, &[0; 100]), command(21, b"")].concat();
        btrfs(Cursor::new(&stream)).unwrap();
        for length in 0..stream.len() {
            assert!(matches!(btrfs(Cursor::new(&stream[..length])), Err(Flaw::Cut(_))), "{length}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_run_on(
            (at, byte) in (0_usize..8000, any::<u8>()),
            noise in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let (mut archive, _) = archive();
            archive[at] = byte;
            let _ = check(&archive);
            let _ = check(&noise);
            let _ = btrfs(Cursor::new(&noise));
        }
    }
}
