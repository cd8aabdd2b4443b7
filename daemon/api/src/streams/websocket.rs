//! A session over a WebSocket: a channel for each standard stream.

use super::channels::{CLOSE, ERROR, Ending, RESIZE, STDERR, STDIN, STDOUT, Subprotocol};
use super::exec::Quiet;
use super::outcome;
use super::upgrade::Socket;
use crate::runtime::{ExecExit, Session, TerminalSize};
use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

/// Bytes of output in one frame.
const CHUNK: usize = 32 << 10;
/// A silent connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(60);

/// How long the first output waits for a word of the client. Kubernetes' Go clients before 1.33, kubectl among them, read from
/// the connection beside making their streams, and throw away what is for a stream that they have not made yet: a command
/// that answers at once would seem to have said nothing.
const HEAD_START: Duration = Duration::from_millis(20);

type Sink = SplitSink<Socket, Message>;

/// Carries the session over the connection, until either ends. Returning drops the session, which ends a command (F45).
pub(super) async fn converse(socket: Socket, protocol: Subprotocol, session: Session, quiet: Quiet) {
    let (mut sink, mut source) = socket.split();
    let Session { stdin, stdout, stderr, resize, exit, guard } = session;
    let heard = Notify::new();
    let output = async {
        // The reference opens with an empty frame.
        sink.send(protocol.frame(STDOUT, &[])).await.ok()?;
        // Only those clients speak this protocol.
        if protocol.closes {
            let _ = tokio::time::timeout(HEAD_START, heard.notified()).await;
        }
        copy_out(&mut sink, protocol, stdout, stderr, quiet).await?;
        let exit =
            exit.await.map_err(|_| "the command's supervisor ended without telling how the command did".to_owned());
        finish(&mut sink, protocol, exit).await
    };
    let input = async {
        let (typed, to_process) = mpsc::channel::<Bytes>(1);
        let feed = feed(stdin, to_process);
        let read = async {
            let mut typed = Some(typed);
            while let Some(Ok(message)) = source.next().await {
                heard.notify_one();
                if matches!(message, Message::Close(_)) {
                    break;
                }
                take(&message, protocol, &mut typed, &resize).await;
            }
        };
        // The client is gone when its messages end; a process that closed its stdin goes on.
        tokio::join!(feed, read);
    };
    tokio::select! {
        _ = output => {}
        () = input => tracing::debug!("a client left; its session ends"),
    }
    drop(guard);
}

/// Writes what the client types; dropping the sender is end of file.
async fn feed(stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>, mut typed: mpsc::Receiver<Bytes>) {
    let mut stdin = stdin;
    while let Some(data) = typed.recv().await {
        if let Some(open) = &mut stdin
            && (open.write_all(&data).await.is_err() || open.flush().await.is_err())
        {
            // The process does not read any more; that is no reason to end it.
            stdin = None;
        }
    }
}

/// Takes one frame of the client.
async fn take(
    message: &Message,
    protocol: Subprotocol,
    typed: &mut Option<mpsc::Sender<Bytes>>,
    resize: &mpsc::Sender<TerminalSize>,
) {
    let Some((channel, data)) = protocol.read(message) else { return };
    match channel {
        STDIN if !data.is_empty() => {
            if let Some(typed) = typed {
                drop(typed.send(data).await);
            }
        }
        RESIZE => {
            if let Some(size) = terminal_size(&data) {
                // A full queue of sizes: a later one will tell.
                let _ = resize.try_send(size);
            }
        }
        CLOSE if protocol.closes && *data == [STDIN] => *typed = None,
        _ => {}
    }
}

/// `{"Width":100,"Height":40}`.
pub(super) fn terminal_size(json: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let side = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: side("Width")?, height: side("Height")? })
}

/// Sends both outputs until both end; `None` when the client is gone.
async fn copy_out(
    sink: &mut Sink,
    protocol: Subprotocol,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    mut stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    quiet: Quiet,
) -> Option<()> {
    let mut stdout = Some(stdout);
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    while stdout.is_some() || stderr.is_some() {
        let unless = |channel: u8| if quiet.skips(channel) { None } else { Some(channel) };
        let message = tokio::select! {
            read = frame_of(&mut stdout, protocol, unless(STDOUT)) => match read {
                Some(frame) => frame,
                None => {
                    stdout = None;
                    continue;
                }
            },
            read = frame_of(&mut stderr, protocol, unless(STDERR)) => match read {
                Some(frame) => frame,
                None => {
                    stderr = None;
                    continue;
                }
            },
            _ = ping.tick() => Some(Message::Ping(Bytes::new())),
        };
        if let Some(message) = message {
            sink.send(message).await.ok()?;
        }
    }
    Some(())
}

/// The next piece of output as a frame of `channel` (without one, it is thrown away); `None` at its end. Read into the
/// stack, so that a stream that says nothing holds no buffer. Safe to cancel: what is read is returned at once.
async fn frame_of(
    reader: &mut Option<Box<dyn AsyncRead + Send + Unpin>>,
    protocol: Subprotocol,
    channel: Option<u8>,
) -> Option<Option<Message>> {
    let Some(reader) = reader else { return std::future::pending().await };
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut space);
        Pin::new(&mut *reader).poll_read(cx, &mut buffer).map(|read| {
            let bytes = buffer.filled();
            (read.is_ok() && !bytes.is_empty()).then(|| channel.map(|channel| protocol.frame(channel, bytes)))
        })
    })
    .await
}

/// Says how it ended and closes.
async fn finish(sink: &mut Sink, protocol: Subprotocol, exit: Result<ExecExit, String>) -> Option<()> {
    let last = match protocol.ending {
        Ending::Status => Some(outcome::status(exit).to_string()),
        Ending::Words => outcome::words(exit),
    };
    if let Some(last) = last {
        sink.send(protocol.frame(ERROR, last.as_bytes())).await.ok()?;
    }
    close(sink).await
}

/// CLOSE 1000.
pub(super) async fn close(sink: &mut Sink) -> Option<()> {
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(close))).await.ok()?;
    sink.close().await.ok()
}
