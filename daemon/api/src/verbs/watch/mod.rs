//! Watches: what there is, then what happens, one event after the other, ended cleanly by time-out or shutdown.
//!
//! ```text
//!  answer (options, first piece of the initial list) ─→ Feed (feed.rs) ─→ the body of the answer, polled by the connection
//!                                                                    └─→ WebSocket messages (socket.rs)
//! ```
//!
//! A watch has no task, no queue and no buffer of its own: it is a position in the store. Who reads slowly is behind, and
//! when the store no longer retains what comes next, is told so (410); the frames of an event are made once for all
//! watchers of the same form (wire/frames.rs).

mod feed;
mod socket;

use crate::serve::alone::Alone;
use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::verbs::list::{query, revision, wait_for};
use crate::wire::accept::Shape;
use crate::wire::answer::wrong_shape;
use crate::wire::error::ApiError;
use crate::wire::frames::{EventForm, Style};
use crate::wire::request::ResourceRequest;
use crate::wire::table::Include;
use feed::{Feed, Start};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use reddwarf_objects::{FieldError, FieldPath};
use reddwarf_registry::ListQuery;
use reddwarf_store::Revision;
use std::time::Duration;

/// Least time of a watch that does not say; a random part up to as much again is added, so that not all come back at once.
const DEFAULT_TIME: u64 = 1800;
/// Most time of a watch.
const MOST_TIME: u64 = 24 * 3600;

/// Answers a watch.
///
/// # Errors
/// 400, 406, 422, 429, 504. What happens later is an ERROR event.
pub(crate) async fn answer(
    call: &Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (form, server_sent) = call.accept.watch()?;
    let include = match form.shape {
        Shape::Table(_) => Include::parse(&call.query)?,
        Shape::MetadataList(_) => {
            return Err(wrong_shape("you requested PartialObjectMetadataList, but the requested object is not a list"));
        }
        Shape::Whole | Shape::Metadata(_) => Include::default(),
    };
    let socket = socket::asked(request.headers())?;
    let style = match (&socket, server_sent) {
        (Some(_), _) => Style::Messages,
        (None, true) => Style::ServerSent,
        (None, false) => Style::Lines,
    };
    let query = ListQuery { limit: None, after: None, ..query(call, resource)? };
    let initial_events = initial_events(call)?;
    let from = from(call, request.headers(), server_sent)?;
    if let Some(revision) = from.filter(|_| initial_events == Some(true)) {
        wait_for(&call.state.deps.registry, revision, &call.query).await?;
    }
    let seconds = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or_else(|| DEFAULT_TIME + fastrand::u64(..DEFAULT_TIME)).min(MOST_TIME);
    let bookmarks = call.query.flag("allowWatchBookmarks").then_some(call.state.settings.limits.bookmarks);
    let start = Start {
        form: EventForm { kind: resource.kind, shape: form.shape, include, style },
        from: from.filter(|_| initial_events != Some(true)),
        skip_initial: initial_events == Some(false),
        mark: initial_events == Some(true) && bookmarks.is_some(),
        bookmarks,
        time: Duration::from_secs(seconds),
    };
    let feed = Feed::start(call, query, start)?;
    if let Some(key) = socket {
        return socket::answer(call, key, request, feed);
    }
    let mut response = Response::new(feed.into_body());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(style.content_type()));
    response.extensions_mut().insert(Alone);
    Ok(response)
}

/// The version to start after; `None` to begin with what there is.
fn from(call: &Call, headers: &HeaderMap, server_sent: bool) -> Result<Option<Revision>, ApiError> {
    // A browser that lost its connection says up to where it got.
    let last = headers.get("last-event-id").filter(|_| server_sent).and_then(|v| v.to_str().ok());
    let resumed = last.and_then(|id| id.trim().parse().ok());
    Ok(resumed.or(revision(&call.query)?).filter(|revision| *revision != Revision::ZERO))
}

/// `?sendInitialEvents=`, as far as the client says.
fn initial_events(call: &Call) -> Result<Option<bool>, ApiError> {
    let given = call.query.given("sendInitialEvents").then(|| call.query.flag("sendInitialEvents"));
    let path = FieldPath::of("resourceVersionMatch");
    let error = match (given, call.query.get("resourceVersionMatch")) {
        (Some(_), Some("NotOlderThan")) | (None, None) => return Ok(given),
        (Some(_), Some(other)) if other != "Exact" => FieldError::not_supported(&path, other, &["NotOlderThan"]),
        (Some(_), _) => {
            FieldError::forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (None, Some(_)) => FieldError::forbidden(
            &path,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    };
    Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", &[error]))
}
