//! Answers in the form and version that the client asked for. Every verb answers through here.
//!
//! | what | with |
//! |---|---|
//! | one object (create, update, patch, a marked delete) | [`respond`] |
//! | one object as it is stored (get) | [`respond_raw`]: not parsed where the form allows that |
//! | a list that is in memory (deletecollection) | [`respond_list`] |
//! | what has no table: Status, reviews, discovery | [`respond_value`] |
//! | an error | [`respond_error`] (the dispatcher does) |
//! | `Warning` headers on any of them | [`warn`] |

use crate::serve::body::{Body, full};
use crate::serve::dispatch::Call;
use crate::wire::accept::{Accept, Form, Media, Shape};
use crate::wire::error::ApiError;
use crate::wire::table::{self, Include};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY};
use hyper::{Response, StatusCode};
use reddwarf_config::emit_yaml;
use reddwarf_objects::{Kind, Object, convert};
use reddwarf_registry::RawRef;
use serde_json::{Value, json};
use std::io::Write;

/// Bodies above this many bytes are compressed for clients that take it (as the reference).
pub(crate) const GZIP_ABOVE: usize = 128 << 10;
/// Most `Warning` headers of an answer.
const MAX_WARNINGS: usize = 20;

/// One object of `kind`.
pub(crate) fn respond(call: &Call, kind: &Kind, code: StatusCode, object: &Object) -> Response<Body> {
    if !convert::is_stored(kind) && object.api_version() != kind.api_version() {
        return respond(call, kind, code, &convert::to_version(kind, object.clone()));
    }
    let shaped = call.accept.form().and_then(|form| Ok((form, shape_one(call, kind, form, object)?)));
    match shaped {
        Ok((form, value)) => write(&call.accept, form, code, &value),
        Err(error) => respond_error(&call.accept, &error),
    }
}

/// One object of `kind` as it is stored.
pub(crate) fn respond_raw(call: &Call, kind: &Kind, code: StatusCode, object: RawRef<'_>) -> Response<Body> {
    let plain = call.accept.form().is_ok_and(|form| form == Form::PLAIN);
    if plain && convert::is_stored(kind) {
        let mut text = Vec::with_capacity(object.stored_len() + 48);
        return match object.write(&mut text) {
            Ok(()) => whole(&call.accept, Media::Json, code, text.into()),
            Err(error) => respond_error(&call.accept, &error.into()),
        };
    }
    match object.object() {
        Ok(object) => respond(call, kind, code, &object),
        Err(error) => respond_error(&call.accept, &error.into()),
    }
}

/// A list of `kind` that is in memory.
pub(crate) fn respond_list(call: &Call, kind: &Kind, revision: u64, objects: &[Object]) -> Response<Body> {
    let converted: Vec<Object>;
    let objects = if convert::is_stored(kind) {
        objects
    } else {
        converted = objects.iter().map(|object| convert::to_version(kind, object.clone())).collect();
        &converted
    };
    let shaped = call.accept.form().and_then(|form| Ok((form, shape_list(call, kind, form, revision, objects)?)));
    match shaped {
        Ok((form, value)) => write(&call.accept, form, StatusCode::OK, &value),
        Err(error) => respond_error(&call.accept, &error),
    }
}

/// A JSON value that has no other shape.
pub(crate) fn respond_value(call: &Call, code: StatusCode, value: &Value) -> Response<Body> {
    write(&call.accept, call.accept.plain(), code, value)
}

/// An error as a Status object. Clients repeat by themselves what has the header `Retry-After`, so it is told only where the Status
/// says when to come back.
pub(crate) fn respond_error(accept: &Accept, error: &ApiError) -> Response<Body> {
    let mut form = accept.plain();
    // As the reference: who can't read our formats is probably a person.
    form.pretty |= error.code == 406;
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = write(accept, form, code, &error.status());
    let after = error.details.as_ref().and_then(|details| details.get("retryAfterSeconds")?.as_u64());
    if let Some(seconds) = after.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers (RFC 9111's 299 as Kubernetes uses it).
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(MAX_WARNINGS) {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {}", quoted(warning))) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}

/// Adds a `Warning` header before those that are there.
pub(crate) fn warn_first(response: &mut Response<Body>, warning: String) {
    let others: Vec<HeaderValue> = response.headers().get_all("warning").iter().cloned().collect();
    response.headers_mut().remove("warning");
    warn(response, &[warning]);
    for other in others {
        response.headers_mut().append(HeaderName::from_static("warning"), other);
    }
}

fn shape_one(call: &Call, kind: &Kind, form: Form, object: &Object) -> Result<Value, ApiError> {
    match form.shape {
        Shape::Whole => Ok(object.value()),
        Shape::Table(version) => {
            let include = Include::parse(&call.query)?;
            Ok(table::of_one(kind, object, version, include, true, call.state.deps.registry.now()))
        }
        Shape::Metadata(version) => Ok(table::metadata_only(object, version)),
        Shape::MetadataList(_) => {
            Err(wrong_shape("you requested PartialObjectMetadataList, but the requested object is not a list"))
        }
    }
}

fn shape_list(call: &Call, kind: &Kind, form: Form, revision: u64, objects: &[Object]) -> Result<Value, ApiError> {
    let metadata = json!({"resourceVersion": revision.to_string()});
    match form.shape {
        Shape::Whole => {
            let items: Vec<Value> = objects.iter().map(|object| item(object.clone())).collect();
            let list = format!("{}List", kind.kind);
            Ok(json!({"kind": list, "apiVersion": kind.api_version(), "metadata": metadata, "items": items}))
        }
        Shape::Table(version) => {
            let (include, now) = (Include::parse(&call.query)?, call.state.deps.registry.now());
            let rows: Vec<Value> = objects.iter().map(|o| table::row(kind, o, version, include, now)).collect();
            Ok(json!({
                "kind": "Table", "apiVersion": version.api_version(), "metadata": metadata,
                "columnDefinitions": table::columns(kind), "rows": rows,
            }))
        }
        Shape::MetadataList(version) => {
            let items: Vec<Value> = objects.iter().map(|o| table::metadata_only(o, version)).collect();
            let list = "PartialObjectMetadataList";
            Ok(json!({"kind": list, "apiVersion": version.api_version(), "metadata": metadata, "items": items}))
        }
        Shape::Metadata(_) => {
            Err(wrong_shape("you requested PartialObjectMetadata, but the requested object is a list"))
        }
    }
}

/// 406 for metadata of one where there are many, or the other way round.
pub(crate) fn wrong_shape(why: &str) -> ApiError {
    ApiError::new(406, "NotAcceptable", why)
}

/// Items of lists leave out kind and apiVersion.
pub(crate) fn item(object: Object) -> Value {
    let mut value = object.into_value();
    if let Some(map) = value.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    value
}

/// A body with a value in a form.
fn write(accept: &Accept, form: Form, code: StatusCode, value: &Value) -> Response<Body> {
    whole(accept, form.media, code, text(form, value).into())
}

/// A value as text.
pub(crate) fn text(form: Form, value: &Value) -> String {
    match form.media {
        Media::Yaml => emit_yaml(value),
        // Writing JSON into memory has no way to fail.
        Media::Json if form.pretty => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
        Media::Json => value.to_string(),
    }
}

/// A whole body, compressed when it is long and the client takes that.
pub(crate) fn whole(accept: &Accept, media: Media, code: StatusCode, body: Bytes) -> Response<Body> {
    let zipped = (accept.gzip && body.len() > GZIP_ABOVE).then(|| gzip(&body)).flatten();
    let compressed = zipped.is_some();
    let mut response = Response::new(full(zipped.unwrap_or(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    if compressed {
        gzip_headers(headers);
    }
    response
}

/// The headers of a compressed body.
pub(crate) fn gzip_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Quick compression: the reference uses the fastest level too.
fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    // Into memory: can't fail; if it did, the plain body would do.
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// An HTTP quoted string; what can't be in a header is replaced.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().take(1024) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_when_to_come_back_only_where_the_status_says_so() {
        let header = |error: ApiError| {
            let response = respond_error(&Accept::default(), &error);
            response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(ApiError::too_many("busy")).as_deref(), Some("1"));
        assert_eq!(header(ApiError::unavailable("not yet")).as_deref(), Some("1"));
        let later = ApiError::new(429, "TooManyRequests", "later").with_details(json!({"retryAfterSeconds": 10}));
        assert_eq!(header(later).as_deref(), Some("10"));
        let budget = json!({"causes": [{"reason": "DisruptionBudget", "message": "no"}]});
        assert_eq!(header(ApiError::new(429, "TooManyRequests", "no").with_details(budget)), None);
        assert_eq!(header(ApiError::new(503, "ServiceUnavailable", "error trying to reach service: no")), None);
    }
}
