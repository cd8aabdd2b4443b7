//! `/openapi/v3` and `/openapi/v2`: what kubectl explains and validates with.
//!
//! Documents are made when somebody asks and kept compressed, a few of them; what is sent is not kept. Their hashes come from what
//! they are made from, so that the index costs nothing.

mod cache;

pub(crate) use cache::Documents;

use crate::discovery::not_found;
use crate::serve::body::{Body, full};
use crate::serve::dispatch::Call;
use crate::wire::accept::not_acceptable;
use crate::wire::answer::respond_value;
use crate::wire::error::ApiError;
use cache::Document;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, LOCATION, VARY,
};
use hyper::{Response, StatusCode};
use reddwarf_objects::openapi;
use serde_json::{Map, Value, json};

/// The protobuf form of OpenAPI 2. `@` may not be in a media type; clients ask for it all the same.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// Answers a path below `/openapi`.
///
/// # Errors
/// 406.
pub(crate) async fn answer(call: &Call, path: &[&str], headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    match path {
        ["v3"] => Ok(index(call, headers)),
        ["v3", "api", version] => v3(call, "", version, headers).await,
        ["v3", "apis", group, version] => v3(call, group, version, headers).await,
        ["v2"] => {
            let document = form(headers, &PROTOBUF).ok_or_else(not_acceptable)?;
            send(call, document, headers, false).await
        }
        _ => Ok(not_found()),
    }
}

/// The best of JSON and, where a document has it, protobuf.
fn form(headers: &HeaderMap, protobuf: &[&str]) -> Option<Document> {
    let ranges: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    if ranges.iter().all(|range| range.trim().is_empty()) {
        return Some(Document::V2Json);
    }
    ranges.iter().map(|range| range.split(';').next().unwrap_or_default().trim()).find_map(|range| match range {
        "application/json" | "application/*" | "*/*" => Some(Document::V2Json),
        range if protobuf.contains(&range) => Some(Document::V2Protobuf),
        _ => None,
    })
}

/// The list of OpenAPI 3 documents; a document's URL names its content.
fn index(call: &Call, headers: &HeaderMap) -> Response<Body> {
    let mut paths = Map::new();
    let mut all = String::new();
    for (group, version) in openapi::group_versions() {
        let document = Document::V3 { group: group.to_owned(), version: version.to_owned() };
        let url = url(&document);
        all.push_str(&url);
        paths.insert(name(group, version), json!({"serverRelativeURL": url}));
    }
    let tag = cache::hash(all.as_bytes());
    if let Some(unchanged) = unchanged(call, headers, &tag) {
        return unchanged;
    }
    let mut response = respond_value(call, StatusCode::OK, &json!({"paths": Value::Object(paths)}));
    validators(call, response.headers_mut(), &tag);
    response
}

fn name(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn url(document: &Document) -> String {
    let path = match document {
        Document::V3 { group, version } => format!("v3/{}", name(group, version)),
        Document::V2Json | Document::V2Protobuf => "v2".to_owned(),
    };
    format!("/openapi/{path}?hash={}", document.hash())
}

async fn v3(call: &Call, group: &str, version: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    if !openapi::group_versions().contains(&(group, version)) {
        return Ok(not_found());
    }
    form(headers, &[]).ok_or_else(not_acceptable)?;
    let document = Document::V3 { group: group.to_owned(), version: version.to_owned() };
    let hash = document.hash();
    match call.query.get("hash") {
        // Of another version of this daemon: the client shall not remember this content under that name.
        Some(other) if other != hash => {
            let mut response = Response::new(full(String::new()));
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            set(response.headers_mut(), LOCATION, &url(&document));
            Ok(response)
        }
        given => send(call, document, headers, given.is_some()).await,
    }
}

/// Sends a document. One that was asked for by its content never changes.
async fn send(
    call: &Call,
    document: Document,
    headers: &HeaderMap,
    immutable: bool,
) -> Result<Response<Body>, ApiError> {
    let tag = document.hash();
    let mut response = match unchanged(call, headers, &tag) {
        Some(unchanged) => unchanged,
        None => {
            let kind = match document {
                Document::V2Protobuf => PROTOBUF[0],
                Document::V2Json | Document::V3 { .. } => "application/json",
            };
            let gzip = call.accept.gzip;
            let state = call.state.clone();
            let made = tokio::task::spawn_blocking(move || state.documents.get(&document, gzip)).await;
            let body = made.map_err(|_| ApiError::internal("the OpenAPI document could not be made"))?;
            let mut response = Response::new(full(body));
            set(response.headers_mut(), CONTENT_TYPE, kind);
            if gzip {
                set(response.headers_mut(), CONTENT_ENCODING, "gzip");
            }
            response
        }
    };
    set(response.headers_mut(), VARY, "Accept, Accept-Encoding");
    validators(call, response.headers_mut(), &tag);
    if immutable {
        set(response.headers_mut(), CACHE_CONTROL, "public, immutable, max-age=31536000");
    }
    Ok(response)
}

/// 304 for a client that has this already.
fn unchanged(call: &Call, headers: &HeaderMap, tag: &str) -> Option<Response<Body>> {
    let given = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match given(IF_NONE_MATCH) {
        Some(tags) => tags.split(',').any(|t| t.trim().trim_start_matches("W/").trim_matches('"') == tag),
        None => given(IF_MODIFIED_SINCE) == Some(call.state.documents.since()),
    };
    let mut response = Response::new(full(String::new()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    validators(call, response.headers_mut(), tag);
    same.then_some(response)
}

fn validators(call: &Call, headers: &mut HeaderMap, tag: &str) {
    set(headers, ETAG, &format!("\"{tag}\""));
    set(headers, LAST_MODIFIED, call.state.documents.since());
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Ours are all plain ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
