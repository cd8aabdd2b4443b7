//! gRPC health checks (grpc.health.v1.Health/Check over HTTP/2 without TLS). One call with one message of one field each
//! way: five bytes in front of it and a handful of headers are all that gRPC adds.

use super::{USER_AGENT, go_seconds, http};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reddwarf_host::{Connection, Host};
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Bytes of an answer that are read.
const LONGEST: usize = 10 * 1024;
/// gRPC's status codes (google.golang.org/grpc/codes).
const OK: u32 = 0;
const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;

/// Asks; the error says why the answer is a bad one, in the reference's words.
pub(super) async fn check(
    host: &dyn Host,
    address: IpAddr,
    port: u16,
    service: &str,
    limit: Duration,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    let at = std::net::SocketAddr::new(address, port).to_string();
    let connection = match timeout_at(until, host.dial(&address.to_string(), port)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let why = format!("connection error: desc = \"transport: Error while dialing: {}\"", error.message);
            return Err(format!("error: failed to connect service at {at:?}: {why}"));
        }
        Err(_) => {
            let limit = go_seconds(limit);
            return Err(format!("timeout: failed to connect service {at:?} within {limit}: context deadline exceeded"));
        }
    };
    let late = format!("timeout: health rpc did not complete within {}", go_seconds(limit));
    match timeout_at(until, call(connection, &at, service)).await {
        Err(_) => Err(late),
        Ok(Err(error)) => Err(format!("error: health rpc probe failed: {error}")),
        Ok(Ok(Said { code: OK, status: Some(1), .. })) => Ok(()),
        Ok(Ok(Said { code: OK, status, .. })) => {
            Err(format!("service unhealthy (responded with {:?})", status_name(status.unwrap_or(0))))
        }
        Ok(Ok(Said { code: DEADLINE_EXCEEDED, .. })) => Err(late),
        Ok(Ok(Said { code: UNIMPLEMENTED, message, .. })) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Said { code, message, .. })) => {
            Err(format!("error: health rpc probe failed: rpc error: code = {} desc = {message}", code_name(code)))
        }
    }
}

/// What came back.
#[derive(Debug)]
struct Said {
    /// gRPC's status.
    code: u32,
    message: String,
    /// HealthCheckResponse.status.
    status: Option<u64>,
}

struct Connected(AbortHandle);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn call(connection: Connection, authority: &str, service: &str) -> Result<Said, String> {
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let handshake = builder.handshake(TokioIo::new(connection)).await;
    let (mut sender, connection) = handshake.map_err(|e| http::deepest(&e))?;
    let _connected = Connected(tokio::spawn(connection).abort_handle());
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(Full::new(Bytes::from(framed(service))))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| http::deepest(&e))?;
    read(response).await
}

/// HealthCheckRequest{service = 1} behind gRPC's five bytes: not compressed, length.
fn framed(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&message);
    bytes
}

async fn read(mut response: Response<Incoming>) -> Result<Said, String> {
    if response.status().as_u16() != 200 {
        return Err(format!("unexpected HTTP status code received from server: {}", response.status()));
    }
    // With an error there may be no body: then the status is among the headers.
    let mut trailers = response.headers().clone();
    let mut body = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|e| http::deepest(&e))?;
        match frame.into_data() {
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(more) = frame.into_trailers() {
                    trailers.extend(more);
                }
            }
        }
        if body.len() > LONGEST {
            return Err("the answer is too long".to_owned());
        }
    }
    let text = |name: &str| header(&trailers, name).unwrap_or_default();
    let Ok(code) = text("grpc-status").parse() else { return Err("the server sent no grpc-status".to_owned()) };
    Ok(Said { code, message: text("grpc-message").to_owned(), status: body.get(5..).and_then(health) })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// HealthCheckResponse's field 1, a varint; 0 (`UNKNOWN`) when it is absent, as protobuf has it. Other fields are passed
/// over; `None` when it is no such message.
fn health(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        1 => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

fn code_name(code: u32) -> String {
    let names = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let at = usize::try_from(code).unwrap_or(usize::MAX);
    names.get(at).map_or_else(|| format!("Code({code})"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_read_and_written_as_protobuf_has_them() {
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("ab"), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(framed(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 10, 0xc8, 1]);
        assert_eq!(health(&[]), Some(0));
        assert_eq!(health(&[8, 1]), Some(1));
        assert_eq!(health(&[18, 2, 9, 9, 8, 2]), Some(2), "unknown fields are passed over");
        assert_eq!(health(&[8]), None);
        assert_eq!(health(&[11]), None);
    }

    /// A server that answers every call with this body and these trailers.
    async fn served(body: Vec<u8>, trailers: &[(&'static str, &'static str)], service: &str) -> Result<Said, String> {
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let asked = framed(service);
        let trailers: HeaderMap = trailers
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (body, trailers, asked) = (body.clone(), trailers.clone(), asked.clone());
            async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), asked);
                let frames = [Ok(Frame::data(Bytes::from(body))), Ok::<_, String>(Frame::trailers(trailers))];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, String>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), answer));
        call(Box::new(ours), "10.0.0.1:50051", service).await
    }

    #[tokio::test]
    async fn a_health_service_is_asked_over_http_2() {
        let ok = [("grpc-status", "0")];
        let serving = served(vec![0, 0, 0, 0, 2, 8, 1], &ok, "").await.unwrap();
        assert_eq!((serving.code, serving.status), (0, Some(1)));
        let not = served(vec![0, 0, 0, 0, 2, 8, 2], &ok, "shop.v1.Cart").await.unwrap();
        assert_eq!((not.code, not.status), (0, Some(2)));
        let unknown = served(Vec::new(), &[("grpc-status", "12"), ("grpc-message", "unknown service")], "").await;
        let unknown = unknown.unwrap();
        assert_eq!((unknown.code, unknown.message.as_str(), unknown.status), (12, "unknown service", None));
        assert!(served(Vec::new(), &[], "").await.unwrap_err().contains("grpc-status"));
        // A server that speaks something else.
        let (ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut theirs, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        call(Box::new(ours), "h:1", "").await.unwrap_err();
    }

    proptest! {
        #[test]
        fn reading_is_total(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = health(&bytes);
        }
    }
}
