//! Streams to and from containers.
//!
//! ```text
//!  logs          pods/log
//!  exec          pods/exec and pods/attach: options, start, then one of
//!    websocket     channels in WebSocket frames (channels: the subprotocols)
//!    remote        a SPDY stream for each standard stream
//!  port_forward  pods/portforward: channels, SPDY, or SPDY inside a WebSocket (tunnel)
//!  proxy         pods/proxy and services/proxy: HTTP into a pod (https: whatever its certificate)
//!  upgrade       from HTTP to one of the two protocols
//!  spdy          SPDY/3.1, the protocol itself
//!  target        which pod, which container
//!  outcome       how a command ended, as a Status
//! ```
//!
//! Everything that can be refused is refused as a plain Status before the upgrade. Nothing is buffered without bound: a
//! client that does not read holds its own command up, and a client that is gone ends it.

mod channels;
mod exec;
mod logs;
mod outcome;
mod port_forward;
mod proxy;
mod remote;
mod spdy;
mod target;
mod tunnel;
mod upgrade;
mod websocket;

use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use crate::wire::request::ResourceRequest;
use hyper::{Method, Request, Response};

/// Whether a subresource is one of these.
pub(crate) fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Answers a request for a streaming subresource.
///
/// # Errors
/// What the subresource refuses; 405 for other methods.
pub(crate) async fn answer(
    call: Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let method = request.method().clone();
    match (resource.subresource.as_deref(), method) {
        (Some("proxy"), _) => proxy::answer(call, resource, request).await,
        (Some("log"), Method::GET) => logs::answer(&call, resource).await,
        (Some("exec"), Method::GET | Method::POST) => exec::exec(call, resource, request).await,
        (Some("attach"), Method::GET | Method::POST) => exec::attach(call, resource, request).await,
        (Some("portforward"), Method::GET | Method::POST) => port_forward::answer(call, resource, request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
