//! What a controller is, and what it is given.

use super::act::{self, Action};
use super::id::Id;
use super::view::{Change, View};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_objects::Object;
use reddwarf_registry::{Registry, RegistryError};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// When a key wants to be looked at again although nothing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again(pub Option<Duration>);

impl Again {
    /// Only when something changes.
    pub const NEVER: Self = Self(None);

    /// After this time; the earlier of two.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(Some(self.0.map_or(wait, |earlier| earlier.min(wait))))
    }

    /// At this moment, seen from `now`: at once when it is past.
    #[must_use]
    pub fn at(self, then: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        // A moment late rather than early: times in objects are whole seconds.
        self.after((then - now).to_std().unwrap_or_default() + Duration::from_millis(5))
    }
}

/// Why a key could not be dealt with; it is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The registry refused or failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Something is missing that others may bring.
    #[error("{0}")]
    Wait(String),
}

/// A loop that turns objects into objects.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Its name: author of its writes and source of its events, as in the reference (`replicaset-controller`).
    fn name(&self) -> &'static str;

    /// Which keys a change concerns. Must be cheap, must not block.
    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id));

    /// Brings one key nearer to what is wanted. The view holds every write that was made before the call.
    ///
    /// # Errors
    /// [`Failure`]: the key is tried again.
    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure>;
}

/// What controllers read from and write to.
#[derive(Clone)]
pub struct Context {
    /// The one write path.
    pub registry: Registry,
    pub(super) view: Arc<RwLock<View>>,
}

impl Context {
    /// Over a registry, with an empty view.
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, view: Arc::default() }
    }

    /// The shared view; hold it briefly and never across an await.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wall-clock time.
    pub fn now(&self) -> DateTime<Utc> {
        self.registry.now()
    }

    /// The whole object, if it is there.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn find(&self, id: &Id) -> Result<Option<Object>, RegistryError> {
        self.registry.find(&id.key())
    }

    /// Carries actions out in order; the first failure ends it.
    ///
    /// # Errors
    /// [`Failure::Registry`].
    pub async fn act(&self, author: &'static str, actions: Vec<Action>) -> Result<(), Failure> {
        for action in actions {
            act::one(&self.registry, author, action).await?;
        }
        Ok(())
    }

    /// The same all at once, for actions that do not depend on one another: they share commits.
    ///
    /// # Errors
    /// The first failure; the others are carried out all the same.
    pub async fn act_together(&self, author: &'static str, actions: Vec<Action>) -> Result<(), Failure> {
        let all = actions.into_iter().map(|action| act::one(&self.registry, author, action));
        let results = futures_util::future::join_all(all).await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }
}
