//! `pods/{name}/proxy` and `services/{name}/proxy`: one HTTP request into a pod's network namespace, upgrades included.
//!
//! The name may say more: `web:8080`, `http:web:8080`. A service's request goes to one of its ready pods.

use super::target;
use crate::runtime::{Connection, PodName};
use crate::serve::body::{Arriving, Body, full};
use crate::serve::dispatch::Call;
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use reddwarf_network::tls;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Object, kinds};
use reddwarf_registry::ListQuery;
use serde_json::Value;
use std::io;
use tokio::io::copy_bidirectional;

/// Headers that are about one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// `[scheme:]name[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place<'a> {
    https: bool,
    name: &'a str,
    /// A number or a port's name; empty: the first one.
    port: &'a str,
}

impl<'a> Place<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        match scheme {
            "" | "http" => Ok(Self { https: false, name, port }),
            "https" => Ok(Self { https: true, name, port }),
            _ => Err(ApiError::bad_request(format!("invalid proxy request {text:?}: write [http:|https:]name[:port]"))),
        }
    }
}

/// Passes the request on and its answer back.
///
/// # Errors
/// 404 for pod or service, 503 when nobody answers there, 403 for an operator at a privileged pod.
pub(super) async fn answer(
    call: Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let text = resource.name.clone().unwrap_or_default();
    if resource.kind.is_core("Node") {
        return of_node(&call, resource, &text, &request).await;
    }
    let place = Place::parse(&text)?;
    let named = ResourceRequest { name: Some(place.name.to_owned()), ..resource.clone() };
    let (pod, name, port) = if resource.kind.is_core("Service") {
        of_service(&call, &named, place.port)?
    } else {
        let (pod, name) = target::pod(&call, &named)?;
        let port = pod_port(&pod, place.port)?;
        (pod, name, port)
    };
    call.admit_entry(pod_kind()?, &pod)?;
    let (prefix, path) = split(request.uri().path());
    let (prefix, path) = (prefix.to_owned(), path.to_owned());
    if path.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirect(request.uri());
    }
    let stream = call.stream_place()?;
    let connection = call.state.deps.runtime.connect(&name, port).await.map_err(unreachable)?;
    let host = pod.get("/status/podIP").and_then(Value::as_str).filter(|ip| !ip.is_empty()).unwrap_or("localhost");
    let connection: Connection =
        if place.https { Box::new(tls::secured(connection, host).await.map_err(unreachable)?) } else { connection };
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let response = exchange(&call, connection, request, &path, &host, stream).await?;
    Ok(with_own_location(response, &prefix))
}

/// The one path of a node that tools ask for: there is no kubelet behind it.
async fn of_node(
    call: &Call,
    resource: &ResourceRequest,
    name: &str,
    request: &Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let name = name.split(':').next().unwrap_or_default();
    // nodes/NODE/proxy: the fifth part of /api/v1/...
    let path = request.uri().path();
    let rest = path.match_indices('/').nth(5).map_or("", |(at, _)| path.get(at..).unwrap_or_default());
    call.state.deps.registry.get(&key_of(resource.kind, None, name))?;
    if request.method() != Method::GET || rest.trim_end_matches('/') != "/stats/summary" {
        let text = format!("{rest:?} is not served: reddwarfd has no kubelet, and answers /stats/summary only");
        return Err(ApiError::new(404, "NotFound", text));
    }
    let summary = call.state.deps.runtime.stats_summary().await?;
    Ok(crate::wire::answer::respond_value(call, StatusCode::OK, &summary))
}

fn unreachable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(503, "ServiceUnavailable", format!("error trying to reach service: {error}"))
}

/// The path up to `/proxy` and what comes after it, both as the client wrote them.
fn split(path: &str) -> (&str, &str) {
    // namespaces/NAMESPACE/KIND/NAME/proxy: the eighth part of /api/v1/...
    let end = path.match_indices('/').nth(7).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// Relative links of a page need the slash.
fn redirect(uri: &Uri) -> Result<Response<Body>, ApiError> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(ApiError::internal)?;
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Sends the request over the connection. What comes back streams; an upgrade is passed on in both directions.
async fn exchange(
    call: &Call,
    connection: Connection,
    mut request: Request<Arriving>,
    path: &str,
    host: &str,
    stream: tokio::sync::OwnedSemaphorePermit,
) -> Result<Response<Body>, ApiError> {
    let (mut sender, talking) = http1::handshake(TokioIo::new(connection)).await.map_err(unreachable)?;
    let stop = call.state.stop.clone();
    tokio::spawn(async move {
        let _stream = stream;
        tokio::select! {
            done = talking.with_upgrades() => if let Err(error) = done {
                tracing::debug!(%error, "a proxied connection broke");
            },
            () = stop.cancelled() => {}
        }
    });
    let upgrades = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let outward = onward(request, path, host)?;
    let mut response = sender.send_request(outward).await.map_err(unreachable)?;
    if let Some(client) = upgrades.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        let pod = hyper::upgrade::on(&mut response);
        let stop = call.state.stop.clone();
        tokio::spawn(async move {
            let Ok((client, pod)) = tokio::try_join!(client, pod) else { return };
            let (mut client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut pod) => {}
                () = stop.cancelled() => {}
            }
        });
        let (parts, _) = response.into_parts();
        return Ok(Response::from_parts(parts, full(Bytes::new())));
    }
    drop_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}

/// The request as the pod gets it. The caller's credentials stay here.
fn onward(request: Request<Arriving>, path: &str, host: &str) -> Result<Request<Arriving>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let original = parts.uri.clone();
    let upgrade = parts.headers.get(UPGRADE).cloned();
    drop_hop_by_hop(&mut parts.headers);
    parts.headers.remove(AUTHORIZATION);
    parts.headers.remove(UPGRADE);
    if let Some(to) = upgrade {
        parts.headers.insert(UPGRADE, to);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let text = |text: &str| HeaderValue::from_str(text).map_err(ApiError::internal);
    if let Some(asked) = parts.headers.insert(HOST, text(host)?) {
        parts.headers.insert("x-forwarded-host", asked);
    }
    parts.headers.insert("x-forwarded-uri", text(original.path())?);
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    let query = original.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    parts.uri = format!("{path}{query}").parse().map_err(ApiError::internal)?;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}

/// Takes away what is about one connection, and what `Connection` names as such.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// A redirection to a path of the pod's own leads back through the proxy.
fn with_own_location(mut response: Response<Body>, prefix: &str) -> Response<Body> {
    let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    let own = location.filter(|l| l.starts_with('/') && !l.starts_with("//"));
    if let Some(value) = own.and_then(|path| HeaderValue::from_str(&format!("{prefix}{path}")).ok()) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

fn pod_kind() -> Result<&'static reddwarf_objects::Kind, ApiError> {
    kinds().by_resource("", "v1", "pods").ok_or_else(ApiError::unknown_resource)
}

/// A port of a pod: by number, by name, or the first one.
fn pod_port(pod: &Object, wanted: &str) -> Result<u16, ApiError> {
    if let Ok(number @ 1..) = wanted.parse::<u16>() {
        return Ok(number);
    }
    let containers = pod.get("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let mut ports = containers.filter_map(|c| c.get("ports")?.as_array()).flatten();
    let found = ports.find(|p| wanted.is_empty() || p.get("name").and_then(Value::as_str) == Some(wanted));
    match found.and_then(|p| u16::try_from(p.get("containerPort")?.as_u64()?).ok()) {
        Some(port) => Ok(port),
        None if wanted.is_empty() => Ok(80),
        None => Err(ApiError::bad_request(format!("pod {} has no port {wanted:?}", pod.name()))),
    }
}

/// One of a service's ready pods, and the port there.
fn of_service(call: &Call, resource: &ResourceRequest, wanted: &str) -> Result<(Object, PodName, u16), ApiError> {
    let (Some(namespace), Some(name)) = (resource.namespace.as_deref(), resource.name.as_deref()) else {
        return Err(ApiError::unknown_resource());
    };
    let registry = &call.state.deps.registry;
    let service = registry.get(&key_of(resource.kind, Some(namespace), name))?;
    let unavailable = |text: String| ApiError::new(503, "ServiceUnavailable", text);
    let ports = service.get("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |port: &Value, field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |port: &Value, field: &str| port.get(field).and_then(Value::as_u64);
    let port = match wanted {
        "" if ports.len() == 1 => ports.first(),
        _ => ports.iter().find(|p| text(p, "name") == wanted || number(p, "port") == wanted.parse().ok()),
    };
    let port = port.ok_or_else(|| unavailable(format!("no service port {wanted:?} found for service {name:?}")))?;
    let none = || unavailable(format!("no endpoints available for service {name:?}"));
    let selector = service.get("/spec/selector").and_then(Value::as_object).filter(|s| !s.is_empty());
    let selector = selector.ok_or_else(none)?;
    let labels: Vec<String> =
        selector.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let query = ListQuery {
        namespace: Some(namespace.to_owned()),
        labels: LabelSelector::parse(&labels.join(",")).map_err(|_| none())?,
        ..ListQuery::all(pod_kind()?)
    };
    let mut ready: Vec<Object> = registry.list(&query)?.items.into_iter().filter(is_ready).collect();
    if ready.is_empty() {
        return Err(none());
    }
    let pod = ready.swap_remove(fastrand::usize(..ready.len()));
    let port = match (number(port, "targetPort"), text(port, "targetPort")) {
        (Some(target), _) => u16::try_from(target).map_err(|_| none())?,
        (None, target) if target.is_empty() => {
            number(port, "port").and_then(|p| u16::try_from(p).ok()).ok_or_else(none)?
        }
        (None, target) => pod_port(&pod, &target)?,
    };
    let name = PodName { namespace: namespace.to_owned(), name: pod.name().to_owned() };
    Ok((pod, name, port))
}

fn is_ready(pod: &Object) -> bool {
    pod.deletion_timestamp().is_none() && pod.condition_holds("Ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_scheme_and_port() {
        let parse = |text| Place::parse(text).map(|p| (p.https, p.name, p.port)).map_err(|e| e.code);
        assert_eq!(parse("web"), Ok((false, "web", "")));
        assert_eq!(parse("web:80"), Ok((false, "web", "80")));
        assert_eq!(parse("https:web:"), Ok((true, "web", "")));
        assert_eq!(parse("ftp:web:80"), Err(400));
        assert_eq!(parse("a:b:c:d"), Err(400));
    }

    #[test]
    fn paths_are_passed_on_as_written() {
        let base = "/api/v1/namespaces/a/pods/web:80/proxy";
        assert_eq!(split(base), (base, ""));
        assert_eq!(split(&format!("{base}/x%2Fy//z/")), (base, "/x%2Fy//z/"));
    }
}
