//! The standard streams of a program in a container, over a WebSocket of the protocol v5.channel.k8s.io: every frame's first
//! byte is its channel (<https://kubernetes.io/docs/reference/using-api/websockets/> and the reference's recorded streams).

use crate::context::Context;
use crate::error::Error;
use crate::terminal::{self, RawMode};
use crate::wire::Status;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of standard input in one frame.
const FRAME: usize = 32 << 10;

type Socket = WebSocketStream<UnixStream>;

/// Which streams are connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) tty: bool,
}

impl Streams {
    /// As the query of exec and attach names them.
    pub(super) fn query(self) -> [(&'static str, &'static str); 4] {
        let flag = |on: bool| if on { "true" } else { "" };
        // A terminal has one output.
        [("stdin", flag(self.stdin)), ("stdout", "true"), ("stderr", flag(!self.tty)), ("tty", flag(self.tty))]
    }
}

/// Opens the session at `path`, carries it to its end and gives its outcome, a Status.
pub(super) async fn run(context: &Context, path: &str, streams: Streams) -> Result<Value, Error> {
    let socket = connect(context, path, PROTOCOL).await?;
    let raw = raw_mode(context, streams)?;
    let outcome = converse(context, streams, socket).await;
    // Messages after this need an ordinary terminal.
    drop(raw);
    outcome
}

/// A WebSocket to the daemon, or its refusal.
pub(super) async fn connect(context: &Context, path: &str, protocol: &'static str) -> Result<Socket, Error> {
    let stream = context.daemon.connect().await?;
    let broken = |e: tungstenite::Error| Error::broken("the connection for the stream can't be made", e);
    let mut request = format!("ws://localhost{path}").into_client_request().map_err(broken)?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err(Error::Refused { status: Box::new(Status::parse(response.status().as_u16(), &body)) })
        }
        Err(e) => Err(broken(e)),
    }
}

fn raw_mode(context: &Context, streams: Streams) -> Result<Option<RawMode>, Error> {
    if !(streams.tty && streams.stdin) {
        return Ok(None);
    }
    if std::io::stdin().is_terminal() {
        return RawMode::on().map(Some);
    }
    context.note("Standard input is no terminal: keys are passed on line by line.");
    Ok(None)
}

/// Standard input in pieces, from a thread of its own: reading can't be interrupted.
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; FRAME];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Passes bytes on both ways until the daemon tells the outcome. Each way goes on while the other one waits: a program
/// may write more than fits on the way before it reads on.
async fn converse(context: &Context, streams: Streams, socket: Socket) -> Result<Value, Error> {
    let (sink, mut source) = socket.split();
    let broken = |e: tungstenite::Error| Error::broken("the connection broke while the program ran", e);
    let mut terminated = signal(SignalKind::terminate()).map_err(Error::Terminal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(Error::Terminal)?;
    let mut outcome = None;
    let read = async {
        loop {
            match source.next().await {
                Some(Ok(Message::Binary(frame))) => receive(context, &frame, &mut outcome)?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(_)) if outcome.is_some() => return Ok(()),
                Some(Err(e)) => return Err(broken(e)),
            }
        }
    };
    tokio::select! {
        done = read => done?,
        failed = write(streams, sink) => failed?,
        _ = terminated.recv() => return Err(Error::usage("ended by a signal", "")),
        _ = hung_up.recv() => return Err(Error::usage("the terminal is gone", "")),
    }
    outcome.ok_or_else(|| {
        Error::broken(
            "the connection ended before the program did",
            std::io::Error::from(std::io::ErrorKind::UnexpectedEof),
        )
    })
}

/// Sends standard input and the terminal's sizes; returns only when there is no terminal to watch.
async fn write(streams: Streams, mut sink: SplitSink<Socket, Message>) -> Result<(), Error> {
    let mut stdin = streams.stdin.then(input);
    let mut resized = signal(SignalKind::window_change()).map_err(Error::Terminal)?;
    // The daemon keeps the first output back until it hears something, for clients that can't take it yet. This one can.
    let mut due = resize(streams).or_else(|| Some(Message::Ping(bytes::Bytes::new())));
    loop {
        let message = match due.take() {
            Some(due) => due,
            None => tokio::select! {
                piece = next(&mut stdin) => Message::binary(match piece {
                    Some(bytes) => framed(STDIN, &bytes),
                    None => {
                        stdin = None;
                        vec![CLOSE, STDIN]
                    }
                }),
                _ = resized.recv() => {
                    due = resize(streams);
                    continue;
                }
            },
        };
        // A program that ended does not read on: its outcome is on the way.
        if sink.send(message).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The next piece of standard input; never when there is none to pass on.
async fn next(stdin: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}

fn receive(context: &Context, frame: &[u8], outcome: &mut Option<Value>) -> Result<(), Error> {
    let Some((channel, bytes)) = frame.split_first() else { return Ok(()) };
    match *channel {
        STDOUT if !bytes.is_empty() => context.write(bytes),
        STDERR => {
            let mut err = std::io::stderr().lock();
            err.write_all(bytes).and_then(|()| err.flush()).map_err(Error::Output)
        }
        OUTCOME if !bytes.is_empty() => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            *outcome =
                Some(serde_json::from_slice(bytes).unwrap_or_else(|_| json!({"status": "Failure", "message": text})));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    frame
}

fn resize(streams: Streams) -> Option<Message> {
    let (width, height) = terminal::size().filter(|_| streams.tty)?;
    Some(Message::binary(framed(RESIZE, json!({"Width": width, "Height": height}).to_string().as_bytes())))
}
