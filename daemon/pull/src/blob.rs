//! One blob into a file: streamed, hashed on the way, resumed where it broke off, named only once it is what it should be.

use crate::error::{PullError, Result};
use crate::manifest::{Descriptor, blob_hex, hex_of};
use crate::session::{Answer, Ask, Session, pause};
use crate::transport::chain;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::CONTENT_RANGE;
use hyper::http::{Method, StatusCode};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Pieces that wait to be hashed and written: with hyper's buffers of some 8 to 400 KiB the bound on memory.
const QUEUE: usize = 8;
/// How often a blob may break off without a byte of progress.
const TRIES: u32 = 4;

/// Bytes of a pull that are here.
pub(crate) type Counter = AtomicU64;

/// Where a blob lies, and where it grows.
pub(crate) struct BlobPath {
    pub(crate) whole: PathBuf,
    pub(crate) part: PathBuf,
}

impl BlobPath {
    pub(crate) fn new(dir: &Path, digest: &str) -> Result<Self> {
        let hex = blob_hex(digest)?;
        Ok(Self { whole: dir.join(hex), part: dir.join(format!("{hex}.part")) })
    }
}

/// Fetches a blob unless it is here.
pub(crate) async fn fetch(session: &Session<'_>, blob: &Descriptor, at: &BlobPath, done: &Counter) -> Result<()> {
    if std::fs::metadata(&at.whole).is_ok_and(|m| m.len() == blob.size) {
        done.fetch_add(blob.size, Ordering::Relaxed);
        return Ok(());
    }
    let mut tries = 0;
    let mut before = 0;
    let mut spoilt = false;
    loop {
        let counted = Counter::new(0);
        let error = match once(session, blob, at, done, &counted).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // What was counted is counted again when it is found in the file.
        done.fetch_sub(counted.load(Ordering::Relaxed), Ordering::Relaxed);
        let here = std::fs::metadata(&at.part).map_or(0, |m| m.len());
        if here > before {
            tries = 0;
        }
        before = here;
        tries += 1;
        // A part that another mirror spoilt: once more from the start.
        let damaged = error.kind == crate::PullErrorKind::Invalid && !spoilt && error.again;
        spoilt |= damaged;
        if !(damaged || error.kind == crate::PullErrorKind::Unreachable && error.again) || tries >= TRIES {
            return Err(error);
        }
        tracing::debug!(%error, tries, here, "a blob broke off");
        pause(&error, tries).await;
    }
}

/// One request: goes on where the file ends.
async fn once(
    session: &Session<'_>,
    blob: &Descriptor,
    at: &BlobPath,
    done: &Counter,
    counted: &Counter,
) -> Result<()> {
    let part = at.part.clone();
    let (mut sink, here) = blocking(move || Sink::open(part)).await?;
    let count = |n: u64| {
        done.fetch_add(n, Ordering::Relaxed);
        counted.fetch_add(n, Ordering::Relaxed);
    };
    if here > blob.size {
        sink = blocking(move || sink.restart()).await?;
    } else {
        count(here);
    }
    let from = if here > blob.size { 0 } else { here };
    if from < blob.size || blob.size == 0 {
        let path = format!("blobs/{}", blob.digest);
        let ask = Ask { method: Method::GET, path: &path, accept: "*/*", from };
        let answer = session.ask(&ask).await?;
        let goes_on = match answer.response.status() {
            StatusCode::PARTIAL_CONTENT => Some(starts_at(&answer)) == Some(Some(from)),
            _ => from == 0,
        };
        if !goes_on {
            // It sends all of it, or another part: from the start.
            sink = blocking(move || sink.restart()).await?;
            done.fetch_sub(from, Ordering::Relaxed);
            counted.fetch_sub(from, Ordering::Relaxed);
            if matches!(answer.response.status(), StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT) {
                return Err(PullError::unreachable(format!("{} does not go on where it broke off", answer.url)));
            }
        }
        let from = if goes_on { from } else { 0 };
        sink = stream(session, answer, sink, blob.size - from, &count).await?;
    }
    let (whole, wanted, part) = (at.whole.clone(), blob.clone(), at.part.clone());
    blocking(move || sink.finish(&wanted, &part, &whole)).await
}

/// Where a partial answer begins.
fn starts_at(answer: &Answer) -> Option<u64> {
    let range = answer.response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// The body into the file, hashed and written by a thread of its own.
async fn stream(
    session: &Session<'_>,
    answer: Answer,
    mut sink: Sink,
    room: u64,
    count: &(dyn Fn(u64) + Sync),
) -> Result<Sink> {
    let Answer { url, mut response } = answer;
    let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            sink.write(&piece)?;
        }
        Ok::<_, PullError>(sink)
    });
    let mut left = room;
    let outcome = loop {
        let frame = match timeout(session.transport.patience(), response.body_mut().frame()).await {
            Err(_) => break Err(session.transport.silent(&url)),
            Ok(None) if left > 0 => {
                break Err(PullError::unreachable(format!("{url} broke off {left} bytes too early")));
            }
            Ok(None) => break Ok(()),
            Ok(Some(Err(error))) => break Err(PullError::unreachable(format!("{url} broke off: {}", chain(&error)))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else { continue };
        let n = piece.len() as u64;
        if n > left {
            break Err(PullError::invalid(format!("{url} sends more bytes than it announced")));
        }
        left -= n;
        // A writer that failed has closed its end and says why.
        if sender.send(piece).await.is_err() {
            break Ok(());
        }
        count(n);
    };
    drop(sender);
    let written = writer.await.map_err(|e| PullError::new(crate::PullErrorKind::Local, format!("write blob: {e}")))?;
    let sink = written?;
    outcome.map(|()| sink)
}

/// A growing file and the hash of what it holds.
struct Sink {
    file: File,
    path: PathBuf,
    hash: Sha256,
}

impl Sink {
    /// Opens or makes the part, and hashes what it holds.
    fn open(path: PathBuf) -> Result<(Self, u64)> {
        let failed = |e: io::Error| PullError::file("open", &path, &e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut here = 0;
        loop {
            let n = file.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            hash.update(buffer.get(..n).unwrap_or_default());
            here += n as u64;
        }
        Ok((Self { file, path, hash }, here))
    }

    fn restart(mut self) -> Result<Self> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| PullError::file("empty", &self.path, &e))?;
        self.hash = Sha256::new();
        Ok(self)
    }

    fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.hash.update(piece);
        self.file.write_all(piece).map_err(|e| PullError::file("write", &self.path, &e))
    }

    /// The name is given only to what is right. It need not be on disk yet: whoever unpacks it hashes it again.
    fn finish(self, wanted: &Descriptor, part: &Path, whole: &Path) -> Result<()> {
        let actual = hex_of(self.hash);
        if actual != wanted.digest {
            let _ = std::fs::remove_file(part);
            let message =
                format!("digest mismatch: blob {} has the content of {actual}: it was not kept", wanted.digest);
            return Err(PullError { again: true, ..PullError::invalid(message) });
        }
        std::fs::rename(part, whole).map_err(|e| PullError::file("name", whole, &e))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|e| Err(PullError::new(crate::PullErrorKind::Local, format!("write blob: {e}"))))
}
