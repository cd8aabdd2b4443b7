//! A session over SPDY, for clients that know no WebSocket: the client opens a stream for each standard stream, one for
//! errors and, with a terminal, one for sizes.

use super::exec::Wanted;
use super::outcome;
use super::spdy::{Connection, Stream};
use super::upgrade;
use super::websocket::terminal_size;
use crate::runtime::{Session, TerminalSize};
use crate::wire::error::ApiError;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Time for the client to open its streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a terminal's size at most.
const LONGEST_SIZE: usize = 1 << 10;

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V1,
    V2,
    /// With a stream for terminal sizes.
    V3,
    /// With a Status on the error stream.
    V4,
    /// As v4: what it adds is WebSocket's.
    V5,
}

const NAMES: [(&str, Version); 5] = [
    ("v5.channel.k8s.io", Version::V5),
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];

impl Version {
    /// The client's first choice; the first version when it names none.
    ///
    /// # Errors
    /// 403.
    pub(super) fn choose(offered: &[String]) -> Result<Self, ApiError> {
        if offered.is_empty() {
            return Ok(Self::V1);
        }
        let name = upgrade::choose(offered, &NAMES.map(|(name, _)| name))?;
        Ok(NAMES.iter().find(|(known, _)| *known == name).map_or(Self::V1, |(_, version)| *version))
    }

    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, version)| *version == self).map_or("channel.k8s.io", |(name, _)| name)
    }
}

/// The streams of one session.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    /// Takes streams until all that are wanted are there; `None` when the client goes, or opens something else.
    async fn gather(connection: &mut Connection, version: Version, wanted: Wanted) -> Option<Self> {
        let mut streams = Self::default();
        while !streams.complete(version, wanted) {
            let stream = connection.next().await?;
            let place = match stream.header("streamtype")? {
                "error" => &mut streams.error,
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                "resize" => &mut streams.resize,
                other => {
                    tracing::debug!(kind = other, "a stream of an unknown kind");
                    return None;
                }
            };
            *place = Some(stream);
        }
        Some(streams)
    }

    fn complete(&self, version: Version, wanted: Wanted) -> bool {
        let there = |wanted: bool, stream: &Option<Stream>| !wanted || stream.is_some();
        self.error.is_some()
            && there(wanted.stdin, &self.stdin)
            && there(wanted.stdout, &self.stdout)
            && there(wanted.stderr && !wanted.tty, &self.stderr)
            && there(wanted.tty && version >= Version::V3, &self.resize)
    }
}

/// Carries the session over the connection, until either ends. Returning drops the session, which ends a command (F45).
pub(super) async fn converse<S>(io: S, version: Version, wanted: Wanted, session: Session)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::serve(io);
    let gathered = timeout(PATIENCE, Streams::gather(&mut connection, version, wanted)).await;
    let Ok(Some(streams)) = gathered else { return connection.close().await };
    let Streams { error, stdin: typed, stdout: to_stdout, stderr: to_stderr, resize: sizes } = streams;
    let Session { stdin, stdout, stderr, resize, exit, guard } = session;
    let output = async {
        tokio::join!(pass(Some(stdout), to_stdout), pass(stderr, to_stderr));
        let exit =
            exit.await.map_err(|_| "the command's supervisor ended without telling how the command did".to_owned());
        let last = if version >= Version::V4 { Some(outcome::status(exit).to_string()) } else { outcome::words(exit) };
        let Some(mut error) = error else { return };
        if let Some(last) = last {
            let _ = error.write_all(last.as_bytes()).await;
        }
        let _ = error.shutdown().await;
    };
    let input = async {
        if let (Some(mut typed), Some(mut stdin)) = (typed, stdin) {
            let _ = copy(&mut typed, &mut stdin).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let resizing = async {
        if let Some(sizes) = sizes {
            pass_sizes(sizes, resize).await;
        }
        std::future::pending::<()>().await;
    };
    let client_gone = async { while connection.next().await.is_some() {} };
    tokio::select! {
        () = output => {}
        () = input => {}
        () = resizing => {}
        () = client_gone => tracing::debug!("a client left; its session ends"),
    }
    drop(guard);
    connection.close().await;
}

/// Passes an output on, or throws it away when nobody wants it.
async fn pass(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<Stream>) {
    match (from, to) {
        (Some(mut from), Some(mut to)) => {
            if copy(&mut from, &mut to).await.is_err() {
                // The client closed this one alone.
                let _ = copy(&mut from, &mut sink()).await;
            }
            let _ = to.shutdown().await;
        }
        (Some(mut from), None) => drop(copy(&mut from, &mut sink()).await),
        (None, Some(mut to)) => drop(to.shutdown().await),
        (None, None) => {}
    }
}

/// Sizes come as JSON objects, one after another.
async fn pass_sizes(mut from: Stream, to: mpsc::Sender<TerminalSize>) {
    let mut text = Vec::new();
    while let Ok(1..) = from.read_buf(&mut text).await {
        while let Some(end) = text.iter().position(|b| *b == b'}') {
            let object: Vec<u8> = text.drain(..=end).collect();
            if let Some(size) = terminal_size(&object) {
                // A full queue of sizes: a later one will tell.
                let _ = to.try_send(size);
            }
        }
        if text.len() > LONGEST_SIZE {
            return;
        }
    }
}
