//! A blob as a stream: its digest, its decompression, its limits.

use super::confine::check_not_abandoned;
use super::error::{Result, UnpackError};
use super::zstd::ZstdReader;
use flate2::bufread::MultiGzDecoder;
use reddwarf_host::UnpackLimits;
pub(crate) use reddwarf_zar::digest_text;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

/// The digest of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

/// Hashes and counts what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// How a blob's bytes are to be read.
#[allow(clippy::large_enum_variant)]
enum Decoder<R: Read> {
    Plain(BufReader<Hashing<R>>),
    Gzip(MultiGzDecoder<BufReader<Hashing<R>>>),
    Zstd(Box<ZstdReader<BufReader<Hashing<R>>>>),
}

impl<R: Read> Decoder<R> {
    fn into_input(self) -> BufReader<Hashing<R>> {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A blob that is decompressed, hashed on both sides and held to its limits while it is read.
pub(crate) struct BlobReader<R: Read> {
    decoder: Decoder<R>,
    hash: Sha256,
    compressed: Rc<Cell<u64>>,
    plain: u64,
    limits: UnpackLimits,
}

/// What a blob turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobSums {
    /// Digest of the blob as it is stored.
    pub(crate) digest: String,
    /// Digest of its content, decompressed.
    pub(crate) plain_digest: String,
}

impl<R: Read> BlobReader<R> {
    /// Finds out by content how it is compressed.
    ///
    /// # Errors
    /// `Invalid` for a compression that is not known here.
    pub(crate) fn new(input: R, limits: UnpackLimits) -> Result<Self> {
        let compressed = Rc::new(Cell::new(0));
        let hashing = Hashing { inner: input, hash: Sha256::new(), count: compressed.clone() };
        let mut input = BufReader::with_capacity(1 << 16, hashing);
        let start = input.fill_buf().map_err(|e| UnpackError::io("read", "blob", &e))?;
        let decoder = match sniff(start)? {
            Compression::Gzip => Decoder::Gzip(MultiGzDecoder::new(input)),
            Compression::Zstd => Decoder::Zstd(Box::new(ZstdReader::new(input))),
            Compression::None => Decoder::Plain(input),
        };
        Ok(Self { decoder, hash: Sha256::new(), compressed, plain: 0, limits })
    }

    /// Reads what is left and gives both digests.
    pub(crate) fn finish(mut self) -> Result<BlobSums> {
        let damaged = |e: io::Error| UnpackError::io("read", "blob", &e);
        io::copy(&mut self, &mut io::sink()).map_err(damaged)?;
        let mut input = self.decoder.into_input();
        io::copy(&mut input, &mut io::sink()).map_err(damaged)?;
        Ok(BlobSums { digest: digest_text(input.into_inner().hash), plain_digest: digest_text(self.hash) })
    }
}

impl<R: Read> Read for BlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buffer)?;
        if (self.plain + n as u64) >> 16 != self.plain >> 16 {
            check_not_abandoned().map_err(UnpackError::into_io)?;
        }
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.plain += n as u64;
        let fits = self.limits.check_bytes(self.plain, self.compressed.get());
        fits.map_err(|too_much| UnpackError::invalid(too_much.to_string()).into_io())?;
        Ok(n)
    }
}

/// How a blob is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// # Errors
/// `Invalid` naming a compression that is not known here.
pub(crate) fn sniff(start: &[u8]) -> Result<Compression> {
    let refuse = |name: &str| {
        Err(UnpackError::invalid(format!("it is compressed with {name}: known here are tar, tar.gz and tar.zst")))
    };
    match start {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // A frame, or a skippable one before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => refuse("xz"),
        [b'B', b'Z', b'h', ..] => refuse("bzip2"),
        _ => Ok(Compression::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_digests_come_out_whatever_was_read_before() {
        let blob = gzip(b"hello");
        for read_first in [0, 2, 5] {
            let mut reader = BlobReader::new(&blob[..], UnpackLimits::default()).unwrap();
            reader.read_exact(&mut vec![0; read_first]).unwrap();
            let sums = reader.finish().unwrap();
            assert_eq!(sums.digest, digest_of(&blob));
            assert_eq!(sums.plain_digest, digest_of(b"hello"));
        }
        let plain = BlobReader::new(&b"hello"[..], UnpackLimits::default()).unwrap().finish().unwrap();
        assert_eq!(plain.digest, plain.plain_digest);
    }

    #[test]
    fn bombs_are_stopped() {
        let limits = UnpackLimits { ratio: 100, ratio_free_bytes: 1 << 20, bytes: 64 << 20, ..UnpackLimits::default() };
        let bomb = gzip(&vec![0; 32 << 20]);
        let error = BlobReader::new(&bomb[..], limits).unwrap().finish().unwrap_err();
        assert!(error.message.contains("decompression bomb"), "{error}");
        let error =
            BlobReader::new(&bomb[..], UnpackLimits { bytes: 1 << 20, ..limits }).unwrap().finish().unwrap_err();
        assert_eq!(error.message, "it unpacks to more than 1 MiB");
        // Half a MiB of zeros is no bomb.
        BlobReader::new(&gzip(&vec![0; 1 << 19])[..], limits).unwrap().finish().unwrap();
    }

    #[test]
    fn other_compressions_are_named() {
        let Err(error) = BlobReader::new(&b"BZh91AY"[..], UnpackLimits::default()) else { panic!("taken") };
        assert!(error.message.contains("compressed with bzip2: known here"), "{error}");
    }

    #[test]
    fn zstd_is_held_to_the_same_limits() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let blob = compress_to_vec(&b"hello"[..], CompressionLevel::Fastest);
        let sums = BlobReader::new(&blob[..], UnpackLimits::default()).unwrap().finish().unwrap();
        assert_eq!((sums.digest, sums.plain_digest), (digest_of(&blob), digest_of(b"hello")));
        let limits = UnpackLimits { ratio: 100, ratio_free_bytes: 1 << 20, bytes: 64 << 20, ..UnpackLimits::default() };
        let bomb = compress_to_vec(&vec![0u8; 32 << 20][..], CompressionLevel::Fastest);
        let error = BlobReader::new(&bomb[..], limits).unwrap().finish().unwrap_err();
        assert!(error.message.contains("decompression bomb"), "{error}");
    }

    #[test]
    fn a_cut_off_gzip_is_damaged() {
        let blob = gzip(&[7; 100_000]);
        let error = BlobReader::new(&blob[..blob.len() - 10], UnpackLimits::default()).unwrap().finish().unwrap_err();
        assert_eq!(error.kind, super::super::error::Kind::Invalid, "{error}");
    }
}
