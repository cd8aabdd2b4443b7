//! Names that are not ours: remembered, asked for once however many want to know, given up in time.
//!
//! | to know | look in |
//! |---|---|
//! | which servers are asked | [`servers`] |
//! | how one is asked: ids, ports, TCP | `exchange.rs` |
//! | what counts as its answer, how it becomes ours | `response.rs` |
//! | what is remembered, and how much | `cache.rs` |
//! | who waits for what | this file |

mod cache;
mod exchange;
mod response;
pub mod servers;

use super::answer::{Aliases, Forward};
use super::message::Rcode;
use cache::Cache;
use exchange::Failure;
use response::Stored;
use servers::HostServers;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

pub(crate) use response::compose;

/// Questions that are asked at one time. More than these are answered with SERVFAIL at once.
const MOST_QUESTIONS: usize = 512;
/// Askers that wait for the same answer.
const MOST_WAITING: usize = 256;
/// A server that did not answer comes last for this long.
const SICK: Duration = Duration::from_secs(20);

/// How long servers get. Resolvers in pods ask again after five seconds.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one server.
    pub attempt: Duration,
    /// Until SERVFAIL is the answer.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempt: Duration::from_millis(1200), total: Duration::from_millis(4000) }
    }
}

/// One question for the host's servers. Askers with equal ones share the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    /// Lower case, on the wire.
    pub(crate) name: Box<[u8]>,
    pub(crate) kind: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

impl Asked {
    pub(crate) fn of(forward: &Forward<'_>) -> Self {
        let query = &forward.query;
        let target = forward.aliases.as_ref().and_then(Aliases::target);
        Self {
            name: target.unwrap_or(query.name.wire()).into(),
            kind: query.kind,
            dnssec_ok: query.edns.is_some_and(|e| e.dnssec_ok),
            checking_disabled: query.checking_disabled(),
        }
    }
}

impl Aliases {
    /// The name that they lead to.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        self.steps.last().map(|(target, _)| &**target)
    }
}

/// What became of a question.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// An answer, and how many seconds ago it came.
    Answer(Arc<Stored>, u32),
    /// None: SERVFAIL.
    Nothing,
}

type Done = Box<dyn FnOnce(&Outcome) + Send>;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounts {
    /// Questions that servers were asked.
    pub asked: u64,
    /// Questions that the cache answered.
    pub cached: u64,
    /// Questions that nobody answered.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct State {
    cache: Cache,
    waiting: HashMap<Asked, Waiting>,
    sick: HashMap<SocketAddr, Instant>,
    counts: ForwardCounts,
}

#[derive(Default)]
struct Waiting(Vec<Done>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting", self.0.len())
    }
}

/// Asks the host's servers.
#[derive(Debug)]
pub struct Forwarder {
    servers: HostServers,
    patience: Patience,
    state: Mutex<State>,
    idle: Notify,
    runtime: Handle,
}

impl Forwarder {
    /// Asks `servers` from tasks of `runtime`.
    pub fn new(servers: HostServers, patience: Patience, runtime: Handle) -> Self {
        Self { servers, patience, state: Mutex::default(), idle: Notify::new(), runtime }
    }

    /// Counts since the start.
    pub fn counts(&self) -> ForwardCounts {
        self.state().counts
    }

    /// Which servers are asked now, the first first.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.servers.now().to_vec()
    }

    /// Addresses that are ours, so that no question goes in a circle.
    pub fn not_ourselves(&self, own: Vec<SocketAddr>) {
        self.servers.leave_out(own);
    }

    /// The answer, if it is remembered.
    pub(crate) fn remembered(&self, asked: &Asked) -> Option<Outcome> {
        let mut state = self.state();
        let found = state.cache.get(asked, Instant::now());
        state.counts.cached += u64::from(found.is_some());
        found
    }

    /// Has the answer told to `done`, soon but not now. Returns whether it will be: not when too many wait already.
    pub(crate) fn ask(self: &Arc<Self>, asked: Asked, done: Done) -> Result<(), Done> {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(&asked) {
            if waiting.0.len() >= MOST_WAITING {
                return Err(done);
            }
            waiting.0.push(done);
            return Ok(());
        }
        if state.waiting.len() >= MOST_QUESTIONS {
            return Err(done);
        }
        state.waiting.insert(asked.clone(), Waiting(vec![done]));
        state.counts.asked += 1;
        drop(state);
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = this.find(&asked).await;
            let waiting = {
                let mut state = this.state();
                match &outcome {
                    Outcome::Answer(stored, _) => state.cache.put(asked.clone(), stored, Instant::now()),
                    Outcome::Nothing => {
                        state.counts.failed += 1;
                        state.cache.put_failure(asked.clone(), Instant::now());
                    }
                }
                let waiting = state.waiting.remove(&asked).unwrap_or_default();
                if state.waiting.is_empty() {
                    state.waiting.shrink_to(16);
                    this.idle.notify_waiters();
                }
                waiting
            };
            for done in waiting.0 {
                done(&outcome);
            }
        });
        Ok(())
    }

    /// Waits until nobody waits for an answer.
    pub async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state().waiting.is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// One server after the other, healthy ones first, round and round until the time is over.
    async fn find(&self, asked: &Asked) -> Outcome {
        let deadline = Instant::now() + self.patience.total;
        let mut said = None;
        for round in 0..3 {
            for server in self.in_order() {
                let attempt = deadline.min(Instant::now() + self.patience.attempt);
                let failure = match timeout_at(attempt, exchange::exchange(server, asked)).await {
                    Ok(Ok(stored)) => {
                        self.state().sick.remove(&server);
                        match stored.rcode() {
                            // This one can't say; another may.
                            Rcode::ServFail | Rcode::Refused => {
                                said = Some(stored);
                                continue;
                            }
                            _ => return Outcome::Answer(Arc::new(stored), 0),
                        }
                    }
                    Ok(Err(failure)) => failure,
                    Err(_) => Failure::Silent,
                };
                tracing::debug!(%server, %failure, "a name server did not answer");
                self.state().sick.insert(server, Instant::now() + SICK);
                if Instant::now() >= deadline {
                    break;
                }
            }
            if said.is_some() || Instant::now() >= deadline {
                break;
            }
            // Servers that refuse at once are not asked as fast as they refuse.
            tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(100 << round))).await;
        }
        said.map_or(Outcome::Nothing, |stored| Outcome::Answer(Arc::new(stored), 0))
    }

    fn in_order(&self) -> Vec<SocketAddr> {
        let all = self.servers.now();
        let mut state = self.state();
        let now = Instant::now();
        state.sick.retain(|_, until| *until > now);
        let mut order = all.to_vec();
        order.sort_by_key(|server| state.sick.contains_key(server));
        order
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
