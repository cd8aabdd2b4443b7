//! `GET pods/{name}/log`.

use super::target::{container, pod};
use crate::runtime::{LogOptions, LogOutput, LogStream};
use crate::serve::body::{Body, channel};
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use crate::wire::request::{Query, ResourceRequest};
use chrono::{DateTime, TimeDelta, Utc};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use reddwarf_objects::{FieldError, FieldPath, Object};
use std::io;
use tokio::sync::OwnedSemaphorePermit;

/// Answers with the log as text, as it comes.
///
/// # Errors
/// 404 for the pod, 400 for the container, 422 for options.
pub(super) async fn answer(call: &Call, resource: &ResourceRequest) -> Result<Response<Body>, ApiError> {
    let (pod, name) = pod(call, resource)?;
    let options = options(&call.query, &pod, call.state.deps.registry.now())?;
    let place = options.follow.then(|| call.stream_place()).transpose()?;
    let log = call.state.deps.runtime.logs(&name, options).await?;
    let (sender, body) = channel(4);
    tokio::spawn(pass_on(call.clone(), place, log, sender));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Passes chunks on until the log ends, the client is gone or stalls, or the daemon stops.
async fn pass_on(
    call: Call,
    _place: Option<OwnedSemaphorePermit>,
    mut log: LogStream,
    sender: tokio::sync::mpsc::Sender<io::Result<bytes::Bytes>>,
) {
    let _counted = call.state.counters.stream();
    let stall = call.state.settings.limits.stall_timeout;
    loop {
        let chunk = tokio::select! {
            () = call.state.stop.cancelled() => return,
            () = sender.closed() => return,
            chunk = log.recv() => match chunk {
                None => return,
                Some(Ok(chunk)) => Ok(chunk),
                Some(Err(error)) => Err(io::Error::other(error.to_string())),
            },
        };
        let broke = chunk.is_err();
        tokio::select! {
            sent = sender.send(chunk) => if sent.is_err() || broke { return },
            () = call.state.stop.cancelled() => return,
            () = tokio::time::sleep(stall) => return call.cut.cancel(),
        }
    }
}

fn options(query: &Query, pod: &Object, now: DateTime<Utc>) -> Result<LogOptions, ApiError> {
    let container = container(query, pod)?;
    let mut wrong = Vec::new();
    let tail_lines = count(query, "tailLines", 0, &mut wrong)?;
    let limit_bytes = count(query, "limitBytes", 1, &mut wrong)?;
    let seconds = count(query, "sinceSeconds", 1, &mut wrong)?;
    let everything = FieldPath::of("");
    if seconds.is_some() && query.get("sinceTime").is_some() {
        let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        wrong.push(FieldError::forbidden(&everything, text));
    }
    let stream = match query.get("stream") {
        None | Some("All") => LogOutput::All,
        Some("Stdout") => LogOutput::Stdout,
        Some("Stderr") => LogOutput::Stderr,
        Some(other) => {
            wrong.push(FieldError::not_supported(&FieldPath::of("stream"), other, &["All", "Stderr", "Stdout"]));
            LogOutput::All
        }
    };
    if tail_lines.is_some() && stream != LogOutput::All {
        let text = "`tailLines` and specific `stream` are mutually exclusive for now";
        wrong.push(FieldError::forbidden(&everything, text));
    }
    if !wrong.is_empty() {
        return Err(ApiError::invalid("PodLogOptions", "", pod.name(), &wrong));
    }
    let since = match (seconds, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let back = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
            back.and_then(|back| now.checked_sub_signed(back))
        }
        (None, Some(text)) => Some(time(text)?),
        (None, None) => None,
    };
    Ok(LogOptions {
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since,
        timestamps: query.flag("timestamps"),
        tail_lines,
        limit_bytes,
        stream,
    })
}

/// A count of at least `least`; what is less is noted.
fn count(query: &Query, key: &str, least: i64, wrong: &mut Vec<FieldError>) -> Result<Option<u64>, ApiError> {
    let Some(value) = query.number::<i64>(key)? else { return Ok(None) };
    if value < least {
        let text = if least > 0 { "must be greater than 0" } else { "must be greater than or equal to 0" };
        wrong.push(FieldError::invalid(&FieldPath::of(key), value, text));
    }
    Ok(u64::try_from(value).ok())
}

fn time(text: &str) -> Result<DateTime<Utc>, ApiError> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|e| {
        ApiError::bad_request(format!("sinceTime: Invalid value: \"{text}\": {e}; write it as 2026-01-02T03:04:05Z"))
    })?;
    Ok(time.with_timezone(&Utc))
}
