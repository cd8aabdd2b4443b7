//! The pod lifecycle on this host: from pods that are wanted to processes that run, and back to their status.
//!
//! ```text
//!  control plane ──changes──→ view (desired) ──┐
//!  host ──events──→ queue ←──timers, full pass ─┤
//!                     │ one worker per pod      ↓
//!                     └──→ observe (shared) → plan (pure) → execute: reserve, host calls, release → status, events
//! ```
//!
//! What runs, all of it started by [`Node::start`]:
//!
//! | task | reads | writes |
//! |---|---|---|
//! | `run::follow_objects` | the control plane's changes | what is wanted, the queue |
//! | `run::follow_host` | the host's events | the queue |
//! | `run::dispatch` | the queue | starts workers: one per pod at a time, one for the host and the full pass |
//! | a worker | an observation, what is wanted | host calls, promises; statuses and events to their writers |
//! | `observe` | requests | one observation for all who wait |
//! | `run::write_statuses`, `run::write_events` | their queues | the control plane |
//! | `probe::run` | the jobs that workers ask for | one task a probe or hook: host calls, what they found, the queue |
//! | [`services::run`] (started by the daemon) | Services, EndpointSlices, pods, policies | the host's table of services; events |
//! | `heartbeat::beat` | the host, the newest observation | the Node object, the heartbeat |
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | `plan(desired, observed, reservations, memory, now)`: steps with reasons, nothing executed |
//! | [`probe`] | probes and lifecycle hooks: what is asked of containers while they run, and what follows |
//! | [`translate`] | from a pod to what is asked of a host |
//! | [`compare`] | what a changed field costs |
//! | [`desired`], [`follow`] | what is wanted, and how it keeps up |
//! | [`perform`] | one step carried out |
//! | [`queue`] | one slot per key, the earliest moment wins |
//! | [`status`], [`node_object`] | statuses of pods and node, pure |
//! | [`pressure`] | what the host is short of, who is evicted for it, who is let in, who comes back |
//! | `pulls`, [`images`] | pulls under way; which images are removed when room is needed |
//! | [`usage`] | what pods and node use: samples on demand, rates, the kubelet's summary |
//! | [`logs`] | reading CRI logs |
//! | [`tokens`] | tokens of pods' accounts: asked for, renewed, found again |
//! | [`control_plane`], [`registry_plane`] | all that the node needs of the control plane, and the registry as one |
//! | [`settings`], [`key`], [`observe`] | settings; which pod; shared observations |

pub mod compare;
pub mod control_plane;
pub mod desired;
mod events;
pub mod follow;
mod handle;
mod heartbeat;
pub mod images;
pub mod key;
pub mod logs;
pub mod node_object;
pub mod observe;
pub mod perform;
pub mod plan;
pub mod pressure;
pub mod probe;
mod pulls;
pub mod queue;
pub mod registry_plane;
mod run;
pub mod services;
pub mod settings;
mod state;
pub mod status;
pub mod tokens;
pub mod translate;
pub mod usage;

pub use handle::{Node, NodeDeps, NodeError, NodeHandle, NodeSummary, Planned, PlannedStep, Proposal, PullView, Why};
pub use images::{Collected, ImageCollection};
pub use key::PodKey;
pub use settings::{NodeSettings, NodeStorage, PruneGuard, StorageHealth};
pub use state::Record;
pub use tokens::{Token, TokenRequest, TokenSource};
