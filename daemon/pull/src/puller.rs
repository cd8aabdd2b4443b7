//! One pull from beginning to end.

use crate::blob::{self, BlobPath, Counter};
use crate::credentials::{Login, Logins};
use crate::error::{PullError, PullErrorKind, Result};
use crate::manifest::{self, ACCEPT, DOCUMENT, Descriptor, Document, Manifest, Platform};
use crate::options::{Endpoint, RegistryOptions};
use crate::session::{Ask, Session};
use crate::transport::Transport;
use hyper::http::Method;
use reddwarf_host::{ImageReference, PullProgress, PullRequest, PullSecret, PullStage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Parts that nobody went on with for so long are removed.
const STALE: Duration = Duration::from_secs(3600);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// What this host has already.
pub trait Local: Send + Sync {
    /// Whether the image that the registry calls so (`registry/repository@sha256:…`) is here.
    fn has(&self, repo_digest: &str) -> bool;

    /// Which layers must be fetched: one answer for each diff id, lowest first.
    fn missing(&self, diff_ids: &[String]) -> Vec<bool>;

    /// Whether there is room for so many bytes of blobs.
    ///
    /// # Errors
    /// How much there is, in words.
    fn room(&self, bytes: u64) -> std::result::Result<(), String>;
}

/// What came of a pull.
pub enum Pulled {
    /// The registry still has what is here.
    Same {
        /// `registry/repository@sha256:…`.
        repo_digest: String,
    },
    /// All that was missing is in files now, which are gone when this is dropped.
    Fetched(FetchedImage),
}

/// An image whose blobs are here.
pub struct FetchedImage {
    /// `registry/repository@sha256:…`.
    pub repo_digest: String,
    /// The config document; its digest is the image's id.
    pub config: String,
    /// The layers, lowest first.
    pub layers: Vec<FetchedLayer>,
    /// Bytes of all blobs, those that were here included.
    pub size_bytes: u64,
}

/// A layer of a fetched image.
pub struct FetchedLayer {
    /// Digest of the blob.
    pub digest: String,
    /// Digest of its content, by the config.
    pub diff_id: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Where it is; `None`: the host said that it has it.
    pub file: Option<PathBuf>,
    lease: Option<Arc<Lease>>,
}

impl FetchedImage {
    /// All is unpacked: the blobs are not needed any more.
    pub fn imported(self) {
        for lease in self.layers.iter().filter_map(|l| l.lease.as_ref()) {
            lease.used.store(true, Ordering::Relaxed);
        }
    }
}

/// The right to a blob's file; the last one's end removes it once it was used.
struct Lease {
    path: BlobPath,
    /// Two pulls of one blob: the second waits and finds it.
    turn: tokio::sync::Mutex<()>,
    used: AtomicBool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.used.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(&self.path.whole);
            let _ = std::fs::remove_file(&self.path.part);
        }
    }
}

/// Fetches images.
pub struct Puller {
    options: Arc<RegistryOptions>,
    platform: Platform,
    /// Where blobs lie until they are unpacked.
    dir: PathBuf,
    leases: Mutex<BTreeMap<String, Weak<Lease>>>,
}

impl Puller {
    /// `dir` is for blobs alone; made when it is missing.
    pub fn new(options: RegistryOptions, platform: Platform, dir: PathBuf) -> Self {
        Self { options: Arc::new(options), platform, dir, leases: Mutex::default() }
    }

    /// Fetches what is missing of an image. Cancel safe: what is half fetched is gone on with the next time, or removed
    /// after an hour.
    ///
    /// # Errors
    /// Of the registry itself; mirrors' failures are logged.
    pub async fn pull(
        &self,
        request: &PullRequest,
        local: &dyn Local,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Pulled> {
        let tell = |stage| progress.send_modify(|p| p.stage = stage);
        tell(PullStage::Resolving);
        self.make_directory()?;
        self.remove_stale();
        let reference = &request.reference;
        let logins = self.logins(&request.secrets, reference)?;
        let transport = Transport::new(self.options.clone());
        let mut endpoints = self.options.endpoints(reference.registry()).into_iter().peekable();
        while let Some(endpoint) = endpoints.next() {
            let authority = endpoint.authority.clone();
            let result = self.pull_from(&transport, endpoint, reference, logins.clone(), local, progress).await;
            match result {
                Err(error) if endpoints.peek().is_some() && error.kind != PullErrorKind::Exhausted => {
                    tracing::info!(image = %reference, mirror = authority, %error, "a mirror is passed over");
                    progress.send_replace(PullProgress { stage: PullStage::Resolving, ..PullProgress::default() });
                }
                other => return other,
            }
        }
        Err(PullError::new(PullErrorKind::Local, format!("{reference} has no registry")))
    }

    async fn pull_from(
        &self,
        transport: &Transport,
        endpoint: Endpoint,
        reference: &ImageReference,
        logins: Vec<Login>,
        local: &dyn Local,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Pulled> {
        // What a login is for is told by the name, not by the mirror: a mirror gets none of the registry's.
        let own = self.options.endpoints(reference.registry()).last() == Some(&endpoint);
        let logins = if own { logins } else { self.mirror_logins(&endpoint, reference)? };
        let session = Session::new(transport, endpoint, reference.repository(), logins);
        let (digest, manifest) = match resolve(&session, reference, local, &self.platform).await? {
            Resolved::Same(repo_digest) => return Ok(Pulled::Same { repo_digest }),
            Resolved::New(digest, manifest) => (digest, manifest),
        };
        let path = format!("blobs/{}", manifest.config.digest);
        let ask = Ask { method: Method::GET, path: &path, accept: "*/*", from: 0 };
        let (config, _, _) = session.document(&ask, DOCUMENT).await?;
        manifest::verify(&config, &manifest.config.digest, "the config")?;
        let diff_ids = manifest::diff_ids(&config, manifest.layers.len(), &self.platform)?;
        let config = String::from_utf8(config).map_err(|_| PullError::invalid("the image's config is not UTF-8"))?;
        let missing = local.missing(&diff_ids);
        let files = self.fetch(&session, &manifest.layers, &missing, local, progress).await?;
        let sizes = manifest.layers.iter().map(|l| l.size).fold(manifest.config.size, u64::saturating_add);
        let layers = manifest.layers.into_iter().zip(diff_ids).zip(files);
        let layers = layers.map(|((layer, diff_id), lease)| FetchedLayer {
            digest: layer.digest,
            diff_id,
            size: layer.size,
            file: lease.as_ref().map(|l| l.path.whole.clone()),
            lease,
        });
        let repo_digest = format!("{}@{digest}", reference.name());
        Ok(Pulled::Fetched(FetchedImage { repo_digest, config, layers: layers.collect(), size_bytes: sizes }))
    }

    /// Fetches the missing layers, a few at a time; the first failure ends it.
    async fn fetch(
        &self,
        session: &Session<'_>,
        layers: &[Descriptor],
        missing: &[bool],
        local: &dyn Local,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Vec<Option<Arc<Lease>>>> {
        let mut leases = Vec::new();
        let mut distinct: BTreeMap<&str, &Descriptor> = BTreeMap::new();
        for (layer, missing) in layers.iter().zip(missing) {
            leases.push(if *missing { Some(self.lease(&layer.digest)?) } else { None });
            if *missing {
                distinct.insert(&layer.digest, layer);
            }
        }
        let total: u64 = distinct.values().map(|l| l.size).fold(0, u64::saturating_add);
        local.room(total).map_err(|why| PullError::new(PullErrorKind::Exhausted, why))?;
        let layers_total = u32::try_from(layers.len()).unwrap_or(u32::MAX);
        let stage = PullStage::Fetching;
        progress.send_replace(PullProgress { stage, bytes_total: total, layers_total, ..PullProgress::default() });
        let done = Counter::new(0);
        let all = async {
            let mut waiting = distinct.values().copied();
            let mut running = Vec::new();
            loop {
                while running.len() < self.options.parallel.max(1)
                    && let Some(layer) = waiting.next()
                {
                    running.push(Box::pin(self.fetch_one(session, layer, &done)));
                }
                if running.is_empty() {
                    return Ok(());
                }
                let at = first_of(&mut running).await?;
                drop(running.swap_remove(at));
            }
        };
        let tell = async {
            let mut ticks = tokio::time::interval(TELL);
            loop {
                ticks.tick().await;
                let bytes = done.load(Ordering::Relaxed).min(total);
                progress.send_if_modified(|p| std::mem::replace(&mut p.bytes_done, bytes) != bytes);
            }
        };
        let result: Result<()> = tokio::select! {
            result = all => result,
            () = tell => Ok(()),
        };
        if let Err(error) = result {
            // A full disk is not kept full by what can't be finished.
            if error.kind == PullErrorKind::Exhausted {
                leases.iter().flatten().for_each(|l| l.used.store(true, Ordering::Relaxed));
            }
            return Err(error);
        }
        progress.send_modify(|p| p.bytes_done = total);
        Ok(leases)
    }

    async fn fetch_one(&self, session: &Session<'_>, layer: &Descriptor, done: &Counter) -> Result<()> {
        let lease = self.lease(&layer.digest)?;
        let _turn = lease.turn.lock().await;
        blob::fetch(session, layer, &lease.path, done).await
    }

    fn lease(&self, digest: &str) -> Result<Arc<Lease>> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get(digest).and_then(Weak::upgrade) {
            return Ok(lease);
        }
        leases.retain(|_, lease| lease.strong_count() > 0);
        let path = BlobPath::new(&self.dir, digest)?;
        let lease = Arc::new(Lease { path, turn: tokio::sync::Mutex::default(), used: AtomicBool::new(false) });
        leases.insert(digest.to_owned(), Arc::downgrade(&lease));
        Ok(lease)
    }

    fn make_directory(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(|e| PullError::file("make", &self.dir, &e))
    }

    /// Removes what was left half-way long ago.
    #[allow(clippy::disallowed_methods)] // Compared with files' times, which are by the wall clock as well.
    fn remove_stale(&self) {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<PathBuf> = leases
            .values()
            .filter_map(Weak::upgrade)
            .flat_map(|l| [l.path.whole.clone(), l.path.part.clone()])
            .collect();
        drop(leases);
        let now = std::time::SystemTime::now();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| now.duration_since(t).ok());
            if age.is_some_and(|age| age > STALE) && !live.contains(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Logins for an image: of whoever asks, then of the host.
    fn logins(&self, secrets: &[PullSecret], reference: &ImageReference) -> Result<Vec<Login>> {
        let mut found = Vec::new();
        for secret in secrets {
            match Logins::of_secret(secret) {
                Ok(logins) => found.extend(logins.matching(reference.registry(), reference.repository())),
                Err(error) => tracing::warn!(image = %reference, error, "a pull secret can't be read and is left out"),
            }
        }
        found.extend(self.host_logins()?.matching(reference.registry(), reference.repository()));
        found.dedup();
        Ok(found)
    }

    fn mirror_logins(&self, endpoint: &Endpoint, reference: &ImageReference) -> Result<Vec<Login>> {
        Ok(self.host_logins()?.matching(&endpoint.authority, reference.repository()))
    }

    /// The host's own credentials, read anew each time so that a changed file counts at once.
    fn host_logins(&self) -> Result<Logins> {
        let Some(path) = &self.options.credentials else { return Ok(Logins::default()) };
        let local = |message: String| PullError::new(PullErrorKind::Local, message);
        match read_private(path) {
            Ok(None) => Ok(Logins::default()),
            Ok(Some(bytes)) => {
                Logins::of_config(&bytes).map_err(|e| local(format!("registry_auth {}: {e}", path.display())))
            }
            Err(why) => Err(local(format!("registry_auth {}: {why}", path.display()))),
        }
    }
}

/// A file of secrets; `None` when there is none.
fn read_private(path: &Path) -> std::result::Result<Option<Vec<u8>>, String> {
    use std::os::unix::fs::PermissionsExt;
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| e.to_string())?,
    };
    if meta.permissions().mode() & 0o077 != 0 {
        return Err("others may read or write it: chmod 600".into());
    }
    if meta.len() > DOCUMENT as u64 {
        return Err("it has more than 4 MiB".into());
    }
    std::fs::read(path).map(Some).map_err(|e| e.to_string())
}

enum Resolved {
    Same(String),
    New(String, Manifest),
}

/// What a name means: asked for by HEAD first, which costs nothing where nothing is new.
async fn resolve(
    session: &Session<'_>,
    reference: &ImageReference,
    local: &dyn Local,
    platform: &Platform,
) -> Result<Resolved> {
    let repo_digest = |digest: &str| format!("{}@{digest}", reference.name());
    if let Some(digest) = reference.digest()
        && local.has(&repo_digest(digest))
    {
        return Ok(Resolved::Same(repo_digest(digest)));
    }
    let path = format!("manifests/{}", reference.wanted());
    if reference.digest().is_none() {
        let ask = Ask { method: Method::HEAD, path: &path, accept: ACCEPT, from: 0 };
        let digest = match session.ask(&ask).await {
            Ok(answer) => {
                answer.response.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()).map(str::to_owned)
            }
            // Not every registry answers HEAD; GET says what is wrong, in words.
            Err(error) if error.kind == PullErrorKind::Unreachable => return Err(error),
            Err(_) => None,
        };
        if let Some(digest) = digest.filter(|d| local.has(&repo_digest(d))) {
            return Ok(Resolved::Same(repo_digest(&digest)));
        }
    }
    let (bytes, _, media) = get(session, &path).await?;
    let top = manifest::digest_of(&bytes);
    if let Some(wanted) = reference.digest() {
        manifest::verify(&bytes, wanted, "the manifest")?;
    }
    if local.has(&repo_digest(&top)) {
        return Ok(Resolved::Same(repo_digest(&top)));
    }
    let mut document = manifest::read(&bytes, &media)?;
    for _ in 0..4 {
        match document {
            Document::Manifest(manifest) => return Ok(Resolved::New(top, manifest)),
            Document::Index(manifests) => {
                let chosen = manifest::choose(manifests, platform)?;
                let (bytes, _, media) = get(session, &format!("manifests/{}", chosen.digest)).await?;
                manifest::verify(&bytes, &chosen.digest, "the manifest")?;
                document = manifest::read(&bytes, &media)?;
            }
        }
    }
    Err(PullError::invalid("its indexes are nested too deep"))
}

async fn get(session: &Session<'_>, path: &str) -> Result<(Vec<u8>, Option<String>, String)> {
    let ask = Ask { method: Method::GET, path, accept: ACCEPT, from: 0 };
    session.document(&ask, DOCUMENT).await
}

/// Waits for the first of some futures; which one it was.
async fn first_of<F: Future<Output = Result<()>> + Unpin>(futures: &mut [F]) -> Result<usize> {
    std::future::poll_fn(|context| {
        for (at, future) in futures.iter_mut().enumerate() {
            if let std::task::Poll::Ready(result) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(result.map(|()| at));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
