//! `pods/{name}/exec` over WebSocket: binary frames whose first byte is a channel (`v5.channel.k8s.io`, `v4` without
//! closing stdin, and the nameless first version without a final status).

use crate::access::policy::check_enter;
use crate::runtime::{ExecExit, ExecOptions, Session, TerminalSize};
use crate::serve::body::{Body, full};
use crate::serve::dispatch::Call;
use crate::streams::logs::{container, pod};
use crate::wire::error::ApiError;
use crate::wire::request::ResourceRequest;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Bytes of output in one frame.
const CHUNK: usize = 32 << 10;
/// Bytes of a frame that a client may send.
const MAX_FRAME: usize = 1 << 20;

/// The protocol that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    V5,
    V4,
    /// `channel.k8s.io` or none: no final status.
    V1 {
        named: bool,
    },
}

impl Protocol {
    fn choose(headers: &HeaderMap) -> Result<Self, ApiError> {
        let offered: Vec<&str> = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .map(str::trim)
            .collect();
        let has = |name: &str| offered.contains(&name);
        match () {
            () if has("v5.channel.k8s.io") => Ok(Self::V5),
            () if has("v4.channel.k8s.io") => Ok(Self::V4),
            () if has("channel.k8s.io") => Ok(Self::V1 { named: true }),
            () if offered.is_empty() => Ok(Self::V1 { named: false }),
            () => Err(ApiError::bad_request(format!(
                "unable to upgrade: none of the protocols {} is known; use v5.channel.k8s.io or v4.channel.k8s.io",
                offered.join(", ")
            ))),
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::V5 => Some("v5.channel.k8s.io"),
            Self::V4 => Some("v4.channel.k8s.io"),
            Self::V1 { named } => named.then_some("channel.k8s.io"),
        }
    }
}

/// Starts the command and answers with the upgrade; everything that can be refused is refused before it.
///
/// # Errors
/// 404 for the pod, 400 for container, command and protocol, 403 for an operator at a privileged pod.
pub(crate) async fn answer(
    call: Call,
    resource: &ResourceRequest,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (object, name) = pod(&call, resource)?;
    check_enter(&call.principal, resource.kind, &object)?;
    let (options, quiet) = options(&call, container(&call.query, &object)?)?;
    let key = websocket_key(request.headers())?;
    let protocol = Protocol::choose(request.headers())?;
    let place = call.stream_place()?;
    tracing::info!(pod = %format!("{}/{}", name.namespace, name.name), container = %options.container, "exec");
    let session = call.state.deps.runtime.exec(&name, options).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _counted = call.state.counters.stream();
        let _place = place;
        converse(&call, upgrade, protocol, session, quiet).await;
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    if let Some(name) = protocol.name() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// The command, and which outputs the client does not want.
fn options(call: &Call, container: String) -> Result<(ExecOptions, Quiet), ApiError> {
    let query = &call.query;
    let options = ExecOptions {
        container,
        command: query.all("command").map(str::to_owned).collect(),
        tty: query.flag("tty"),
        stdin: query.flag("stdin"),
    };
    let quiet = Quiet { stdout: !query.flag("stdout"), stderr: !query.flag("stderr") };
    if options.command.first().is_none_or(String::is_empty) {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    if quiet.stdout && quiet.stderr && !options.stdin {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    Ok((options, quiet))
}

/// Outputs that are read and thrown away.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    stdout: bool,
    stderr: bool,
}

/// The answer to the client's WebSocket key.
fn websocket_key(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let has = |name, value: &str| {
        let given = headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        given.split(',').any(|v| v.trim().eq_ignore_ascii_case(value))
    };
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|_| has(UPGRADE, "websocket") && has(CONNECTION, "upgrade") && has(SEC_WEBSOCKET_VERSION, "13"));
    let Some(key) = key else {
        return Err(ApiError::bad_request(
            "Upgrade request required: exec speaks WebSocket (version 13) with v5.channel.k8s.io or v4.channel.k8s.io",
        ));
    };
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(ApiError::internal)
}

type Sink = SplitSink<WebSocketStream<TokioIo<Upgraded>>, Message>;

/// Carries the session over the connection. Returning drops the session, which ends the command (F45).
async fn converse(call: &Call, upgrade: OnUpgrade, protocol: Protocol, session: Session, quiet: Quiet) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "an exec client left before the upgrade"),
    };
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = 8 << 10;
    config.write_buffer_size = 0;
    config.max_message_size = Some(MAX_FRAME);
    config.max_frame_size = Some(MAX_FRAME);
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let Session { stdin, stdout, stderr, resize, exit, guard } = session;
    let output = async {
        // The reference opens with an empty frame.
        sink.send(frame(STDOUT, &[])).await.ok()?;
        copy_out(&mut sink, stdout, stderr, quiet).await?;
        let exit =
            exit.await.map_err(|_| "the command's supervisor ended without telling how the command did".to_owned());
        finish(&mut sink, protocol, exit).await
    };
    let input = async {
        let (typed, to_command) = mpsc::channel::<Bytes>(8);
        let feed = feed(stdin, to_command);
        let read = async {
            let mut typed = Some(typed);
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Binary(data) => take(&data, protocol, &mut typed, &resize).await,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
        };
        // The client is gone when its messages end; a command that closed its stdin goes on.
        tokio::join!(feed, read);
    };
    tokio::select! {
        _ = output => {}
        () = input => tracing::debug!("an exec client left; its command ends"),
        () = call.state.stop.cancelled() => {}
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
            // The command does not read any more; that is no reason to end it.
            stdin = None;
        }
    }
}

/// Takes one frame of the client.
async fn take(
    data: &Bytes,
    protocol: Protocol,
    typed: &mut Option<mpsc::Sender<Bytes>>,
    resize: &mpsc::Sender<TerminalSize>,
) {
    match data.split_first() {
        Some((&STDIN, _)) if data.len() > 1 => {
            if let Some(typed) = typed {
                drop(typed.send(data.slice(1..)).await);
            }
        }
        Some((&RESIZE, json)) => {
            if let Some(size) = terminal_size(json) {
                // A full queue of sizes: a later one will tell.
                let _ = resize.try_send(size);
            }
        }
        Some((&CLOSE, [STDIN])) if protocol == Protocol::V5 => *typed = None,
        _ => {}
    }
}

fn terminal_size(json: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let side = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: side("Width")?, height: side("Height")? })
}

/// Sends both outputs until both end; `None` when the client is gone.
async fn copy_out(
    sink: &mut Sink,
    mut stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    quiet: Quiet,
) -> Option<()> {
    let mut stderr = stderr;
    let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
    let mut out_open = true;
    while out_open || stderr.is_some() {
        let (channel, data) = tokio::select! {
            read = chunk(&mut stdout, &mut out), if out_open => match read {
                Some(data) => (STDOUT, data),
                None => {
                    out_open = false;
                    continue;
                }
            },
            read = chunk_of(&mut stderr, &mut err), if stderr.is_some() => match read {
                Some(data) => (STDERR, data),
                None => {
                    stderr = None;
                    continue;
                }
            },
        };
        let unwanted = if channel == STDOUT { quiet.stdout } else { quiet.stderr };
        if !unwanted {
            sink.send(frame(channel, &data)).await.ok()?;
        }
    }
    Some(())
}

/// The next piece of output; `None` at its end. Safe to cancel: `read_buf` is, and what it read is in the buffer.
async fn chunk(reader: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut BytesMut) -> Option<Bytes> {
    buffer.reserve(CHUNK);
    match reader.read_buf(&mut buffer.limit(CHUNK)).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.split().freeze()),
    }
}

async fn chunk_of(reader: &mut Option<Box<dyn AsyncRead + Send + Unpin>>, buffer: &mut BytesMut) -> Option<Bytes> {
    match reader {
        Some(reader) => chunk(reader, buffer).await,
        None => None,
    }
}

/// Says how it ended and closes.
async fn finish(sink: &mut Sink, protocol: Protocol, exit: Result<ExecExit, String>) -> Option<()> {
    if !matches!(protocol, Protocol::V1 { .. }) {
        sink.send(frame(ERROR, exit_status(exit).to_string().as_bytes())).await.ok()?;
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(close))).await.ok()?;
    sink.close().await.ok()
}

/// The Status on the error channel.
fn exit_status(exit: Result<ExecExit, String>) -> Value {
    match exit {
        Ok(ExecExit { code: 0, message }) if message.is_empty() => json!({"metadata": {}, "status": "Success"}),
        Ok(ExecExit { code, message }) if message.is_empty() => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Ok(ExecExit { message, .. }) | Err(message) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: error executing command in container: {message}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": format!("error executing command in container: {message}")}]},
            "code": 500,
        }),
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}
