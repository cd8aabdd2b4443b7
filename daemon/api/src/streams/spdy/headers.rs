//! Header blocks of SPDY/3.1: names and values with lengths, compressed by zlib with a dictionary that both sides know
//! (SPDY Protocol, draft 3.1, 2.6.10). All blocks of a connection are one compressed stream.

use super::frame::ProtocolError;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use std::sync::LazyLock;

/// Names of the dictionary, each preceded by its length there.
const NAMES: &str = "\
    options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,\
    accept-ranges,age,allow,authorization,cache-control,connection,content-base,content-encoding,\
    content-language,content-length,content-location,content-md5,content-range,content-type,date,etag,\
    expect,expires,from,host,if-match,if-modified-since,if-none-match,if-range,if-unmodified-since,\
    last-modified,location,max-forwards,pragma,proxy-authenticate,proxy-authorization,range,referer,\
    retry-after,server,te,trailer,transfer-encoding,upgrade,user-agent,vary,via,warning,\
    www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,keep-alive,origin\
";

/// The rest of the dictionary.
const TAIL: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Author\
    itative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 No\
    t Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Au\
    g Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
    image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,def\
    late,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.\
";

/// Adler-32 of the dictionary, which a zlib header names it by (RFC 1950, 2.2).
const DICTIONARY_ID: [u8; 4] = 0xe3c6_a7c2_u32.to_be_bytes();

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for name in NAMES.split(',') {
        bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
});

/// Bytes that zlib looks back.
const WINDOW: usize = 32 << 10;
/// Bytes of one block when it is unpacked: a few short headers are all that anyone sends.
const LONGEST: usize = 16 << 10;
/// Headers in one block.
const MOST: usize = 64;

/// Names and values in order; names are lower-case.
pub(crate) type Headers = Vec<(String, String)>;

/// Unpacks a connection's blocks, one after another.
pub(super) struct Unpacker {
    /// Made with the first block: a connection without streams costs nothing here.
    state: Option<Box<(DecompressorOxide, [u8; WINDOW])>>,
    /// Where in the window the next byte goes.
    at: usize,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self { state: None, at: 0 }
    }

    /// Reads one block.
    ///
    /// # Errors
    /// What is no zlib, no block, or too much of it.
    pub(super) fn read(&mut self, packed: &[u8]) -> Result<Headers, ProtocolError> {
        parse(&self.unpack(packed)?)
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut rest = packed;
        if self.state.is_none() {
            rest = after_zlib_header(packed)?;
            let mut window = [0; WINDOW];
            self.at = DICTIONARY.len();
            window.get_mut(..self.at).ok_or(ProtocolError::Compression)?.copy_from_slice(&DICTIONARY);
            self.state = Some(Box::new((DecompressorOxide::new(), window)));
        }
        let Some(state) = self.state.as_mut() else { return Err(ProtocolError::Compression) };
        let (core, window) = state.as_mut();
        let mut out = Vec::new();
        loop {
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) = decompress(core, rest, window, self.at, flags);
            rest = rest.get(read..).unwrap_or_default();
            out.extend_from_slice(window.get(self.at..self.at + written).unwrap_or_default());
            self.at = (self.at + written) % WINDOW;
            if out.len() > LONGEST {
                return Err(ProtocolError::TooLong);
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Ok(out),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(ProtocolError::Compression),
            }
        }
    }
}

/// What follows a zlib header that names our dictionary.
fn after_zlib_header(packed: &[u8]) -> Result<&[u8], ProtocolError> {
    let Some(([method, flags, id @ ..], rest)) = packed.split_first_chunk::<6>() else {
        return Err(ProtocolError::Compression);
    };
    let sound = method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0 && flags & 0x20 != 0;
    if sound && *id == DICTIONARY_ID { Ok(rest) } else { Err(ProtocolError::Compression) }
}

fn parse(block: &[u8]) -> Result<Headers, ProtocolError> {
    let mut rest = block;
    let count = number(&mut rest)?;
    if count > MOST {
        return Err(ProtocolError::TooLong);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push((text(&mut rest)?, text(&mut rest)?));
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<usize, ProtocolError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(ProtocolError::Malformed)?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| ProtocolError::TooLong)
}

fn text(rest: &mut &[u8]) -> Result<String, ProtocolError> {
    let length = number(rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(ProtocolError::Malformed)?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtocolError::Malformed)
}

/// Packs a connection's blocks. They are stored, not squeezed: what a server says here is four bytes, and a real
/// compressor's state would cost 300 kB a connection.
pub(super) struct Packer {
    begun: bool,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { begun: false }
    }

    /// One block, at most 64 kB of it.
    pub(super) fn write(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut block = Vec::new();
        put_length(&mut block, headers.len());
        for (name, value) in headers {
            for part in [name, value] {
                put_length(&mut block, part.len());
                block.extend_from_slice(part.as_bytes());
            }
        }
        let mut packed = Vec::with_capacity(block.len() + 16);
        if !std::mem::replace(&mut self.begun, true) {
            packed.extend_from_slice(&[0x78, 0x20]);
            packed.extend_from_slice(&DICTIONARY_ID);
        }
        // A stored block, then an empty one, which makes the other side hand out what it has (RFC 1951, 3.2.4).
        let length = u16::try_from(block.len()).unwrap_or_default();
        packed.push(0);
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&(!length).to_le_bytes());
        packed.extend_from_slice(block.get(..usize::from(length)).unwrap_or_default());
        packed.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        packed
    }
}

fn put_length(to: &mut Vec<u8>, length: usize) {
    to.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(of: &[(&str, &str)]) -> Headers {
        of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(((b << 16) | a).to_be_bytes(), DICTIONARY_ID);
        assert_eq!(DICTIONARY.len(), 1423);
    }

    /// Three blocks as zlib itself packs them (level 6, this dictionary, a sync flush after each): with references into
    /// the dictionary and into earlier blocks.
    #[test]
    fn blocks_of_a_real_compressor_are_read() {
        let packed = [
            "78bbe3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc68004e892545a989b9d0c2863515141500000000ffff",
            "225333a8a44a04000000ffff",
            "02654b2ca51817c2fb20cd15408201000000ffff",
        ];
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        };
        let mut unpacker = Unpacker::new();
        let stream = |kind: &str, id: &str| headers(&[("port", "8080"), ("requestid", id), ("streamtype", kind)]);
        assert_eq!(unpacker.read(&bytes(packed[0])).unwrap(), stream("error", "0"));
        assert_eq!(unpacker.read(&bytes(packed[1])).unwrap(), stream("data", "0"));
        assert_eq!(unpacker.read(&bytes(packed[2])).unwrap(), headers(&[("content-type", "text/plain"), ("x", "")]));
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut block = 1_u32.to_be_bytes().to_vec();
        put_length(&mut block, 1 << 20);
        block.resize(1 << 20, b'a');
        let mut packed = vec![0x78, 0x20];
        packed.extend_from_slice(&DICTIONARY_ID);
        packed.extend(miniz_oxide::deflate::compress_to_vec(&block, 9));
        assert!(packed.len() < 4096);
        assert_eq!(Unpacker::new().read(&packed), Err(ProtocolError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(blocks in prop::collection::vec(prop::collection::vec(("[a-z-]{0,20}", ".{0,50}"), 0..10), 0..20)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                prop_assert_eq!(unpacker.read(&packer.write(&block)), Ok(block));
            }
        }

        #[test]
        fn nothing_hostile_panics(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let mut unpacker = Unpacker::new();
            let _ = unpacker.read(&Packer::new().write(&headers(&[("a", "b")])));
            for block in blocks {
                let _ = unpacker.read(&block);
            }
        }
    }
}
