//! Frames of SPDY/3.1 as bytes (SPDY Protocol, draft 3.1, 2.2 and 2.6). Pure.

use super::headers::{Headers, Packer, Unpacker};

/// Bytes in front of every frame.
pub(super) const HEAD: usize = 8;
/// Longest payload of a control frame that is taken; ours are far shorter, and so are all known clients'.
const LONGEST_CONTROL: usize = 32 << 10;

const FIN: u8 = 1;
const VERSION: u16 = 0x8003;

/// How a peer breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// Another protocol, or another version of this one.
    #[error("not a frame of SPDY/3.1")]
    Version,
    /// A frame whose parts do not fit.
    #[error("a malformed frame")]
    Malformed,
    /// More than anybody needs.
    #[error("a frame that is too long")]
    TooLong,
    /// Headers that can't be unpacked.
    #[error("a header block that can't be unpacked")]
    Compression,
    /// A stream identifier out of order.
    #[error("a stream identifier out of order")]
    StreamId,
}

/// What is in front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// So many bytes of a stream follow.
    Data { stream: u32, fin: bool, length: usize },
    /// So many bytes of a control frame follow.
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    /// # Errors
    /// Another version, or a control frame that is too long.
    pub(super) fn parse(bytes: [u8; HEAD]) -> Result<Self, ProtocolError> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if a & 0x80 == 0 {
            return Ok(Self::Data { stream: u32::from_be_bytes([a, b, c, d]), fin: flags & FIN != 0, length });
        }
        if u16::from_be_bytes([a, b]) != VERSION {
            return Err(ProtocolError::Version);
        }
        if length > LONGEST_CONTROL {
            return Err(ProtocolError::TooLong);
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Refused = 3,
    Cancel = 5,
    FlowControl = 7,
}

/// A frame with a meaning here; others are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    /// Bytes that may be on the way in every new stream, when it is among the settings.
    Settings {
        initial_window: Option<u32>,
    },
    Ping(u32),
    GoAway {
        last_stream: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        more: u32,
    },
}

impl Control {
    /// Reads a control frame's payload; `None` for kinds that have no meaning here.
    ///
    /// # Errors
    /// Parts that do not fit.
    pub(super) fn parse(
        kind: u16,
        flags: u8,
        payload: &[u8],
        unpacker: &mut Unpacker,
    ) -> Result<Option<Self>, ProtocolError> {
        let fin = flags & FIN != 0;
        let id = |at: usize| Ok::<u32, ProtocolError>(word(payload, at)? & 0x7fff_ffff);
        let block = |at: usize| payload.get(at..).ok_or(ProtocolError::Malformed);
        Ok(Some(match kind {
            1 => Self::SynStream { stream: id(0)?, fin, headers: unpacker.read(block(10)?)? },
            2 => Self::SynReply { stream: id(0)?, fin, headers: unpacker.read(block(4)?)? },
            3 => Self::RstStream { stream: id(0)?, status: word(payload, 4)? },
            4 => Self::Settings { initial_window: initial_window(payload)? },
            6 => Self::Ping(word(payload, 0)?),
            7 => Self::GoAway { last_stream: id(0)?, status: word(payload, 4)? },
            8 => Self::Headers { stream: id(0)?, fin, headers: unpacker.read(block(4)?)? },
            9 => Self::WindowUpdate { stream: id(0)?, more: id(4)? },
            _ => return Ok(None),
        }))
    }

    /// As bytes.
    pub(super) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let words = |list: &[u32]| list.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        let (kind, fin, payload) = match self {
            Self::SynStream { stream, fin, headers } => {
                let mut payload = words(&[*stream, 0]);
                payload.extend_from_slice(&[0, 0]);
                payload.extend(packer.write(headers));
                (1, *fin, payload)
            }
            Self::SynReply { stream, fin, headers } => (2, *fin, [words(&[*stream]), packer.write(headers)].concat()),
            Self::RstStream { stream, status } => (3, false, words(&[*stream, *status])),
            Self::Settings { initial_window } => {
                let entries = initial_window.map(|window| [7, window]).into_iter().flatten();
                let count = u32::from(initial_window.is_some());
                (4, false, words(&std::iter::once(count).chain(entries).collect::<Vec<_>>()))
            }
            Self::Ping(id) => (6, false, words(&[*id])),
            Self::GoAway { last_stream, status } => (7, false, words(&[*last_stream, *status])),
            Self::Headers { stream, fin, headers } => (8, *fin, [words(&[*stream]), packer.write(headers)].concat()),
            Self::WindowUpdate { stream, more } => (9, false, words(&[*stream, *more])),
        };
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&u16::to_be_bytes(kind));
        bytes.extend_from_slice(&flags_and_length(fin, payload.len()));
        bytes.extend(payload);
        bytes
    }
}

/// What is in front of so many bytes of a stream.
pub(super) fn data_head(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = (stream & 0x7fff_ffff).to_be_bytes();
    let [e, f, g, h] = flags_and_length(fin, length);
    [a, b, c, d, e, f, g, h]
}

fn flags_and_length(fin: bool, length: usize) -> [u8; 4] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    [u8::from(fin), a, b, c]
}

fn word(payload: &[u8], at: usize) -> Result<u32, ProtocolError> {
    let bytes = payload.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(ProtocolError::Malformed)?;
    Ok(u32::from_be_bytes(*bytes))
}

/// The setting with the identifier 7, among as many as there are.
fn initial_window(payload: &[u8]) -> Result<Option<u32>, ProtocolError> {
    let count = word(payload, 0)? as usize;
    let (entries, rest) = payload.get(4..).unwrap_or_default().as_chunks::<8>();
    if entries.len() != count || !rest.is_empty() {
        return Err(ProtocolError::Malformed);
    }
    let found = entries.iter().find(|[_, a, b, c, ..]| u32::from_be_bytes([0, *a, *b, *c]) == 7);
    Ok(found.map(|[_, _, _, _, a, b, c, d]| u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], unpacker: &mut Unpacker) -> Result<Option<Control>, ProtocolError> {
        let (head, payload) = bytes.split_first_chunk::<HEAD>().unwrap();
        match Head::parse(*head)? {
            Head::Control { kind, flags, length } => {
                assert_eq!(length, payload.len());
                Control::parse(kind, flags, payload, unpacker)
            }
            Head::Data { .. } => panic!("data"),
        }
    }

    #[test]
    fn bytes_are_the_protocols() {
        let packer = &mut Packer::new();
        assert_eq!(Control::Ping(5).encode(packer), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 5]);
        let reset = Control::RstStream { stream: 1, status: Reset::Cancel as u32 };
        assert_eq!(reset.encode(packer), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 5]);
        assert_eq!(data_head(3, true, 0x01_0203), [0, 0, 0, 3, 1, 1, 2, 3]);
        assert_eq!(Head::parse([0, 0, 0, 3, 1, 1, 2, 3]), Ok(Head::Data { stream: 3, fin: true, length: 0x01_0203 }));
        assert_eq!(Head::parse(*b"GET / HT"), Ok(Head::Data { stream: 0x4745_5420, fin: true, length: 0x20_4854 }));
        assert_eq!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(ProtocolError::Version));
        assert_eq!(Head::parse([0x80, 3, 0, 1, 0, 0xff, 0, 0]), Err(ProtocolError::TooLong));
    }

    fn any_headers() -> impl Strategy<Value = Headers> {
        prop::collection::vec(("[a-z-]{1,12}", "[ -~]{0,20}"), 0..5)
    }

    fn any_control() -> impl Strategy<Value = Control> {
        let id = 0..0x8000_0000_u32;
        prop_oneof![
            (id.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Control::SynStream {
                stream,
                fin,
                headers
            }),
            (id.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Control::SynReply {
                stream,
                fin,
                headers
            }),
            (id.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Control::Headers {
                stream,
                fin,
                headers
            }),
            (id.clone(), any::<u32>()).prop_map(|(stream, status)| Control::RstStream { stream, status }),
            prop::option::of(id.clone()).prop_map(|initial_window| Control::Settings { initial_window }),
            any::<u32>().prop_map(Control::Ping),
            (id.clone(), any::<u32>()).prop_map(|(last_stream, status)| Control::GoAway { last_stream, status }),
            (id.clone(), id).prop_map(|(stream, more)| Control::WindowUpdate { stream, more }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in prop::collection::vec(any_control(), 0..20)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for frame in frames {
                prop_assert_eq!(read(&frame.encode(&mut packer), &mut unpacker), Ok(Some(frame)));
            }
        }

        #[test]
        fn nothing_hostile_panics(head in any::<[u8; 8]>(), payload in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Head::Control { kind, flags, .. }) = Head::parse(head) {
                let _ = Control::parse(kind, flags, &payload, &mut Unpacker::new());
            }
            for kind in 0..12 {
                let _ = Control::parse(kind, 0, &payload, &mut Unpacker::new());
            }
        }
    }
}
