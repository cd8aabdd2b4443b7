//! `pods/{name}/portforward`: TCP connections into a pod, many over one connection of the client.
//!
//! Three forms: kubectl's (SPDY/3.1 inside a WebSocket), the older one of the same over a plain SPDY upgrade, and channels
//! of a WebSocket, two for each port that the query names.

use super::channels::Subprotocol;
use super::spdy::{Connection as Spdy, Stream};
use super::target::pod;
use super::tunnel::Tunnel;
use super::upgrade::{self, Socket, Upgrade, spdy_answer, websocket_answer};
use super::websocket;
use crate::runtime::{Connection, PodName, Runtime};
use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use crate::wire::request::{Query, ResourceRequest};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::{Request, Response};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;

/// SPDY inside a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol over SPDY.
const OVER_SPDY: &str = "portforward.k8s.io";
/// Ports of one request at most: their channels are numbered in a byte.
const MOST_PORTS: usize = 127;
/// The second stream of a pair must follow the first.
const PAIRING: Duration = Duration::from_secs(30);
/// Bytes read from a pod at a time.
const CHUNK: usize = 16 << 10;

/// Where connections go.
#[derive(Clone)]
struct Target {
    runtime: Arc<dyn Runtime>,
    pod: PodName,
}

impl Target {
    /// # Errors
    /// Words as the reference's.
    async fn connect(&self, port: u16) -> Result<Connection, String> {
        let connected = self.runtime.connect(&self.pod, port).await;
        connected.map_err(|e| format!("error forwarding port {port} to pod {}, uid : {e}", self.pod.name))
    }
}

/// Which of the three forms.
enum Form {
    Channels { protocol: Subprotocol, ports: Vec<u16> },
    Tunnelled,
    Spdy,
}

/// Answers with the upgrade.
///
/// # Errors
/// 404 for the pod, 400 for ports and protocol, 403 for an operator at a privileged pod.
pub(super) async fn answer(
    call: Call,
    resource: &ResourceRequest,
    mut request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (object, pod) = pod(&call, resource)?;
    call.admit_entry(resource.kind, &object)?;
    let (form, response) = match Upgrade::of(request.headers())? {
        Upgrade::Spdy { offered } => (Form::Spdy, spdy_answer(upgrade::choose(&offered, &[OVER_SPDY])?)),
        Upgrade::WebSocket { accept, offered } if offered.iter().any(|o| o == TUNNELLED) => {
            (Form::Tunnelled, websocket_answer(accept, Some(TUNNELLED)))
        }
        Upgrade::WebSocket { accept, offered } => {
            let protocol = Subprotocol::of_ports(&offered)?;
            let form = Form::Channels { protocol, ports: ports(&call.query)? };
            (form, websocket_answer(accept, protocol.name))
        }
    };
    let place = call.stream_place()?;
    tracing::info!(pod = %format!("{}/{}", pod.namespace, pod.name), "port-forward");
    let target = Target { runtime: call.state.deps.runtime.clone(), pod };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _counted = call.state.counters.stream();
        let _place = place;
        let talk = async {
            match form {
                Form::Channels { protocol, ports } => {
                    if let Some(socket) = upgrade::websocket(upgraded).await {
                        over_channels(socket, protocol, &target, &ports).await;
                    }
                }
                Form::Tunnelled => {
                    if let Some(socket) = upgrade::websocket(upgraded).await {
                        over_spdy(Tunnel::new(socket), &target).await;
                    }
                }
                Form::Spdy => {
                    if let Some(io) = upgrade::connection(upgraded).await {
                        over_spdy(io, &target).await;
                    }
                }
            }
        };
        tokio::select! {
            () = talk => {}
            () = call.state.stop.cancelled() => {}
        }
    });
    Ok(response)
}

/// `ports=80&ports=443`, or `ports=80,443`.
fn ports(query: &Query) -> Result<Vec<u16>, ApiError> {
    let texts = query.all("ports").chain(query.all("port")).flat_map(|text| text.split(','));
    let ports = texts.map(|text| {
        let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| ApiError::bad_request(format!("unable to parse {text:?} as a port: it must be 1 to 65535")))
    });
    let ports = ports.collect::<Result<Vec<u16>, _>>()?;
    match ports.len() {
        0 => Err(ApiError::bad_request("query parameter \"ports\" is required")),
        n if n > MOST_PORTS => Err(ApiError::bad_request(format!("at most {MOST_PORTS} ports in one request"))),
        _ => Ok(ports),
    }
}

/// A pair of streams of the client's makes a connection: `error` first, then `data`, with the same `requestid`.
async fn over_spdy<S: AsyncRead + AsyncWrite + Send + 'static>(io: S, target: &Target) {
    let mut spdy = Spdy::serve(io);
    let mut waiting: HashMap<String, (u16, Stream)> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        let next = if waiting.is_empty() { Ok(spdy.next().await) } else { timeout(PAIRING, spdy.next()).await };
        // Those that were joined already make room.
        while running.try_join_next().is_some() {}
        let stream = match next {
            Ok(Some(stream)) => stream,
            Ok(None) => break,
            Err(_) => {
                // Half a pair: dropped, which resets it.
                waiting.clear();
                continue;
            }
        };
        let Some((port, id)) = port_and_id(&stream) else { continue };
        match stream.header("streamtype") {
            Some("error") => {
                waiting.insert(id, (port, stream));
            }
            Some("data") => {
                if let Some((_, error)) = waiting.remove(&id).filter(|(of, _)| *of == port) {
                    running.spawn(forward(target.clone(), port, stream, error));
                }
            }
            _ => {}
        }
    }
    // The client is gone: dropping the set ends its connections.
    drop(running);
    spdy.close().await;
}

/// Clients of before `requestid` open their streams one right after the other.
fn port_and_id(stream: &Stream) -> Option<(u16, String)> {
    let port = stream.header("port")?.parse().ok().filter(|port| *port > 0)?;
    Some((port, stream.header("requestid").unwrap_or_default().to_owned()))
}

async fn forward(target: Target, port: u16, mut data: Stream, mut error: Stream) {
    match target.connect(port).await {
        Ok(mut inside) => {
            if let Err(error) = copy_bidirectional(&mut data, &mut inside).await {
                tracing::debug!(port, %error, "a forwarded connection broke");
            }
        }
        Err(why) => {
            tracing::debug!(port, why, "a connection could not be forwarded");
            let _ = error.write_all(why.as_bytes()).await;
        }
    }
    let _ = data.shutdown().await;
    let _ = error.shutdown().await;
}

/// Two channels for each port: its data, and what went wrong. Each begins with the port's number.
async fn over_channels(socket: Socket, protocol: Subprotocol, target: &Target, ports: &[u16]) {
    let (mut sink, mut source) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Message>(4);
    let mut inward = Vec::new();
    let mut running = JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX);
        let (to_pod, from_client) = mpsc::channel::<Bytes>(1);
        inward.push(Some(to_pod));
        let out = Outgoing { frames: frames.clone(), protocol, channel };
        running.spawn(forward_channel(target.clone(), *port, out, from_client));
    }
    drop(frames);
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            sink.send(frame).await.ok()?;
        }
        websocket::close(&mut sink).await
    };
    let read = async {
        while let Some(Ok(message)) = source.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            let Some((channel, data)) = protocol.read(&message).filter(|(_, data)| !data.is_empty()) else { continue };
            // Odd channels are for errors, which only go outward.
            let Some(place) = inward.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
            if let Some(to_pod) = place
                && to_pod.send(data).await.is_err()
            {
                *place = None;
            }
        }
    };
    tokio::select! {
        _ = write => {}
        () = read => {}
    }
}

/// One port's way outward.
struct Outgoing {
    frames: mpsc::Sender<Message>,
    protocol: Subprotocol,
    channel: u8,
}

impl Outgoing {
    /// `false`: the client is gone.
    async fn send(&self, error: bool, data: &[u8]) -> bool {
        self.frames.send(self.protocol.frame(self.channel + u8::from(error), data)).await.is_ok()
    }
}

async fn forward_channel(target: Target, port: u16, out: Outgoing, mut from_client: mpsc::Receiver<Bytes>) {
    let number = port.to_le_bytes();
    if !(out.send(false, &number).await && out.send(true, &number).await) {
        return;
    }
    let inside = match target.connect(port).await {
        Ok(inside) => inside,
        Err(why) => {
            out.send(true, why.as_bytes()).await;
            return;
        }
    };
    let (mut read, mut write) = tokio::io::split(inside);
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = read.read(&mut buffer).await {
            if !out.send(false, buffer.get(..n).unwrap_or_default()).await {
                return;
            }
        }
    };
    let inward = async {
        while let Some(data) = from_client.recv().await {
            if write.write_all(&data).await.is_err() {
                break;
            }
        }
        // The protocol knows no half-close: the pod's end is the end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}
