//! Watches over WebSocket, for clients in browsers: one message an event (RFC 6455).

use super::feed::Feed;
use crate::serve::body::{Arriving, Body, full};
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use futures_util::{SinkExt, StreamExt};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// Bytes of a message from a client: it has nothing to say.
const MAX_MESSAGE: usize = 4096;

/// The answer to the client's key, if it asks for a WebSocket.
///
/// # Errors
/// 400 for an upgrade that is none we know.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
    let has = |name, value: &str| {
        let given = headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        given.split(',').any(|v| v.trim().eq_ignore_ascii_case(value))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return Ok(None);
    }
    match headers.get(SEC_WEBSOCKET_KEY).filter(|_| has(SEC_WEBSOCKET_VERSION, "13")) {
        Some(key) => HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map(Some).map_err(ApiError::internal),
        None => Err(ApiError::bad_request("a watch speaks WebSocket in version 13 and needs a Sec-WebSocket-Key")),
    }
}

/// Answers with the upgrade and sends the events over it.
///
/// # Errors
/// None but those of the type.
pub(super) fn answer(
    call: &Call,
    key: HeaderValue,
    mut request: Request<Arriving>,
    feed: Feed,
) -> Result<Response<Body>, ApiError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let stall = call.state.settings.limits.stall_timeout;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let mut config = WebSocketConfig::default();
                config.read_buffer_size = MAX_MESSAGE;
                config.write_buffer_size = 0;
                config.max_message_size = Some(MAX_MESSAGE);
                config.max_frame_size = Some(MAX_MESSAGE);
                let io = TokioIo::new(upgraded);
                converse(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await, feed, stall).await;
            }
            Err(error) => tracing::debug!(%error, "a watch's client left before the upgrade"),
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    Ok(response)
}

async fn converse(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, mut feed: Feed, stall: Duration) {
    loop {
        tokio::select! {
            frame = poll_fn(|context| feed.poll_frame(context)) => {
                let last = frame.is_none();
                let message = match frame {
                    // What we print is UTF-8.
                    Some(frame) => Message::text(String::from_utf8_lossy(&frame).into_owned()),
                    None => Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })),
                };
                let sent = tokio::time::timeout(stall, socket.send(message)).await;
                if last || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            // Pings are answered by reading; anything else a client says is of no interest but its end.
            read = socket.next() => match read {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}
