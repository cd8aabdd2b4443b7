//! HTTP GETs to pods: one connection each, redirects followed within the host, answers cut off.

use super::USER_AGENT;
use super::url::Url;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reddwarf_host::Host;
use reddwarf_host::spec::{HookPort, HttpGet};
use reddwarf_network::tls;
use std::error::Error as StdError;
use std::net::IpAddr;
use tokio::task::AbortHandle;

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Bytes of an answer that are read.
const LONGEST: usize = 10 * 1024;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Its first 10 KiB.
    pub(super) body: String,
}

/// Where a GET goes; the error says why nowhere.
pub(super) fn url(get: &HttpGet, address: IpAddr) -> Result<Url, String> {
    match &get.port {
        HookPort::Number(port) => {
            let host = get.host.clone().unwrap_or_else(|| address.to_string());
            Ok(Url::new(get.tls, &host, *port, &get.path))
        }
        HookPort::Missing(name) => Err(format!("couldn't find port: {name}")),
    }
}

/// Sends a GET. Redirects within the same host name are followed; one that leads elsewhere is the answer.
///
/// # Errors
/// Why there is no answer, in the words of Go's net/http, which users of Kubernetes look for.
pub(super) async fn get(host: &dyn Host, get: &HttpGet, from: Url) -> Result<Answer, String> {
    let mut at = from.clone();
    for _ in 0..REDIRECTS {
        let response = send(host, get, &at).await.map_err(|e| format!("Get \"{at}\": {e}"))?;
        let status = response.response.status();
        let location = response.response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let next = location.filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)).map(|l| at.join(l));
        match next {
            Some(None) => return Err(format!("Get \"{at}\": failed to parse Location header")),
            Some(Some(next)) if next.host == from.host => at = next,
            Some(Some(_)) | None => return response.read().await,
        }
    }
    Err(format!("Get \"{at}\": stopped after {REDIRECTS} redirects"))
}

/// An answer whose connection lasts as long as it.
struct Open {
    response: Response<Incoming>,
    _connection: Connected,
}

struct Connected(AbortHandle);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Open {
    async fn read(mut self) -> Result<Answer, String> {
        let status = self.response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < LONGEST {
            match self.response.body_mut().frame().await {
                Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(deepest(&error)),
                None => break,
            }
        }
        body.truncate(LONGEST);
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

async fn send(host: &dyn Host, get: &HttpGet, url: &Url) -> Result<Open, String> {
    let mut connection = host.dial(&url.host, url.port).await.map_err(|e| e.message)?;
    if url.tls {
        let secured = tls::secured(connection, &url.host).await.map_err(|e| match tls::is_plain(&e) {
            true => PLAIN.to_owned(),
            false => format!("tls: {e}"),
        })?;
        connection = Box::new(secured);
    }
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
    let (mut sender, connection) = handshake.map_err(|e| deepest(&e))?;
    let connected = Connected(tokio::spawn(connection).abort_handle());
    let response = sender.send_request(request(get, url)?).await.map_err(|e| deepest(&e))?;
    Ok(Open { response, _connection: connected })
}

/// As Go says it. A hook tries once more without TLS.
pub(super) const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

fn request(get: &HttpGet, url: &Url) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.path.parse().map_err(|e| format!("invalid path {:?}: {e}", url.path))?;
    let headers = request.headers_mut();
    let fixed = |name, value: &str| -> Result<(HeaderName, HeaderValue), String> {
        Ok((name, HeaderValue::from_str(value).map_err(|e| e.to_string())?))
    };
    for (name, value) in [
        fixed(hyper::header::HOST, &url.authority())?,
        fixed(hyper::header::USER_AGENT, USER_AGENT)?,
        fixed(hyper::header::ACCEPT, "*/*")?,
        fixed(hyper::header::CONNECTION, "close")?,
    ] {
        headers.insert(name, value);
    }
    let mut own: Vec<HeaderName> = Vec::new();
    for (name, value) in &get.headers {
        // The value may be a secret: it is not in the message.
        let named = HeaderName::from_bytes(name.as_bytes());
        let (Ok(header), Ok(value)) = (named, HeaderValue::from_str(value.expose())) else {
            return Err(format!("header {name:?} can't be sent"));
        };
        if own.contains(&header) {
            headers.append(header, value);
        } else {
            // The pod's own take the place of ours; an empty one takes ours away.
            headers.remove(&header);
            if !value.is_empty() || ![hyper::header::USER_AGENT, hyper::header::ACCEPT].contains(&header) {
                headers.insert(header.clone(), value);
            }
            own.push(header);
        }
    }
    Ok(request)
}

/// The cause behind hyper's words, which name no cause themselves.
pub(super) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.to_string().as_str() {
        "connection closed before message completed" => "EOF".to_owned(),
        text => text.to_owned(),
    }
}
