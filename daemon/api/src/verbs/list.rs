//! Lists: options, pages, and streaming of long ones, so that ten thousand pods are never in memory at once.

use crate::serve::body::{Body, Pieces, channel};
use crate::serve::dispatch::{Call, State};
use crate::wire::accept::{Form, Shape};
use crate::wire::answer::{gzip_headers, whole, wrong_shape};
use crate::wire::error::{ApiError, too_large_version};
use crate::wire::render::{ListRender, Zip};
use crate::wire::request::{Query, ResourceRequest};
use crate::wire::table::{self, Include};
use chrono::{DateTime, Utc};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{FieldError, FieldPath, Kind};
use reddwarf_registry::{Continue, ListEnd, ListQuery, RawRef, Registry, RegistryError};
use reddwarf_store::Revision;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of stored objects that a streamed list has in memory at a time.
const PIECE: usize = 192 << 10;
/// How long a list waits for a revision that does not exist yet (as the reference).
const PATIENCE: Duration = Duration::from_secs(3);
/// What a client is told whose snapshot is gone; the token that comes with it goes on with the newest state.
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Answers a list.
///
/// # Errors
/// 400, 406, 410, 422, 504 as kube-apiserver.
pub(crate) async fn answer(call: &Call, resource: &ResourceRequest) -> Result<Response<Body>, ApiError> {
    let mut query = query(call, resource)?;
    let version = Version::parse(&call.query, query.limit.is_some(), query.after.is_some())?;
    match version {
        Version::Newest | Version::Continued => {}
        // Any version will do; the reference then ignores the limit.
        Version::Any => query.limit = None,
        Version::NotOlderThan(revision) => wait_for(&call.state.deps.registry, revision, &call.query).await?,
        Version::Exact(revision) => query.at = Some(revision),
    }
    let items = Items::new(call, query.kind)?;
    let mut render = ListRender::new(items.form, items.field());
    // A page goes out whole, since it begins with where it ends; what has no limit goes out in pieces.
    let bytes = query.limit.is_none().then_some(PIECE);
    let mut elements = Vec::with_capacity(bytes.map_or(1024, room));
    elements.extend_from_slice(render.start().as_bytes());
    let end = items.read(&query, bytes, &mut elements).map_err(|e| refused(e, query.after.as_ref()))?;
    let metadata = metadata(&end, query.limit.is_some());
    let mut text = items.head(&mut render, &metadata);
    text.extend(render.elements(elements));
    match end.next {
        Some(next) if bytes.is_some() => {
            query.after = Some(next);
            Ok(stream(call, items, query, render, text))
        }
        _ => {
            text.extend(render.tail());
            Ok(whole(&call.accept, items.form.media, StatusCode::OK, text.into()))
        }
    }
}

/// How objects become the elements of a list.
struct Items {
    kind: &'static Kind,
    form: Form,
    include: Include,
    now: DateTime<Utc>,
    state: Arc<State>,
}

impl Items {
    fn new(call: &Call, kind: &'static Kind) -> Result<Self, ApiError> {
        let form = call.accept.form()?;
        let include = match form.shape {
            Shape::Table(_) => Include::parse(&call.query)?,
            Shape::Metadata(_) => {
                return Err(wrong_shape("you requested PartialObjectMetadata, but the requested object is a list"));
            }
            Shape::Whole | Shape::MetadataList(_) => Include::default(),
        };
        let now = call.state.deps.registry.now();
        Ok(Self { kind, form, include, now, state: call.state.clone() })
    }

    /// The field of the list that holds them.
    fn field(&self) -> &'static str {
        if matches!(self.form.shape, Shape::Table(_)) { "rows" } else { "items" }
    }

    fn head(&self, render: &mut ListRender, metadata: &Value) -> Vec<u8> {
        let (kind, version) = match self.form.shape {
            Shape::Table(version) => ("Table".to_owned(), version.api_version().to_owned()),
            Shape::Metadata(version) | Shape::MetadataList(version) => {
                ("PartialObjectMetadataList".to_owned(), version.api_version().to_owned())
            }
            Shape::Whole => (format!("{}List", self.kind.kind), self.kind.api_version()),
        };
        let (kind, version) = (Value::from(kind), Value::from(version));
        let mut fields = vec![("kind", &kind), ("apiVersion", &version), ("metadata", metadata)];
        let columns = table::columns(self.kind);
        if matches!(self.form.shape, Shape::Table(_)) {
            fields.push(("columnDefinitions", &columns));
        }
        render.head(&fields)
    }

    /// Appends a page as JSON elements with commas between them.
    fn read(&self, query: &ListQuery, bytes: Option<usize>, text: &mut Vec<u8>) -> Result<ListEnd, RegistryError> {
        let start = text.len();
        self.state.deps.registry.visit(query, bytes, |object| {
            if text.len() > start {
                text.push(b',');
            }
            self.write(object, text)
        })
    }

    fn write(&self, object: RawRef<'_>, out: &mut Vec<u8>) -> Result<(), RegistryError> {
        match self.form.shape {
            Shape::Whole => object.write_item(out),
            Shape::Metadata(version) | Shape::MetadataList(version) => table::write_metadata(object, version, out),
            Shape::Table(version) => {
                table::write_row(&self.state.rows, self.kind, object, version, self.include, self.now, out)
            }
        }
    }
}

/// Room for the text of so many stored bytes: a piece is a little longer than what was read for it.
fn room(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// Why a page can't be read; an outlived token is answered with one that goes on from there.
fn refused(error: RegistryError, after: Option<&Continue>) -> ApiError {
    match (error, after) {
        (RegistryError::Expired { .. }, Some(token)) => {
            let fresh = Continue { revision: None, remaining: None, ..token.clone() };
            let mut error = ApiError::new(410, "Expired", INCONSISTENT);
            error.extra.insert("metadata".into(), json!({"continue": fresh.to_string()}));
            error
        }
        (error, _) => error.into(),
    }
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
    let limit: Option<i64> = call.query.number("limit")?;
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
    /// The token says.
    Continued,
}

impl Version {
    fn parse(query: &Query, limited: bool, continued: bool) -> Result<Self, ApiError> {
        let path = FieldPath::of("resourceVersionMatch");
        let invalid = |error| ApiError::invalid_options("ListOptions", "meta.k8s.io", &[error]);
        let forbidden = |text: &str| invalid(FieldError::forbidden(&path, text));
        let version = revision(query)?;
        let exactly = match (query.get("resourceVersionMatch"), version) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            (Some(_), Some(_)) if continued => {
                return Err(forbidden("resourceVersionMatch is forbidden when continue is provided"));
            }
            (Some("NotOlderThan"), _) => Some(false),
            (Some("Exact"), Some(Revision(0))) => {
                return Err(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
            (Some("Exact"), _) => Some(true),
            (Some(other), _) => {
                return Err(invalid(FieldError::not_supported(&path, other, &["Exact", "NotOlderThan", ""])));
            }
        };
        if query.given("sendInitialEvents") {
            let path = FieldPath::of("sendInitialEvents");
            return Err(invalid(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list")));
        }
        match (version, exactly) {
            (None | Some(Revision(0)), _) if continued => Ok(Self::Continued),
            (Some(_), _) if continued => {
                Err(ApiError::bad_request("specifying resource version is not allowed when using continue"))
            }
            (None, _) => Ok(Self::Newest),
            (Some(Revision(0)), _) => Ok(Self::Any),
            (Some(revision), Some(true)) => Ok(Self::Exact(revision)),
            // As the reference has it for clients from before resourceVersionMatch.
            (Some(revision), None) if limited => Ok(Self::Exact(revision)),
            (Some(revision), _) => Ok(Self::NotOlderThan(revision)),
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
pub(crate) async fn wait_for(registry: &Registry, revision: Revision, query: &Query) -> Result<(), ApiError> {
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

/// The list's metadata; where it goes on only for clients that asked for pages.
fn metadata(end: &ListEnd, paged: bool) -> Value {
    let mut metadata = json!({"resourceVersion": end.revision.to_string()});
    if let Some(next) = end.next.as_ref().filter(|_| paged) {
        metadata["continue"] = next.to_string().into();
        if let Some(remaining) = end.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    metadata
}

/// A long list, piece by piece over the first one's snapshot.
fn stream(call: &Call, items: Items, mut query: ListQuery, mut render: ListRender, first: Vec<u8>) -> Response<Body> {
    let (sender, body) = channel(1);
    let (cut, stall) = (call.cut.clone(), call.state.settings.limits.stall_timeout);
    // It has more than one piece, so it is long enough.
    let mut zip = Zip::new(call.accept.gzip, usize::MAX);
    let (compressed, media) = (zip.is_on(), items.form.media);
    tokio::spawn(async move {
        let pieces = Pieces::default();
        let mut piece = zip.piece(first);
        loop {
            if !piece.is_empty() {
                match tokio::time::timeout(stall, sender.send(Ok(piece))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => return cut.cancel(),
                }
            }
            let mut next = pieces.take(room(PIECE));
            next.text.extend_from_slice(render.start().as_bytes());
            match items.read(&query, Some(PIECE), &mut next.text) {
                Ok(end) => {
                    next.text = render.elements(std::mem::take(&mut next.text));
                    query.after = end.next;
                    if query.after.is_none() {
                        next.text.extend(render.tail());
                        let last = [zip.piece(next), zip.end()].concat();
                        drop(tokio::time::timeout(stall, sender.send(Ok(last.into()))).await);
                        return;
                    }
                    piece = zip.piece(next);
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
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    if compressed {
        gzip_headers(response.headers_mut());
    }
    response
}
