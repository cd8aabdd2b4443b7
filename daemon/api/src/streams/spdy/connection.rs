//! A connection: frames in, frames out, and the streams between.
//!
//! Everything is bounded: streams, the bytes that wait in each, the frames that wait to be written. A peer that sends more
//! than a stream's reader takes is not read from; a reader that takes nothing for [`STALL`] has its stream reset, so that the
//! others go on.

use super::frame::{Control, HEAD, Head, ProtocolError, Reset};
use super::headers::{Packer, Unpacker};
use super::stream::{FIRST_WINDOW, Parts, Shared, Stream, Window};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Streams at a time; a connection that is forwarded takes two.
const MOST: usize = 1024;
/// Bytes taken from the connection at a time.
const CHUNK: usize = 16 << 10;
/// Pieces of [`CHUNK`] that wait for a stream's reader.
const WAITING: usize = 8;
/// A stream whose reader takes nothing for so long, while more waits, is reset.
const STALL: Duration = Duration::from_secs(30);
/// Time for the last frames at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The server's side of a connection. Dropping it breaks it off; [`Connection::close`] ends it in order.
pub(crate) struct Connection {
    streams: mpsc::Receiver<Stream>,
    data: mpsc::Sender<Bytes>,
    reading: JoinHandle<()>,
    writing: JoinHandle<()>,
}

impl Connection {
    /// Serves what an upgrade left.
    pub(crate) fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(io: S) -> Self {
        let (read, write) = tokio::io::split(io);
        let (new_stream, streams) = mpsc::channel(16);
        let (control, controls) = mpsc::channel(64);
        let (data, frames) = mpsc::channel(8);
        let writing = tokio::spawn(async move {
            if let Err(error) = write_frames(write, controls, frames).await {
                tracing::debug!(%error, "a SPDY connection can't be written to");
            }
        });
        let reader = Reader {
            new_stream,
            control,
            data: data.clone(),
            open: HashMap::new(),
            last: 0,
            session: Arc::new(Window::new(false, FIRST_WINDOW)),
            initial_window: None,
            unpacker: Unpacker::new(),
        };
        let reading = tokio::spawn(reader.run(read));
        Self { streams, data, reading, writing }
    }

    /// The next stream that the client opens; `None` when the client is gone.
    pub(crate) async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Lets go what waits to be written, says good-bye and closes.
    pub(crate) async fn close(mut self) {
        self.reading.abort();
        // An empty piece is the end: see `write_frames`.
        let farewell = async {
            if self.data.send(Bytes::new()).await.is_ok() {
                let _ = (&mut self.writing).await;
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
        self.writing.abort();
    }
}

/// Writes frames as they come; replies before data, so that a stream is confirmed before it speaks.
async fn write_frames<S: AsyncWrite>(
    mut io: WriteHalf<S>,
    mut controls: mpsc::Receiver<Control>,
    mut frames: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut packer = Packer::new();
    loop {
        let ready = match controls.try_recv() {
            Ok(control) => Some(control.encode(&mut packer).into()),
            Err(_) => frames.try_recv().ok(),
        };
        let bytes: Bytes = match ready {
            Some(bytes) => bytes,
            None => {
                io.flush().await?;
                tokio::select! {
                    biased;
                    Some(control) = controls.recv() => control.encode(&mut packer).into(),
                    Some(bytes) = frames.recv() => bytes,
                    else => break,
                }
            }
        };
        if bytes.is_empty() {
            let farewell = Control::GoAway { last_stream: 0, status: 0 };
            io.write_all(&farewell.encode(&mut packer)).await?;
            break;
        }
        io.write_all(&bytes).await?;
    }
    io.flush().await?;
    io.shutdown().await
}

/// A stream as the reader sees it.
struct Open {
    /// `None`: the client's direction has ended.
    to_reader: Option<mpsc::Sender<Bytes>>,
    shared: Arc<Shared>,
}

impl Open {
    fn is_over(&self) -> bool {
        let finished = self.to_reader.is_none() && self.shared.finished.load(Ordering::Acquire);
        finished || self.shared.reset.load(Ordering::Acquire)
    }
}

struct Reader {
    new_stream: mpsc::Sender<Stream>,
    control: mpsc::Sender<Control>,
    data: mpsc::Sender<Bytes>,
    open: HashMap<u32, Open>,
    /// The highest stream so far.
    last: u32,
    session: Arc<Window>,
    /// As the client's settings have it.
    initial_window: Option<i64>,
    unpacker: Unpacker,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// Nobody wants to know any more.
    #[error("the connection is being closed")]
    Closing,
}

impl Reader {
    async fn run<S: AsyncRead>(mut self, io: ReadHalf<S>) {
        let mut io = BufReader::new(io);
        match self.read_frames(&mut io).await {
            Err(ReadError::Protocol(error)) => {
                tracing::debug!(%error, "a SPDY connection ends");
                // PROTOCOL_ERROR (2.6.6).
                let _ = self.control.try_send(Control::GoAway { last_stream: self.last, status: 1 });
            }
            Err(error) => tracing::debug!(%error, "a SPDY connection ends"),
            Ok(()) => {}
        }
        for open in self.open.into_values() {
            open.shared.reset();
        }
    }

    async fn read_frames<R: AsyncRead + Unpin>(&mut self, io: &mut R) -> Result<(), ReadError> {
        loop {
            let mut head = [0; HEAD];
            match io.read_exact(&mut head).await {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            match Head::parse(head)? {
                Head::Data { stream, fin, length } => self.data(io, stream, fin, length).await?,
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length];
                    io.read_exact(&mut payload).await?;
                    if let Some(frame) = Control::parse(kind, flags, &payload, &mut self.unpacker)? {
                        self.control(frame).await?;
                    }
                }
            }
        }
    }

    /// Bytes of a stream, in pieces: a frame may be as long as 16 MiB.
    async fn data<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        stream: u32,
        fin: bool,
        length: usize,
    ) -> Result<(), ReadError> {
        let mut left = length;
        while left > 0 {
            let mut piece = BytesMut::with_capacity(left.min(CHUNK));
            let n = io.read_buf(&mut (&mut piece).limit(left.min(CHUNK))).await?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            left -= n;
            self.deliver(stream, piece.freeze()).await?;
        }
        if fin && let Some(open) = self.open.get_mut(&stream) {
            open.to_reader = None;
        }
        Ok(())
    }

    /// Bytes for streams that are over, or that nobody reads, are lost, as they would be on a closed socket.
    async fn deliver(&mut self, stream: u32, piece: Bytes) -> Result<(), ReadError> {
        let Some(open) = self.open.get_mut(&stream) else { return Ok(()) };
        let Some(to_reader) = &open.to_reader else { return Ok(()) };
        match to_reader.try_send(piece) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => open.to_reader = None,
            Err(mpsc::error::TrySendError::Full(piece)) => match timeout(STALL, to_reader.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => open.to_reader = None,
                Err(_) => {
                    open.shared.reset();
                    open.to_reader = None;
                    self.say(Control::RstStream { stream, status: Reset::FlowControl as u32 }).await?;
                }
            },
        }
        Ok(())
    }

    async fn say(&self, control: Control) -> Result<(), ReadError> {
        self.control.send(control).await.map_err(|_| ReadError::Closing)
    }

    async fn control(&mut self, frame: Control) -> Result<(), ReadError> {
        match frame {
            Control::SynStream { stream, fin, headers } => self.opened(stream, fin, headers).await,
            Control::RstStream { stream, .. } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.shared.reset();
                }
                Ok(())
            }
            // Odd numbers are the client's, and come back as they are (2.6.5).
            Control::Ping(id) if id % 2 == 1 => self.say(Control::Ping(id)).await,
            Control::Settings { initial_window: Some(window) } => {
                let (new, old) = (i64::from(window), self.initial_window.unwrap_or(FIRST_WINDOW));
                self.initial_window = Some(new);
                for open in self.open.values() {
                    open.shared.window.grow(new - old);
                    open.shared.waiting.wake();
                }
                Ok(())
            }
            Control::WindowUpdate { stream, more } => {
                if stream == 0 {
                    self.session.grow(i64::from(more));
                    self.open.values().for_each(|o| o.shared.waiting.wake());
                } else if let Some(open) = self.open.get(&stream) {
                    open.shared.window.grow(i64::from(more));
                    open.shared.waiting.wake();
                }
                Ok(())
            }
            Control::Headers { stream, fin: true, .. } => {
                if let Some(open) = self.open.get_mut(&stream) {
                    open.to_reader = None;
                }
                Ok(())
            }
            Control::SynReply { .. }
            | Control::Ping(_)
            | Control::Settings { .. }
            | Control::GoAway { .. }
            | Control::Headers { .. } => Ok(()),
        }
    }

    async fn opened(&mut self, id: u32, fin: bool, headers: super::headers::Headers) -> Result<(), ReadError> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(ProtocolError::StreamId.into());
        }
        self.last = id;
        self.open.retain(|_, open| !open.is_over());
        if self.open.len() >= MOST {
            return self.say(Control::RstStream { stream: id, status: Reset::Refused as u32 }).await;
        }
        let counts = self.initial_window.is_some() || self.open.values().any(|o| o.shared.window.counts());
        let shared = Arc::new(Shared {
            window: Window::new(counts, self.initial_window.unwrap_or(FIRST_WINDOW)),
            waiting: AtomicWaker::new(),
            reset: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        });
        let (to_reader, reader) = mpsc::channel(WAITING);
        self.say(Control::SynReply { stream: id, fin: false, headers: Vec::new() }).await?;
        let stream = Stream::new(Parts {
            id,
            headers,
            shared: shared.clone(),
            session: self.session.clone(),
            control: self.control.clone(),
            writer: self.data.clone(),
            reader,
        });
        let to_reader = (!fin).then_some(to_reader);
        self.open.insert(id, Open { to_reader, shared });
        self.new_stream.send(stream).await.map_err(|_| ReadError::Closing)
    }
}
