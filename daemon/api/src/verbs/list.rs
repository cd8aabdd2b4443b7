//! Lists: options, pages, and streaming of long ones, so that ten thousand pods are never in memory at once.

use crate::serve::body::{Body, channel};
use crate::serve::dispatch::Call;
use crate::wire::accept::{Accept, Media};
use crate::wire::error::{ApiError, too_large_version};
use crate::wire::request::{Query, ResourceRequest};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{FieldError, FieldPath, Object};
use reddwarf_registry::{ListQuery, ObjectList, Registry, RegistryError};
use reddwarf_store::Revision;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io;
use std::time::Duration;

/// Objects of a streamed list that are in memory at a time.
const PAGE: usize = 500;
/// How long a list waits for a revision that does not exist yet (as the reference).
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers a list.
///
/// # Errors
/// 400, 410, 422, 504 as kube-apiserver.
pub(crate) async fn answer(call: &Call, resource: &ResourceRequest) -> Result<Response<Body>, ApiError> {
    let registry = &call.state.deps.registry;
    let mut query = query(call, resource)?;
    let version = Version::parse(&call.query)?;
    if query.after.is_some() {
        if !matches!(version, Version::Newest) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
    } else {
        match version {
            Version::Newest => {}
            // Any version will do; the reference then ignores the limit.
            Version::Any => query.limit = None,
            Version::NotOlderThan(revision) => wait_for(registry, revision, &call.query).await?,
            Version::Exact(revision) => query.at = Some(revision),
        }
    }
    let whole = query.limit.is_none();
    if whole {
        query.limit = Some(PAGE);
    }
    let continued = query.after.is_some();
    let first = registry.list(&query).map_err(|e| match e {
        RegistryError::Expired { .. } if continued => ApiError::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        ),
        e => e.into(),
    })?;
    if whole && first.next.is_some() {
        return Ok(stream(call, query, first));
    }
    let mut text = head(&query, &first, !whole);
    items(&mut text, first.items, true);
    text.push_str("]}");
    Ok(json_bytes(text))
}

/// What to list, from the URL.
///
/// # Errors
/// 400 for selectors and tokens that can't be read.
pub(crate) fn query(call: &Call, resource: &ResourceRequest) -> Result<ListQuery, ApiError> {
    let text = |key: &str| call.query.get(key).unwrap_or_default();
    let labels = LabelSelector::parse(text("labelSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let fields =
        FieldSelector::parse(resource.kind, text("fieldSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let limit: Option<u64> = call.query.number("limit")?;
    Ok(ListQuery {
        kind: resource.kind,
        namespace: resource.namespace.clone(),
        labels,
        fields,
        limit: limit.filter(|l| *l > 0).map(|l| usize::try_from(l).unwrap_or(usize::MAX)),
        after: call.query.get("continue").map(str::parse).transpose()?,
        at: None,
    })
}

/// Which version of the list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Newest,
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

impl Version {
    fn parse(query: &Query) -> Result<Self, ApiError> {
        let forbidden = |text: &str| {
            let error = FieldError::forbidden(&FieldPath::of("resourceVersionMatch"), text);
            ApiError::invalid_options("ListOptions", "meta.k8s.io", &[error])
        };
        let version = revision(query)?;
        match (query.get("resourceVersionMatch"), version) {
            (Some(_), None) => Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")),
            (None, None) => Ok(Self::Newest),
            (None | Some("NotOlderThan"), Some(Revision(0))) => Ok(Self::Any),
            (None | Some("NotOlderThan"), Some(revision)) => Ok(Self::NotOlderThan(revision)),
            (Some("Exact"), Some(Revision(0))) => {
                Err(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
            }
            (Some("Exact"), Some(revision)) => Ok(Self::Exact(revision)),
            (Some(other), Some(_)) => {
                let path = FieldPath::of("resourceVersionMatch");
                let error = FieldError::not_supported(&path, other, &["Exact", "NotOlderThan", ""]);
                Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", &[error]))
            }
        }
    }
}

/// `?resourceVersion=`.
///
/// # Errors
/// 400.
pub(crate) fn revision(query: &Query) -> Result<Option<Revision>, ApiError> {
    query.get("resourceVersion").map(str::parse).transpose().map_err(|_| {
        let given = query.get("resourceVersion").unwrap_or_default();
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{given}\": strconv.ParseUint: parsing \"{given}\": invalid syntax"
        ))
    })
}

/// Waits a moment for a revision that a client has seen elsewhere.
async fn wait_for(registry: &Registry, revision: Revision, query: &Query) -> Result<(), ApiError> {
    let patience = query.number("timeoutSeconds")?.map_or(PATIENCE, Duration::from_secs).min(PATIENCE);
    let there = async {
        while registry.revision() < revision {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, there).await.map_err(|_| {
        let current = registry.revision();
        too_large_version(RegistryError::TooLarge { asked: revision, current }.to_string())
    })
}

/// The list's beginning, up to and with the bracket that opens its items.
fn head(query: &ListQuery, page: &ObjectList, paged: bool) -> String {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = page.next.as_ref().filter(|_| paged) {
        metadata["continue"] = next.to_string().into();
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let (kind, version) = (query.kind.kind, query.kind.api_version());
    format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":[")
}

/// Items of lists leave out kind and apiVersion.
fn item(object: Object) -> Value {
    let mut value = object.into_value();
    if let Some(map) = value.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    value
}

fn items(text: &mut String, objects: Vec<Object>, first: bool) {
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 || !first {
            text.push(',');
        }
        // Writing into a String has no way to fail.
        let _ = write!(text, "{}", item(object));
    }
}

fn json_bytes(text: String) -> Response<Body> {
    crate::wire::answer::whole(&Accept::default(), Media::Json, StatusCode::OK, text.into())
}

/// A long list, page by page over the first page's snapshot.
fn stream(call: &Call, mut query: ListQuery, first: ObjectList) -> Response<Body> {
    let (sender, body) = channel(2);
    let registry = call.state.deps.registry.clone();
    let (cut, stall) = (call.cut.clone(), call.state.settings.limits.stall_timeout);
    let mut text = head(&query, &first, false);
    query.after = first.next.clone();
    items(&mut text, first.items, true);
    tokio::spawn(async move {
        loop {
            let last = query.after.is_none();
            if last {
                text.push_str("]}");
            }
            let piece = Ok(Bytes::from(std::mem::take(&mut text)));
            match tokio::time::timeout(stall, sender.send(piece)).await {
                Ok(Ok(())) if !last => {}
                Ok(_) => return,
                Err(_) => return cut.cancel(),
            }
            match registry.list(&query) {
                Ok(page) => {
                    items(&mut text, page.items, false);
                    query.after = page.next;
                }
                // The snapshot was compacted under a slow reader: break off, so that a part is not taken for the whole.
                Err(error) => {
                    tracing::warn!(%error, "a list broke off");
                    drop(sender.send(Err(io::Error::other(error.to_string()))).await);
                    return;
                }
            }
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
