//! `GET pods/{name}/log`.

use crate::runtime::{LogOptions, LogStream, PodName};
use crate::serve::body::{Body, channel};
use crate::serve::dispatch::Call;
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::{Query, ResourceRequest};
use chrono::{DateTime, TimeDelta, Utc};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use reddwarf_objects::{FieldError, FieldPath, Object};
use serde_json::Value;
use std::io;
use tokio::sync::OwnedSemaphorePermit;

/// Answers with the log as text, as it comes.
///
/// # Errors
/// 404 for the pod, 400 for the container, 422 for options.
pub(crate) async fn answer(call: &Call, resource: &ResourceRequest) -> Result<Response<Body>, ApiError> {
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

/// The pod of a subresource request.
pub(crate) fn pod(call: &Call, resource: &ResourceRequest) -> Result<(Object, PodName), ApiError> {
    let (Some(namespace), Some(name)) = (resource.namespace.as_deref(), resource.name.as_deref()) else {
        return Err(ApiError::unknown_resource());
    };
    if !resource.kind.is_core("Pod") {
        return Err(ApiError::unknown_resource());
    }
    let object = call.state.deps.registry.get(&key_of(resource.kind, Some(namespace), name))?;
    Ok((object, PodName { namespace: namespace.to_owned(), name: name.to_owned() }))
}

/// The container asked for, or the only one, or the default one.
///
/// # Errors
/// 400 naming those there are.
pub(crate) fn container(query: &Query, pod: &Object) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.get(&format!("/spec/{list}")).and_then(Value::as_array);
        containers.into_iter().flatten().filter_map(|c| c.get("name")?.as_str()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if let Some(wanted) = query.get("container") {
        if main.iter().chain(&init).any(|name| *name == wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", pod.name())));
    }
    let default = pod.annotation("kubectl.kubernetes.io/default-container");
    match (main.as_slice(), default) {
        ([only], _) => Ok((*only).to_owned()),
        (several, Some(default)) if several.contains(&default) => Ok(default.to_owned()),
        (several, _) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            pod.name(),
            several.join(" ")
        ))),
    }
}

fn options(query: &Query, pod: &Object, now: DateTime<Utc>) -> Result<LogOptions, ApiError> {
    let count = |key: &str, least: i64| -> Result<Option<u64>, ApiError> {
        let Some(value) = query.number::<i64>(key)? else { return Ok(None) };
        u64::try_from(value).ok().filter(|_| value >= least).map(Some).ok_or_else(|| {
            let text = if least > 0 { "must be greater than 0" } else { "must be greater than or equal to 0" };
            let error = FieldError::invalid(&FieldPath::of(key), value, text);
            ApiError::invalid_options("PodLogOptions", "", &[error])
        })
    };
    let since = match (count("sinceSeconds", 1)?, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let back = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
            back.and_then(|back| now.checked_sub_signed(back))
        }
        (None, Some(text)) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|e| {
                ApiError::bad_request(format!(
                    "sinceTime: Invalid value: \"{text}\": {e}; write it as 2026-01-02T03:04:05Z"
                ))
            })?;
            Some(time.with_timezone(&Utc))
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        container: container(query, pod)?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since,
        timestamps: query.flag("timestamps"),
        tail_lines: count("tailLines", 0)?,
        limit_bytes: count("limitBytes", 1)?,
    })
}
