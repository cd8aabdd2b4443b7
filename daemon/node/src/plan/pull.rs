//! Images that are not here: when they are asked for, how long after a failure, and what is shown meanwhile.
//!
//! A pull is a step that only begins something: it holds neither the pod's worker nor its other containers. Its ticket
//! in [`super::Memory`] says how it stands; it is used up when the container is started.

use super::backoff::{self, BACKOFF_FIRST, BACKOFF_MOST, HEALTHY_AFTER};
use super::containers::Item;
use super::pod::Planner;
use super::step::{Effect, Notice, Op};
use crate::desired::{ConfigBytes, ConfigData, PodIntent};
use crate::translate;
use reddwarf_host::spec::ContainerSpec;
use reddwarf_host::{BootTime, ContainerName, PodUid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// For so long a failure shows as itself; then as the back-off that it causes.
const SHOWN: Duration = Duration::from_secs(2);

/// A registry that asks for a longer pause is asked again sooner than that.
const ASKED_MOST: Duration = Duration::from_secs(3600);

/// How the pulls for containers stand.
pub type Tickets = BTreeMap<(PodUid, ContainerName), Ticket>;

/// The pull for one start of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The image as the pod names it.
    pub image: String,
    /// The pull secrets with which it was asked for.
    pub secrets: Vec<Arc<ConfigBytes>>,
    /// How it stands.
    pub state: TicketState,
}

/// How a pull stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketState {
    /// Under way. The failure before it, if there was one.
    Running(Option<PullFailure>),
    /// The image is here, as the registry has it now.
    Ready,
    /// It failed.
    Failed(PullFailure),
}

/// A pull that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    /// `ErrImagePull` or `RegistryUnavailable`.
    pub reason: String,
    /// In words.
    pub message: String,
    /// When.
    pub at: BootTime,
    /// How long it is waited after it.
    pub wait: Duration,
}

impl PullFailure {
    /// The failure that follows `before`: 10 s, doubling to 5 minutes, as new after 10 minutes; longer where the registry
    /// asked for that, and an hour at most.
    pub fn after(before: Option<&Self>, reason: &str, message: String, at: BootTime, asked: Option<Duration>) -> Self {
        let before = before.filter(|b| at.since(b.at.plus(b.wait)) < HEALTHY_AFTER);
        let wait = before.map_or(BACKOFF_FIRST, |b| b.wait.saturating_mul(2).min(BACKOFF_MOST));
        let wait = wait.max(asked.unwrap_or_default().min(ASKED_MOST));
        Self { reason: reason.to_owned(), message, at, wait }
    }

    fn notice(&self, image: &str, now: BootTime) -> Notice {
        if now < self.at.plus(SHOWN) {
            return Notice::new(&self.reason, &self.message);
        }
        let message = format!("Back-off pulling image \"{image}\": {}: {}", self.reason, self.message);
        Notice::new("ImagePullBackOff", message)
    }
}

impl Ticket {
    /// The failure that was last, if the pull did not succeed since.
    pub fn failure(&self) -> Option<&PullFailure> {
        match &self.state {
            TicketState::Running(before) => before.as_ref(),
            TicketState::Failed(failure) => Some(failure),
            TicketState::Ready => None,
        }
    }
}

/// A pod's pull secrets as they are now, and the names of those that are not there.
pub fn pull_secrets<'a>(intent: &'a PodIntent, config: &ConfigData) -> (Vec<Arc<ConfigBytes>>, Vec<&'a str>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for secret in &intent.pod.spec.image_pull_secrets {
        match config.secrets.get(&(intent.key.namespace.clone(), secret.name.clone())) {
            Some(bytes) => found.push(bytes.clone()),
            None => missing.push(secret.name.as_str()),
        }
    }
    (found, missing)
}

impl Planner<'_> {
    /// If the container can't be made for want of its image: asks for it, unless that failed lately, and says what to
    /// show. `running` is the instance whose image it keeps.
    pub(super) fn fetch(&mut self, item: &Item<'_>, running: Option<&ContainerSpec>) -> Option<Notice> {
        let (intent, which) = (item.intent, item.which);
        if item.hold.is_some() || !translate::needs_pull(intent, which, self.view.facts(), running) {
            return None;
        }
        let image = &which.container.image;
        let field = format!("{}.image", which.field);
        let ticket = self.view.memory.pulls.get(&(intent.uid.clone(), which.name.clone()));
        let ticket = ticket.filter(|t| t.image == *image);
        if let Some(Ticket { state: TicketState::Running(before), .. }) = ticket {
            let pulling = || Notice::new("ContainerCreating", format!("image \"{image}\" is being pulled"));
            return Some(before.as_ref().map_or_else(pulling, |f| f.notice(image, self.now)).at(field));
        }
        if let Some(Ticket { state: TicketState::Failed(failure), secrets, .. }) = ticket {
            let retry = backoff::due(failure.at, failure.wait, self.now);
            let same_secrets = *secrets == pull_secrets(intent, &self.view.desired.config).0;
            if same_secrets && self.now < retry {
                self.wait(failure.at.plus(SHOWN));
                self.wait(retry);
                return Some(failure.notice(image, self.now).at(field));
            }
        }
        let op = Op::ImagePull {
            pod: self.key.clone(),
            uid: intent.uid.clone(),
            container: which.name.clone(),
            image: image.clone(),
        };
        let shown = match ticket.and_then(Ticket::failure) {
            Some(failure) => failure.notice(image, self.now),
            None => Notice::new("ContainerCreating", format!("image \"{image}\" is to be pulled")),
        };
        let here = matches!(self.view.images.by_name(image), Ok(Some(_)));
        let reason =
            if here { "its registry is asked at every start (imagePullPolicy Always)" } else { "it is not here" };
        self.push(Effect::Create, op, reason, Some(&field));
        Some(shown.at(field))
    }
}
