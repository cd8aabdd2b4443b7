//! The directory loop: files become objects, one registry transaction and one generation for every change.
//!
//! `run` waits for a notice of [`crate::watch`], a request of the [`DirectoryHandle`] or the periodic look; waits for a
//! moment of quiet; scans; lets [`pass::decide`] say what that means; applies it; publishes the [`DirectoryStatus`].

mod lost;
mod note;
pub mod pass;
mod publish;
pub mod rollback;
pub mod status;

use crate::guard::PruneGuard;
use crate::watch::{Arrival, DirectoryWatch, FileEvents};
use pass::{Ownership, Pass};
use reddwarf_config::directory::Trust;
use reddwarf_config::{HeldLayer, Limits, Scan, Scanner};
use reddwarf_host::time::leisurely;
use reddwarf_registry::{AppliedSet, ApplyOptions, Author, Registry, RegistryError, Verdict};
use reddwarf_store::{DeclaredKey, FileContent, NewFile, NewGeneration};
use rollback::Hold;
use status::DirectoryStatus;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How the directories are read.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// Layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Bounds on manifests.
    pub limits: Limits,
    /// Whose files are trusted.
    pub trust: Trust,
    /// Quiet that is waited for after a notice.
    pub debounce: Duration,
    /// The periodic look.
    pub resync: Duration,
    /// The brake on mass deletion.
    pub guard: PruneGuard,
    /// The Node object that events about files name.
    pub node_name: String,
    /// Where a rollback lays out a generation's files to read them, below the state directory.
    pub scratch: PathBuf,
}

/// Why a request to the directory loop failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The daemon is going down.
    #[error("the directory loop has ended; the daemon is shutting down")]
    Closed,
    /// No such generation.
    #[error("generation {0} is not retained; `reddwarfctl generations` lists those that are")]
    NoGeneration(u64),
    /// A generation's content is gone or unreadable.
    #[error("generation {number} can't be read back: {why}")]
    Damaged {
        /// Which.
        number: u64,
        /// Why.
        why: String,
    },
    /// The registry or store refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Files could not be written.
    #[error("{what}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct PassReport {
    /// The generation in force afterwards.
    pub generation: u64,
    /// Whether this pass recorded it.
    pub changed: bool,
    /// Every object with its verdict.
    pub applied: Option<AppliedSet>,
    /// Files written by a rollback.
    pub written: Vec<PathBuf>,
}

enum Request {
    Reload { allow_prune: bool, reply: oneshot::Sender<Result<PassReport, DirectoryError>> },
    Reread { reply: oneshot::Sender<Result<PassReport, DirectoryError>> },
    Rollback { number: u64, write: bool, reply: oneshot::Sender<Result<PassReport, DirectoryError>> },
}

/// Talks to the running loop. Cheap to clone.
#[derive(Clone)]
pub struct DirectoryHandle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<DirectoryStatus>>,
}

impl DirectoryHandle {
    /// What the last pass found.
    pub fn status(&self) -> Arc<DirectoryStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// Waits until `good` holds of the status.
    pub async fn wait_for(&self, good: impl FnMut(&Arc<DirectoryStatus>) -> bool) {
        let _ = self.status.clone().wait_for(good).await;
    }

    /// Reads the directories now; with `allow_prune` the guard lets this pass through.
    ///
    /// # Errors
    /// [`DirectoryError::Closed`], or why the pass failed.
    pub async fn reload(&self, allow_prune: bool) -> Result<PassReport, DirectoryError> {
        self.ask(|reply| Request::Reload { allow_prune, reply }).await
    }

    /// Puts the objects of a generation back in force, until the directory changes again; with `write` the files too.
    ///
    /// # Errors
    /// [`DirectoryError`] when the generation is not there, can't be read back, applied or written.
    pub async fn rollback(&self, number: u64, write: bool) -> Result<PassReport, DirectoryError> {
        self.ask(|reply| Request::Rollback { number, write, reply }).await
    }

    /// Forgets what is remembered of the store and applies the directories anew: the store was replaced by a backup.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub async fn reread(&self) -> Result<PassReport, DirectoryError> {
        self.ask(|reply| Request::Reread { reply }).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<PassReport, DirectoryError>>) -> Request,
    ) -> Result<PassReport, DirectoryError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| DirectoryError::Closed)?;
        answer.await.map_err(|_| DirectoryError::Closed)?
    }
}

/// The loop and what it remembers between passes.
pub struct DirectoryLoop {
    options: DirectoryOptions,
    registry: Registry,
    scanner: Option<Scanner>,
    watch: DirectoryWatch,
    ownership: Ownership,
    hold: Option<Hold>,
    last_files: Vec<(String, reddwarf_store::Digest)>,
    /// The layers that held files, as the store knows them.
    held: Vec<HeldLayer>,
    generation: u64,
    unfinished: bool,
    /// Files were read too soon after they changed to be sure of them.
    young: bool,
    /// A pass found nothing to do, and since then nothing changed and nothing was applied: no rollback is in force either.
    known: bool,
    said: Vec<String>,
    requests: mpsc::Receiver<Request>,
    publish: watch::Sender<Arc<DirectoryStatus>>,
}

/// Prepares the loop and its handle; [`DirectoryLoop::run`] starts it. `events`: how the system tells of changes where `notify` knows
/// no way.
///
/// # Errors
/// When the store's last generation can't be read.
pub fn directory(
    options: DirectoryOptions,
    registry: Registry,
    events: Option<Arc<dyn FileEvents>>,
) -> Result<(DirectoryLoop, DirectoryHandle), DirectoryError> {
    let (send, requests) = mpsc::channel(16);
    let (publish, status) = watch::channel(Arc::new(DirectoryStatus::default()));
    let scanner = Scanner::new(options.layers.clone(), options.limits, options.trust.clone());
    let watch = DirectoryWatch::new(options.layers.clone(), events);
    let mut this = DirectoryLoop {
        options,
        registry,
        scanner: Some(scanner),
        watch,
        ownership: Ownership::new(),
        hold: None,
        last_files: Vec::new(),
        held: Vec::new(),
        generation: 0,
        unfinished: false,
        young: false,
        known: false,
        said: Vec::new(),
        requests,
        publish,
    };
    this.remember()?;
    Ok((this, DirectoryHandle { requests: send, status }))
}

impl DirectoryLoop {
    /// Runs until `stop` resolves. The first pass comes at once.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        if let Err(error) = self.pass(false, false).await {
            tracing::error!(error = %error, "the manifest directories could not be applied; trying again");
        }
        let mut last_notice = Instant::now();
        loop {
            let mut early = false;
            let wait = match () {
                () if self.unfinished => Duration::from_millis(500),
                () if self.young => reddwarf_config::directory::YOUNG * 3 / 2,
                () => self.options.resync,
            };
            // Every branch only waits; nothing is lost when another one wins.
            tokio::select! {
                () = &mut stop => return,
                arrival = self.watch.changed() => {
                    early = arrival == Arrival::Whole && last_notice.elapsed() >= self.options.debounce;
                    last_notice = Instant::now();
                    if !early {
                        self.settle().await;
                    }
                }
                request = self.requests.recv() => {
                    let Some(request) = request else { return };
                    self.answer(request).await;
                    continue;
                }
                () = tokio::time::sleep(leisurely(wait)) => {}
            }
            self.watch.refresh();
            if let Err(error) = self.pass(false, early).await {
                tracing::error!(error = %error, "the manifest directories could not be applied; trying again");
            }
        }
    }

    /// Takes over what the store knows of earlier passes.
    fn remember(&mut self) -> Result<(), RegistryError> {
        let latest = self.registry.store().latest_generation()?;
        self.hold = rollback::load_hold(&self.registry)?;
        self.generation = latest.as_ref().map(|g| g.number).unwrap_or_default();
        self.last_files = latest.iter().flat_map(|g| &g.files).map(|f| (f.name.clone(), f.digest)).collect();
        self.ownership = latest.as_ref().map(pass::ownership_of).unwrap_or_default();
        self.held = lost::load(&self.registry)?;
        let expected = self.expected_layers();
        if let Some(scanner) = &mut self.scanner {
            scanner.expect(&expected);
        }
        Ok(())
    }

    fn expected_layers(&self) -> Vec<HeldLayer> {
        let files = self.last_files.iter().map(|(name, _)| name).chain(self.ownership.values());
        lost::expected(&self.options.layers, &self.held, files.map(String::as_str))
    }

    /// Waits until nothing changed for the debounce time, at most ten times that.
    async fn settle(&self) {
        let limit = Instant::now() + self.options.debounce * 10;
        loop {
            let quiet = tokio::time::timeout(self.options.debounce, self.watch.changed()).await.is_err();
            if quiet || Instant::now() >= limit {
                return;
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        // A caller who went away has no use for the answer.
        match request {
            Request::Reload { allow_prune, reply } => {
                self.watch.refresh();
                let _ = reply.send(self.pass(allow_prune, false).await);
            }
            Request::Reread { reply } => {
                let answer = match self.remember() {
                    Ok(()) => {
                        self.unfinished = true;
                        self.pass(false, false).await
                    }
                    Err(error) => Err(error.into()),
                };
                let _ = reply.send(answer);
            }
            Request::Rollback { number, write, reply } => {
                let _ = reply.send(self.rollback(number, write).await);
            }
        }
    }

    /// One look at the directories and everything that follows from it. An `early` one came with no wait for quiet,
    /// because all that happened is that whole files arrived; more may be on their way.
    async fn pass(&mut self, allow_prune: bool, early: bool) -> Result<PassReport, DirectoryError> {
        if let Some(scanner) = self.scanner.as_mut().filter(|_| allow_prune) {
            scanner.accept_losses();
        }
        let Some(mut scan) = self.scan().await else { return Err(DirectoryError::Closed) };
        self.keep_layers().await;
        if early && self.may_be_half(&scan) {
            self.settle().await;
            let changed = scan.changed;
            scan = self.scan().await.ok_or(DirectoryError::Closed)?;
            scan.changed |= changed;
        }
        let quiet = !scan.changed && !self.unfinished && !allow_prune && self.publish.borrow().passes > 0;
        // What was decided upon the same files would be decided again, with every object made for it.
        if quiet && self.known {
            self.publish_unchanged(&scan);
            return Ok(PassReport { generation: self.generation, ..PassReport::default() });
        }
        let files = pass::digests(&scan);
        if let Some(hold) = &self.hold {
            if hold.directory == files {
                self.publish_held(&scan);
                return Ok(PassReport { generation: self.generation, ..PassReport::default() });
            }
            rollback::forget_hold(&self.registry).await?;
            self.hold = None;
        }
        let decision = pass::decide(&scan, &self.ownership, self.options.guard, allow_prune);
        if quiet && decision.ownership == self.ownership {
            self.known = true;
            self.publish_unchanged(&scan);
            return Ok(PassReport { generation: self.generation, ..PassReport::default() });
        }
        let note = format!("{} files, {} objects", files.len(), scan.declared.len());
        self.apply(scan, decision, files, note, None).await
    }

    /// Does the directory look like a part of what it is about to be? An object that no file declares any more, or
    /// that two do, may just be moving from one file to another.
    fn may_be_half(&self, scan: &Scan) -> bool {
        let declared: BTreeSet<_> = scan.declared.iter().map(|d| &d.key).collect();
        !scan.diagnostics.is_empty() || !self.ownership.keys().all(|key| declared.contains(key))
    }

    /// Applies a decision in one transaction and publishes the outcome.
    async fn apply(
        &mut self,
        scan: Scan,
        decision: Pass,
        files: Vec<(String, reddwarf_store::Digest)>,
        note: String,
        rolled_back_from: Option<u64>,
    ) -> Result<PassReport, DirectoryError> {
        self.known = false;
        let record = files != self.last_files || decision.ownership != self.ownership || rolled_back_from.is_some();
        let generation = record.then(|| new_generation(&scan, &decision, &note, rolled_back_from));
        let options = ApplyOptions { prune: decision.prune.clone(), dry_run: false, generation, message: note };
        let author = Author::File("manifests".into());
        let applied = match self.registry.apply_set(&author, decision.set.clone(), options).await {
            Ok(applied) => applied,
            Err(error) => {
                self.unfinished = true;
                self.publish_failure(&error);
                return Err(error.into());
            }
        };
        self.unfinished = applied.objects.iter().any(|o| matches!(o.verdict, Verdict::Pending | Verdict::Refused(_)));
        self.generation = applied.generation.unwrap_or(self.generation);
        self.last_files = files;
        self.ownership.clone_from(&decision.ownership);
        self.publish_applied(&scan, &decision, &applied).await;
        Ok(PassReport {
            generation: self.generation,
            changed: applied.generation.is_some(),
            applied: Some(applied),
            written: Vec::new(),
        })
    }

    /// Scans off the async threads. `None` when the runtime is going down.
    async fn scan(&mut self) -> Option<Scan> {
        let mut scanner = self.scanner.take().unwrap_or_else(|| {
            let mut anew = Scanner::new(self.options.layers.clone(), self.options.limits, self.options.trust.clone());
            anew.expect(&self.expected_layers());
            anew
        });
        let (scanner, scan) = tokio::task::spawn_blocking(move || {
            let scan = scanner.scan();
            (scanner, scan)
        })
        .await
        .ok()?;
        self.scanner = Some(scanner);
        // A rollback looks too, and may fail before it applies anything.
        self.known &= !scan.changed;
        self.young = scan.young;
        Some(scan)
    }
}

fn new_generation(scan: &Scan, decision: &Pass, note: &str, rolled_back_from: Option<u64>) -> NewGeneration {
    let files = scan
        .files
        .iter()
        .filter_map(|f| {
            let text = f.text.as_ref()?;
            let name = f.path.display().to_string();
            Some(NewFile { name, content: FileContent::Bytes(text.as_bytes().to_vec().into()) })
        })
        .collect();
    let declared = decision
        .ownership
        .iter()
        .filter_map(|(key, file)| {
            Some(DeclaredKey { key: reddwarf_registry::store_key(key).ok()?, file: file.clone() })
        })
        .collect();
    NewGeneration {
        files,
        declared,
        diagnostics: serde_json::to_value(&scan.diagnostics).unwrap_or_default(),
        note: note.to_owned(),
        rolled_back_from,
    }
}
