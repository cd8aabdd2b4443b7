//! Channels in WebSocket frames: the first byte of every frame says which stream it belongs to
//! (<https://kubernetes.io/docs/reference/using-api/websockets/>).

use crate::wire::error::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::Message;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// Of v5: the byte after it names a channel that ends.
pub(super) const CLOSE: u8 = 255;

/// How a session's end is told on the error channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As a Status, success included.
    Status,
    /// In words, and only of a failure.
    Words,
}

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subprotocol {
    /// As the client named it; `None`: it named none.
    pub(super) name: Option<&'static str>,
    /// Text frames: the channel as a digit, the rest in base64.
    base64: bool,
    pub(super) ending: Ending,
    /// Channels can be closed one by one.
    pub(super) closes: bool,
}

const fn known(name: Option<&'static str>, base64: bool, ending: Ending, closes: bool) -> Subprotocol {
    Subprotocol { name, base64, ending, closes }
}

/// The first version, for clients that name none.
const NAMELESS: Subprotocol = known(None, false, Ending::Words, false);

/// Those of exec and attach.
const SESSIONS: [Subprotocol; 7] = [
    known(Some("v5.channel.k8s.io"), false, Ending::Status, true),
    known(Some("v4.channel.k8s.io"), false, Ending::Status, false),
    known(Some("v4.base64.channel.k8s.io"), true, Ending::Status, false),
    known(Some("v3.channel.k8s.io"), false, Ending::Words, false),
    known(Some("v2.channel.k8s.io"), false, Ending::Words, false),
    known(Some("channel.k8s.io"), false, Ending::Words, false),
    known(Some("base64.channel.k8s.io"), true, Ending::Words, false),
];

/// Those of port-forward.
const PORTS: [Subprotocol; 3] = [
    known(Some("v4.channel.k8s.io"), false, Ending::Words, false),
    known(Some("v4.base64.channel.k8s.io"), true, Ending::Words, false),
    known(Some("portforward.k8s.io"), false, Ending::Words, false),
];

impl Subprotocol {
    /// The client's first choice among those of exec and attach.
    ///
    /// # Errors
    /// 400 when there is none.
    pub(super) fn of_session(offered: &[String]) -> Result<Self, ApiError> {
        choose(&SESSIONS, offered)
    }

    /// The client's first choice among those of port-forward.
    ///
    /// # Errors
    /// 400 when there is none.
    pub(super) fn of_ports(offered: &[String]) -> Result<Self, ApiError> {
        choose(&PORTS, offered)
    }

    /// One frame.
    pub(super) fn frame(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(data.len().div_ceil(3) * 4 + 1);
            text.push(char::from(b'0'.saturating_add(channel)));
            STANDARD.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut bytes = BytesMut::with_capacity(data.len() + 1);
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// A client's frame; `None` for what carries nothing.
    pub(super) fn read(self, message: &Message) -> Option<(u8, Bytes)> {
        let bytes = match message {
            Message::Binary(bytes) => bytes.clone(),
            Message::Text(text) => Bytes::from(text.clone()),
            _ => return None,
        };
        let (first, _) = bytes.split_first()?;
        let rest = bytes.slice(1..);
        if self.base64 {
            let channel = first.checked_sub(b'0')?;
            return Some((channel, STANDARD.decode(rest.trim_ascii_end()).ok()?.into()));
        }
        Some((*first, rest))
    }
}

fn choose(known: &[Subprotocol], offered: &[String]) -> Result<Subprotocol, ApiError> {
    if offered.is_empty() {
        return Ok(NAMELESS);
    }
    let found = offered.iter().find_map(|name| known.iter().find(|k| k.name == Some(name)));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = known.iter().filter_map(|k| k.name).collect();
        ApiError::bad_request(format!(
            "unable to upgrade: none of the protocols {} is known; use one of {}",
            offered.join(", "),
            names.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offered(list: &str) -> Vec<String> {
        list.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn the_clients_order_decides() {
        let name = |list: &str| Subprotocol::of_session(&offered(list)).map(|p| p.name.unwrap()).map_err(|e| e.code);
        assert_eq!(name("v5.channel.k8s.io,v4.channel.k8s.io"), Ok("v5.channel.k8s.io"));
        assert_eq!(name("v9.channel.k8s.io,channel.k8s.io"), Ok("channel.k8s.io"));
        assert_eq!(name("v9.channel.k8s.io"), Err(400));
        assert_eq!(Subprotocol::of_session(&[]).unwrap().name, None);
    }

    #[test]
    fn frames_are_the_references() {
        let base64 = Subprotocol::of_session(&offered("base64.channel.k8s.io")).unwrap();
        assert_eq!(base64.frame(STDOUT, b"hi\n"), Message::text("1aGkK"));
        assert_eq!(base64.frame(STDOUT, b""), Message::text("1"));
        assert_eq!(base64.read(&Message::text("0aGkK")), Some((STDIN, Bytes::from("hi\n"))));
        assert_eq!(base64.read(&Message::text("0?")), None);
        assert_eq!(base64.read(&Message::text("")), None);
        assert_eq!(NAMELESS.frame(STDERR, b"e"), Message::binary(b"\x02e".to_vec()));
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read(channel in 0_u8..8, data in prop::collection::vec(any::<u8>(), 0..100)) {
            for protocol in SESSIONS.into_iter().chain([NAMELESS]) {
                let read = protocol.read(&protocol.frame(channel, &data));
                prop_assert_eq!(read, Some((channel, Bytes::from(data.clone()))));
            }
        }

        #[test]
        fn nothing_hostile_panics(text in ".{0,30}", data in prop::collection::vec(any::<u8>(), 0..30)) {
            for protocol in SESSIONS {
                let _ = protocol.read(&Message::text(text.clone()));
                let _ = protocol.read(&Message::binary(data.clone()));
            }
        }
    }
}
