//! HTTP/1.1 over the daemon's Unix socket, one connection a request.

use crate::error::Error;
use crate::wire::Status;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Reading takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Work may take this long: stopping every pod, importing an image, copying the database.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);
/// Bytes of one answer that are taken; a list is fetched in pages.
const ANSWER_LIMIT: usize = 256 << 20;

/// The daemon behind a socket.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// A connection to the socket.
    pub(crate) async fn connect(&self) -> Result<UnixStream, Error> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Unreachable { socket: self.socket.clone(), source })
    }

    /// GET, the answer read as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, &NO_BODY, PATIENCE).await
    }

    /// POST with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.call(Method::POST, path, &Some(body), LONG_PATIENCE).await
    }

    /// POST without a body.
    pub(crate) async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::POST, path, &NO_BODY, LONG_PATIENCE).await
    }

    /// DELETE.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.call(Method::DELETE, path, &Some(body), PATIENCE).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Option<impl Serialize>,
        patience: Duration,
    ) -> Result<T, Error> {
        let name = format!("{method} {path}");
        let answer = tokio::time::timeout(patience, async {
            let response = self.send(method, path, body).await?;
            collect(response.into_body(), &name).await
        });
        let bytes = answer.await.map_err(|_| Error::TimedOut {
            what: format!("the daemon did not answer {name} within {} s", patience.as_secs()),
            help: "look at what it does: `journalctl -u reddwarfd`".into(),
        })??;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::broken(format!("the daemon's answer to {name} can't be read"), e))
    }

    /// GET of an answer that comes bit by bit.
    pub(crate) async fn stream(&self, path: &str) -> Result<Stream, Error> {
        let response = self.send(Method::GET, path, &NO_BODY).await?;
        Ok(Stream { body: response.into_body(), name: format!("GET {path}"), rest: BytesMut::new() })
    }

    /// Sends a request; a refusal is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Option<impl Serialize>,
    ) -> Result<Response<Incoming>, Error> {
        let name = format!("{method} {path}");
        let broken = |e: hyper::Error| Error::broken(format!("the connection to the daemon broke during {name}"), e);
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the request's answer or the program.
        tokio::spawn(connection);
        let text = match body {
            Some(body) => {
                serde_json::to_vec(body).map_err(|e| Error::broken("the request can't be written as JSON", e))?
            }
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("user-agent", concat!("reddwarfctl/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(text)))
            .map_err(|e| Error::usage(format!("{name} is no request"), e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = collect(response.into_body(), &name).await?;
        Err(Error::Refused { status: Box::new(Status::parse(code, &bytes)) })
    }
}

const NO_BODY: Option<()> = None;

async fn collect(body: Incoming, name: &str) -> Result<Bytes, Error> {
    match Limited::new(body, ANSWER_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) => Err(Error::broken(format!("the connection to the daemon broke during {name}"), e)),
    }
}

/// An answer that comes bit by bit.
pub(crate) struct Stream {
    body: Incoming,
    name: String,
    rest: BytesMut,
}

impl Stream {
    /// The next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame
                .map_err(|e| Error::broken(format!("the connection to the daemon broke during {}", self.name), e))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next line as JSON; `None` at the end.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line = self.rest.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let value = serde_json::from_slice(&line);
                return value
                    .map(Some)
                    .map_err(|e| Error::broken(format!("what {} sends can't be read", self.name), e));
            }
            match self.chunk().await? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// A path with a query of the parameters that have a value.
pub(crate) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Percent-encoding of RFC 3986: unreserved characters stay.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            with_query("/a", &[("labelSelector", "a in (b, ä)"), ("limit", ""), ("x", "1")]),
            "/a?labelSelector=a%20in%20%28b%2C%20%C3%A4%29&x=1"
        );
        assert_eq!(with_query("/a", &[("x", "")]), "/a");
    }
}
