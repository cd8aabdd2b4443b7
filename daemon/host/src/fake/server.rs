//! Servers in fake containers: what they answer can be changed while they run, and what they were asked is kept.

use super::{FakeHost, For, lock};
use crate::time::BootTime;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The longest head of a request that is read.
const HEAD: usize = 64 * 1024;

/// What a server does about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Reads a request's head and answers with this status and these header lines.
    Http {
        /// Such as 200.
        status: u16,
        /// Whole lines without their ends, such as `Location: /other`.
        headers: Vec<String>,
        /// The body.
        body: String,
    },
    /// Takes the connection, reads and never says anything.
    Silence,
    /// Hangs up at once.
    HangUp,
    /// Nobody listens.
    Refused,
}

impl Reply {
    /// This status with an empty body.
    pub fn status(status: u16) -> Self {
        Self::Http { status, headers: Vec::new(), body: String::new() }
    }
}

/// What a server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When.
    pub at: BootTime,
    /// The head as it came; empty when nothing was sent.
    pub head: String,
}

/// A server in containers; clones share it.
#[derive(Clone, Debug)]
pub struct FakeServer {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    reply: Reply,
    /// By path, before `reply`.
    pages: Vec<(String, Reply)>,
    delay: Duration,
    requests: Vec<Request>,
}

impl FakeServer {
    /// Answers everything so.
    pub fn new(reply: Reply) -> Self {
        let inner = Inner { reply, pages: Vec::new(), delay: Duration::ZERO, requests: Vec::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// From now on it answers so.
    pub fn reply(&self, reply: Reply) {
        lock(&self.inner).reply = reply;
    }

    /// From now on it answers this path so.
    pub fn page(&self, path: &str, reply: Reply) {
        let mut inner = lock(&self.inner);
        inner.pages.retain(|(known, _)| known != path);
        inner.pages.push((path.to_owned(), reply));
    }

    /// From now on it takes so long.
    pub fn delay(&self, delay: Duration) {
        lock(&self.inner).delay = delay;
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.inner).requests.clone()
    }

    pub(super) fn refuses(&self) -> bool {
        lock(&self.inner).reply == Reply::Refused
    }

    /// One connection, from its beginning to its end.
    pub(super) async fn attend(self, host: FakeHost, mut stream: DuplexStream) {
        let at = host.now().boot;
        let (reply, delay) = {
            let inner = lock(&self.inner);
            (inner.reply.clone(), inner.delay)
        };
        if matches!(reply, Reply::HangUp | Reply::Refused) {
            return lock(&self.inner).requests.push(Request { at, head: String::new() });
        }
        let head = read_head(&mut stream).await;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let page = {
            let mut inner = lock(&self.inner);
            inner.requests.push(Request { at, head });
            inner.pages.iter().find(|(known, _)| *known == path).map(|(_, reply)| reply.clone())
        };
        tokio::time::sleep(delay).await;
        if let Reply::Http { status, headers, body } = page.unwrap_or(reply) {
            let mut text = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
            for header in headers {
                text.push_str(&header);
                text.push_str("\r\n");
            }
            text.push_str("\r\n");
            text.push_str(&body);
            // Nobody may be there any more.
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

/// Up to the empty line, or the end.
async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < HEAD && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => head.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

impl FakeHost {
    /// Gives containers a server at a port. They answer there while they run.
    pub fn set_server(&self, which: For, port: u16, server: FakeServer) {
        let mut servers = lock(&self.shared.servers);
        servers.retain(|(known, at, _)| (known, *at) != (&which, port));
        servers.push((which, port, server));
    }

    pub(super) fn server_for(
        &self,
        sandbox: &crate::spec::SandboxSpec,
        spec: &crate::spec::ContainerSpec,
        port: u16,
    ) -> Option<FakeServer> {
        let keys = For::all(sandbox, spec);
        let servers = lock(&self.shared.servers);
        let of =
            |key: &For| servers.iter().find(|(known, at, _)| known == key && *at == port).map(|(_, _, s)| s.clone());
        keys.iter().find_map(of)
    }
}
