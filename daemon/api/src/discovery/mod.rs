//! What there is: groups, versions and resources from the table of kinds, the version, the paths.
//!
//! ```text
//!  /api, /apis               one document of everything (aggregated.rs) or the names of groups, as the client asks
//!  /apis/G, /api/v1, /apis/G/V   classic.rs
//!  /version, /               here
//! ```

mod aggregated;
mod classic;

use crate::serve::body::{Body, full};
use crate::serve::dispatch::Call;
use crate::wire::accept::{DiscoveryShape, Form};
use crate::wire::answer::{respond_value, text, whole};
use crate::wire::error::ApiError;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use reddwarf_objects::{Kind, bodies, kinds, subresource_verbs};
use serde_json::{Value, json};

/// An answer with a JSON body, of our own routes.
pub(crate) fn json_response(code: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer in plain text.
pub(crate) fn text_response(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A path that is no API's.
pub(crate) fn not_found() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Is anything of this group (empty for core) served in this version?
pub(crate) fn serves(group: &str, version: &str) -> bool {
    kinds().iter().any(|kind| kind.group == group && kind.version == version)
}

/// `/version`. Clients compare `major` and `minor`; `gitVersion` tells people what this is.
pub(crate) fn version(call: &Call) -> Response<Body> {
    let body = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v1.36.0+reddwarf-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        // The same source is the same daemon, whenever it was built.
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    });
    // Indented for everyone, as the reference: people look at it most.
    let form = Form { pretty: true, ..call.accept.plain() };
    whole(&call.accept, form.media, StatusCode::OK, text(form, &body).into())
}

/// The processor as Kubernetes names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/`: the paths there are.
pub(crate) fn index(call: &Call) -> Response<Body> {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis"].map(str::to_owned).into();
    for name in groups() {
        paths.push(format!("/apis/{name}"));
        paths.extend(versions(name).iter().map(|version| format!("/apis/{name}/{version}")));
    }
    paths.extend(
        ["/healthz", "/healthz/ping", "/livez", "/livez/ping", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz"]
            .map(str::to_owned),
    );
    paths.extend(call.state.deps.runtime.checks().iter().map(|check| format!("/readyz/{}", check.name)));
    paths.extend(["/reddwarf/v1", "/version"].map(str::to_owned));
    let form = Form { pretty: true, ..call.accept.plain() };
    whole(&call.accept, form.media, StatusCode::OK, text(form, &json!({"paths": paths})).into())
}

/// `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`.
///
/// # Errors
/// 406.
pub(crate) fn answer(call: &Call, path: &[&str], headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let (form, shape) = call.accept.discovery()?;
    let body = match (path, shape) {
        (["api" | "apis"], DiscoveryShape::Aggregated(version)) => {
            let core = path == ["api"];
            return Ok(conditional(call, form, version, aggregated::document(core, version), headers));
        }
        (["api"], DiscoveryShape::Classic) => classic::versions(call.state.settings.listen),
        (["apis"], DiscoveryShape::Classic) => classic::group_list(),
        (["api", version], _) if serves("", version) => classic::resource_list("", version),
        (["apis", group], _) if groups().contains(group) => classic::group(group),
        (["apis", group, version], _) if serves(group, version) && !group.is_empty() => {
            classic::resource_list(group, version)
        }
        _ => return Ok(not_found()),
    };
    Ok(respond_value(call, StatusCode::OK, &body))
}

/// The document, or 304 for who has it.
fn conditional(
    call: &Call,
    form: Form,
    version: &str,
    document: &aggregated::Document,
    headers: &HeaderMap,
) -> Response<Body> {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let has_it = known.map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == document.etag || tag == "*");
    let mut response = if has_it {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let body = if form.pretty || form.media != Form::PLAIN.media {
            text(form, &serde_json::from_str(&document.text).unwrap_or_default())
        } else {
            document.text.clone()
        };
        let mut response = whole(&call.accept, form.media, StatusCode::OK, body.into());
        let content =
            format!("{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList", form.media.content_type());
        if let Ok(content) = HeaderValue::from_str(&content) {
            response.headers_mut().insert(CONTENT_TYPE, content);
        }
        response
    };
    if let Ok(tag) = HeaderValue::from_str(&document.etag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert("vary", HeaderValue::from_static("Accept"));
    response
}

/// Named groups in the order of the table.
fn groups() -> Vec<&'static str> {
    let mut found = Vec::new();
    for kind in kinds().iter().filter(|k| !k.group.is_empty()) {
        if !found.contains(&kind.group) {
            found.push(kind.group);
        }
    }
    found
}

/// Versions of a group, the preferred one first.
fn versions(group: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for kind in kinds().iter().filter(|k| k.group == group) {
        if !found.contains(&kind.version) {
            found.push(kind.version);
        }
    }
    found
}

/// Kinds of a group and version in the order of their resources' names.
fn resources(group: &str, version: &str) -> Vec<&'static Kind> {
    let mut found: Vec<&Kind> = kinds().iter().filter(|k| k.group == group && k.version == version).collect();
    found.sort_by_key(|kind| kind.plural);
    found
}

/// A subresource as clients find it: its name, the kind of its bodies, what may be done with it.
struct Subresource {
    name: &'static str,
    /// Group and version; absent when they are the resource's own.
    group_version: Option<(&'static str, &'static str)>,
    kind: &'static str,
    verbs: &'static [&'static str],
}

/// The subresources of a kind in alphabetical order.
fn subresources(kind: &'static Kind) -> Vec<Subresource> {
    let of = |name: &'static str| {
        let body = bodies().iter().find(|body| body.plural == name || body.plural == format!("{}/{name}", kind.plural));
        let (group_version, body) = match (name, kind.kind, body) {
            (_, _, Some(body)) => (Some((body.group, body.version)), body.kind),
            ("binding", ..) => (None, "Binding"),
            ("attach", ..) => (None, "PodAttachOptions"),
            ("exec", ..) => (None, "PodExecOptions"),
            ("portforward", ..) => (None, "PodPortForwardOptions"),
            ("proxy", "Pod", _) => (None, "PodProxyOptions"),
            ("proxy", "Service", _) => (None, "ServiceProxyOptions"),
            ("proxy", ..) => (None, "NodeProxyOptions"),
            _ => (None, kind.kind),
        };
        Subresource { name, group_version, kind: body, verbs: subresource_verbs(name) }
    };
    let mut found: Vec<Subresource> = kind.subresources.iter().copied().map(of).collect();
    found.sort_by_key(|sub| sub.name);
    found
}
