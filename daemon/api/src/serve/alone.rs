//! A stream that has an HTTP/1.1 connection to itself, as every watch has: the connection is taken from hyper, whose buffers
//! would cost twice as much as all the rest of an idle watcher.
//!
//! ```text
//!  service: the answer bears `Alone` ─→ the connection's task: hyper is dropped ─→ carry: head, chunks, end (RFC 9112, 7.1)
//! ```

use crate::serve::body::Body;
use crate::serve::dispatch::State;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, Response, Version};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

/// In an answer's extensions: its body lasts, and nothing else will be asked over this connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone;

/// A stream lent to hyper, to be taken back while hyper still holds its end.
pub(crate) struct Lent<S>(Arc<Mutex<Option<S>>>);

impl<S> Clone for Lent<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Unpin> Lent<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// The stream; whoever still holds the loan finds it closed.
    pub(crate) fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does something with the stream.
    pub(crate) fn with<T>(&self, act: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(context, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}

/// Where a connection's service hands an answer over that is to be carried alone.
#[derive(Clone)]
pub(crate) struct Handover(Arc<Mutex<Option<oneshot::Sender<Response<Body>>>>>);

impl Handover {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Response<Body>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    /// Can the answer to such a request be carried alone? Before HTTP/1.1 there are no chunks.
    pub(crate) fn is_for<B>(request: &Request<B>) -> bool {
        request.version() == Version::HTTP_11
    }

    /// Gives the answer back if it belongs to hyper; else does not return.
    pub(crate) async fn pass(&self, response: Response<Body>) -> Response<Body> {
        if response.extensions().get::<Alone>().is_none() {
            return response;
        }
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match sender {
            Some(sender) => {
                drop(sender.send(response));
                // The connection's task drops hyper, and this with it.
                std::future::pending().await
            }
            // Asked again over a connection that was handed over: hyper hears of it no more.
            None => response,
        }
    }
}

/// Writes an answer piece by piece until its body ends, its client is gone or the daemon must stop.
pub(crate) async fn carry<S>(state: &State, mut stream: S, response: Response<Body>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _counted = state.counters.connection();
    let (parts, mut body) = response.into_parts();
    let mut head = Vec::with_capacity(320);
    // Into memory: no way to fail.
    let _ = write!(head, "HTTP/1.1 {}\r\n", parts.status);
    for (name, value) in &parts.headers {
        let _ = write!(head, "{name}: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let date = state.deps.registry.now().format("%a, %d %b %Y %H:%M:%S GMT");
    let _ = write!(head, "date: {date}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    if send(&mut stream, &head).await.is_err() {
        return;
    }
    drop((parts, head));
    loop {
        let mut unasked = [0; 64];
        let frame = tokio::select! {
            frame = body.frame() => frame,
            read = stream.read(&mut unasked) => match read {
                // Nothing is asked over this connection any more.
                Ok(1..) => continue,
                Ok(0) | Err(_) => return,
            },
            () = state.abort.cancelled() => return,
        };
        let done = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => chunk(&mut stream, &data).await,
                _ => continue,
            },
            // Without its end, the client does not take a part for the whole.
            Some(Err(_)) => return,
            None => {
                drop(send(&mut stream, b"0\r\n\r\n").await);
                drop(stream.shutdown().await);
                return;
            }
        };
        if let Err(error) = done {
            return tracing::debug!(%error, "a stream broke");
        }
    }
}

async fn chunk<S: AsyncWrite + Unpin>(stream: &mut S, data: &Bytes) -> io::Result<()> {
    let mut text = Vec::with_capacity(data.len() + 16);
    write!(text, "{:x}\r\n", data.len())?;
    text.extend_from_slice(data);
    text.extend_from_slice(b"\r\n");
    send(stream, &text).await
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
