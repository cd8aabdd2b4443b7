//! What images are made of, as fuzzers and property tests give it: nothing panics, and nothing leaves the root.

use super::entry::{EntryKind, read_entries};
use super::layer::{Tree, open_root};
use super::path::EntryPath;
use super::stream::BlobReader;
use reddwarf_host::UnpackLimits;
use std::io::Read;
use std::path::Path;

/// Small enough that bombs cost nothing.
const LIMITS: UnpackLimits = UnpackLimits { bytes: 1 << 20, entries: 1000, ratio: 50, ratio_free_bytes: 1 << 16 };

/// Any bytes as a layer's blob, compressed or not, read to its end.
pub fn stream(bytes: &[u8]) {
    let Ok(mut blob) = BlobReader::new(bytes, LIMITS) else { return };
    let mut entries = 0;
    let _ = read_entries(&mut blob, |entry, _, content| {
        entries += 1;
        if let Ok(path) = EntryPath::parse(&entry.path) {
            let inside = path.components().iter().all(|c| !matches!(c.to_bytes(), b"" | b"." | b".."));
            assert!(inside, "{:?} became {path}", entry.path);
        }
        if let EntryKind::Hardlink(target) = &entry.kind {
            let _ = EntryPath::parse(target);
        }
        let read = std::io::copy(content, &mut std::io::sink());
        assert!(read.is_err() || read.is_ok_and(|n| n <= LIMITS.bytes));
        Ok(())
    });
    let _ = blob.finish();
}

/// Any bytes unpacked below `root`, as root, without what confines the process otherwise.
pub fn apply(bytes: &[u8], root: &Path) {
    let (Ok(blob), Ok(root)) = (BlobReader::new(bytes, LIMITS), open_root(root)) else { return };
    let _ = Tree::new(root, None).apply(blob.take(LIMITS.bytes), &LIMITS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A layer of every kind of entry.
    fn seed() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let kinds = [(b'5', "d", ""), (b'0', "d/f", ""), (b'2', "l", "d/f"), (b'1', "h", "d/f"), (b'6', "p", "")];
        for (kind, path, link) in kinds {
            builder.append_pax_extensions([("path", path.as_bytes()), ("SCHILY.xattr.user.a", b"b")]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_path(path).unwrap();
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.set_mode(0o755);
            header.set_size(if kind == b'0' { 4 } else { 0 });
            header.set_cksum();
            builder.append(&header, if kind == b'0' { &b"data"[..] } else { b"" }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    proptest! {
        #[test]
        fn damaged_layers_are_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = seed();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            stream(&bytes);
            stream(&bytes[..cut.index(bytes.len())]);
            if nix::unistd::geteuid().is_root() {
                let dir = tempfile::tempdir().unwrap();
                std::fs::create_dir(dir.path().join("root")).unwrap();
                apply(&bytes, &dir.path().join("root"));
                prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
            }
        }
    }
}
