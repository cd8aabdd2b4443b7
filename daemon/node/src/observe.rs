//! Observations of the host, shared: whoever asks while one is being taken waits for the next, together with all
//! others. So every answer was begun after its question, and their number does not grow with the pods'.

use reddwarf_host::{Clock, Host, HostObservation, Observation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Asks for observations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    questions: mpsc::Sender<oneshot::Sender<Arc<HostObservation>>>,
}

impl Observer {
    /// Starts the task that observes; it ends with the last clone.
    pub fn start(host: Arc<dyn Host>, clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<_>>(1024);
        tokio::spawn(async move {
            while let Some(first) = asked.recv().await {
                let mut waiting = vec![first];
                while let Ok(next) = asked.try_recv() {
                    waiting.push(next);
                }
                let observation = Arc::new(observe(&*host, &*clock, limit).await);
                for answer in waiting {
                    // Whoever no longer waits does not need it.
                    let _ = answer.send(observation.clone());
                }
            }
        });
        Self { questions }
    }

    /// The host as it is now: the observation begins after this call.
    pub async fn fresh(&self) -> Arc<HostObservation> {
        let (answer, waiting) = oneshot::channel();
        if self.questions.send(answer).await.is_err() {
            return Arc::new(nothing_known("the node is shutting down"));
        }
        waiting.await.unwrap_or_else(|_| Arc::new(nothing_known("the node is shutting down")))
    }
}

async fn observe(host: &dyn Host, clock: &dyn Clock, limit: Duration) -> HostObservation {
    match tokio::time::timeout(limit, host.observe()).await {
        Ok(observation) => observation,
        Err(_) => {
            let message = format!("the host did not answer within {} s", limit.as_secs());
            HostObservation { at: clock.boot(), ..nothing_known(&message) }
        }
    }
}

/// A host that could not be asked.
fn nothing_known(why: &str) -> HostObservation {
    HostObservation {
        at: reddwarf_host::BootTime::default(),
        sandboxes: Observation::Unknown(why.to_owned()),
        network: Observation::Unknown(why.to_owned()),
        leftovers: Vec::new(),
        images: Observation::Unknown(why.to_owned()),
    }
}
