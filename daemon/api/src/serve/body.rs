//! Bodies: whole and streamed answers, bounded requests.

use crate::wire::error::ApiError;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is written piece by piece. Dropping the sender ends it; sending an error breaks the connection, so that
/// the client does not take a part for the whole.
pub(crate) fn channel(pieces: usize) -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(pieces);
    let frames = stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(|piece| piece.map(Frame::data));
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// Room for the pieces of one body, used again once a piece is sent: fresh memory for each would be mapped, cleared and unmapped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

/// Pieces on their way at most: kept by HTTP, in the channel, being written.
const PIECES: usize = 4;

impl Pieces {
    /// An empty piece with room for so many bytes, and perhaps more.
    pub(crate) fn take(&self, bytes: usize) -> Piece {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let text = used.unwrap_or_else(|| Vec::with_capacity(bytes));
        Piece { text, home: self.clone() }
    }
}

/// A piece; its room goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) text: Vec<u8>,
    home: Pieces,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl From<Piece> for Bytes {
    fn from(piece: Piece) -> Self {
        Self::from_owner(piece)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < PIECES {
            kept.push(text);
        }
    }
}

/// The same body, but it ends in an error when `cut` was cancelled: HTTP/2 then resets the stream, where a clean end
/// would pass off a part as the whole.
pub(crate) fn broken_by(mut body: Body, cut: CancellationToken) -> Body {
    // One whose length is known is whole already.
    if body.size_hint().exact().is_some() {
        return body;
    }
    let frames = stream::poll_fn(move |cx| match Pin::new(&mut body).poll_frame(cx) {
        Poll::Ready(None) if cut.is_cancelled() => Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
        other => other,
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The body of a request.
///
/// One over HTTP/2 that nobody reads to its end, because its request is refused, is read on for a while and thrown away: a stream that
/// is reset under a client that still sends makes some clients (curl) lose the answer (RFC 9113, 8.1).
#[derive(Debug)]
pub(crate) struct Arriving {
    body: Option<Incoming>,
    /// Set where what is left is read on; cancelled when the daemon ends.
    reads_on_until: Option<CancellationToken>,
}

/// What is left of a refused body is read for so long,
const READ_ON: Duration = Duration::from_secs(10);
/// and so many bytes of it: then the stream is reset (`NO_ERROR`, since the answer is out).
const READ_ON_BYTES: usize = 64 << 20;

impl Arriving {
    /// Over HTTP/1, where hyper decides whether what is left is read or the connection closed.
    pub(crate) fn alone(body: Incoming) -> Self {
        Self { body: Some(body), reads_on_until: None }
    }

    /// Over HTTP/2.
    pub(crate) fn shared(body: Incoming, stop: CancellationToken) -> Self {
        Self { body: Some(body), reads_on_until: Some(stop) }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.body.as_mut() {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let (Some(mut body), Some(stop)) = (self.body.take(), self.reads_on_until.take()) else { return };
        if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let rest = async move {
            let mut left = READ_ON_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
                left = less;
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(tokio::time::timeout(READ_ON, rest)));
    }
}

/// The whole body of a request.
///
/// # Errors
/// 413 above `limit` bytes, 408 when it takes longer than `within`, 400 when it breaks off.
pub(crate) async fn read(body: Arriving, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    // Said beforehand: then it is refused unread, and a client that waits for `100 Continue` never sends it.
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    let whole = tokio::time::timeout(within, Limited::new(body, limit).collect()).await;
    match whole {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(e)) => Err(ApiError::bad_request(format!("the body of the request broke off: {e}"))),
        Err(_) => {
            Err(ApiError::new(408, "Timeout", format!("the body of the request did not arrive within {within:?}")))
        }
    }
}
