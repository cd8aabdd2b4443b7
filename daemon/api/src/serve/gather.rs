//! What a connection writes in one turn of its task goes out together: HTTP/2 hands every frame on by itself, and each would be a
//! TLS record and a system call of its own.
//!
//! ```text
//!  hyper ─ frames ─→ Gathering: kept, at most MOST ─ end of the turn (Turns) ─→ TLS ─→ kernel
//! ```

use crate::serve::alone::Lent;
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept at most: as much as TLS takes at a time.
const MOST: usize = 64 << 10;
/// A write of so many is likely to be followed by more: a whole frame of a long answer.
const LONG: usize = 8 << 10;

/// A stream whose writes wait for [`Turns`].
pub(crate) struct Gathering<S> {
    inner: S,
    waiting: Vec<u8>,
    /// How much of it is on its way already.
    sent: usize,
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, waiting: Vec::new(), sent: 0 }
    }

    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.sent = 0;
        if self.waiting.len() < MOST {
            // Idle connections hold no memory; a turn that filled it is followed by others.
            self.waiting = Vec::new();
        }
        self.waiting.clear();
        Pin::new(&mut self.inner).poll_flush(context)
    }

    /// Room for more, which may have to be made.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= MOST {
            ready!(self.poll_send(context))?;
        }
        Poll::Ready(Ok(MOST.saturating_sub(self.waiting.len())))
    }

    fn take(&mut self, bytes: &[u8], room: usize) -> usize {
        if bytes.len() >= LONG && self.waiting.capacity() < MOST {
            // Once, where it would grow step by step.
            self.waiting.reserve_exact(MOST - self.waiting.len());
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.waiting.extend_from_slice(taken);
        taken.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(context))?;
        Poll::Ready(Ok(self.take(bytes, room)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(context))?;
        let mut taken = 0;
        for slice in slices {
            taken += self.take(slice, room - taken);
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The end of the turn flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A connection over a gathering stream: after each of its turns, what it wrote is sent.
pub(crate) struct Turns<C, S> {
    connection: Pin<Box<C>>,
    stream: Lent<Gathering<S>>,
    /// The connection has ended; what it wrote last is still on its way.
    ended: Option<io::Result<()>>,
}

impl<C, S> Turns<C, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Has `serve` make the connection of a stream.
    pub(crate) fn new(stream: S, serve: impl FnOnce(TokioIo<Lent<Gathering<S>>>) -> C) -> Self {
        let stream = Lent::new(Gathering::new(stream));
        Self { connection: Box::pin(serve(TokioIo::new(stream.clone()))), stream, ended: None }
    }

    /// The connection, to be told something.
    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C, S, E> Future for Turns<C, S>
where
    C: Future<Output = Result<(), E>>,
    S: AsyncRead + AsyncWrite + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended.is_none()
            && let Poll::Ready(done) = self.connection.as_mut().poll(context)
        {
            self.ended = Some(done.map_err(io::Error::other));
        }
        let sent = self.stream.with(|mut stream| stream.poll_send(context));
        match (self.ended.take(), sent) {
            (Some(ended), Poll::Ready(_)) => Poll::Ready(ended),
            (None, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (ended, _) => {
                self.ended = ended;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Writes 200 frames in one turn, then ends.
    async fn frames(mut stream: Lent<Gathering<tokio::io::DuplexStream>>) -> io::Result<()> {
        for index in 0..200_u8 {
            stream.write_all(&[index; 1000]).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn all_that_was_written_arrives_though_its_reader_is_slow() {
        let (ours, mut theirs) = tokio::io::duplex(700);
        let turns = Turns::new(ours, |io| frames(io.into_inner()));
        let read = async {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        };
        let (done, all) = tokio::join!(turns, read);
        done.unwrap();
        assert_eq!(all, (0..200_u8).flat_map(|index| [index; 1000]).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_turn_is_one_write() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut turns = Box::pin(Turns::new(ours, |io| async move {
            let mut stream = io.into_inner();
            stream.write_all(b"a").await?;
            stream.flush().await?;
            let early = Box::pin(theirs.read_u8()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(early.is_pending(), "sent too early");
            tokio::task::yield_now().await;
            assert_eq!(theirs.read_u8().await?, b'a');
            io::Result::Ok(())
        }));
        turns.as_mut().await.unwrap();
    }
}
