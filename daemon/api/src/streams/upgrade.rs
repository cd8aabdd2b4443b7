//! From HTTP/1.1 to WebSocket (RFC 6455) or SPDY/3.1 on the same connection.

use crate::serve::body::{Body, full};
use crate::wire::error::ApiError;
use bytes::Bytes;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The versions of a protocol over SPDY are told in this header.
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What the server would have taken, when it takes none.
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Bytes of a message that a client may send; as the reference's.
const MAX_MESSAGE: usize = 32 << 20;

/// A WebSocket of ours.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What a client wants to go on with, and in which of its versions, best first.
#[derive(Clone, Debug)]
pub(super) enum Upgrade {
    /// With the answer to its key.
    WebSocket {
        accept: HeaderValue,
        offered: Vec<String>,
    },
    Spdy {
        offered: Vec<String>,
    },
}

impl Upgrade {
    /// # Errors
    /// 400 when the client wants neither.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let has = |name, value: &str| words(headers, name).iter().any(|w| w.eq_ignore_ascii_case(value));
        let upgrades = has(CONNECTION, "upgrade");
        if upgrades && has(UPGRADE, "SPDY/3.1") {
            return Ok(Self::Spdy { offered: words(headers, STREAM_VERSION) });
        }
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .filter(|_| upgrades && has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13"));
        let Some(key) = key else {
            return Err(ApiError::bad_request(
                "Upgrade request required: this is a stream over WebSocket (version 13) or SPDY/3.1",
            ));
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(ApiError::internal)?;
        Ok(Self::WebSocket { accept, offered: words(headers, SEC_WEBSOCKET_PROTOCOL) })
    }
}

/// A header's comma-separated words, over all its lines.
fn words(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect()
}

/// The client's first choice among `known` for a protocol over SPDY.
///
/// # Errors
/// 403, as the reference has it, with what is known.
pub(super) fn choose(offered: &[String], known: &[&'static str]) -> Result<&'static str, ApiError> {
    let found = offered.iter().find_map(|name| known.iter().find(|k| *k == name));
    found.copied().ok_or_else(|| {
        ApiError::forbidden(format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}] ({ACCEPTED_VERSIONS})",
            offered.join(" "),
            known.join(" ")
        ))
    })
}

/// 101 for a WebSocket.
pub(super) fn websocket_answer(accept: HeaderValue, protocol: Option<&'static str>) -> Response<Body> {
    let mut response = switching("websocket");
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    response
}

/// 101 for SPDY.
pub(super) fn spdy_answer(version: &'static str) -> Response<Body> {
    let mut response = switching("SPDY/3.1");
    response.headers_mut().insert(STREAM_VERSION, HeaderValue::from_static(version));
    response
}

fn switching(to: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// The connection once it is upgraded; `None` when the client left before.
pub(super) async fn connection(upgrade: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    match upgrade.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "a client left before the upgrade");
            None
        }
    }
}

/// The same as a WebSocket.
pub(super) async fn websocket(upgrade: OnUpgrade) -> Option<Socket> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = 4 << 10;
    config.write_buffer_size = 0;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let io = connection(upgrade).await?;
    Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
}
