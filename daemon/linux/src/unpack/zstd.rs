//! zstd (RFC 8878) as a stream: frames one after another, skippable ones skipped (zstd:chunked puts its index into them).
//! The decoder refuses windows of more than 100 MiB, so that memory is bounded by the process's own limit.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// How much is decoded at a time.
const PIECE: usize = 128 << 10;

/// Decodes what `input` holds.
pub(super) struct ZstdReader<R> {
    input: R,
    decoder: FrameDecoder,
    /// Within a frame.
    inside: bool,
}

impl<R: BufRead> ZstdReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), inside: false }
    }

    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// Begins the next frame; `false` at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a frame"));
                    }
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
    }
}

fn damaged(error: &FrameDecoderError) -> io::Error {
    // What the input itself said (a limit, a read that failed) is not to be hidden in words.
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged zstd: {error}"))
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBytes(PIECE);
                self.decoder.decode_blocks(&mut self.input, step).map_err(|e| damaged(&e))?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            if self.decoder.is_finished() {
                if let (Some(said), Some(is)) =
                    (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum())
                    && said != is
                {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged zstd: its checksum is another"));
                }
                self.inside = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    #[test]
    fn frames_follow_one_another_and_some_are_skipped() {
        let mut blob = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let long = vec![7u8; 1 << 20];
        blob.extend(compress_to_vec(&b"hello "[..], CompressionLevel::Fastest));
        blob.extend([0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        blob.extend(compress_to_vec(&long[..], CompressionLevel::Fastest));
        let mut text = Vec::new();
        ZstdReader::new(&blob[..]).read_to_end(&mut text).unwrap();
        assert_eq!((&text[..6], text.len()), (&b"hello "[..], 6 + (1 << 20)));
        for cut in [blob.len() - 3, 9, 2] {
            assert!(ZstdReader::new(&blob[..cut]).read_to_end(&mut Vec::new()).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<(usize, u8)>()) {
            let _ = ZstdReader::new(&bytes[..]).take(1 << 20).read_to_end(&mut Vec::new());
            let mut blob = compress_to_vec(&bytes[..], CompressionLevel::Fastest);
            let at = flip.0 % blob.len();
            blob[at] ^= flip.1;
            let _ = ZstdReader::new(&blob[..]).take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
}
