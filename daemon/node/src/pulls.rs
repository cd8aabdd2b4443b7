//! Pulls under way: each image once however many want it, a few at a time, beside the workers.

use crate::desired::{ConfigBytes, PodIntent};
use crate::events;
use crate::plan::{Op, PullFailure, Ticket, TicketState, pull_secrets};
use crate::run::{Shared, Work};
use crate::translate;
use reddwarf_host::{
    BootTime, ContainerName, HostErrorKind, HostResult, ImageReference, PodUid, PullProgress, PullRequest, PullSecret,
    PulledImage,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Images that are pulled at one time; others wait.
const PARALLEL: usize = 3;
/// How often a pod's events say how far a pull is.
const TELL: Duration = Duration::from_secs(20);
/// Pulls that came to their end and are still told of.
const REMEMBERED: usize = 32;

/// What came of a pull.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<PulledImage, Failed>,
    /// From its turn on.
    pub(crate) took: Duration,
}

/// A failure, as a waiting container shows it.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// For how long the registry asked to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// One pull, for all who want it.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) request: Arc<PullRequest>,
    pub(crate) progress: watch::Receiver<PullProgress>,
    pub(crate) outcome: watch::Receiver<Option<Outcome>>,
}

/// All pulls.
pub(crate) struct Pulls {
    turns: Semaphore,
    transfers: Mutex<Vec<Transfer>>,
}

impl Pulls {
    pub(crate) fn new() -> Self {
        Self { turns: Semaphore::new(PARALLEL), transfers: Mutex::default() }
    }

    fn transfers(&self) -> MutexGuard<'_, Vec<Transfer>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pulls under way and lately ended, the newest last.
    pub(crate) fn list(&self) -> Vec<Transfer> {
        self.transfers().clone()
    }
}

/// Joins the pull of that image, or begins it.
pub(crate) fn begin(shared: &Arc<Shared>, request: PullRequest) -> Transfer {
    let mut transfers = shared.pulls.transfers();
    let under_way = transfers.iter().find(|t| t.outcome.borrow().is_none() && *t.request == request);
    if let Some(transfer) = under_way {
        return transfer.clone();
    }
    let (progress, outcome) = (watch::Sender::new(PullProgress::default()), watch::Sender::new(None));
    let request = Arc::new(request);
    let transfer = Transfer { request: request.clone(), progress: progress.subscribe(), outcome: outcome.subscribe() };
    // Those of the same image tell of the newest only; of the others the oldest go first.
    transfers.retain(|t| t.outcome.borrow().is_none() || t.request.reference != request.reference);
    let ended = transfers.iter().filter(|t| t.outcome.borrow().is_some()).count();
    if ended >= REMEMBERED
        && let Some(oldest) = transfers.iter().position(|t| t.outcome.borrow().is_some())
    {
        transfers.remove(oldest);
    }
    transfers.push(transfer.clone());
    drop(transfers);
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut stop = shared.stop.subscribe();
        let ended = tokio::select! {
            ended = pull(&shared, &request, &progress) => ended,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        outcome.send_replace(Some(ended));
    });
    transfer
}

async fn pull(shared: &Shared, request: &PullRequest, progress: &watch::Sender<PullProgress>) -> Outcome {
    // Never closed.
    let _turn = shared.pulls.turns.acquire().await;
    let begun = shared.now();
    tracing::info!(image = %request.reference, "pulling");
    let result = shared.host.image_pull(request, progress).await;
    let took = shared.now().since(begun);
    match &result {
        Ok(image) => {
            tracing::info!(image = %request.reference, digest = image.repo_digest, fetched = image.fetched, ?took, "pulled")
        }
        Err(error) => tracing::warn!(image = %request.reference, error = %error.chain(), "not pulled"),
    }
    Outcome { result: failed(&request.reference, result), took }
}

fn failed(reference: &ImageReference, result: HostResult<PulledImage>) -> Result<PulledImage, Failed> {
    result.map_err(|error| {
        let text = match &error.source {
            Some(source) => format!("{}: {source}", error.message),
            None => error.message.clone(),
        };
        match error.kind {
            HostErrorKind::Unreachable => Failed {
                reason: "RegistryUnavailable",
                message: format!("image pull failed for {reference} because the registry is unavailable: {text}"),
                retry_after: error.retry_after,
            },
            _ => Failed { reason: "ErrImagePull", message: text, retry_after: error.retry_after },
        }
    })
}

/// Carries out [`Op::ImagePull`]: begins, and sees to what follows in a task of its own.
pub(crate) fn begin_for_container(shared: &Arc<Shared>, op: &Op) {
    let Op::ImagePull { pod, uid, container, image } = op else { return };
    let Ok(reference) = ImageReference::parse(image) else { return };
    let key = (uid.clone(), container.clone());
    let begun = shared.now();
    let (intent, secrets) = {
        let mut state = shared.state();
        let Some(intent) = state.desired.pods.get(pod).filter(|i| i.uid == *uid).cloned() else { return };
        let (secrets, missing) = pull_secrets(&intent, &state.desired.config);
        if !missing.is_empty() {
            shared.event(&intent.object, events::pull_secrets_missing(&missing));
        }
        let before = state.memory.pulls.get(&key).filter(|t| t.image == *image).and_then(Ticket::failure).cloned();
        let ticket = Ticket { image: image.clone(), secrets: secrets.clone(), state: TicketState::Running(before) };
        state.memory.pulls.insert(key, ticket);
        (intent, secrets)
    };
    if let Some(which) = translate::containers(&intent).iter().find(|c| c.name == *container) {
        shared.event(&intent.object, events::pulling(which));
    }
    let request = PullRequest { reference, secrets: secrets.iter().flat_map(|s| documents(s)).collect() };
    let mut transfer = begin(shared, request);
    let (shared, container, image) = (shared.clone(), container.clone(), image.clone());
    tokio::spawn(async move {
        let progress = transfer.progress.clone();
        let outcome = tokio::select! {
            ended = transfer.outcome.wait_for(Option::is_some) => ended.map(|o| o.clone()),
            () = tell_progress(&shared, &intent, &container, progress) => return,
        };
        // Its sender ends without a word when the node stops.
        let Ok(outcome) = outcome else { return };
        if let Some(outcome) = outcome {
            end_for_container(&shared, &intent, &container, &image, outcome, begun);
        }
    });
}

/// Says again and again how far a pull is that takes its time; never ends.
async fn tell_progress(
    shared: &Shared,
    intent: &PodIntent,
    container: &ContainerName,
    progress: watch::Receiver<PullProgress>,
) {
    let mut before = PullProgress::default();
    loop {
        tokio::time::sleep(TELL).await;
        let now = *progress.borrow();
        let containers = translate::containers(intent);
        if let Some(which) = containers.iter().find(|c| c.name == *container).filter(|_| now != before) {
            shared.event(&intent.object, events::pull_progress(which, &now));
        }
        before = now;
    }
}

fn end_for_container(
    shared: &Shared,
    intent: &PodIntent,
    container: &ContainerName,
    image: &str,
    outcome: Outcome,
    begun: BootTime,
) {
    let now = shared.now();
    let containers = translate::containers(intent);
    let which = containers.iter().find(|c| c.name == *container);
    let event = which.map(|which| match &outcome.result {
        Ok(pulled) => events::pulled(which, outcome.took, now.since(begun), pulled.size_bytes),
        Err(failed) => events::pull_failed(which, &failed.message),
    });
    if let Some(event) = event {
        shared.event(&intent.object, event);
    }
    {
        let mut state = shared.state();
        let key: (PodUid, ContainerName) = (intent.uid.clone(), container.clone());
        if let Some(ticket) = state.memory.pulls.get_mut(&key).filter(|t| t.image == image) {
            ticket.state = match outcome.result {
                Ok(_) => TicketState::Ready,
                Err(Failed { reason, message, retry_after }) => {
                    TicketState::Failed(PullFailure::after(ticket.failure(), reason, message, now, retry_after))
                }
            };
        }
    }
    shared.enqueue(Work::Pod(intent.key.clone()), now);
}

/// The documents of one Secret.
fn documents(secret: &ConfigBytes) -> Vec<PullSecret> {
    let json = secret.get(".dockerconfigjson").cloned().map(PullSecret::DockerConfigJson);
    let older = secret.get(".dockercfg").cloned().map(PullSecret::DockerCfg);
    json.into_iter().chain(older).collect()
}
