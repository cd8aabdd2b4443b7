//! A supervisor as a program: its one argument, the streams that the daemon gives it, the one word it says.
//!
//! Standard input is the instance's lock, standard output a pipe for the word, standard error a file for what has no
//! better place.

use crate::files::io_error;
use crate::instance::ContainerDir;
use crate::record::FailureKind;
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// What the supervisor tells the daemon, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The program runs, or `exit.json` says why it doesn't.
    Ready,
    /// Nothing was started.
    Failed {
        /// For the caller.
        kind: FailureKind,
        /// For people.
        message: String,
    },
}

/// How long the daemon waits for the word. Supervisors give up a little earlier by themselves.
pub const PATIENCE: Duration = Duration::from_secs(65);

/// Runs a program of one argument, an instance's directory; `argument` is its name, for messages.
pub fn main<R>(argument: &str, args: &[OsString], run: impl FnOnce(&ContainerDir<R>) -> io::Result<()>) -> ExitCode {
    let Some(dir) = args.first() else {
        eprintln!("usage: {argument} DIRECTORY (started by reddwarfd itself)");
        return ExitCode::from(2);
    };
    let dir = ContainerDir::new(PathBuf::from(dir));
    match run(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{argument} {}: {e}", dir.path().display());
            ExitCode::FAILURE
        }
    }
}

/// Moves the lock (standard input) and the report pipe (standard output) to close-on-exec descriptors above 2 and puts
/// /dev/null in their places.
///
/// # Errors
/// The system's.
pub fn take_streams() -> io::Result<(OwnedFd, File)> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let lock = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(&null)?;
    let report = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(&null)?;
    Ok((lock, File::from(report)))
}

/// Tells the daemon, which may be gone by now.
pub fn tell(mut to: File, report: &Report) {
    if let Ok(mut bytes) = serde_json::to_vec(report) {
        bytes.push(b'\n');
        let _ = to.write_all(&bytes);
    }
}

/// Waits for the word of a supervisor of that directory: one line; its pipe may stay open for longer.
///
/// # Errors
/// `Timeout` after [`PATIENCE`]; what the supervisor said; `Other` with the last line of `log` when it ended without a
/// word.
pub async fn heard(mut from: Receiver, dir: &Path, log: &Path) -> HostResult<Report> {
    const OP: &str = "start container";
    let subject = || dir.display().to_string();
    let mut said = Vec::new();
    let word = async {
        let mut buffer = [0; 1024];
        while !said.contains(&b'\n') {
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            said.extend_from_slice(buffer.get(..n).unwrap_or_default());
        }
        Ok::<_, io::Error>(())
    };
    match tokio::time::timeout(PATIENCE, word).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(io_error("start supervisor", dir, e)),
        Err(_) => {
            let message = format!("no word from its supervisor within {} s", PATIENCE.as_secs());
            return Err(HostError::new(HostErrorKind::Timeout, OP, subject(), message));
        }
    }
    serde_json::from_slice(&said).map_err(|_| {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let message = format!("its supervisor ended without a word: {}", said.lines().last().unwrap_or("no message"));
        HostError::new(HostErrorKind::Other, OP, subject(), message)
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_is_heard_while_its_pipe_stays_open_and_its_absence_explained() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "first\nlast words\n").unwrap();
        let (sender, receiver) = tokio::net::unix::pipe::pipe().unwrap();
        let file = File::from(sender.into_blocking_fd().unwrap());
        tell(file.try_clone().unwrap(), &Report::Ready);
        assert_eq!(heard(receiver, dir.path(), &log).await.unwrap(), Report::Ready);
        drop(file);
        let (sender, receiver) = tokio::net::unix::pipe::pipe().unwrap();
        drop(sender);
        let silent = heard(receiver, dir.path(), &log).await.unwrap_err();
        assert!(silent.message.ends_with("without a word: last words"), "{silent}");
    }
}
