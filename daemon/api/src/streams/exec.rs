//! `pods/{name}/exec` and `pods/{name}/attach`: what is asked, whether it may be, and the way to the client.

use super::channels::{STDERR, STDOUT, Subprotocol};
use super::target::{container, pod};
use super::upgrade::{self, Upgrade, spdy_answer, websocket_answer};
use super::{remote, websocket};
use crate::runtime::{AttachOptions, ExecExit, ExecOptions, PodName, RuntimeError, Session};
use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use crate::wire::request::{Query, ResourceRequest};
use hyper::{Request, Response};
use reddwarf_objects::Object;
use serde_json::Value;

/// Outputs that the client does not want: they are read and thrown away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    stdout: bool,
    stderr: bool,
}

impl Quiet {
    pub(super) fn skips(self, channel: u8) -> bool {
        (channel == STDOUT && self.stdout) || (channel == STDERR && self.stderr)
    }
}

/// What both subresources have in common in their query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    /// # Errors
    /// 400 when nothing is wanted.
    fn of(query: &Query) -> Result<Self, ApiError> {
        let tty = query.flag("tty");
        let wanted =
            Self { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr: query.flag("stderr"), tty };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
        }
        Ok(wanted)
    }
}

/// Runs a command and passes its streams on.
///
/// # Errors
/// 404 for the pod, 400 for container, command and protocol, 403 for an operator at a privileged pod, 409 for a
/// container that does not run.
pub(super) async fn exec(
    call: Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (object, name) = enter(&call, resource)?;
    let wanted = Wanted::of(&call.query);
    let container = container(&call.query, &object)?;
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    if command.first().is_none_or(String::is_empty) {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    let wanted = wanted?;
    tracing::info!(pod = %format!("{}/{}", name.namespace, name.name), container, "exec");
    let options = ExecOptions { container, command, tty: wanted.tty, stdin: wanted.stdin };
    let runtime = call.state.deps.runtime.clone();
    let start = async move {
        match runtime.exec(&name, options).await {
            // What is wrong with the command itself is told on the error channel, as the reference does it.
            Err(RuntimeError::BadRequest(message)) => Ok(Session::ended(ExecExit { code: 127, message })),
            other => other,
        }
    };
    connect(call, request, wanted, start).await
}

/// Joins a container's own streams.
///
/// # Errors
/// As [`exec`]'s.
pub(super) async fn attach(
    call: Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (object, name) = enter(&call, resource)?;
    let container = container(&call.query, &object)?;
    let wanted = Wanted::of(&call.query)?;
    if wanted.tty && !has_terminal(&object, &container) {
        let text = format!("container {container} did not allocate a TTY: attach without one");
        return Err(ApiError::bad_request(text));
    }
    tracing::info!(pod = %format!("{}/{}", name.namespace, name.name), container, "attach");
    let Wanted { stdin, stdout, stderr, .. } = wanted;
    let options = AttachOptions { container, stdin, stdout, stderr };
    let runtime = call.state.deps.runtime.clone();
    connect(call, request, wanted, async move { runtime.attach(&name, options).await }).await
}

/// The pod, unless it is one that this principal could not have made.
fn enter(call: &Call, resource: &ResourceRequest) -> Result<(Object, PodName), ApiError> {
    let (object, name) = pod(call, resource)?;
    call.admit_entry(resource.kind, &object)?;
    Ok((object, name))
}

fn has_terminal(pod: &Object, container: &str) -> bool {
    let lists = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    let mut all = lists.iter().filter_map(|list| pod.get(list)?.as_array()).flatten();
    all.any(|c| c.get("name").and_then(Value::as_str) == Some(container) && c.get("tty") == Some(&Value::Bool(true)))
}

/// Starts the session and answers with the upgrade; everything that can be refused is refused before it.
async fn connect(
    call: Call,
    mut request: Request<Arriving>,
    wanted: Wanted,
    start: impl Future<Output = Result<Session, RuntimeError>>,
) -> Result<Response<Body>, ApiError> {
    let way = Way::of(Upgrade::of(request.headers())?)?;
    let place = call.stream_place()?;
    let session = start.await?;
    let upgraded = hyper::upgrade::on(&mut request);
    let quiet = Quiet { stdout: !wanted.stdout, stderr: !wanted.stderr };
    let response = way.answer();
    tokio::spawn(async move {
        let _counted = call.state.counters.stream();
        let _place = place;
        let talk = async {
            match way {
                Way::WebSocket { protocol, .. } => {
                    if let Some(socket) = upgrade::websocket(upgraded).await {
                        websocket::converse(socket, protocol, session, quiet).await;
                    }
                }
                Way::Spdy(version) => {
                    if let Some(io) = upgrade::connection(upgraded).await {
                        remote::converse(io, version, wanted, session).await;
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

/// What the session goes over.
enum Way {
    WebSocket { accept: hyper::header::HeaderValue, protocol: Subprotocol },
    Spdy(remote::Version),
}

impl Way {
    fn of(upgrade: Upgrade) -> Result<Self, ApiError> {
        Ok(match upgrade {
            Upgrade::WebSocket { accept, offered } => {
                Self::WebSocket { accept, protocol: Subprotocol::of_session(&offered)? }
            }
            Upgrade::Spdy { offered } => Self::Spdy(remote::Version::choose(&offered)?),
        })
    }

    fn answer(&self) -> Response<Body> {
        match self {
            Self::WebSocket { accept, protocol } => websocket_answer(accept.clone(), protocol.name),
            Self::Spdy(version) => spdy_answer(version.name()),
        }
    }
}
