//! One stream: bytes in both directions, each of which ends by itself.

use super::frame::{Control, Reset, data_head};
use super::headers::Headers;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Bytes that one frame of ours carries at most.
const CHUNK: usize = 32 << 10;
/// The peer is told of room again after so many bytes were taken.
const ACKNOWLEDGE: u32 = 16 << 10;
/// Bytes that may be on the way before the first WINDOW_UPDATE (2.6.8).
pub(super) const FIRST_WINDOW: i64 = 64 << 10;

/// How many bytes may be sent. Counts for nothing until the peer shows that it counts.
#[derive(Debug)]
pub(super) struct Window {
    counts: AtomicBool,
    left: AtomicI64,
}

impl Window {
    pub(super) fn new(counts: bool, left: i64) -> Self {
        Self { counts: AtomicBool::new(counts), left: AtomicI64::new(left) }
    }

    /// The peer makes room.
    pub(super) fn grow(&self, by: i64) {
        self.left.fetch_add(by, Ordering::AcqRel);
        self.counts.store(true, Ordering::Release);
    }

    pub(super) fn counts(&self) -> bool {
        self.counts.load(Ordering::Acquire)
    }

    fn room(&self, wanted: usize) -> usize {
        if !self.counts() {
            return wanted;
        }
        usize::try_from(self.left.load(Ordering::Acquire)).unwrap_or(0).min(wanted)
    }

    fn take(&self, bytes: usize) {
        self.left.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }
}

/// What a stream and its connection's reader both know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) window: Window,
    /// The writer that waits for room.
    pub(super) waiting: AtomicWaker,
    /// Either side gave it up, or the connection is gone.
    pub(super) reset: AtomicBool,
    /// Our direction has ended.
    pub(super) finished: AtomicBool,
}

impl Shared {
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.waiting.wake();
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }
}

/// One stream. Dropped before its writing side was shut down, it is reset.
#[derive(Debug)]
pub(crate) struct Stream {
    id: u32,
    headers: Headers,
    shared: Arc<Shared>,
    session: Arc<Window>,
    control: mpsc::Sender<Control>,
    writer: PollSender<Bytes>,
    reader: mpsc::Receiver<Bytes>,
    /// Received and not yet read.
    current: Bytes,
    unacknowledged: u32,
}

/// What a stream is made of by its connection.
pub(super) struct Parts {
    pub(super) id: u32,
    pub(super) headers: Headers,
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<Window>,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) writer: mpsc::Sender<Bytes>,
    pub(super) reader: mpsc::Receiver<Bytes>,
}

impl Stream {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { id, headers, shared, session, control, writer, reader } = parts;
        let writer = PollSender::new(writer);
        Self { id, headers, shared, session, control, writer, reader, current: Bytes::new(), unacknowledged: 0 }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn acknowledge(&mut self, bytes: usize) {
        self.unacknowledged = self.unacknowledged.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.unacknowledged < ACKNOWLEDGE {
            return;
        }
        for stream in [self.id, 0] {
            // With a full queue the next piece will tell.
            if self.control.try_send(Control::WindowUpdate { stream, more: self.unacknowledged }).is_err() {
                return;
            }
        }
        self.unacknowledged = 0;
    }

    /// Gives a frame to the connection's writer, in order.
    fn poll_frame(&mut self, cx: &mut Context<'_>, fin: bool, bytes: &[u8]) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.writer.poll_reserve(cx)).map_err(gone)?;
        let mut frame = BytesMut::with_capacity(bytes.len() + super::frame::HEAD);
        frame.put_slice(&data_head(self.id, fin, bytes.len()));
        frame.put_slice(bytes);
        Poll::Ready(self.writer.send_item(frame.freeze()).map_err(gone))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.current.is_empty() {
            match ready!(this.reader.poll_recv(cx)) {
                Some(bytes) => this.current = bytes,
                None if this.shared.is_reset() => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.current.len().min(buf.remaining());
        buf.put_slice(this.current.get(..n).unwrap_or_default());
        this.current.advance(n);
        this.acknowledge(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.shared.waiting.register(cx.waker());
        if this.shared.is_reset() || this.shared.finished.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = this.session.room(this.shared.window.room(bytes.len().min(CHUNK)));
        if n == 0 {
            return Poll::Pending;
        }
        ready!(this.poll_frame(cx, false, bytes.get(..n).unwrap_or_default()))?;
        this.shared.window.take(n);
        this.session.take(n);
        Poll::Ready(Ok(n))
    }

    /// Frames are on their way as soon as they are written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.is_reset() || this.shared.finished.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_frame(cx, true, &[]))?;
        this.shared.finished.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.shared.finished.load(Ordering::Acquire) && !self.shared.is_reset() {
            self.shared.reset();
            // A connection whose queue is full is about to go anyway.
            let _ = self.control.try_send(Control::RstStream { stream: self.id, status: Reset::Cancel as u32 });
        }
    }
}
