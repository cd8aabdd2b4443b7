//! The loop under all controllers.
//!
//! One task follows the registry, keeps the view and hands out keys; each key is dealt with in a task of its own. Before keys
//! are handed out everything committed so far is in the view, so a controller always sees its own earlier writes: that is
//! what keeps it from making a pod twice, without bookkeeping of what it expects. Idle, the loop sleeps.

use super::controller::{Again, Context, Controller, Failure};
use super::id::Id;
use super::queue::Queue;
use super::view::{Change, View};
use reddwarf_host::time::leisurely;
use reddwarf_registry::{FollowAll, Registry, RegistryError, WatchError};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::{Id as TaskId, JoinError, JoinSet};
use tokio::time::Instant;

/// Keys dealt with at one time.
const WORKERS: usize = 16;
/// Everything is looked at again this often, whatever the watches said.
const FULL_PASS: Duration = Duration::from_secs(600);
/// Time before a broken watch is begun anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Which controller, which object.
type Work = (usize, Id);

/// Why the engine has to list everything anew.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The objects could not be listed.
    #[error("objects can't be listed: {0}")]
    List(#[from] RegistryError),
    /// The watch broke.
    #[error("the watch broke: {0}")]
    Watch(#[from] WatchError),
}

/// All controllers over one view.
pub struct Engine {
    context: Context,
    controllers: Vec<Arc<dyn Controller>>,
    queue: Queue<Work>,
    full_pass: Duration,
    watch: Option<FollowAll>,
}

impl Engine {
    /// Over a registry. Nothing is read before [`Engine::list`] or [`Engine::run`].
    pub fn new(registry: Registry, controllers: Vec<Arc<dyn Controller>>) -> Self {
        let context = Context::new(registry);
        Self { context, controllers, queue: Queue::new(WORKERS), full_pass: FULL_PASS, watch: None }
    }

    /// The view, for tests and figures.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Runs until the future is dropped. What breaks is said and begun anew.
    pub async fn run(mut self) {
        loop {
            let Err(error) = self.round().await;
            tracing::warn!(%error, "controllers list everything anew");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Lists everything, then follows it until that breaks.
    async fn round(&mut self) -> Result<std::convert::Infallible, EngineError> {
        let started = Instant::now();
        let now = || started.elapsed();
        // What an earlier round was about: moments of that round mean nothing in this one, and everything comes again.
        self.queue = Queue::new(WORKERS);
        self.list(now())?;
        let mut tasks: JoinSet<Result<Again, Failure>> = JoinSet::new();
        let mut running: HashMap<TaskId, Work> = HashMap::new();
        let mut pass = self.full_pass.mul_f64(0.9 + 0.2 * fastrand::f64());
        loop {
            self.drain(now())?;
            while let Some(work) = self.queue.take(now()) {
                if let Some(controller) = self.controllers.get(work.0).cloned() {
                    let (context, id) = (self.context.clone(), work.1.clone());
                    let task = tasks.spawn(async move { controller.sync(&context, &id).await });
                    running.insert(task.id(), work);
                }
            }
            let next = self.queue.next().map_or(pass, |next| next.min(pass));
            let wake = started + next;
            let Some(watch) = &mut self.watch else { return Err(WatchError::Closed.into()) };
            tokio::select! {
                followed = watch.next() => {
                    let change = self.write_view(|view| followed.map(|f| view.take(&f)))?;
                    self.trigger(change, now());
                }
                Some(ended) = tasks.join_next_with_id() => {
                    let (task, result) = outcome(ended);
                    if let Some(work) = running.remove(&task) {
                        self.finished(&work, result, now());
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if now() >= pass {
                        pass = now() + leisurely(self.full_pass);
                        self.look_at_everything(now());
                    }
                }
            }
        }
    }

    /// Lists everything and begins to follow it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn list(&mut self, now: Duration) -> Result<(), EngineError> {
        let mut view = View::default();
        let watch = self.context.registry.follow_all(&mut |followed| {
            view.take(&followed);
        })?;
        self.write_view(|old| *old = view);
        self.watch = Some(watch);
        self.look_at_everything(now);
        Ok(())
    }

    /// Takes in everything committed so far.
    ///
    /// # Errors
    /// When the watch broke.
    pub fn drain(&mut self, now: Duration) -> Result<(), EngineError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let mut changes = Vec::new();
        while let Some(followed) = watch.try_next()? {
            let taken = self.context.view.write().unwrap_or_else(PoisonError::into_inner).take(&followed);
            changes.extend(taken);
        }
        changes.into_iter().for_each(|change| self.trigger(Some(change), now));
        Ok(())
    }

    /// One key, chosen by `choose` among those that are due, dealt with to its end (for simulations). `None`: nothing is due.
    ///
    /// # Errors
    /// When the watch broke.
    pub async fn step(&mut self, now: Duration, choose: usize) -> Result<Option<(&'static str, Id)>, EngineError> {
        self.drain(now)?;
        let Some(work) = self.queue.take_nth(now, choose) else { return Ok(None) };
        let Some(controller) = self.controllers.get(work.0).cloned() else { return Ok(None) };
        let (context, id) = (self.context.clone(), work.1.clone());
        let name = controller.name();
        let ended = tokio::spawn(async move { controller.sync(&context, &id).await }).await;
        self.finished(&work, ended.map_err(|e| e.to_string()).map(|r| r.map_err(|e| e.to_string())), now);
        Ok(Some((name, work.1)))
    }

    /// When the next key is due, if none is added before.
    pub fn next_due(&self) -> Option<Duration> {
        self.queue.next()
    }

    fn write_view<T>(&self, write: impl FnOnce(&mut View) -> T) -> T {
        write(&mut self.context.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn look_at_everything(&mut self, now: Duration) {
        let all: Vec<_> = self.context.view().all().cloned().collect();
        for slim in all {
            self.trigger(Some(Change { before: None, after: Some(slim) }), now);
        }
    }

    /// Queues what a change concerns. A controller that panics on it is said; the others go on.
    fn trigger(&mut self, change: Option<Change>, now: Duration) {
        let Some(change) = change else { return };
        let view = self.context.view.read().unwrap_or_else(PoisonError::into_inner);
        for (index, controller) in self.controllers.iter().enumerate() {
            let queue = &mut self.queue;
            let mut add = |id: Id| queue.add((index, id), now);
            let called = catch_unwind(AssertUnwindSafe(|| controller.triggers(&view, &change, &mut add)));
            if called.is_err() {
                tracing::error!(
                    controller = controller.name(),
                    "it panicked on a change: this is a bug, please report it"
                );
            }
        }
    }

    fn finished(&mut self, work: &Work, result: Result<Result<Again, String>, String>, now: Duration) {
        let name = self.controllers.get(work.0).map_or("", |c| c.name());
        let failed = match result {
            Ok(Ok(Again(again))) => {
                self.queue.done(work);
                if let Some(wait) = again {
                    self.queue.add(work.clone(), now + wait);
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(panic) => {
                tracing::error!(controller = name, object = %work.1, panic, "it panicked: this is a bug, please report it");
                panic
            }
        };
        let wait = self.queue.failed(work, now, fastrand::f64());
        tracing::debug!(controller = name, object = %work.1, error = failed, ?wait, "tried again later");
    }
}

type Ended = Result<(TaskId, Result<Again, Failure>), JoinError>;

fn outcome(ended: Ended) -> (TaskId, Result<Result<Again, String>, String>) {
    match ended {
        Ok((task, result)) => (task, Ok(result.map_err(|e| e.to_string()))),
        Err(error) => (error.id(), Err(error.to_string())),
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("queue", &self.queue.len()).finish_non_exhaustive()
    }
}
