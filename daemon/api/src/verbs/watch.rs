//! Watches: one JSON event a line, flushed each, ended cleanly by time-out or shutdown.

use crate::serve::body::{Body, channel};
use crate::serve::dispatch::Call;
use crate::verbs::list::{query, revision};
use crate::wire::error::{ApiError, too_large_version};
use crate::wire::request::ResourceRequest;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object};
use reddwarf_registry::{ListQuery, ObjectWatch, WatchError, WatchEvent, WatchEventType};
use reddwarf_store::Revision;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until};

/// Events that may wait for a slow reader; beyond that the store keeps them (and says so when it no longer does).
const WAITING: usize = 16;
/// Least time of a watch that does not say; a random part up to as much again is added, so that not all come back at once.
const DEFAULT_TIME: u64 = 1800;

/// Answers a watch.
///
/// # Errors
/// 400, 422, 429. What happens later is an ERROR event.
pub(crate) fn answer(call: &Call, resource: &ResourceRequest) -> Result<Response<Body>, ApiError> {
    let query = ListQuery { limit: None, after: None, ..query(call, resource)? };
    let from = revision(&call.query)?.filter(|r| *r != Revision::ZERO);
    let initial_events = call.query.flag("sendInitialEvents");
    check_options(call, initial_events)?;
    let seconds = call.query.number("timeoutSeconds")?.unwrap_or_else(|| DEFAULT_TIME + fastrand::u64(..DEFAULT_TIME));
    let limits = &call.state.settings.limits;
    let stream = Stream {
        place: call.stream_place()?,
        kind: query.kind,
        bookmarks: call.query.flag("allowWatchBookmarks").then_some(limits.bookmarks),
        end: Instant::now() + Duration::from_secs(seconds.clamp(1, 24 * 3600)),
        stall: limits.stall_timeout,
        initial_mark: initial_events,
        call: call.clone(),
    };
    let registry = &call.state.deps.registry;
    let (sender, body) = channel(WAITING);
    let started = match from.filter(|_| !initial_events) {
        Some(revision) => registry.watch(&query, revision).map(|watch| (Vec::new(), watch)),
        None => {
            let (list, watch) = registry.list_and_watch(&query)?;
            Ok((list.items, watch))
        }
    };
    match started {
        Ok((objects, watch)) => {
            tokio::spawn(stream.run(objects, watch, sender));
        }
        Err(error) => {
            tokio::spawn(async move { drop(sender.send(Ok(error_line(&error))).await) });
        }
    }
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn check_options(call: &Call, initial_events: bool) -> Result<(), ApiError> {
    let version_match = call.query.get("resourceVersionMatch");
    let text = match (initial_events, version_match) {
        (true, Some("NotOlderThan")) | (false, None) => return Ok(()),
        (true, _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        (false, Some(_)) => "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    };
    let error = FieldError::forbidden(&FieldPath::of("resourceVersionMatch"), text);
    Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", &[error]))
}

struct Stream {
    place: tokio::sync::OwnedSemaphorePermit,
    kind: &'static Kind,
    bookmarks: Option<Duration>,
    end: Instant,
    stall: Duration,
    initial_mark: bool,
    call: Call,
}

impl Stream {
    /// Sends what there is, then what happens, until the time is up, the daemon stops or the client is gone.
    async fn run(self, objects: Vec<Object>, mut watch: ObjectWatch, sender: mpsc::Sender<io::Result<Bytes>>) {
        let _counted = self.call.state.counters.stream();
        let _place = &self.place;
        for object in objects {
            if !self.send(&sender, line("ADDED", object.into_value())).await {
                return;
            }
        }
        if self.initial_mark && self.bookmarks.is_some() {
            let mark = json!({"k8s.io/initial-events-end": "true"});
            if !self.send(&sender, self.bookmark(watch.revision(), Some(mark))).await {
                return;
            }
        }
        let every = self.bookmarks.unwrap_or(Duration::from_secs(3600));
        let mut marks = interval_at(Instant::now() + every, every);
        loop {
            let next = tokio::select! {
                biased;
                () = self.call.state.stop.cancelled() => return,
                () = sender.closed() => return,
                () = sleep_until(self.end) => return,
                event = watch.next() => match event {
                    Ok(event) => event_line(event),
                    Err(WatchError::Closed) => return,
                    Err(error) => {
                        self.send(&sender, error_line(&error)).await;
                        return;
                    }
                },
                _ = marks.tick(), if self.bookmarks.is_some() => self.bookmark(watch.revision(), None),
            };
            if !self.send(&sender, next).await {
                return;
            }
        }
    }

    /// `false` when the client is gone, or takes nothing for so long that the connection is cut.
    async fn send(&self, sender: &mpsc::Sender<io::Result<Bytes>>, line: Bytes) -> bool {
        tokio::select! {
            sent = sender.send(Ok(line)) => sent.is_ok(),
            () = self.call.state.stop.cancelled() => false,
            () = tokio::time::sleep(self.stall) => {
                tracing::warn!(user = %self.call.principal.name, "a watch was cut: its client takes nothing");
                self.call.cut.cancel();
                false
            }
        }
    }

    fn bookmark(&self, revision: Revision, annotations: Option<Value>) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
        line("BOOKMARK", object)
    }
}

fn event_line(event: WatchEvent) -> Bytes {
    let kind = match event.kind {
        WatchEventType::Added => "ADDED",
        WatchEventType::Modified => "MODIFIED",
        WatchEventType::Deleted => "DELETED",
    };
    line(kind, event.object.into_value())
}

fn error_line(error: &WatchError) -> Bytes {
    let error = match error {
        WatchError::Expired { .. } => ApiError::new(410, "Expired", error.to_string()),
        WatchError::TooLarge { .. } => too_large_version(error.to_string()),
        other => ApiError::internal(other),
    };
    line("ERROR", error.status())
}

fn line(kind: &str, object: Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}
