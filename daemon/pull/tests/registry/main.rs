//! Pulls from a small registry of the tests' own, which fails as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod faults;
mod login;
mod pulls;
mod server;
mod tls;

use reddwarf_host::{ImageReference, PullProgress, PullRequest, PullSecret};
use reddwarf_pull::{Local, Platform, PullError, Pulled, Puller, RegistryOptions};
use server::Server;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A host that has what it is told.
#[derive(Default)]
pub(crate) struct Here {
    pub(crate) digests: Vec<String>,
    pub(crate) diff_ids: Vec<String>,
    pub(crate) full: bool,
}

impl Local for Here {
    fn has(&self, repo_digest: &str) -> bool {
        self.digests.iter().any(|d| d == repo_digest)
    }

    fn missing(&self, diff_ids: &[String]) -> Vec<bool> {
        diff_ids.iter().map(|id| !self.diff_ids.contains(id)).collect()
    }

    fn room(&self, bytes: u64) -> Result<(), String> {
        if self.full { Err(format!("no space left on device for {bytes} bytes")) } else { Ok(()) }
    }
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: RegistryOptions,
    pub(crate) here: Here,
}

impl World {
    pub(crate) fn new() -> Self {
        let options = RegistryOptions { patience: Duration::from_millis(500), ..RegistryOptions::default() };
        Self { server: Server::start(), dir: tempfile::tempdir().unwrap(), options, here: Here::default() }
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.path().join("pulls")
    }

    pub(crate) async fn pull(&self, image: &str) -> Result<Pulled, PullError> {
        self.pull_with(image, Vec::new()).await
    }

    /// `image` is without its registry.
    pub(crate) async fn pull_with(&self, image: &str, secrets: Vec<PullSecret>) -> Result<Pulled, PullError> {
        self.pull_named(&format!("{}/{image}", self.server.address), secrets).await
    }

    pub(crate) async fn pull_named(&self, name: &str, secrets: Vec<PullSecret>) -> Result<Pulled, PullError> {
        let puller = Puller::new(self.options.clone(), Platform::new("linux", "amd64"), self.blobs());
        let request = PullRequest { reference: ImageReference::parse(name).unwrap(), secrets };
        let progress = watch::Sender::new(PullProgress::default());
        puller.pull(&request, &self.here, &progress).await
    }

    /// Names and lengths of what lies in the directory of blobs.
    pub(crate) fn left(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.blobs()).into_iter().flatten().flatten();
        let mut all: Vec<_> =
            entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect();
        all.sort();
        all
    }
}

/// What was fetched of an image, layer by layer; `None`: it was here.
pub(crate) fn contents(pulled: Pulled) -> Vec<Option<Vec<u8>>> {
    match pulled {
        Pulled::Same { .. } => panic!("nothing was fetched"),
        Pulled::Fetched(image) => {
            let all = image.layers.iter().map(|l| l.file.as_ref().map(|f| std::fs::read(f).unwrap())).collect();
            image.imported();
            all
        }
    }
}

pub(crate) fn error(result: Result<Pulled, PullError>) -> PullError {
    match result {
        Ok(_) => panic!("it was pulled"),
        Err(error) => error,
    }
}
