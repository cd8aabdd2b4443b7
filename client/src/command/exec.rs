//! `exec`: a program in a container, over a WebSocket of the protocol v5.channel.k8s.io: every frame's first byte is
//! its channel (<https://kubernetes.io/docs/reference/using-api/websockets/> and the reference's recorded streams).

use crate::context::Context;
use crate::daemon::{encode, with_query};
use crate::error::Error;
use crate::exit::Exit;
use crate::kube;
use crate::target;
use crate::terminal::{self, RawMode};
use crate::wire::Status;
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

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod: `web` or `pod/web`
    pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let path = path(context, arguments, &pod)?;
    let socket = connect(context, &path).await?;
    let raw = raw_mode(context, arguments)?;
    let outcome = converse(context, arguments, socket).await;
    // Messages after this need an ordinary terminal.
    drop(raw);
    finish(context, &arguments.program, &outcome?)
}

fn path(context: &Context, arguments: &Arguments, pod: &str) -> Result<String, Error> {
    let flag = |on: bool| if on { "true" } else { "" };
    let base = format!("{}/{}/exec", kube::collection(target::kind("pods")?, Some(context.namespace())), encode(pod));
    let mut query = vec![
        ("container", arguments.container.as_str()),
        ("stdin", flag(arguments.stdin)),
        ("stdout", "true"),
        // A terminal has one output.
        ("stderr", flag(!arguments.tty)),
        ("tty", flag(arguments.tty)),
    ];
    query.extend(arguments.program.iter().map(|word| ("command", word.as_str())));
    // An empty argument of the program still counts.
    let path = with_query(&base, &query);
    let empty = arguments.program.iter().any(String::is_empty);
    if !empty {
        return Ok(path);
    }
    query.retain(|(name, _)| *name != "command");
    let words: String = arguments.program.iter().map(|word| format!("&command={}", encode(word))).collect();
    Ok(with_query(&base, &query) + &words)
}

async fn connect(context: &Context, path: &str) -> Result<WebSocketStream<UnixStream>, Error> {
    let stream = context.daemon.connect().await?;
    let broken = |e: tungstenite::Error| Error::broken("the connection for exec can't be made", e);
    let mut request = format!("ws://localhost{path}").into_client_request().map_err(broken)?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err(Error::Refused { status: Box::new(Status::parse(response.status().as_u16(), &body)) })
        }
        Err(e) => Err(broken(e)),
    }
}

fn raw_mode(context: &Context, arguments: &Arguments) -> Result<Option<RawMode>, Error> {
    if !(arguments.tty && arguments.stdin) {
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

/// Passes bytes on both ways until the daemon tells the outcome.
async fn converse(
    context: &Context,
    arguments: &Arguments,
    socket: WebSocketStream<UnixStream>,
) -> Result<Value, Error> {
    let (mut sink, mut source) = socket.split();
    let broken = |e: tungstenite::Error| Error::broken("the connection broke while the program ran", e);
    let terminal = |e| Error::Terminal(e);
    let mut stdin = if arguments.stdin { Some(input()) } else { None };
    let mut resized = signal(SignalKind::window_change()).map_err(terminal)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(terminal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(terminal)?;
    if let Some(size) = resize(arguments) {
        sink.send(size).await.map_err(broken)?;
    }
    let mut outcome = None;
    loop {
        tokio::select! {
            message = source.next() => match message {
                Some(Ok(Message::Binary(frame))) => receive(context, &frame, &mut outcome)?,
                Some(Ok(Message::Close(_))) | None => break,
                Some(Ok(_)) => {}
                Some(Err(_)) if outcome.is_some() => break,
                Some(Err(e)) => return Err(broken(e)),
            },
            piece = next(&mut stdin) => {
                let frame = match piece {
                    Some(bytes) => framed(STDIN, &bytes),
                    None => {
                        stdin = None;
                        vec![CLOSE, STDIN]
                    }
                };
                // A program that ended does not read on: its outcome is on the way.
                if sink.send(Message::binary(frame)).await.is_err() {
                    stdin = None;
                }
            }
            _ = resized.recv() => {
                if let Some(size) = resize(arguments) {
                    sink.send(size).await.map_err(broken)?;
                }
            }
            _ = terminated.recv() => return Err(Error::usage("ended by a signal", "")),
            _ = hung_up.recv() => return Err(Error::usage("the terminal is gone", "")),
        }
    }
    outcome.ok_or_else(|| {
        Error::broken(
            "the connection ended before the program did",
            std::io::Error::from(std::io::ErrorKind::UnexpectedEof),
        )
    })
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

fn resize(arguments: &Arguments) -> Option<Message> {
    let (width, height) = terminal::size().filter(|_| arguments.tty)?;
    Some(Message::binary(framed(RESIZE, json!({"Width": width, "Height": height}).to_string().as_bytes())))
}

/// The program's exit code, or why it never ran.
fn finish(context: &Context, program: &[String], outcome: &Value) -> Result<Exit, Error> {
    if kube::text(outcome, "/status") == "Success" {
        return Ok(Exit::Ok);
    }
    if kube::text(outcome, "/reason") == "NonZeroExitCode" {
        let causes = kube::array(outcome, "/details/causes");
        let code = causes.iter().find(|c| kube::text(c, "/reason") == "ExitCode");
        let code = code.and_then(|c| kube::text(c, "/message").parse::<i32>().ok()).unwrap_or(1);
        return Ok(Exit::Program(u8::try_from(code & 0xff).unwrap_or(1)));
    }
    let why = kube::text(outcome, "/message");
    let error = Error::usage(
        format!(
            "{:?} can't be run: {}",
            program.first().map_or("", String::as_str),
            if why.is_empty() { "unknown" } else { why }
        ),
        "the program must exist in the container; `-c` picks another container",
    );
    context.fail(&error);
    Ok(Exit::Error)
}
