//! Containers' logs: read, followed, and taken away with their containers.
//!
//! | file | does |
//! |---|---|
//! | `line.rs` | the CRI format: entries, and what of them a client is sent |
//! | `files.rs` | a log's files, rotated ones included; where the last lines begin |
//! | `read.rs` | reading from file to file |
//! | `watch.rs` | one watcher for all that is followed |
//! | `remove.rs` | logs of attempts and pods that are gone |
//!
//! Files are read on blocking threads, a good piece at a time; nothing waits there. A reader keeps the files open that it
//! has still to read, so that a rotation takes nothing away from it.

mod files;
mod line;
mod read;
mod remove;
mod watch;

pub use line::{Line, parse_line};
pub(crate) use remove::tidy;
pub(crate) use watch::LogWatcher;

use crate::key::PodKey;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use read::{Progress, Reader};
use reddwarf_host::PodUid;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a follower asks whether the container has ended.
const TICK: Duration = Duration::from_millis(200);
/// How often it looks at the files all the same when the system tells of changes.
const LOOK: Duration = Duration::from_secs(5);
/// Pieces that wait for a client, each of about 128 KiB.
const AHEAD: usize = 2;

/// Which part of a log (Kubernetes `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with new lines until the instance has ended.
    pub follow: bool,
    /// The instance before the last one.
    pub previous: bool,
    /// Only lines at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Put its time before every line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Of which output.
    pub output: Output,
}

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Both, as they came.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a container's log lies, in the kubelet's layout.
pub(crate) fn path(log_dir: &Path, pod: &PodKey, uid: &PodUid, container: &str, attempt: u32) -> PathBuf {
    log_dir.join(remove::directory(pod, uid)).join(container).join(format!("{attempt}.log"))
}

/// Whether what is followed has ended, so that no more lines will come.
pub type Ended = Box<dyn Fn() -> bool + Send + Sync>;

/// Sends a log's chunks until its end, or, when followed, until `ended` says that no more will come. Stops when the
/// receiver is dropped.
pub(crate) fn stream(
    path: PathBuf,
    options: LogOptions,
    ended: Ended,
    watcher: LogWatcher,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = send(path, options, &ended, &watcher, &chunks).await {
            // The reader may be gone; then nobody is to be told.
            let _ = chunks.send(Err(error)).await;
        }
    });
    receiver
}

async fn send(
    path: PathBuf,
    options: LogOptions,
    ended: &Ended,
    watcher: &LogWatcher,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    // Watched from before the first look on: nothing can come between.
    let mut watched = options.follow.then(|| path.parent().map(|dir| watcher.watch(dir))).flatten();
    let follow = options.follow;
    let mut reader = blocking(move || Reader::open(path, options)).await?;
    loop {
        // Asked before reading: what was written before the end is then read after it.
        let last = !follow || ended();
        if let Some(watched) = &mut watched {
            watched.changed.mark_unchanged();
        }
        let (back, out, progress) = blocking(move || {
            let (out, progress) = reader.step(last)?;
            Ok((reader, out, progress))
        })
        .await?;
        reader = back;
        if !out.is_empty() && chunks.send(Ok(out.into())).await.is_err() {
            return Ok(());
        }
        match progress {
            Progress::Limit => return Ok(()),
            Progress::Drained if last => return Ok(()),
            Progress::Drained => {
                if !wait(watched.as_mut(), ended, chunks).await {
                    return Ok(());
                }
            }
            Progress::More => {}
        }
    }
}

/// Waits until there may be more; `false`: nobody listens any more.
async fn wait(watched: Option<&mut watch::Watched>, ended: &Ended, chunks: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    let mut ticks = 0;
    let tells = watched.as_ref().is_some_and(|w| w.tells);
    let mut changed = watched.map(|w| &mut w.changed);
    loop {
        let change = async {
            match changed.as_mut() {
                // The sender lives as long as the receiver's owner.
                Some(changed) => drop(changed.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel safe: a change that was not taken is still one.
            () = change => return true,
            () = chunks.closed() => return false,
            () = tokio::time::sleep(TICK) => {
                ticks += 1;
                if !tells || ended() || TICK * ticks >= LOOK {
                    return true;
                }
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "log files of the tests' own; times real files")]
mod tests;
