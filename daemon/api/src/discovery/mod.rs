//! Classic discovery: which groups, versions and resources there are, from the table of kinds.

use crate::serve::body::{Body, full};
use crate::serve::dispatch::Call;
use crate::wire::answer::respond_value;
use crate::wire::error::ApiError;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use reddwarf_objects::{Kind, kinds};
use serde_json::{Value, json};

/// Verbs of every resource that is stored.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// An answer with a JSON body.
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

/// `/version`.
pub(crate) fn version(call: &Call) -> Response<Body> {
    let body = json!({
        "major": "1",
        "minor": "36",
        "gitVersion": format!("v1.36.0+reddwarf-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    });
    respond_value(call, StatusCode::OK, &body)
}

/// The processor as Kubernetes names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`.
///
/// # Errors
/// 404 for a group or version that there is not.
pub(crate) fn answer(call: &Call, path: &[&str]) -> Result<Response<Body>, ApiError> {
    let body = match path {
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let groups: Vec<Value> = groups().iter().map(|g| group(g)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resources("", version)?,
        ["apis", name] if groups().contains(name) => {
            let mut body = group(name);
            body["kind"] = "APIGroup".into();
            body["apiVersion"] = "v1".into();
            body
        }
        ["apis", name, version] => resources(name, version)?,
        _ => return Ok(not_found()),
    };
    call.accept.discovery()?;
    Ok(respond_value(call, StatusCode::OK, &body))
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

fn group(name: &str) -> Value {
    let mut versions = Vec::new();
    for kind in kinds().iter().filter(|k| k.group == name) {
        let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(group: &str, version: &str) -> Result<Value, ApiError> {
    let of_version: Vec<&Kind> = kinds().iter().filter(|k| k.group == group && k.version == version).collect();
    let Some(first) = of_version.first() else { return Err(ApiError::unknown_resource()) };
    let mut resources: Vec<Value> = of_version.iter().flat_map(|k| entries(k)).collect();
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

/// A kind's own entry and those of the subresources that we serve.
fn entries(kind: &Kind) -> Vec<Value> {
    let mut own = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": VERBS,
    });
    for (field, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            own[field] = json!(list);
        }
    }
    let mut all = vec![own];
    for (sub, verbs) in
        [("status", &["get", "patch", "update"] as &[&str]), ("log", &["get"]), ("exec", &["create", "get"])]
    {
        if kind.has_subresource(sub) {
            let of = if sub == "exec" { "PodExecOptions" } else { kind.kind };
            all.push(json!({
                "name": format!("{}/{sub}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": of,
                "verbs": verbs,
            }));
        }
    }
    all
}
