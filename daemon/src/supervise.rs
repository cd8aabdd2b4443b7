//! The daemon's long-lived tasks. Never half-alive: a task that ends by itself takes the daemon down with a non-zero
//! exit, and the service manager starts it again; pods never notice.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The named tasks of the daemon.
pub(crate) struct Components {
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    state: States,
    stop: CancellationToken,
}

/// Which components run, for `/readyz`.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl States {
    /// Every component with what is wrong with it.
    pub(crate) fn all(&self) -> Vec<(&'static str, Result<(), String>)> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(name, state)| (*name, state.clone())).collect()
    }

    /// Records how a component is.
    pub(crate) fn set(&self, name: &'static str, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
    }
}

impl Components {
    /// None yet; `stop` tells all of them to end.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), state: States::default(), stop }
    }

    /// Which components run.
    pub(crate) fn states(&self) -> States {
        self.state.clone()
    }

    /// Runs `task` until it ends; it must end soon after the token is cancelled.
    pub(crate) fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.state.set(name, Ok(()));
        let inner = tokio::spawn(task);
        self.tasks.spawn(async move {
            match inner.await {
                Ok(result) => (name, result),
                Err(join) if join.is_panic() => (name, Err("it panicked: this is a bug, please report it".into())),
                Err(_) => (name, Ok(())),
            }
        });
    }

    /// Waits until one ends although nobody asked, and says which and why.
    pub(crate) async fn failed(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                None => std::future::pending().await,
                Some(_) if self.stop.is_cancelled() => {}
                Some(Ok((name, result))) => {
                    let why = result.err().unwrap_or_else(|| "it ended by itself".into());
                    self.state.set(name, Err(why.clone()));
                    return format!("component {name} failed: {why}");
                }
                Some(Err(join)) => return format!("a component was lost: {join}"),
            }
        }
    }

    /// Waits for all to end after the token was cancelled.
    pub(crate) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut components = Components::new(CancellationToken::new());
        components.spawn("steady", std::future::pending());
        components.spawn("shaky", async { panic!("on purpose") });
        let said = components.failed().await;
        assert!(said.contains("shaky") && said.contains("panicked"), "{said}");
        let states = components.states().all();
        assert_eq!(states.iter().filter(|(_, s)| s.is_err()).map(|(n, _)| *n).collect::<Vec<_>>(), ["shaky"]);
    }

    #[tokio::test]
    async fn tasks_that_end_when_told_are_no_failure() {
        let stop = CancellationToken::new();
        let mut components = Components::new(stop.clone());
        let token = stop.clone();
        components.spawn("polite", async move {
            token.cancelled().await;
            Ok(())
        });
        stop.cancel();
        components.finish().await;
    }
}
